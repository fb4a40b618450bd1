// Threads for a kernel: parallel(n, threads, f) calls f(begin, end) on disjoint ranges that cover [0, n).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace rvk {

// threads = 0 means all cores this machine reports.
inline int thread_count(int threads) {
  if (threads > 0) return threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Ranges of at most `grain` items are handed out in order as threads become free, so uneven items balance. The first
// exception thrown by f is rethrown in the caller after every thread has ended.
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
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex lock;
  auto work = [&] {
    for (;;) {
      const int64_t piece = next.fetch_add(1);
      if (piece >= pieces) return;
      try {
        f(piece * grain, std::min(n, (piece + 1) * grain));
      } catch (...) {
        std::lock_guard<std::mutex> hold(lock);
        if (!error) error = std::current_exception();
        next.store(pieces);
        return;
      }
    }
  };
  std::vector<std::thread> pool;
  pool.reserve(workers - 1);
  for (int i = 1; i < workers; ++i) pool.emplace_back(work);
  work();
  for (auto& t : pool) t.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace rvk
