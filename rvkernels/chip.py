"""Cut chips out of the regions of all splits, with their labels, into a chips folder.

rvkernels/chips.py describes the folder's files. Which chips stay is decided when all are cut: a job that cuts a part of
them (rvkernels/parts.py) leaves its chips with what that decision needs, and `gather` makes it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from rvkernels import dataset, labels, leaks
from rvkernels.chips import DTYPES
from rvkernels.files import atomic
from rvkernels.ops import philox, tile, windows
from rvkernels.parts import Part, check_complete
from rvkernels.progress import Progress
from rvkernels.registry import suggest
from rvkernels.scene import Region, Scene, check_regions, read_regions, read_scenes
from rvkernels.split import SPLITS

# size        rows and columns of a chip in pixels; None: the whole picture, for pictures of one size
# stride      pixels between training chips of method sliding; None: the size
# method      sliding | random: how training chips are placed. All others are laid side by side, without overlap but for
#             the last ones of a row or column, so that a measure over them counts hardly any pixel twice
# count       training chips of method random, in all regions together
# aoi         segmentation: within | intersects: whether a chip lies wholly in the area of interest or only in part;
#             pixels outside have no label. Other tasks: within
# nodata_max  greatest share of pixels without data that a chip may have; classification: a cell that is evaluated, too
# background  class of what no shape covers (segmentation: pixels, classification: cells); None: ignored, or no chip
# all_touched segmentation: burn every pixel a shape touches, not only those whose centre it covers
# min_cover   classification: share of a cell that a class must cover
# min_area    detection: share of its area that a box must have inside the chip to be kept, clipped
# targets     segmentation: names of classes that training chips are to show; None: any
# target_pixels  how many pixels of them, together, a chip needs; with fewer it is a negative
# negatives   greatest share of negatives among training chips: chips without a box (detection), or without targets
# limit       {split: chips}: no more than so many chips, drawn by seed, in equal numbers per class where chips have one
# seed        of random places and draws
# shared_ground  chips of two splits may show the same ground: for a study that overfits on purpose
DEFAULTS: dict[str, Any] = {
    "size": None,
    "stride": None,
    "method": "sliding",
    "count": None,
    "aoi": "within",
    "nodata_max": 0.5,
    "background": None,
    "all_touched": False,
    "min_cover": 0.5,
    "min_area": 0.5,
    "targets": None,
    "target_pixels": 1,
    "negatives": 0.5,
    "limit": None,
    "seed": 0,
    "shared_ground": False,
}
METHODS = ("sliding", "random")
PIXELS = 1 << 25  # read at a time and thread
PART = "part.npz"  # of a part's folder: its number, and what _Cut notes
COLUMNS = ("scene", "row", "col", "split", "nodata", "labels")  # of the notes, in chips.csv

_OP_LIMIT, _OP_NEGATIVES = 102, 103  # philox streams


def complete_settings(given: Mapping[str, Any], task: str, where: str = "chip") -> dict[str, Any]:
    """`given` with DEFAULTS filled in. Raises ValueError for an unknown key or a value that cannot be."""
    for key in given:
        if key not in DEFAULTS:
            raise ValueError(f"{where}: unknown setting {key!r}; {suggest(key, DEFAULTS)}")
    settings = {**DEFAULTS, **given}
    for key in ("size", "stride", "count", "target_pixels"):
        value = settings[key]
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{where}: {key} is {value!r}, expected a whole number of at least 1")
    if settings["method"] not in METHODS:
        raise ValueError(f"{where}: method: no {settings['method']!r}; {suggest(settings['method'], METHODS)}")
    if settings["aoi"] not in windows.RULES:
        raise ValueError(f"{where}: aoi: no {settings['aoi']!r}; {suggest(str(settings['aoi']), windows.RULES)}")
    for key, default in (("aoi", "within"), ("targets", None)):
        if settings[key] != default and task != "segmentation":
            raise ValueError(f"{where}: {key}: only for segmentation, not {task}")
    targets = settings["targets"]
    if targets is not None and not (isinstance(targets, list) and targets and all(isinstance(t, str) for t in targets)):
        raise ValueError(f"{where}: targets is {targets!r}, expected a list of class names")
    if settings["method"] == "random" and settings["count"] is None:
        raise ValueError(f"{where}: count is missing; method random needs the number of chips")
    if settings["size"] is None and (task != "classification" or settings["method"] == "random"):
        raise ValueError(f"{where}: size is missing; only pictures of one class each may be used whole")
    for key in ("nodata_max", "min_cover", "min_area", "negatives"):
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"{where}: {key} is {value!r}, expected a number from 0 to 1")
    if type(settings["seed"]) is not int or settings["seed"] < 0:
        raise ValueError(f"{where}: seed is {settings['seed']!r}, expected a whole number from 0")
    if not isinstance(settings["shared_ground"], bool):
        raise ValueError(f"{where}: shared_ground is {settings['shared_ground']!r}, expected true or false")
    for split, count in (settings["limit"] or {}).items():
        if split not in SPLITS:
            raise ValueError(f"{where}: limit: no split {split!r}; {suggest(split, SPLITS)}")
        if type(count) is not int or count < 1:
            raise ValueError(f"{where}: limit: {split} is {count!r}, expected a whole number of at least 1")
    return settings


@dataclass(frozen=True)
class Piece:
    """The windows (n, 4) of one region, with their classes (n,) int32 when the task is classification."""

    scene: Scene
    split: str
    windows: np.ndarray
    classes: np.ndarray | None

    def take(self, keep: np.ndarray) -> Piece:
        """The windows where `keep` (n,) is True."""
        return Piece(self.scene, self.split, self.windows[keep], None if self.classes is None else self.classes[keep])


def plan(
    description: dict,
    scenes: Mapping[str, Scene],
    regions: Sequence[Region],
    *,
    task: str,
    settings: Mapping[str, Any],
    threads: int = 0,
) -> list[Piece]:
    """The windows of every region, in the regions' order, by row and col: inside the AOI, with a class, without limit.

    Raises ValueError before reading anything when a chip is larger than a region or a region's scene is unknown.
    """
    settings = complete_settings(settings, task)
    class_list = dataset.class_names(description)
    for key, names in (("background", [settings["background"]]), ("targets", settings["targets"] or [])):
        for name in names:
            if name is not None and name not in class_list:
                raise ValueError(f"chip: {key}: no class {name!r}; {suggest(name, class_list)}")
    check_regions(regions, scenes)
    if not regions:
        raise ValueError("regions: there is none; run `rvk split` again")
    size = settings["size"] or _whole(scenes, regions)
    for region in regions:
        if size > min(region.rows, region.cols):
            raise ValueError(
                f"chip: size {size} is larger than scene {region.scene} "
                f"({region.rows} x {region.cols} pixels in split {region.split}); choose a smaller one"
            )
    counts = {}
    if settings["method"] == "random":
        train = [i for i, r in enumerate(regions) if r.split == "train"]
        counts = dict(zip(train, _share_out(settings["count"], [regions[i] for i in train], size)))

    def piece(number: int) -> Piece:
        region = regions[number]
        scene = scenes[region.scene]
        area = labels.aoi(scene)
        inside = None if area is None else (lambda found: labels.in_aoi(found, area, settings["aoi"]))
        if number in counts:
            options = {"seed": settings["seed"], "sample": number, "inside": inside}
            try:
                found = windows.random(region.extent, size, counts[number], **options)
            except ValueError as error:
                raise ValueError(f"scene {region.scene}: {error}") from None
        else:
            stride = (settings["stride"] if region.split == "train" else None) or size
            # Cells stay on their grid, as those of a prediction do.
            ends = "drop" if task == "classification" else "flush"
            found = windows.sliding(region.extent, size, stride, ends=ends)[:]
            found = found if inside is None else found[inside(found)]
        if task != "classification":
            return Piece(scene, region.split, found, None)
        if scene.class_name is not None:
            return Piece(scene, region.split, found, np.full(len(found), class_list.index(scene.class_name), np.int32))
        classes = labels.cells(
            scene,
            found,
            description["classes"],
            min_share=settings["min_cover"],
            background=settings["background"],
        )
        return Piece(scene, region.split, found, classes).take(classes >= 0)

    def reads(region: Region) -> bool:
        scene = scenes[region.scene]
        return scene.aoi is not None or (task == "classification" and scene.class_name is None)

    with ThreadPoolExecutor(_workers(threads)) as pool:
        jobs = {i: pool.submit(piece, i) for i, region in enumerate(regions) if reads(region)}
        pieces = [jobs[i].result() if i in jobs else piece(i) for i in range(len(regions))]
    return [p for p in pieces if len(p.windows)]


def chip(
    description: str | Path,
    scenes: str | Path,
    regions: str | Path,
    *,
    task: str,
    settings: Mapping[str, Any],
    out: str | Path,
    threads: int = 0,
    part: Part | None = None,
) -> None:
    """Write the chips folder `out`, atomically; with `part` a folder with that part of the chips for `gather`.

    description     of the dataset, YAML
    scenes          JSON lines of `rvk fetch`
    regions         CSV of `rvk split`; a chip lies wholly in one region
    settings        see DEFAULTS
    threads         0 = all cores

    Pixels are in the scenes' dtype (int16 becomes float32). Pixels without data keep their value, but are 0 in float32
    chips, where they may be NaN; in segmentation labels they are 255.
    Raises ValueError, one line, when a chip is larger than a scene, a split ends up without chips, or chips of two
    splits show the same ground.
    """
    settings = complete_settings(settings, task)
    described, places, seen = dataset.load(description), read_regions(regions), read_scenes(scenes)
    pieces = plan(described, seen, places, task=task, settings=settings, threads=threads)
    pieces = _limit(pieces, settings["limit"] or {}, settings["seed"])
    _need_all_splits([p.split for p in pieces], "the area of interest and the labels leave no chip")
    pieces.sort(key=lambda p: SPLITS.index(p.split))  # stable: then by region
    with atomic(out) as folder:
        folder.mkdir()
        found = _Cutter(folder, pieces, described, task, settings, threads, part).cut()
        if part is None:
            _finish(folder, [found], seen, dataset.class_names(described), task, settings)
        else:
            np.savez(folder / PART, part=[part.number, part.count], **found.notes)


def gather(
    description: str | Path,
    scenes: str | Path,
    parts: Sequence[str | Path],
    *,
    task: str,
    settings: Mapping[str, Any],
    out: str | Path,
) -> None:
    """Write the chips folder `out`, atomically, from the folders of all parts: the one that a single job writes.

    Raises FileNotFoundError for a missing part, and ValueError when the parts are not those of one whole, and as `chip`
    does.
    """
    settings = complete_settings(settings, task)
    found = [_read_part(Path(folder)) for folder in parts]
    check_complete((folder, part) for folder, (part, _) in zip(parts, found))
    with atomic(out) as folder:
        folder.mkdir()
        names = dataset.class_names(dataset.load(description))
        _finish(folder, [cut for _, cut in found], read_scenes(scenes), names, task, settings)


def _whole(scenes: Mapping[str, Scene], regions: Sequence[Region]) -> int:
    """The edge of all regions' scenes, when they are squares of one size and have a class each."""
    first = scenes[regions[0].scene]
    for region in regions:
        scene = scenes[region.scene]
        if scene.class_name is None:
            raise ValueError(f"chip: size is missing; scene {scene.id} has no class as a whole")
        if not scene.rows == scene.cols == first.rows:
            raise ValueError(
                f"chip: size is missing; scene {scene.id} is {scene.rows} x {scene.cols} pixels, "
                f"scene {first.id} {first.rows} x {first.cols}"
            )
    return first.rows


