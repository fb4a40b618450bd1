"""Fetch a dataset's files, verify them, and list its scenes.

A file is taken from the download folder when it is there and verified, else from the mirror, else from its URLs in
order. It gets its final name only after its checksum matched; what a killed download left is continued.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests

from rvkernels import dataset, labels, registry
from rvkernels.files import atomic, locked, read_json, write_json
from rvkernels.progress import Progress
from rvkernels.scene import Scene, write_scenes

log = logging.getLogger(__name__)

CHUNK = 1 << 20
ATTEMPTS = 5  # in a row without a megabyte of progress
BACKOFF = 1.0  # seconds before the second attempt; doubles from attempt to attempt
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
CHECKSUMS = ("sha256", "md5", "content_sha256")


def fetch(
    description: str | Path,
    downloads: str | Path,
    mirror: str | Path | None = None,
    out: str | Path | None = None,
    *,
    task: str | None = None,
    layout: dict | None = None,
    threads: int = 0,
) -> list[Scene]:
    """Obtain and verify the files of a dataset, check its scenes, and write them to `out` as JSON lines.

    description     config/datasets/NAME.yaml or a description of the user's own
    downloads       the cache: files go to <downloads>/NAME/; several processes may share it
    mirror          folder or URL that is asked before the published URLs, or None
    task            one of the description's tasks; None means its first
    layout          settings of the form that replace those of the description
    threads         0 = all cores

    Raises ValueError (wrong checksum, corrupt archive, a label that is no class, ...) or FileNotFoundError (a file
    that is nowhere), each one line. Only verified files have their names in the cache.
    """
    wanted = dataset.load(description)
    task = task or wanted["tasks"][0]
    if task not in wanted["tasks"]:
        raise ValueError(f"{description}: no labels for task {task!r}; {registry.suggest(task, wanted['tasks'])}")
    form = registry.load("datasets", wanted["form"])
    settings = {**wanted["layout"], **(layout or {})}
    registry.check_parameters(form.scenes, settings, f"{description}: layout")
    folder = Path(downloads).resolve() / wanted["name"]
    wanted["made"] = str(folder / f"labels-{_digest([wanted['form'], task, settings, wanted['classes']])}")
    files = {}
    for entry in wanted["files"]:
        try:
            files[entry["name"]] = obtain(entry, folder, mirror, get=wanted.get("get", ""))
        except FileNotFoundError as error:
            if not entry["optional"]:
                raise
            log.warning("%s (optional, going on without it)", error)
    if "folder" not in settings and "folder" in registry.parameters(form.scenes) and hasattr(form, "draw"):
        settings["folder"] = str(folder)
    scenes = form.scenes(wanted, files, **{"task": task, "threads": threads, **settings})
    check(scenes, wanted, task, threads)
    if out is not None:
        write_scenes(out, scenes)
    return scenes


def _digest(what: object) -> str:
    """Twelve letters that differ when `what`, as JSON, does."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def check(scenes: list[Scene], description: dict, task: str, threads: int = 0) -> None:
    """Raise ValueError for scenes that no later stage could use: see the messages."""
    name = description["name"]
    if not scenes:
        raise ValueError(f"{name}: no scene found; check the description's layout")
    twice = [i for i, count in Counter(s.id for s in scenes).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: two scenes have the id {twice[0]!r}; ids must differ")
    bands, dtype = len(description["bands"]), scenes[0].dtype
    classes = dataset.class_names(description)
    for scene in scenes:
        if scene.bands != bands:
            raise ValueError(
                f"{scene.images[0]}: scene {scene.id} has {scene.bands} bands, but {name} names {bands}: "
                f"{', '.join(description['bands'])}"
            )
        if scene.dtype != dtype:
            raise ValueError(
                f"{scene.images[0]}: scene {scene.id} is {scene.dtype}, but scene {scenes[0].id} is {dtype}; the "
                f"scenes of a dataset have one data type"
            )
        if scene.class_name is not None and scene.class_name not in classes:
            raise ValueError(
                f"{name}: scene {scene.id} has class {scene.class_name!r}, which is not in the class list; "
                f"{registry.suggest(scene.class_name, classes)}"
            )
        if scene.labels is None and (task != "classification" or scene.class_name is None):
            raise ValueError(f"{name}: scene {scene.id} has no labels, which {task} needs")
    vector = [s for s in scenes if s.labels is not None and dataset.is_vector(s.labels)]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        # Reading the features checks classes and CRS.
        for _ in pool.map(lambda s: labels.load_features(s, description["classes"]), vector):
            pass


def obtain(entry: dict, folder: Path, mirror: str | Path | None = None, *, get: str = "") -> Path:
    """The verified local path of one file of a description, folder/<name>; fetched when it is not there.

    Raises ValueError when bytes do not match the checksum or an archive is corrupt, FileNotFoundError when the file
    is in none of the places. Safe to call from several processes at once: the second waits for the first.
    """
    target = folder / entry["name"]
    with locked(folder / f".{target.name}.lock"):
        if _stamped(target, entry):
            return target
        if target.exists():
            # Put there by hand, or the description's checksum has changed.
            _stamp(target, entry, verify(target, entry, _seen(target)))
            return target
        urls = list(entry["urls"])
        tried = []
        if mirror is not None:
            place = str(mirror)
            if place.startswith("file:"):
                place = unquote(urlsplit(place).path)
            below = list(
                dict.fromkeys(filter(None, (entry.get("mirror"), f"{folder.name}/{target.name}", target.name)))
            )
            if "://" in place:
                urls = [f"{place.rstrip('/')}/{path}" for path in below] + urls
            else:
                if not Path(place).is_dir():
                    raise FileNotFoundError(f"{place}: no such mirror folder; correct or unset the mirror")
                source = next((p for p in (Path(place, path) for path in below) if p.is_file()), None)
                if source is not None:
                    return _copy(source, target, entry)
                tried.append(f"not in the mirror {place}")
        for url in urls:
            try:
                return _download(url, target, entry)
            except _UnavailableError as error:
                log.warning("%s", error)
                tried.append(str(error))
        reasons = "; ".join(tried + ([] if urls else ["it has no URL"]))
        hint = f" {get.strip().rstrip('.')}." if get else ""
        raise FileNotFoundError(f"{target.name}: cannot be fetched: {reasons}.{hint} It can be put by hand at {target}")


class _UnavailableError(ValueError):
    """A URL did not give the file."""


def verify(path: Path, entry: dict, seen: str | None = None) -> str:
    """Check the bytes of `path` against the checksums of its description; returns their SHA-256.

    A zip archive is tested too: it opens, every member has its CRC, no member's path leaves the archive. `seen` is
    the SHA-256 of an earlier fetch, for files without a published checksum.
    Raises ValueError: wrong checksum, or corrupt archive.
    """
    shown = entry["name"]
    digests = {"sha256": hashlib.sha256()}
    if "md5" in entry:
        digests["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as data:
        for piece in iter(lambda: data.read(CHUNK), b""):
            for digest in digests.values():
                digest.update(piece)
    got = {name: digest.hexdigest() for name, digest in digests.items()}
    expected = {name: entry[name] for name in CHECKSUMS if name in entry}
    if not expected and seen is not None:
        expected = {"sha256": seen}
    matches = any(got.get(name) == value for name, value in expected.items())
    if shown.lower().endswith(".zip") and (matches or not expected or "content_sha256" in expected):
        got["content_sha256"] = check_archive(path, shown)
        matches = matches or got["content_sha256"] == expected.get("content_sha256")
    if expected and not matches:
        pairs = "; ".join(f"{name} expected {value}, got {got[name]}" for name, value in expected.items())
        raise ValueError(f"{shown}: wrong checksum: {pairs}; remove the file ({path}) and fetch it again")
    return got["sha256"]


def check_archive(path: Path, shown: str | None = None) -> str:
    """Test every member of a zip archive; returns its content checksum.

    That is the SHA-256 of lines "SHA-256 of a member, two spaces, its name, newline", sorted by name: what
    `sha256sum` prints for the extracted files. It does not depend on how the archive was packed.
    Raises ValueError ("corrupt archive") naming the archive and the member.
    """
    shown = shown or str(path)
    lines = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = [i for i in archive.infolist() if not i.is_dir()]
            twice = [name for name, count in Counter(i.filename for i in members).items() if count > 1]
            if twice:
                raise ValueError(f"{shown}: corrupt archive: two members are called {twice[0]}")
            for member in archive.infolist():
                name = PurePosixPath(member.filename)
                if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
                    raise ValueError(f"{shown}: corrupt archive: the path of member {member.filename!r} leaves it")
            for member in members:
                digest = hashlib.sha256()
                with archive.open(member) as data:
                    for piece in iter(lambda data=data: data.read(CHUNK), b""):
                        digest.update(piece)
                lines.append((member.filename.encode(), digest.hexdigest().encode()))
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{shown}: corrupt archive: {error}; remove it and fetch it again") from None
    content = hashlib.sha256()
    for name, digest in sorted(lines):
        content.update(digest + b"  " + name + b"\n")
    return content.hexdigest()


def _stamp_path(target: Path) -> Path:
    return target.parent / f".{target.name}.verified"


def _stamped(target: Path, entry: dict) -> bool:
    """True when `target` was verified against these checksums and has not been touched since."""
    if not target.is_file() or not _stamp_path(target).is_file():
        return False
    stamp, status = read_json(_stamp_path(target)), target.stat()
    return (
        stamp["size"] == status.st_size
        and stamp["mtime_ns"] == status.st_mtime_ns
        and stamp["expected"] == {name: entry[name] for name in CHECKSUMS if name in entry}
    )


def _seen(target: Path) -> str | None:
    """SHA-256 of this file when it was first fetched, or None."""
    return read_json(_stamp_path(target))["sha256"] if _stamp_path(target).is_file() else None


def _stamp(target: Path, entry: dict, sha256: str) -> None:
    status = target.stat()
    write_json(
        _stamp_path(target),
        {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": sha256,
            "expected": {name: entry[name] for name in CHECKSUMS if name in entry},
        },
    )


def _copy(source: Path, target: Path, entry: dict) -> Path:
    log.info("%s: from the mirror, %s", target.name, source)
    try:
        sha256 = verify(source, entry, _seen(target))
    except ValueError as error:
        raise ValueError(f"{error} (in the mirror)") from None
    with atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or no right to link
            shutil.copyfile(source, temporary)
    _stamp(target, entry, sha256)
    return target


def _download(url: str, target: Path, entry: dict) -> Path:
    part = target.parent / f".{target.name}.part"
    resumed = _transfer(url, part, target.name)
    try:
        sha256 = verify(part, entry, _seen(target))
    except ValueError as error:
        part.unlink()
        if not resumed:
            raise ValueError(f"{error} (from {url}; removed)".replace(f"remove the file ({part}) and ", "")) from None
        # The file may have changed between two pieces: once more, in one piece.
        log.warning("%s; fetching it once more from the start", error)
        return _download(url, target, entry)
    os.replace(part, target)
    _note(part).unlink()
    _stamp(target, entry, sha256)
    return target


def _note(part: Path) -> Path:
    return part.parent / f"{part.name}.json"


def _transfer(url: str, part: Path, name: str) -> bool:
    """Download `url` to `part`, continuing what is there; returns whether it was put together from pieces."""
    if urlsplit(url).scheme == "file":
        source = Path(unquote(urlsplit(url).path))
        if not source.is_file():
            raise _UnavailableError(f"{url}: no such file")
        shutil.copyfile(source, part)
        write_json(_note(part), {"url": url})
        return False
    note = read_json(_note(part)) if _note(part).is_file() else {}
    if note.get("url") != url or not note.get("validator"):
        # Without a validator nothing says that the rest belongs to the beginning.
        part.unlink(missing_ok=True)
    failures, resumed, last = 0, False, ""
    with requests.Session() as session:
        while failures < ATTEMPTS:
            if failures:
                time.sleep(min(30.0, BACKOFF * 2 ** (failures - 1)))
            start = part.stat().st_size if part.exists() else 0
            try:
                complete, continued = _piece(session, url, part, start, name)
                resumed |= continued
                if complete:
                    return resumed
                last = "the connection ended early"
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                last = " ".join(str(error).split())
            except _BusyError as error:
                last = str(error)
            size = part.stat().st_size if part.exists() else 0
            failures = 1 if size - start >= CHUNK else failures + 1
            log.info("%s: %s; attempt %d of %d follows", name, last, failures + 1, ATTEMPTS)
    raise _UnavailableError(f"{url}: gave up after {ATTEMPTS} attempts: {last}")


class _BusyError(Exception):
    """The server asks to come again later."""


def _piece(session: requests.Session, url: str, part: Path, start: int, name: str) -> tuple[bool, bool]:
    """One request. Returns (the file is complete, it was continued at byte `start`)."""
    note = read_json(_note(part)) if start else {}
    headers = {"Accept-Encoding": "identity", "User-Agent": "rvkernels"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if note["validator"]:
            headers["If-Range"] = note["validator"]
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # more is here than there: not the same file
            part.unlink()
            raise _BusyError("the file has changed")
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise _BusyError(f"HTTP {answer.status_code} {answer.reason}")
        if answer.status_code >= 400:
            raise _UnavailableError(f"{url}: HTTP {answer.status_code} {answer.reason}")
        continued = answer.status_code == 206 and start > 0
        if not continued:
            start = 0
        etag = answer.headers.get("ETag", "")
        validator = answer.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
        write_json(_note(part), {"url": url, "validator": validator})
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        with part.open("ab" if continued else "wb") as out, Progress(total or 0, name, "B", start=start) as progress:
            for piece in answer.iter_content(CHUNK):
                out.write(piece)
                progress.add(len(piece))
        return total is None or part.stat().st_size == total, continued
