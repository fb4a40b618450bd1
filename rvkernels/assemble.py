"""Put scored windows together again: cells, mosaics of blended scores, boxes found once; and write them.

A task's sink takes windows in order of scene, region, row and col, and writes a scene as soon as all of it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvkernels.ops.blend import Blend
from rvkernels.ops.nms import nms
from rvkernels.ops.windows import starts
from rvkernels.predictions import UNSEEN, Predictions, write_boxes, write_cells, write_labels, write_table
from rvkernels.scene import Region, Scene

# Rows of a scene that are blended at a time; bounds memory for scenes of any height.
STRIP = 1024


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
    """Segmentation: overlapping windows blended strip by strip."""

    def enter(self, region: int) -> None:
        scene = self.scenes[self.regions[region].scene]
        if region == 0 or self.regions[region - 1].scene != scene.id:
            self.labels = np.full((scene.rows, scene.cols), UNSEEN, np.uint8)
            self.image_scores = None
            if self.settings["scores"] != "none":
                shape = (scene.rows, scene.cols, len(self.names))
                self.image_scores = np.zeros(shape, self.settings["scores"])
            self.missing: np.ndarray | None = None  # True where there is no data; made when the first such pixel comes
        self.strips: dict[int, tuple[int, Blend]] = {}

    def take(self, region: int, windows: Sequence[Window], results: np.ndarray, valid: np.ndarray) -> None:
        place, size = self.regions[region], self.settings["size"]
        scores = np.ascontiguousarray(results[:, :size, :size], np.float32)
        _check_probabilities(scores, place.scene)
        rows = np.array([w.row - place.row for w in windows], np.int64)
        cols = np.array([w.col - place.col for w in windows], np.int64)
        self._mark_missing(place, rows, cols, valid[:, :size, :size])
        for strip in range(int(rows[0]) // STRIP, (int(rows[-1]) + size - 1) // STRIP + 1):
            top, bottom = strip * STRIP, (strip + 1) * STRIP
            meets = (rows < bottom) & (rows + size > top)
            if top >= place.rows or not meets.any():
                continue
            if strip not in self.strips:
                self.strips[strip] = self._canvas(place, strip)
            first, canvas = self.strips[strip]
            canvas.add(scores if meets.all() else scores[meets], rows[meets] - first, cols[meets])
        for strip in [s for s in self.strips if (s + 1) * STRIP <= rows[-1]]:
            self._finish_strip(place, strip)

    def _canvas(self, place: Region, strip: int) -> tuple[int, Blend]:
        """Where all windows that meet a strip fit: its first row, and the sums.

        It reaches a window beyond the strip, except at the region's own edges, where Blend keeps the pixels that `crop`
        leaves out elsewhere.
        """
        size = self.settings["size"]
        first, last = max(0, strip * STRIP - size), min(place.rows, (strip + 1) * STRIP + size)
        options = {k: self.settings[k] for k in ("size", "window", "crop")}
        return first, Blend(last - first, place.cols, len(self.names), **options, threads=self.threads)

    def _mark_missing(self, place: Region, rows: np.ndarray, cols: np.ndarray, valid: np.ndarray) -> None:
        if valid.all():
            return
        if self.missing is None:
            self.missing = np.zeros(self.labels.shape, bool)
        for row, col, mask in zip(rows, cols, valid):
            row_end, col_end = min(row + len(mask), place.rows), min(col + len(mask), place.cols)
            part = self.missing[place.row + row : place.row + row_end, place.col + col : place.col + col_end]
            part[...] = mask[: row_end - row, : col_end - col] == 0

    def _finish_strip(self, place: Region, strip: int) -> None:
        first, canvas = self.strips.pop(strip)
        labels, scores = canvas.finish()
        top, bottom = strip * STRIP, min((strip + 1) * STRIP, place.rows)
        part = slice(top - first, bottom - first)
        target = (slice(place.row + top, place.row + bottom), slice(place.col, place.col + place.cols))
        self.labels[target] = labels[part]
        if (self.labels[target] == UNSEEN).any():
            raise ValueError(f"scene {place.scene}: rows {top} to {bottom} of a region are not covered by windows")
        if self.image_scores is not None:
            found = scores[part]
            self.image_scores[target] = np.rint(found * 255) if self.image_scores.dtype == np.uint8 else found

    def leave(self, region: int) -> None:
        for strip in sorted(self.strips):
            self._finish_strip(self.regions[region], strip)

    def finish(self, scene: Scene) -> None:
        if self.missing is not None:
            self.labels[self.missing] = UNSEEN
            if self.image_scores is not None:
                self.image_scores[self.missing] = 0
        polygons = self.settings["polygons"]
        write_labels(self.folder, scene, self.labels, self.image_scores, self.names, self.colors, polygons=polygons)


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
