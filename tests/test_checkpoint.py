"""A checkpoint comes back bit for bit, or says that it is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels.checkpoint import Checkpoint, read_checkpoint, read_meta, write_checkpoint


@pytest.fixture
def checkpoint():
    random = np.random.default_rng(0)
    return Checkpoint(
        weights={
            "conv.weight": random.normal(size=(4, 3, 3, 3)).astype(np.float32),
            "bn.scale": np.ones(4, np.float32),
        },
        state={"momentum/conv.weight": random.normal(size=(4, 3, 3, 3)).astype(np.float32), "t": np.array(7)},
        best={"conv.weight": np.zeros((4, 3, 3, 3), np.float32)},
        steps={"loss": np.array([0.1, 0.2])},
        average={"conv.weight": np.full((4, 3, 3, 3), 0.5, np.float32)},
        meta={"epoch": 3, "loss": 0.1 + 0.2, "log": [{"epoch": 1, "miou": 1 / 3}], "best": None},
    )


def test_round_trip(tmp_path, checkpoint):
    write_checkpoint(tmp_path / "last.npz", checkpoint)
    back = read_checkpoint(tmp_path / "last.npz")
    assert back.meta == checkpoint.meta
    for group in ("weights", "state", "best", "steps", "average"):
        written, read = getattr(checkpoint, group), getattr(back, group)
        assert written.keys() == read.keys()
        for name, array in written.items():
            assert array.dtype == read[name].dtype
            np.testing.assert_array_equal(array, read[name])
    assert [p.name for p in tmp_path.iterdir()] == ["last.npz"]


def test_the_same_checkpoint_is_the_same_file(tmp_path, checkpoint):
    write_checkpoint(tmp_path / "a.npz", checkpoint)
    write_checkpoint(tmp_path / "b.npz", checkpoint)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "flip", "encrypted", "header", "text", "empty", "pickle"])
def test_damage_is_found_and_the_file_named(tmp_path, checkpoint, damage):
    path = tmp_path / "last.npz"
    write_checkpoint(path, checkpoint)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        at = data.index(checkpoint.weights["conv.weight"].tobytes())
        data[at + 5] ^= 1
    elif damage == "encrypted":  # one bit of the archive's directory
        data[data.index(b"PK\x01\x02") + 8] |= 1
    elif damage == "header":
        header = data.index(b"'shape': ")
        data[header + 9] = ord("{")
    elif damage == "text":
        data = bytearray(b"weights, honestly")
    elif damage == "empty":
        data = bytearray()
    elif damage == "pickle":
        np.savez(path, meta=np.array({"a": 1}, dtype=object))
        data = bytearray(path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"last\.npz: not a readable checkpoint .*delete it"):
        read_checkpoint(path)


def test_foreign_npz(tmp_path):
    np.savez(tmp_path / "a.npz", meta=np.array('{"format": 99}'))
    with pytest.raises(ValueError, match="another format"):
        read_checkpoint(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", meta=np.array('{"format": 2, "members": ["stray"]}'), stray=np.zeros(3))
    with pytest.raises(ValueError, match="unknown member 'stray'"):
        read_checkpoint(tmp_path / "b.npz")


def test_a_member_that_disappeared(tmp_path, checkpoint):
    """The archive is whole, and each member's checksum is right."""
    write_checkpoint(tmp_path / "last.npz", checkpoint)
    with np.load(tmp_path / "last.npz") as file:
        members = {name: file[name] for name in file.files if name != "steps/loss"}
    np.savez(tmp_path / "last.npz", **members)
    for read in (read_checkpoint, read_meta):
        with pytest.raises(ValueError, match=r"last\.npz: arrays are missing"):
            read(tmp_path / "last.npz")


@pytest.mark.parametrize("meta", ["[1, 2]", '"text"'])
def test_meta_that_is_no_object(tmp_path, meta):
    np.savez(tmp_path / "a.npz", meta=np.array(meta))
    with pytest.raises(ValueError, match="another format"):
        read_checkpoint(tmp_path / "a.npz")


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "last.npz")


def test_an_interrupted_write_keeps_the_old_checkpoint(tmp_path, checkpoint, monkeypatch):
    path = tmp_path / "last.npz"
    write_checkpoint(path, checkpoint)
    before = path.read_bytes()

    def broken(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="no space"):
        write_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.npz"]
