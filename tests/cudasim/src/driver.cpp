// The calls of libcuda that cudarc makes. `NEED` refuses what the real one refuses without a context.
#include "driver.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

static thread_local void *context;
#define NEED                                                       \
    if (!context) {                                                \
        problem(std::string(__func__) + " without a context"); \
        return INVALID_CONTEXT;                                    \
    }

// ---- devices

// CUDASIM_CUINIT: what it returns instead.
API cuInit(unsigned) {
    const char *given = getenv("CUDASIM_CUINIT");
    static int result = given ? atoi(given) : demand_what_drivers_demand();
    return result;
}
API cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}
// CUDASIM_DEVICES: how many there are.
int device_count() {
    const char *given = getenv("CUDASIM_DEVICES");
    return given ? atoi(given) : 1;
}
// A context's handle says which device it is of.
constexpr size_t FIRST_CONTEXT = 16;
int current_device() { return context ? (int)((size_t)context - FIRST_CONTEXT) : 0; }

API cuDeviceGetCount(int *count) {
    *count = device_count();
    return SUCCESS;
}
API cuDeviceGet(int *device, int number) {
    *device = number;
    return number >= 0 && number < device_count() ? SUCCESS : INVALID_DEVICE;
}
API cuDeviceGetName(char *name, int length, int) {
    snprintf(name, length, "cudasim");
    return SUCCESS;
}
API cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 16: *value = 132; break; // multiprocessors
    case 75: *value = 9; break;   // compute capability, major
    case 76: *value = 0; break;   // and minor
    case 81: *value = SHARED_OF_MULTIPROCESSOR; break;
    default: *value = 1;
    }
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = total_bytes();
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void **handle, int device) {
    *handle = (void *)(FIRST_CONTEXT + device);
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void *handle) {
    context = handle;
    return SUCCESS;
}
API cuCtxGetCurrent(void **handle) {
    *handle = context;
    return SUCCESS;
}
API cuCtxSynchronize() {
    stream_of(nullptr).synchronize();
    return SUCCESS;
}

// ---- streams and events

API cuStreamCreate(void **handle, unsigned) {
    NEED *handle = new Stream(current_device());
    return SUCCESS;
}
API cuStreamDestroy_v2(void *handle) {
    delete (Stream *)handle;
    return SUCCESS;
}
API cuStreamSynchronize(void *handle) {
    NEED count("wait");
    stream_of(handle).synchronize();
    return SUCCESS;
}
API cuStreamIsCapturing(void *, int *status) {
    *status = 0;
    return SUCCESS;
}

struct Event {
    std::mutex lock;
    std::condition_variable changed;
    long recorded = 0, done = 0;
    long latest() {
        std::lock_guard<std::mutex> guard(lock);
        return recorded;
    }
    void wait(long until) {
        std::unique_lock<std::mutex> guard(lock);
        changed.wait(guard, [&] { return done >= until; });
    }
};
API cuEventCreate(void **handle, unsigned) {
    NEED *handle = new Event;
    count("event");
    return SUCCESS;
}
// Kept: what waits for it may still look.
API cuEventDestroy_v2(void *) { return SUCCESS; }
API cuEventRecord(void *handle, void *stream) {
    NEED Event *event = (Event *)handle;
    long number;
    {
        std::lock_guard<std::mutex> guard(event->lock);
        number = ++event->recorded;
    }
    stream_of(stream).push([event, number] {
        std::lock_guard<std::mutex> guard(event->lock);
        event->done = number;
        event->changed.notify_all();
    });
    return SUCCESS;
}
API cuEventSynchronize(void *handle) {
    Event *event = (Event *)handle;
    event->wait(event->latest());
    pool_wait(current_device());
    return SUCCESS;
}
API cuEventQuery(void *handle) {
    Event *event = (Event *)handle;
    std::lock_guard<std::mutex> guard(event->lock);
    return event->done >= event->recorded ? SUCCESS : NOT_READY;
}
API cuStreamWaitEvent(void *stream, void *handle, unsigned) {
    Event *event = (Event *)handle;
    long until = event->latest();
    stream_of(stream).push([event, until] { event->wait(until); });
    return SUCCESS;
}

// ---- memory

API cuMemAllocAsync(device_ptr *at, size_t bytes, void *stream) {
    NEED count("allocation", bytes);
    int device = stream_of(stream).device;
    Result allocated = allocate(at, bytes, device);
    if (allocated == SUCCESS) pool_take(device, bytes);
    return allocated;
}
API cuMemAlloc_v2(device_ptr *at, size_t bytes) {
    NEED count("allocation", bytes);
    return allocate(at, bytes, current_device());
}
API cuMemFreeAsync(device_ptr at, void *stream) {
    pool_give(at);
    stream_of(stream).push([at] { release(at); });
    return SUCCESS;
}
API cuMemFree_v2(device_ptr at) {
    stream_of(nullptr).synchronize();
    release(at);
    return SUCCESS;
}
API cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    NEED *at = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    remember_pinned(*at, bytes);
    count("pinned", bytes);
    return SUCCESS;
}
API cuMemFreeHost(void *at) {
    forget_pinned(at);
    free(at);
    return SUCCESS;
}
API cuMemGetInfo_v2(size_t *available, size_t *total) {
    NEED *available = free_bytes(current_device());
    *total = total_bytes();
    return SUCCESS;
}
// A pool's handle is that of its device.
constexpr size_t POOL = 32;
API cuDeviceGetDefaultMemPool(void **pool, int device) {
    *pool = (void *)(POOL + device);
    return SUCCESS;
}
API cuMemPoolSetAttribute(void *pool, int attribute, void *value) {
    constexpr int RELEASE_THRESHOLD = 4;
    if (attribute == RELEASE_THRESHOLD) pool_keep((size_t)pool - POOL, *(uint64_t *)value);
    return SUCCESS;
}

