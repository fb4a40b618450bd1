#include "ops/components.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "dispatch.h"
#include "parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rvk {
namespace {

// Words of 64 columns: bit c says that row[c] differs from row[c - 1]. `row` points at a column that has a left
// neighbour.
template <typename T>
void changes_plain(const T* row, int64_t words, uint64_t* out) {
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t bits = 0;
    for (int64_t c = 0; c < 64; c += 8) {
      T here[8];
      T left[8];
      std::memcpy(here, row + c, sizeof(here));
      std::memcpy(left, row + c - 1, sizeof(left));
      if (std::memcmp(here, left, sizeof(here)) == 0) continue;  // most of a raster
      for (int64_t i = 0; i < 8; ++i) bits |= static_cast<uint64_t>(here[i] != left[i]) << (c + i);
    }
    out[w] = bits;
  }
}

#if defined(__x86_64__)

RVK_V3 void changes_v3(const uint8_t* row, int64_t words, uint64_t* out) {
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t same = 0;
    for (int64_t i = 0; i < 2; ++i) {
      const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 32 * i));
      const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 32 * i - 1));
      const int equal = _mm256_movemask_epi8(_mm256_cmpeq_epi8(here, left));
      same |= static_cast<uint64_t>(static_cast<uint32_t>(equal)) << (32 * i);
    }
    out[w] = ~same;
  }
}

RVK_V3 void changes_v3(const int32_t* row, int64_t words, uint64_t* out) {
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t same = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 8 * i));
      const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 8 * i - 1));
      const int equal = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(here, left)));
      same |= static_cast<uint64_t>(static_cast<uint32_t>(equal)) << (8 * i);
    }
    out[w] = ~same;
  }
}

RVK_V4 void changes_v4(const uint8_t* row, int64_t words, uint64_t* out) {
  for (int64_t w = 0; w < words; ++w, row += 64)
    out[w] = _mm512_cmpneq_epu8_mask(_mm512_loadu_si512(row), _mm512_loadu_si512(row - 1));
}

RVK_V4 void changes_v4(const int32_t* row, int64_t words, uint64_t* out) {
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t bits = 0;
    for (int64_t i = 0; i < 4; ++i) {
      const __mmask16 differ =
          _mm512_cmpneq_epi32_mask(_mm512_loadu_si512(row + 16 * i), _mm512_loadu_si512(row + 16 * i - 1));
      bits |= static_cast<uint64_t>(differ) << (16 * i);
    }
    out[w] = bits;
  }
}

#endif

template <typename T>
void changes(const T* row, int64_t words, uint64_t* out) {
#if defined(__x86_64__)
  if (isa() >= Isa::v4) return changes_v4(row, words, out);
  if (isa() >= Isa::v3) return changes_v3(row, words, out);
#endif
  changes_plain(row, words, out);
}

// Begin and end columns of the runs of a row into x, which has room for 2 (cols + 1); returns how many there are.
template <typename T>
int64_t runs_of_row(const LabelRaster<T>& labels, const T* row, uint64_t* words, int32_t* x) {
  const int64_t cols = labels.cols;
  int64_t n = 0;
  int32_t begin = 0;
  // Written always and kept or not: whether a run is background is nothing a processor predicts.
  const auto end_at = [&](int32_t c) {
    x[2 * n] = begin;
    x[2 * n + 1] = c;
    n += !(labels.has_background && row[begin] == labels.background);
    begin = c;
  };
  // The first column has no left neighbour, so that words begin at column 1; what is left behind the last is looked at
  // pixel by pixel.
  const int64_t full = (cols - 1) / 64;
  changes(row + 1, full, words);
  for (int64_t w = 0; w < full; ++w)
    for (uint64_t bits = words[w]; bits != 0; bits &= bits - 1)
      end_at(static_cast<int32_t>(1 + 64 * w + __builtin_ctzll(bits)));
  for (int64_t c = 1 + 64 * full; c < cols; ++c)
    if (row[c] != row[c - 1]) end_at(static_cast<int32_t>(c));
  end_at(static_cast<int32_t>(cols));
  return n;
}

// Disjoint sets, the root of each being its smallest member.
class Sets {
 public:
  int32_t add() {
    parent_.push_back(static_cast<int32_t>(parent_.size()));
    return parent_.back();
  }

  void unite(int32_t i, int32_t j) {
    i = root(i);
    j = root(j);
    parent_[static_cast<size_t>(std::max(i, j))] = std::min(i, j);
  }

  void reserve(int64_t members) { parent_.reserve(static_cast<size_t>(members)); }

  // All of `other`, its members counted from here on.
  void append(const Sets& other) {
    const auto offset = static_cast<int32_t>(parent_.size());
    for (const int32_t p : other.parent_) parent_.push_back(offset + p);
  }

  int64_t size() const { return static_cast<int64_t>(parent_.size()); }

  // Of each member one of the same set: smaller, or itself when it is the root.
  std::vector<int32_t> take() { return std::move(parent_); }

