// What libcuda of release 570 and later does when it starts, and takes for a failure of the operating system if it
// may not: it names threads through /proc, and binds and listens on an abstract socket. Seen with strace on drivers
// 570 to 590; `@cuda-uvmfd-*` hands the file of unified memory to other processes.
#include "driver.h"

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

namespace {
// Names a thread as pthread_setname_np does for another one; returns errno.
int name_a_thread() {
    int error = 0;
    std::thread thread([&] {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%ld/comm", (long)syscall(SYS_gettid));
        int file = open(path, O_WRONLY | O_CLOEXEC);
        if (file < 0 || write(file, "cuda-EvtHandlr", 14) < 0) error = errno;
        if (file >= 0) close(file);
    });
    thread.join();
    return error;
}

// Returns errno; keeps the socket if it is to.
int listen_locally(const char *suffix, bool keep) {
    int error = 0, handle = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (handle < 0) return errno;
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "cuda-uvmfd-sim-%d%s", getpid(), suffix);
    socklen_t size = offsetof(sockaddr_un, sun_path) + 1 + length;
    if (bind(handle, (sockaddr *)&address, size) < 0 || listen(handle, 16) < 0) error = errno;
    if (error || !keep) close(handle);
    return error;
}

std::string cache_file() {
    const char *folder = getenv("CUDA_CACHE_PATH");
    return folder ? std::string(folder) + "/index" : "";
}

// The cache of compiled kernels; a driver does without if it can't be written.
bool write_cache() {
    std::string path = cache_file();
    int file = path.empty() ? -1 : open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return false;
    bool written = write(file, "kernels", 7) == 7;
    close(file);
    return written;
}

bool read_cache() {
    std::string path = cache_file();
    int file = path.empty() ? -1 : open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) close(file);
    return file >= 0;
}
} // namespace

Result demand_what_drivers_demand() {
    if (int error = name_a_thread()) {
        problem(std::string("cuInit: writing /proc/self/task/TID/comm: ") + strerror(error));
        return OPERATING_SYSTEM;
    }
    if (int error = listen_locally("", true)) {
        problem(std::string("cuInit: binding and listening on @cuda-uvmfd: ") + strerror(error));
        return OPERATING_SYSTEM;
    }
    int memory = syscall(SYS_memfd_create, "cuda", 1);
    if (memory < 0) {
        problem(std::string("cuInit: memfd_create: ") + strerror(errno));
        return OPERATING_SYSTEM;
    }
    close(memory);
    if (write_cache()) count("cache written");
    return SUCCESS;
}

std::string granted_now() {
    std::string granted;
    auto add = [&](const char *name, bool is) {
        if (is) granted += std::string(granted.empty() ? "" : ", ") + '"' + name + '"';
    };
    add("comm", name_a_thread() == 0);
    add("bind", listen_locally("-end", false) == 0);
    add("write cache", write_cache());
    add("read cache", read_cache());
    return "[" + granted + "]";
}
