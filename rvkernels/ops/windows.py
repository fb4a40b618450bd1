"""Where windows lie: side by side, at random, in an area of interest, and what of a mask they hold.

A window is (row, col, rows, cols) in pixels of a scene, windows are int64 (n, 4); rvkernels.ops.tile reads them. An
extent is the rectangle that windows are laid in, of the same form.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rvkernels.ops import core, philox
from rvkernels.ops._checks import check_array, check_run
from rvkernels.registry import suggest

TOLERANCE = 0
ENDS = ("flush", "drop", "over")
DIRECTIONS = ("rows", "cols", "serpentine")
RULES = ("within", "intersects")
ATTEMPTS = 100  # rounds of random windows before an area of interest counts as too small for them
_OP_PLACE, _OP_SIZE = 101, 104  # philox streams of random windows

Size = "int | tuple[int, int]"
Inside = Callable[[np.ndarray], np.ndarray]


def starts(length: int, size: int, stride: int, *, flush: bool) -> np.ndarray:
    """First pixels of windows of `size` in `length` pixels: 0, stride, ... as far as they fit, int64, ascending.

    With `flush` one more ends with the last pixel when the others leave some uncovered.
    """
    axis = _Axis(0, length, size, stride, "flush" if flush else "drop")
    return axis.at(np.arange(len(axis)))


class _Axis:
    """Positions of windows along rows or columns, computed when asked for."""

    def __init__(self, first: int, length: int, size: int, stride: int, ends: str):
        self.first, self.stride, self.last = first, stride, first + length - size
        self.count = max(0, (length - size) // stride + 1)
        uncovered = length > 0 and (self.count == 0 or (self.count - 1) * stride + size < length)
        self.flush = ends == "flush" and self.count > 0
        if uncovered and (ends == "over" or self.flush):
            self.count += 1
            # A stride longer than the window leaves gaps, and steps on until the end is passed.
            if ends == "over":
                self.count = max(self.count, -(-(length - size) // stride) + 1)

    def __len__(self) -> int:
        return self.count

    def at(self, index: np.ndarray) -> np.ndarray:
        found = self.first + index.astype(np.int64) * self.stride
        return np.minimum(found, self.last) if self.flush else found


class Sliding(Sequence):
    """Windows at a regular distance: a sequence that holds none of them, whatever its length.

    plan[i] is one window (4,), plan[a:b] and plan[array of indices] are (n, 4); numpy.asarray(plan) is all of them.
    """

    def __init__(self, rows: _Axis, cols: _Axis, size: tuple[int, int], direction: str):
        self._rows, self._cols, self.size, self.direction = rows, cols, size, direction

    def __len__(self) -> int:
        return len(self._rows) * len(self._cols)

    @property
    def shape(self) -> tuple[int, int]:
        """How many windows there are down and across."""
        return len(self._rows), len(self._cols)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(index, slice):
            return self._windows(np.arange(*index.indices(len(self))))
        if np.ndim(index) == 0:
            place = operator.index(index)
            if not -len(self) <= place < len(self):
                raise IndexError(f"window {place} of {len(self)}")
            return self._windows(np.array([place % len(self)]))[0]
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        if index.size and (index.min() < -len(self) or index.max() >= len(self)):
            raise IndexError(f"windows {index.min()} to {index.max()} of {len(self)}")
        return self._windows(index % max(1, len(self)))

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.parts(1 << 12):
            yield from part

    def parts(self, count: int) -> Iterator[np.ndarray]:
        """All windows in order, `count` at a time."""
        for first in range(0, len(self), count):
            yield self[first : first + count]

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.int64, copy=False)

    def _windows(self, index: np.ndarray) -> np.ndarray:
        down, across = self.shape
        if self.direction == "cols":
            col, row = np.divmod(index, max(1, down))
        else:
            row, col = np.divmod(index, max(1, across))
            if self.direction == "serpentine":
                col = np.where(row % 2, across - 1 - col, col)
        found = np.empty((len(index), 4), np.int64)
        found[:, 0], found[:, 1] = self._rows.at(row), self._cols.at(col)
        found[:, 2:] = self.size
        return found


def sliding(
    extent: Sequence[int],
    size: Size,
    stride: Size | None = None,
    *,
    padding: int | Sequence = 0,
    ends: str = "flush",
    direction: str = "rows",
) -> Sliding:
    """Windows of one size at a regular distance over an extent.

    extent     (row, col, rows, cols)
    size       (rows, cols) of a window, or one number for both
    stride     pixels from one to the next, down and across; None: the size
    padding    pixels by which the extent grows first: one number, or ((top, bottom), (left, right)). `tile.read` fills
               what lies outside the raster. Negative numbers shrink it
    ends       what happens where the stride leaves pixels behind the last window of a row or column. flush: one more
               ends with the last pixel, nearer to its neighbour than the stride; drop: they stay uncovered; over: one
               more stands on the stride and leaves the extent. An extent smaller than a window has one only with over
    direction  rows: row by row; cols: column by column; serpentine: row by row, every other one from the right

    Returns a Sliding. Raises ValueError naming the argument.
    """
    row, col, rows, cols = _extent(extent)
    size = _pair("size", size)
    stride = size if stride is None else _pair("stride", stride)
    if ends not in ENDS:
        raise ValueError(f"ends: no {ends!r}; {suggest(str(ends), ENDS)}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: no {direction!r}; {suggest(str(direction), DIRECTIONS)}")
    try:
        around = np.broadcast_to(np.asarray(padding), (2, 2))
        (top, bottom), (left, right) = ((operator.index(v) for v in pair) for pair in around.tolist())
    except (TypeError, ValueError):
        text = f"padding: expected a whole number or ((top, bottom), (left, right)), got {padding!r}"
        raise ValueError(text) from None
    down = _Axis(row - top, rows + top + bottom, size[0], stride[0], ends)
    across = _Axis(col - left, cols + left + right, size[1], stride[1], ends)
    return Sliding(down, across, size, direction)


def random(
    extent: Sequence[int],
    size: Size | None,
    count: int,
    *,
    seed: int,
    sample: int = 0,
    sizes: Sequence | None = None,
    inside: Inside | None = None,
) -> np.ndarray:
    """`count` windows in an extent, every position equally likely, drawn again and again; by row, col, rows, cols.

    extent  (row, col, rows, cols)
    size    (rows, cols) of a window, or one number for both; None with `sizes`
    sizes   windows of different sizes, for tile.read(..., size=): (least, most) edge of squares, drawn evenly from all
            whole numbers between, both included; or ((least, most) rows, (least, most) cols), drawn apart
    seed    with `sample` (the number of the extent) and the rest of the arguments all that the result depends on
    inside  which of windows (n, 4) may stay, bool (n,), such as `lambda w: windows.inside(w, polygons)`; None: all

    Returns int64 (count, 4). Raises ValueError naming the argument, or when hardly any window may stay.
    """
    row, col, rows, cols = _extent(extent)
    if (size is None) == (sizes is None):
        raise ValueError("size: give either it or sizes")
    least, most, square = _sizes(size, sizes)
    if (most > (rows, cols)).any():
        raise ValueError(f"size: windows of {most[0]} x {most[1]} pixels do not fit into {rows} x {cols}")
    if count < 0:
        raise ValueError(f"count: expected a number from 0, got {count}")
    found = np.empty((0, 4), np.int64)
    for attempt in range(ATTEMPTS):
        if len(found) >= count:
            break
        extents = np.broadcast_to(least, (count, 2))
        if sizes is not None:
            draw = philox.uniform(seed, attempt, sample, _OP_SIZE, 2 * count).reshape(-1, 2).astype(np.float64)
            draw = draw[:, :1] if square else draw
            extents = np.minimum(least + (draw * (most - least + 1)).astype(np.int64), most)
        room = np.array([rows, cols]) - extents + 1
        numbers = philox.uniform(seed, attempt, sample, _OP_PLACE, 2 * count).reshape(-1, 2)
        corner = np.minimum(numbers.astype(np.float64) * room, room - 1).astype(np.int64)
        windows = np.concatenate([corner + np.array([row, col]), extents], axis=1)
        found = np.concatenate([found, windows if inside is None else windows[inside(windows)]])
    if len(found) < count:
        raise ValueError(
            f"only {len(found)} of {count * ATTEMPTS} random windows of {' to '.join(_text(least, most))} pixels lie "
            "in the area of interest; choose smaller windows or sliding ones"
        )
    found = found[:count]
    return found[np.lexsort(found.T[::-1])]


def tiles(extent: Sequence[int], size: int) -> list[np.ndarray]:
    """Windows that cover every pixel of an extent exactly once: arrays (n, 4) int64, each of windows of one size."""
    row, col, rows, cols = _extent(extent)
    found = []
    for down in _pieces(row, rows, size):
        for across in _pieces(col, cols, size):
            grid = np.stack(np.meshgrid(down[:, 0], across[:, 0], indexing="ij"), -1).reshape(-1, 2)
            edges = np.broadcast_to((down[0, 1], across[0, 1]), grid.shape)
            found.append(np.concatenate([grid, edges], axis=1))
    return found


def inside(
    windows: np.ndarray | Sliding,
    area: object,
    rule: str = "within",
    *,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray:
    """Which windows lie in an area of polygons, bool (n,).

    windows  integers (n, 4), or a Sliding plan, which is taken a part at a time
    area     shapely polygons with x = column and y = row, in one geometry or a sequence; their union counts, holes do
             not belong to it
    rule     within: all of the window, of which edges may touch; intersects: some of it, more than an edge

    Decided exactly for the coordinates of the union as they are; the reference, GEOS, may take slivers of rounding
    otherwise. Raises ValueError naming the argument.
    """
    import shapely

    check_run(kernel, threads)
    if rule not in RULES:
        raise ValueError(f"rule: no {rule!r}; {suggest(str(rule), RULES)}")
    whole = shapely.union_all(np.atleast_1d(np.asarray(area, object)))
    kinds = {part.geom_type for part in shapely.get_parts(whole)}
    if kinds - {"Polygon"}:
        raise ValueError(f"area: expected polygons, got {', '.join(sorted(kinds - {'Polygon'}))}")
    place = _place_cpp(whole, threads) if kernel == "cpp" else _place_reference(whole)
    parts = windows.parts(1 << 20) if isinstance(windows, Sliding) else [_checked(windows)]
    return np.concatenate([np.zeros(0, bool), *(place(part, rule) for part in parts)])


op = inside


def _place_cpp(area: object, threads: int) -> Callable[[np.ndarray, str], np.ndarray]:
    import shapely

    rings = shapely.get_rings(shapely.get_parts(area))
    coords = np.ascontiguousarray(shapely.get_coordinates(rings), np.float64)
    start = np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(rings), dtype=np.int64)]).astype(np.int64)

    def place(windows: np.ndarray, rule: str) -> np.ndarray:
        found = np.empty(len(windows), np.uint8)
        core().windows_place(coords, start, windows, found, threads)
        return found == 2 if rule == "within" else found > 0

    return place


def _place_reference(area: object) -> Callable[[np.ndarray, str], np.ndarray]:
    import shapely

    def place(windows: np.ndarray, rule: str) -> np.ndarray:
        row, col, rows, cols = windows.T.astype(np.float64)
        boxes = shapely.box(col, row, col + cols, row + rows)
        if rule == "within":
            return shapely.covers(area, boxes)
        return shapely.relate_pattern(area, boxes, "T********")

    return place


def count(
    mask: np.ndarray, windows: np.ndarray, values: int | Sequence[int], *, kernel: str = "cpp", threads: int = 0
) -> np.ndarray:
    """How many pixels of each window have one of the values, int64 (n,).

    mask     (rows, cols) uint8, C-contiguous: what `valid` of tile.read is for a scene, or its classes
    windows  integers (n, 4); pixels outside the mask are not counted
    values   of 0 to 255

    So `1 - count(valid, w, 1) / (w[:, 2] * w[:, 3])` is the share of pixels without data, what lies outside included,
    and `count(classes, w, targets) >= 1000` are the windows that show enough of some classes.
    Raises ValueError naming the argument.
    """
    check_run(kernel, threads)
    check_array("mask", mask, "uint8", ("rows", "cols"))
    windows = _checked(windows)
    wanted = np.zeros(256, np.uint8)
    for value in np.atleast_1d(values).tolist():
        if value not in range(256):
            raise ValueError(f"values: expected whole numbers from 0 to 255, got {value}")
        wanted[value] = 1
    counts = np.zeros(len(windows), np.int64)
    if kernel == "cpp":
        core().windows_count(mask, wanted, windows, counts, threads)
        return counts
    chosen = wanted[mask]
    for i, (row, col, rows, cols) in enumerate(windows.tolist()):
        counts[i] = chosen[max(0, row) : max(0, row + rows), max(0, col) : max(0, col + cols)].sum(dtype=np.int64)
    return counts


def cases() -> list[tuple[str, dict]]:
    """(name, arguments) of `inside`: a star with holes, touching rectangles, edges on pixels, beyond the area."""
    import shapely

    noise = np.random.default_rng(5)
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    radius = 300 + 90 * np.sin(5 * angle) + noise.normal(0, 4, len(angle))
    star = shapely.Polygon(np.stack([400 + radius * np.cos(angle), 380 + radius * np.sin(angle)], 1))
    holes = [shapely.Point(x, y).buffer(r) for x, y, r in ((330, 300, 40), (480.5, 420.25, 25.75), (400, 380, 3))]
    star = star.difference(shapely.union_all(holes))
    blocks = [
        shapely.box(0, 0, 64, 32),
        shapely.box(64, 0, 96, 32),
        shapely.box(10, 32, 40, 64),
        shapely.box(8, 8, 9, 9),
    ]
    windows = np.asarray(sliding((-40, -30, 900, 900), (32, 40), 13))
    steps = np.asarray(sliding((-16, -16, 128, 128), 8, 4))
    found = []
    for rule in RULES:
        found.append((f"star_{rule}", {"windows": windows, "area": star, "rule": rule}))
        found.append((f"blocks_{rule}", {"windows": steps, "area": blocks, "rule": rule}))
    found.append(("nothing", {"windows": steps[:0], "area": star}))
    found.append(("nowhere", {"windows": steps, "area": []}))
    return found


def _extent(extent: Sequence[int]) -> tuple[int, int, int, int]:
    row, col, rows, cols = (operator.index(v) for v in extent)
    if rows < 0 or cols < 0:
        raise ValueError(f"extent: expected (row, col, rows, cols) with rows and cols from 0, got {tuple(extent)}")
    return row, col, rows, cols


def _pair(name: str, value: Size) -> tuple[int, int]:
    try:
        rows, cols = (operator.index(v) for v in ((value, value) if np.ndim(value) == 0 else value))
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a whole number or two (rows, cols), got {value!r}") from None
    if rows < 1 or cols < 1:
        raise ValueError(f"{name}: expected at least 1, got {value!r}")
    return rows, cols


def _sizes(size: Size | None, sizes: Sequence | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Least and most (rows, cols), and whether windows are squares."""
    if sizes is None:
        pair = np.array(_pair("size", size), np.int64)
        return pair, pair, False
    ranges = np.asarray(sizes)
    square = ranges.shape == (2,)
    ranges = np.stack([ranges, ranges]) if square else ranges
    if (
        ranges.shape != (2, 2)
        or ranges.dtype.kind not in "iu"
        or (ranges < 1).any()
        or (ranges[:, 0] > ranges[:, 1]).any()
    ):
        raise ValueError(f"sizes: expected (least, most) of whole numbers from 1, or two of those, got {sizes!r}")
    return ranges[:, 0].astype(np.int64), ranges[:, 1].astype(np.int64), square