 private:
  int32_t root(int32_t i) {
    while (parent_[static_cast<size_t>(i)] != i) {
      int32_t& p = parent_[static_cast<size_t>(i)];
      p = parent_[static_cast<size_t>(p)];
      i = p;
    }
    return i;
  }

  std::vector<int32_t> parent_;
};

// Some rows of the raster. A piece is a set of connected runs that was begun by a run without a connection upwards.
struct Strip {
  int64_t first_row = 0, rows = 0;
  std::vector<int64_t> runs_in_row;
  std::vector<int32_t> x;
  std::vector<int32_t> piece;  // of each run
  Sets pieces;
  std::vector<RegionStatistics> statistics;  // of each piece
  int64_t runs() const { return static_cast<int64_t>(piece.size()); }
};

template <typename T>
void scan(const LabelRaster<T>& labels, const RegionRules& rules, bool statistics, Strip& strip) {
  std::vector<uint64_t> words(static_cast<size_t>(labels.cols / 64 + 1));
  std::vector<int32_t> row_x(static_cast<size_t>(2 * labels.cols + 2));
  int64_t above = 0;  // the first run of the row above
  for (int64_t r = 0; r < strip.rows; ++r) {
    const int64_t row_number = strip.first_row + r;
    const T* row = labels.data + row_number * labels.cols;
    const int64_t n = runs_of_row(labels, row, words.data(), row_x.data());
    const int64_t first = strip.runs();
    strip.runs_in_row.push_back(n);
    strip.x.insert(strip.x.end(), row_x.begin(), row_x.begin() + 2 * n);
    strip.piece.resize(static_cast<size_t>(first + n), kNoRegion);
    const int32_t* x = strip.x.data();
    int32_t* piece = strip.piece.data();
    for_touching(x + 2 * above, first - above, x + 2 * first, n, rules.diagonal, [&](int64_t i, int64_t j) {
      const int64_t a = above + i;
      const int64_t b = first + j;
      if (row[x[2 * a] - labels.cols] != row[x[2 * b]]) return;
      if (piece[b] == kNoRegion)
        piece[b] = piece[a];
      else if (piece[b] != piece[a])
        strip.pieces.unite(piece[b], piece[a]);
    });
    for (int64_t b = first; b < first + n; ++b) {
      if (piece[b] == kNoRegion) piece[b] = strip.pieces.add();
      if (!statistics) continue;
      const int64_t begin = x[2 * b];
      const int64_t end = x[2 * b + 1];
      RegionStatistics run;
      run.area = end - begin;
      run.row_sum = run.area * row_number;
      run.col_sum = (end - begin) * (begin + end - 1) / 2;
      run.top = static_cast<int32_t>(row_number);
      run.left = run.first = static_cast<int32_t>(begin);
      run.bottom = static_cast<int32_t>(row_number + 1);
      run.right = static_cast<int32_t>(end);
      strip.statistics.resize(static_cast<size_t>(strip.pieces.size()));
      strip.statistics[static_cast<size_t>(piece[b])].add(run);
    }
    above = first;
  }
}

// In the place of the parents of sets: numbers from 0, in order, for the sets that are large enough, kNoRegion for the
// others, at each member. Statistics of the members, if there are any, become those of the numbers.
int32_t number(std::vector<int32_t>& parents, int64_t min_area, std::vector<RegionStatistics>& statistics) {
  if (!statistics.empty())
    for (size_t i = parents.size(); i-- > 0;) {  // members before their parents
      const auto p = static_cast<size_t>(parents[i]);
      if (p != i) statistics[p].add(statistics[i]);
    }
  int32_t count = 0;
  for (size_t i = 0; i < parents.size(); ++i) {
    const auto p = static_cast<size_t>(parents[i]);
    if (p != i) {
      parents[i] = parents[p];  // a number already
    } else if (min_area > 1 && statistics[i].area < min_area) {
      parents[i] = kNoRegion;
    } else {
      if (!statistics.empty()) statistics[static_cast<size_t>(count)] = statistics[i];
      parents[i] = count++;
    }
  }
  if (!statistics.empty()) statistics.resize(static_cast<size_t>(count));
  return count;
}

// A row of numbers, written once from left to right in whole blocks: what a block writes too much the next one
// corrects.
inline RVK_INLINE void write_row(const int32_t* x, const int32_t* region, int64_t runs, int64_t cols, int32_t* row) {
  constexpr int64_t kBlock = 16;
  const auto fill = [=](int64_t begin, int64_t end, int32_t value) RVK_INLINE {
    if (end + kBlock > cols) {
      for (int64_t c = begin; c < end; ++c) row[c] = value;
      return;
    }
    for (int64_t c = begin; c < end; c += kBlock)
      for (int64_t i = 0; i < kBlock; ++i) row[c + i] = value;
  };
  int64_t done = 0;
  for (int64_t k = 0; k < runs; ++k) {
    fill(done, x[2 * k], 0);
    fill(x[2 * k], x[2 * k + 1], region[k] + 1);
    done = x[2 * k + 1];
  }
  fill(done, cols, 0);
}

}  // namespace

