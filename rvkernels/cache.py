"""The files of datasets in the download folder: where each comes from, that it is verified, and who has to get it.

A file is taken from the download folder when it is there and verified, else from the mirror, else from its URLs in
order. It gets its final name only after its checksum matched; what a killed download left is continued.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rvkernels import archive, checksums, dataset
from rvkernels.download import UnavailableError, download, note
from rvkernels.files import atomic, locked, read_json, write_json

log = logging.getLogger(__name__)


def check_by_hand(descriptions: Iterable[str | Path], downloads: str | Path, mirror: str | Path | None = None) -> None:
    """Raise FileNotFoundError that names every file that only a person can get and that is not there yet.

    These are the files of the descriptions that have no URL, as their publisher wants a registration first. It says
    what to obtain and where to put it. Nothing is read but the descriptions; a mirror that is a URL may have any file.
    """
    if mirror is not None and _local(mirror) is None:
        return
    said = []
    for path in descriptions:
        description = dataset.load(path)
        folder = Path(downloads).resolve() / description["name"]
        missing = [
            entry["name"]
            for entry in description["files"]
            if not entry["optional"] and not entry["urls"] and not (folder / entry["name"]).is_file()
            and (mirror is None or _in_mirror(_local(mirror), entry, folder) is None)
        ]  # fmt: skip
        if missing:
            get = f" {description['get'].strip().rstrip('.')}." if "get" in description else ""
            said.append(f"{description['name']}: put {' and '.join(missing)} into {folder}.{get}")
    if said:
        place = f"not in the mirror {mirror}" if mirror is not None else "no mirror is set"
        raise FileNotFoundError(f"files that have no URL are to be got by hand ({place}): {' '.join(said)}")


def obtain(
    entry: dict, folder: Path, mirror: str | Path | None = None, *, get: str = "", lock: Path | None = None
) -> Path:
    """The verified local path of one file of a description, folder/<name>; fetched when it is not there.

    Of a compressed tar, and of an archive with `nested`, it is the folder that it is unpacked into, once,
    folder/<name>.unpacked.

    get     what to say to a person who has to get it
    lock    the lock file of first-seen checksums; None: those of files without one are not kept

    Raises ValueError when bytes do not match the checksum or an archive is corrupt, FileNotFoundError when the file
    is in none of the places. Safe to call from several processes at once: the second waits for the first.
    """
    target = folder / entry["name"]
    with locked(folder / f".{target.name}.lock"):
        if not _stamped(target, entry, lock):
            if target.exists():
                # Put there by hand, or the checksum that it should have has changed.
                _stamp(target, entry, lock, checksums.verify(target, entry, lock))
            else:
                _get(target, entry, mirror, get, lock)
        return _opened(target, entry)


def _get(target: Path, entry: dict, mirror: str | Path | None, get: str, lock: Path | None) -> None:
    """Put a verified file at `target`."""
    tried, wrong = [], False
    urls = [(url, entry.get("bytes")) for url in entry["urls"]]
    if mirror is not None and _local(mirror) is None:
        # There an archive may have been packed anew.
        size = None if "content_sha256" in entry else entry.get("bytes")
        below = _below_mirror(entry, target.parent)
        urls = [(f"{str(mirror).rstrip('/')}/{path}", size) for path in below] + urls
    elif mirror is not None:
        source = _in_mirror(_local(mirror), entry, target.parent)
        if source is not None:
            return _copy(source, target, entry, lock)
        tried.append(f"not in the mirror {mirror}")
    for url, size in urls:
        try:
            return _download(url, size, target, entry, lock)
        except (UnavailableError, ValueError) as error:
            wrong |= isinstance(error, ValueError)
            log.warning("%s", error)
            tried.append(str(error))
    if wrong:
        raise ValueError("; ".join(tried))
    reasons = "; ".join(tried + ([] if urls else ["it has no URL"]))
    hint = f" {get.strip().rstrip('.')}." if get else ""
    raise FileNotFoundError(f"{target.name}: cannot be fetched: {reasons}.{hint} It can be put by hand at {target}")


def _local(mirror: str | Path) -> Path | None:
    """The folder that a mirror is; None when it is a URL. Raises FileNotFoundError when it is not there."""
    place = str(mirror)
    if place.startswith("file:"):
        place = unquote(urlsplit(place).path)
    elif "://" in place:
        return None
    if not Path(place).is_dir():
        raise FileNotFoundError(f"{place}: no such mirror folder; correct or unset the mirror")
    return Path(place)


def _below_mirror(entry: dict, folder: Path) -> list[str]:
    """Where in a mirror a file may be, likeliest first."""
    places = (entry.get("mirror"), f"{folder.name}/{entry['name']}", entry["name"])
    return list(dict.fromkeys(filter(None, places)))


def _in_mirror(mirror: Path, entry: dict, folder: Path) -> Path | None:
    return next((p for p in (mirror / path for path in _below_mirror(entry, folder)) if p.is_file()), None)


def _copy(source: Path, target: Path, entry: dict, lock: Path | None) -> None:
    log.info("%s: from the mirror, %s", target.name, source)
    try:
        found = checksums.verify(source, entry, lock)
    except ValueError as error:
        raise ValueError(f"{error} (in the mirror)") from None
    with atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or no right to link
            shutil.copyfile(source, temporary)
    _stamp(target, entry, lock, found)


def _download(url: str, size: int | None, target: Path, entry: dict, lock: Path | None) -> None:
    part = target.parent / f".{target.name}.part"
    resumed = download(url, part, target.name, size)
    try:
        found = checksums.verify(part, entry, lock)
    except ValueError as error:
        part.unlink()
        if not resumed:
            raise ValueError(f"{error} (from {url}; removed)".replace(f"remove the file ({part}) and ", "")) from None
        # The file may have changed between two pieces: once more, in one piece.
        log.warning("%s; fetching it once more from the start", error)
        return _download(url, size, target, entry, lock)
    os.replace(part, target)
    note(part).unlink()
    _stamp(target, entry, lock, found)


def _stamp_path(target: Path) -> Path:
    return target.parent / f".{target.name}.verified"


def _stamped(target: Path, entry: dict, lock: Path | None) -> bool:
    """True when `target` was verified against these checksums and has not been touched since."""
    if not target.is_file() or not _stamp_path(target).is_file():
        return False
    stamp, status = read_json(_stamp_path(target)), target.stat()
    wanted = checksums.expected(entry, lock)
    return (
        stamp["size"] == status.st_size
        and stamp["mtime_ns"] == status.st_mtime_ns
        and stamp["expected"] == wanted
        and (bool(wanted) or lock is None)
    )


def _stamp(target: Path, entry: dict, lock: Path | None, found: dict) -> None:
    """Keep that `target` is verified, so that it is not read again; in the lock file what was first seen."""
    if lock is not None and not checksums.expected(entry, lock):
        checksums.record(lock, entry["name"], found)
        log.warning("%s: has no published checksum; the one seen is in %s, keep that file", entry["name"], lock)
    status = target.stat()
    write_json(
        _stamp_path(target),
        {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": found["sha256"],
            "expected": checksums.expected(entry, lock),
        },
    )


def _opened(target: Path, entry: dict) -> Path:
    """`target`, or the folder that it is unpacked into, whole or not at all and again when the archive has changed."""
    nested = entry.get("nested", False)
    if not nested and (archive.kind(target.name) is None or archive.prefix(target) is not None):
        return target
    folder = target.parent / f"{target.name}.unpacked"
    told = target.parent / f".{folder.name}.json"
    wanted = {"sha256": read_json(_stamp_path(target))["sha256"], "nested": nested}
    if told.is_file() and read_json(told) == {**wanted, **_extent(folder)}:
        return folder
    log.info("%s: unpacking into %s", target.name, folder)
    with atomic(folder) as temporary:
        temporary.mkdir()
        archive.unpack(target, temporary, target.name, entry.get("unpacked_bytes"), nested=nested)
    write_json(told, {**wanted, **_extent(folder)})
    return folder


def _extent(folder: Path) -> dict[str, int]:
    """How many files are below a folder, and their bytes."""
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}
