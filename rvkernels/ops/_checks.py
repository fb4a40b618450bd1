"""Checks every operation makes on its arguments before work starts."""

from __future__ import annotations

import numpy as np

from rvkernels.ops import check_kernel


def check_run(kernel: str, threads: int) -> None:
    """Raise ValueError unless `kernel` is one there is and `threads` is 0 (all cores) or a positive number."""
    check_kernel(kernel)
    if threads < 0:
        raise ValueError(f"threads: expected 0 (all cores) or a positive number, got {threads}")


def check_array(
    name: str,
    value: object,
    dtype: str | tuple[str, ...],
    shape: tuple[int | str | None, ...] | None,
    *,
    writeable: bool = False,
) -> np.ndarray:
    """`value` itself when it is a C-contiguous array of that dtype and shape.

    shape  one entry per axis: a number that must be met, or a letter or None for any length; None for any shape
    Raises ValueError naming the argument, what was expected and what came. Nothing is copied or converted.
    """
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name}: expected a NumPy array, got {type(value).__name__}")
    allowed = (dtype,) if isinstance(dtype, str) else dtype
    if value.dtype.name not in allowed:
        raise ValueError(f"{name}: expected dtype {' or '.join(allowed)}, got {value.dtype}; convert it with astype")
    if shape is not None and (
        value.ndim != len(shape) or any(isinstance(want, int) and want != got for want, got in zip(shape, value.shape))
    ):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {value.shape}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{name}: must be C-contiguous; pass numpy.ascontiguousarray({name})")
    if writeable and not value.flags.writeable:
        raise ValueError(f"{name}: must be writeable")
    return value
