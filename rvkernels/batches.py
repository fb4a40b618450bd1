"""Batches of chips, the same bytes for every framework: order and augmentation depend only on seed, epoch and chip.

One thread prepares the next batches while the framework computes. A stream may start at any batch of an epoch, which
is how a resumed training goes on where it stopped.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Callable

import numpy as np

from rvkernels.chips import Chips
from rvkernels.files import read_json
from rvkernels.mix import mix_chips
from rvkernels.ops.augment import augment
from rvkernels.ops.normalize import nhwc
from rvkernels.ops.philox import permutation

DEPTH = 2  # batches prepared ahead


@dataclass(frozen=True)
class Batch:
    """What a framework trains on or predicts, and what the truth is.

    rows       (n,) int64 rows in images.npy
    images     float32, normalised: (n, rows, cols, bands), or (n, bands, rows, cols) in layout "NCHW"
    shape      rows and columns of an image
    labels     classification (n,) int32; segmentation (n, rows, cols) uint8, 255 = ignore
    others     mixed classification (n,) int32: the classes of the chips that are mixed in
    shares     and (n,) float32: what share of a chip is of its own class; the rest is of the other
    boxes      detection (m, 4) float32, box_class (m,) int32, box_start (n + 1,) int64
    targets    what `prepare` made of it
    """

    rows: np.ndarray
    images: np.ndarray
    shape: tuple[int, int]
    labels: np.ndarray | None = None
    others: np.ndarray | None = None
    shares: np.ndarray | None = None
    boxes: np.ndarray | None = None
    box_class: np.ndarray | None = None
    box_start: np.ndarray | None = None
    targets: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Normalisation:
    """Per-band mean and standard deviation, float32 (bands,), of the training regions' valid pixels."""

    mean: np.ndarray
    std: np.ndarray

    @staticmethod
    def read(path: str | Path, bands: int) -> Normalisation:
        """From statistics.json; see `of`."""
        return Normalisation.of(read_json(path), bands, str(path))

    @staticmethod
    def of(statistics: object, bands: int, where: str = "statistics") -> Normalisation:
        """From what statistics.json holds. A band that never varies gets the standard deviation 1, so it becomes 0.

        Raises ValueError naming `where` when mean or std is missing, not one number per band, or not finite.
        """
        values = []
        for key in ("mean", "std"):
            if not isinstance(statistics, Mapping) or key not in statistics:
                raise ValueError(f"{where}: {key!r} is missing; run `rvk analyze` again")
            value = np.asarray(statistics[key], dtype=np.float64)
            if value.shape != (bands,) or not np.isfinite(value).all():
                raise ValueError(f"{where}: {key} is {statistics[key]}, expected {bands} finite numbers, one per band")
            values.append(value.astype(np.float32))
        mean, std = values
        return Normalisation(mean, np.where(std > 0, std, np.float32(1)))


def count_batches(rows: int, batch: int, *, drop_last: bool) -> int:
    """Batches of `batch` in `rows` chips; ValueError when all of them would be dropped."""
    if drop_last and rows < batch:
        raise ValueError(f"the training split has {rows} chips, fewer than one batch of {batch}; lower `batch`")
    return rows // batch if drop_last else -(-rows // batch)


def load_batch(
    chips: Chips,
    rows: np.ndarray,
    normalisation: Normalisation,
    *,
    seed: int = 0,
    epoch: int = 0,
    settings: dict | None = None,
    layout: str = "NHWC",
    kernel: str = "cpp",
    threads: int = 1,
) -> Batch:
    """The chips `rows` (n,) int64, augmented by `settings` (None: not at all) and normalised."""
    detection, segmentation = chips.task == "detection", chips.task == "segmentation"
    made = augment(
        chips.images,
        rows,
        seed=seed,
        epoch=epoch,
        mean=normalisation.mean,
        std=normalisation.std,
        settings=settings,
        labels=chips.labels if segmentation else None,
        boxes=chips.boxes if detection else None,
        box_start=chips.box_start if detection else None,
        layout=layout,
        kernel=kernel,
        threads=threads,
    )
    if detection:
        truth = {"boxes": made.boxes, "box_class": chips.box_class[made.box_keep], "box_start": made.box_start}
    elif segmentation:
        truth = {"labels": made.labels}
    else:
        truth = {"labels": np.ascontiguousarray(chips.labels[rows])}
    return Batch(rows, made.images, chips.shape, **truth)


