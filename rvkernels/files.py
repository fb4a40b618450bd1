"""Files that appear whole or not at all: write to a temporary name beside the target, then rename."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` with the same suffix; renamed to `path` when the block ends without an error.

    The block may write a file or make a folder under the temporary path. After an error, or a kill, `path` is as it
    was before; what an earlier killed writer left is removed by the next one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.part{glob.escape(path.suffix)}"):
        remove(stale)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.part{path.suffix}"
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Let one process at a time into the block: `path` is a file for this alone. The lock ends with the process."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has no such number."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def to_json(value: object) -> object:
    """`value` with NumPy's numbers and arrays as Python's, and numbers that are not finite as None: JSON has none."""
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_json(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike) -> object:
    """Read JSON; a ValueError names the file when it is not."""
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
