// Which windows meet which piece of a raster, in the order of the pieces: the loop of every windowed read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace rvk {

// Rows [row0, row1) and columns [col0, col1).
struct Rect {
  int64_t row0, col0, row1, col1;
  bool empty() const { return row0 >= row1 || col0 >= col1; }
};

// A window's (row, col, rows, cols) part of a piece of the raster.
inline Rect meet(const int64_t* window, const Rect& piece) {
  return {std::max(window[0], piece.row0), std::max(window[1], piece.col0), std::min(window[0] + window[2], piece.row1),
          std::min(window[1] + window[3], piece.col1)};
}

// Pieces of piece_rows x piece_cols pixels that some of the windows meet, from the top, each with its windows.
class Visits {
 public:
  // `which` are the windows (n, 4) that take part, by index, ascending.
  Visits(const int64_t* windows, const std::vector<int64_t>& which, int64_t rows, int64_t cols, int64_t piece_rows,
         int64_t piece_cols)
      : windows_(windows), rows_(rows), cols_(cols), piece_rows_(piece_rows), piece_cols_(piece_cols) {
    across_ = (cols + piece_cols - 1) / piece_cols;
    for (const int64_t i : which) {
      const Rect part = meet(windows + 4 * i, {0, 0, rows, cols});
      if (part.empty()) continue;
      for (int64_t r = part.row0 / piece_rows; r <= (part.row1 - 1) / piece_rows; ++r)
        for (int64_t c = part.col0 / piece_cols; c <= (part.col1 - 1) / piece_cols; ++c)
          visits_.push_back({r * across_ + c, i});
    }
    std::sort(visits_.begin(), visits_.end(), [](const Visit& a, const Visit& b) {
      return a.piece != b.piece ? a.piece < b.piece : a.window < b.window;
    });
    for (size_t v = 0; v < visits_.size(); ++v)
      if (v == 0 || visits_[v].piece != visits_[v - 1].piece) starts_.push_back(v);
    pieces_ = static_cast<int64_t>(starts_.size());
    starts_.push_back(visits_.size());
  }

  int64_t pieces() const { return pieces_; }

  Rect piece(int64_t p) const {
    const int64_t number = visits_[starts_[p]].piece;
    const int64_t row = number / across_ * piece_rows_, col = number % across_ * piece_cols_;
    return {row, col, std::min(rows_, row + piece_rows_), std::min(cols_, col + piece_cols_)};
  }

  // The smallest rectangle of piece p that holds all its windows' parts.
  Rect need(int64_t p) const {
    const Rect piece = this->piece(p);
    Rect need{piece.row1, piece.col1, piece.row0, piece.col0};
    each(p, [&](int64_t, const Rect& part) {
      need = {std::min(need.row0, part.row0), std::min(need.col0, part.col0), std::max(need.row1, part.row1),
              std::max(need.col1, part.col1)};
    });
    return need;
  }

  // f(window, its part of the piece) for each window that meets piece p, ascending.
  template <typename F>
  void each(int64_t p, F&& f) const {
    const Rect piece = this->piece(p);
    for (size_t v = starts_[p]; v < starts_[p + 1]; ++v)
      f(visits_[v].window, meet(windows_ + 4 * visits_[v].window, piece));
  }

 private:
  struct Visit {
    int64_t piece, window;
  };
  const int64_t* windows_;
  int64_t rows_, cols_, piece_rows_, piece_cols_, across_, pieces_;
  std::vector<Visit> visits_;
  std::vector<size_t> starts_;
};

}  // namespace rvk
