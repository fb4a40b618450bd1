"""What only iou promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvkernels.ops import KERNELS
from rvkernels.ops.iou import iou, random_boxes


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    a = np.array([[0, 0, 2, 2]], np.float32)
    b = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [0, 2, 2, 4], [1, 1, 1, 1], [5, 5, 6, 6]], np.float32)
    assert iou(a, b, kernel=kernel).tolist() == [[1, np.float32(1 / 7), 0, 0, 0]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_box_without_area_overlaps_nothing(kernel):
    flat = np.array([[1, 1, 1, 5], [2, 2, 2, 2]], np.float32)
    assert not iou(flat, flat, kernel=kernel).any()


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 30))
def test_symmetric_and_at_most_one(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, n, 12, 8), random_boxes(rng, m, 12, 8)
    forth, back = iou(a, b), iou(b, a)
    assert (forth == back.T).all()
    assert ((forth >= 0) & (forth <= 1)).all()
    if n:
        own = np.diag(iou(a, a))
        assert (own == ((a[:, 2] > a[:, 0]) & (a[:, 3] > a[:, 1]))).all()


def test_close_to_float64():
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 60, 50, 30), random_boxes(rng, 60, 50, 30)
    wide_a, wide_b = a.astype(np.float64)[:, None], b.astype(np.float64)
    sides = np.minimum(wide_a[..., 2:], wide_b[..., 2:]) - np.maximum(wide_a[..., :2], wide_b[..., :2])
    inter = np.prod(np.maximum(sides, 0), -1)
    areas = [np.prod(x[..., 2:] - x[..., :2], -1) for x in (wide_a, wide_b)]
    union = areas[0] + areas[1] - inter
    want = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    assert np.abs(iou(a, b) - want).max() < 1e-6


def test_out_is_filled_and_threads_agree():
    rng = np.random.default_rng(4)
    a, b = random_boxes(rng, 700, 300, 30), random_boxes(rng, 801, 300, 30)
    out = np.full((700, 801), np.nan, np.float32)
    assert iou(a, b, out, threads=2) is out
    assert (out == iou(a, b, threads=1)).all()


@pytest.mark.parametrize("columns", [2048, 2049, 3001])
def test_output_larger_than_the_caches(columns):
    """It is written past the caches, from whatever alignment, in blocks of columns."""
    rng = np.random.default_rng(6)
    a, b = random_boxes(rng, 1100, 300, 60), random_boxes(rng, columns, 300, 60)
    wanted = iou(a[:50], b)
    room = np.full(1100 * columns + 2, np.nan, np.float32)
    out = room[1:-1].reshape(1100, columns)
    iou(a, b, out, threads=2)
    assert (out[:50] == wanted).all()
    assert (out[-50:] == iou(a[-50:], b, kernel="reference")).all()
    assert np.isnan(room[[0, -1]]).all()


@pytest.mark.parametrize("bad", [[2, 0, 1, 1], [0, 2, 1, 1], [0, 0, np.nan, 1], [0, 0, np.inf, 1], [0, 0, 3e9, 1]])
def test_a_bad_box_is_named(bad):
    good = np.array([[0, 0, 1, 1]], np.float32)
    boxes = np.array([[0, 0, 1, 1], bad], np.float32)
    with pytest.raises(ValueError, match="b: box 1 is"):
        iou(good, boxes)


def test_bad_arguments():
    good = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="a: expected dtype float32"):
        iou(good.astype(np.float64), good)
    with pytest.raises(ValueError, match=r"b: expected shape \(any, 4\)"):
        iou(good, good[:, :3].copy())
    with pytest.raises(ValueError, match="out: expected shape"):
        iou(good, good, np.zeros((3, 2), np.float32))
