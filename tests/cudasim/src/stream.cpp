// Streams: each a queue of work that a thread does in order.
#include "driver.h"

Stream::Stream() : thread([this] { loop(); }) {}

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

// Handles 0, 1 and 2 are the default stream's; it is never destroyed.
Stream &stream_of(void *handle) {
    static Stream *standard = new Stream;
    return (size_t)handle <= 2 ? *standard : *(Stream *)handle;
}
