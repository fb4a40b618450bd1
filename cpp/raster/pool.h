// Things that one thread at a time uses and that are costly to make: kept when a thread is done with them.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

namespace rvk {

template <typename T>
class Pool {
 public:
  // One that nobody uses, or a new one.
  std::unique_ptr<T> take() {
    const std::lock_guard<std::mutex> hold(lock_);
    if (idle_.empty()) return std::make_unique<T>();
    auto one = std::move(idle_.back());
    idle_.pop_back();
    return one;
  }

  void give(std::unique_ptr<T> one) {
    const std::lock_guard<std::mutex> hold(lock_);
    idle_.push_back(std::move(one));
  }

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace rvk
