"""Which pixels are for training, which for choosing a model, and which for the final test.

A split is decided before anything looks at pixels: statistics and chips are then taken inside a split's regions.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from rvkernels import vector_split
from rvkernels.ops import philox
from rvkernels.registry import suggest
from rvkernels.scene import Region, Scene, edges

SPLITS = ("train", "val", "test")
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
KEYS = {
    "listed": ("by", "train", "val", "test"),
    "group": ("by", "train", "val", "test", "seed"),
    "scene": ("by", "train", "val", "test", "seed"),
    "folds": ("by", "count", "fold", "seed"),
    "blocks": ("by", "train", "val", "test", "seed", "size", "margin"),
    "vector": ("by", "file", "attribute", "layer", "size"),
}
_OP_ORDER = 100  # philox stream of the order in which scenes or blocks are dealt out


def check_settings(settings: dict, where: str = "split") -> None:
    """Raise ValueError naming `where` and the key when `split` could not use these settings, whatever the scenes;
    FileNotFoundError when the file of polygons is not there.

    by: listed  train, val, test: lists of scene ids or patterns (*, ?); without them the publisher's own split
    by: group   train, test and val: lists of groups (sites, cities, tiles: what the dataset's description calls
                {group}) or patterns; one of them may be a share in (0, 1): so much of the scenes of the training groups
    by: scene   train, val, test: shares of the scenes that add up to 1 (0.7, 0.15, 0.15), drawn by `seed`; scenes that
                have a class are drawn class by class
    by: folds   cross-validation: scenes dealt into `count` parts of nearly the same size, class by class and group by
                group, in an order drawn by `seed`; part `fold` (from 0) is the test split, the next one (after the last
                the first) validation, the others training. Over all folds every scene is tested once
    by: blocks  shares of square blocks of `size` pixels in every scene, drawn by `seed`; `margin` pixels between blocks
                of different splits are in none
    by: vector  polygons of `file` (GeoJSON, GPKG, ...; of a `layer` where it has several), whose `attribute` ("split")
                is train, val or test: blocks of about `size` pixels that those of a split cover wholly are in it, all
                others in none; without a size only whole scenes are (rvkernels/vector_split.py)
    """
    by = settings.get("by")
    if by not in KEYS:
        raise ValueError(f"{where}: by: no {by!r}; {suggest(str(by), KEYS)}")
    for key in settings:
        if key not in KEYS[by]:
            raise ValueError(f"{where}: unknown key {key!r} for by: {by}; {suggest(key, KEYS[by])}")
    given = {s: settings[s] for s in SPLITS if s in settings}
    if by == "listed" and given:
        _check_lists(given, SPLITS, where)
    elif by == "group":
        shares = [s for s, value in given.items() if not isinstance(value, (list, tuple))]
        if "train" in shares or len(shares) > 1:
            raise ValueError(f"{where}: train is a list of groups, and at most one of val and test a share of it")
        _check_lists({s: v for s, v in given.items() if s not in shares}, [s for s in SPLITS if s not in shares], where)
        for s in shares:
            if not 0 < given[s] < 1:
                raise ValueError(f"{where}: {s}: expected groups or a share between 0 and 1, got {given[s]!r}")
    elif by in ("scene", "blocks"):
        _shares(settings, where)
    if by == "folds":
        count, fold = settings.get("count"), settings.get("fold")
        if type(count) is not int or count < 3:
            raise ValueError(f"{where}: count: expected at least 3 parts, one for each split, got {count!r}")
        if type(fold) is not int or not 0 <= fold < count:
            raise ValueError(f"{where}: fold: expected a part from 0 to {count - 1}, got {fold!r}")
    if by == "blocks":
        size, margin = settings.get("size"), settings.get("margin", 0)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{where}: size: expected the edge of a block in pixels, got {size!r}")
        if not isinstance(margin, int) or not 0 <= 2 * margin < size:
            raise ValueError(f"{where}: margin: expected 0 to less than half of size {size}, got {margin!r}")
    if by == "vector":
        file, size = settings.get("file"), settings.get("size")
        if not isinstance(file, str):
            raise ValueError(f"{where}: file: expected the path of a file of polygons, got {file!r}")
        if not Path(file).is_file():
            raise FileNotFoundError(f"{where}: file: no file {file}; the path is relative to the working directory")
        if size is not None and (type(size) is not int or size < 1):
            raise ValueError(f"{where}: size: expected the edge of a block in pixels, got {size!r}")


def split(scenes: Iterable[Scene] | Mapping[str, Scene], settings: dict) -> list[Region]:
    """Regions of the three splits, in the order of SPLITS, then of the scenes, then by row and column.

    settings    see `check_settings`
    Raises ValueError when an id, a group or a pattern fits no scene, a scene would be in two splits, or a split has
    no scene.
    """
    check_settings(settings)
    scenes = list(scenes.values() if isinstance(scenes, Mapping) else scenes)
    if settings["by"] == "blocks":
        regions = _blocks(scenes, settings)
    elif settings["by"] == "vector":
        regions = vector_split.regions(scenes, SPLITS, **{k: v for k, v in settings.items() if k != "by"})
    else:
        ways = {"listed": _listed, "group": _group, "scene": _scene, "folds": _folds}
        chosen = ways[settings["by"]](scenes, settings)
        regions = [Region(s.id, 0, 0, s.rows, s.cols, chosen[s.id]) for s in scenes if s.id in chosen]
    order = {s.id: i for i, s in enumerate(scenes)}
    regions.sort(key=lambda r: (SPLITS.index(r.split), order[r.scene], r.row, r.col))
    for name in SPLITS:
        if not any(r.split == name for r in regions):
            raise ValueError(
                f"split: zero scenes in {name!r} (by: {settings['by']}, {len(scenes)} scenes in all); give it some"
            )
    return regions


def _check_lists(given: dict, expected: Iterable[str], where: str) -> None:
    for s in expected:
        if s not in given:
            raise ValueError(f"{where}: {s} is missing; train, val and test are all needed")
        value = given[s]
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{where}: {s}: expected a list of names, got {value!r}")


def _shares(settings: dict, where: str = "split") -> np.ndarray:
    if not any(s in settings for s in SPLITS):
        return np.array([SHARES[s] for s in SPLITS])
    for s in SPLITS:
        value = settings.get(s)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ValueError(f"{where}: {s}: expected a share between 0 and 1, got {value!r}")
    shares = np.array([settings[s] for s in SPLITS], np.float64)
    if abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"{where}: the shares of train, val and test add up to {shares.sum():g}, expected 1")
    return shares


def _fitting(patterns: Iterable[str], names: Iterable[str], what: str) -> dict[str, None]:
    """Names that fit one of the patterns, in the patterns' order."""
    names, found = list(dict.fromkeys(names)), {}
    for pattern in patterns:
        fit = [n for n in names if n == pattern] or [n for n in names if fnmatch.fnmatchcase(n, pattern)]
        if not fit:
            shown = names if len(names) <= 20 else []
            hint = suggest(pattern, shown or _near(pattern, names))
            raise ValueError(f"split: no {what} {pattern!r}; {hint}")
        found.update(dict.fromkeys(fit))
    return found


