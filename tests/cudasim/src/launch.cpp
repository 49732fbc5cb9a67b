// Running kernels: each thread of a block that meets a barrier or shuffle is a fiber.
#include "driver.h"

#include <map>
#include <sys/mman.h>
#include <vector>

thread_local uint3s threadIdx, blockIdx, blockDim, gridDim;

static std::map<std::string, Kernel> &kernels() {
    static auto *all = new std::map<std::string, Kernel>;
    return *all;
}
sim_kernel::sim_kernel(const char *name, sim_call call, const unsigned *sizes) {
    Kernel &kernel = kernels()[name];
    kernel.name = name, kernel.call = call, kernel.sizes = sizes;
}
const Kernel *find_kernel(const std::string &name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

// Saves the registers a call must keep, and goes on where `to` was saved.
extern "C" void sim_switch(void **from, void *to);
asm(R"(
.globl sim_switch
.hidden sim_switch
sim_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
)");

namespace {
constexpr size_t STACK = 64 << 10;
constexpr int WARP = 32;
enum class State { Running, AtWarp, AtBlock, Done };
struct Fiber {
    void *sp;
    char *stack;
    State state;
    uint3s index;
    uint64_t shown[4];
};

thread_local std::vector<Fiber> pool;
thread_local Fiber *current; // none while a kernel runs without fibers
thread_local int count_of_fibers;
thread_local void *scheduler;
thread_local sim_call running;
thread_local void **running_arguments;

void pause_as(State state) {
    Fiber *me = current;
    me->state = state;
    sim_switch(&me->sp, scheduler);
    current = me;
    threadIdx = me->index;
}

void fiber_main() {
    running(running_arguments);
    current->state = State::Done;
    sim_switch(&current->sp, scheduler);
    abort();
}

void prepare(Fiber &fiber, uint3s index) {
    if (!fiber.stack) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        fiber.stack = (char *)mmap(0, STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
    }
    fiber.state = State::Running;
    fiber.index = index;
    void **sp = (void **)(fiber.stack + STACK - 64);
    *--sp = 0; // where a debugger stops to look for callers
    *--sp = (void *)fiber_main;
    fiber.sp = sp - 6;
}

void resume(Fiber &fiber) {
    current = &fiber;
    threadIdx = fiber.index;
    sim_switch(&scheduler, fiber.sp);
    current = nullptr;
}

uint3s index_of(int i, uint3s block) { return {i % block.x, i / block.x % block.y, i / block.x / block.y}; }

// Runs the threads of a warp until all wait for the block or are done.
void run_warp(int begin, int end) {
    while (true) {
        int at_warp = 0, at_block = 0;
        for (int i = begin; i < end; i++) {
            if (pool[i].state == State::Running) resume(pool[i]);
            at_warp += pool[i].state == State::AtWarp;
            at_block += pool[i].state == State::AtBlock;
        }
        if (!at_warp) return;
        if (at_block) problem("threads of a warp wait for different things");
        for (int i = begin; i < end; i++)
            if (pool[i].state == State::AtWarp) pool[i].state = State::Running;
    }
}

// In every other block the last threads and warps come first: what depends on an order differs between blocks.
int nth(int i, int count, bool backwards) { return backwards ? count - 1 - i : i; }

// Ends where a page begins that nobody may touch.
unsigned char *const end_of_shared = [] {
    constexpr size_t PAGE = 4096;
    char *base = (char *)mmap(0, SHARED_OF_BLOCK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(base + SHARED_OF_BLOCK, PAGE, PROT_NONE);
    return (unsigned char *)base + SHARED_OF_BLOCK;
}();
unsigned char *shared_memory;

// Most kernels have neither barriers nor shuffles. The first thread tells: if it is done at once, so are the others
// without fibers, and a barrier that only they meet is a problem.
void run_block(uint3s block) {
    int threads = block.x * block.y * block.z;
    if ((int)pool.size() < threads) pool.resize(threads, Fiber{});
    count_of_fibers = threads;
    const bool backwards = (blockIdx.x + blockIdx.y + blockIdx.z) % 2;
    prepare(pool[0], {0, 0, 0});
    resume(pool[0]);
    if (pool[0].state == State::Done) {
        for (int i = 1; i < threads; i++) {
            threadIdx = index_of(1 + nth(i - 1, threads - 1, backwards), block);
            running(running_arguments);
        }
        return;
    }
    for (int i = 1; i < threads; i++) prepare(pool[i], index_of(i, block));
    for (bool alive = true; alive;) {
        const int warps = (threads + WARP - 1) / WARP;
        for (int i = 0; i < warps; i++) {
            const int first = nth(i, warps, backwards) * WARP;
            run_warp(first, std::min(threads, first + WARP));
        }
        alive = false;
        for (int i = 0; i < threads; i++) {
            if (pool[i].state != State::AtBlock) continue;
            pool[i].state = State::Running;
            alive = true;
        }
    }
}
} // namespace

unsigned char *sim_shared() { return shared_memory; }

void sim_barrier() {
    if (!current) return problem("a barrier that the first thread of the block does not meet");
    pause_as(State::AtBlock);
}

uint64_t sim_exchange(uint64_t value, int lane_mask) {
    if (!current) {
        problem("a shuffle that the first thread of the block does not meet");
        return value;
    }
    int me = current - pool.data();
    current->shown[0] = value;
    pause_as(State::AtWarp);
    int other = (me & ~(WARP - 1)) | ((me & (WARP - 1)) ^ lane_mask);
    uint64_t got = value;
    if (other < count_of_fibers && pool[other].state != State::Done)
        got = pool[other].shown[0];
    else
        problem("a shuffle with a thread that is not there");
    pause_as(State::AtWarp);
    return got;
}

sim_warp::sim_warp(const void *mine, size_t bytes) {
    if (!current) {
        problem("a warp that the first thread of the block does not meet");
        return;
    }
    memcpy(current->shown, mine, bytes);
    pause_as(State::AtWarp);
}
sim_warp::~sim_warp() {
    if (current) pause_as(State::AtWarp);
}
int sim_warp::lane() const { return current ? (current - pool.data()) % WARP : 0; }
const void *sim_warp::of(int lane) const {
    int first = current ? (current - pool.data()) / WARP * WARP : 0;
    return pool[first + lane].shown;
}

void run_kernel(const Kernel &kernel, uint3s grid, uint3s block, unsigned shared, void **arguments) {
    shared_memory = end_of_shared - shared;
    blockDim = block;
    gridDim = grid;
    running = kernel.call;
    running_arguments = arguments;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                memset(shared_memory, 0xff, shared); // nobody has written it: NaN
                run_block(block);
            }
}