API cuMemcpyHtoDAsync_v2(device_ptr to, const void *from, size_t bytes, void *stream) {
    NEED check(to, bytes, "copy", stream_of(stream).device);
    if (is_pinned(from)) {
        count("upload, pinned", bytes);
        stream_of(stream).push([=] { memcpy((void *)to, from, bytes); });
        return SUCCESS;
    }
    // The real one copies pageable memory before it returns.
    count("upload, pageable", bytes);
    std::vector<char> staged((const char *)from, (const char *)from + bytes);
    stream_of(stream).push([to, staged = std::move(staged)] { memcpy((void *)to, staged.data(), staged.size()); });
    return SUCCESS;
}
API cuMemcpyHtoD_v2(device_ptr to, const void *from, size_t bytes) {
    check(to, bytes, "copy", current_device());
    count("upload, pageable", bytes);
    stream_of(nullptr).synchronize();
    memcpy((void *)to, from, bytes);
    return SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void *to, device_ptr from, size_t bytes, void *stream) {
    NEED check(from, bytes, "copy", stream_of(stream).device);
    count("download", bytes);
    stream_of(stream).synchronize();
    memcpy(to, (void *)from, bytes);
    return SUCCESS;
}
API cuMemcpyDtoDAsync_v2(device_ptr to, device_ptr from, size_t bytes, void *stream) {
    NEED check(to, bytes, "copy", stream_of(stream).device);
    check(from, bytes, "copy", stream_of(stream).device);
    count("copy", bytes);
    stream_of(stream).push([=] { memmove((void *)to, (void *)from, bytes); });
    return SUCCESS;
}
API cuMemcpyPeerAsync(device_ptr to, void *to_context, device_ptr from, void *from_context, size_t bytes, void *stream) {
    NEED check(to, bytes, "copy", (size_t)to_context - FIRST_CONTEXT);
    check(from, bytes, "copy", (size_t)from_context - FIRST_CONTEXT);
    count("copy to another device", bytes);
    stream_of(stream).push([=] { memmove((void *)to, (void *)from, bytes); });
    return SUCCESS;
}
API cuMemsetD8Async(device_ptr at, unsigned char value, size_t bytes, void *stream) {
    check(at, bytes, "set", stream_of(stream).device);
    count("set", bytes);
    stream_of(stream).push([=] { memset((void *)at, value, bytes); });
    return SUCCESS;
}

// ---- modules and kernels

struct Module {
    std::string ptx;
};
API cuModuleLoadData(void **module, const void *image) {
    NEED *module = new Module{(const char *)image};
    count("module", strlen((const char *)image));
    return SUCCESS;
}
API cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void *) { return cuModuleLoadData(module, image); }
API cuModuleUnload(void *) { return SUCCESS; }
API cuModuleGetFunction(void **function, void *module, const char *name) {
    if (((Module *)module)->ptx.find(std::string(".entry ") + name + "(") == std::string::npos) {
        problem(std::string("the PTX has no ") + name);
        return NOT_FOUND;
    }
    const Kernel *kernel = find_kernel(name);
    if (!kernel) {
        problem(std::string("there is no kernel ") + name);
        return NOT_FOUND;
    }
    *function = (void *)kernel;
    return SUCCESS;
}
API cuFuncSetAttribute(void *function, int attribute, int value) {
    constexpr int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES) return SUCCESS;
    if (value < 0 || (unsigned)value > SHARED_OF_BLOCK) return INVALID_VALUE;
    ((const Kernel *)function)->most_shared = value;
    return SUCCESS;
}

API cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **parameters, void **) {
    NEED const Kernel &kernel = *(const Kernel *)function;
    uint64_t threads = (uint64_t)bx * by * bz, blocks = (uint64_t)gx * gy * gz;
    if (!threads || !blocks || threads > 1024 || bz > 64 || gx > 0x7fffffff || gy > 65535 || gz > 65535) {
        problem("launch of " + kernel.name + " with a bad grid");
        return INVALID_VALUE;
    }
    if (shared > kernel.most_shared) {
        problem("launch of " + kernel.name + " with more shared memory than was asked for");
        return INVALID_VALUE;
    }
    count("kernel " + kernel.name, threads * blocks);
    count("launches on device " + std::to_string(stream_of(stream).device));
    // Arguments are copied now, as the driver does.
    auto copied = std::make_shared<std::vector<std::vector<uint64_t>>>();
    for (const unsigned *size = kernel.sizes; *size; size++) {
        copied->emplace_back((*size + 7) / 8);
        memcpy(copied->back().data(), parameters[copied->size() - 1], *size);
        // Any argument of this size may be an address; what is none lies in no allocation.
        if (*size == sizeof(device_ptr)) check_device(copied->back()[0], "argument of " + kernel.name, stream_of(stream).device);
    }
    stream_of(stream).push([=, &kernel] {
        std::vector<void *> arguments;
        for (auto &argument : *copied) arguments.push_back(argument.data());
        static std::mutex one_at_a_time; // shared memory is static
        std::lock_guard<std::mutex> guard(one_at_a_time);
        run_kernel(kernel, {gx, gy, gz}, {bx, by, bz}, shared, arguments.data());
    });
    return SUCCESS;
}

// ---- errors

API cuGetErrorName(int error, const char **name) {
    static const std::map<int, const char *> names = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
    };
    auto found = names.find(error);
    *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
    return SUCCESS;
}
API cuGetErrorString(int, const char **text) {
    *text = "simulated";
    return SUCCESS;
}
