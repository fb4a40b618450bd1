"""The chips folder: what `rvk chip` writes and training reads, opened without being loaded.

images.npy       (n, rows, cols, bands) uint8, uint16 or float32
chips.csv        one line per chip: chip, scene, row, col, split, nodata_share, ...
labels.npy       classification: (n,) int32 class; segmentation: (n, rows, cols) uint8, 255 = ignore
boxes.npy        detection: (m, 4) float32 (ymin, xmin, ymax, xmax) in pixels of the chip
box_class.npy    detection: (m,) int32
box_start.npy    detection: (n + 1,) int64; chip i has boxes box_start[i] to box_start[i + 1]
leaks.json       what the splits have in common (rvkernels/leaks.py); training reads it not
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# Of which dtype chips of a scene's pixels are. int16 marks what has no data with a number far from all others, mostly
# -32768, which normalising would spread; in float32 it is 0.
DTYPES = {"uint8": "uint8", "uint16": "uint16", "int16": "float32", "float32": "float32"}
COLUMNS = ("chip", "scene", "row", "col", "split")
IGNORE = 255


@dataclass(frozen=True)
class Chips:
    """Chips on disk. Arrays are read-only memory maps; `Chips.open` makes one."""

    folder: Path
    task: str  # "classification", "segmentation" or "detection"
    images: np.ndarray
    table: dict[str, list[str]] = field(repr=False)  # columns of chips.csv, as text
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None
    box_class: np.ndarray | None = None
    box_start: np.ndarray | None = None

    @staticmethod
    def open(folder: str | Path) -> Chips:
        """Open a chips folder and check that its files agree with each other.

        Which label files there are says the task. Raises FileNotFoundError for a missing file and ValueError for
        files that cannot belong together; both name the file.
        """
        folder = Path(folder)
        images = _array(folder / "images.npy", tuple(dict.fromkeys(DTYPES.values())), 4)
        table = _table(folder / "chips.csv")
        n = images.shape[0]
        if len(table["chip"]) != n:
            raise ValueError(f"{folder / 'chips.csv'}: {len(table['chip'])} chips, but images.npy holds {n}")
        if not (folder / "boxes.npy").exists():
            path = folder / "labels.npy"
            if not path.exists():
                raise FileNotFoundError(f"{folder}: neither labels.npy nor boxes.npy; run `rvk chip` first")
            labels = _array(path, ("int32", "uint8"))
            task, shape = ("classification", (n,)) if labels.dtype == np.int32 else ("segmentation", images.shape[:3])
            if labels.shape != shape:
                raise ValueError(f"{path}: shape is {labels.shape}, but images.npy needs {shape} for {task}")
            return Chips(folder, task, images, table, labels=labels)
        boxes = _array(folder / "boxes.npy", ("float32",), 2)
        box_class = _array(folder / "box_class.npy", ("int32",), 1)
        box_start = _array(folder / "box_start.npy", ("int64",), 1)
        m = len(boxes)
        if boxes.shape[1] != 4:
            raise ValueError(f"{folder / 'boxes.npy'}: shape is {boxes.shape}, expected (boxes, 4)")
        if len(box_class) != m:
            raise ValueError(f"{folder / 'box_class.npy'}: {len(box_class)} classes, but boxes.npy holds {m} boxes")
        if len(box_start) != n + 1 or box_start[0] != 0 or box_start[-1] != m or np.any(np.diff(box_start) < 0):
            raise ValueError(f"{folder / 'box_start.npy'}: expected {n + 1} offsets ascending from 0 to {m} boxes")
        if np.any(boxes[:, 2:] <= boxes[:, :2]):
            bad = int(np.flatnonzero(np.any(boxes[:, 2:] <= boxes[:, :2], axis=1))[0])
            raise ValueError(
                f"{folder / 'boxes.npy'}: box {bad} is empty: {boxes[bad].tolist()} (ymin, xmin, ymax, xmax)"
            )
        return Chips(folder, "detection", images, table, boxes=boxes, box_class=box_class, box_start=box_start)

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every chip."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def bands(self) -> int:
        return self.images.shape[3]

    def rows(self, split: str) -> np.ndarray:
        """Indices (k,) int64 of the chips of `split`, ascending; ValueError when it has none."""
        index = np.flatnonzero(np.array([s == split for s in self.table["split"]])).astype(np.int64)
        if not index.size:
            there = ", ".join(sorted(set(self.table["split"])))
            raise ValueError(f"{self.folder / 'chips.csv'}: no chip is in split {split!r}; there are {there or 'none'}")
        return index

    def check_classes(self, classes: int) -> None:
        """Raise ValueError naming the file when a label is no class id in [0, classes)."""
        if self.task == "detection":
            found, path = np.unique(self.box_class), self.folder / "box_class.npy"
        else:
            found, path = _unique(self.labels), self.folder / "labels.npy"
        if self.task == "segmentation":
            found = found[found != IGNORE]
        bad = found[(found < 0) | (found >= classes)]
        if bad.size:
            raise ValueError(f"{path}: label {int(bad[0])} is no class id; there are {classes} classes, from 0")

    def class_counts(self, rows: np.ndarray, classes: int) -> np.ndarray:
        """Labelled chips, pixels or boxes per class, (classes,) int64, over the chips `rows`."""
        counts = np.zeros(classes, np.int64)
        for row in rows:
            if self.task == "detection":
                found = self.box_class[self.box_start[row] : self.box_start[row + 1]]
            else:
                found = np.atleast_1d(self.labels[row]).ravel()
            counts += np.bincount(found[found < classes], minlength=classes)
        return counts


def _unique(labels: np.ndarray) -> np.ndarray:
    """np.unique chip by chip: the whole of a memory map may be larger than memory."""
    if labels.ndim == 1:
        return np.unique(labels)
    seen = np.zeros(256, bool)
    for chip in labels:
        seen |= np.bincount(chip.ravel(), minlength=256) > 0
    return np.flatnonzero(seen)


def _array(path: Path, dtypes: tuple[str, ...], axes: int | None = None) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run `rvk chip` first")
    try:
        # An empty array cannot be mapped.
        array = np.load(path, mmap_mode="r" if path.stat().st_size > 4096 else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable .npy file ({error}); run `rvk chip` again") from None
    if array.dtype.name not in dtypes:
        raise ValueError(f"{path}: dtype is {array.dtype.name}, expected {' or '.join(dtypes)}")
    if axes is not None and array.ndim != axes:
        raise ValueError(f"{path}: shape is {array.shape}, expected {axes} axes")
    return array


def _table(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run `rvk chip` first")
    with path.open(newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{path}: no column {missing[0]!r}; expected {', '.join(COLUMNS)}")
        table: dict[str, list[str]] = {name: [] for name in reader.fieldnames}
        for line in reader:
            for name in table:
                table[name].append(line[name])
    return table