void RegionStatistics::add(const RegionStatistics& later) {
  if (area == 0) first = later.first;
  area += later.area;
  row_sum += later.row_sum;
  col_sum += later.col_sum;
  top = std::min(top, later.top);
  left = std::min(left, later.left);
  bottom = std::max(bottom, later.bottom);
  right = std::max(right, later.right);
}

template <typename T>
Regions find_regions(const LabelRaster<T>& labels, const RegionRules& rules, int threads) {
  Regions found;
  found.rows = labels.rows;
  found.cols = labels.cols;
  found.row_start.assign(static_cast<size_t>(labels.rows + 1), 0);
  if (labels.rows == 0 || labels.cols == 0) return found;

  const bool statistics = rules.statistics || rules.min_area > 1;
  const int64_t rows = rows_per_strip(labels.cols);
  std::vector<Strip> strips(static_cast<size_t>((labels.rows + rows - 1) / rows));
  const auto n_strips = static_cast<int64_t>(strips.size());
  parallel(n_strips, threads, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      Strip& strip = strips[static_cast<size_t>(s)];
      strip.first_row = s * rows;
      strip.rows = std::min(rows, labels.rows - strip.first_row);
      scan(labels, rules, statistics, strip);
    }
  });

  int64_t pieces = 0;
  for (const Strip& strip : strips) pieces += strip.pieces.size();
  if (pieces > rules.most_pieces)
    throw std::length_error("labels: more than " + std::to_string(rules.most_pieces) +
                            " pieces of regions; label parts of the raster, or fewer small regions");
  Sets sets;
  sets.reserve(pieces);
  std::vector<int64_t> first_piece;
  std::vector<int64_t> first_run{0};
  std::vector<RegionStatistics> all;
  for (const Strip& strip : strips) {
    first_piece.push_back(sets.size());
    sets.append(strip.pieces);
    all.insert(all.end(), strip.statistics.begin(), strip.statistics.end());
    for (size_t r = 0; r < strip.runs_in_row.size(); ++r) {
      const auto row = static_cast<size_t>(strip.first_row) + r;
      found.row_start[row + 1] = found.row_start[row] + strip.runs_in_row[r];
    }
    first_run.push_back(first_run.back() + strip.runs());
  }
  for (size_t s = 1; s < strips.size(); ++s) {
    const Strip& upper = strips[s - 1];
    const Strip& lower = strips[s];
    const int64_t above = upper.runs() - upper.runs_in_row.back();
    const T* row = labels.data + lower.first_row * labels.cols;
    for_touching(upper.x.data() + 2 * above, upper.runs_in_row.back(), lower.x.data(), lower.runs_in_row.front(),
                 rules.diagonal, [&](int64_t i, int64_t j) {
                   const auto a = static_cast<size_t>(above + i);
                   const auto b = static_cast<size_t>(j);
                   if (row[upper.x[2 * a] - labels.cols] == row[lower.x[2 * b]])
                     sets.unite(static_cast<int32_t>(first_piece[s - 1] + upper.piece[a]),
                                static_cast<int32_t>(first_piece[s] + lower.piece[b]));
                 });
  }

  std::vector<int32_t> numbers = sets.take();
  found.count = number(numbers, rules.min_area, all);
  if (rules.statistics) found.statistics = std::move(all);

  const int64_t runs = first_run.back();
  found.x.resize(static_cast<size_t>(2 * runs));
  found.region.resize(static_cast<size_t>(runs));
  parallel(n_strips, threads, [&](int64_t begin, int64_t end) {
    for (auto s = static_cast<size_t>(begin); s < static_cast<size_t>(end); ++s) {
      Strip& strip = strips[s];
      std::copy(strip.x.begin(), strip.x.end(), found.x.begin() + 2 * first_run[s]);
      int32_t* region = found.region.data() + first_run[s];
      const int32_t* mine = numbers.data() + first_piece[s];
      for (size_t k = 0; k < strip.piece.size(); ++k) region[k] = mine[strip.piece[k]];
      strip = Strip();  // gives back its memory
    }
  });
  return found;
}

template Regions find_regions(const LabelRaster<uint8_t>&, const RegionRules&, int);
template Regions find_regions(const LabelRaster<int32_t>&, const RegionRules&, int);

void write_regions(const Regions& regions, int32_t* out, int threads) {
  const int64_t cols = regions.cols;
  parallel(
      regions.rows, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const int64_t first = regions.row_start[static_cast<size_t>(r)];
          const int64_t runs = regions.row_start[static_cast<size_t>(r + 1)] - first;
          const int32_t* x = regions.x.data() + 2 * first;
          const int32_t* region = regions.region.data() + first;
          int32_t* row = out + r * cols;
          dispatch([=]() RVK_INLINE { write_row(x, region, runs, cols, row); });
        }
      },
      rows_per_strip(cols));
}

}  // namespace rvk
