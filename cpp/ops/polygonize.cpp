#include "ops/polygonize.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "parallel.h"

namespace rvk {
namespace {

constexpr int64_t kChains = 1024;  // chains per piece of work

}  // namespace

template <typename T>
Polygonizer::Polygonizer(const LabelRaster<T>& labels, const RegionRules& rules, int threads)
    : regions_(find_regions(labels, rules, threads)) {
  const int64_t most_runs = rules.most_pieces / 2;
  if (regions_.row_start.back() > most_runs)
    throw std::length_error("labels: more than " + std::to_string(most_runs) +
                            " runs of equal values; make polygons of parts of the raster");
  link(threads);
  find_chains(threads);
  join_chains();
}

template Polygonizer::Polygonizer(const LabelRaster<uint8_t>&, const RegionRules&, int);
template Polygonizer::Polygonizer(const LabelRaster<int32_t>&, const RegionRules&, int);

// What follows the right sides of one row and the left sides of the row below is decided on the line between them. With
// nothing on the other side of the line a right side is followed by the left side of its run (the lower end of the
// run), a left side by the right one (its upper end). Where a run touches one below it, the walk that was to enter the
// lower run's right side and the walk down the upper run's right side change places. Touching at a corner counts, so
// that walks pass from pixel to pixel there.
void Polygonizer::link(int threads) {
  next_.resize(regions_.x.size());
  int32_t* next = next_.data();
  const int32_t* x = regions_.x.data();
  const int32_t* region = regions_.region.data();
  const auto row_start = [&](int64_t row) {
    return regions_.row_start[static_cast<size_t>(std::clamp(row, int64_t{0}, regions_.rows))];
  };
  parallel(
      regions_.rows + 1, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t line = begin; line < end; ++line) {
          const int64_t above = row_start(line - 1);
          const int64_t below = row_start(line);
          const int64_t after = row_start(line + 1);
          for (int64_t a = above; a < below; ++a) next[2 * a + 1] = static_cast<int32_t>(2 * a);
          for (int64_t b = below; b < after; ++b) next[2 * b] = static_cast<int32_t>(2 * b + 1);
          int64_t last_b = -1;
          int64_t enters_b = -1;  // the side that is followed by the right side of last_b
          for_touching(x + 2 * above, below - above, x + 2 * below, after - below, 1, [&](int64_t i, int64_t j) {
            const int64_t a = above + i;
            const int64_t b = below + j;
            if (region[a] != region[b]) return;
            if (b != last_b) enters_b = 2 * b;
            std::swap(next[enters_b], next[2 * a + 1]);
            last_b = b;
            enters_b = 2 * a + 1;
          });
        }
      },
      rows_per_strip(regions_.cols));
}

// Chains in raster order of their upward sides, with their points counted.
void Polygonizer::find_chains(int threads) {
  const int64_t rows = rows_per_strip(regions_.cols);
  const int64_t pieces = (regions_.rows + rows - 1) / rows;
  std::vector<std::vector<Chain>> found(static_cast<size_t>(pieces));
  parallel(pieces, threads, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t row = p * rows; row < std::min(regions_.rows, (p + 1) * rows); ++row)
        for (int64_t k = regions_.row_start[static_cast<size_t>(row)];
             k < regions_.row_start[static_cast<size_t>(row + 1)]; ++k) {
          const int32_t down = next_[static_cast<size_t>(2 * k)];
          if (down % 2 == 1 && regions_.region[static_cast<size_t>(k)] != kNoRegion)
            found[static_cast<size_t>(p)].push_back(
                {static_cast<int32_t>(2 * k), down, static_cast<int32_t>(row), 0, 0, 0});
        }
  });
  for (const std::vector<Chain>& some : found) chains_.insert(chains_.end(), some.begin(), some.end());
  const auto n = static_cast<int64_t>(chains_.size());
  for (int64_t i = 0; i < n; ++i)
    next_[static_cast<size_t>(chains_[static_cast<size_t>(i)].up)] = static_cast<int32_t>(-1 - i);
  parallel(
      n, threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          Chain& chain = chains_[static_cast<size_t>(i)];
          int64_t points = 0;
          chain.next = walk(chain, [&](int32_t, int32_t) { ++points; });
          chain.points = points;
        }
      },
      kChains);
}

