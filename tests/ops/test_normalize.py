import numpy as np
import pytest

from rvkernels.ops import KERNELS
from rvkernels.ops.normalize import normalize as run


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_example(kernel):
    images = np.array([[[[10, 200], [20, 100]]]], np.uint8)
    expected = np.array([[[[-1, 2], [1, 0]]]], np.float32)
    np.testing.assert_array_equal(run(images, [15, 100], [5, 50], kernel=kernel), expected)
    planar = run(images, [15, 100], [5, 50], "NCHW", kernel=kernel)
    np.testing.assert_array_equal(planar, expected.transpose(0, 3, 1, 2))


def test_close_to_float64():
    images = np.random.default_rng(0).integers(0, 65536, (2, 30, 31, 5)).astype(np.uint16)
    mean, std = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
    np.testing.assert_allclose(run(images, mean, std), (images - mean) / std, atol=1e-5)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_bfloat16_rounds_to_nearest_even(layout):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    # Numbers between two bfloat16, just beside the middle and in it, odd and even; overflow, denormals, NaN, infinity.
    bits = np.array([0x3F800000, 0x3F808000, 0x3F808001, 0x3F818000, 0x3F817FFF, 0x7F7FFFFF, 1, 0x8000, 0x18000])
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40], np.float32)
    values = np.concatenate(
        [bits.astype(np.uint32).view(np.float32), special, np.random.default_rng(0).normal(size=984)]
    )
    images = values.astype(np.float32).reshape(1, 10, 50, 2)
    found = run(images, [0, 0], [1, 1], layout, dtype="bfloat16")
    expected = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(
        found.view(np.uint16), np.ascontiguousarray(expected).astype(found.dtype).view(np.uint16)
    )


@pytest.mark.parametrize(
    ("dtype", "layout", "bands"),
    [("uint8", "NCHW", 3), ("uint8", "NHWC", 4), ("uint8", "NHWC", 1), ("uint16", "NCHW", 2), ("uint16", "NHWC", 3)],
)
def test_outputs_too_large_for_the_caches(dtype, layout, bands):
    """They are written another way: in whole cache lines, of which a chunk of pixels rarely begins one."""
    images = np.random.default_rng(0).integers(0, 256, (1, 1500, 2803 // bands, bands)).astype(dtype)
    shape = images.shape if layout == "NHWC" else (1, bands, *images.shape[1:3])
    around = np.full(images.size + 3, 7, np.float32)
    out = around[1:-2].reshape(shape)
    mean, std = np.arange(bands) + 3, np.arange(bands) + 7
    np.testing.assert_array_equal(
        run(images, mean, std, layout, out=out), run(images, mean, std, layout, kernel="reference")
    )
    assert out.nbytes >= 2**24
    assert (around[[0, -2, -1]] == 7).all()


def test_out_is_filled_and_returned():
    images, out = np.ones((2, 3, 4, 1), np.uint8), np.full((2, 1, 3, 4), 7, np.float32)
    assert run(images, [1], [1], "NCHW", out=out) is out
    assert not out.any()


def test_reads_a_memory_map(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(run(mapped, [1, 2, 3], [4, 5, 6]), run(images, [1, 2, 3], [4, 5, 6]))


GOOD = {"images": np.zeros((1, 4, 4, 2), np.uint8), "mean": [0, 0], "std": [1, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 4, 2), np.uint8)}, r"images: expected shape \(n, rows, cols, bands\)"),
        ({"images": np.zeros((1, 4, 4, 2), np.int32)}, "images: expected dtype .* got int32"),
        ({"images": np.zeros((1, 4, 2, 4), np.uint8).swapaxes(2, 3)}, "images: must be C-contiguous"),
        ({"mean": [0]}, "mean: expected 2"),
        ({"std": [1, 0]}, "std: expected positive"),
        ({"std": [1, np.nan]}, "std: expected 2 finite"),
        ({"layout": "NWHC"}, "layout: no 'NWHC'; there are NCHW, NHWC"),
        ({"dtype": "float16"}, "dtype: no 'float16' here; there are bfloat16, float32"),
        ({"dtype": "uint8"}, "dtype: no 'uint8' here"),
        ({"out": np.zeros((1, 4, 4, 2))}, "out: expected dtype float32, got float64"),
        ({"out": np.zeros((1, 4, 4, 2), np.float32), "dtype": "bfloat16"}, "out: expected dtype bfloat16"),
        ({"out": np.zeros((1, 2, 4, 4), np.float32)}, r"out: expected shape \(1, 4, 4, 2\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        run(**{**GOOD, **change})
