"""Put scored windows together again: cells, mosaics of blended scores, boxes found once; and write them.

A task's sink takes windows in order of scene, region, row and col, and writes a scene as soon as all of it is there.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvkernels.ops.blend import Blended, BlendStream
from rvkernels.ops.nms import nms
from rvkernels.ops.windows import starts
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


def windows_of(regions: Sequence[Region], task: str, size: int, stride: int) -> list[Window]:
    """Windows over all regions in order of region, row, col.

    Classification: cells that lie wholly inside (one, partly outside, when the region is smaller than a cell). Else
    together they cover every pixel.
    """
    flush = task != "classification"
    return [
        Window(index, region.row + row, region.col + col)
        for index, region in enumerate(regions)
        for row in first_pixels(region.rows, size, stride, flush=flush)
        for col in first_pixels(region.cols, size, stride, flush=flush)
    ]


def _check_probabilities(scores: np.ndarray, scene: str) -> None:
    """Scores (..., classes) of a softmax are finite and sum to 1; anything else would be evaluated as if it were."""
    sums = scores.reshape(-1, scores.shape[-1]) @ np.ones(scores.shape[-1], np.float32)  # NaN and inf stay NaN and inf
    if not (np.abs(sums - 1) <= 1e-3).all():
        raise ValueError(f"scene {scene}: the scores are no probabilities; did the training diverge?")


class _Sink:
    """Takes scored windows in order of scene, region, row, col; writes a scene when all of it is there."""

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

    def add(self, region: int, windows: Sequence[Window], results: Any, valid: np.ndarray | None) -> None:
        if region != self.region:
            self._leave()
            self.region = region
            self.enter(region)
        self.take(region, windows, results, valid)

    def _leave(self) -> None:
        if self.region is None:
            return
        self.leave(self.region)
        scene = self.regions[self.region].scene
        if self.region + 1 == len(self.regions) or self.regions[self.region + 1].scene != scene:
            self.finish(self.scenes[scene])

    def close(self, split: str) -> None:
        """Write what is left, and predictions.npz."""
        self._leave()
        regions = np.array([(self.ids[r.scene], r.row, r.col, r.rows, r.cols) for r in self.regions], np.int64)
        task = next(name for name, sink in SINKS.items() if isinstance(self, sink))
        made = Predictions(
            task, split, self.names, list(self.scenes), dict(self.settings), regions.reshape(-1, 5), self.arrays()
        )
        made.write(self.folder)

    def enter(self, region: int) -> None:
        """Before the first window of a region."""

    def leave(self, region: int) -> None:
        """After the last window of a region."""

    def finish(self, scene: Scene) -> None:
        """After the last region of a scene."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays of predictions.npz."""
        return {}


class _Cells(_Sink):
    """Classification: one class per cell."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.cells: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []
        self.written = 0
        self.single: list[tuple[str, np.ndarray]] = []

    def take(self, region: int, windows: Sequence[Window], results: np.ndarray, valid: None) -> None:
        place, size = self.regions[region], self.settings["size"]
        _check_probabilities(results, place.scene)
        # A cell that reaches beyond a region smaller than itself stands for what of it lies inside.
        cells = [
            (
                self.ids[place.scene],
                w.row,
                w.col,
                min(size, place.row + place.rows - w.row),
                min(size, place.col + place.cols - w.col),
            )
            for w in windows
        ]
        self.cells.append(np.array(cells, np.int64))
        self.scores.append(np.asarray(results, np.float32))

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


class _Mosaic(_Sink):
    """Segmentation: overlapping windows blended, and written strip by strip.

    In memory are the rows that windows still reach. Labels, which polygons need whole, are in a file without a name.
    """

    def enter(self, region: int) -> None:
        place = self.regions[region]
        scene = self.scenes[place.scene]
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
        self.missing: list[tuple[int, int, np.ndarray]] = []  # first row, col and mask of windows that lack data
        options = {k: self.settings[k] for k in ("size", "window", "crop")}
        self.stream = BlendStream(
            place.rows,
            place.cols,
            len(self.names),
            **options,
            means=self.settings["scores"],
            strip=STRIP,
            take=lambda first, blended: self._write(place, first, blended),
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
        self.stream.add(scores, rows, cols)

    def _write(self, place: Region, first: int, blended: Blended) -> None:
        """A finished strip of a region, whose first row is `first`, into the scene."""
        labels, scores = blended
        last = first + len(labels)
        if (labels == UNSEEN).any():
            raise ValueError(f"scene {place.scene}: rows {first} to {last} of a region are not covered by windows")
        for row, col, mask in self.missing:
            begin, end = max(first, row), min(last, row + len(mask))
            if begin < end:
                strip = (slice(begin - first, end - first), slice(col, col + mask.shape[1]))
                lacks = mask[begin - row : end - row, : place.cols - col]
                labels[strip][lacks] = UNSEEN
                if scores is not None:
                    scores[strip][lacks] = 0
        self.missing = [(row, col, mask) for row, col, mask in self.missing if row + len(mask) > last]
        self.labels[place.row + first : place.row + last, place.col : place.col + place.cols] = labels
        if self.write_scores is not None:
            self.write_scores(place.row + first, place.col, scores)

    def leave(self, region: int) -> None:
        self.stream.finish()

    def finish(self, scene: Scene) -> None:
        with self.files:
            polygons = self.settings["polygons"]
            write_labels(self.folder, scene, self.labels, self.names, self.colors, polygons=polygons)
            del self.labels


class _Boxes(_Sink):
    """Detection: every place is decided by the windows that see most around it; then non-maximum suppression."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # of the region at hand
        self.scene_boxes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.kept: dict[str, list[np.ndarray]] = {"boxes": [], "box_scene": [], "box_class": [], "scores": []}

    def enter(self, region: int) -> None:
        place, size, stride = self.regions[region], self.settings["size"], self.settings["stride"]
        self.found = []
        self.cores = []
        for origin, length in ((place.row, place.rows), (place.col, place.cols)):
            first = first_pixels(length, size, stride, flush=True)
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
            self.found.append((boxes[near], scores[near], box_class[near]))

    def leave(self, region: int) -> None:
        boxes, scores, box_class = (np.concatenate(parts) for parts in zip(*self.found))
        boxes, scores = np.ascontiguousarray(boxes, np.float32), np.ascontiguousarray(scores, np.float32)
        box_class = np.ascontiguousarray(box_class, np.int32)
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


SINKS: dict[str, type[_Sink]] = {"classification": _Cells, "segmentation": _Mosaic, "detection": _Boxes}
