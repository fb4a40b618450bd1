"""What splits of a study have in common that they should not: ground, or pictures.

Chips of two splits that show the same ground are an error, whatever scene each is of: a test over them says nothing.
Chips that look alike (rvkernels/duplicates.py) may be honest, such as two pictures of open water, and are a warning.
Chips are what is compared: where `limit` leaves out chips of the test, their ground is predicted, but not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from rvkernels import raster
from rvkernels.chips import Chips
from rvkernels.duplicates import duplicates
from rvkernels.files import write_json
from rvkernels.scene import Scene
from rvkernels.split import SPLITS

FILE = "leaks.json"  # in the chips folder
# Neighbouring images, each on its own grid, share a part of a pixel along their border. Every chip is made smaller by
# so much of its pixels on each side, so that what is left of two overlaps when they share more than half a pixel.
MARGIN = 0.25
_AT_ONCE = 4096  # chips that are looked up together; the search ends with the first that finds something

log = logging.getLogger("rvkernels")


@dataclass(frozen=True)
class Places:
    """Where chips lie: chip i is the window of `size` (rows, columns) at row[i], col[i] of scenes[scene[i]].

    scene, row, col  (n,) int64
    split            (n,) index in SPLITS
    """

    scenes: list[Scene]
    scene: np.ndarray
    row: np.ndarray
    col: np.ndarray
    split: np.ndarray
    size: tuple[int, int]

    @staticmethod
    def of(chips: Chips, scenes: Mapping[str, Scene]) -> Places:
        """Those of a chips folder. Raises ValueError when a chip's scene is not in `scenes`."""
        number = {name: i for i, name in enumerate(scenes)}
        unknown = next((name for name in chips.table["scene"] if name not in number), None)
        if unknown is not None:
            raise ValueError(
                f"{chips.folder / 'chips.csv'}: no scene {unknown!r} in scenes.jsonl; run `rvk chip` again"
            )
        return Places(
            list(scenes.values()),
            np.array([number[name] for name in chips.table["scene"]], np.int64),
            np.array(chips.table["row"], np.int64),
            np.array(chips.table["col"], np.int64),
            np.array([SPLITS.index(name) for name in chips.table["split"]], np.int64),
            chips.shape,
        )

    def named(self, chip: int) -> str:
        """A chip in the words of an error."""
        scene, split = self.scenes[self.scene[chip]].id, SPLITS[self.split[chip]]
        return f"chip {chip} ({split}, scene {scene}, row {self.row[chip]}, column {self.col[chip]})"


def check(folder: str | Path, scenes: Mapping[str, Scene], *, shared_ground: bool = False) -> None:
    """Look for leaks among the chips of a chips folder, and write what is found to leaks.json in it.

    The file holds

        chips           how many there are in each split
        georeferenced   how many of them were compared by their place on the ground; others by pixels of their scene
        overlap         what two chips of different splits overlap, in words; null where none do
        duplicates      what rvkernels.duplicates found

    Raises ValueError, naming both chips, when two of different splits overlap and the study does not allow it
    (`shared_ground`).
    """
    chips = Chips.open(folder)
    places = Places.of(chips, scenes)
    found = overlap(places)
    shared = None
    if found is not None:
        a, b, share = found
        shared = f"{places.named(a)} and {places.named(b)} show the same ground, {share:.1%} of a chip"
        if not shared_ground:
            raise ValueError(
                f"leak between splits: {shared}; put scenes of one place into one split (by: group, or by: vector), "
                "take out one of them, or, to overfit on purpose, set chip: shared_ground: true"
            )
        log.warning("warning: %s, which the study allows", shared)
    alike = duplicates(chips)
    for pair in alike["pairs"]:
        if pair["exact"] or pair["near"]:
            log.warning(
                "warning: of {of} {split} chips {exact} are in {against}, too, and {near} nearly so".format(**pair)
            )
    on_ground = np.array([scene.crs is not None for scene in places.scenes], bool)
    write_json(
        Path(folder) / FILE,
        {
            "chips": dict(zip(SPLITS, np.bincount(places.split, minlength=len(SPLITS)).tolist())),
            "georeferenced": int(on_ground[places.scene].sum()),
            "overlap": shared,
            "duplicates": alike,
        },
    )


