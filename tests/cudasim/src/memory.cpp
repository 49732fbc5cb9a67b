// Device memory: pages of the host, poisoned at first, with a guard page behind each allocation.
#include "driver.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <sys/mman.h>

namespace {
constexpr size_t PAGE = 4096, ALIGNMENT = 256;
constexpr unsigned char UNWRITTEN = 0xff, BEHIND = 0xa5; // 0xff.. is a NaN in every float type

struct Block {
    size_t bytes;
    size_t mapped;
    // None for pinned memory of the host.
    int device;
};
constexpr int HOST = -1;
std::mutex lock;
std::map<device_ptr, Block> &blocks() {
    static auto *all = new std::map<device_ptr, Block>;
    return *all;
}
constexpr int MOST_DEVICES = 16;
std::atomic<long> live[MOST_DEVICES], peak;

// The driver's pool of a device (CUDA's guide, "stream-ordered memory allocator"): what is freed on a stream serves what is
// allocated later on it, and goes back to the system when the host waits, but for what the pool is told to keep. Without
// holes between its blocks, which the real one has.
struct Pool {
    size_t used = 0, reserved = 0, keep = 0;
} pools[MOST_DEVICES];

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// The block that holds an address; the lock is held.
const std::pair<const device_ptr, Block> *holding(device_ptr at) {
    auto next = blocks().upper_bound(at);
    if (next == blocks().begin()) return nullptr;
    auto &found = *--next;
    return at < found.first + found.second.bytes ? &found : nullptr;
}
} // namespace

long total_bytes() {
    const char *megabytes = getenv("CUDASIM_MEMORY_MB");
    return (megabytes ? atol(megabytes) : 81559) << 20;
}
long free_bytes(int device) { return total_bytes() - live[device]; }
long peak_bytes() { return peak; }

Result allocate(device_ptr *at, size_t bytes, int device) {
    if (bytes == 0) {
        problem("allocation of nothing");
        return INVALID_VALUE;
    }
    if ((long)bytes > free_bytes(device)) {
        count("out of memory");
        return OUT_OF_MEMORY;
    }
    size_t rounded = round_up(bytes, ALIGNMENT), pages = round_up(rounded, PAGE);
    char *base = (char *)mmap(0, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(base + pages, PAGE, PROT_NONE);
    char *start = base + pages - rounded;
    memset(start, UNWRITTEN, bytes);
    memset(start + bytes, BEHIND, rounded - bytes);
    long now = live[device] += bytes;
    for (long was = peak; was < now && !peak.compare_exchange_weak(was, now);) {}
    std::lock_guard<std::mutex> guard(lock);
    blocks()[(device_ptr)start] = {bytes, pages + PAGE, device};
    *at = (device_ptr)start;
    return SUCCESS;
}

void pool_take(int device, size_t bytes) {
    size_t before, after;
    {
        std::lock_guard<std::mutex> guard(lock);
        Pool &pool = pools[device];
        before = pool.reserved;
        pool.used += bytes;
        after = pool.reserved = std::max(pool.reserved, pool.used);
    }
    if (after > before) count("growth of the pool", after - before);
}
void pool_give(device_ptr at) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = blocks().find(at);
    if (found != blocks().end()) pools[found->second.device].used -= found->second.bytes;
}
void pool_wait(int device) {
    std::lock_guard<std::mutex> guard(lock);
    Pool &pool = pools[device];
    pool.reserved = std::min(pool.reserved, std::max(pool.used, pool.keep));
}
void pool_keep(int device, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    pools[device].keep = bytes;
}

void release(device_ptr at) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = blocks().find(at);
    if (found == blocks().end()) return problem("release of what is not allocated");
    Block block = found->second;
    size_t rounded = round_up(block.bytes, ALIGNMENT);
    for (size_t i = block.bytes; i < rounded; i++) {
        if (((unsigned char *)at)[i] == BEHIND) continue;
        problem("written past the end of an allocation of " + std::to_string(block.bytes) + " bytes");
        break;
    }
    munmap((char *)at + rounded - (block.mapped - PAGE), block.mapped);
    live[block.device] -= block.bytes;
    blocks().erase(found);
}

long unreleased_blocks() {
    std::lock_guard<std::mutex> guard(lock);
    return blocks().size();
}

void check(device_ptr at, size_t bytes, const char *what, int device) {
    std::lock_guard<std::mutex> guard(lock);
    auto *block = holding(at);
    if (!block)
        problem(std::string(what) + " outside of device memory");
    else if (at + bytes > block->first + block->second.bytes)
        problem(std::string(what) + " beyond an allocation");
    else if (block->second.device != device)
        problem(std::string(what) + " in the memory of another device");
}

void check_device(device_ptr at, const std::string &what, int device) {
    std::lock_guard<std::mutex> guard(lock);
    auto *block = holding(at);
    if (block && block->second.device != HOST && block->second.device != device)
        problem(what + " in the memory of another device");
}

void remember_pinned(void *at, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    blocks()[(device_ptr)at] = {bytes, 0, HOST};
}
void forget_pinned(void *at) {
    std::lock_guard<std::mutex> guard(lock);
    blocks().erase((device_ptr)at);
}
bool is_pinned(const void *at) {
    std::lock_guard<std::mutex> guard(lock);
    auto *block = holding((device_ptr)at);
    return block && block->second.device == HOST;
}
