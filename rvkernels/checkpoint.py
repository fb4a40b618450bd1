"""A checkpoint: weights, optimizer state and counters in one .npz file, whole or not at all.

Arrays are named weights/<name>, state/<name>, best/<name> (the best weights so far) and steps/<name> (one value per
training step); `meta` is JSON. numpy.load opens the file without this module.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np

from rvkernels.files import atomic

FORMAT = 1
_GROUPS = ("weights", "state", "best", "steps")


@dataclass
class Checkpoint:
    """What a training needs to go on, or a prediction to start.

    meta has JSON values only; Python's JSON keeps every float64 exactly.
    """

    weights: dict[str, np.ndarray]
    meta: dict
    state: dict[str, np.ndarray] = field(default_factory=dict)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    steps: dict[str, np.ndarray] = field(default_factory=dict)


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write atomically: after a kill at any moment `path` holds the old checkpoint or the new one."""
    meta = json.dumps({"format": FORMAT, **checkpoint.meta}, allow_nan=False)
    arrays = {f"{group}/{name}": a for group in _GROUPS for name, a in getattr(checkpoint, group).items()}
    with atomic(path) as temporary:
        np.savez(temporary, meta=np.array(meta), **arrays)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the whole file. FileNotFoundError when there is none; ValueError naming it when it is damaged."""
    # Every member is read, so that zip's CRC of each is checked here and not in the middle of a training.
    meta, arrays = _read(Path(path), lambda members: [name for name in members if name != "meta"])
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
    for name, array in arrays.items():
        group, _, rest = name.partition("/")
        if group not in groups:
            raise ValueError(f"{path}: unknown member {name!r}; expected names under {', '.join(_GROUPS)}")
        groups[group][rest] = array
    return Checkpoint(meta=meta, **groups)


def read_meta(path: str | Path) -> dict:
    """`meta` alone, without reading the arrays. FileNotFoundError, or ValueError naming the file."""
    return _read(Path(path), lambda members: [])[0]


def _read(path: Path, wanted: Callable[[list[str]], list[str]]) -> tuple[dict, dict[str, np.ndarray]]:
    """`meta` without the format, and those of the other members that `wanted` chooses."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; run `rvk train` first")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            arrays = {name: file[name] for name in wanted(file.files)}
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, NotImplementedError) as error:
        raise ValueError(
            f"{path}: not a readable checkpoint ({error}); delete it to train again from the start"
        ) from None
    if meta.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: a checkpoint of another format; delete it to train again from the start")
    return meta, arrays