def _text(least: np.ndarray, most: np.ndarray) -> list[str]:
    """Sizes for an error, without repeating what is the same."""
    return list(dict.fromkeys(str(a[0]) if a[0] == a[1] else f"{a[0]} x {a[1]}" for a in (least, most)))


def _checked(windows: np.ndarray) -> np.ndarray:
    windows = np.asarray(windows)
    if windows.size == 0:
        return np.empty((0, 4), np.int64)
    if windows.ndim != 2 or windows.shape[1] != 4 or windows.dtype.kind not in "iu":
        raise ValueError(f"windows: expected integers (n, 4), got {windows.dtype} {windows.shape}")
    if (windows[:, 2:] < 1).any() or (np.abs(windows.astype(np.int64)) > 2**31).any():
        raise ValueError("windows: rows and cols must be positive, and all numbers within 2^31")
    return np.ascontiguousarray(windows, np.int64)


def _pieces(start: int, length: int, size: int) -> list[np.ndarray]:
    """(start, length) of full pieces, then of the rest: at most two arrays (n, 2)."""
    full = np.arange(length // size, dtype=np.int64) * size + start
    found = [np.stack([full, np.full_like(full, size)], 1)] if len(full) else []
    if length % size:
        found.append(np.array([[start + length - length % size, length % size]], np.int64))
    return found