def _near(name: str, names: list[str]) -> list[str]:
    """The few of many names that begin most like `name`."""
    start = max(range(len(name) + 1), key=lambda k: k if any(n.startswith(name[:k]) for n in names) else -1)
    return [n for n in names if n.startswith(name[:start])][:5]


def _assign(chosen: dict[str, str], ids: Iterable[str], name: str) -> None:
    for i in ids:
        if chosen.setdefault(i, name) != name:
            raise ValueError(f"split: scene {i!r} is in two splits, {chosen[i]} and {name}; take it out of one")


def _listed(scenes: list[Scene], settings: dict) -> dict[str, str]:
    if not any(s in settings for s in SPLITS):
        unknown = sorted({s.split for s in scenes if s.split is not None} - set(SPLITS))
        if unknown:
            raise ValueError(f"split: the dataset has a split {unknown[0]!r}; {suggest(unknown[0], SPLITS)}")
        return {s.id: s.split for s in scenes if s.split is not None}
    chosen: dict[str, str] = {}
    for name in SPLITS:
        _assign(chosen, _fitting(settings[name], (s.id for s in scenes), "scene"), name)
    return chosen


def _group(scenes: list[Scene], settings: dict) -> dict[str, str]:
    chosen: dict[str, str] = {}
    part = None
    for name in SPLITS:
        if not isinstance(settings[name], (list, tuple)):
            part = name
            continue
        groups = _fitting(settings[name], (s.group for s in scenes), "group")
        _assign(chosen, [s.id for s in scenes if s.group in groups], name)
    if part is not None:
        train = [s.id for s in scenes if chosen.get(s.id) == "train"]
        order = philox.permutation(len(train), settings.get("seed", 0), 0, op=_OP_ORDER)
        for k in order[: _count(settings[part], len(train))]:
            chosen[train[k]] = part
    return chosen


