"""What only statistics promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rvkernels.ops.statistics import Statistics, statistics

KERNELS = ("reference", "cpp")


def counted(images, valid=None, **options):
    made = Statistics(images.shape[-1], images.dtype, **options)
    made.add(images, valid)
    return made


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_worked_by_hand(kernel, dtype):
    images = np.array([[[1, 10], [2, 10]], [[3, 10], [99, 99]]], dtype)
    valid = np.array([[1, 1], [1, 0]], np.uint8)
    found = statistics(images, valid, kernel=kernel)
    assert found["mean"] == [2, 10]
    assert found["std"] == [math.sqrt(2 / 3), 0]
    assert (found["min"], found["max"]) == ([1, 10], [3, 10])
    assert found["count"] == [3, 3]
    assert found["nodata_share"] == 0.25
    assert found["quantiles"]["0.5"] == pytest.approx([2, 10], rel=0.004)
    assert [sum(row) for row in found["histogram"]["counts"]] == [3, 3]


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(1)), elements=st.floats(width=32)))
def test_float_sums_are_exact(images):
    """Any finite float32, the smallest and the largest in one sum: as math.fsum has it."""
    values = [v for v in images.ravel().tolist() if math.isfinite(v)]
    made = counted(images)
    if not values:
        with pytest.raises(ValueError, match="band 0 has no valid value"):
            made.summary()
        return
    found = made.summary()
    assert found["mean"][0] == pytest.approx(math.fsum(values) / len(values), rel=1e-15, abs=1e-60)
    assert (found["min"][0], found["max"][0]) == (min(values), max(values))
    assert found["count"] == [len(values)]
    assert float(made._moments(0)[0]) == math.fsum(values)


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=4, max_side=9)),
    st.sampled_from([0, 0.01, 0.25, 0.5, 0.9, 1]),
)
def test_integers_agree_with_numpy(images, q):
    flat = images.reshape(-1, images.shape[-1])
    found = counted(images).summary([q])
    assert np.allclose(found["mean"], flat.mean(0), rtol=1e-13)
    assert np.allclose(found["std"], flat.std(0), rtol=1e-10, atol=1e-9)
    assert found["min"] == flat.min(0).tolist()
    assert found["max"] == flat.max(0).tolist()
    for values, value in zip(flat.T, found["quantiles"][str(q)]):
        assert value in values
        assert (values <= value).mean() >= q - 1e-12
        assert (values < value).mean() <= q - 1e-12 or value == values.min()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["uint8", "uint16", "float32"]), st.integers(1, 5))
def test_portions_order_and_merging_change_no_bit(seed, dtype, portions):
    rng = np.random.default_rng(seed)
    images = (rng.random((portions, 7, 5, 2)) * 250 * 10.0 ** rng.integers(-2, 3)).astype(dtype)
    valid = rng.random((portions, 7, 5)) < 0.7
    valid[0, 0, 0] = True
    whole = counted(images, valid).summary()
    streamed = Statistics(2, dtype)
    merged = Statistics(2, dtype)
    for k in rng.permutation(portions):
        streamed.add(images[k], valid[k])
        one = json.loads(json.dumps(counted(images[k], valid[k]).to_json()))
        merged.merge(Statistics.from_json(one))
    assert streamed.summary() == whole
    assert merged.summary() == whole


def test_more_than_one_piece_of_work():
    rng = np.random.default_rng(0)
    for dtype in ("uint8", "uint16", "float32"):
        images = (rng.random((2_500_001, 1)) * 255).astype(dtype)
        valid = rng.random(2_500_001) < 0.9
        one, two = (counted(images, valid, threads=threads).summary() for threads in (1, 2))
        assert one == two
        kept = images[valid].astype(np.float64)
        assert one["count"] == [len(kept)]
        assert one["mean"][0] == pytest.approx(kept.mean(), rel=1e-12)
        assert one["std"][0] == pytest.approx(kept.std(), rel=1e-10)


def test_a_small_deviation_on_a_large_mean():
    """Where a running sum of squares in floating point has no digits left."""
    images = np.array([[1e7], [1e7 + 1], [1e7 + 2]], np.float32)
    assert statistics(images)["std"] == [math.sqrt(2 / 3)]


def test_float_quantiles_are_within_their_bin():
    values = np.random.default_rng(1).standard_normal((20_000, 1)).astype(np.float32) * 3
    found = statistics(values)["quantiles"]
    for q, (value,) in found.items():
        want = np.quantile(values, float(q), method="inverted_cdf")
        assert value == pytest.approx(want, rel=0.004)


def test_the_shown_histogram_counts_everything_once():
    images = np.random.default_rng(2).integers(500, 3000, (999, 2)).astype(np.uint16)
    shown = statistics(images)["histogram"]
    edges, counts = shown["edges"], np.array(shown["counts"])
    assert counts.sum(1).tolist() == [999, 999]
    for band in range(2):
        assert (np.histogram(images[:, band], edges)[0] == counts[band]).all()


def test_nothing_valid_is_an_error():
    images = np.zeros((4, 2), np.uint8)
    with pytest.raises(ValueError, match="band 0 has no valid value among 4 pixels"):
        counted(images, np.zeros(4, np.uint8)).summary()
    with pytest.raises(ValueError, match="among 0 pixels"):
        Statistics(1, "uint8").summary()


def test_bad_arguments():
    made = Statistics(3, "uint8")
    with pytest.raises(ValueError, match=r"images: expected shape \(..., 3\)"):
        made.add(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="images: expected dtype uint8, got uint16"):
        made.add(np.zeros((4, 3), np.uint16))
    with pytest.raises(ValueError, match="images: must be C-contiguous"):
        made.add(np.zeros((3, 4), np.uint8).T)
    with pytest.raises(
        ValueError, match=r"valid: expected shape \(4\), got \(3\)|valid: expected shape \(4\), got \(3,\)"
    ):
        made.add(np.zeros((4, 3), np.uint8), np.ones(3, np.uint8))
    with pytest.raises(ValueError, match="cannot merge 2 bands of uint8 into 3 of uint8"):
        made.merge(Statistics(2, "uint8"))
    with pytest.raises(ValueError, match="dtype: expected one of"):
        Statistics(3, "int16")
    made.add(np.zeros((4, 3), np.uint8))
    with pytest.raises(ValueError, match="quantiles"):
        made.summary([1.5])
    state = made.to_json()
    with pytest.raises(ValueError, match="not what to_json"):
        Statistics.from_json({key: value for key, value in state.items() if key != "histogram"})
    with pytest.raises(ValueError, match="do not fit in 256 bins"):
        Statistics.from_json({**state, "histogram": [{"first": 250, "counts": [1] * 9}] * 3})
