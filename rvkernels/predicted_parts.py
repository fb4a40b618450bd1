"""What a job that predicts a part leaves, and how all parts become the predictions that a single job writes.

A part is a folder:
    part.json       part and parts (their number), windows (of all parts), blocks (segmentation: region, top, bottom)
    record.json     as of predictions, of what this job did
    results.npz     classification and detection: what rvkernels.assemble.Put takes, row by row, with its region
    <n>.labels.npy  segmentation: the pixels of block n, (rows, cols) uint8
    <n>.scores.npy  and (rows, cols, classes) uint8 or float32, unless the settings want no scores
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from rvkernels.assemble import STRIP, Block, Put, Share
from rvkernels.files import read_json, write_json
from rvkernels.parts import Part, check_complete
from rvkernels.scene import Region

RESULTS = {"classification": ("cells", "scores"), "detection": ("boxes", "scores", "box_class")}


def keeper(
    folder: Path, task: str, part: Part, share: Share, windows: int, regions: Sequence[Region], classes: int
) -> _Rows | _Strips:
    """What takes a finder's results in the place of a task's writer; `close` ends the folder.

    windows  how many there are in all parts
    """
    kind = _Strips if task == "segmentation" else _Rows
    about = {"part": part.number, "parts": part.count, "windows": windows, "blocks": share.blocks}
    return kind(folder, task, about, regions, classes)


class _Keeper:
    def __init__(self, folder: Path, task: str, about: dict, regions: Sequence[Region], classes: int) -> None:
        self.folder, self.task, self.about, self.regions, self.classes = folder, task, about, regions, classes

    def close(self) -> None:
        write_json(self.folder / "part.json", self.about)


class _Rows(_Keeper):
    """Cells or boxes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        shapes = {"cells": ((4,), np.int64), "boxes": ((4,), np.float32), "box_class": ((), np.int32)}
        shapes["scores"] = (() if self.task == "detection" else (self.classes,), np.float32)
        # Of a part without results, too, arrays have their shapes.
        self.columns = {"region": [np.empty(0, np.int64)]}
        for name in RESULTS[self.task]:
            shape, dtype = shapes[name]
            self.columns[name] = [np.empty((0, *shape), dtype)]

    def put(self, region: int, *arrays: np.ndarray) -> None:
        for column, array in zip(self.columns.values(), (np.full(len(arrays[0]), region, np.int64), *arrays)):
            column.append(array)

    def close(self) -> None:
        np.savez(self.folder / "results.npz", **{name: np.concatenate(c) for name, c in self.columns.items()})
        super().close()


class _Strips(_Keeper):
    """Strips, written into the arrays of their blocks."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.blocks = {block.region: (number, block) for number, block in enumerate(self.about["blocks"])}
        self.region: int | None = None

    def put(self, region: int, first: int, labels: np.ndarray, scores: np.ndarray | None) -> None:
        number, block = self.blocks[region]
        if region != self.region:
            self.region = region
            shape = (block.bottom - block.top, self.regions[region].cols)
            self.labels = open_memmap(self.folder / f"{number}.labels.npy", "w+", np.uint8, shape)
            if scores is not None:
                path = self.folder / f"{number}.scores.npy"
                self.scores = open_memmap(path, "w+", scores.dtype, (*shape, self.classes))
        rows = slice(first - block.top, first - block.top + len(labels))
        self.labels[rows] = labels
        if scores is not None:
            self.scores[rows] = scores


def replay(folders: Sequence[str | Path], task: str, windows: int, regions: Sequence[Region], put: Put) -> None:
    """Hand over what all parts kept, as a single job's finder does.

    windows  how many there are in all regions
    Raises FileNotFoundError for a missing part, and ValueError when the parts are not those of one whole.
    """
    folders = [Path(folder) for folder in folders]
    told = [_told(folder) for folder in folders]
    check_complete((folder, Part(about["part"], about["parts"])) for folder, about in zip(folders, told))
    for folder, about in zip(folders, told):
        if about["windows"] != windows:
            raise ValueError(
                f"{folder}: is a part of {about['windows']} windows, but these regions have {windows}; predict it again"
            )
    if task == "segmentation":
        _replay_strips(folders, [[Block(*b) for b in about["blocks"]] for about in told], regions, put)
    else:
        _replay_rows(folders, RESULTS[task], len(regions), put)


def _told(folder: Path) -> dict:
    if not (folder / "part.json").is_file():
        raise FileNotFoundError(f"{folder / 'part.json'}: no such file; run `rvk predict-regions --part` first")
    return read_json(folder / "part.json")


def _replay_rows(folders: Sequence[Path], names: Sequence[str], regions: int, put: Put) -> None:
    parts = []
    for folder in folders:
        with np.load(folder / "results.npz", allow_pickle=False) as file:
            parts.append([file[name] for name in ("region", *names)])
    region, *columns = (np.concatenate(column) for column in zip(*parts))
    bounds = np.searchsorted(region, np.arange(regions + 1))
    for number in range(regions):
        put(number, *(column[bounds[number] : bounds[number + 1]] for column in columns))


def _replay_strips(
    folders: Sequence[Path], blocks: Sequence[Sequence[Block]], regions: Sequence[Region], put: Put
) -> None:
    kept: dict[int, list[tuple[Block, Path]]] = {}
    for folder, own in zip(folders, blocks):
        for number, block in enumerate(own):
            kept.setdefault(block.region, []).append((block, folder / str(number)))
    for number, place in enumerate(regions):
        found = kept.get(number, [])
        edges = [0, *(block.bottom for block, _ in found)]
        if [block.top for block, _ in found] != edges[:-1] or edges[-1] != place.rows:
            rows = ", ".join(f"{block.top} to {block.bottom}" for block, _ in found) or "none"
            raise ValueError(
                f"scene {place.scene}: of {place.rows} rows of a region the parts have {rows}; "
                "predict them again with the same settings"
            )
        labels = [np.load(f"{path}.labels.npy", mmap_mode="r") for _, path in found]
        paths = [Path(f"{path}.scores.npy") for _, path in found]
        scores = [np.load(path, mmap_mode="r") for path in paths] if paths[0].is_file() else None
        strip = min(STRIP, place.rows)  # those of a single job, so that files are written in the same order
        for first in range(0, place.rows, strip):
            last = min(first + strip, place.rows)
            some = None if scores is None else _rows(scores, edges, first, last)
            put(number, first, _rows(labels, edges, first, last), some)


def _rows(arrays: Sequence[np.ndarray], edges: Sequence[int], first: int, last: int) -> np.ndarray:
    """Rows `first` to `last`, not included, of arrays that lie below each other; array i begins at edges[i]."""
    parts = [
        array[max(first - top, 0) : last - top]
        for array, top, bottom in zip(arrays, edges, edges[1:])
        if first < bottom and top < last
    ]
    return np.concatenate(parts)


def merged_record(folders: Sequence[str | Path], result: dict[str, int]) -> dict:
    """The record of all parts together: `result` of the whole, every time of every part, the machine of the first."""
    records = [read_json(Path(folder) / "record.json") for folder in folders]
    times = {name: [t for r in records for t in r["times_s"][name]] for name in records[0]["times_s"]}
    scored = sum(r["result"]["windows"] for r in records)
    return {
        **records[0],
        "validated": all(r["validated"] for r in records),
        "started": min(r["started"] for r in records),
        "result": result,
        "times_s": times,
        "chips_per_s": scored / max(sum(times["network"]), 1e-9),
        "peak_rss_mb": max(r["peak_rss_mb"] for r in records),
    }
