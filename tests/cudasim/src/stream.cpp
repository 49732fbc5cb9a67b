// Streams: each a queue of work that a thread does in order.
#include "driver.h"

#include <vector>

Stream::Stream(int device) : device(device), thread([this] { loop(); }) {}

Stream::~Stream() {
    synchronize();
    {
        std::lock_guard<std::mutex> guard(lock);
        stopping = true;
        changed.notify_all();
    }
    thread.join();
}

void Stream::push(std::function<void()> work) {
    std::lock_guard<std::mutex> guard(lock);
    waiting.push_back(std::move(work));
    changed.notify_all();
}

void Stream::synchronize() {
    std::unique_lock<std::mutex> guard(lock);
    changed.wait(guard, [&] { return waiting.empty() && !busy; });
    pool_wait(device);
}

void Stream::loop() {
    std::unique_lock<std::mutex> guard(lock);
    while (true) {
        changed.wait(guard, [&] { return stopping || !waiting.empty(); });
        if (waiting.empty()) return;
        auto work = std::move(waiting.front());
        waiting.pop_front();
        busy = true;
        guard.unlock();
        work();
        guard.lock();
        busy = false;
        changed.notify_all();
    }
}

// The default streams are never destroyed.
Stream &stream_of(void *handle) {
    static std::vector<Stream *> *standard = [] {
        auto *all = new std::vector<Stream *>;
        for (int device = 0; device < device_count(); device++) all->push_back(new Stream(device));
        return all;
    }();
    return (size_t)handle <= 2 ? *(*standard)[current_device()] : *(Stream *)handle;
}
