"""Polygons, lines and points burned into a class mask, with the pixels that GDAL burns.

The rules are in cpp/ops/rasterize.h: pixel centres or all touched pixels, features in their order. They are those of
GDAL 3.6's RasterizeLayer on a raster whose rows run from north to south. (From 3.7 on, GDAL burns fewer pixels for
all_touched where a segment ends exactly on a pixel edge.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run

TOLERANCE = 0
POINTS, LINE, POLYGON = 0, 1, 2
FARTHEST = 2.0**29  # pixels from the corner of the scene; sums and products of such numbers fit in 64 bits
NEAR = 0.01
SMALL_STEP = 1e-9
DTYPES = ("uint8", "uint16", "int32")
_TOO_FAR = "expected finite pixel coordinates within 2^29; check the CRS of the labels"


@dataclass(frozen=True)
class Geometries:
    """Features in compressed rows: features of parts, parts of rings, rings of points.

    coords         (points, 2) float64, x = column, y = row in pixels, finite, within 2^29
    ring_start     (rings + 1,) int64: ring r holds points ring_start[r] to ring_start[r+1]
    part_start     (parts + 1,) int64, likewise over rings
    feature_start  (features + 1,) int64, likewise over parts; a feature without parts burns nothing
    kinds          (parts,) uint8: POINTS, LINE or POLYGON; points and lines have one ring, a polygon's rings are closed
                   and count by the even-odd rule
    """

    coords: np.ndarray
    ring_start: np.ndarray
    part_start: np.ndarray
    feature_start: np.ndarray
    kinds: np.ndarray

    def __post_init__(self) -> None:
        check_array("coords", self.coords, "float64", (None, 2))
        check_array("kinds", self.kinds, "uint8", (None,))
        below = {"ring_start": len(self.coords), "part_start": len(self.ring_start) - 1}
        below["feature_start"] = len(self.part_start) - 1
        for name, length in below.items():
            start = check_array(name, getattr(self, name), "int64", (None,))
            if len(start) == 0 or start[0] != 0 or start[-1] != length or (np.diff(start) < 0).any():
                raise ValueError(f"{name}: expected rising positions from 0 to {length}")
        if len(self.kinds) != len(self.part_start) - 1:
            raise ValueError(f"kinds: expected one per part ({len(self.part_start) - 1}), got {len(self.kinds)}")
        if not (np.abs(self.coords) <= FARTHEST).all():
            raise ValueError(f"coords: {_TOO_FAR}")
        if (self.kinds > POLYGON).any() or (np.diff(self.part_start)[self.kinds != POLYGON] != 1).any():
            raise ValueError("kinds: expected 0 (points) or 1 (line) with one ring, or 2 (polygon)")
        rings = self.ring_start[np.flatnonzero(np.repeat(self.kinds == POLYGON, np.diff(self.part_start)))]
        ends = self.ring_start[1:][np.repeat(self.kinds == POLYGON, np.diff(self.part_start))]
        if (ends <= rings).any() or (self.coords[rings] != self.coords[ends - 1]).any():
            raise ValueError("coords: a polygon's ring must be closed (last point = first)")

    def __len__(self) -> int:
        return len(self.feature_start) - 1

    @classmethod
    def from_shapely(cls, geometries: Sequence[object]) -> Geometries:
        """Geometries from shapely geometries in pixel coordinates, all at once: 20,000 polygons in 20 ms.

        None and empty geometries become features without parts, collections are split. A line burns the pixels that it
        goes through; `widen` makes a polygon of it first.
        Raises ImportError without shapely; ValueError naming the feature for coordinates that are not finite or beyond
        2^29, and for what is no geometry.
        """
        import shapely

        given = np.empty(len(geometries), object)
        given[:] = geometries
        wrong = np.flatnonzero(~(shapely.is_geometry(given) | shapely.is_missing(given)))
        if wrong.size:
            kind = type(given[wrong[0]]).__name__
            raise ValueError(f"feature {wrong[0]}: expected a shapely geometry or None, got {kind!r}")
        parts, feature = simple_parts(given)
        kinds = np.array([POINTS, LINE, LINE, POLYGON], np.uint8)[shapely.get_type_id(parts)]
        polygon = kinds == POLYGON
        rings, part = shapely.get_rings(parts[polygon], return_index=True)
        rings = np.concatenate([parts[~polygon], rings])
        part = np.concatenate([np.flatnonzero(~polygon), np.flatnonzero(polygon)[part]])
        order = np.argsort(part, kind="stable")
        coords, ring = shapely.get_coordinates(rings[order], return_index=True)
        bad = np.flatnonzero(~(np.abs(coords) <= FARTHEST).all(axis=1))
        if bad.size:
            raise ValueError(f"feature {feature[part[order][ring[bad[0]]]]}: {_TOO_FAR}")
        return cls(
            np.ascontiguousarray(coords),
            _starts(np.bincount(ring, minlength=len(rings))),
            _starts(np.bincount(part, minlength=len(parts))),
            _starts(np.bincount(feature, minlength=len(given))),
            kinds,
        )


def _starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def widen(
    geometries: np.ndarray,
    line_width: float | np.ndarray,
    cap: str = "round",
    pixel: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Shapely geometries in pixel coordinates, with lines of a width as the polygons that they cover.

    line_width  one for all, or (n,); 0 leaves a line as it is. The polygons are those of shapely.buffer(line,
                line_width / 2, quad_segs=16, cap_style=cap), whose round joins and caps stay within 0.13 % of the half
                width
    cap         of a line's ends: "round", "flat" or "square"
    pixel       (width, height) of a pixel in the unit of line_width: (1, 1) for pixels, metres per pixel for metres
    Raises ImportError without shapely; ValueError for a width that is not finite or below 0, and what has no meaning.
    """
    import shapely

    width = np.asarray(line_width, np.float64)
    if width.shape not in ((), geometries.shape) or not (np.isfinite(width) & (width >= 0)).all():
        raise ValueError(f"line_width: expected one number from 0, or one per geometry, got {line_width}")
    if cap not in ("round", "flat", "square"):
        raise ValueError(f"cap: expected round, flat or square, got {cap!r}")
    if not (len(pixel) == 2 and np.isfinite(pixel).all() and min(pixel) > 0):
        raise ValueError(f"pixel: expected (width, height) above 0, got {pixel}")
    width = np.broadcast_to(width, geometries.shape)
    wide = np.isin(shapely.get_type_id(geometries), (1, 2, 5)) & (width > 0)
    if not wide.any():
        return geometries
    lines = shapely.transform(geometries[wide], lambda xy: xy * pixel)
    widened = geometries.copy()
    polygons = shapely.buffer(lines, width[wide] / 2, quad_segs=16, cap_style=cap)
    widened[wide] = shapely.transform(polygons, lambda xy: xy / pixel)
    return widened


