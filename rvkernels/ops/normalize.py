"""Standard scores per band: (value - mean) / std as float32, the pixels a network reads."""

from __future__ import annotations

import numpy as np

from rvkernels.ops import check_kernel, core
from rvkernels.registry import suggest

TOLERANCE = 0
LAYOUTS = ("NHWC", "NCHW")
DTYPES = ("uint8", "uint16", "float32")


def normalize(
    images: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    layout: str = "NHWC",
    *,
    out: np.ndarray | None = None,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray:
    """(images - mean) * (1 / std) per band in float32, with mean and 1 / std rounded to float32 first.

    images: (n, rows, cols, bands) uint8, uint16 or float32, C-contiguous; mean, std: (bands,), std > 0.
    Returns float32 (n, rows, cols, bands), or (n, bands, rows, cols) for layout "NCHW": `out` when it is given.
    Raises ValueError naming the argument with the wrong shape, dtype, layout or value.
    """
    check_kernel(kernel)
    check_images("images", images)
    check_layout(layout)
    mean, inverse = band_scale(mean, std, images.shape[3])
    out = output(out, images.shape, layout)
    if kernel == "reference":
        nhwc(out, layout)[:] = (images.astype(np.float32) - mean) * inverse
    else:
        core().normalize(images, mean, inverse, layout == "NCHW", out, threads)
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


def check_images(name: str, images: np.ndarray) -> None:
    """ValueError unless `images` is a C-contiguous (n, rows, cols, bands) array of a type in DTYPES."""
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        raise ValueError(f"{name}: expected an array (n, rows, cols, bands), got {np.shape(images)}")
    if images.dtype.name not in DTYPES or not images.dtype.isnative:
        raise ValueError(f"{name}: expected dtype {', '.join(DTYPES)}, got {images.dtype}")
    if images.shape[3] == 0:
        raise ValueError(f"{name}: expected at least one band, got shape {images.shape}")
    if not images.flags.c_contiguous:
        raise ValueError(f"{name}: must be C-contiguous; pass numpy.ascontiguousarray({name})")


def check_layout(layout: str) -> None:
    """ValueError unless `layout` is in LAYOUTS."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout: no {layout!r}; {suggest(str(layout), LAYOUTS)}")


def output(out: np.ndarray | None, shape: tuple[int, int, int, int], layout: str) -> np.ndarray:
    """`out`, checked, or a new float32 array, for images of `shape` = (n, rows, cols, bands) in `layout`."""
    n, rows, cols, bands = shape
    wanted = (n, rows, cols, bands) if layout == "NHWC" else (n, bands, rows, cols)
    if out is None:
        return np.empty(wanted, np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != wanted:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out: expected float32 {wanted}, got {found}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out: must be C-contiguous and writeable")
    return out


def nhwc(images: np.ndarray, layout: str) -> np.ndarray:
    """A view of `images` with the axes (n, rows, cols, bands)."""
    return images if layout == "NHWC" else images.transpose(0, 2, 3, 1)


op = normalize


def cases() -> list[tuple[str, dict]]:
    """Every pixel type and layout, 1 to 13 bands, sizes around the vector width, and an empty batch."""
    found = []
    for i, shape in enumerate([(2, 17, 33, 3), (1, 64, 64, 4), (3, 1, 1, 1), (1, 9, 40, 13), (0, 8, 8, 2)]):
        for dtype in DTYPES:
            generator = np.random.default_rng(i)
            images = (generator.random(shape) * (1 if dtype == "float32" else np.iinfo(dtype).max)).astype(dtype)
            mean, std = generator.random(shape[3]) * 100, generator.random(shape[3]) * 50 + 1
            for layout in LAYOUTS:
                arguments = {"images": images, "mean": mean, "std": std, "layout": layout}
                found.append((f"{shape} {dtype} {layout}", arguments))
    return found
