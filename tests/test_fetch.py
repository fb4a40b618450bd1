"""Files from anywhere, verified; a loopback server that behaves badly; every bad file an error of one line."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from rvkernels import fetch as module
from rvkernels.fetch import check_archive, obtain, verify

DATA = bytes(range(256)) * 20_000  # 5 MB: some pieces


class Server:
    """An HTTP server on loopback. `behaviour` is a list of what it does with the next requests, the last for ever."""

    def __init__(self, files: dict[str, bytes], behaviour: list[str]) -> None:
        self.files, self.behaviour, self.requests = files, behaviour, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        what = self.behaviour.pop(0) if len(self.behaviour) > 1 else self.behaviour[0]
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        data = self.files.get(handler.path.lstrip("/"))
        handler.close_connection = True
        if data is None or what in ("404", "500", "503"):
            handler.send_error(int(what) if what.isdigit() else 404)
            return
        if what in ("wrong", "wrong drop"):
            data = b"x" * len(data)
        tag = '"%s"' % ("changed" if what == "changed" else "first")
        start = 0
        if wanted and what != "norange" and handler.headers.get("If-Range", tag) == tag:
            start = int(wanted[len("bytes=") :].rstrip("-"))
        if start >= len(data):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("ETag", tag)
        handler.end_headers()
        body = data[start:]
        handler.wfile.write(body[: len(body) // 2] if "drop" in what else body)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = []

    def start(files: dict[str, bytes], *behaviour: str) -> Server:
        started.append(Server(files, list(behaviour) or ["ok"]))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str = "a.bin", data: bytes = DATA, urls: tuple[str, ...] = (), **more: object) -> dict:
    return {"name": name, "urls": list(urls), "optional": False, "sha256": sha256(data), **more}


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if ".part" in p.name]


def test_download_and_a_second_time_without_the_server(serve, tmp_path):
    server = serve({"a.bin": DATA})
    wanted = entry(urls=(f"{server.url}/a.bin",))
    assert obtain(wanted, tmp_path).read_bytes() == DATA
    assert obtain(wanted, tmp_path) == tmp_path / "a.bin"
    assert len(server.requests) == 1
    assert leftovers(tmp_path) == []


def test_drops_are_continued_from_where_they_ended(serve, tmp_path):
    server = serve({"a.bin": DATA}, "drop", "drop", "ok")
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    first, second, third = (r for _, r in server.requests)
    assert first is None
    assert 0 < int(second[6:-1]) < int(third[6:-1]) < len(DATA)


def test_a_killed_download_is_continued(serve, tmp_path):
    server = serve({"a.bin": DATA})
    (tmp_path / ".a.bin.part").write_bytes(DATA[:1000])
    note = {"url": f"{server.url}/a.bin", "validator": '"first"'}
    (tmp_path / ".a.bin.part.json").write_text(json.dumps(note))
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    assert server.requests == [("/a.bin", "bytes=1000-")]


def test_without_range_support_it_starts_again(serve, tmp_path):
    server = serve({"a.bin": DATA}, "drop", "norange")
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_file_that_changes_between_pieces_is_fetched_whole(serve, tmp_path):
    server = serve({"a.bin": DATA}, "wrong drop", "changed")
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    assert [r is None for _, r in server.requests] == [True, False]


def test_a_bad_beginning_is_found_and_fetched_once_more(serve, tmp_path):
    server = serve({"a.bin": DATA})
    (tmp_path / ".a.bin.part").write_bytes(b"x" * 1000)
    note = {"url": f"{server.url}/a.bin", "validator": '"first"'}
    (tmp_path / ".a.bin.part.json").write_text(json.dumps(note))
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    assert [r for _, r in server.requests] == ["bytes=1000-", None]


def test_server_errors_are_retried(serve, tmp_path):
    server = serve({"a.bin": DATA}, "500", "503", "ok")
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    assert len(server.requests) == 3


def test_it_gives_up(serve, tmp_path):
    server = serve({"a.bin": DATA}, "500")
    with pytest.raises(
        FileNotFoundError, match=r"a\.bin: cannot be fetched: .*gave up after 5 attempts: HTTP 500"
    ) as e:
        obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path, get="Ask the publisher")
    assert "Ask the publisher. It can be put by hand at " + str(tmp_path / "a.bin") in str(e.value)
    assert "\n" not in str(e.value)
    assert len(server.requests) == module.ATTEMPTS


def test_the_next_url_is_tried(serve, tmp_path):
    server = serve({"b/a.bin": DATA})
    wanted = entry(urls=(f"{server.url}/a.bin", f"{server.url}/b/a.bin"))
    assert obtain(wanted, tmp_path).read_bytes() == DATA
    assert [p for p, _ in server.requests] == ["/a.bin", "/b/a.bin"]


def test_wrong_bytes_leave_nothing(serve, tmp_path):
    server = serve({"a.bin": DATA}, "wrong")
    with pytest.raises(ValueError, match=r"a\.bin: wrong checksum: sha256 expected \w{64}, got \w{64}.*removed") as e:
        obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "a.bin").exists()
    assert not (tmp_path / ".a.bin.part").exists()


def test_mirror_folder_comes_first(serve, tmp_path):
    server = serve({"a.bin": DATA})
    for i, below in enumerate(("a.bin", "name/a.bin", "elsewhere/a.bin")):
        mirror = tmp_path / f"mirror{i}"
        (mirror / below).parent.mkdir(parents=True)
        (mirror / below).write_bytes(DATA)
        folder = tmp_path / str(i) / "name"
        wanted = entry(urls=(f"{server.url}/a.bin",), mirror="elsewhere/a.bin")
        assert obtain(wanted, folder, mirror).read_bytes() == DATA
        assert obtain(wanted, folder, f"file://{mirror}").read_bytes() == DATA
    assert server.requests == []


def test_mirror_url_comes_first(serve, tmp_path):
    mirror, publisher = serve({"data/name/a.bin": DATA}), serve({"a.bin": DATA})
    wanted = entry(urls=(f"{publisher.url}/a.bin",))
    assert obtain(wanted, tmp_path / "name", f"{mirror.url}/data").read_bytes() == DATA
    assert publisher.requests == []


def test_file_that_the_mirror_lacks_comes_from_its_url(serve, tmp_path):
    server = serve({"a.bin": DATA})
    (tmp_path / "mirror").mkdir()
    wanted = entry(urls=(f"{server.url}/a.bin",))
    assert obtain(wanted, tmp_path / "name", tmp_path / "mirror").read_bytes() == DATA


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
    assert verify(tmp_path / "a.bin", wanted) == sha256(DATA)
    with pytest.raises(ValueError, match=r"md5 expected 0{32}, got"):
        verify(tmp_path / "a.bin", {**wanted, "md5": "0" * 32})


def test_without_a_checksum_the_first_one_is_kept(tmp_path):
    wanted = {"name": "a.bin", "urls": [], "optional": False}
    (tmp_path / "a.bin").write_bytes(DATA)
    obtain(wanted, tmp_path)
    (tmp_path / "a.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match=rf"a\.bin: wrong checksum: sha256 expected {sha256(DATA)}"):
        obtain(wanted, tmp_path)


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_content_checksum_does_not_depend_on_packing(tmp_path):
    members = {"b/1.txt": b"one" * 100, "a 2.txt": b"two"}
    stored = pack(tmp_path / "stored.zip", members)
    packed = pack(tmp_path / "packed.zip", dict(reversed(members.items())), zipfile.ZIP_DEFLATED)
    listed = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(members.items()))
    assert check_archive(stored) == check_archive(packed) == sha256(listed.encode())
    wanted = {"name": "x.zip", "md5": "0" * 32, "content_sha256": sha256(listed.encode())}
    assert verify(packed, wanted) == sha256(packed.read_bytes())
    other = pack(tmp_path / "other.zip", {**members, "a 2.txt": b"two!"})
    with pytest.raises(ValueError, match=r"x\.zip: wrong checksum: md5 expected .*; content_sha256 expected"):
        verify(other, wanted)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_corrupt_archive(tmp_path, damage):
    path = pack(tmp_path / "x.zip", {"a.bin": DATA})
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        data.clear()
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.zip: corrupt archive: .*remove it and fetch it again") as e:
        obtain({"name": "x.zip", "urls": [], "optional": False}, tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "b/../../a.txt", "..\\a.txt"])
def test_archive_whose_members_leave_it(tmp_path, name):
    path = pack(tmp_path / "x.zip", {name: b"1"})
    with pytest.raises(ValueError, match=r"x\.zip: corrupt archive: the path of member .* leaves it"):
        check_archive(path, "x.zip")


def test_two_processes_take_turns(tmp_path):
    folder, mirror = tmp_path / "name", tmp_path / "mirror"
    folder.mkdir()
    mirror.mkdir()
    (mirror / "a.bin").write_bytes(DATA)
    with (folder / ".a.bin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = (
            "import json, pathlib, sys; from rvkernels.fetch import obtain; print('ready', flush=True); "
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