def simple_parts(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points, lines and polygons, none empty, of shapely geometries or None; and the number of the geometry of each."""
    import shapely

    index = np.arange(len(geometries))
    while (shapely.get_type_id(geometries) > 3).any():
        geometries, of = shapely.get_parts(geometries, return_index=True)
        index = index[of]
    kept = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    return geometries[kept], index[kept]


class Rasterizer:
    """The features of one scene with a spatial index, made once, for any number of windows.

    geometries   Geometries in pixel coordinates of the scene
    class_ids    (features,) integers that fit in dtype
    shape        (rows, cols) of the scene; None: no edge but the top and left one. Outside the scene windows hold
                 background.
    all_touched  burn every pixel that is touched, not only those whose centre is inside
    background   value of pixels without a feature
    dtype        of the masks: uint8, uint16 or int32
    Raises ValueError for class ids that do not fit.
    """

    def __init__(
        self,
        geometries: Geometries,
        class_ids: np.ndarray,
        shape: tuple[int, int] | None = None,
        *,
        all_touched: bool = False,
        background: int = 0,
        dtype: str = "uint8",
        kernel: str = "cpp",
        threads: int = 0,
    ) -> None:
        check_run(kernel, threads)
        class_ids = np.asarray(class_ids)
        if class_ids.shape != (len(geometries),) or (class_ids.size and class_ids.dtype.kind not in "iu"):
            raise ValueError(
                f"class_ids: expected {len(geometries)} integers, one per feature, got {class_ids.dtype} "
                f"{class_ids.shape}"
            )
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected {', '.join(DTYPES)}, got {dtype!r}")
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if class_ids.size and not (class_ids.min() >= low and class_ids.max() <= high):
            raise ValueError(f"class_ids: expected {low} to {high}, got {class_ids.min()} to {class_ids.max()}")
        if not low <= background <= high:
            raise ValueError(f"background: expected {low} to {high}, got {background}")
        self.geometries = geometries
        self.class_ids = class_ids.astype(np.int32)
        self.shape = (int(FARTHEST), int(FARTHEST)) if shape is None else shape
        if min(self.shape) < 0 or max(self.shape) > FARTHEST:
            raise ValueError(f"shape: expected (rows, cols) from 0 to 2^29, got {self.shape}")
        self.all_touched, self.background, self.dtype = all_touched, background, dtype
        self.kernel, self.threads = kernel, threads
        if kernel == "cpp":
            g = geometries
            self._index = core().Rasterizer(
                g.coords, g.ring_start, g.part_start, g.feature_start, g.kinds, self.class_ids, *self.shape, all_touched
            )

    def window(self, row: int, col: int, rows: int, cols: int, out: np.ndarray | None = None) -> np.ndarray:
        """The mask (rows, cols) of a window, which may reach beyond the scene; written into `out` if that is given."""
        if out is not None:
            check_array("out", out, self.dtype, (rows, cols), writeable=True)
            out = out[None]
        return self.windows(np.array([[row, col]], np.int64), rows, cols, out)[0]

    def windows(self, places: np.ndarray, rows: int, cols: int, out: np.ndarray | None = None) -> np.ndarray:
        """The masks of many windows of one size.

        places  (n, 2) int64: top row and left column of each window
        out     (n, rows, cols) of the dtype to fill, or None
        Returns (n, rows, cols): what the whole scene's mask holds there.
        """
        check_array("places", places, "int64", (None, 2))
        if not (0 <= rows <= FARTHEST and 0 <= cols <= FARTHEST):
            raise ValueError(f"rows, cols: expected a size from 0 to 2^29, got {rows}, {cols}")
        if places.size and np.abs(places).max() > FARTHEST:
            raise ValueError("places: expected windows within 2^29 pixels")
        shape = (len(places), rows, cols)
        if out is None:
            out = np.empty(shape, self.dtype)
        check_array("out", out, self.dtype, shape, writeable=True)
        if self.kernel == "reference":
            out[:] = self.background
            for place, mask in zip(places.tolist(), out):
                reference_rasterize(self.geometries, self.class_ids, self.shape, place, mask, self.all_touched)
        else:
            self._index.windows(places, rows, cols, self.background, out, self.threads)
        return out


def rasterize(
    geometries: Geometries,
    class_ids: np.ndarray,
    shape: tuple[int, int],
    *,
    window: tuple[int, int, int, int] | None = None,
    all_touched: bool = False,
    background: int = 0,
    dtype: str = "uint8",
    out: np.ndarray | None = None,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray:
    """Burn features into the mask of a scene, or of one window (row, col, rows, cols) of it.

    For many windows of a scene make a Rasterizer once. Arguments and errors are as there.
    Returns (rows, cols) of the dtype, which is `out` when that is given.
    """
    scene = Rasterizer(
        geometries,
        class_ids,
        shape,
        all_touched=all_touched,
        background=background,
        dtype=dtype,
        kernel=kernel,
        threads=threads,
    )
    return scene.window(*(window or (0, 0, *shape)), out=out)


class _Canvas:
    """A window of the scene that is burned pixel by pixel; positions are the scene's."""

    def __init__(self, mask: np.ndarray, place: list[int], shape: tuple[int, int]) -> None:
        self.mask, self.place, self.shape = mask, place, shape
        self.top, self.left = max(place[0], 0), max(place[1], 0)
        self.bottom = min(place[0] + mask.shape[0], shape[0])
        self.right = min(place[1] + mask.shape[1], shape[1])

    def span(self, row: int, begin: int, end: int, value: int) -> None:
        """Burn columns begin to end - 1 of a row, as far as they are in the window and the scene."""
        begin, end = max(begin, self.left), min(end, self.right)
        if self.top <= row < self.bottom and begin < end:
            self.mask[row - self.place[0], begin - self.place[1] : end - self.place[1]] = value


def reference_rasterize(
    geometries: Geometries,
    class_ids: np.ndarray,
    shape: tuple[int, int],
    place: list[int],
    mask: np.ndarray,
    all_touched: bool,
) -> None:
    """Burn every feature into the window `mask` at `place`, pixel by pixel, without an index."""
    canvas = _Canvas(mask, place, shape)
    g = geometries
    for feature, value in enumerate(class_ids.tolist()):
        for part in range(g.feature_start[feature], g.feature_start[feature + 1]):
            rings = [
                g.coords[g.ring_start[r] : g.ring_start[r + 1]].tolist()
                for r in range(g.part_start[part], g.part_start[part + 1])
            ]
            if g.kinds[part] == POINTS:
                for x, y in rings[0]:
                    canvas.span(math.floor(y), math.floor(x), math.floor(x) + 1, value)
            elif g.kinds[part] == POLYGON:
                _fill(canvas, rings, value)
                if all_touched:
                    _touch(canvas, rings, value, edges=True)
            elif all_touched:
                _touch(canvas, rings, value, edges=False)
            else:
                _line(canvas, rings[0], value)


def _clockwise(ring: list[list[float]]) -> bool:
    """Whether a closed ring runs clockwise on the raster: the turn at its lowest, rightmost vertex, or its area."""
    points = ring[:-1]
    if len(points) < 2:
        return True
    pivot = max(range(len(points)), key=lambda i: (points[i][1], points[i][0]))
    x, y = points[pivot]
    before, after = points[pivot - 1], points[(pivot + 1) % len(points)]
    same = any(abs(px - x) < 1e-5 and abs(py - y) < 1e-5 for px, py in (before, after))
    cross = (after[0] - x) * (before[1] - y) - (before[0] - x) * (after[1] - y)
    if points.count(points[pivot]) == 1 and not same and cross != 0:
        return cross > 0
    area = 0.0
    for i, (px, _) in enumerate(ring):
        area += px * (ring[(i + 1) % len(ring)][1] - ring[i - 1][1])
    return area > 0


def _fill(canvas: _Canvas, rings: list[list[list[float]]], value: int) -> None:
    """Burn the pixels whose centres are inside the rings by the even-odd rule."""
    for row in range(canvas.top, canvas.bottom):
        centre = row + 0.5
        crossings = []
        for ring in rings:
            clockwise = _clockwise(ring)
            for (ax, ay), (bx, by) in zip(ring, ring[1:]):
                if ay == by:
                    if ay == centre and ax != bx and (ax > bx) == clockwise:
                        canvas.span(row, math.floor(min(ax, bx) + 0.5), math.floor(max(ax, bx) + 0.5), value)
                    continue
                (x1, y1), (x2, y2) = ((ax, ay), (bx, by)) if ay < by else ((bx, by), (ax, ay))
                if y1 <= centre < y2:
                    crossings.append(math.floor((centre - y1) * (x2 - x1) / (y2 - y1) + x1 + 0.5))
        crossings.sort()
        for begin, end in zip(crossings[::2], crossings[1::2]):
            canvas.span(row, begin, end, value)


def _line(canvas: _Canvas, points: list[list[float]], value: int) -> None:
    """Bresenham's line from the pixel of each vertex to that of the vertex before it."""
    for b, a in zip(points, points[1:]):
        x, y = math.floor(a[0]), math.floor(a[1])
        delta = [math.floor(b[0]) - x, math.floor(b[1]) - y]
        step = [-1 if d < 0 else 1 for d in delta]
        longer = 0 if abs(delta[0]) >= abs(delta[1]) else 1
        long, short = abs(delta[longer]), abs(delta[1 - longer])
        at = [x, y]
        error = 2 * short - long
        for _ in range(long + 1):
            canvas.span(at[1], at[0], at[0] + 1, value)
            at[longer] += step[longer]
            if error > 0:
                at[1 - longer] += step[1 - longer]
                error -= 2 * long
            error += 2 * short


def _touch(canvas: _Canvas, rings: list[list[list[float]]], value: int, *, edges: bool) -> None:
    """Burn every pixel that the segments of `rings` pass; `edges`: they bound a polygon."""
    rows, cols = canvas.shape

    def on_pixel_edge(*values: float) -> bool:
        return all(abs(v - round(v)) < NEAR for v in values)

    for a, b in [pair for ring in rings for pair in zip(ring, ring[1:])]:
        (x, y), (x_end, y_end) = (a, b) if a[0] <= b[0] else (b, a)
        if max(y, y_end) < 0 or min(y, y_end) > rows or x_end < 0 or x > cols:
            continue
        if math.floor(x) == math.floor(x_end) or abs(x - x_end) < NEAR:
            if not (edges and on_pixel_edge(x, x_end)):
                first, last = math.floor(min(y, y_end)), math.floor(max(y, y_end))
                for row in range(max(first, canvas.top), min(last + 1, canvas.bottom)):
                    canvas.span(row, math.floor(x_end), math.floor(x_end) + 1, value)
            continue
        if math.floor(y) == math.floor(y_end) or abs(y - y_end) < NEAR:
            if not (edges and on_pixel_edge(y, y_end)):
                canvas.span(math.floor(y), math.floor(x), math.floor(x_end) + 1, value)
            continue
        slope = (y_end - y) / (x_end - x)
        if x_end > cols:
            y_end, x_end = y_end - (x_end - cols) * slope, float(cols)
        if x < 0:
            x, y = 0.0, y + (0.0 - x) * slope
        if y_end > y:
            if y < 0:
                x, y = x + (0.0 - y) / slope, 0.0
        else:
            if y >= rows:
                x, y = x + (rows - y) / slope, float(rows)
            if y_end < 0:
                x_end -= y_end / slope
        while 0 <= x < x_end:
            row, col = math.floor(y), math.floor(x)
            canvas.span(row, col, col + 1, value)
            step_x = math.floor(x + 1.0) - x
            step_y = step_x * slope
            if math.floor(y + step_y) != row:
                step_y = min(row - y, -SMALL_STEP) if slope < 0 else max(row + 1 - y, SMALL_STEP)
                step_x = step_y / slope
            x += step_x
            y += step_y


op = rasterize


def random_shapes(rng: np.random.Generator, n: int, extent: float, size: float, grid: float = 0) -> list:
    """Shapely geometries of all types around [0, extent)^2, up to `size` pixels large; many cross themselves.

    grid  0, or the number that all coordinates are made multiples of: 0.5 puts them on pixel edges and centres
    """
    import shapely.geometry

    def positions(count: int, centre: np.ndarray, spread: float) -> list[list[float]]:
        points = centre + (rng.random((count, 2)) - 0.5) * spread
        return (np.round(points / grid) * grid if grid else points).tolist()

    def ring(centre: np.ndarray, spread: float) -> list[list[float]]:
        if rng.random() < 0.2:
            (x0, y0), (x1, y1) = positions(2, centre, spread)
            return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
        count = int(rng.integers(3, 9))
        points = positions(count, centre, spread)
        if rng.random() < 0.5:
            angle = np.arctan2(*(np.array(points) - centre).T)
            points = [points[i] for i in np.argsort(angle)]
        return [*points, points[0]]

    shapes = []
    for _ in range(n):
        kind = rng.choice(["Polygon", "Polygon", "Polygon", "MultiPolygon", "LineString", "MultiPoint"])
        centre = rng.random(2) * extent * 1.2 - extent * 0.1
        spread = size * rng.random() ** 2
        if kind == "Polygon":
            holes = [ring(centre, spread / 2) for _ in range(rng.integers(0, 3))]
            coordinates = [ring(centre, spread), *holes]
        elif kind == "MultiPolygon":
            coordinates = [[ring(centre + rng.random(2) * size, spread)] for _ in range(3)]
        elif kind == "LineString":
            coordinates = positions(int(rng.integers(2, 6)), centre, spread)
        else:
            coordinates = positions(3, centre, spread)
        shapes.append(shapely.geometry.shape({"type": str(kind), "coordinates": coordinates}))
    return shapes


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)
    listed = []
    for name, n, shape, size, grid, window in (
        ("any place", 60, (61, 83), 60, 0, None),
        ("on centres and edges", 60, (40, 37), 30, 0.5, None),
        ("a window", 80, (90, 70), 40, 0, (33, 21, 31, 17)),
        ("a window beyond the scene", 40, (30, 30), 40, 0.25, (-7, 19, 45, 23)),
        ("one pixel", 9, (1, 1), 3, 0.5, None),
        ("no features", 0, (5, 4), 1, 0, None),
        ("no pixels", 3, (0, 7), 5, 0, None),
    ):
        kwargs = {
            "geometries": Geometries.from_shapely(random_shapes(rng, n, max(shape), size, grid)),
            "class_ids": np.arange(1, n + 1, dtype=np.int32),
            "shape": shape,
            "window": window,
        }
        listed += [(name, kwargs), (f"{name}, all touched", {**kwargs, "all_touched": True, "background": 255})]
    for dtype, ids in (("uint16", np.arange(65476, 65536)), ("int32", np.arange(60) * 1_000_003 - 9)):
        listed.append((dtype, {**listed[0][1], "class_ids": ids, "dtype": dtype}))
    return listed
