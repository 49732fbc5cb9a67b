// Counts of launches, copies and allocations, written as one line of JSON at the program's end.
#include "driver.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <unistd.h>

namespace {
struct Count {
    long times = 0;
    double amount = 0;
};

// Never destroyed: streams and the program's own destructors may count until the very end.
struct Counts {
    std::mutex lock;
    std::map<std::string, Count> by_name;
    std::string problems;
    long problem_count = 0;
};
Counts &counts() {
    static Counts *all = new Counts;
    return *all;
}

std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c < ' ' ? ' ' : c;
    }
    return out + '"';
}

// What a program found wrong ends with, where CUDASIM_STRICT asks for it.
constexpr int WRONG = 70;

// To standard error: behind the worker's walls no file can be written.
void print();
void at_end() {
    if (getenv("CUDASIM_STATS")) print();
    if (!getenv("CUDASIM_STRICT")) return;
    if (long blocks = unreleased_blocks()) problem(std::to_string(blocks) + " allocations are never released");
    if (counts().problem_count == 0) return;
    fflush(nullptr);
    _exit(WRONG);
}

void print() {
    Counts &all = counts();
    std::string granted = granted_now();
    std::lock_guard<std::mutex> guard(all.lock);
    std::string line = "cudasim: {\"problems\": [" + all.problems + "], \"problem_count\": " + std::to_string(all.problem_count)
        + ", \"peak_bytes\": " + std::to_string(peak_bytes()) + ", \"unreleased\": " + std::to_string(unreleased_blocks())
        + ", \"granted_at_end\": " + granted + ", \"counts\": {";
    bool first = true;
    for (auto &[name, count] : all.by_name) {
        char numbers[80];
        snprintf(numbers, sizeof numbers, ": [%ld, %.17g]", count.times, count.amount);
        line += (first ? "" : ", ") + quoted(name) + numbers;
        first = false;
    }
    fprintf(stderr, "%s}}\n", line.c_str());
}

[[maybe_unused]] const int at_exit = atexit(at_end);
} // namespace

void count(const std::string &what, double amount) {
    Counts &all = counts();
    std::lock_guard<std::mutex> guard(all.lock);
    Count &one = all.by_name[what];
    one.times++;
    one.amount += amount;
}

void problem(const std::string &text) {
    Counts &all = counts();
    std::lock_guard<std::mutex> guard(all.lock);
    if (all.problem_count++ >= 20) return;
    if (!all.problems.empty()) all.problems += ", ";
    all.problems += quoted(text);
    fprintf(stderr, "cudasim: %s\n", text.c_str());
}
