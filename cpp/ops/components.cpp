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

// Words of 64 columns of a row. Bit c of `changes` says that row[c] differs from row[c - 1], of `foreground` that it is
// not `background`. `row` points at a column that has a left neighbour.
template <typename T>
void compare_plain(const T* row, int64_t words, T background, uint64_t* changes, uint64_t* foreground) {
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t differ = 0;
    uint64_t inside = 0;
    for (int64_t c = 0; c < 64; c += 8) {
      T here[8];
      T left[8];
      std::memcpy(here, row + c, sizeof(here));
      std::memcpy(left, row + c - 1, sizeof(left));
      if (std::memcmp(here, left, sizeof(here)) == 0) {  // most of a raster
        inside |= (here[0] != background ? uint64_t{0xff} : 0) << c;
        continue;
      }
      for (int64_t i = 0; i < 8; ++i) {
        differ |= static_cast<uint64_t>(here[i] != left[i]) << (c + i);
        inside |= static_cast<uint64_t>(here[i] != background) << (c + i);
      }
    }
    changes[w] = differ;
    foreground[w] = inside;
  }
}

#if defined(__x86_64__)

RVK_V3 void compare_v3(const uint8_t* row, int64_t words, uint8_t background, uint64_t* changes, uint64_t* foreground) {
  const __m256i none = _mm256_set1_epi8(static_cast<char>(background));
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t same = 0;
    uint64_t outside = 0;
    for (int64_t i = 0; i < 2; ++i) {
      const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 32 * i));
      const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 32 * i - 1));
      const auto equal = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(here, left)));
      const auto back = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(here, none)));
      same |= uint64_t{equal} << (32 * i);
      outside |= uint64_t{back} << (32 * i);
    }
    changes[w] = ~same;
    foreground[w] = ~outside;
  }
}

RVK_V3 void compare_v3(const int32_t* row, int64_t words, int32_t background, uint64_t* changes, uint64_t* foreground) {
  const __m256i none = _mm256_set1_epi32(background);
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t same = 0;
    uint64_t outside = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 8 * i));
      const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 8 * i - 1));
      const int equal = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(here, left)));
      const int back = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(here, none)));
      same |= static_cast<uint64_t>(static_cast<uint32_t>(equal)) << (8 * i);
      outside |= static_cast<uint64_t>(static_cast<uint32_t>(back)) << (8 * i);
    }
    changes[w] = ~same;
    foreground[w] = ~outside;
  }
}

RVK_V4 void compare_v4(const uint8_t* row, int64_t words, uint8_t background, uint64_t* changes, uint64_t* foreground) {
  const __m512i none = _mm512_set1_epi8(static_cast<char>(background));
  for (int64_t w = 0; w < words; ++w, row += 64) {
    const __m512i here = _mm512_loadu_si512(row);
    changes[w] = _mm512_cmpneq_epu8_mask(here, _mm512_loadu_si512(row - 1));
    foreground[w] = _mm512_cmpneq_epu8_mask(here, none);
  }
}

RVK_V4 void compare_v4(const int32_t* row, int64_t words, int32_t background, uint64_t* changes, uint64_t* foreground) {
  const __m512i none = _mm512_set1_epi32(background);
  for (int64_t w = 0; w < words; ++w, row += 64) {
    uint64_t differ = 0;
    uint64_t inside = 0;
    for (int64_t i = 0; i < 4; ++i) {
      const __m512i here = _mm512_loadu_si512(row + 16 * i);
      const __mmask16 change = _mm512_cmpneq_epi32_mask(here, _mm512_loadu_si512(row + 16 * i - 1));
      differ |= static_cast<uint64_t>(change) << (16 * i);
      inside |= static_cast<uint64_t>(_mm512_cmpneq_epi32_mask(here, none)) << (16 * i);
    }
    changes[w] = differ;
    foreground[w] = inside;
  }
}

#endif

template <typename T>
void compare(const T* row, int64_t words, T background, uint64_t* changes, uint64_t* foreground) {
#if defined(__x86_64__)
  if (isa() >= Isa::v4) return compare_v4(row, words, background, changes, foreground);
  if (isa() >= Isa::v3) return compare_v3(row, words, background, changes, foreground);
#endif
  compare_plain(row, words, background, changes, foreground);
}

