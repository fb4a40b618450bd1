"""Where chips are cut: windows that lie inside their region, and inside the area of interest when there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rvkernels.ops import philox
from rvkernels.scene import Region

ATTEMPTS = 100  # rounds of random windows before an area of interest counts as too small for them
_OP_WINDOW = 101  # philox stream of random windows

Inside = Callable[[np.ndarray], np.ndarray]


def starts(length: int, size: int, stride: int, *, flush: bool) -> np.ndarray:
    """First pixels of windows of `size` in `length` pixels: 0, stride, ... as far as they fit, int64, ascending.

    With `flush` one more ends with the last pixel when the others leave some uncovered.
    """
    found = np.arange(0, length - size + 1, stride, dtype=np.int64)
    if flush and len(found) and found[-1] + size < length:
        found = np.append(found, length - size)
    return found


def sliding(region: Region, size: int, stride: int, *, flush: bool, inside: Inside | None = None) -> np.ndarray:
    """Windows (n, 4) int64 of row, col, rows, cols in the scene, in order of row and col.

    inside  which of windows (n, 4) lie in the area of interest, bool (n,); None: all
    """
    rows = region.row + starts(region.rows, size, stride, flush=flush)
    cols = region.col + starts(region.cols, size, stride, flush=flush)
    corner = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    windows = _windows(corner, size)
    return windows if inside is None else windows[inside(windows)]


def random(
    region: Region, size: int, count: int, *, seed: int, sample: int, inside: Inside | None = None
) -> np.ndarray:
    """`count` windows (count, 4) int64, every position equally likely and drawn again and again, sorted by row and col.

    sample  number of the region: regions of one study differ in it, so that they do not share random numbers
    Raises ValueError when the area of interest holds hardly any window.
    """
    room = np.array([region.rows - size + 1, region.cols - size + 1])
    found = np.empty((0, 4), np.int64)
    for attempt in range(ATTEMPTS):
        if len(found) >= count:
            break
        numbers = philox.uniform(seed, attempt, sample, _OP_WINDOW, 2 * count).reshape(-1, 2)
        corner = np.minimum(numbers.astype(np.float64) * room, room - 1).astype(np.int64)
        windows = _windows(corner + np.array([region.row, region.col]), size)
        found = np.concatenate([found, windows if inside is None else windows[inside(windows)]])
    if len(found) < count:
        raise ValueError(
            f"scene {region.scene}: only {len(found)} of {count * ATTEMPTS} random windows of {size} pixels lie in the "
            f"area of interest; choose smaller chips or method: sliding"
        )
    found = found[:count]
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def share_out(count: int, regions: Sequence[Region], size: int) -> list[int]:
    """`count` windows shared out among regions by the number of positions each has; the sum is exactly `count`.

    Largest remainders get what rounding leaves over; ties go to the first.
    """
    room = np.array([float(r.rows - size + 1) * (r.cols - size + 1) for r in regions])
    exact = count * room / room.sum()
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: count - int(shares.sum())]] += 1
    return shares.tolist()


def tiles(region: Region, size: int) -> list[np.ndarray]:
    """Windows that cover every pixel of a region exactly once: arrays (n, 4) int64, each of windows of one size."""
    found = []
    for rows in _pieces(region.row, region.rows, size):
        for cols in _pieces(region.col, region.cols, size):
            grid = np.stack(np.meshgrid(rows[:, 0], cols[:, 0], indexing="ij"), -1).reshape(-1, 2)
            extent = np.broadcast_to((rows[0, 1], cols[0, 1]), grid.shape)
            found.append(np.concatenate([grid, extent], axis=1))
    return found


def _pieces(start: int, length: int, size: int) -> list[np.ndarray]:
    """(start, length) of full pieces, then of the rest: at most two arrays (n, 2)."""
    full = np.arange(length // size, dtype=np.int64) * size + start
    found = [np.stack([full, np.full_like(full, size)], 1)] if len(full) else []
    if length % size:
        found.append(np.array([[start + length - length % size, length % size]], np.int64))
    return found


def _windows(corner: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([corner, np.full_like(corner, size)], axis=1)
