// Bytes of a file at any place, for any number of threads.
#pragma once

#include <cpl_vsi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace rvk {

// A file on disk is read by pread; what lies behind GDAL's file systems (/vsizip/, /vsimem/, /vsicurl/) through them,
// one handle per thread at a time.
class File {
 public:
  // Null when there is no such file.
  static std::unique_ptr<File> open(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  uint64_t size() const { return size_; }
  // Whether a read costs a round trip to somewhere else, so that few large ones are better than many small ones.
  bool remote() const { return descriptor_ < 0; }
  // Whether all `size` bytes from `offset` were there to read.
  bool read(uint64_t offset, size_t size, void* to);

 private:
  File() = default;
  struct Close {
    void operator()(VSILFILE* handle) const { VSIFCloseL(handle); }
  };
  using Handle = std::unique_ptr<VSILFILE, Close>;

  std::string path_;
  uint64_t size_ = 0;
  int descriptor_ = -1;
  std::mutex lock_;
  std::vector<Handle> idle_;
};

}  // namespace rvk
