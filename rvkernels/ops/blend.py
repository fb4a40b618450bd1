"""Scores of overlapping chips, blended into one map of a scene."""

from __future__ import annotations

import threading
from collections.abc import Callable
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


MEANS = ("float32", "uint8", "none")


class Blended(NamedTuple):
    """labels (rows, cols) uint8, 255 where no chip was; scores (rows, cols, classes), 0 where no chip was, or None."""

    labels: np.ndarray
    scores: np.ndarray | None


class _Sums:
    """What Blend and BlendStream share: weighted sums of the rows that are held, and the chips that gave them."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        size: int,
        window: str,
        crop: int,
        means: str,
        kernel: str,
        threads: int,
    ) -> None:
        check_run(kernel, threads)
        rows, cols, classes = shape
        if rows < 1 or cols < 1:
            raise ValueError(f"rows, cols: expected at least 1, got {rows}, {cols}")
        if not 1 <= classes <= 255:
            raise ValueError(f"classes: expected 1 to 255, got {classes}")
        if size < 1:
            raise ValueError(f"size: expected at least 1, got {size}")
        if not 0 <= 2 * crop < size:
            raise ValueError(f"crop: expected 0 or more and 2 * crop below size {size}, got {crop}")
        if means not in MEANS:
            raise ValueError(f"means: no {means!r}; {suggest(str(means), MEANS)}")
        self.shape, self.size, self.crop = shape, size, crop
        self.window = window_weights(window, size)
        self.means, self.kernel, self.threads = means, kernel, threads
        self._chips: list[np.ndarray] = []  # (n, 2): row, col
        self._lock = threading.Lock()
        self._finished = False

    def _check(self, scores: np.ndarray, row: np.ndarray, col: np.ndarray) -> None:
        n = len(scores) if isinstance(scores, np.ndarray) and scores.ndim else 0
        check_array("scores", scores, "float32", (n, self.size, self.size, self.shape[2]))
        check_array("row", row, "int64", (n,))
        check_array("col", col, "int64", (n,))
        # Far beyond any scene; keeps sums of positions within 64 bits.
        if n and max(-row.min(), row.max(), -col.min(), col.max()) > 2**40:
            raise ValueError("row, col: a chip lies more than 2^40 pixels away")
        if self._finished:
            raise ValueError("the blend is finished; start a new one to add chips")

    def _add(self, scores: np.ndarray, row: np.ndarray, col: np.ndarray) -> None:
        self._chips.append(np.stack([row, col]))
        arguments = (self.total, self.shape[0], row, col, self.window, self.crop, scores)
        if self.kernel == "reference":
            reference_add(*arguments)
        else:
            core().blend_add(*arguments, self.threads)

    def _finish(self, first: int, out: Blended, *, clear: bool) -> None:
        """Fill `out` with the results of rows from `first` on."""
        row, col = (np.ascontiguousarray(places) for places in np.concatenate([_NO_CHIPS, *self._chips], 1))
        means = out.scores if self.means == "float32" else None
        quantised = out.scores if self.means == "uint8" else None
        arguments = (self.total, self.shape[0], row, col, self.window, self.crop, first)
        arguments += (out.labels, means, quantised, clear)
        if self.kernel == "reference":
            bad = reference_finish(*arguments)
        else:
            bad = core().blend_finish(*arguments, self.threads)
        if bad >= 0:
            row, col = divmod(bad, self.shape[1])
            raise ValueError(f"scores: not finite at row {first + row}, col {col} of the scene; expected probabilities")


_NO_CHIPS = np.empty((2, 0), np.int64)


class Blend(_Sums):
    """A canvas of weighted score sums.

    rows, cols  size of the scene in pixels
    classes     1 to 255
    size        side of the chips in pixels
    window      weights over a chip: "constant", "linear" or "cosine" (see window_weights)
    crop        pixels left out on each side of a chip, except on a side at or beyond the edge of the scene, where no
                other chip could give them; 2 * crop < size
    means       what finish() gives as scores: "float32" mean scores, "uint8" for round(255 mean), half to
                even, of means held to [0, 1], or "none"
    total       (rows, cols, classes) float32 of zeros to work in, for instance a numpy.memmap for a scene larger than
                memory; None for a new array

    Memory: rows * cols * classes * 4 bytes, of which the system gives out only what chips have touched, and in finish()
    the labels and uint8 scores. BlendStream needs less where chips come in order. Chips may come in any portions; they
    are not kept. With the same chips in the same order the result is the same bits for any portions and any number of
    threads. add() may be called from several threads; calls then wait for each other, in no fixed order.
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
        means: str = "float32",
        total: np.ndarray | None = None,
        kernel: str = "cpp",
        threads: int = 0,
    ) -> None:
        shape = (rows, cols, classes)
        super().__init__(shape, size, window, crop, means, kernel, threads)
        self.total = (
            np.zeros(shape, np.float32)
            if total is None
            else check_array("total", total, "float32", shape, writeable=True)
        )

    def add(self, scores: np.ndarray, row: np.ndarray, col: np.ndarray) -> None:
        """Add chips.

        scores    (n, size, size, classes) float32, C-contiguous
        row, col  (n,) int64, the chips' top-left pixels in the scene; what falls outside the scene is dropped
        Raises ValueError for other shapes or dtypes, and when the blend has ended.
        """
        with self._lock:
            self._check(scores, row, col)
            self._add(scores, row, col)

    def finish(self, out: Blended | None = None) -> Blended:
        """Labels and, if asked for, scores, of the chips added so far.

        A label is the class with the greatest mean score, ties by lowest class. float32 means take the place of the
        sums, which ends the blend: `scores` is `total` then. Else, and into arrays of the caller's, finish() may be
        called again, also after more chips.

        out  arrays to fill: labels (rows, cols) uint8, and scores (rows, cols, classes) of the dtype `means`, or None
             for the default; None for new arrays
        Raises ValueError, naming a pixel, when a score was NaN or infinite; for arrays of other shapes or dtypes; and
        when the blend has ended.
        """
        with self._lock:
            if self._finished:
                raise ValueError("the blend is finished already")
            rows, cols, _ = self.shape
            labels, scores = (None, None) if out is None else out
            if labels is None:
                labels = np.empty((rows, cols), np.uint8)
            check_array("out.labels", labels, "uint8", (rows, cols), writeable=True)
            if scores is None and self.means == "float32":
                scores, self._finished = self.total, True
            elif scores is None and self.means == "uint8":
                scores = np.empty(self.shape, np.uint8)
            elif scores is not None:
                check_array("out.scores", scores, self.means, self.shape, writeable=True)
            out = Blended(labels, scores)
            self._finish(0, out, clear=False)
            return out