def _share_out(count: int, regions: Sequence[Region], size: int) -> list[int]:
    """`count` windows shared out among regions by the number of positions each has; the sum is exactly `count`.

    Largest remainders get what rounding leaves over; ties go to the first.
    """
    room = np.array([float(r.rows - size + 1) * (r.cols - size + 1) for r in regions])
    exact = count * room / room.sum()
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: count - int(shares.sum())]] += 1
    return shares.tolist()


def _workers(threads: int) -> int:
    return threads or os.cpu_count() or 1


def _limit(pieces: list[Piece], limit: Mapping[str, int], seed: int) -> list[Piece]:
    """At most limit[split] windows of each split: one of every class in turn, each class in an order drawn by seed."""
    taken = list(pieces)
    for split, most in limit.items():
        chosen = [i for i, p in enumerate(pieces) if p.split == split]
        lengths = [len(pieces[i].windows) for i in chosen]
        if sum(lengths) <= most:
            continue
        classes = np.concatenate(
            [np.zeros(n, np.int32) if pieces[i].classes is None else pieces[i].classes for i, n in zip(chosen, lengths)]
        )
        rank = np.empty(len(classes), np.int64)
        for c in np.unique(classes):
            members = np.flatnonzero(classes == c)
            epoch = SPLITS.index(split) << 16 | int(c)
            rank[members[philox.permutation(len(members), seed, epoch, op=_OP_LIMIT)]] = np.arange(len(members))
        keep = np.zeros(len(classes), bool)
        keep[np.lexsort((classes, rank))[:most]] = True
        for i, part in zip(chosen, np.split(keep, np.cumsum(lengths)[:-1])):
            taken[i] = pieces[i].take(part)
    return [p for p in taken if len(p.windows)]