// Where values change in a row, its first column included, and where it is not background; no bits behind its end.
struct RowBits {
  std::vector<uint64_t> changes, foreground;
};

template <typename T>
void find_bits(const LabelRaster<T>& labels, const T* row, RowBits& bits) {
  const int64_t cols = labels.cols;
  const int64_t words = (cols + 63) / 64;
  bits.changes.resize(static_cast<size_t>(words));
  bits.foreground.resize(static_cast<size_t>(words));
  uint64_t* changes = bits.changes.data();
  uint64_t* foreground = bits.foreground.data();
  if (words > 2) compare(row + 64, words - 2, labels.background, changes + 1, foreground + 1);
  // The first column has no left neighbour, the last word no 64 columns: both are compared in a copy.
  for (const int64_t w : {int64_t{0}, words - 1}) {
    const int64_t count = std::min<int64_t>(64, cols - 64 * w);
    T copy[65] = {};
    copy[0] = w == 0 ? static_cast<T>(~row[0]) : row[64 * w - 1];
    std::memcpy(copy + 1, row + 64 * w, static_cast<size_t>(count) * sizeof(T));
    compare(copy + 1, 1, labels.background, changes + w, foreground + w);
    const uint64_t inside = ~uint64_t{0} >> (64 - count);
    changes[w] &= inside;
    foreground[w] = labels.has_background ? foreground[w] & inside : inside;
  }
  if (!labels.has_background && words > 2) std::fill(foreground + 1, foreground + words - 1, ~uint64_t{0});
}

#if defined(__x86_64__)

