// Threads that share the rows of a call: started when first needed, and kept.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#ifdef _WIN32
#include <process.h>
#else
#include <unistd.h>
#endif

namespace tinker {

// Runs tasks 0..n-1 on the calling thread and up to n_threads - 1 others. Threads claim tasks one by
// one, so a thread that wakes late costs nothing: the others have done its share.
class Pool {
 public:
  template <class Task>
  static void run(int n_threads, int n_tasks, Task&& task) {
    if (n_threads > 1 && n_tasks > 1) {
      Job job{[](void* t, int i) { (*static_cast<Task*>(t))(i); }, &task, n_tasks};
      instance().run(n_threads, job);
      if (job.failed) throw std::bad_alloc();
    } else {
      for (int i = 0; i < n_tasks; ++i) task(i);
    }
  }

 private:
  struct Job {
    void (*call)(void*, int);
    void* task;
    int n_tasks;
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};  // a task had no memory: nothing else throws

    Job(void (*call)(void*, int), const void* task, int n_tasks)
        : call(call), task(const_cast<void*>(task)), n_tasks(n_tasks) {}
    void work() {
      try {
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n_tasks;) call(task, i);
      } catch (...) {
        failed = true;
      }
    }
  };

  // Never destroyed: its threads are asleep when the process exits, and end with it. A forked child has the
  // pool's memory and none of its threads, and its mutexes may be locked for ever. So it begins a new pool.
  static Pool& instance() {
    static std::atomic<Pool*> current{nullptr};
    Pool* pool = current.load();
    if (!pool || pool->process_ != process()) {
      Pool* fresh = new Pool;
      if (current.compare_exchange_strong(pool, fresh)) {
        pool = fresh;
      } else {
        delete fresh;  // another thread was first, and `pool` is now its pool
      }
    }
    return *pool;
  }

  static int process() {
#ifdef _WIN32
    return _getpid();
#else
    return getpid();
#endif
  }

  void run(int n_threads, Job& job) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn) return job.work();  // another thread of Python uses the pool: do all tasks here
    const int helpers = std::min(n_threads, job.n_tasks) - 1;
    {
      std::lock_guard<std::mutex> lock(state_);
      start(helpers);
      job_ = &job;
      wanted_ = helpers;
      posted_.fetch_add(1, std::memory_order_release);
    }
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
    job.work();
    std::unique_lock<std::mutex> lock(state_);
    job_ = nullptr;  // nobody joins from here on
    left_.wait(lock, [this] { return busy_ == 0; });
  }

  void start(int n_threads) {
    try {
      for (; n_threads_ < n_threads; ++n_threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // The system gives no more: the work is done by those there are.
    }
  }

  void serve() {
    for (unsigned seen = 0;;) {
      spin(seen);
      std::unique_lock<std::mutex> lock(state_);
      wake_.wait(lock, [&] { return job_ && wanted_ > 0 && posted_.load() != seen; });
      seen = posted_.load();
      Job& job = *job_;
      --wanted_;
      ++busy_;
      lock.unlock();
      job.work();
      lock.lock();
      if (--busy_ == 0) left_.notify_one();
    }
  }

  // The passes over a row follow each other within microseconds: look a while before sleeping.
  void spin(unsigned seen) const {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::microseconds(30);
    while (posted_.load(std::memory_order_acquire) == seen && Clock::now() < end) {
      for (volatile int pause = 0; pause < 32; pause = pause + 1) {
      }
    }
  }

  const int process_ = process();
  std::mutex turn_, state_;
  std::condition_variable wake_, left_;
  std::atomic<unsigned> posted_{0};
  int n_threads_ = 0, wanted_ = 0, busy_ = 0;
  Job* job_ = nullptr;
};

}  // namespace tinker
