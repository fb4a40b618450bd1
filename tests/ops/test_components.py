"""What only components promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from rvkernels.ops import KERNELS, core
from rvkernels.ops.components import MOST_SIDE, components

SQUARE = np.ones((3, 3), int)


def by_scipy(mask, connectivity):
    return ndimage.label(mask, SQUARE if connectivity == 8 else None)


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    labels = np.array([[0, 2, 2, 0], [5, 0, 2, 5], [5, 5, 0, 2]], np.uint8)
    four = components(labels, statistics=True, kernel=kernel)
    assert four.labels.tolist() == [[0, 1, 1, 0], [2, 0, 1, 3], [2, 2, 0, 4]]
    assert four.count == 4
    found = four.statistics
    assert found.value.tolist() == [2, 5, 5, 2]
    assert found.area.tolist() == [3, 3, 1, 1]
    assert found.box.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [1, 3, 2, 4], [2, 3, 3, 4]]
    assert found.center_sum.tolist() == [[1, 5], [5, 1], [1, 3], [2, 3]]
    eight = components(labels, connectivity=8, kernel=kernel)
    assert eight.labels.tolist() == [[0, 1, 1, 0], [2, 0, 1, 3], [2, 2, 0, 1]]
    assert eight.statistics is None
    assert components(labels, min_area=2, kernel=kernel).labels.tolist() == [[0, 1, 1, 0], [2, 0, 1, 0], [2, 2, 0, 0]]
    fives = components(labels, background=5, min_area=2, kernel=kernel)
    assert fives.labels.tolist() == [[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def many_strips(kind):
    """A mask of two million pixels: three strips, which have to be joined."""
    rng = np.random.default_rng(3)
    rows, cols = 1700, 1300
    if kind == "noise":
        return (rng.random((rows, cols)) < 0.58).astype(np.uint8)
    if kind == "blobs":
        return (ndimage.uniform_filter(rng.random((rows, cols), np.float32), 9) > 0.5).astype(np.uint8)
    comb = np.zeros((rows, cols), np.uint8)  # one component that comes down in many pieces, which meet in the last row
    comb[:, ::2] = 1
    comb[-1] = 1
    return comb


def in_order(labels, count):
    """Labels from 1, numbered in the order of their first pixels."""
    first = np.empty(count + 1, np.int64)
    first[labels.ravel()[::-1]] = np.arange(labels.size)[::-1]  # the first pixel is written last
    number = np.zeros(count + 1, np.int32)
    number[1 + np.argsort(first[1:])] = np.arange(1, count + 1)
    return number[labels]


@pytest.mark.parametrize("kind", ["noise", "blobs", "comb"])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_strips_join_as_scipy_labels(kind, connectivity):
    mask = many_strips(kind)
    want, count = by_scipy(mask, connectivity)
    want = in_order(want, count)
    boxes = [(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in ndimage.find_objects(want)]
    for threads in (1, 3):
        got = components(mask, connectivity=connectivity, statistics=True, threads=threads)
        assert got.count == count
        np.testing.assert_array_equal(got.labels, want)
        assert (got.statistics.area == np.bincount(want.ravel())[1:]).all()
        assert (got.statistics.box == boxes).all()


@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize(("rows", "cols", "smooth"), [(1100, 1000, 500), (3000, 129, 0), (9000, 64, 0), (40000, 7, 0)])
def test_more_runs_than_are_kept(rows, cols, smooth, background):
    """Of classes that adjoin; where it begins smooth, the first runs are kept and the others found again."""
    labels = np.random.default_rng(0).integers(0, 4, (rows, cols), np.uint8)
    labels[:smooth] = 1
    want, count = np.zeros((rows, cols), np.int64), 0
    for value in range(4):
        if value != background:
            mine, more = by_scipy(labels == value, 4)
            want, count = want + np.where(mine, mine + count, 0), count + more
    got = components(labels, background=background, statistics=True)
    np.testing.assert_array_equal(got.labels, in_order(want, count))
    assert (got.statistics.area == np.bincount(got.labels.ravel(), minlength=count + 1)[1:]).all()
    few = components(labels.astype(np.int32), background=background, min_area=3)
    area = np.concatenate([[0], got.statistics.area])[got.labels]
    np.testing.assert_array_equal(few.labels > 0, area >= 3)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 200),
    st.integers(2, 4),
    st.sampled_from([4, 8]),
    st.integers(1, 6),
    st.sampled_from([np.uint8, np.int32]),
)
def test_properties(seed, rows, cols, values, connectivity, min_area, dtype):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, values, (rows, cols)).astype(dtype)
    got = components(labels, connectivity=connectivity, min_area=min_area, statistics=True)
    found = got.statistics
    assert (got.labels[labels == 0] == 0).all()
    assert found.area.tolist() == np.bincount(got.labels.ravel(), minlength=got.count + 1)[1:].tolist()
    assert (found.area >= min_area).all()
    y, x = np.indices(labels.shape)
    for i in range(1, got.count + 1):
        inside = got.labels == i
        assert (labels[inside] == found.value[i - 1]).all()
        assert by_scipy(inside, connectivity)[1] == 1
        assert found.center_sum[i - 1].tolist() == [y[inside].sum(), x[inside].sum()]
    same = labels[:, 1:] == labels[:, :-1]  # neighbours of one value are never in two components
    assert (got.labels[:, 1:] == got.labels[:, :-1])[same].all()
    sizes = [np.bincount(by_scipy(labels == v, connectivity)[0].ravel())[1:] for v in range(1, values)]
    assert got.count == sum((size >= min_area).sum() for size in sizes)


def test_out_is_filled_and_returned():
    mask = np.ones((3, 5), np.uint8)
    out = np.full((3, 5), -7, np.int32)
    assert components(mask, out=out).labels is out
    assert (out == 1).all()


def test_bad_arguments():
    mask = np.zeros((3, 4), np.uint8)
    with pytest.raises(ValueError, match="labels: expected dtype uint8 or int32, got bool"):
        components(mask.astype(bool))
    with pytest.raises(ValueError, match=r"labels: expected shape \(any, any\)"):
        components(mask[0])
    with pytest.raises(ValueError, match="labels: must be C-contiguous"):
        components(mask[:, ::2])
    with pytest.raises(ValueError, match="background: expected a value of uint8"):
        components(mask, background=256)
    with pytest.raises(ValueError, match="connectivity: expected 4 or 8, got 6"):
        components(mask, connectivity=6)
    with pytest.raises(ValueError, match="min_area: expected 1 pixel"):
        components(mask, min_area=0)
    with pytest.raises(ValueError, match="out: expected dtype int32"):
        components(mask, out=np.zeros((3, 4), np.int64))
    both = np.zeros((3, 4), np.int32)
    with pytest.raises(ValueError, match="out: must not share memory with labels"):
        components(both, out=both)
    with pytest.raises(ValueError, match=f"labels: expected at most {MOST_SIDE}"):
        components(np.broadcast_to(np.uint8(0), (0, MOST_SIDE + 1)).copy())
    assert core().MOST_SIDE == MOST_SIDE


def test_more_numbers_than_fit_are_refused():
    """The limit is 2^31 - 1; here it is lowered, since no test has that many components."""
    checkers = (np.indices((4, 6)).sum(axis=0) % 2).astype(np.uint8)
    out = np.zeros(checkers.shape, np.int32)
    run = core().components_uint8
    assert run(checkers, 0, False, 1, False, out, 1, most_pieces=12)[0] == 12
    with pytest.raises(ValueError, match="labels: more than 11 pieces of regions"):
        run(checkers, 0, False, 1, False, out, 1, most_pieces=11)
