// What the parts of the simulated driver share.
#pragma once
#include "sim.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

// Results of the driver's calls, as in cuda.h.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    OPERATING_SYSTEM = 304,
    NOT_FOUND = 500,
    NOT_READY = 600,
};

typedef unsigned long long device_ptr;

// A function of the library.
#define API extern "C" __attribute__((visibility("default"))) int

// ---- counts.cpp: what was done, and what was wrong with it

// Counts an event; `amount` is bytes, threads or floating-point operations.
void count(const std::string &what, double amount = 0);
// Notes a mistake of the program. The run goes on, so that all are found.
void problem(const std::string &text);

// ---- start.cpp: what the driver demands of the system

Result demand_what_drivers_demand();
// Which of the driver's demands the system would grant now.
std::string granted_now();

// ---- driver.cpp: the device of the calling thread's context

int device_count();
int current_device();

// ---- launch.cpp

struct Kernel {
    std::string name;
    sim_call call;
    // Sizes of its arguments, ended by 0.
    const unsigned *sizes;
    // Bytes of shared memory that a launch may ask for.
    mutable std::atomic<unsigned> most_shared = 48 << 10;
};
// Shared memory of a block: at most, and of all blocks that a multiprocessor runs at once (an H100's).
constexpr unsigned SHARED_OF_BLOCK = 227 << 10, SHARED_OF_MULTIPROCESSOR = 228 << 10;
const Kernel *find_kernel(const std::string &name);
void run_kernel(const Kernel &kernel, uint3s grid, uint3s block, unsigned shared, void **arguments);

// ---- stream.cpp

// A queue of work, done in order by a thread of its own.
class Stream {
public:
    explicit Stream(int device);
    ~Stream();
    void push(std::function<void()> work);
    void synchronize();
    const int device;

private:
    void loop();
    std::mutex lock;
    std::condition_variable changed;
    std::deque<std::function<void()>> waiting;
    bool busy = false, stopping = false;
    std::thread thread;
};
// Handles 0, 1 and 2 are the default stream's of the current device.
Stream &stream_of(void *handle);

// ---- memory.cpp

Result allocate(device_ptr *at, size_t bytes, int device);
void release(device_ptr at);
// What a device's pool is told, in the order of the calls: taken from it, given back to it, a wait of the host, how much
// it keeps beyond that.
void pool_take(int device, size_t bytes);
void pool_give(device_ptr at);
void pool_wait(int device);
void pool_keep(int device, size_t bytes);
// Of each device.
long total_bytes();
long free_bytes(int device);
long peak_bytes();
long unreleased_blocks();
void remember_pinned(void *at, size_t bytes);
void forget_pinned(void *at);
bool is_pinned(const void *at);
// Notes a problem unless all of the bytes are one allocation's on that device.
void check(device_ptr at, size_t bytes, const char *what, int device);
// Notes a problem if the address is another device's.
void check_device(device_ptr at, const std::string &what, int device);
