"""What only nms promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvkernels.ops import KERNELS
from rvkernels.ops.iou import iou, random_boxes
from rvkernels.ops.nms import nms
from rvkernels.ops.rotated_iou import random_rotated_boxes, rotated_iou


def inputs(boxes, scores, classes=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    classes = np.zeros(len(boxes)) if classes is None else classes
    return boxes, np.array(scores, np.float32), np.array(classes, np.int32)


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    boxes, scores, classes = inputs(
        [[0, 0, 10, 10], [0, 1, 10, 11], [0, 6, 10, 16], [0, 0, 10, 10]], [0.5, 0.9, 0.1, 0.4], [0, 0, 0, 1]
    )
    # 1 takes 0 (IoU 9/11), leaves 2 (5/15); 3 is of another class.
    assert nms(boxes, scores, classes, kernel=kernel).tolist() == [1, 3, 2]
    assert nms(boxes, scores, classes, 0.3, kernel=kernel).tolist() == [1, 3]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_tie_goes_to_the_lowest_index(kernel):
    boxes, scores, classes = inputs([[0, 0, 2, 2]] * 3 + [[5, 5, 6, 6]], [0.5, 0.5, 0.5, 0.5])
    assert nms(boxes, scores, classes, kernel=kernel).tolist() == [0, 3]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_threshold_itself_does_not_suppress(kernel):
    boxes, scores, classes = inputs([[0, 0, 2, 2], [0, 0, 2, 1]], [0.9, 0.8])
    assert nms(boxes, scores, classes, 0.5, kernel=kernel).tolist() == [0, 1]
    assert nms(boxes, scores, classes, np.nextafter(np.float32(0.5), np.float32(0)), kernel=kernel).tolist() == [0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_boxes_without_area_are_kept(kernel):
    boxes, scores, classes = inputs([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 2, 2]], [0.1, 0.2, 0.3])
    assert nms(boxes, scores, classes, 0.0, kernel=kernel).tolist() == [2, 1, 0]


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.9, 1.0]), st.integers(1, 3)
)
def test_kept_boxes_are_apart_and_every_other_has_a_reason(seed, n, threshold, threads):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, n, 30, 15) * np.float32(10.0 ** rng.integers(-3, 6))
    scores = rng.random(n).round(1).astype(np.float32)
    classes = rng.integers(0, 2, n).astype(np.int32)
    kept = nms(boxes, scores, classes, threshold, threads=threads)
    close = (iou(boxes, boxes) > np.float32(threshold)) & (classes[:, None] == classes)
    assert not np.triu(close[np.ix_(kept, kept)], 1).any()
    rank = np.empty(n, np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(n)
    assert (np.diff(rank[kept]) > 0).all()
    for i in set(range(n)) - set(kept.tolist()):
        assert any(close[i, k] and rank[k] < rank[i] for k in kept)


def test_equals_the_reference_on_many_boxes():
    rng = np.random.default_rng(7)
    boxes = random_boxes(rng, 3000, 900, 40)
    boxes[::50, 2:] += np.float32(400)
    scores, classes = rng.random(3000).astype(np.float32), rng.integers(0, 3, 3000).astype(np.int32)
    want = nms(boxes, scores, classes, 0.2, kernel="reference")
    assert 0 < len(want) < 3000
    for threads in (1, 2):
        assert nms(boxes, scores, classes, 0.2, threads=threads).tolist() == want.tolist()


def reference_of_many(boxes, scores, classes, threshold, overlap=iou):
    """What the definition says, from the matrix of all IoU values."""
    matrix = overlap(boxes, boxes)
    above = (matrix > matrix.dtype.type(threshold)) & (classes[:, None] == classes)
    dropped, kept = np.zeros(len(boxes), bool), []
    for i in np.argsort(-scores, kind="stable"):
        if not dropped[i]:
            kept.append(i)
            dropped |= above[i]
    return kept


def boxes_of(kind, rng, n):
    corner, side = rng.random((n, 2)) * 7 * n**0.5, 8 + rng.random((n, 2)) * 20
    if kind == "crowds":
        corner = corner[rng.integers(0, n // 100, n)] + rng.normal(0, 2, (n, 2))
    elif kind == "one place":
        corner = rng.random((n, 2))
    elif kind == "all sizes":
        side = 2.0 ** rng.uniform(-12, 12, (n, 2))
    elif kind == "far apart":
        corner[: n // 2] += 2e9
        corner[0] = -2e9
    elif kind == "tiny":
        corner, side = corner * 1e-8, side * 1e-8
    boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
    return boxes, rng.random(n).astype(np.float32), rng.integers(-1, 2, n).astype(np.int32)


KINDS = ("uniform", "crowds", "one place", "all sizes", "far apart", "tiny")


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.5, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_matrix_however_boxes_lie(kind, threshold):
    inputs = boxes_of(kind, np.random.default_rng(11), 2000)
    assert nms(*inputs, threshold, threads=1).tolist() == reference_of_many(*inputs, threshold)


@pytest.mark.parametrize("threshold", [0.02, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_within_a_class_change_nothing(kind, threshold):
    """From 8,192 boxes on threads share a class."""
    inputs = boxes_of(kind, np.random.default_rng(12), 9000)
    want = nms(*inputs, threshold, threads=1).tolist()
    for threads in (2, 5):
        assert nms(*inputs, threshold, threads=threads).tolist() == want


def test_scores_of_every_kind_are_in_order():
    """Signs, zeros of both signs, infinities, denormals; ties by index."""
    values = [0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, 3.5, -3.5, 1e38, -1e38, 1e-10]
    scores = np.array(values * 3, np.float32)
    boxes = np.repeat(np.arange(len(scores), dtype=np.float32)[:, None] * 2, 4, 1) + np.float32([0, 0, 1, 1])
    want = np.argsort(-scores, kind="stable").tolist()
    assert nms(boxes, scores, np.zeros(len(scores), np.int32)).tolist() == want


def test_boxes_of_denormal_area_follow_their_iou():
    """Of height 2^-149 and widths from 0.5 to 1.5 all have area 2^-149, so that one in another has an IoU of 1."""
    rng = np.random.default_rng(3)
    boxes = np.zeros((2000, 4), np.float32)
    boxes[:, 1] = rng.random(2000) * 100
    boxes[:, 3] = boxes[:, 1] + 0.5 + rng.random(2000).astype(np.float32)
    boxes[:, 2] = np.float32(2.0**-149)
    scores, classes = rng.random(2000).astype(np.float32), np.zeros(2000, np.int32)
    want = reference_of_many(boxes, scores, classes, 0.95)
    assert len(want) < 2000
    assert nms(boxes, scores, classes, 0.95).tolist() == want


@pytest.mark.parametrize("kernel", KERNELS)
def test_rotated_boxes_worked_by_hand(kernel):
    bars = np.array([[0, 0, 1, 8, 0], [0, 0, 1, 8, 90], [0, 0.5, 1, 8, 5], [0, 0, 8, 1, 0]], np.float64)
    scores, classes = np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.zeros(4, np.int32)
    # 0 and 1 cross (1/15), 2 lies along 0, 3 is 1 again.
    assert nms(bars, scores, classes, 0.5, rotated=True, kernel=kernel).tolist() == [0, 1]


def test_rotated_boxes_equal_their_matrix():
    rng = np.random.default_rng(8)
    boxes = random_rotated_boxes(rng, 2500, 500, 60)
    boxes[::70, 2:4] *= 20
    scores, classes = rng.random(2500).astype(np.float32), rng.integers(0, 2, 2500).astype(np.int32)
    want = reference_of_many(boxes, scores, classes, 0.3, rotated_iou)
    assert 100 < len(want) < 2400
    assert nms(boxes, scores, classes, 0.3, rotated=True).tolist() == want


@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e4])
def test_rotated_boxes_of_any_size(size):
    """Areas that float32 does not have are no reason to leave a pair out."""
    rng = np.random.default_rng(13)
    boxes = random_rotated_boxes(rng, 300, 40, 30)
    scores, classes = rng.random(300).astype(np.float32), np.zeros(300, np.int32)
    want = nms(boxes, scores, classes, 0.3, rotated=True).tolist()
    scaled = boxes * np.array([size, size, size, size, 1])
    assert 30 < len(want) < 270
    assert nms(scaled, scores, classes, 0.3, rotated=True).tolist() == want


def test_bad_arguments():
    boxes, scores, classes = inputs([[0, 0, 1, 1], [0, 0, 1, 1]], [0.1, np.nan])
    with pytest.raises(ValueError, match="scores: score 1 is NaN"):
        nms(boxes, scores, classes)
    with pytest.raises(ValueError, match=r"scores: expected shape \(2\), got \(1,\)"):
        nms(boxes, scores[:1], classes)
    with pytest.raises(ValueError, match="classes: expected dtype int32"):
        nms(boxes, scores, classes.astype(np.int64))
    with pytest.raises(ValueError, match="iou: expected a threshold"):
        nms(boxes, np.zeros(2, np.float32), classes, 1.5)
    with pytest.raises(ValueError, match=r"boxes: expected dtype float64"):
        nms(boxes, np.zeros(2, np.float32), classes, rotated=True)
    with pytest.raises(ValueError, match="boxes: box 0"):
        nms(boxes[:, ::-1].copy(), np.zeros(2, np.float32), classes)
