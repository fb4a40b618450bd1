"""Put scored windows together again: cells, mosaics of blended scores, boxes found once; and write them.

In two steps, both in order of scene, region, row and col. A task's finder takes scored windows and hands over what
they say of their region: cells, finished strips, boxes. A task's writer takes that and writes a scene as soon as all of
it is there. A job that predicts everything joins the two; where jobs predict parts, what their finders hand over is
kept (rvkernels/predicted_parts.py), and the last job gives it to the writer.
"""

from __future__ import annotations

import bisect
import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvkernels.ops.blend import Blended, BlendStream
from rvkernels.ops.nms import nms
from rvkernels.ops.windows import starts
from rvkernels.parts import Part
from rvkernels.predictions import (
    UNSEEN,
    Predictions,
    score_parts,
    write_boxes,
    write_cells,
    write_labels,
    write_table,
)
from rvkernels.scene import Region, Scene

# Rows of a region that are handed out at a time.
STRIP = 256


class Window(NamedTuple):
    """One window: its region (index into a list of regions) and its first row and column in the scene."""

    region: int
    row: int
    col: int


def first_pixels(length: int, size: int, stride: int, *, flush: bool) -> list[int]:
    """As rvkernels.ops.windows.starts, but one window at 0, partly outside, when the length is less than a window."""
    return starts(max(length, size), size, stride, flush=flush).tolist()


class Windows:
    """Windows over all regions in order of region, row, col: windows[a:b] is a list; none is held.

    Classification: cells that lie wholly inside (one, partly outside, when the region is smaller than a cell). Else
    together they cover every pixel.

    rows, cols  per region the first rows and first columns of its windows, counted from the region's corner
    start       (regions + 1,): region i has windows start[i] to start[i + 1]
    """

    def __init__(self, regions: Sequence[Region], task: str, size: int, stride: int) -> None:
        flush = task != "classification"
        self.regions, self.size = regions, size
        self.rows = [first_pixels(region.rows, size, stride, flush=flush) for region in regions]
        self.cols = [first_pixels(region.cols, size, stride, flush=flush) for region in regions]
        counts = [len(down) * len(across) for down, across in zip(self.rows, self.cols)]
        self.start = np.cumsum([0, *counts]).tolist()

    def __len__(self) -> int:
        return self.start[-1]

    def __getitem__(self, some: slice) -> list[Window]:
        begin, end, _ = some.indices(len(self))
        found = []
        while begin < end:
            index = self.region_of(begin)
            region, across, first = self.regions[index], self.cols[index], self.start[index]
            last = min(end, self.start[index + 1])
            for number in range(begin - first, last - first):
                down, along = divmod(number, len(across))
                found.append(Window(index, region.row + self.rows[index][down], region.col + across[along]))
            begin = last
        return found

    def region_of(self, window: int) -> int:
        """The region of window number `window`."""
        return bisect.bisect_right(self.start, window) - 1


class Block(NamedTuple):
    """Rows `top` to `bottom`, not included, of a region, counted from its first."""

    region: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Share:
    """What one job predicts: windows by their numbers, and what it hands over.

    scored  the windows that are scored: whole batches of those that a single job scores, since the scores of a window
            depend, in their last bits, on the others of its batch
    used    those of them that count
    blocks  segmentation: what is handed over, in order of regions; all windows that reach into it are used, also those
            that reach beyond it, which another job scores again
    """

    scored: range
    used: range
    blocks: tuple[Block, ...]


