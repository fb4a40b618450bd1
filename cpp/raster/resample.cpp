#include "raster/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "dispatch.h"

namespace rvk {

namespace {

constexpr double kOnPixel = 1e-10;  // a centre this close below a pixel is on it: sums that should meet it round
constexpr float kNothing = 1e-5f;   // a share of the weights below which a pixel has no data

// to = weight * from, or to += weight * from.
template <typename T>
void add_row(const T* from, float weight, bool begin, float* to, int64_t count) {
  if (begin) {
    dispatch([=]() RVK_INLINE {
      for (int64_t i = 0; i < count; ++i) to[i] = weight * static_cast<float>(from[i]);
    });
  } else {
    dispatch([=]() RVK_INLINE {
      for (int64_t i = 0; i < count; ++i) to[i] += weight * static_cast<float>(from[i]);
    });
  }
}

// Row i of `down` out of rows of `count` values that begin with row `row0`.
template <typename T>
void add_rows(const T* source, int64_t row0, const Taps& down, int64_t i, float* to, int64_t count) {
  const T* from = source + (down.first(i) - row0) * count;
  const float* weights = down.weights(i);
  for (int64_t k = 0; k < down.count(i); ++k) add_row(from + k * count, weights[k], k == 0, to, count);
}

using Four = float __attribute__((vector_size(16)));

// All columns of `across` out of a row of pixels of kChannels values that begins with column `col0`. Three are taken as
// four: one value behind the row is read, one behind `to` written.
template <int kChannels>
void add_cols(const float* row, int64_t col0, const Taps& across, float* to) {
  const Taps* const taps = &across;
  dispatch([=]() RVK_INLINE {
    const int64_t count = taps->size();
    for (int64_t i = 0; i < count; ++i) {
      const float* from = row + (taps->first(i) - col0) * kChannels;
      const float* const weights = taps->weights(i);
      const int64_t length = taps->count(i);
      if constexpr (kChannels >= 3) {
        Four sum{};
        for (int64_t k = 0; k < length; ++k, from += kChannels) {
          Four value;
          std::memcpy(&value, from, sizeof value);
          const Four part = value * weights[k];
          sum = k == 0 ? part : sum + part;
        }
        std::memcpy(to + i * kChannels, &sum, sizeof sum);
      } else {
        float sum[kChannels] = {};
        for (int64_t k = 0; k < length; ++k)
          for (int c = 0; c < kChannels; ++c) sum[c] += weights[k] * from[k * kChannels + c];
        for (int c = 0; c < kChannels; ++c) to[i * kChannels + c] = sum[c];
      }
    }
  });
}

void add_cols(const float* row, int64_t col0, const Taps& across, int64_t channels, float* to) {
  if (channels == 1) return add_cols<1>(row, col0, across, to);
  if (channels == 2) return add_cols<2>(row, col0, across, to);
  if (channels == 3) return add_cols<3>(row, col0, across, to);
  if (channels == 4) return add_cols<4>(row, col0, across, to);
  for (int64_t i = 0; i < across.size(); ++i) {
    float* const pixel = to + i * channels;
    std::fill_n(pixel, channels, 0.0f);
    for (int64_t k = 0; k < across.count(i); ++k)
      add_row(row + (across.first(i) + k - col0) * channels, across.weights(i)[k], k == 0, pixel, channels);
  }
}

template <typename T>
void store_row(const float* from, T* to, int64_t count) {
  if constexpr (std::is_same_v<T, float>) {
    std::copy_n(from, count, to);
  } else {
    constexpr auto low = static_cast<float>(std::numeric_limits<T>::min());
    constexpr auto high = static_cast<float>(std::numeric_limits<T>::max());
    dispatch([=]() RVK_INLINE {
      for (int64_t i = 0; i < count; ++i) {
        const float value = std::min(std::max(from[i], low), high) + 0.5f;
        const auto whole = static_cast<int32_t>(value);  // towards zero
        to[i] = static_cast<T>(whole - (static_cast<float>(whole) > value ? 1 : 0));
      }
    });
  }
}

// 1 for each value that takes no part, else 0. Returns whether there is one.
template <typename T>
bool mark_missing(const T* source, int64_t rows, int64_t cols, const std::vector<NoData<T>>& nodata,
                  const uint8_t* valid, float* missing) {
  const auto channels = static_cast<int64_t>(nodata.size());
  const int64_t count = cols * channels;
  // Repeated along a row, so that the loop over it has no steps.
  std::vector<T> nones(static_cast<size_t>(count));
  std::vector<uint8_t> has(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) nones[i] = nodata[i % channels].value, has[i] = nodata[i % channels].has ? 1 : 0;
  bool some = false;
  for (int64_t row = 0; row < rows; ++row, source += count, missing += count) {
    some |= dispatch([=, none = nones.data(), has = has.data()]() RVK_INLINE {
              uint8_t any = 0;
              for (int64_t i = 0; i < count; ++i) {
                const T value = source[i];
                const auto gone = static_cast<uint8_t>((has[i] & uint8_t{value == none[i]}) | uint8_t{value != value});
                any |= gone;
                missing[i] = static_cast<float>(gone);
              }
              return any;
            }) != 0;
    const uint8_t* const here = valid ? valid + row * cols : nullptr;
    if (!here || !std::memchr(here, 0, static_cast<size_t>(cols))) continue;
    some = true;
    for (int64_t i = 0; i < cols; ++i)
      if (here[i] == 0) std::fill_n(missing + i * channels, channels, 1.0f);
  }
  return some;
}

}  // namespace

Taps::Taps(Kernel kernel, double origin, double step, int64_t begin, int64_t end, int64_t extent) {
  const double size = std::abs(step), reach = kernel == Kernel::average ? size / 2 : std::max(1.0, size);
  const auto last = static_cast<double>(extent);
  std::vector<double> weights;
  for (int64_t i = begin; i < end; ++i) {
    const double centre = origin + step * (static_cast<double>(i) + 0.5);
    const double pixel = std::floor(centre + kOnPixel);
    weights.clear();
    int64_t first = 0;
    if (kernel != Kernel::average && !(pixel >= 0 && pixel < last)) {
      // Not on the raster.
    } else if (kernel == Kernel::nearest) {
      first = static_cast<int64_t>(pixel);
      weights.push_back(1);
    } else {
      const double low = std::clamp(std::floor(centre - reach), 0.0, last);
      const double high = std::clamp(std::ceil(centre + reach), 0.0, last);
      first = static_cast<int64_t>(low);
      for (double p = low; p < high; ++p) {
        const double weight = kernel == Kernel::bilinear
                                  ? 1 - std::abs(p + 0.5 - centre) / reach
                                  : std::min(p + 1, centre + reach) - std::max(p, centre - reach);
        // What rounding alone makes touch a pixel does not reach it.
        if (weight > kOnPixel) {
          weights.push_back(weight);
        } else if (weights.empty()) {
          ++first;
        } else {
          break;
        }
      }
    }
    double sum = 0;
    for (const double weight : weights) sum += weight;
    for (const double weight : weights) weights_.push_back(static_cast<float>(weight / sum));
    first_.push_back(first);
    start_.push_back(static_cast<int64_t>(weights_.size()));
  }
}

Taps::Span Taps::span(int64_t begin, int64_t end) const {
  Span span{std::numeric_limits<int64_t>::max(), 0};
  for (int64_t i = begin; i < end; ++i)
    if (count(i) > 0) span = {std::min(span.low, first_[i]), std::max(span.high, first_[i] + count(i))};
  return span;
}

template <typename T>
void resample(const T* source, const Rect& at, const std::vector<NoData<T>>& nodata, const uint8_t* valid,
              const Taps& down, int64_t begin, int64_t end, const Taps& across, T fill, ResampleBuffers& buffers,
              T* out, uint8_t* out_valid) {
  const auto channels = static_cast<int64_t>(nodata.size());
  const int64_t rows = at.row1 - at.row0, cols = at.col1 - at.col0, in_count = cols * channels;
  const int64_t out_cols = across.size(), out_count = out_cols * channels;
  const auto floats = [](Buffer& buffer, int64_t count) {
    return reinterpret_cast<float*>(buffer.reserve(static_cast<size_t>(count) * sizeof(float)));
  };
  bool some_missing = false;
  float *values = nullptr, *missing = nullptr, *missing_row = nullptr, *missing_out = nullptr;
  const bool tested = std::any_of(nodata.begin(), nodata.end(), [](const NoData<T>& n) { return n.has; });
  if (tested || valid || std::is_same_v<T, float>) {
    missing = floats(buffers.missing, rows * in_count);
    some_missing = mark_missing(source, rows, cols, nodata, valid, missing);
  }
  if (some_missing) {
    values = floats(buffers.values, rows * in_count);
    dispatch([=, count = rows * in_count]() RVK_INLINE {
      for (int64_t i = 0; i < count; ++i) values[i] = missing[i] != 0 ? 0 : static_cast<float>(source[i]);
    });
    missing_row = floats(buffers.missing_row, in_count);
    missing_out = floats(buffers.missing_out, out_count);
  }
  float* const row = floats(buffers.row, in_count);
  float* const out_row = floats(buffers.out_row, out_count);
  for (int64_t i = begin; i < end; ++i, out += out_count, out_valid += out_cols) {
    if (down.count(i) == 0) {
      std::fill_n(out, out_count, fill);
      std::fill_n(out_valid, out_cols, uint8_t{0});
      continue;
    }
    if (some_missing) {
      add_rows(values, at.row0, down, i, row, in_count);
      add_rows(missing, at.row0, down, i, missing_row, in_count);
      add_cols(missing_row, at.col0, across, channels, missing_out);
    } else {
      add_rows(source, at.row0, down, i, row, in_count);
    }
    add_cols(row, at.col0, across, channels, out_row);
    if (some_missing)  // sums without a gap stay as they are, to the last bit
      for (int64_t j = 0; j < out_count; ++j)
        if (missing_out[j] != 0) out_row[j] /= 1 - missing_out[j];
    store_row(out_row, out, out_count);
    for (int64_t j = 0; j < out_cols; ++j) {
      const bool reached = across.count(j) > 0;
      out_valid[j] = reached ? 1 : 0;
      if (reached && !some_missing) continue;
      bool some = false;
      for (int64_t c = 0; c < channels; ++c) {
        const bool has = reached && 1 - missing_out[j * channels + c] > kNothing;
        if (!has) out[j * channels + c] = fill;
        some |= has;
      }
      out_valid[j] = some ? 1 : 0;
    }
  }
}

template void resample(const uint8_t*, const Rect&, const std::vector<NoData<uint8_t>>&, const uint8_t*, const Taps&,
                       int64_t, int64_t, const Taps&, uint8_t, ResampleBuffers&, uint8_t*, uint8_t*);
template void resample(const uint16_t*, const Rect&, const std::vector<NoData<uint16_t>>&, const uint8_t*, const Taps&,
                       int64_t, int64_t, const Taps&, uint16_t, ResampleBuffers&, uint16_t*, uint8_t*);
template void resample(const int16_t*, const Rect&, const std::vector<NoData<int16_t>>&, const uint8_t*, const Taps&,
                       int64_t, int64_t, const Taps&, int16_t, ResampleBuffers&, int16_t*, uint8_t*);
template void resample(const float*, const Rect&, const std::vector<NoData<float>>&, const uint8_t*, const Taps&,
                       int64_t, int64_t, const Taps&, float, ResampleBuffers&, float*, uint8_t*);

}  // namespace rvk
