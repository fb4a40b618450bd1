// Members of ZIP archives that are stored, not deflated, found without asking GDAL for each.
//
// GDAL looks a /vsizip/ member up in a list, and on opening one lists its folder for sidecars; for an archive of many
// thousand small images that costs several times their decoding. Here the central directory is read once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "raster/dataset.h"

namespace rvk {

// An image opened from its path, or from its bytes in memory when it is a small stored member of a ZIP archive.
class Image {
 public:
  Image() = default;
  Image(Image&&) = default;
  Image& operator=(Image&&) = default;

  GDALDataset& operator*() const { return *dataset_; }
  GDALDataset* operator->() const { return dataset_.get(); }

 private:
  friend class Archives;
  struct RemoveMemory {
    void operator()(std::string* name) const;
  };
  std::vector<unsigned char> bytes_;
  std::unique_ptr<std::string, RemoveMemory> memory_;  // its name below /vsimem/
  Dataset dataset_;                                    // last: closed before its bytes go
};

// Archives seen by one call, shared by its threads.
class Archives {
 public:
  // As rvk::open. In archives, an image with a sidecar (same name up to the first dot) goes through GDAL. With
  // `pixels_only` GDAL is not to look for sidecars in folders either: what they say of CRS and nodata is not wanted.
  Image open(const std::string& path, Quiet& quiet, bool pixels_only = false);

 private:
  struct Member {
    uint64_t header = 0;  // offset of the local header
    uint64_t size = 0;
    bool stored = false;
  };
  struct Directory {
    std::unordered_map<std::string, Member> members;
    std::unordered_map<std::string, int> stems;  // how many members share a name up to its first dot
  };

  std::shared_ptr<const Directory> directory(const std::string& archive);
  static std::shared_ptr<const Directory> read_directory(const std::string& archive);

  std::mutex lock_;
  std::map<std::string, std::shared_ptr<const Directory>> directories_;
};

}  // namespace rvk