class BlendStream(_Sums):
    """Blend for chips in order of their rows: results are handed out as they are finished, their memory is used again.

    rows, cols, classes, size, window, crop, means  as Blend has them
    take   take(first, blended) is called for each strip, from the first row of the scene to the last: `first` is its
           first row, `blended` its labels and scores, in arrays that the next strip overwrites: copy what is to stay
    strip  rows of a strip; the last may be lower

    Memory: (size + strip) * cols * classes * 4 bytes, and a strip of results. The results are the same bits as those of
    Blend. Calls from several threads wait for each other.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        classes: int,
        *,
        size: int,
        take: Callable[[int, Blended], None],
        window: str = "cosine",
        crop: int = 0,
        means: str = "float32",
        strip: int = 256,
        kernel: str = "cpp",
        threads: int = 0,
    ) -> None:
        super().__init__((rows, cols, classes), size, window, crop, means, kernel, threads)
        if strip < 1:
            raise ValueError(f"strip: expected at least 1, got {strip}")
        self.take, self.strip = take, min(strip, rows)
        self.total = np.zeros((min(rows, size + strip), cols, classes), np.float32)
        scores = None if means == "none" else np.empty((self.strip, cols, classes), means)
        self._out = Blended(np.empty((self.strip, cols), np.uint8), scores)
        self._first = 0  # row of the scene from which on sums are held
        self._lowest = -(2**63)  # row of the last chip

    def add(self, scores: np.ndarray, row: np.ndarray, col: np.ndarray) -> None:
        """Add chips, as Blend.add; `row` does not fall, neither within a call nor from call to call.

        Raises ValueError as Blend.add does, for a row that falls, and, naming a pixel, when a score of a finished strip
        was NaN or infinite.
        """
        with self._lock:
            self._check(scores, row, col)
            if len(row) and (row[0] < self._lowest or (np.diff(row) < 0).any()):
                raise ValueError("row: falls; a stream takes chips in order of their rows")
            begin = 0
            while begin < len(row):
                held = self._first + len(self.total)  # the rows below the sums are free
                end = begin + int(np.searchsorted(np.minimum(row[begin:] + self.size, self.shape[0]), held, "right"))
                if end > begin:
                    part = slice(begin, end)
                    self._add(scores[part], row[part], col[part])
                    begin = end
                else:
                    self._hand_out()
            if len(row):
                self._lowest = int(row[-1])

    def finish(self) -> None:
        """Hand out what is left. Raises ValueError as add does, and when called twice."""
        with self._lock:
            if self._finished:
                raise ValueError("the blend is finished already")
            self._finished = True
            while self._first < self.shape[0]:
                self._hand_out()

    def _hand_out(self) -> None:
        last = min(self._first + self.strip, self.shape[0])
        out = Blended(*(part if part is None else part[: last - self._first] for part in self._out))
        self._finish(self._first, out, clear=True)
        self.take(self._first, out)
        self._first = last
        self._chips = [chips for chips in self._chips if chips[0, -1] + self.size > last]


def reference_add(
    total: np.ndarray,
    rows: int,
    row: np.ndarray,
    col: np.ndarray,
    window: np.ndarray,
    crop: int,
    scores: np.ndarray,
) -> None:
    """Add each chip's counted part in NumPy; row y of the scene is row y % len(total) of `total`."""
    for chip, r, c in zip(scores, row.tolist(), col.tolist()):
        down, along, w = _counted(rows, total.shape[1], r, c, window, crop)
        held = np.arange(r + down.start, r + down.stop) % len(total)
        total[held, c + along.start : c + along.stop] += w[..., None] * chip[down, along]


