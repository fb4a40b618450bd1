"""A checkpoint: weights, optimizer state and counters in one .npz file, whole or not at all.

Arrays are named weights/<name>, state/<name>, best/<name> (the best weights so far), steps/<name> (one value per
training step) and average/<name> (the moving average of the weights, where there is one); `meta` is JSON. numpy.load
opens the file without this module. Beside zip's checksums of the members, `meta` lists their names, since damage to the
archive's directory can make one disappear.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rvkernels.files import atomic

FORMAT = 2
_GROUPS = ("weights", "state", "best", "steps", "average")


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
    average: dict[str, np.ndarray] = field(default_factory=dict)


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write atomically: after a kill at any moment `path` holds the old checkpoint or the new one."""
    arrays = {f"{group}/{name}": a for group in _GROUPS for name, a in getattr(checkpoint, group).items()}
    meta = json.dumps({"format": FORMAT, "members": list(arrays), **checkpoint.meta}, allow_nan=False)
    with atomic(path) as temporary:
        np.savez(temporary, meta=np.array(meta), **arrays)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the whole file. FileNotFoundError when there is none; ValueError naming it when it is damaged."""
    # Every member is read, so that zip's CRC of each is checked here and not in the middle of a training.
    meta, arrays = _read(Path(path))
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
    for name, array in arrays.items():
        group, _, rest = name.partition("/")
        if group not in groups:
            raise ValueError(f"{path}: unknown member {name!r}; expected names under {', '.join(_GROUPS)}")
        groups[group][rest] = array
    return Checkpoint(meta=meta, **groups)


def read_meta(path: str | Path) -> dict:
    """`meta` alone, without reading the arrays. FileNotFoundError, or ValueError naming the file."""
    return _read(Path(path), meta_only=True)[0]


def _read(path: Path, *, meta_only: bool = False) -> tuple[dict, dict[str, np.ndarray]]:
    """`meta` without the format and the members' names, and the members."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; run `rvk train` first")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            names = [name for name in file.files if name != "meta"]
            arrays = {} if meta_only else {name: file[name] for name in names}
    except Exception as error:  # damaged bytes make zipfile, zlib, tokenize, json and NumPy raise nearly everything
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: not a readable checkpoint ({reason}); delete it to train again from the start"
        ) from None
    if not isinstance(meta, dict) or meta.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: a checkpoint of another format; delete it to train again from the start")
    if meta.pop("members", None) != names:
        raise ValueError(f"{path}: arrays are missing; delete it to train again from the start")
    return meta, arrays
