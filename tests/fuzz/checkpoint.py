"""The checkpoint reader on files that were cut, overwritten and put together wrongly."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from run import clear

from rvkernels.checkpoint import Checkpoint, read_checkpoint, read_meta, write_checkpoint


def made(rng: np.random.Generator, path: Path) -> Checkpoint:
    """A checkpoint with odd shapes and names, written to `path`."""

    def arrays() -> dict[str, np.ndarray]:
        shapes = [tuple(rng.integers(0, 5, rng.integers(0, 4)).tolist()) for _ in range(rng.integers(0, 4))]
        return {f"layer{i}/weight": rng.standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)}

    meta = {"epoch": int(rng.integers(0, 9)), "note": "ä"}
    checkpoint = Checkpoint(arrays(), meta, arrays(), arrays(), arrays(), arrays())
    write_checkpoint(path, checkpoint)
    return checkpoint


def overwritten(rng: np.random.Generator, data: bytearray) -> bytearray:
    for at in rng.integers(0, len(data), rng.integers(1, 6)):
        data[at] = rng.integers(0, 256)
    return data


def cut(rng: np.random.Generator, data: bytearray) -> bytearray:
    return data[: rng.integers(0, len(data))]


def repacked(rng: np.random.Generator, data: bytearray) -> bytearray:
    """A whole archive with members left out, damaged inside, or of another kind."""
    members = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            content = bytearray(archive.read(name))
            kind = rng.integers(0, 8)
            if kind == 0:
                continue
            if kind == 1 and content:
                content = overwritten(rng, content)
            if kind == 2 and content:
                content = cut(rng, content)
            members.append((name, bytes(content)))
    if rng.integers(0, 4) == 0:
        stream = io.BytesIO()
        kinds = [np.array(json.dumps([1, 2])), np.array(json.dumps({"format": 99})), np.array("{"), np.arange(3)]
        np.save(stream, kinds[rng.integers(0, len(kinds))])
        members.append(("meta.npy", stream.getvalue()))
    if rng.integers(0, 6) == 0:
        members.append(("other/name.npy", b"no array"))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in dict(members).items():
            archive.writestr(name, content)
    return bytearray(stream.getvalue())


def same(got: Checkpoint, want: Checkpoint) -> None:
    assert got.meta == want.meta
    for group in ("weights", "state", "best", "steps"):
        ours, theirs = getattr(got, group), getattr(want, group)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def round(rng: np.random.Generator, folder: Path) -> None:
    path = folder / "last.npz"
    written = made(rng, path)
    same(read_checkpoint(path), written)
    change = (overwritten, cut, repacked)[rng.integers(0, 3)]
    path.write_bytes(change(rng, bytearray(path.read_bytes())))
    got = clear(read_checkpoint, path)
    if got is not None and change is not repacked:  # zip's checksums see every change of a member
        same(got, written)
    clear(read_meta, path)