def reference_finish(
    total: np.ndarray,
    rows: int,
    row: np.ndarray,
    col: np.ndarray,
    window: np.ndarray,
    crop: int,
    first: int,
    labels: np.ndarray,
    means: np.ndarray | None,
    quantised: np.ndarray | None,
    clear: bool,
) -> int:
    """Labels and scores of len(labels) rows in NumPy; the index of the first pixel with a mean that is not finite."""
    weight = np.zeros((rows, total.shape[1]), np.float32)
    for r, c in zip(row.tolist(), col.tolist()):
        down, along, w = _counted(rows, total.shape[1], r, c, window, crop)
        weight[r + down.start : r + down.stop, c + along.start : c + along.stop] += w
    weight = weight[first : first + len(labels)]
    held = np.arange(first, first + len(labels)) % len(total)
    mean = np.divide(
        total[held],
        weight[..., None],
        out=np.zeros((*labels.shape, total.shape[2]), np.float32),
        where=weight[..., None] > 0,
    )
    labels[:] = np.where(weight > 0, mean.argmax(2), UNSEEN)
    if means is not None:
        means[:] = mean
    if quantised is not None:
        quantised[:] = np.rint(np.clip(np.nan_to_num(mean), 0, 1) * np.float32(255))
    if clear:
        total[held] = 0
    bad = np.flatnonzero((weight > 0) & ~np.isfinite(mean).all(2))
    return int(bad[0]) if bad.size else -1


def _counted(
    rows: int, cols: int, row: int, col: int, window: np.ndarray, crop: int
) -> tuple[slice, slice, np.ndarray]:
    """The rows and columns of a chip that count, and their weights."""

    def counted(at: int, length: int) -> slice:
        begin = -at if at <= 0 else crop
        end = length - at if at + len(window) >= length else len(window) - crop
        return slice(begin, max(begin, end)) if begin < len(window) else slice(-at, -at)

    down, along = counted(row, rows), counted(col, cols)
    return down, along, window[down, None] * window[None, along]


def blend(
    scores: np.ndarray,
    row: np.ndarray,
    col: np.ndarray,
    shape: tuple[int, int],
    *,
    window: str = "cosine",
    crop: int = 0,
    means: str = "float32",
    kernel: str = "cpp",
    threads: int = 0,
) -> Blended:
    """Blend chips that are all at hand: Blend, add and finish in one call.

    scores    (n, size, size, classes) float32; row, col (n,) int64; shape (rows, cols) of the scene
    means     the scores that come back: "float32", "uint8" or "none"
    Returns Blended(labels, scores); raises as Blend does.
    """
    if not isinstance(scores, np.ndarray) or scores.ndim != 4:
        raise ValueError("scores: expected an array of shape (n, size, size, classes)")
    options = {"window": window, "crop": crop, "means": means, "kernel": kernel, "threads": threads}
    canvas = Blend(*shape, scores.shape[3], size=scores.shape[1], **options)
    canvas.add(scores, row, col)
    return canvas.finish()


op = blend


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)
    listed = []
    for name, n, size, classes, shape, window, crop, means in (
        ("odd sizes", 23, 17, 5, (61, 47), "cosine", 0, "float32"),
        ("cropped", 40, 16, 3, (45, 50), "linear", 4, "float32"),
        ("a scene smaller than the chip", 3, 16, 2, (5, 7), "constant", 3, "float32"),
        ("one pixel", 1, 1, 1, (1, 1), "cosine", 0, "float32"),
        ("unseen", 0, 8, 4, (9, 6), "cosine", 0, "float32"),
        ("most classes", 3, 5, 255, (9, 9), "linear", 1, "float32"),
        ("wide", 90, 16, 6, (33, 301), "cosine", 0, "uint8"),
        ("labels alone", 90, 16, 9, (33, 128), "cosine", 1, "none"),
    ):
        scores = rng.random((n, size, size, classes), np.float32)
        place = [rng.integers(-size, side + 1, n) for side in shape]
        options = {"shape": shape, "window": window, "crop": crop, "means": means}
        listed.append((name, {"scores": scores, "row": place[0], "col": place[1], **options}))
    return listed
