"""Windows stay in their region, cover it, and are the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvkernels import windows
from rvkernels.scene import Region


def region(rows: int, cols: int, row: int = 7, col: int = 3) -> Region:
    return Region("s", row, col, rows, cols, "train")


def painted(found: np.ndarray, r: Region) -> np.ndarray:
    """How often each pixel of the region is covered; fails for a window that leaves it."""
    count = np.zeros((r.rows, r.cols), int)
    for row, col, rows, cols in (found - (r.row, r.col, 0, 0)).tolist():
        part = count[row : row + rows, col : col + cols]
        assert row >= 0
        assert col >= 0
        assert part.shape == (rows, cols)
        part += 1
    return count


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 25))


@settings(max_examples=100, deadline=None)
@given(sizes)
def test_sliding_windows_cover_the_region(case):
    rows, cols, size, stride = case
    r = region(rows, cols)
    found = windows.sliding(r, size, min(stride, size), flush=True)
    count = painted(found, r)
    assert len(np.unique(found, axis=0)) == len(found)
    if size <= min(rows, cols):
        assert count.min() >= 1
    else:
        assert len(found) == 0
    assert found.tolist() == sorted(found.tolist())


def test_without_flush_windows_stay_on_the_grid():
    assert windows.starts(10, 4, 4, flush=False).tolist() == [0, 4]
    assert windows.starts(10, 4, 4, flush=True).tolist() == [0, 4, 6]
    assert windows.starts(8, 4, 4, flush=True).tolist() == [0, 4]
    assert windows.starts(3, 4, 4, flush=True).tolist() == []


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_tiles_cover_every_pixel_once(case):
    rows, cols, size, _ = case
    r = region(rows, cols)
    found = windows.tiles(r, size)
    assert (painted(np.concatenate(found), r) == 1).all()
    assert all(len(np.unique(group[:, 2:], axis=0)) == 1 for group in found)


def test_random_windows():
    r = region(50, 60)
    found = windows.random(r, 8, 500, seed=1, sample=0)
    painted(found, r)
    assert found.tolist() == windows.random(r, 8, 500, seed=1, sample=0).tolist()
    assert found.tolist() != windows.random(r, 8, 500, seed=2, sample=0).tolist()
    assert found.tolist() != windows.random(r, 8, 500, seed=1, sample=1).tolist()
    # All 43 x 53 positions are equally likely: corners are reached, and the mean is that of a uniform distribution.
    low, high = found[:, :2].min(0) - (7, 3), found[:, :2].max(0) - (7, 3)
    assert (low <= 1).all()
    assert (high >= (41, 51)).all()
    assert np.abs((found[:, :2] - (7, 3)).mean(0) - (21, 26)).max() < 3 * 52 / np.sqrt(12 * 500)


def test_random_windows_in_an_area_of_interest():
    r = region(50, 60, 0, 0)
    found = windows.random(r, 8, 40, seed=1, sample=0, inside=lambda w: w[:, 1] + 8 <= 20)
    assert len(found) == 40
    assert (found[:, 1] <= 12).all()
    with pytest.raises(ValueError, match=r"scene s: only 0 of 4000 random windows of 8 pixels lie in the area"):
        windows.random(r, 8, 40, seed=1, sample=0, inside=lambda w: np.zeros(len(w), bool))


def test_share_out_goes_by_room():
    regions = [region(10, 10), region(10, 28), region(10, 10)]
    assert windows.share_out(40, regions, 10) == [2, 36, 2]
    assert windows.share_out(7, [region(10, 10)] * 3, 5) == [3, 2, 2]
