"""Files in the download folder: from mirrors and by hand, verified, unpacked once, shared by processes."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from rvkernels import cache
from rvkernels.cache import check_by_hand, obtain
from rvkernels.checksums import record, verify
from rvkernels.fetch import fetch
from rvkernels.study import Study

DATA = bytes(range(256)) * 20_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str = "a.bin", data: bytes = DATA, **more: object) -> dict:
    return {"name": name, "urls": [], "optional": False, "sha256": sha256(data), **more}


def test_wrong_file_in_the_mirror_is_an_error(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"a\.bin: wrong checksum: .*\(in the mirror\)"):
        obtain(entry(), tmp_path / "name", tmp_path)
    assert (tmp_path / "a.bin").exists()


def test_missing_mirror_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such mirror folder"):
        obtain(entry(), tmp_path / "name", tmp_path / "nowhere")


def test_a_file_put_by_hand_is_verified(tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    assert obtain(entry(), tmp_path) == tmp_path / "a.bin"
    (tmp_path / "b.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"b\.bin: wrong checksum.*remove the file"):
        obtain(entry("b.bin"), tmp_path)


def test_a_changed_file_and_a_changed_checksum_are_noticed(tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    obtain(entry(), tmp_path)
    with pytest.raises(ValueError, match="wrong checksum"):
        obtain(entry(data=b"something else"), tmp_path)
    (tmp_path / "a.bin").write_bytes(DATA[::-1])
    with pytest.raises(ValueError, match="wrong checksum"):
        obtain(entry(), tmp_path)


def test_md5_alone_is_enough(tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    wanted = {"name": "a.bin", "urls": [], "optional": False, "md5": hashlib.md5(DATA).hexdigest()}
    assert verify(tmp_path / "a.bin", wanted) == {"bytes": len(DATA), "sha256": sha256(DATA)}
    with pytest.raises(ValueError, match=r"md5 expected 0{32}, got"):
        verify(tmp_path / "a.bin", {**wanted, "md5": "0" * 32})


def test_a_size_alone_is_checked(tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    wanted = {"name": "a.bin", "urls": [], "optional": False, "bytes": 12}
    with pytest.raises(ValueError, match=r"a\.bin: wrong size: expected 12 bytes, got 5,120,000; remove the file"):
        obtain(wanted, tmp_path)


def test_what_is_first_seen_is_locked_for_every_machine(tmp_path):
    wanted = {"name": "a.bin", "urls": [], "optional": False}
    lock = tmp_path / "mine.lock.json"
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "a.bin").write_bytes(DATA)
    obtain(wanted, tmp_path / "one", lock=lock)
    seen = {"a.bin": {"bytes": len(DATA), "sha256": sha256(DATA)}}
    assert json.loads(lock.read_text()) == seen
    obtain(wanted, tmp_path / "two", lock=lock)
    for machine in ("one", "two"):
        (tmp_path / machine / "a.bin").write_bytes(b"other")
        with pytest.raises(ValueError, match=rf"a\.bin: wrong checksum: sha256 expected {sha256(DATA)}") as error:
            obtain(wanted, tmp_path / machine, lock=lock)
        assert str(error.value).endswith(f"if the new one is to be trusted, take a.bin out of {lock}")
    assert json.loads(lock.read_text()) == seen
    # As the message says.
    lock.write_text("{}")
    obtain(wanted, tmp_path / "one", lock=lock)
    assert json.loads(lock.read_text())["a.bin"]["sha256"] == sha256(b"other")


def test_a_lock_that_comes_later_is_held_against_what_is_there(tmp_path):
    wanted = {"name": "a.bin", "urls": [], "optional": False}
    lock = tmp_path / "mine.lock.json"
    (tmp_path / "a.bin").write_bytes(DATA)
    obtain(wanted, tmp_path, lock=lock)
    lock.write_text(json.dumps({"a.bin": {"sha256": "0" * 64}}))
    with pytest.raises(ValueError, match=rf"wrong checksum: sha256 expected 0{{64}}, got {sha256(DATA)}"):
        obtain(wanted, tmp_path, lock=lock)


def test_a_published_checksum_needs_no_lock(tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    lock = tmp_path / "mine.lock.json"
    lock.write_text(json.dumps({"a.bin": {"sha256": "0" * 64}}))
    obtain(entry(), tmp_path, lock=lock)
    lock.unlink()
    obtain(entry(), tmp_path, lock=lock)
    assert not lock.exists()


def test_the_lock_file_is_written_by_one_at_a_time(tmp_path):
    lock = tmp_path / "mine.lock.json"
    with (tmp_path / ".mine.lock.json.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        other = threading.Thread(target=record, args=(lock, "a", {"sha256": "0" * 64}))
        other.start()
        other.join(0.5)
        assert not lock.exists()
        lock.write_text(json.dumps({"b": {"sha256": "1" * 64}}))
        fcntl.flock(held, fcntl.LOCK_UN)
    other.join()
    assert sorted(json.loads(lock.read_text())) == ["a", "b"]


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("rvkernels.checksums.write_json", refuse)
    (tmp_path / "a.bin").write_bytes(DATA)
    with pytest.raises(ValueError, match=rf"cannot be written to .*give its sha256 .*: {sha256(DATA)}"):
        obtain({"name": "a.bin", "urls": [], "optional": False}, tmp_path, lock=tmp_path / "mine.lock.json")


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:" + path.suffix[1:]) as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def test_a_compressed_tar_is_unpacked_once_and_again_when_it_changed(tmp_path, caplog):
    path = packed(tmp_path / "x.tar.gz", {"a/1.txt": b"one", "a/2.txt": b"two"})
    wanted = {"name": path.name, "urls": [], "optional": False}
    caplog.set_level("INFO")
    for _ in range(2):
        folder = obtain(wanted, tmp_path)
        assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.txt")} == {
            "a/1.txt": b"one",
            "a/2.txt": b"two",
        }
    assert caplog.text.count("unpacking") == 1
    (folder / "a/2.txt").unlink()
    assert (obtain(wanted, tmp_path) / "a/2.txt").read_bytes() == b"two"
    packed(path, {"b.txt": b"three"})
    assert [p.name for p in obtain(wanted, tmp_path).iterdir()] == ["b.txt"]


def test_an_unpacking_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = packed(tmp_path / "x.tar.gz", {"a/1.txt": b"one", "a/2.txt": b"two"})
    wanted = {"name": path.name, "urls": [], "optional": False}

    def killed(archive: Path, folder: Path, *_: object, **__: object) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.archive, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            obtain(wanted, tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
    assert sorted(p.name for p in (obtain(wanted, tmp_path) / "a").iterdir()) == ["1.txt", "2.txt"]


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_what_can_be_read_in_place_is(tmp_path, name):
    path = tmp_path / name
    if name == "x.zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    else:
        packed(path, {"a.txt": b"a"})
    assert obtain({"name": name, "urls": [], "optional": False}, tmp_path) == path


HAND = {
    "title": "By hand",
    "tasks": ["segmentation"],
    "form": "geojson",
    "layout": {"images": "{name}.tif"},
    "classes": [{"name": "a"}],
    "bands": ["red"],
    "licence": "none",
    "files": [{"name": "a.zip"}, {"name": "b.zip"}, {"name": "c.zip", "optional": True}],
    "get": "Ask the publisher for both.",
}


def describe(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**HAND, **changes}))
    return path


def test_all_that_is_to_be_got_by_hand_is_said_at_once(tmp_path):
    one = describe(tmp_path / "one.yaml")
    two = describe(
        tmp_path / "two.yaml", get="Register.", files=[{"name": "d.zip"}, {"name": "e", "urls": ["http://e"]}]
    )
    downloads, mirror = tmp_path / "downloads", tmp_path / "mirror"
    (mirror / "one").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        check_by_hand([one, two], downloads, mirror)
    assert str(error.value) == (
        f"files that have no URL are to be got by hand (not in the mirror {mirror}): "
        f"one: put a.zip and b.zip into {downloads}/one. Ask the publisher for both. "
        f"two: put d.zip into {downloads}/two. Register."
    )
    with pytest.raises(FileNotFoundError, match=r"\(no mirror is set\): one: put a\.zip and b\.zip"):
        fetch(one, downloads)
    for path in (mirror / "one" / "a.zip", downloads / "one" / "b.zip", mirror / "d.zip"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    check_by_hand([one, two], downloads, mirror)
    with pytest.raises(FileNotFoundError, match=r"one: put a\.zip into .*two: put d\.zip into"):
        check_by_hand([one, two], downloads)
    # Nobody knows what a server has before it is asked.
    check_by_hand([one, two], downloads, "https://mirror.invalid")


def test_a_study_says_it_before_any_job(tmp_path, monkeypatch):
    monkeypatch.delenv("RVK_MIRROR", raising=False)
    one, two = describe(tmp_path / "one.yaml"), describe(tmp_path / "two.yaml", files=[{"name": "d.zip"}])
    experiment = {"task": "segmentation", "chip": {"size": 64}, "models": {"unet": {}}}
    config = {
        "study": "mine",
        "downloads": str(tmp_path / "downloads"),
        "experiments": {path.stem: {**experiment, "dataset": str(path)} for path in (one, two)},
    }
    study = Study.resolve(config, datasets=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"one: put a\.zip and b\.zip into .*two: put d\.zip into"):
        study.check_files(tmp_path / "results")
    done = tmp_path / "results" / "data" / "one" / "scenes.jsonl"
    done.parent.mkdir(parents=True)
    done.touch()
    with pytest.raises(FileNotFoundError, match=r"\): two: put d\.zip into"):
        study.check_files(tmp_path / "results")


def test_two_processes_take_turns(tmp_path):
    folder, mirror = tmp_path / "name", tmp_path / "mirror"
    folder.mkdir()
    mirror.mkdir()
    (mirror / "a.bin").write_bytes(DATA)
    with (folder / ".a.bin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = (
            "import json, pathlib, sys; from rvkernels.cache import obtain; print('ready', flush=True); "
            "obtain(json.loads(sys.argv[1]), *map(pathlib.Path, sys.argv[2:]))"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(entry()), folder, mirror], cwd=tmp_path, stdout=subprocess.PIPE
        )
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
        assert not (folder / "a.bin").exists()
        fcntl.flock(lock, fcntl.LOCK_UN)
        other.communicate(timeout=30)
    assert other.returncode == 0
    assert (folder / "a.bin").stat().st_size == len(DATA)


def test_mirror_on_another_file_system_is_copied(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a.bin").write_bytes(DATA)
    assert obtain(entry(), tmp_path / "name", tmp_path).read_bytes() == DATA


def test_two_processes_unpack_and_lock_at_once(tmp_path):
    names = ["x.tar.gz", "y.tar.gz"]
    for name in names:
        packed(tmp_path / name, {f"{i}.txt": b"text" for i in range(200)})
    code = (
        "import json, pathlib, sys; from rvkernels.cache import obtain; print('ready', flush=True); sys.stdin.read(); "
        "root = pathlib.Path(sys.argv[1]); "
        "[obtain({'name': n, 'urls': [], 'optional': False}, root, lock=root / 'l.lock.json') for n in sys.argv[2:]]"
    )
    # Each begins with another file, so that they meet at the lock file, too.
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path, *order], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for order in (names, names[::-1])
    ]
    for process in started:
        assert process.stdout.readline() == b"ready\n"
    for process in started:
        process.stdin.close()
    for process in started:
        assert process.wait(60) == 0
        process.stdout.close()
    assert sorted(json.loads((tmp_path / "l.lock.json").read_text())) == names
    assert [len(list((tmp_path / f"{name}.unpacked").iterdir())) for name in names] == [200, 200]
