"""Scores of overlapping chips, blended into one map of a scene."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run
from rvkernels.registry import suggest

TOLERANCE = 0
UNSEEN = 255


def _constant(position: np.ndarray) -> np.ndarray:
    return np.ones_like(position)


def _linear(position: np.ndarray) -> np.ndarray:
    return 1 - np.abs(2 * position - 1)


def _cosine(position: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * position) ** 2


WINDOWS = {"constant": _constant, "linear": _linear, "cosine": _cosine}


def window_weights(window: str, size: int) -> np.ndarray:
    """(size,) float32 weights along one side of a chip, taken at pixel centres (i + 0.5) / size, all above zero.

    constant  1
    linear    1 - |2 p - 1|, a triangle
    cosine    sin(pi p)^2, the Hann window
    A pixel's weight is the product of the weights of its row and its column.
    """
    if window not in WINDOWS:
        raise ValueError(f"window: no {window!r}; {suggest(str(window), WINDOWS)}")
    return WINDOWS[window]((np.arange(size) + 0.5) / size).astype(np.float32)


class Blended(NamedTuple):
    """labels (rows, cols) uint8, 255 where no chip was; scores (rows, cols, classes) float32, 0 where no chip was."""

    labels: np.ndarray
    scores: np.ndarray


class Blend:
    """A canvas of weighted score sums.

    rows, cols  size of the scene in pixels
    classes     1 to 255
    size        side of the chips in pixels
    window      weights over a chip: "constant", "linear" or "cosine" (see window_weights)
    crop        pixels left out on each side of a chip, except on a side at or beyond the edge of the scene, where no
                other chip could give them; 2 * crop < size
    total       (rows, cols, classes) float32 of zeros to work in, for instance a numpy.memmap for a scene larger than
                memory; None for a new array

    Memory: rows * cols * (classes + 1) * 4 bytes, of which the system gives out only what chips have touched, and
    rows * cols bytes more in finish(). Chips may come in any portions; they are not kept. With the same chips in the
    same order the result is the same bits for any portions and any number of threads. add() may be called from several
    threads; calls then wait for each other, in no fixed order.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        classes: int,
        *,
        size: int,
        window: str = "cosine",
        crop: int = 0,
        total: np.ndarray | None = None,
        kernel: str = "cpp",
        threads: int = 0,
    ) -> None:
        check_run(kernel, threads)
        if rows < 1 or cols < 1:
            raise ValueError(f"rows, cols: expected at least 1, got {rows}, {cols}")
        if not 1 <= classes <= 255:
            raise ValueError(f"classes: expected 1 to 255, got {classes}")
        if size < 1:
            raise ValueError(f"size: expected at least 1, got {size}")
        if not 0 <= 2 * crop < size:
            raise ValueError(f"crop: expected 0 or more and 2 * crop below size {size}, got {crop}")
        self.window = window_weights(window, size)
        self.size, self.crop, self.kernel, self.threads = size, crop, kernel, threads
        shape = (rows, cols, classes)
        self.total = (
            np.zeros(shape, np.float32)
            if total is None
            else check_array("total", total, "float32", shape, writeable=True)
        )
        self.weight = np.zeros((rows, cols), np.float32)
        self._lock = threading.Lock()
        self._finished = False

    def add(self, scores: np.ndarray, row: np.ndarray, col: np.ndarray) -> None:
        """Add chips.

        scores    (n, size, size, classes) float32, C-contiguous
        row, col  (n,) int64, the chips' top-left pixels in the scene; what falls outside the scene is dropped
        Raises ValueError for other shapes or dtypes, and after finish().
        """
        n = len(scores) if isinstance(scores, np.ndarray) and scores.ndim else 0
        check_array("scores", scores, "float32", (n, self.size, self.size, self.total.shape[2]))
        check_array("row", row, "int64", (n,))
        check_array("col", col, "int64", (n,))
        limit = 2**40  # far beyond any scene; keeps sums of positions within 64 bits
        if n and max(np.abs(row).max(), np.abs(col).max()) > limit:
            raise ValueError("row, col: a chip lies more than 2^40 pixels away")
        with self._lock:
            if self._finished:
                raise ValueError("the blend is finished; start a new one to add chips")
            if self.kernel == "reference":
                reference_add(self.total, self.weight, scores, row, col, self.window, self.crop)
            else:
                core().blend_add(self.total, self.weight, scores, row, col, self.window, self.crop, self.threads)

    def finish(self) -> Blended:
        """Means and labels; the means take the place of the sums, so this ends the blend.

        A label is the class with the greatest mean score, ties by lowest class.
        Raises ValueError, naming a pixel, when a score was NaN or infinite, and when called twice.
        """
        with self._lock:
            if self._finished:
                raise ValueError("the blend is finished already")
            self._finished = True
            labels = np.empty(self.weight.shape, np.uint8)
            if self.kernel == "reference":
                bad = reference_finish(self.total, self.weight, labels)
            else:
                bad = core().blend_finish(self.total, self.weight, labels, self.threads)
        if bad >= 0:
            row, col = divmod(bad, labels.shape[1])
            raise ValueError(f"scores: not finite at row {row}, col {col} of the scene; expected probabilities")
        return Blended(labels, self.total)