def _count(share: float, n: int) -> int:
    """`share` of n things, at least one and not all, when there are two or more."""
    return int(np.clip(np.floor(share * n + 0.5), min(1, n), max(n - 1, 0)))


def _scene(scenes: list[Scene], settings: dict) -> dict[str, str]:
    shares = _shares(settings)
    classes = list(dict.fromkeys(s.class_name for s in scenes))
    chosen: dict[str, str] = {}
    for k, class_name in enumerate(classes):
        ids = [s.id for s in scenes if s.class_name == class_name]
        order = philox.permutation(len(ids), settings.get("seed", 0), k, op=_OP_ORDER)
        for part, index in zip(SPLITS, _deal(order, shares)):
            _assign(chosen, [ids[i] for i in index], part)
    return chosen


def _folds(scenes: list[Scene], settings: dict) -> dict[str, str]:
    count, fold = settings["count"], settings["fold"]
    kinds = list(dict.fromkeys((s.class_name, s.group) for s in scenes))
    dealt = []  # kind after kind, so that cards dealt in turn spread each of them over all parts
    for k, kind in enumerate(kinds):
        ids = [s.id for s in scenes if (s.class_name, s.group) == kind]
        dealt += [ids[i] for i in philox.permutation(len(ids), settings.get("seed", 0), k, op=_OP_ORDER)]
    splits = {fold: "test", (fold + 1) % count: "val"}
    return {scene: splits.get(i % count, "train") for i, scene in enumerate(dealt)}


def _deal(order: np.ndarray, shares: np.ndarray) -> list[np.ndarray]:
    """`order` cut into three pieces of these shares; val and test get at least one when there are three or more."""
    n = len(order)
    val, test = (max(int(np.floor(share * n + 0.5)), 1 if n >= 3 else 0) for share in shares[1:])
    while val + test >= n > 0:
        val, test = (val - 1, test) if val >= test else (val, test - 1)
    return [order[val + test :], order[:val], order[val : val + test]]


def _blocks(scenes: list[Scene], settings: dict) -> list[Region]:
    """Blocks of every scene, dealt out scene by scene.

    The blocks of a scene fill it: its rows are cut into round(rows / size) strips of nearly equal height, and so its
    columns. A block loses `margin` rows at its top where the block above is of another split, and columns at its left
    likewise; and rows when only the block above and to the left is. So pixels of different splits are at least `margin`
    rows or columns apart; blocks that meet at their other corners are, since one of them differs from the block above
    it or to its left.
    """
    size, margin = settings["size"], settings.get("margin", 0)
    shares = _shares(settings)
    regions = []
    for k, scene in enumerate(scenes):
        rows, cols = (edges(n, size) for n in (scene.rows, scene.cols))
        shape = (len(rows) - 1, len(cols) - 1)
        order = philox.permutation(shape[0] * shape[1], settings.get("seed", 0), k, op=_OP_ORDER)
        parts = np.empty(order.size, np.int64)
        for part, index in enumerate(_deal(order, shares)):
            parts[index] = part
        parts = parts.reshape(shape)
        for i in range(shape[0]):
            for j in range(shape[1]):
                above, left, corner = (
                    i >= di and j >= dj and parts[i - di, j - dj] != parts[i, j] for di, dj in ((1, 0), (0, 1), (1, 1))
                )
                row = rows[i] + margin * (above or (corner and not left))
                col = cols[j] + margin * left
                regions.append(
                    Region(
                        scene.id,
                        int(row),
                        int(col),
                        int(rows[i + 1] - row),
                        int(cols[j + 1] - col),
                        SPLITS[parts[i, j]],
                    )
                )
    return regions
