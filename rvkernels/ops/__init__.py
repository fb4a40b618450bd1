"""Kernels on arrays. One file per operation: the public function, its NumPy reference and `cases()` for both.

Every function takes `kernel="cpp"` or `"reference"`, never silently replaced, and `threads` (0 = all cores).
"""

from __future__ import annotations

from types import ModuleType

from rvkernels.registry import suggest

KERNELS = ("reference", "cpp")


def check_kernel(kernel: str) -> str:
    """`kernel` itself when it is in KERNELS, else ValueError."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel: no {kernel!r}; {suggest(str(kernel), KERNELS)}")
    return kernel


def core() -> ModuleType:
    """The compiled module rvkernels._core; ImportError says how to build it."""
    try:
        from rvkernels import _core
    except ImportError as error:
        raise ImportError(f"rvkernels._core is not built or does not load ({error}); run `make setup`") from error
    return _core
