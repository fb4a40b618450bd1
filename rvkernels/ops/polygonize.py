"""Polygons along the pixel edges of the connected regions of a raster of labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_run
from rvkernels.ops.components import check_labels, label_cases, reference_components

TOLERANCE = 0


@dataclass(frozen=True)
class Polygons:
    """Polygons in compressed rows: polygons of rings, rings of points.

    coords         (points, 2) x, y: int32 corners of pixels (column, row), or float64 through a transform
    ring_start     (rings + 1,) int64: ring r holds points ring_start[r] to ring_start[r+1], the last being the first
    polygon_start  (polygons + 1,) int64, likewise over rings; the outer ring comes first, then the holes
    values         (polygons,) the label of each
    """

    coords: np.ndarray
    ring_start: np.ndarray
    polygon_start: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def geometries(self) -> np.ndarray:
        """(polygons,) shapely polygons, made in one call."""
        import shapely  # rvkernels.ops itself needs NumPy only

        coords = self.coords.astype(np.float64, copy=False)
        return shapely.from_ragged_array(shapely.GeometryType.POLYGON, coords, (self.ring_start, self.polygon_start))

    def simplified(self, tolerance: float, *, shared: bool = False) -> Polygons:
        """The polygons with fewer vertices, by shapely (GEOS); coordinates become float64.

        tolerance  in the unit of the coordinates
        shared     False: shapely.simplify, Douglas and Peucker, no point farther than `tolerance` from the line; each
                   polygon by itself, so that neighbours may overlap or leave gaps. True: shapely.coverage_simplify,
                   Visvalingam and Whyatt, which drops corners of triangles smaller than tolerance² and leaves common
                   edges common; it needs polygons of connectivity 4.
        """
        import shapely

        if not tolerance >= 0:
            raise ValueError(f"tolerance: expected a distance of 0 or more, got {tolerance}")
        if not len(self):
            return dataclasses.replace(self, coords=self.coords.astype(np.float64))
        simplify = shapely.coverage_simplify if shared else shapely.simplify
        _, coords, starts = shapely.to_ragged_array(simplify(self.geometries(), tolerance), include_z=False)
        return Polygons(coords, *(start.astype(np.int64) for start in starts), self.values)

    def coordinates(self) -> list[list[list[list[float]]]]:
        """The `coordinates` of a GeoJSON Polygon of each: rings of points of two numbers."""
        points = self.coords.tolist()
        starts = self.ring_start.tolist()
        rings = [points[begin:end] for begin, end in zip(starts, starts[1:])]
        starts = self.polygon_start.tolist()
        return [rings[begin:end] for begin, end in zip(starts, starts[1:])]


def polygonize(
    labels: np.ndarray,
    transform: Sequence[float] | None = None,
    *,
    background: int | None = 0,
    connectivity: int = 4,
    min_area: int = 1,
    kernel: str = "cpp",
    threads: int = 0,
) -> Polygons:
    """The pixel-edge polygons, with holes, of the connected regions of a raster of labels.

    Regions are the components of ops.components, in their order. The polygons are those of gdal.Polygonize. A ring runs
    anticlockwise when it is an outer one and clockwise when it is a hole, as seen on the raster with its first row at
    the top; it begins where its topmost, then leftmost, edge ends; holes are in the order of those edges.

    labels        (rows, cols) uint8 or int32
    transform     GDAL's six numbers, corner (column, row) to x, y: float64 coordinates; None: int32 (column, row)
    background    pixels of this value belong to no polygon; None: every pixel belongs to one
    connectivity  4: pixels that share an edge hang together, and every polygon is valid. 8: also those that share a
                  corner; rings touch themselves at such corners, as GDAL's do, and shapely.make_valid takes them apart.
    min_area      regions of fewer pixels give no polygon (and stay a hole of what is around them)

    The formula is in cpp/ops/polygonize.h. Raises ValueError for other shapes or dtypes, for a background that the
    dtype does not hold, for a transform that is not six finite numbers, and beyond 2^30 runs of equal values.
    """
    check_run(kernel, threads)
    check_labels(labels, background, connectivity, min_area)
    six = None
    if transform is not None:
        six = np.array(transform, np.float64)
        if six.shape != (6,) or not np.isfinite(six).all():
            raise ValueError(f"transform: expected six finite numbers, got {transform!r}")
    if kernel == "reference":
        return reference_polygonize(labels, six, background, connectivity, min_area)
    run = getattr(core(), f"polygonize_{labels.dtype.name}")
    return Polygons(*run(labels, background, connectivity == 8, min_area, six, threads))


def reference_polygonize(
    labels: np.ndarray, transform: np.ndarray | None, background: int | None, connectivity: int, min_area: int
) -> Polygons:
    """The definition in Python: walk the pixel edges of one region after the other."""
    number = np.empty(labels.shape, np.int32)
    _, statistics = reference_components(labels, background, connectivity, min_area, number)
    polygons = [
        _rings(number[ymin:ymax, xmin:xmax] == i, int(xmin), int(ymin))
        for i, (ymin, xmin, ymax, xmax) in enumerate(statistics.box, 1)
    ]
    rings = [ring for polygon in polygons for ring in polygon]
    coords = np.array([point for ring in rings for point in ring], np.int32).reshape(-1, 2)
    if transform is not None:
        x, y = coords.T
        t = transform
        coords = np.stack([t[0] + x * t[1] + y * t[2], t[3] + x * t[4] + y * t[5]], axis=1)
    starts = [np.cumsum([0, *map(len, parts)], dtype=np.int64) for parts in (rings, polygons)]
    return Polygons(coords, *starts, statistics.value)


def _rings(inside: np.ndarray, left: int, top: int) -> list[list[tuple[int, int]]]:
    """The rings of one region, the outer one first; (left, top) is the corner of `inside`."""
    padded = np.pad(inside, 1)
    edges = set()  # of a pixel, each (x, y, dx, dy) with the pixel on its left
    for row, col in np.argwhere(inside).tolist():
        for neighbour, edge in (
            (padded[row + 1, col], (col, row, 0, 1)),
            (padded[row + 2, col + 1], (col, row + 1, 1, 0)),
            (padded[row + 1, col + 2], (col + 1, row + 1, 0, -1)),
            (padded[row, col + 1], (col + 1, row, -1, 0)),
        ):
            if not neighbour:
                edges.add(edge)
    rings = []
    while edges:
        first = min((e for e in edges if e[2]), key=lambda e: (e[1], min(e[0], e[0] + e[2])))
        ring: list[tuple[int, int]] = []
        edge = None
        while edge != first:
            x, y, dx, dy = edge or first
            x, y = x + dx, y + dy
            ways = (
                (-dy, dx),
                (dx, dy),
                (dy, -dx),
            )  # right first: from pixel to pixel where they meet at corners
            edge = next((x, y, *way) for way in ways if (x, y, *way) in edges)
            edges.remove(edge)
            if edge[2:] != (dx, dy):
                ring.append((x + left, y + top))
        rings.append([*ring, ring[0]])
    return rings


op = polygonize


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    through = {"connectivity": 8, "min_area": 2, "transform": (500000.1, 0.3, 0.01, 4600000.7, -0.02, -0.3)}
    return [
        (f"{name}, {arguments['connectivity']}", {**labels, **arguments})
        for name, labels in label_cases()
        for arguments in ({"connectivity": 4}, through)
    ]