def _places(batch: int, index: int, count: int, micro: int) -> np.ndarray:
    """Where in a batch slice `index` of `count` lies, of each of its `micro` equal parts."""
    return np.concatenate([np.array_split(some, count)[index] for some in np.split(np.arange(batch), micro)])


def _mixed(
    made: Batch, at: np.ndarray, settings: Mapping[str, float], seed: int, epoch: int, layout: str, kernel: str
) -> Batch:
    """The first chips of `made`, as many as `at` has numbers: each mixed with chip `at` of it."""
    count = len(at)
    images = made.images[:count]
    others = made.images[at]
    shares = mix_chips(
        nhwc(images, layout),
        nhwc(others, layout),
        made.rows[:count],
        seed=seed,
        epoch=epoch,
        settings=settings,
        kernel=kernel,
    )
    truth = {"labels": made.labels[:count], "others": made.labels[at], "shares": shares}
    return replace(made, rows=made.rows[:count], images=images, **truth)


class Batches:
    """A stream of batches, prepared ahead by one thread; a context manager, so that the thread always ends.

    with Batches(chips, rows, 16, normalisation, seed=1, epoch=0, shuffle=True) as stream:
        for batch in stream:
            stream.waited   # seconds the caller waited for this batch

    rows       (k,) int64 chips to take, each once
    shuffle    order by Philox permutation of (seed, epoch); else the order of `rows`
    drop_last  leave the last partial batch out (training); else it is smaller
    first      number of batches to skip: where a resumed epoch goes on
    mix        settings of rvkernels.mix, complete; None: chips are not mixed
    part       (i, n): of every batch only the i-th of n slices, as equal as may be; what worker i of n computes with
    micro      equal parts of a batch that are sliced one by one: the micro-batches of a step, whose statistics batch
               norm takes over all workers
    prepare    called in the thread with every batch; its result becomes `targets`

    An error in the thread is raised in the caller, at the batch where it happened.
    """

    def __init__(
        self,
        chips: Chips,
        rows: np.ndarray,
        batch: int,
        normalisation: Normalisation,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        first: int = 0,
        part: tuple[int, int] = (0, 1),
        micro: int = 1,
        settings: dict | None = None,
        mix: Mapping[str, float] | None = None,
        layout: str = "NHWC",
        prepare: Callable[[Batch], tuple[np.ndarray, ...]] | None = None,
        kernel: str = "cpp",
        threads: int = 1,
    ) -> None:
        count = count_batches(len(rows), batch, drop_last=drop_last)
        order = rows[permutation(len(rows), seed, epoch, kernel=kernel)] if shuffle else rows
        whole = [order[i * batch : (i + 1) * batch] for i in range(first, count)]
        parts = [(rows, _places(len(rows), *part, micro)) for rows in whole]
        self._length = len(parts)
        self._prepare = prepare

        def load(rows: np.ndarray, places: np.ndarray) -> Batch:
            following = (places + 1) % len(rows)
            # With those that chips of this slice are mixed with, which may be another worker's.
            taken = places if mix is None else np.append(places, np.setdiff1d(following, places))
            made = load_batch(
                chips,
                rows[taken],
                normalisation,
                seed=seed,
                epoch=epoch,
                settings=settings,
                layout=layout,
                kernel=kernel,
                threads=threads,
            )
            if mix is None:
                return made
            at = np.empty(len(rows), np.int64)
            at[taken] = np.arange(len(taken))
            return _mixed(made, at[following], mix, seed, epoch, layout, kernel)

        self._load = load
        self.waited = 0.0
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=DEPTH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(parts,), name="batches", daemon=True)
        self._thread.start()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self._length):
            began = time.perf_counter()
            item = self._queue.get()
            self.waited = time.perf_counter() - began
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """End the thread; batches not taken are dropped."""
        self._stop.set()
        while self._thread.is_alive():
            # The thread may be waiting for a place in the queue.
            with self._queue.mutex:
                self._queue.queue.clear()
                self._queue.not_full.notify()
            self._thread.join(timeout=0.05)

    def _run(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        try:
            for part in parts:
                if self._stop.is_set():
                    return
                batch = self._load(*part)
                if self._prepare is not None:
                    batch = replace(batch, targets=self._prepare(batch))
                self._queue.put(batch)
        except BaseException as error:  # whatever it is, the caller must get it: the thread has nobody to tell
            self._queue.put(error)