// Calls corner(x, y) for the vertices of a chain and returns the chain that follows.
template <typename F>
int32_t Polygonizer::walk(const Chain& chain, F&& corner) const {
  const int32_t* x = regions_.x.data();
  const int32_t* next = next_.data();
  int32_t row = chain.row;
  int32_t side = chain.down;
  corner(x[chain.up], row);
  corner(x[side], row);
  for (;;) {
    const int32_t following = next[side];
    if (following < 0) return -1 - following;
    const int32_t down = side & 1;
    if (x[side] != x[following]) {
      corner(x[side], row + down);
      corner(x[following], row + down);
    }
    row += down + (following & 1) - 1;  // to the next row, the one before, or, from down to up, the same
    side = following;
  }
}

void Polygonizer::join_chains() {
  struct Ring {
    int32_t first;  // its first chain in raster order
    int64_t points;
  };
  const auto region_of = [&](const Ring& ring) {
    return regions_.region[static_cast<size_t>(chains_[static_cast<size_t>(ring.first)].up / 2)];
  };
  std::vector<Ring> rings;
  std::vector<bool> seen(chains_.size());
  polygon_start_.assign(static_cast<size_t>(regions_.count) + 1, 0);
  for (size_t first = 0; first < chains_.size(); ++first) {
    if (seen[first]) continue;
    Ring ring{static_cast<int32_t>(first), 1};  // the first point once more at the end
    for (size_t i = first; !seen[i]; i = static_cast<size_t>(chains_[i].next)) {
      seen[i] = true;
      ring.points += chains_[i].points;
    }
    rings.push_back(ring);
    ++polygon_start_[static_cast<size_t>(region_of(ring)) + 1];
  }
  for (size_t p = 1; p < polygon_start_.size(); ++p) polygon_start_[p] += polygon_start_[p - 1];

  // By region, each region's rings in their order. The outer one is first: it begins above the holes.
  std::vector<int64_t> place(polygon_start_.begin(), polygon_start_.end() - 1);
  std::vector<Ring> ordered(rings.size());
  for (const Ring& ring : rings) ordered[static_cast<size_t>(place[static_cast<size_t>(region_of(ring))]++)] = ring;

  ring_start_.reserve(rings.size() + 1);
  for (const Ring& ring : ordered) {
    ring_start_.push_back(ring_start_.back() + ring.points);
    int64_t position = ring_start_.back() - 1;
    auto i = static_cast<size_t>(ring.first);
    do {
      chains_[i].position = position;
      position -= chains_[i].points;
      i = static_cast<size_t>(chains_[i].next);
    } while (i != static_cast<size_t>(ring.first));
  }
  first_pixel_.reserve(static_cast<size_t>(regions_.count));
  for (int64_t p = 0; p < regions_.count; ++p) {
    const Ring& outer = ordered[static_cast<size_t>(polygon_start_[static_cast<size_t>(p)])];
    const Chain& chain = chains_[static_cast<size_t>(outer.first)];
    first_pixel_.push_back(chain.row * regions_.cols + regions_.x[static_cast<size_t>(chain.up)]);
  }
}

template <typename T, typename F>
void Polygonizer::write_points(T* coords, int threads, F&& point) const {
  parallel(
      static_cast<int64_t>(chains_.size()), threads,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Chain& chain = chains_[static_cast<size_t>(i)];
          T* to = coords + 2 * chain.position;
          walk(chain, [&](int32_t x, int32_t y) {
            point(x, y, to);
            to -= 2;
          });
        }
      },
      kChains);
  const auto rings = static_cast<int64_t>(ring_start_.size()) - 1;
  parallel(
      rings, threads,
      [&](int64_t begin, int64_t end) {
        for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r)
          std::copy_n(coords + 2 * (ring_start_[r + 1] - 1), 2, coords + 2 * ring_start_[r]);
      },
      kChains);
}

void Polygonizer::write(int32_t* coords, int threads) const {
  write_points(coords, threads, [](int32_t x, int32_t y, int32_t* to) {
    to[0] = x;
    to[1] = y;
  });
}

void Polygonizer::write(const double* transform, double* coords, int threads) const {
  const double* t = transform;
  write_points(coords, threads, [t](int32_t x, int32_t y, double* to) {
    to[0] = t[0] + x * t[1] + y * t[2];
    to[1] = t[3] + x * t[4] + y * t[5];
  });
}

}  // namespace rvk