def _need_all_splits(found: Sequence[str], reason: str) -> None:
    for split in SPLITS:
        if split not in found:
            raise ValueError(f"chip: zero chips in split {split!r}: {reason}")


@dataclass(frozen=True)
class _Cut:
    """Chips in the plan's order, before it is decided which stay.

    images  (n, rows, cols, bands), a memory map
    masks   (n, rows, cols) uint8, a memory map; None but for segmentation
    notes   arrays with a row per chip: scene (id), split (index in SPLITS), row, col, nodata (share, float32), labelled
            and negative (bool); classification: labels (int32); detection: box_count (int64) and, with a row per box,
            boxes (float32) and box_class (int32)
    """

    images: np.ndarray
    masks: np.ndarray | None
    notes: dict[str, np.ndarray]


class _Cutter:
    """Reads a plan's chips, or a part of them, into arrays on disk."""

    def __init__(
        self,
        folder: Path,
        pieces: list[Piece],
        description: dict,
        task: str,
        settings: Mapping[str, Any],
        threads: int,
        part: Part | None,
    ) -> None:
        self.folder, self.task, self.settings, self.threads = folder, task, settings, threads
        self.pictures = all(
            is_picture(p.scene) and p.windows.tolist() == [[0, 0, p.scene.rows, p.scene.cols]] for p in pieces
        )
        size, scene = int(pieces[0].windows[0, 2]), pieces[0].scene
        self.pieces = pieces if part is None else _share(pieces, part)
        self.classes = description["classes"]
        self.names = dataset.class_names(description)
        self.start = np.cumsum([0, *(len(p.windows) for p in self.pieces)])
        n = int(self.start[-1])
        self.images = open_memmap(folder / "images.npy", "w+", DTYPES[scene.dtype], (n, size, size, scene.bands))
        self.masks = (
            open_memmap(folder / "labels.npy", "w+", np.uint8, (n, size, size)) if task == "segmentation" else None
        )
        self.nodata = np.zeros(n, np.float32)
        self.targets = [self.names.index(name) for name in settings["targets"] or []]
        self.labelled, self.negative = np.ones(n, bool), np.zeros(n, bool)
        self.boxes: list[tuple[np.ndarray, np.ndarray]] = [_NO_BOXES] * n

    def cut(self) -> _Cut:
        with Progress(len(self.images), "chip", "chips") as progress:
            if self.pictures:
                self._read_pictures(progress)
            elif self.pieces:
                workers = min(_workers(self.threads), len(self.pieces))
                inner = max(1, _workers(self.threads) // workers)
                with ThreadPoolExecutor(workers) as pool:
                    for count in pool.map(lambda k: self._read(k, inner), range(len(self.pieces))):
                        progress.add(count)
        for array in (self.images, self.masks):
            if array is not None:
                array.flush()
        return _Cut(self.images, self.masks, self._notes())

    def _notes(self) -> dict[str, np.ndarray]:
        counts = np.diff(self.start)
        places = np.concatenate([np.empty((0, 4), np.int64), *(p.windows for p in self.pieces)])
        notes = {
            "scene": np.repeat(np.array([p.scene.id for p in self.pieces], np.str_), counts),
            "split": np.repeat(np.array([SPLITS.index(p.split) for p in self.pieces], np.int64), counts),
            "row": places[:, 0],
            "col": places[:, 1],
            "nodata": self.nodata,
            "labelled": self.labelled,
            "negative": self.negative,
        }
        if self.task == "classification":
            notes["labels"] = np.concatenate([np.empty(0, np.int32), *(p.classes for p in self.pieces)])
        elif self.task == "detection":
            boxes, box_class = zip(_NO_BOXES, *self.boxes)
            notes["box_count"] = np.array([len(b) for b in boxes[1:]], np.int64)
            notes["boxes"], notes["box_class"] = np.concatenate(boxes), np.concatenate(box_class)
        return notes

    def _read_pictures(self, progress: Progress) -> None:
        """Pictures that are one chip each."""
        paths = [p.scene.images[0] for p in self.pieces]
        step = pictures_at_once(self.pieces[0].scene) if self.pieces else 1
        for first in range(0, len(paths), step):
            part = slice(first, first + step)
            tile.read_many(paths[part], out=self.images[part], threads=self.threads)
            progress.add(len(paths[part]))

    def _read(self, number: int, threads: int) -> int:
        piece, first = self.pieces[number], int(self.start[number])
        size = self.images.shape[1]
        source = tile.Raster(piece.scene.images)
        if self.task == "segmentation":
            how = {key: self.settings[key] for key in ("background", "all_touched")}
            masks = labels.SceneMasks(piece.scene, self.classes, **how, threads=threads)
        elif self.task == "detection":
            features = labels.load_features(piece.scene, self.classes)
        step = max(1, PIXELS // (size * size))
        for begin in range(0, len(piece.windows), step):
            found = np.ascontiguousarray(piece.windows[begin : begin + step])
            rows = slice(first + begin, first + begin + len(found))
            images = self.images[rows]
            _, valid = source.read(found, out=images, valid=True, threads=threads)
            self.nodata[rows] = 1 - valid.mean(axis=(1, 2), dtype=np.float64)
            if images.dtype.kind == "f":
                images[valid == 0] = 0
            if self.task == "segmentation":
                mask = masks.read(found)
                mask[valid == 0] = labels.IGNORE
                self.masks[rows] = mask
                self.labelled[rows] = (mask != labels.IGNORE).any(axis=(1, 2))
                if self.targets:
                    stacked = np.array([(i * size, 0, size, size) for i in range(len(mask))])
                    shown = windows.count(mask.reshape(-1, size), stacked, self.targets, threads=threads)
                    self.negative[rows] = shown < self.settings["target_pixels"]
            elif self.task == "detection":
                for row, window in enumerate(found, rows.start):
                    boxes, kept = labels.boxes_in(features.boxes, window, self.settings["min_area"])
                    self.boxes[row] = boxes, features.class_ids[kept]
                    self.negative[row] = len(boxes) == 0
        return len(piece.windows)


_NO_BOXES = (np.empty((0, 4), np.float32), np.empty(0, np.int32))


def _share(pieces: Sequence[Piece], part: Part) -> list[Piece]:
    """The windows of a part, of nearly as many as any other part has."""
    begin, end = part.bounds(sum(len(p.windows) for p in pieces))
    taken, first = [], 0
    for piece in pieces:
        number = np.arange(first, first + len(piece.windows))
        first += len(number)
        taken.append(piece.take((number >= begin) & (number < end)))
    return [p for p in taken if len(p.windows)]


def _read_part(folder: Path) -> tuple[Part, _Cut]:
    if not (folder / PART).is_file():
        raise FileNotFoundError(f"{folder / PART}: no such file; run `rvk chip --part` first")
    with np.load(folder / PART, allow_pickle=False) as file:
        notes = {name: file[name] for name in file.files}
    part = Part(*notes.pop("part").tolist())
    masks = folder / "labels.npy"
    return part, _Cut(
        np.load(folder / "images.npy", mmap_mode="r"),
        np.load(masks, mmap_mode="r") if masks.is_file() else None,
        notes,
    )


def _finish(
    folder: Path,
    cuts: Sequence[_Cut],
    scenes: Mapping[str, Scene],
    names: Sequence[str],
    task: str,
    settings: Mapping[str, Any],
) -> None:
    """The chips folder: of the chips of all `cuts`, in their order, those that stay."""
    notes = {name: np.concatenate([cut.notes[name] for cut in cuts]) for name in cuts[0].notes}
    keep = _keep(notes, task, settings)
    _write_rows(folder / "images.npy", [cut.images for cut in cuts], keep)
    if task == "segmentation":
        _write_rows(folder / "labels.npy", [cut.masks for cut in cuts], keep)
    elif task == "classification":
        np.save(folder / "labels.npy", notes["labels"][keep])
    else:
        kept = np.repeat(keep, notes["box_count"])
        np.save(folder / "boxes.npy", notes["boxes"][kept])
        np.save(folder / "box_class.npy", notes["box_class"][kept])
        np.save(folder / "box_start.npy", np.cumsum([0, *notes["box_count"][keep]], dtype=np.int64))
    _write_table(folder / "chips.csv", {name: notes[name][keep] for name in COLUMNS if name in notes}, names)
    leaks.check(folder, scenes, shared_ground=settings["shared_ground"])


def _keep(notes: Mapping[str, np.ndarray], task: str, settings: Mapping[str, Any]) -> np.ndarray:
    """Which chips stay, (n,) bool."""
    keep = notes["nodata"] <= settings["nodata_max"]
    reason = f"all have more than nodata_max {settings['nodata_max']} of pixels without data"
    if task == "segmentation":
        keep &= notes["labelled"]
        reason += " or no label"
    if notes["negative"].any():
        train = keep & (notes["split"] == SPLITS.index("train"))
        negative = np.flatnonzero(train & notes["negative"])
        share = settings["negatives"]
        positive = int((train & ~notes["negative"]).sum())
        allowed = len(negative) if share == 1 else int(share / (1 - share) * positive + 1e-9)
        order = philox.permutation(len(negative), settings["seed"], 0, op=_OP_NEGATIVES)
        keep[negative[order[allowed:]]] = False
        reason += ", or too many have no box" if task == "detection" else ", or too many show no target"
    _need_all_splits([SPLITS[i] for i in np.unique(notes["split"][keep])], reason)
    return keep


def _write_table(path: Path, notes: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    columns = [
        range(len(notes["scene"])),
        notes["scene"].tolist(),
        notes["row"].tolist(),
        notes["col"].tolist(),
        [SPLITS[i] for i in notes["split"]],
        [f"{share:.6g}" for share in notes["nodata"]],
    ]
    header = ["chip", "scene", "row", "col", "split", "nodata_share"]
    if "labels" in notes:
        header.append("class")
        columns.append([names[i] for i in notes["labels"]])
    with path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(header)
        table.writerows(zip(*columns))


def is_picture(scene: Scene) -> bool:
    """Whether a scene is one file of pixels with one class, all of them data, that tile.read_many may read."""
    plain = scene.nodata is None and scene.dtype in ("uint8", "uint16")
    return plain and scene.class_name is not None and len(scene.images) == 1


def pictures_at_once(scene: Scene) -> int:
    """How many pictures of this size are read at a time."""
    return max(1, PIXELS // (scene.rows * scene.cols))


def _write_rows(path: Path, arrays: Sequence[np.ndarray], keep: np.ndarray) -> None:
    """The .npy file `path` with the rows of all `arrays` where `keep` is True; a single array may be its memory map."""
    if path.is_file() and keep.all():
        return
    made = path.with_name(f"kept-{path.name}")
    kept = open_memmap(made, "w+", arrays[0].dtype, (int(keep.sum()), *arrays[0].shape[1:]))
    step = max(1, PIXELS // int(np.prod(kept.shape[1:])))
    begin = first = 0
    for array in arrays:
        rows = np.flatnonzero(keep[begin : begin + len(array)])
        begin += len(array)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            kept[first : first + len(some)] = array[some]
            first += len(some)
    kept.flush()
    os.replace(made, path)
