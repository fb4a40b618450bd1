import numpy as np
import pytest

from rvkernels.ops import KERNELS, normalize
from rvkernels.ops.normalize import normalize as run


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_example(kernel):
    images = np.array([[[[10, 200], [20, 100]]]], np.uint8)
    expected = np.array([[[[-1, 2], [1, 0]]]], np.float32)
    np.testing.assert_array_equal(run(images, [15, 100], [5, 50], kernel=kernel), expected)
    planar = run(images, [15, 100], [5, 50], "NCHW", kernel=kernel)
    np.testing.assert_array_equal(planar, expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(("name", "arguments"), normalize.cases(), ids=lambda v: v if isinstance(v, str) else "")
def test_kernels_agree_whatever_the_threads(name, arguments):
    expected = run(**arguments, kernel="reference")
    for threads in (1, 3):
        np.testing.assert_array_equal(run(**arguments, threads=threads), expected)


def test_close_to_float64():
    images = np.random.default_rng(0).integers(0, 65536, (2, 30, 31, 5)).astype(np.uint16)
    mean, std = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
    np.testing.assert_allclose(run(images, mean, std), (images - mean) / std, atol=1e-5)


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
        ({"images": np.zeros((4, 4, 2), np.uint8)}, r"images: expected an array \(n, rows, cols, bands\)"),
        ({"images": np.zeros((1, 4, 4, 2), np.int16)}, "images: expected dtype .* got int16"),
        ({"images": np.zeros((1, 4, 2, 4), np.uint8).swapaxes(2, 3)}, "images: must be C-contiguous"),
        ({"mean": [0]}, "mean: expected 2"),
        ({"std": [1, 0]}, "std: expected positive"),
        ({"std": [1, np.nan]}, "std: expected 2 finite"),
        ({"layout": "NWHC"}, "layout: no 'NWHC'; there are NCHW, NHWC"),
        ({"out": np.zeros((1, 4, 4, 2))}, "out: expected float32"),
        ({"out": np.zeros((1, 2, 4, 4), np.float32)}, "out: expected float32"),
        ({"kernel": "fast"}, "kernel: no 'fast'"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        run(**{**GOOD, **change})
