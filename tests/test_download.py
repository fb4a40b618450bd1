"""Files by HTTP and S3 from a loopback server that behaves badly; every failure an error of one line."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest

from rvkernels import download
from rvkernels.cache import obtain

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
        body = data[start:]
        if start:
            told = 0 if what == "other range" else start
            handler.send_header("Content-Range", f"bytes {told}-{len(data) - 1}/{len(data)}")
        if "no length" not in what:
            length = {"short": len(body) // 2, "long": len(body) + 1000}.get(what, len(body))
            handler.send_header("Content-Length", str(length))
        handler.send_header("ETag", tag)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked has had enough
            handler.wfile.write(body[: len(body) // 2] if "drop" in what else body)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0.001)
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
    assert len(server.requests) == download.ATTEMPTS


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


def test_mirror_url_comes_first(serve, tmp_path):
    mirror, publisher = serve({"data/name/a.bin": DATA}), serve({"a.bin": DATA})
    wanted = entry(urls=(f"{publisher.url}/a.bin",))
    assert obtain(wanted, tmp_path / "name", f"{mirror.url}/data").read_bytes() == DATA
    assert publisher.requests == []


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


def test_file_that_the_mirror_lacks_comes_from_its_url(serve, tmp_path):
    server = serve({"a.bin": DATA})
    (tmp_path / "mirror").mkdir()
    wanted = entry(urls=(f"{server.url}/a.bin",))
    assert obtain(wanted, tmp_path / "name", tmp_path / "mirror").read_bytes() == DATA


def test_a_wrong_file_from_one_url_leaves_it_to_the_next(serve, tmp_path):
    wrong, right = serve({"a.bin": DATA}, "wrong"), serve({"a.bin": DATA})
    wanted = entry(urls=(f"{wrong.url}/a.bin", f"{right.url}/a.bin"))
    assert obtain(wanted, tmp_path).read_bytes() == DATA
    with pytest.raises(ValueError, match=r"wrong checksum: .*; http\S+/b\.bin: HTTP 404"):
        obtain(entry("b.bin", urls=(f"{wrong.url}/a.bin", f"{right.url}/b.bin")), tmp_path)


@pytest.mark.parametrize("published", [True, False])
def test_another_size_than_the_description_says_is_refused_before_the_download(serve, tmp_path, published):
    wrong, right = serve({"a.bin": DATA[:-1]}), serve({"a.bin": DATA})
    wanted = entry(urls=(f"{wrong.url}/a.bin", f"{right.url}/a.bin"), bytes=len(DATA))
    if not published:
        del wanted["sha256"]
    assert obtain(wanted, tmp_path, lock=tmp_path / "x.lock.json").read_bytes() == DATA
    with pytest.raises(FileNotFoundError, match=r"it has 5,119,999 bytes, and the description says 5,120,000"):
        obtain({**wanted, "name": "b.bin", "urls": wanted["urls"][:1]}, tmp_path)
    assert leftovers(tmp_path) == []


def test_a_server_that_does_not_say_the_size_sends_no_more_than_it(serve, tmp_path):
    server = serve({"a.bin": DATA}, "no length")
    with pytest.raises(FileNotFoundError, match="sends more than 1,000,000 bytes"):
        obtain(entry(urls=(f"{server.url}/a.bin",), bytes=1_000_000), tmp_path)
    assert not (tmp_path / ".a.bin.part").exists()
    assert obtain(entry(urls=(f"{server.url}/a.bin",), bytes=len(DATA)), tmp_path).read_bytes() == DATA


def test_a_drop_that_only_the_known_size_tells_is_continued(serve, tmp_path):
    server = serve({"a.bin": DATA}, "no length drop", "ok")
    assert obtain(entry(urls=(f"{server.url}/a.bin",), bytes=len(DATA)), tmp_path).read_bytes() == DATA
    assert server.requests[1][1] == f"bytes={len(DATA) // 2}-"


def test_no_file_of_unknown_size_is_larger_than_the_limit(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 1_000_000)
    for what in ("ok", "no length"):
        server = serve({"a.bin": DATA}, what)
        with pytest.raises(FileNotFoundError, match=r"it has 5,120,000 bytes; give its|sends more than 1,000,000"):
            obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path)


def test_a_length_that_is_too_small_is_a_wrong_file(serve, tmp_path):
    server = serve({"a.bin": DATA}, "short")
    with pytest.raises(ValueError, match=r"a\.bin: wrong checksum"):
        obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path)


def test_a_length_that_is_too_great_is_a_connection_that_ended(serve, tmp_path):
    server = serve({"a.bin": DATA}, "long", "ok")
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    assert len(server.requests) == 2
    # All pieces have come, there is no rest, and it starts again.
    server = serve({"a.bin": bytes(2 * download.CHUNK)}, "long")
    with pytest.raises(FileNotFoundError, match=r"a\.bin: gave up after 5 attempts"):
        obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path / "always")
    assert len(server.requests) < 10


def test_another_range_than_asked_for_is_not_taken(serve, tmp_path):
    server = serve({"a.bin": DATA}, "drop", "other range", "ok")
    assert obtain(entry(urls=(f"{server.url}/a.bin",)), tmp_path).read_bytes() == DATA
    assert [r is None for _, r in server.requests] == [True, False, True]


def test_s3_is_asked_by_https(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert download.address("s3://bucket/a/b c+1#.zip") == "https://bucket.s3.amazonaws.com/a/b%20c%2B1%23.zip"
    assert download.address("s3://my.bucket/a.zip") == "https://s3.amazonaws.com/my.bucket/a.zip"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere:9000/")
    assert download.address("s3://bucket/a.zip") == "http://elsewhere:9000/bucket/a.zip"
    for url in ("s3://bucket", "s3:///a.zip", "ftp://host/a.zip", "a.zip"):
        with pytest.raises(ValueError, match="expected an http, https or file URL, or s3://bucket/key"):
            download.address(url)


def test_s3_drops_are_continued_and_the_file_is_verified(serve, tmp_path, monkeypatch):
    server = serve({"bucket/data/a.bin": DATA}, "503", "drop", "ok")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    assert obtain(entry(urls=("s3://bucket/data/a.bin",)), tmp_path).read_bytes() == DATA
    assert [r is None for _, r in server.requests] == [True, True, False]
    with pytest.raises(ValueError, match=r"wrong checksum: .*from s3://bucket/data/a\.bin"):
        obtain(entry("b.bin", b"other", urls=("s3://bucket/data/a.bin",)), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"s3://bucket/none: HTTP 404"):
        obtain(entry("c.bin", urls=("s3://bucket/none",)), tmp_path)


def test_a_mirror_may_be_a_bucket(serve, tmp_path, monkeypatch):
    server = serve({"bucket/data/name/a.bin": DATA})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    assert obtain(entry(), tmp_path / "name", "s3://bucket/data").read_bytes() == DATA
