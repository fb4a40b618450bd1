// Threads for a kernel: parallel(n, threads, f) calls f(begin, end) on disjoint ranges that cover [0, n).
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace rvk {

// threads = 0 means all cores this machine reports.
inline int thread_count(int threads) {
  if (threads > 0) return threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

namespace parallel_detail {

// One call of parallel(). Threads that come after it has ended, and find it closed, keep no more of it than this.
struct Call {
  Call(int64_t n, int workers) : pieces(n), entered(static_cast<size_t>(workers)) {}

  const int64_t pieces;
  std::atomic<int64_t> next{0};
  std::mutex lock;
  std::vector<char> entered;  // which threads have begun; no more do once it is closed
  bool closed = false;
  std::exception_ptr error;

  bool enter(int worker) {
    const std::lock_guard<std::mutex> hold(lock);
    if (!closed) entered[static_cast<size_t>(worker)] = 1;
    return !closed;
  }

  void close() {
    const std::lock_guard<std::mutex> hold(lock);
    closed = true;
  }

  void fail() {
    next.store(pieces);
    const std::lock_guard<std::mutex> hold(lock);
    if (!error) error = std::current_exception();
  }
};

// Threads that were started and have not got a core yet. A child process has none of its parent's.
inline std::atomic<int>& waiting() {
  static std::atomic<int> count{0};
  static const int registered = pthread_atfork(nullptr, nullptr, [] { waiting().store(0); });
  (void)registered;
  return count;
}

// Adds a thread that runs f; false when the system has none left.
template <typename F>
bool start(std::vector<std::thread>& threads, F&& f) {
  waiting().fetch_add(1);
  try {
    threads.emplace_back([f] {
      waiting().fetch_sub(1);
      f();
    });
  } catch (const std::system_error&) {
    waiting().fetch_sub(1);
    return false;
  }
  return true;
}

}  // namespace parallel_detail

// Ranges of at most `grain` items are handed out in order as threads become free, so uneven items balance. The first
// exception thrown by f is rethrown in the caller after every thread has ended its range.
//
// To start a thread takes 20 us, and on a busy machine it waits milliseconds for a core. So a range should be worth 20
// us or more, and the call ends when the ranges do: for threads that have not begun by then it does not wait.
template <typename F>
void parallel(int64_t n, int threads, F&& f, int64_t grain = 1) {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int64_t pieces = (n + grain - 1) / grain;
  const int workers = static_cast<int>(std::min<int64_t>(thread_count(threads), pieces));
  if (workers <= 1) {
    f(int64_t{0}, n);
    return;
  }
  const auto call = std::make_shared<parallel_detail::Call>(pieces, workers);
  const auto work = [call, n, grain, &f](int worker) {
    if (!call->enter(worker)) return;
    for (int64_t piece = call->next++; piece < call->pieces; piece = call->next++) {
      try {
        f(piece * grain, std::min(n, (piece + 1) * grain));
      } catch (...) {
        call->fail();
      }
    }
  };
  std::vector<std::thread> started;
  started.reserve(static_cast<size_t>(workers));
  // More that wait than these would be of no use either.
  const int most_waiting = 4 * std::max(workers, thread_count(0));
  for (int i = 1; i < workers && call->next < pieces && parallel_detail::waiting() < most_waiting; ++i)
    if (!parallel_detail::start(started, [work, i] { work(i); })) break;
  work(0);
  call->close();
  for (size_t i = 0; i < started.size(); ++i) {
    if (call->entered[i + 1])
      started[i].join();
    else
      started[i].detach();  // it will find the call closed
  }
  if (call->error) std::rethrow_exception(call->error);
}

}  // namespace rvk
