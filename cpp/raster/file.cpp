#include "raster/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace rvk {

std::unique_ptr<File> File::open(const std::string& path) {
  std::unique_ptr<File> file(new File);
  file->path_ = path;
  if (path.compare(0, 4, "/vsi") != 0) {
    file->descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file->descriptor_ < 0 || fstat(file->descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) return nullptr;
    file->size_ = static_cast<uint64_t>(status.st_size);
    return file;
  }
  Handle handle(VSIFOpenL(path.c_str(), "rb"));
  if (!handle || VSIFSeekL(handle.get(), 0, SEEK_END) != 0) return nullptr;
  file->size_ = VSIFTellL(handle.get());
  file->idle_.push_back(std::move(handle));
  return file;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool File::read(uint64_t offset, size_t size, void* to) {
  if (offset > size_ || size > size_ - offset) return false;
  if (descriptor_ >= 0) {
    auto* next = static_cast<uint8_t*>(to);
    while (size > 0) {
      const ssize_t got = ::pread(descriptor_, next, size, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      next += got;
      offset += static_cast<uint64_t>(got);
      size -= static_cast<size_t>(got);
    }
    return true;
  }
  Handle handle;
  {
    std::lock_guard<std::mutex> hold(lock_);
    if (!idle_.empty()) {
      handle = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (!handle) handle.reset(VSIFOpenL(path_.c_str(), "rb"));
  if (!handle) return false;
  const bool whole = VSIFSeekL(handle.get(), offset, SEEK_SET) == 0 && VSIFReadL(to, 1, size, handle.get()) == size;
  std::lock_guard<std::mutex> hold(lock_);
  idle_.push_back(std::move(handle));
  return whole;
}

}  // namespace rvk
