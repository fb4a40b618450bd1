"""Standard scores per band: (value - mean) / std as float32 or bfloat16, the pixels a network reads."""

from __future__ import annotations

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run
from rvkernels.registry import suggest

TOLERANCE = 0
LAYOUTS = ("NHWC", "NCHW")
DTYPES = ("uint8", "uint16", "int16", "float32")
OUT_DTYPES = ("float32", "bfloat16")


def normalize(
    images: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    layout: str = "NHWC",
    *,
    dtype: str = "float32",
    out: np.ndarray | None = None,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray:
    """(images - mean) * (1 / std) per band in float32, with mean and 1 / std rounded to float32 first.

    images: (n, rows, cols, bands) uint8, uint16, int16 or float32, C-contiguous; mean, std: (bands,), std > 0.
    dtype: "float32", or "bfloat16" for the float32 numbers rounded to nearest even, as ml_dtypes.bfloat16.
    Returns (n, rows, cols, bands), or (n, bands, rows, cols) for layout "NCHW": `out` when it is given.
    Raises ValueError naming the argument with the wrong shape, dtype, layout or value; ImportError without ml_dtypes
    when bfloat16 is asked for.
    """
    check_run(kernel, threads)
    check_images("images", images)
    check_layout(layout)
    mean, inverse = band_scale(mean, std, images.shape[3])
    out = output(out, images.shape, layout, check_dtype(dtype, OUT_DTYPES))
    if kernel == "reference":
        nhwc(out, layout)[:] = (images.astype(np.float32) - mean) * inverse
    else:
        core().normalize(images, mean, inverse, layout == "NCHW", *core_output(out), threads)
    return out


def band_scale(mean: np.ndarray, std: np.ndarray, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """mean and 1 / std as float32 (bands,); ValueError when the shapes do not fit or std is not positive."""
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    for name, values in (("mean", mean), ("std", std)):
        if values.shape != (bands,) or not np.isfinite(values).all():
            raise ValueError(f"{name}: expected {bands} finite numbers, one per band, got {values.tolist()}")
    if (std <= 0).any():
        raise ValueError(f"std: expected positive numbers, got {std.tolist()}; leave out or fix a constant band")
    return mean.astype(np.float32), (1 / std).astype(np.float32)


def check_images(name: str, images: np.ndarray) -> str:
    """The type of `images`, one of DTYPES; ValueError unless that, and C-contiguous (n, rows, cols, bands)."""
    check_array(name, images, DTYPES, ("n", "rows", "cols", "bands"))
    if images.shape[3] == 0:
        raise ValueError(f"{name}: expected at least one band, got shape {images.shape}")
    return images.dtype.name


def check_layout(layout: str) -> None:
    """ValueError unless `layout` is in LAYOUTS."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout: no {layout!r}; {suggest(str(layout), LAYOUTS)}")


def check_dtype(dtype: str, allowed: tuple[str, ...]) -> np.dtype:
    """The NumPy dtype of that name, which must be in `allowed`; NumPy has bfloat16 from ml_dtypes."""
    if dtype not in allowed:
        raise ValueError(f"dtype: no {dtype!r} here; {suggest(str(dtype), allowed)}")
    if dtype != "bfloat16":
        return np.dtype(dtype)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError("dtype bfloat16 needs ml_dtypes; run `pip install ml_dtypes`") from error
    return np.dtype(ml_dtypes.bfloat16)


def output(out: np.ndarray | None, shape: tuple[int, int, int, int], layout: str, dtype: np.dtype) -> np.ndarray:
    """`out`, checked, or a new array of `dtype`, for images of `shape` = (n, rows, cols, bands) in `layout`."""
    n, rows, cols, bands = shape
    wanted = (n, rows, cols, bands) if layout == "NHWC" else (n, bands, rows, cols)
    if out is None:
        return np.empty(wanted, dtype)
    return check_array("out", out, dtype.name, wanted, writeable=True)


def core_output(out: np.ndarray) -> tuple[np.ndarray, bool]:
    """`out` as rvkernels._core takes it: (array, whether it holds the bits of bfloat16 numbers)."""
    bfloat16 = out.dtype.kind == "V"  # of the types in OUT_DTYPES and DTYPES, the one that is not NumPy's own
    return (out.view(np.uint16) if bfloat16 else out), bfloat16


def nhwc(images: np.ndarray, layout: str) -> np.ndarray:
    """A view of `images` with the axes (n, rows, cols, bands)."""
    return images if layout == "NHWC" else images.transpose(0, 2, 3, 1)


op = normalize


def cases() -> list[tuple[str, dict]]:
    """Every pixel type and layout, 1 to 13 bands, sizes around the vector widths, and an empty batch."""
    found = []
    shapes = [(2, 17, 33, 3), (1, 64, 64, 4), (3, 1, 1, 1), (1, 90, 70, 2), (1, 9, 40, 13), (0, 8, 8, 2)]
    for i, shape in enumerate(shapes):
        for j, dtype in enumerate(DTYPES):
            generator = np.random.default_rng(i)
            least, most = (0, 1) if dtype == "float32" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            images = (least + generator.random(shape) * (most - least)).astype(dtype)
            mean, std = generator.random(shape[3]) * 100, generator.random(shape[3]) * 50 + 1
            for k, layout in enumerate(LAYOUTS):
                for out_dtype in OUT_DTYPES if (i + j + k) % 2 else OUT_DTYPES[:1]:
                    arguments = {"images": images, "mean": mean, "std": std, "layout": layout, "dtype": out_dtype}
                    found.append((f"{shape} {dtype} {layout} {out_dtype}", arguments))
    return found
