"""What only the confusion matrix promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rvkernels.ops import KERNELS
from rvkernels.ops.confusion import confusion


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    truth = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
    predicted = np.array([[0, 1, 1], [255, 0, 2]], np.uint8)
    counts = confusion(truth, predicted, 3, kernel=kernel)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert counts.dtype == np.int64


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_ignored_class_is_left_out_by_truth_only(kernel):
    truth = np.array([0, 0, 1, 1], np.int32)
    predicted = np.array([0, 1, 0, 1], np.int32)
    assert confusion(truth, predicted, 2, ignore=0, kernel=kernel).tolist() == [[0, 0], [1, 1]]


@given(
    hnp.arrays(np.uint8, st.integers(0, 300), elements=st.sampled_from([0, 1, 2, 3, 255])),
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
)
def test_counts_every_position_once(truth, seed, threads):
    predicted = np.random.default_rng(seed).integers(0, 4, truth.shape).astype(np.uint8)
    counts = confusion(truth, predicted, 4, threads=threads)
    kept = truth != 255
    assert counts.sum() == kept.sum()
    assert (counts.sum(1) == np.bincount(truth[kept], minlength=4)[:4]).all()
    assert (counts.sum(0) == np.bincount(predicted[kept], minlength=4)).all()


@given(
    st.sampled_from([1, 2, 6, 7, 13, 14, 15, 16, 43, 44, 200]),
    st.sampled_from([1, 511, 513, 4095, 4096, 4097, 10_000]),
    st.sampled_from(["uint8", "uint16", "int32", "int64"]),
    st.sampled_from([None, 0, 255]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_every_way_to_count_gives_the_same(classes, n, dtype, ignore, alike, seed):
    """Classes around where cells are bytes, tables take turns, and a table stands alone."""
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, classes, (2, n)).astype(dtype)
    if alike:
        truth.sort()
        predicted[:] = np.where(rng.random(n) < 0.9, truth, predicted)
    if ignore == 255:
        truth[rng.random(n) < 0.2] = 255
        predicted[rng.random(n) < 0.1] = 255
    kept = (truth != 255) & (predicted != 255) if ignore != 0 else truth != 0
    pairs = truth[kept].astype(np.int64) * classes + predicted[kept]
    want = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    np.testing.assert_array_equal(confusion(truth, predicted, classes, ignore=ignore, threads=1), want)


def test_more_than_one_piece_of_work_and_thread():
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 3, (2, 3_000_001)).astype(np.uint8)
    want = np.bincount(truth.astype(np.int64) * 3 + predicted, minlength=9).reshape(3, 3)
    for threads in (1, 2):
        assert (confusion(truth, predicted, 3, threads=threads) == want).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("name", ["truth", "predicted"])
@pytest.mark.parametrize("ignore", [255, None, 70_000])
def test_a_label_that_is_no_class_is_refused(kernel, dtype, name, ignore):
    arrays = {"truth": np.zeros(5, dtype), "predicted": np.zeros(5, dtype)}
    arrays[name][3] = 3
    with pytest.raises(ValueError, match=f"{name}: label 3 is neither a class"):
        confusion(**arrays, classes=3, ignore=ignore, kernel=kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_negative_labels_are_refused(kernel):
    zero = np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="truth: label -1"):
        confusion(np.array([0, -1], np.int32), zero, 2, ignore=None, kernel=kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_negative_value_can_be_ignored(kernel):
    truth = np.array([0, -1, 1], np.int32)
    predicted = np.array([0, 1, -1], np.int32)
    assert confusion(truth, predicted, 2, ignore=-1, kernel=kernel).tolist() == [[1, 0], [0, 0]]


def test_bad_arguments():
    a = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"predicted: expected shape \(2, 2\), got \(4,\)"):
        confusion(a, a.reshape(-1), 2)
    with pytest.raises(ValueError, match="predicted: expected dtype uint8, got int32"):
        confusion(a, a.astype(np.int32), 2)
    with pytest.raises(ValueError, match="truth: must be C-contiguous"):
        confusion(np.zeros((4, 4), np.uint8)[:, ::2], np.zeros((4, 2), np.uint8), 2)
    with pytest.raises(ValueError, match="classes: expected 1 to 255"):
        confusion(a, a, 256)
    with pytest.raises(ValueError, match="threads"):
        confusion(a, a, 2, threads=-1)
