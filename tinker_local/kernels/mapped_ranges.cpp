#include "mapped_ranges.hpp"

#ifdef _WIN32  // where a file that is mapped cannot become shorter

int tinker::protect_range(uintptr_t, uintptr_t) { return -1; }
bool tinker::is_range_lost(int) { return false; }
void tinker::renew_handler() {}
void tinker::forget_range(int) {}

#else

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>

namespace tinker {
namespace {

// Handlers read this table, so it never moves and has no locks. A range is there while `begin` is not 0.
struct Range {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<bool> is_lost{false};
};
constexpr int kMostRanges = 1024;
Range ranges[kMostRanges];
std::mutex registering;  // taken by whoever changes the table, never by a handler

uintptr_t page_size = 4096;
struct sigaction previous;  // the handler that was there before ours
// Handlers may be above and below ours at once. So one that we call may call ours again, or send the signal once
// more, as faulthandler does after its report: both mean the end.
std::atomic<bool> is_passing_on{false}, has_passed_fault{false};

// Puts zeros in the place of a range's memory from the page of `address` on. mmap is not on POSIX's list of
// what a handler may call; on Linux and macOS it is a bare system call.
bool replace(uintptr_t address) {
  for (Range& range : ranges) {
    const uintptr_t begin = range.begin.load(), end = range.end.load();
    if (begin == 0 || address < begin || address >= end) continue;
    range.is_lost.store(true);
    void* page = reinterpret_cast<void*>(address & ~(page_size - 1));
    const size_t size = end - reinterpret_cast<uintptr_t>(page);
    return mmap(page, size, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == page;
  }
  return false;
}

// What the process would have done without us: another handler (faulthandler's, a debugger's), or the end.
void pass_on(int number, siginfo_t* info, void* context, bool is_fault) {
  const bool has_handler = previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN;
  const bool is_again = !is_fault && has_passed_fault.load() && info->si_pid == getpid();
  if (is_fault) has_passed_fault.store(true);
  if (!has_handler || is_again || is_passing_on.exchange(true)) {
    struct sigaction end = {};
    end.sa_handler = SIG_DFL;
    sigaction(number, &end, nullptr);
    raise(number);
    return;
  }
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(number, info, context);
  } else {
    previous.sa_handler(number);
  }
  is_passing_on.store(false);
}

void on_bus_error(int number, siginfo_t* info, void* context) {
  const int error = errno;
#ifdef __linux__
  const bool is_fault = info->si_code > 0;  // else somebody sent it, and there is no address
#else
  const bool is_fault = true;
#endif
  if (!is_fault || !replace(reinterpret_cast<uintptr_t>(info->si_addr))) {
    pass_on(number, info, context, is_fault);
  }
  errno = error;
}

// On the signal stack where a thread has one: faulthandler relies on that when a stack has overflowed.
void install() {
  struct sigaction there = {};
  sigaction(SIGBUS, nullptr, &there);
  if ((there.sa_flags & SA_SIGINFO) && there.sa_sigaction == on_bus_error) return;
  previous = there;
  page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction ours = {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace

int protect_range(uintptr_t begin, uintptr_t end) {
  const std::lock_guard<std::mutex> lock(registering);
  for (int number = 0; number < kMostRanges; ++number) {
    Range& range = ranges[number];
    if (range.begin.load()) continue;
    install();
    range.is_lost.store(false);
    range.end.store(end);
    range.begin.store(begin);  // last: from now on it counts
    return number;
  }
  return -1;
}

void renew_handler() {
  const std::lock_guard<std::mutex> lock(registering);
  install();
}

bool is_range_lost(int number) {
  return number >= 0 && number < kMostRanges && ranges[number].is_lost.load();
}

void forget_range(int number) {
  const std::lock_guard<std::mutex> lock(registering);
  if (number >= 0 && number < kMostRanges) ranges[number].begin.store(0);
}

}  // namespace tinker

#endif
