// Bytes for a decoder to write into.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace rvk {

// Memory aligned to cache lines that is not set before use and grows only. Behind its end lie kSlack bytes more, which
// loops over whole vectors may read and write.
class Buffer {
 public:
  static constexpr size_t kSlack = 64;

  // At least `size` bytes; what was in them before is lost when there were fewer.
  uint8_t* reserve(size_t size) {
    if (size > size_ || !bytes_) {
      bytes_.reset();
      size_ = 0;
      const size_t rounded = (size + kSlack + 63) / 64 * 64;
      bytes_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, rounded)));
      if (!bytes_) throw std::bad_alloc();
      size_ = size;
    }
    return bytes_.get();
  }

  const uint8_t* data() const { return bytes_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<uint8_t[], Free> bytes_;
  size_t size_ = 0;
};

}  // namespace rvk
