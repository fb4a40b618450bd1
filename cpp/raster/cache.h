// Decoded blocks that a later read may want again.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>

#include "raster/buffer.h"

namespace rvk {

// Holds at most `capacity` bytes, and forgets what was used longest ago. A block that is in use stays whole after it is
// forgotten. For any number of threads.
class BlockCache {
 public:
  using Key = std::tuple<int, int64_t, int64_t>;  // layer, plane, piece

  explicit BlockCache(size_t capacity) : capacity_(capacity) {}

  size_t capacity() const { return capacity_; }

  // A number that no other layer has.
  int add_layer() { return layers_++; }

  // Null when it is not there.
  std::shared_ptr<const Buffer> find(const Key& key) {
    std::lock_guard<std::mutex> hold(lock_);
    const auto found = places_.find(key);
    if (found == places_.end()) return nullptr;
    used_.splice(used_.begin(), used_, found->second);
    return found->second->second;
  }

  bool holds(const Key& key) {
    std::lock_guard<std::mutex> hold(lock_);
    return places_.count(key) != 0;
  }

  // A buffer of `size` bytes to decode into, for insert(). It may be one that was just forgotten: its pages are there.
  std::shared_ptr<Buffer> make(size_t size) {
    std::shared_ptr<Buffer> buffer;
    {
      std::lock_guard<std::mutex> hold(lock_);
      while (!used_.empty() && bytes_ + size > capacity_) {
        std::shared_ptr<Buffer> last = std::move(used_.back().second);
        places_.erase(used_.back().first);
        used_.pop_back();
        bytes_ -= last->size();
        if (last.use_count() == 1 && last->size() == size) buffer = std::move(last);
      }
    }
    if (!buffer) {
      buffer = std::make_shared<Buffer>();
      buffer->reserve(size);
    }
    return buffer;
  }

  void insert(const Key& key, std::shared_ptr<Buffer> buffer) {
    std::lock_guard<std::mutex> hold(lock_);
    // Another thread may have decoded the same, or filled the room that make() found.
    if (buffer->size() > capacity_ - std::min(bytes_, capacity_) || places_.count(key) != 0) return;
    bytes_ += buffer->size();
    used_.emplace_front(key, std::move(buffer));
    places_[key] = used_.begin();
  }

 private:
  using Used = std::list<std::pair<Key, std::shared_ptr<Buffer>>>;  // the last used first

  const size_t capacity_;
  std::atomic<int> layers_{0};
  std::mutex lock_;
  size_t bytes_ = 0;
  Used used_;
  std::map<Key, Used::iterator> places_;
};

}  // namespace rvk