def reference_add(
    total: np.ndarray,
    weight: np.ndarray,
    scores: np.ndarray,
    row: np.ndarray,
    col: np.ndarray,
    window: np.ndarray,
    crop: int,
) -> None:
    """Add each chip's counted part to the canvas in NumPy."""

    def counted(at: int, length: int) -> slice:
        begin = -at if at <= 0 else crop
        end = length - at if at + len(window) >= length else len(window) - crop
        return slice(begin, max(begin, end))

    for chip, r, c in zip(scores, row.tolist(), col.tolist()):
        down, along = counted(r, total.shape[0]), counted(c, total.shape[1])
        if down.start >= len(window) or along.start >= len(window):
            continue
        w = window[down, None] * window[None, along]
        place = np.s_[r + down.start : r + down.stop, c + along.start : c + along.stop]
        total[place] += w[..., None] * chip[down, along]
        weight[place] += w


def reference_finish(total: np.ndarray, weight: np.ndarray, labels: np.ndarray) -> int:
    """Means in place and labels in NumPy; the index of the first pixel with a mean that is not finite, or -1."""
    seen = weight > 0
    np.divide(total, weight[..., None], out=total, where=seen[..., None])
    labels[:] = np.where(seen, total.argmax(2), UNSEEN)
    bad = np.flatnonzero(seen & ~np.isfinite(total).all(2))
    return int(bad[0]) if bad.size else -1


def blend(
    scores: np.ndarray,
    row: np.ndarray,
    col: np.ndarray,
    shape: tuple[int, int],
    *,
    window: str = "cosine",
    crop: int = 0,
    kernel: str = "cpp",
    threads: int = 0,
) -> Blended:
    """Blend chips that are all at hand: Blend, add and finish in one call.

    scores    (n, size, size, classes) float32; row, col (n,) int64; shape (rows, cols) of the scene
    Returns Blended(labels, scores); raises as Blend does.
    """
    if not isinstance(scores, np.ndarray) or scores.ndim != 4:
        raise ValueError("scores: expected an array of shape (n, size, size, classes)")
    canvas = Blend(
        *shape, scores.shape[3], size=scores.shape[1], window=window, crop=crop, kernel=kernel, threads=threads
    )
    canvas.add(scores, row, col)
    return canvas.finish()


op = blend


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)
    listed = []
    for name, n, size, classes, shape, window, crop in (
        ("odd sizes", 23, 17, 5, (61, 47), "cosine", 0),
        ("cropped", 40, 16, 3, (45, 50), "linear", 4),
        ("a scene smaller than the chip", 3, 16, 2, (5, 7), "constant", 3),
        ("one pixel", 1, 1, 1, (1, 1), "cosine", 0),
        ("unseen", 0, 8, 4, (9, 6), "cosine", 0),
        ("most classes", 3, 5, 255, (9, 9), "linear", 1),
    ):
        scores = rng.random((n, size, size, classes), np.float32)
        place = [rng.integers(-size, side + 1, n) for side in shape]
        listed.append(
            (name, {"scores": scores, "row": place[0], "col": place[1], "shape": shape, "window": window, "crop": crop})
        )
    return listed
