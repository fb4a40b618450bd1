"""Confusion matrix of two label arrays."""

from __future__ import annotations

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run

TOLERANCE = 0
DTYPES = ("uint8", "uint16", "int32", "int64")
MOST_CLASSES = 4096


def confusion(
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    ignore: int | None = 255,
    *,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray:
    """How often each class was taken for which.

    truth      class ids, any shape, uint8, uint16, int32 or int64, C-contiguous
    predicted  the same shape and dtype
    classes    number of classes, 1 to 4096 (255 for uint8); ids are 0 to classes - 1
    ignore     positions whose truth has this value are left out; so are those whose prediction has it when it is no
               class (255 in a prediction means unseen). None leaves nothing out.
    Returns (classes, classes) int64, rows = truth, columns = predicted.
    Raises ValueError for other shapes or dtypes, and for a value that is neither a class nor `ignore`.
    """
    check_run(kernel, threads)
    check_array("truth", truth, DTYPES, None)
    check_array("predicted", predicted, truth.dtype.name, truth.shape)
    most = 255 if truth.dtype == np.uint8 else MOST_CLASSES
    if not 1 <= classes <= most:
        raise ValueError(f"classes: expected 1 to {most} for {truth.dtype}, got {classes}")
    if kernel == "reference":
        counts = reference_confusion(truth, predicted, classes, ignore)
    else:
        counts = np.zeros((classes, classes), np.int64)
        run = getattr(core(), f"confusion_{truth.dtype.name}")
        if not run(
            truth.reshape(-1),
            predicted.reshape(-1),
            core().IGNORE_NOTHING if ignore is None else int(ignore),
            counts,
            threads,
        ):
            counts = None
    if counts is None:
        for name, labels in (("truth", truth), ("predicted", predicted)):
            odd = labels[((labels < 0) | (labels >= classes)) & (True if ignore is None else labels != ignore)]
            if odd.size:
                raise ValueError(
                    f"{name}: label {odd[0]} is neither a class (0 to {classes - 1}) nor the ignored value ({ignore})"
                )
    return counts


def reference_confusion(
    truth: np.ndarray, predicted: np.ndarray, classes: int, ignore: int | None
) -> np.ndarray | None:
    """The matrix in NumPy; None when a label is neither a class nor `ignore`."""
    counts = np.zeros((classes, classes), np.int64)
    for t, p in zip(truth.reshape(-1).tolist(), predicted.reshape(-1).tolist()):
        for label in (t, p):
            if label != ignore and not 0 <= label < classes:
                return None
        if t != ignore and 0 <= p < classes:
            counts[t, p] += 1
    return counts


op = confusion


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)

    def labels(shape: tuple[int, ...], classes: int, dtype: str, ignore_share: float) -> np.ndarray:
        values = rng.integers(0, classes, shape)
        values[rng.random(shape) < ignore_share] = 255
        return values.astype(dtype)

    empty = np.zeros((0, 3), np.uint8)
    return [
        (name, {"truth": labels(shape, k, d, 0.1), "predicted": labels(shape, k, d, 0.02), "classes": k})
        for name, shape, k, d in (
            ("chips", (3, 65, 63), 6, "uint8"),
            ("one pixel", (1,), 2, "uint8"),
            ("most classes", (9001,), 255, "uint8"),
            ("scene classes", (1001,), 10, "int32"),
            ("most classes of a half byte", (9001,), 14, "uint16"),
            ("one class more", (9001,), 15, "uint16"),
            ("many classes", (4099,), 300, "int64"),
        )
    ] + [
        ("empty", {"truth": empty, "predicted": empty, "classes": 3}),
        (
            "ignore is a class",
            {
                "truth": labels((97,), 4, "int32", 0),
                "predicted": labels((97,), 4, "int32", 0),
                "classes": 4,
                "ignore": 0,
            },
        ),
        (
            "nothing ignored",
            {
                "truth": labels((97,), 4, "uint8", 0),
                "predicted": labels((97,), 4, "uint8", 0),
                "classes": 4,
                "ignore": None,
            },
        ),
    ]