// Of the set bits of a word; x has room for 16 numbers more.
RVK_V4 int64_t positions_v4(uint64_t bits, int32_t first, int32_t* x) {
  __m512i at = _mm512_add_epi32(_mm512_set1_epi32(first),
                                _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  int64_t n = 0;
  for (; bits != 0; bits >>= 16) {
    const auto some = static_cast<__mmask16>(bits);
    _mm512_storeu_si512(x + n, _mm512_maskz_compress_epi32(some, at));
    n += __builtin_popcount(some);
    at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
  }
  return n;
}

#endif

constexpr int64_t kSlack = 16;  // numbers behind the end of what positions() writes

// first + the position of each set bit into x; returns how many there are.
int64_t positions(uint64_t bits, int32_t first, int32_t* x) {
  [[maybe_unused]] constexpr int64_t kFew = 6;
  int64_t n = 0;
  for (; bits != 0; bits &= bits - 1) {
#if defined(__x86_64__)
    if (n == kFew && isa() >= Isa::v4) return n + positions_v4(bits, first, x + n);
#endif
    x[n++] = first + static_cast<int32_t>(__builtin_ctzll(bits));
  }
  return n;
}

// Begin and end columns of the runs of a row into x, which has room for 2 (cols + 1) + kSlack; returns how many there
// are.
int64_t runs_of_row(const RowBits& bits, int64_t cols, int32_t* x) {
  int64_t n = 0;
  uint64_t left = 0;  // whether the column before is foreground
  for (size_t w = 0; w < bits.changes.size(); ++w) {
    const auto first = static_cast<int32_t>(64 * w);
    const uint64_t foreground = bits.foreground[w];
    const uint64_t before = foreground << 1 | left;
    left = foreground >> 63;
    uint64_t changes = bits.changes[w] & (before | foreground);
    if ((changes & before & foreground) == 0) {  // each is a begin or an end
      n += positions(changes, first, x + n);
      continue;
    }
    for (; changes != 0; changes &= changes - 1) {
      // Written always and kept or not: whether a run is background is nothing a processor predicts.
      const int bit = __builtin_ctzll(changes);
      x[n] = first + bit;
      n += before >> bit & 1;
      x[n] = first + bit;
      n += foreground >> bit & 1;
    }
  }
  x[n] = static_cast<int32_t>(cols);
  return (n + 1) / 2;
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
    const size_t offset = parent_.size();
    parent_.insert(parent_.end(), other.parent_.begin(), other.parent_.end());
    for (size_t i = offset; i < parent_.size(); ++i) parent_[i] += static_cast<int32_t>(offset);
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

// The runs of one row: begin and end columns, and the piece of each.
struct Row {
  std::vector<int32_t> x, piece;
  int64_t runs = 0;

  Row() = default;
  explicit Row(int64_t cols) : x(static_cast<size_t>(2 * cols + 2 + kSlack)), piece(static_cast<size_t>(cols)) {}

  Row copy() const {
    Row row;
    row.x.assign(x.begin(), x.begin() + 2 * runs);
    row.piece.assign(piece.begin(), piece.begin() + runs);
    row.runs = runs;
    return row;
  }
};

// How many runs a row has.
int64_t count_runs(const RowBits& bits) {
  int64_t runs = 0;
  for (size_t w = 0; w < bits.changes.size(); ++w) runs += __builtin_popcountll(bits.changes[w] & bits.foreground[w]);
  return runs;
}

// More runs of a strip than this are not kept where they can be found again: the memory that they take, which is new in
// every call, costs more than that.
constexpr int64_t kMostKept = int64_t{1} << 16;

// Some rows of the raster. A piece is a set of connected runs that was begun by a run without a connection upwards.
struct Strip {
  int64_t first_row = 0, rows = 0;
  std::vector<int64_t> runs_in_row;  // of those that are kept, from the top
  std::vector<int32_t> x, piece;     // of the runs that are kept
  Row first, last;
  Sets pieces;
  std::vector<RegionStatistics> statistics;  // of each piece
};

// Of rows whose runs are not kept, the pieces go to the beginning of the same row of `spare`, (rows, cols) of the whole
// raster, unless it is null: then all are kept.
template <typename T>
void scan(const LabelRaster<T>& labels, const RegionRules& rules, bool statistics, int32_t* spare, Strip& strip) {
  const int64_t cols = labels.cols;
  RowBits bits;
  Row above(cols);
  Row below(cols);
  bool keep = true;
  for (int64_t r = 0; r < strip.rows; ++r) {
    const int64_t row_number = strip.first_row + r;
    const T* row = labels.data + row_number * cols;
    find_bits(labels, row, bits);
    const int64_t runs = below.runs = runs_of_row(bits, cols, below.x.data());
    const int32_t* above_x = above.x.data();
    const int32_t* x = below.x.data();
    const int32_t* above_piece = above.piece.data();
    int32_t* piece = below.piece.data();
    std::fill_n(piece, runs, kNoRegion);
    for_touching(above_x, above.runs, x, runs, rules.diagonal, [&](int64_t a, int64_t b) {
      if (row[above_x[2 * a] - cols] != row[x[2 * b]]) return;
      if (piece[b] == kNoRegion)
        piece[b] = above_piece[a];
      else if (piece[b] != above_piece[a])
        strip.pieces.unite(piece[b], above_piece[a]);
    });
    for (int64_t b = 0; b < runs; ++b) {
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
    keep = keep && (spare == nullptr || static_cast<int64_t>(strip.piece.size()) + runs <= kMostKept);
    if (keep) {
      strip.runs_in_row.push_back(runs);
      strip.x.insert(strip.x.end(), x, x + 2 * runs);
      strip.piece.insert(strip.piece.end(), piece, piece + runs);
    } else {
      std::copy(piece, piece + runs, spare + row_number * cols);
    }
    if (r == 0) strip.first = below.copy();
    std::swap(above, below);
  }
  strip.last = above.copy();
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

// The value of each run into its columns, 0 between them: written once from left to right in whole blocks, what a block
// writes too much the next one corrects.
inline RVK_INLINE void write_row(const int32_t* x, const int32_t* value, int64_t runs, int64_t cols, int32_t* row) {
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
    fill(x[2 * k], x[2 * k + 1], value[k]);
    done = x[2 * k + 1];
  }
  fill(done, cols, 0);
}

#if defined(__x86_64__)

// The same for rows of short runs, from their bits: every column takes the value of the last run that begins there or
// before it.
RVK_V4 void write_row_v4(const RowBits& bits, const int32_t* value, int64_t cols, int32_t* row) {
  const __m512i up_to = _mm512_setr_epi32(0x1, 0x3, 0x7, 0xf, 0x1f, 0x3f, 0x7f, 0xff, 0x1ff, 0x3ff, 0x7ff, 0xfff,
                                          0x1fff, 0x3fff, 0x7fff, 0xffff);
  __m512i last = _mm512_setzero_si512();  // in all lanes, the value of the run that the columns before end with
  for (int64_t c = 0; c < cols; c += 16) {
    const auto inside = static_cast<__mmask16>(cols - c >= 16 ? 0xffff : (1 << (cols - c)) - 1);
    const auto foreground = static_cast<__mmask16>(bits.foreground[static_cast<size_t>(c / 64)] >> (c % 64));
    const auto begins = static_cast<__mmask16>(
        foreground & static_cast<__mmask16>(bits.changes[static_cast<size_t>(c / 64)] >> (c % 64)));
    const __m512i begun = _mm512_maskz_expandloadu_epi32(begins, value);
    value += __builtin_popcount(begins);
    const __m512i before = _mm512_and_si512(_mm512_set1_epi32(begins), up_to);
    const __m512i nearest = _mm512_sub_epi32(_mm512_set1_epi32(31), _mm512_maskz_lzcnt_epi32(0xffff, before));
    const __mmask16 some = _mm512_test_epi32_mask(before, before);
    const __m512i values = _mm512_mask_permutexvar_epi32(last, some, nearest, begun);
    last = _mm512_maskz_permutexvar_epi32(0xffff, _mm512_set1_epi32(15), values);
    _mm512_mask_storeu_epi32(row + c, inside, _mm512_maskz_mov_epi32(foreground, values));
  }
}

#endif

// What scan() found in all strips, and how pieces join: those of strip s have numbers[first_piece[s] + piece], or
// kNoRegion.
struct Found {
  std::vector<Strip> strips;
  std::vector<int64_t> first_piece;
  std::vector<int32_t> numbers;
  int32_t count = 0;
  std::vector<RegionStatistics> statistics;  // of each region
};

template <typename T>
Found find(const LabelRaster<T>& labels, const RegionRules& rules, bool statistics, int32_t* spare, int threads) {
  Found found;
  if (labels.rows == 0 || labels.cols == 0) return found;
  const int64_t rows = rows_per_strip(labels.cols);
  std::vector<Strip>& strips = found.strips;
  strips.resize(static_cast<size_t>((labels.rows + rows - 1) / rows));
  parallel(static_cast<int64_t>(strips.size()), threads, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      Strip& strip = strips[static_cast<size_t>(s)];
      strip.first_row = s * rows;
      strip.rows = std::min(rows, labels.rows - strip.first_row);
      scan(labels, rules, statistics || rules.min_area > 1, spare, strip);
    }
  });

  int64_t pieces = 0;
  for (const Strip& strip : strips) pieces += strip.pieces.size();
  if (pieces > rules.most_pieces)
    throw std::length_error("labels: more than " + std::to_string(rules.most_pieces) +
                            " pieces of regions; label parts of the raster, or fewer small regions");
  Sets sets;
  sets.reserve(pieces);
  if (strips.size() > 1 && !strips.front().statistics.empty()) found.statistics.reserve(static_cast<size_t>(pieces));
  for (Strip& strip : strips) {
    found.first_piece.push_back(sets.size());
    sets.append(strip.pieces);
    strip.pieces = Sets();
    if (strips.size() == 1) {
      found.statistics = std::move(strip.statistics);
    } else {
      found.statistics.insert(found.statistics.end(), strip.statistics.begin(), strip.statistics.end());
      strip.statistics = {};
    }
  }
  for (size_t s = 1; s < strips.size(); ++s) {
    const Row& upper = strips[s - 1].last;
    const Row& lower = strips[s].first;
    const T* row = labels.data + strips[s].first_row * labels.cols;
    for_touching(upper.x.data(), upper.runs, lower.x.data(), lower.runs, rules.diagonal, [&](int64_t i, int64_t j) {
      const auto a = static_cast<size_t>(i);
      const auto b = static_cast<size_t>(j);
      if (row[upper.x[2 * a] - labels.cols] == row[lower.x[2 * b]])
        sets.unite(static_cast<int32_t>(found.first_piece[s - 1] + upper.piece[a]),
                   static_cast<int32_t>(found.first_piece[s] + lower.piece[b]));
    });
  }
  found.numbers = sets.take();
  found.count = number(found.numbers, rules.min_area, found.statistics);
  return found;
}

// The number of each run's region, plus `more`.
void number_runs(const int32_t* piece, int64_t runs, const int32_t* numbers, int32_t more, int32_t* to) {
  for (int64_t k = 0; k < runs; ++k) to[k] = numbers[piece[k]] + more;
}

// The rows of a strip: those whose runs are kept, then those whose pieces are at their beginning.
template <typename T>
void write_strip(const LabelRaster<T>& labels, const Strip& strip, const int32_t* numbers, int32_t* out) {
  const int64_t cols = labels.cols;
  const auto kept = static_cast<int64_t>(strip.runs_in_row.size());
  std::vector<int32_t> values(static_cast<size_t>(cols));
  int32_t* value = values.data();
  const auto write = [=](const int32_t* x, int64_t runs, int32_t* row) {
    dispatch([=]() RVK_INLINE { write_row(x, value, runs, cols, row); });
  };
  int64_t first = 0;
  for (int64_t r = 0; r < kept; ++r) {
    const int64_t runs = strip.runs_in_row[static_cast<size_t>(r)];
    number_runs(strip.piece.data() + first, runs, numbers, 1, value);
    write(strip.x.data() + 2 * first, runs, out + (strip.first_row + r) * cols);
    first += runs;
  }
  if (kept == strip.rows) return;
  RowBits bits;
  std::vector<int32_t> x(static_cast<size_t>(2 * cols + 2 + kSlack));
  for (int64_t r = strip.first_row + kept; r < strip.first_row + strip.rows; ++r) {
    find_bits(labels, labels.data + r * cols, bits);
    int32_t* row = out + r * cols;
    number_runs(row, count_runs(bits), numbers, 1, value);
#if defined(__x86_64__)
    if (isa() >= Isa::v4) {
      write_row_v4(bits, value, cols, row);
      continue;
    }
#endif
    const int64_t runs = runs_of_row(bits, cols, x.data());
    write(x.data(), runs, row);
  }
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
  Found found = find(labels, rules, false, nullptr, threads);
  Regions regions;
  regions.rows = labels.rows;
  regions.cols = labels.cols;
  regions.count = found.count;
  regions.row_start.reserve(static_cast<size_t>(labels.rows + 1));
  regions.row_start.push_back(0);
  std::vector<int64_t> first_run;
  for (const Strip& strip : found.strips) {
    first_run.push_back(regions.row_start.back());
    for (const int64_t runs : strip.runs_in_row) regions.row_start.push_back(regions.row_start.back() + runs);
  }
  regions.row_start.resize(static_cast<size_t>(labels.rows + 1), 0);  // a raster without columns has no strips
  const int64_t runs = regions.row_start.back();
  regions.x.resize(static_cast<size_t>(2 * runs));
  regions.region.resize(static_cast<size_t>(runs));
  parallel(static_cast<int64_t>(found.strips.size()), threads, [&](int64_t begin, int64_t end) {
    for (auto s = static_cast<size_t>(begin); s < static_cast<size_t>(end); ++s) {
      Strip& strip = found.strips[s];
      std::copy(strip.x.begin(), strip.x.end(), regions.x.begin() + 2 * first_run[s]);
      number_runs(strip.piece.data(), static_cast<int64_t>(strip.piece.size()),
                  found.numbers.data() + found.first_piece[s], 0, regions.region.data() + first_run[s]);
      strip = Strip();  // gives back its memory
    }
  });
  return regions;
}

template Regions find_regions(const LabelRaster<uint8_t>&, const RegionRules&, int);
template Regions find_regions(const LabelRaster<int32_t>&, const RegionRules&, int);

template <typename T>
Numbered number_regions(const LabelRaster<T>& labels, const RegionRules& rules, bool statistics, int32_t* out,
                        int threads) {
  Found found = find(labels, rules, statistics, out, threads);
  parallel(static_cast<int64_t>(found.strips.size()), threads, [&](int64_t begin, int64_t end) {
    for (auto s = static_cast<size_t>(begin); s < static_cast<size_t>(end); ++s) {
      write_strip(labels, found.strips[s], found.numbers.data() + found.first_piece[s], out);
      found.strips[s] = Strip();
    }
  });
  if (!statistics) found.statistics = {};
  return {found.count, std::move(found.statistics)};
}

template Numbered number_regions(const LabelRaster<uint8_t>&, const RegionRules&, bool, int32_t*, int);
template Numbered number_regions(const LabelRaster<int32_t>&, const RegionRules&, bool, int32_t*, int);

}  // namespace rvk