def overlap(places: Places) -> tuple[int, int, float] | None:
    """Two chips of different splits that overlap by more than half a pixel, and by what share of the smaller; or None.

    Chips of scenes with a CRS are compared as the quadrilaterals that they are on the ground, so that two images of one
    place are found out, turned or of another resolution as they may be; without a CRS only chips of one scene are.
    """
    on_ground = np.array([scene.crs is not None for scene in places.scenes], bool)[places.scene]
    for chosen, corners in ((on_ground, _on_ground), (~on_ground, _in_pixels)):
        index = np.flatnonzero(chosen)
        if len(set(places.split[index].tolist())) < 2:
            continue
        shapes = shapely.polygons(corners(places, index))
        shapely.prepare(shapes)
        found = _first(shapes, places.split[index])
        if found is not None:
            a, b = found
            smaller = min(shapely.area(shapes[a]), shapely.area(shapes[b]))
            share = shapely.area(shapely.intersection(shapes[a], shapes[b])) / smaller
            return int(index[a]), int(index[b]), float(share)
    return None


def _first(shapes: np.ndarray, split: np.ndarray) -> tuple[int, int] | None:
    """The numbers of two shapes of different splits that intersect, the first by its number in the later split."""
    members = [np.flatnonzero(split == s) for s in range(len(SPLITS))]
    for s in range(len(SPLITS) - 1):
        others = np.concatenate(members[s + 1 :])
        if not (len(members[s]) and len(others)):
            continue
        tree = shapely.STRtree(shapes[members[s]])
        for begin in range(0, len(others), _AT_ONCE):
            some = others[begin : begin + _AT_ONCE]
            asked, there = tree.query(shapes[some], predicate="intersects")
            if len(asked):
                first = np.lexsort((there, asked))[0]
                return int(members[s][there[first]]), int(some[asked[first]])
    return None


def _windows(places: Places, index: np.ndarray) -> np.ndarray:
    """(n, 4, 2) column, row of the corners of chips that are MARGIN smaller on each side."""
    rows, cols = places.size
    row, col = places.row[index, None] + MARGIN, places.col[index, None] + MARGIN
    high, wide = rows - 2 * MARGIN, cols - 2 * MARGIN
    return np.stack([col + np.array([0, wide, wide, 0]), row + np.array([0, 0, high, high])], -1)


def _on_ground(places: Places, index: np.ndarray) -> np.ndarray:
    """(n, 4, 2) corners of chips in the CRS of all scenes, or in longitude and latitude where they have several."""
    t = np.array([scene.transform for scene in places.scenes], np.float64)[places.scene[index]][:, None]
    col, row = np.moveaxis(_windows(places, index), -1, 0)
    x = t[..., 0] + col * t[..., 1] + row * t[..., 2]
    y = t[..., 3] + col * t[..., 4] + row * t[..., 5]
    corners = np.stack([x, y], -1)
    systems = [scene.crs for scene in places.scenes]
    of = np.array([systems.index(crs) for crs in systems])[places.scene[index]]
    if len(np.unique(of)) > 1:
        for k in np.unique(of):
            mine = of == k
            corners[mine] = raster.reproject(corners[mine].reshape(-1, 2), systems[k], raster.MAP).reshape(-1, 4, 2)
        # A chip on the 180th meridian is not as wide as the Earth.
        first = corners[:, :1, 0]
        corners[..., 0] = first + (corners[..., 0] - first + 180) % 360 - 180
    return corners


def _in_pixels(places: Places, index: np.ndarray) -> np.ndarray:
    """(n, 4, 2) corners of chips in pixels, scenes beside each other so that none meets another."""
    widths = np.array([scene.cols for scene in places.scenes], np.int64)
    begin = np.cumsum([0, *(widths[:-1] + 1)])
    corners = _windows(places, index)
    corners[..., 0] += begin[places.scene[index], None]
    return corners
