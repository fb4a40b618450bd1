#include "raster/archive.h"

#include <cpl_vsi.h>

#include <algorithm>
#include <atomic>
#include <cstring>

namespace rvk {

namespace {

constexpr uint64_t kLargestInMemory = uint64_t{4} << 20;

struct CloseFile {
  void operator()(VSILFILE* file) const { VSIFCloseL(file); }
};
using File = std::unique_ptr<VSILFILE, CloseFile>;

bool read_at(VSILFILE* file, uint64_t offset, void* to, size_t size) {
  return VSIFSeekL(file, offset, SEEK_SET) == 0 && VSIFReadL(to, 1, size, file) == size;
}

uint32_t u16(const unsigned char* p) { return p[0] | static_cast<uint32_t>(p[1]) << 8; }
uint32_t u32(const unsigned char* p) { return u16(p) | u16(p + 2) << 16; }

std::string stem(const std::string& name) {
  const size_t folder = name.rfind('/');
  return name.substr(0, name.find('.', folder == std::string::npos ? 0 : folder));
}

// "/vsizip/a/b.zip/c/d.jpg" -> "a/b.zip", "c/d.jpg"; false for any other path.
bool split_path(const std::string& path, std::string& archive, std::string& member) {
  const std::string prefix = "/vsizip/";
  if (path.compare(0, prefix.size(), prefix) != 0) return false;
  size_t end, next;
  if (path.compare(prefix.size(), 1, "{") == 0) {
    end = path.find("}/", prefix.size());
    if (end == std::string::npos) return false;
    archive = path.substr(prefix.size() + 1, end - prefix.size() - 1);
    next = end + 2;
  } else {
    end = path.find(".zip/", prefix.size());
    if (end == std::string::npos) return false;
    archive = path.substr(prefix.size(), end + 4 - prefix.size());
    next = end + 5;
  }
  member = path.substr(next);
  return !member.empty();
}

}  // namespace

void Image::RemoveMemory::operator()(std::string* name) const {
  VSIUnlink(name->c_str());
  delete name;
}

// Layout of the central directory: APPNOTE.TXT of PKWARE, sections 4.3.12 and 4.3.16. Archives that need ZIP64 (more
// than 65,534 members or 4 GiB), or that do not read as expected, give an empty directory: GDAL then opens each member.
std::shared_ptr<const Archives::Directory> Archives::read_directory(const std::string& archive) {
  auto found = std::make_shared<Directory>();
  File file(VSIFOpenL(archive.c_str(), "rb"));
  if (!file || VSIFSeekL(file.get(), 0, SEEK_END) != 0) return found;
  const uint64_t length = VSIFTellL(file.get());
  std::vector<unsigned char> tail(static_cast<size_t>(std::min<uint64_t>(length, 22 + 65535)));
  if (tail.size() < 22 || !read_at(file.get(), length - tail.size(), tail.data(), tail.size())) return found;
  size_t end = tail.size() - 22;
  while (u32(&tail[end]) != 0x06054b50) {
    if (end == 0) return found;
    --end;
  }
  const uint32_t count = u16(&tail[end + 10]);
  const uint32_t size = u32(&tail[end + 12]);
  const uint32_t start = u32(&tail[end + 16]);
  if (count == 0xffff || start == 0xffffffff || uint64_t{start} + size > length) return found;
  std::vector<unsigned char> entries(size);
  if (!read_at(file.get(), start, entries.data(), size)) return found;
  size_t at = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (at + 46 > size || u32(&entries[at]) != 0x02014b50) return std::make_shared<Directory>();
    const size_t name_length = u16(&entries[at + 28]);
    const size_t next = at + 46 + name_length + u16(&entries[at + 30]) + u16(&entries[at + 32]);
    if (next > size) return std::make_shared<Directory>();
    Member member;
    member.stored = u16(&entries[at + 10]) == 0 && (u16(&entries[at + 8]) & 1) == 0;
    member.size = u32(&entries[at + 24]);
    member.header = u32(&entries[at + 42]);
    std::string name(reinterpret_cast<const char*>(&entries[at + 46]), name_length);
    ++found->stems[stem(name)];
    found->members.emplace(std::move(name), member);
    at = next;
  }
  return found;
}

std::shared_ptr<const Archives::Directory> Archives::directory(const std::string& archive) {
  std::lock_guard<std::mutex> hold(lock_);
  auto& known = directories_[archive];
  if (!known) known = read_directory(archive);
  return known;
}

Image Archives::open(const std::string& path, Quiet& quiet, bool pixels_only) {
  Image image;
  std::string archive, name;
  if (split_path(path, archive, name)) {
    const auto listing = directory(archive);
    const auto entry = listing->members.find(name);
    if (entry != listing->members.end() && listing->stems.at(stem(name)) == 1) {
      const Member& member = entry->second;
      unsigned char header[30];
      File file(member.stored && member.size <= kLargestInMemory ? VSIFOpenL(archive.c_str(), "rb") : nullptr);
      if (file && read_at(file.get(), member.header, header, sizeof header) && u32(header) == 0x04034b50) {
        image.bytes_.resize(static_cast<size_t>(member.size));
        const uint64_t data = member.header + sizeof header + u16(header + 26) + u16(header + 28);
        if (!read_at(file.get(), data, image.bytes_.data(), image.bytes_.size()))
          throw std::invalid_argument(path + ": the archive ends before this member does");
        static std::atomic<uint64_t> serial{0};
        const std::string leaf = name.substr(name.rfind('/') + 1);
        image.memory_.reset(new std::string("/vsimem/rvkernels/" + std::to_string(serial++) + "/" + leaf));
        VSIFCloseL(VSIFileFromMemBuffer(image.memory_->c_str(), image.bytes_.data(), image.bytes_.size(), FALSE));
        const char* const alone[] = {leaf.c_str(), nullptr};
        try {
          image.dataset_ = rvk::open(*image.memory_, quiet, alone);
        } catch (const std::invalid_argument& error) {
          std::string text = error.what();
          for (size_t p; (p = text.find(*image.memory_)) != std::string::npos;)
            text.replace(p, image.memory_->size(), path);
          throw std::invalid_argument(text);
        }
        return image;
      }
    }
  }
  const std::string leaf = path.substr(path.rfind('/') + 1);
  const char* const alone[] = {leaf.c_str(), nullptr};
  image.dataset_ = rvk::open(path, quiet, pixels_only ? alone : nullptr);
  return image;
}

}  // namespace rvk
