#include "raster/tally.h"

#include <memory>
#include <stdexcept>

#include "parallel.h"

namespace rvk {
namespace {

template <typename T>
Tallied tally_as(Stack& stack, const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type,
                 const Totals& totals, int threads) {
  struct Worker {
    std::unique_ptr<Tally<T>> tally;
    int64_t pixels = 0;
  };
  std::vector<Worker> workers(static_cast<size_t>(thread_count(threads)));
  const int64_t blocks = stack.visit(windows, n, bands, type, threads, [&](const Part& part, int number) {
    Worker& worker = workers[static_cast<size_t>(number)];
    if (!worker.tally) worker.tally = std::make_unique<Tally<T>>(static_cast<int64_t>(bands.size()));
    worker.pixels += part.rows * part.cols;
    std::vector<const T*> from(bands.size());
    for (size_t b = 0; b < from.size(); ++b) from[b] = static_cast<const T*>(part.bands[b]);
    // Rows without a gap between them are one run.
    const bool whole =
        part.row_step == part.cols * part.pixel_step && (part.valid == nullptr || part.valid_row_step == part.cols);
    const int64_t runs = whole ? 1 : part.rows;
    const uint8_t* valid = part.valid;
    for (int64_t r = 0; r < runs; ++r) {
      worker.tally->add(from.data(), part.pixel_step, valid, part.rows * part.cols / runs);
      for (const T*& f : from) f += part.row_step;
      if (valid != nullptr) valid += part.valid_row_step;
    }
  });
  Tallied found{0, blocks};
  for (Worker& worker : workers) {
    found.pixels += worker.pixels;
    if (worker.tally) worker.tally->move_to(totals);
  }
  return found;
}

}  // namespace

Tallied tally(Stack& stack, const int64_t* windows, int64_t n, const std::vector<int>& bands, GDALDataType type,
              const Totals& totals, int threads) {
  switch (type) {
    case GDT_Byte:
      return tally_as<uint8_t>(stack, windows, n, bands, type, totals, threads);
    case GDT_UInt16:
      return tally_as<uint16_t>(stack, windows, n, bands, type, totals, threads);
    case GDT_Int16:
      return tally_as<int16_t>(stack, windows, n, bands, type, totals, threads);
    case GDT_Float32:
      return tally_as<float>(stack, windows, n, bands, type, totals, threads);
    default:
      throw std::invalid_argument("statistics: no totals for pixels of type " + type_name(type));
  }
}

}  // namespace rvk