def share_of(windows: Windows, task: str, batch: int, part: Part) -> Share:
    """The share of a part. Segmentation is cut between two rows of windows, the others between two batches."""
    total = len(windows)
    if task != "segmentation":
        begin, end = part.bounds(-(-total // batch))
        some = range(begin * batch, min(total, end * batch))
        return Share(some, some, ())
    begin, end = (_row_start(windows, window) for window in part.bounds(total))
    if begin == end:
        return Share(range(0), range(0), ())
    blocks = []
    for index in range(windows.region_of(begin), windows.region_of(end - 1) + 1):
        down, across, first = windows.rows[index], len(windows.cols[index]), windows.start[index]
        upper, lower = (max(begin, first) - first) // across, (min(end, windows.start[index + 1]) - first) // across
        blocks.append(Block(index, down[upper], down[lower] if lower < len(down) else windows.regions[index].rows))
    top = _reaching(windows, blocks[0])[0]
    used = range(windows.start[blocks[0].region] + top * len(windows.cols[blocks[0].region]), end)
    return Share(range(used.start // batch * batch, min(total, -(-end // batch) * batch)), used, tuple(blocks))


def _row_start(windows: Windows, window: int) -> int:
    """The first window of the row of windows that window number `window` is in; the number of windows is itself."""
    if window == len(windows):
        return window
    region = windows.region_of(window)
    return window - (window - windows.start[region]) % len(windows.cols[region])


def _reaching(windows: Windows, block: Block) -> tuple[int, int]:
    """First and last, not included, of the rows of windows that reach into a block."""
    down = windows.rows[block.region]
    return bisect.bisect_right(down, block.top - windows.size), bisect.bisect_left(down, block.bottom)


# Takes what a finder hands over: the region, and then
# classification  cells (n, 4) int64: row, col, rows, cols; scores (n, classes) float32
# segmentation    a strip's first row in the region; labels (rows, cols) uint8; scores (rows, cols, classes) or None, in
#                 arrays that are used again
# detection       boxes (n, 4) float32 in pixels of the scene, scores (n,) float32, classes (n,) int32
Put = Callable[..., None]


def _check_probabilities(scores: np.ndarray, scene: str) -> None:
    """Scores (..., classes) of a softmax are finite and sum to 1; anything else would be evaluated as if it were."""
    sums = scores.reshape(-1, scores.shape[-1]) @ np.ones(scores.shape[-1], np.float32)  # NaN and inf stay NaN and inf
    if not (np.abs(sums - 1) <= 1e-3).all():
        raise ValueError(f"scene {scene}: the scores are no probabilities; did the training diverge?")


# --- from windows to what they say -----------------------------------------------------------------------------------


class _Finder:
    """Takes the windows of a share in order."""

    def __init__(
        self,
        regions: Sequence[Region],
        windows: Windows,
        share: Share,
        classes: int,
        settings: Mapping[str, Any],
        put: Put,
        threads: int,
    ) -> None:
        self.regions, self.windows, self.settings, self.classes = regions, windows, settings, classes
        self.blocks = {block.region: block for block in share.blocks}
        self.put, self.threads = put, threads
        self.region: int | None = None

    def add(self, region: int, windows: Sequence[Window], results: Any, valid: np.ndarray | None) -> None:
        if region != self.region:
            self.close()
            self.region = region
            self.enter(region)
        self.take(region, windows, results, valid)

    def close(self) -> None:
        """Hand over what is left."""
        if self.region is not None:
            self.leave()

    def enter(self, region: int) -> None:
        """Before the first window of a region."""

    def leave(self) -> None:
        """After the last window of a region."""


class _FindCells(_Finder):
    """Classification: one class per cell."""

    def take(self, region: int, windows: Sequence[Window], results: np.ndarray, valid: None) -> None:
        place, size = self.regions[region], self.settings["size"]
        _check_probabilities(results, place.scene)
        # A cell that reaches beyond a region smaller than itself stands for what of it lies inside.
        cells = [
            (w.row, w.col, min(size, place.row + place.rows - w.row), min(size, place.col + place.cols - w.col))
            for w in windows
        ]
        self.put(region, np.array(cells, np.int64), np.asarray(results, np.float32))


class _FindStrips(_Finder):
    """Segmentation: overlapping windows blended, and handed over strip by strip.

    In memory are the rows that windows still reach.
    """

    def enter(self, region: int) -> None:
        place, self.block = self.regions[region], self.blocks[region]
        down, size = self.windows.rows[region], self.settings["size"]
        first, last = _reaching(self.windows, self.block)
        # The windows at its edges are not cropped there; but what is cropped of them elsewhere lies outside the block.
        self.origin = down[first]
        end = min(down[last - 1] + size, place.rows)
        self.missing: list[tuple[int, int, np.ndarray]] = []  # first row, col and mask of windows that lack data
        options = {k: self.settings[k] for k in ("size", "window", "crop")}
        self.stream = BlendStream(
            end - self.origin,
            place.cols,
            self.classes,
            **options,
            means=self.settings["scores"],
            strip=STRIP,
            take=self._hand_over,
            threads=self.threads,
        )

    def take(self, region: int, windows: Sequence[Window], results: np.ndarray, valid: np.ndarray) -> None:
        place, size = self.regions[region], self.settings["size"]
        scores = np.ascontiguousarray(results[:, :size, :size], np.float32)
        _check_probabilities(scores, place.scene)
        rows = np.array([w.row - place.row for w in windows], np.int64)
        cols = np.array([w.col - place.col for w in windows], np.int64)
        for row, col, mask in zip(rows.tolist(), cols.tolist(), valid[:, :size, :size]):
            if not mask.all():
                self.missing.append((row, col, mask == 0))
        self.stream.add(scores, rows - self.origin, cols)

    def _hand_over(self, first: int, blended: Blended) -> None:
        """What of a finished strip, whose first row on the canvas is `first`, lies in the block."""
        strip = self.origin + first
        first = max(strip, self.block.top)
        last = min(strip + len(blended.labels), self.block.bottom)
        if first >= last:
            return
        inside = slice(first - strip, last - strip)
        labels, scores = blended.labels[inside], None if blended.scores is None else blended.scores[inside]
        place = self.regions[self.block.region]
        if (labels == UNSEEN).any():
            raise ValueError(f"scene {place.scene}: rows {first} to {last} of a region are not covered by windows")
        for row, col, mask in self.missing:
            begin, end = max(first, row), min(last, row + len(mask))
            if begin < end:
                part = (slice(begin - first, end - first), slice(col, col + mask.shape[1]))
                lacks = mask[begin - row : end - row, : place.cols - col]
                labels[part][lacks] = UNSEEN
                if scores is not None:
                    scores[part][lacks] = 0
        self.missing = [(row, col, mask) for row, col, mask in self.missing if row + len(mask) > last]
        self.put(self.block.region, first, labels, scores)

    def leave(self) -> None:
        self.stream.finish()


class _FindBoxes(_Finder):
    """Detection: every place is decided by the windows that see most around it."""

    def enter(self, region: int) -> None:
        place, size = self.regions[region], self.settings["size"]
        self.cores = []
        for origin, first in ((place.row, self.windows.rows[region]), (place.col, self.windows.cols[region])):
            self.cores.append({origin + start: limits for start, limits in core(first, size).items()})

    def take(self, region: int, windows: Sequence[Window], results: Sequence, valid: None) -> None:
        place = self.regions[region]
        limits = np.array([place.row, place.col, place.row + place.rows, place.col + place.cols], np.float32)
        for window, (boxes, scores, box_class) in zip(windows, results):
            if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
                raise ValueError(f"scene {place.scene}: a box or score is not finite; did the training diverge?")
            boxes = boxes + np.array([window.row, window.col, window.row, window.col], np.float32)
            # What a mirrored edge adds to a box is cut off before its centre decides.
            boxes = np.concatenate([np.maximum(boxes[:, :2], limits[:2]), np.minimum(boxes[:, 2:], limits[2:])], 1)
            centre = (boxes[:, :2] + boxes[:, 2:]) / 2
            near = (boxes[:, 2:] > boxes[:, :2]).all(1) & (scores >= self.settings["score_min"])
            for axis, start in enumerate((window.row, window.col)):
                low, high = self.cores[axis][start]
                near &= (centre[:, axis] - limits[axis] >= low) & (centre[:, axis] - limits[axis] < high)
            self.put(
                region,
                boxes[near].astype(np.float32, copy=False),
                scores[near].astype(np.float32, copy=False),
                box_class[near].astype(np.int32, copy=False),
            )


FINDERS: dict[str, type[_Finder]] = {
    "classification": _FindCells,
    "segmentation": _FindStrips,
    "detection": _FindBoxes,
}


# --- from what was found to files ------------------------------------------------------------------------------------


class _Writer:
    """Takes what finders hand over in order of scene, region, row, col; writes a scene when all of it is there."""

    task: str

    def __init__(
        self,
        scenes: Mapping[str, Scene],
        regions: Sequence[Region],
        classes: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
        folder: Path,
        threads: int,
    ) -> None:
        self.scenes, self.regions, self.settings = scenes, regions, settings
        self.folder, self.threads = folder, threads
        self.names = [c["name"] for c in classes]
        self.colors = [tuple(bytes.fromhex(c["color"][1:])) for c in classes]
        self.ids = {name: i for i, name in enumerate(scenes)}
        self.region: int | None = None

    def put(self, region: int, *found: Any) -> None:
        if region != self.region:
            self._leave()
            self.region = region
            self.enter(region)
        self.take(region, *found)

    def _leave(self) -> None:
        if self.region is None:
            return
        self.leave(self.region)
        scene = self.regions[self.region].scene
        if self.region + 1 == len(self.regions) or self.regions[self.region + 1].scene != scene:
            self.finish(self.scenes[scene])

    def close(self) -> None:
        """Write what is left, and predictions.npz."""
        self._leave()
        regions = np.array([(self.ids[r.scene], r.row, r.col, r.rows, r.cols) for r in self.regions], np.int64)
        made = Predictions(
            self.task,
            self.regions[0].split,
            self.names,
            list(self.scenes),
            dict(self.settings),
            regions,
            self.arrays(),
        )
        made.write(self.folder)

    def enter(self, region: int) -> None:
        """Before the first of a region."""

    def leave(self, region: int) -> None:
        """After the last of a region."""

    def finish(self, scene: Scene) -> None:
        """After the last region of a scene."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays of predictions.npz."""
        return {}


class _WriteCells(_Writer):
    task = "classification"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.cells: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []
        self.written = 0
        self.single: list[tuple[str, np.ndarray]] = []

    def take(self, region: int, cells: np.ndarray, scores: np.ndarray) -> None:
        scene = np.full((len(cells), 1), self.ids[self.regions[region].scene], np.int64)
        self.cells.append(np.concatenate([scene, cells], axis=1))
        self.scores.append(scores)

    def finish(self, scene: Scene) -> None:
        cells = np.concatenate(self.cells[self.written :])[:, 1:]
        scores = np.concatenate(self.scores[self.written :])
        self.written = len(self.cells)
        if len(cells) > 1:
            write_cells(self.folder, scene, cells, scores, self.names)
        else:
            self.single.append((scene.id, scores[0]))

    def arrays(self) -> dict[str, np.ndarray]:
        if self.single:
            scenes, scores = zip(*self.single)
            write_table(self.folder, scenes, np.stack(scores), self.names)
        return {"cells": np.concatenate(self.cells), "scores": np.concatenate(self.scores)}


class _WriteMosaic(_Writer):
    """Labels, which polygons need whole, are in a file without a name."""

    task = "segmentation"

    def enter(self, region: int) -> None:
        scene = self.scenes[self.regions[region].scene]
        self.write_scores: Callable[[int, int, np.ndarray], None] | None
        if region == 0 or self.regions[region - 1].scene != scene.id:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                self.labels = np.memmap(file, np.uint8, "w+", shape=(scene.rows, scene.cols))
            self.labels[:] = UNSEEN
            self.files = contextlib.ExitStack()
            self.write_scores = None
            if self.settings["scores"] != "none":
                scores = score_parts(self.folder, scene, self.settings["scores"], self.names)
                self.write_scores = self.files.enter_context(scores)

    def take(self, region: int, first: int, labels: np.ndarray, scores: np.ndarray | None) -> None:
        place = self.regions[region]
        row = place.row + first
        self.labels[row : row + len(labels), place.col : place.col + place.cols] = labels
        if self.write_scores is not None:
            self.write_scores(row, place.col, scores)

    def finish(self, scene: Scene) -> None:
        with self.files:
            polygons = self.settings["polygons"]
            write_labels(self.folder, scene, self.labels, self.names, self.colors, polygons=polygons)
            del self.labels


class _WriteBoxes(_Writer):
    """Non-maximum suppression over each region."""

    task = "detection"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # of the region at hand
        self.scene_boxes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.kept: dict[str, list[np.ndarray]] = {"boxes": [], "box_scene": [], "box_class": [], "scores": []}

    def enter(self, region: int) -> None:
        self.found = []

    def take(self, region: int, boxes: np.ndarray, scores: np.ndarray, box_class: np.ndarray) -> None:
        self.found.append((boxes, scores, box_class))

    def leave(self, region: int) -> None:
        boxes, scores, box_class = (np.ascontiguousarray(np.concatenate(parts)) for parts in zip(*self.found))
        keep = nms(boxes, scores, box_class, iou=self.settings["nms_iou"], threads=self.threads)
        self.scene_boxes.append((boxes[keep], scores[keep], box_class[keep]))

    def finish(self, scene: Scene) -> None:
        boxes, scores, box_class = (np.concatenate(parts) for parts in zip(*self.scene_boxes))
        self.scene_boxes = []
        order = np.argsort(-scores, kind="stable")
        boxes, scores, box_class = boxes[order], scores[order], box_class[order]
        self.kept["boxes"].append(boxes)
        self.kept["scores"].append(scores)
        self.kept["box_class"].append(box_class)
        self.kept["box_scene"].append(np.full(len(boxes), self.ids[scene.id], np.int64))
        shown = scores >= self.settings["score_show"]
        write_boxes(self.folder, scene, boxes[shown], box_class[shown], scores[shown], self.names)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate(parts) for name, parts in self.kept.items()}


WRITERS: dict[str, type[_Writer]] = {writer.task: writer for writer in (_WriteCells, _WriteMosaic, _WriteBoxes)}


def core(first: Sequence[int], size: int) -> dict[int, tuple[float, float]]:
    """Per window start the interval [low, high) whose centres the window decides.

    Two windows that overlap part at the middle of the overlap, each with a quarter of it more: a centre that one sees
    just beyond the middle and the other just before it is not lost, and suppression removes what both find. The first
    and last window have no limit on the outer side.
    """
    limits = {}
    for k, start in enumerate(first):
        low, high = float("-inf"), float("inf")
        if k > 0:
            overlap = first[k - 1] + size - start
            low = start + overlap / 2 - max(overlap, 0) / 4
        if k + 1 < len(first):
            overlap = start + size - first[k + 1]
            high = start + size - overlap / 2 + max(overlap, 0) / 4
        limits[start] = (low, high)
    return limits
