"""What only rotated_iou promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rvkernels.ops import KERNELS
from rvkernels.ops.iou import iou
from rvkernels.ops.rotated_iou import corners, random_rotated_boxes, rotated_iou


def boxes(*rows):
    return np.array(rows, np.float64)


def by_shapely(a, b):
    shapes = [shapely.polygons(corners(x - [*a[0, :2], 0, 0, 0])) for x in (a, b)]
    inter = shapely.area(shapely.intersection(shapes[0][:, None], shapes[1]))
    union = shapely.area(shapes[0])[:, None] + shapely.area(shapes[1]) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    a = boxes([0, 0, 2, 2, 0])
    b = boxes(
        [0, 0, 2, 2, 45],  # an octagon: the square less four corners of legs 2 - sqrt 2
        [0, 0, 2, 2, 90],
        [1, 1, 2, 2, 0],
        [0, 0, 1, 4, 0],
        [0, 0, 1, 4, 90],
        [0, 2, 2, 2, 0],  # touches
        [0, 0, 0, 2, 30],  # has no area
        [9, 9, 1, 1, 0],
    )
    octagon = 4 - 2 * (2 - 2**0.5) ** 2
    want = [octagon / (8 - octagon), 1, 1 / 7, 2 / 6, 2 / 6, 0, 0, 0]
    assert np.allclose(rotated_iou(a, b, kernel=kernel), [want], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_angle_turns_clockwise_as_shown(kernel):
    """A bar of 1 x 4 along the columns, turned by 45 degrees, ends at the lower right (rows grow downwards)."""
    bar = boxes([0, 0, 1, 4, 45])
    right_below, right_above = boxes([1.2, 1.2, 0.1, 0.1, 0]), boxes([-1.2, 1.2, 0.1, 0.1, 0])
    assert rotated_iou(bar, right_below, kernel=kernel)[0, 0] == pytest.approx(0.01 / 4)
    assert rotated_iou(bar, right_above, kernel=kernel)[0, 0] == 0


def test_angle_zero_is_the_axis_aligned_box():
    rng = np.random.default_rng(1)
    turned = np.round(random_rotated_boxes(rng, 80, 60, 30) * 4) / 4 * (1, 1, 1, 1, 0)
    flat = np.concatenate([turned[:, :2] - turned[:, 2:4] / 2, turned[:, :2] + turned[:, 2:4] / 2], 1)
    want = iou(flat.astype(np.float32), flat.astype(np.float32))
    assert np.abs(rotated_iou(turned, turned) - want).max() < 1e-7


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 15.0, 45.0, 90.0]),
    st.sampled_from([0.0, 1e-13, 1e-9]),
    st.sampled_from([0.0, 1e6]),
)
def test_equals_shapely_on_boxes_that_nearly_share_sides(seed, step, noise, away):
    """Few whole numbers and few angles: equal, touching, contained boxes, common corners and sides, to rounding."""
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(1, 5, (12, 5)) * (1.0, 1, 1, 1, step) for _ in range(2))
    a, b = (x + rng.normal(0, 1, x.shape) * noise + (away, -away, 0, 0, 0) for x in (a, b))
    assert np.abs(rotated_iou(a, b) - by_shapely(a, b)).max() < 1e-13 + 1e-15 * away


def test_equals_shapely_on_many():
    rng = np.random.default_rng(2)
    a, b = random_rotated_boxes(rng, 150, 200, 60), random_rotated_boxes(rng, 400, 200, 60)
    found = rotated_iou(a, b)
    want = by_shapely(a, b)
    assert (want > 0).sum() > 3000
    assert ((found > 0) == (want > 0)).all()
    assert np.abs(found - want).max() < 1e-13


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 20))
def test_symmetric_and_in_range(seed, n, m):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-6, 6)
    a, b = (random_rotated_boxes(rng, k, 12, 8) * (scale, scale, scale, scale, 1) for k in (n, m))
    forth, back = rotated_iou(a, b), rotated_iou(b, a)
    assert np.abs(forth - back.T).max(initial=0) < 1e-12
    assert ((forth >= 0) & (forth <= 1)).all()
    own = np.diag(rotated_iou(a, a))
    assert np.abs(own - (a[:, 2] > 0)).max(initial=0) < 1e-13


@pytest.mark.parametrize("turns", [0.0, 90.0, 450.0, -270.0, 180.0, 90.0 * 2**40])
def test_quarter_turns_are_exact(turns):
    box = boxes([7, -3, 2, 5, 0])
    turned = box[:, [0, 1, 3, 2, 4]] if turns % 180 else box.copy()
    turned[:, 4] = turns
    assert rotated_iou(box, turned)[0, 0] == 1


def test_sides_of_no_size():
    for side in (0.0, 1e-300, 1e-141, 1e-120):
        a = boxes([0, 0, side, side, 30], [0, 0, side, 1, 30], [0, 0, 1, 1, 60])
        found = rotated_iou(a, a)
        assert np.isfinite(found).all()
        assert found[2, 2] == pytest.approx(1)
        assert found[0, 2] < 1e-100


def test_out_is_filled_and_threads_agree():
    rng = np.random.default_rng(4)
    a, b = random_rotated_boxes(rng, 200, 100, 30), random_rotated_boxes(rng, 1301, 100, 30)
    out = np.full((200, 1301), np.nan)
    assert rotated_iou(a, b, out, threads=2) is out
    assert (out == rotated_iou(a, b, threads=1)).all()
    assert (out[:, 700:] == rotated_iou(a, b[700:])).all()


@pytest.mark.parametrize(
    "bad", [[0, 0, -1, 1, 0], [0, 0, 1, -1, 0], [0, np.nan, 1, 1, 0], [0, 0, 1, 1, np.inf], [3e9, 0, 1, 1, 0]]
)
def test_a_bad_box_is_named(bad):
    with pytest.raises(ValueError, match="b: box 1 is"):
        rotated_iou(boxes([0, 0, 1, 1, 0]), boxes([0, 0, 1, 1, 0], bad))


def test_bad_arguments():
    good = np.zeros((2, 5))
    with pytest.raises(ValueError, match="a: expected dtype float64"):
        rotated_iou(good.astype(np.float32), good)
    with pytest.raises(ValueError, match=r"b: expected shape \(any, 5\)"):
        rotated_iou(good, good[:, :4].copy())
    with pytest.raises(ValueError, match="out: expected shape"):
        rotated_iou(good, good, np.zeros((3, 2)))
