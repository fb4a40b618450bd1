"""Connected components of a raster of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run

TOLERANCE = 0
DTYPES = ("uint8", "int32")
MOST_SIDE = 2**31 - 2
NEIGHBOURS = {
    4: ((-1, 0), (0, -1), (0, 1), (1, 0)),
    8: ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)),
}


@dataclass(frozen=True)
class ComponentStatistics:
    """Statistics of each component, in the order of their numbers.

    area        (count,) int64, pixels
    box         (count, 4) int32: ymin, xmin, ymax, xmax in pixels, as boxes are everywhere: ymax and xmax are exclusive
    center_sum  (count, 2) int64: sums of the rows and of the columns of its pixels. Divided by the area, plus 0.5 for
                the middle of a pixel, they are the centroid.
    value       (count,) of the dtype of the labels
    """

    area: np.ndarray
    box: np.ndarray
    center_sum: np.ndarray
    value: np.ndarray


class Components(NamedTuple):
    """Components of a raster: `labels` has their numbers from 1, 0 where there is none; statistics when asked for."""

    labels: np.ndarray
    count: int
    statistics: ComponentStatistics | None


def components(
    labels: np.ndarray,
    *,
    background: int | None = 0,
    connectivity: int = 4,
    min_area: int = 1,
    statistics: bool = False,
    out: np.ndarray | None = None,
    kernel: str = "cpp",
    threads: int = 0,
) -> Components:
    """Number the connected components of a raster of labels.

    Two pixels are connected when they have the same value and share an edge, or, with connectivity 8, an edge or a
    corner. Components are numbered from 1 in the order of their first pixels, row by row from the left.

    labels        (rows, cols) uint8 or int32; for a mask of bool pass mask.view(numpy.uint8)
    background    pixels of this value belong to no component; None: every pixel belongs to one
    connectivity  4 or 8
    min_area      components of fewer pixels are removed: their pixels become 0, and they have no number
    statistics    also return area, box, sums for the centroid, and value of each component, from the same pass
    out           (rows, cols) int32 to fill, which is not `labels`, or None

    The algorithm: L. He, Y. Chao, K. Suzuki, A run-based two-scan labeling algorithm, IEEE Transactions on Image
    Processing 17, 2008; here in strips of rows that are joined.
    Raises ValueError for other shapes or dtypes, for `out` in the memory of `labels`, for a background that the dtype
    does not hold, and where 2^31 or more numbers would be needed on the way.
    """
    check_run(kernel, threads)
    check_labels(labels, background, connectivity, min_area)
    shape = labels.shape
    out = np.empty(shape, np.int32) if out is None else check_array("out", out, "int32", shape, writeable=True)
    if np.may_share_memory(labels, out):
        raise ValueError("out: must not share memory with labels")
    if kernel == "reference":
        count, found = reference_components(labels, background, connectivity, min_area, out)
    else:
        run = getattr(core(), f"components_{labels.dtype.name}")
        count, *arrays = run(labels, background, connectivity == 8, min_area, statistics, out, threads)
        found = ComponentStatistics(*arrays)
    return Components(out, count, found if statistics else None)


def check_labels(labels: np.ndarray, background: int | None, connectivity: int, min_area: int) -> None:
    """Raise ValueError for what neither `components` nor `polygonize` takes."""
    check_array("labels", labels, DTYPES, (None, None))
    if max(labels.shape) > MOST_SIDE:
        raise ValueError(f"labels: expected at most {MOST_SIDE} rows and columns, got {labels.shape}")
    limits = np.iinfo(labels.dtype)
    if background is not None and not limits.min <= background <= limits.max:
        raise ValueError(f"background: expected a value of {labels.dtype}, or None, got {background}")
    if connectivity not in NEIGHBOURS:
        raise ValueError(f"connectivity: expected 4 or 8, got {connectivity}")
    if min_area < 1:
        raise ValueError(f"min_area: expected 1 pixel or more, got {min_area}")


def reference_components(
    labels: np.ndarray, background: int | None, connectivity: int, min_area: int, out: np.ndarray
) -> tuple[int, ComponentStatistics]:
    """The definition in Python: fill from each pixel, in order, that has no component yet."""
    rows, cols = labels.shape
    value = labels.tolist()
    seen = np.zeros(labels.shape, bool)
    found: list[tuple] = []
    out[:] = 0
    for row in range(rows):
        for col in range(cols):
            if seen[row, col] or value[row][col] == background:
                continue
            seen[row, col] = True
            pixels = [(row, col)]
            for y, x in pixels:  # grows while it is walked
                for dy, dx in NEIGHBOURS[connectivity]:
                    i, j = y + dy, x + dx
                    if 0 <= i < rows and 0 <= j < cols and not seen[i, j] and value[i][j] == value[row][col]:
                        seen[i, j] = True
                        pixels.append((i, j))
            if len(pixels) < min_area:
                continue
            y, x = np.array(pixels, np.int64).T
            box = (y.min(), x.min(), y.max() + 1, x.max() + 1)
            found.append((len(pixels), box, (y.sum(), x.sum()), value[row][col]))
            out[y, x] = len(found)
    area, box, center_sum, values = zip(*found) if found else ((), (), (), ())
    return len(found), ComponentStatistics(
        np.array(area, np.int64),
        np.array(box, np.int32).reshape(-1, 4),
        np.array(center_sum, np.int64).reshape(-1, 2),
        np.array(values, labels.dtype),
    )


op = components


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    listed = [
        (name, {**arguments, "statistics": True, "connectivity": connectivity, "min_area": min_area})
        for name, arguments in label_cases()
        for connectivity, min_area in ((4, 1), (8, 3))
    ]
    return [(f"{name}, {a['connectivity']}, {a['min_area']}", a) for name, a in listed]


def label_cases() -> list[tuple[str, dict]]:
    """Rasters of labels, with their background: for `components` and `polygonize`."""
    rng = np.random.default_rng(0)
    checkers = np.indices((9, 131)).sum(axis=0).astype(np.uint8) % 2
    smooth = np.repeat(np.repeat(rng.integers(0, 3, (12, 17)), 9, axis=0), 11, axis=1)
    smooth[rng.random(smooth.shape) < 0.02] = 1
    extremes = rng.choice([-(2**31), -1, 2**31 - 1], (23, 64))
    return [
        ("noise", {"labels": (rng.random((21, 150)) < 0.55).astype(np.uint8)}),
        ("classes", {"labels": rng.integers(0, 3, (29, 66)).astype(np.uint8), "background": 2}),
        ("no background", {"labels": rng.integers(0, 3, (21, 65)).astype(np.uint8), "background": None}),
        ("smooth", {"labels": smooth.astype(np.int32), "background": 0}),
        (
            "wide numbers",
            {"labels": extremes.astype(np.int32), "background": -1},
        ),
        ("checkers", {"labels": checkers}),
        ("stripes", {"labels": np.tile(np.array([0, 1, 1], np.uint8), (5, 67))}),
        ("one value", {"labels": np.full((3, 200), 7, np.uint8)}),
        ("one column", {"labels": rng.integers(0, 2, (40, 1)).astype(np.uint8)}),
        ("one row", {"labels": rng.integers(0, 2, (1, 300)).astype(np.int32)}),
        ("one pixel", {"labels": np.ones((1, 1), np.uint8)}),
        ("background only", {"labels": np.zeros((4, 70), np.uint8)}),
        ("no rows", {"labels": np.zeros((0, 5), np.uint8)}),
        ("no columns", {"labels": np.zeros((5, 0), np.int32)}),
    ]
