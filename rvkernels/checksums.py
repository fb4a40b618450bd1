"""Whether a file is the one that its description means; what was first seen of files without a published checksum.

A file without a checksum in its description is trusted when it first comes, and its checksums are written to the lock
file beside the description, NAME.lock.json. Who keeps that file with the description, as in git, has every later
fetch, here or elsewhere, held to the same bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rvkernels import archive
from rvkernels.files import locked, read_json, write_json

CHUNK = 1 << 20
KINDS = ("sha256", "md5", "content_sha256")


def lock_file(description: str | Path) -> Path:
    """The lock file of a dataset's description."""
    return Path(description).with_suffix(".lock.json")


def expected(entry: dict, lock: Path | None = None) -> dict[str, str]:
    """The checksums that a file of a description is to have, any one of them: its own, else those first seen."""
    own = {kind: entry[kind] for kind in KINDS if kind in entry}
    if own or lock is None or not lock.is_file():
        return own
    seen = read_json(lock).get(entry["name"], {})
    return {kind: seen[kind] for kind in KINDS if kind in seen}


def record(lock: Path, name: str, seen: dict) -> None:
    """Write what was first seen of a file to the lock file; several processes may do so at once.

    Raises ValueError when that cannot be written.
    """
    try:
        with locked(lock.parent / f".{lock.name}.lock"):
            entries = read_json(lock) if lock.is_file() else {}
            write_json(lock, dict(sorted({**entries, name: seen}.items())))
    except OSError as error:
        raise ValueError(
            f"{name} has no checksum, and what was first seen of it cannot be written to {lock}: {error.strerror}; "
            f"give its sha256 in the description: {seen['sha256']}"
        ) from None


def verify(path: Path, entry: dict, lock: Path | None = None) -> dict:
    """Check the bytes of `path` against the size and the checksums of its description.

    An archive is tested, too, see rvkernels/archive.py, unless a checksum of its bytes is wrong and it has no other.
    Returns {"bytes", "sha256"} and, of an archive, "content_sha256".
    Raises ValueError: wrong size or checksum, or corrupt archive.
    """
    shown, size = entry["name"], path.stat().st_size
    # An archive whose content counts may have been packed anew.
    if "bytes" in entry and "content_sha256" not in entry and size != entry["bytes"]:
        raise ValueError(
            f"{shown}: wrong size: expected {entry['bytes']:,} bytes, got {size:,}; remove the file ({path}) and fetch "
            f"it again"
        )
    wanted = expected(entry, lock)
    digests = {"sha256": hashlib.sha256()}
    if "md5" in wanted:
        digests["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as data:
        for piece in iter(lambda: data.read(CHUNK), b""):
            for digest in digests.values():
                digest.update(piece)
    got = {kind: digest.hexdigest() for kind, digest in digests.items()}
    matches = any(got.get(kind) == value for kind, value in wanted.items())
    result = {"bytes": size, "sha256": got["sha256"]}
    if archive.kind(shown) and (matches or not wanted or "content_sha256" in wanted):
        content = archive.content_checksum(path, shown, entry.get("unpacked_bytes"))
        result["content_sha256"] = got["content_sha256"] = content
        matches = matches or content == wanted.get("content_sha256")
    if wanted and not matches:
        pairs = "; ".join(f"{kind} expected {value}, got {got[kind]}" for kind, value in wanted.items())
        trusted = "" if set(KINDS) & set(entry) else f"; if the new one is to be trusted, take {shown} out of {lock}"
        raise ValueError(f"{shown}: wrong checksum: {pairs}; remove the file ({path}) and fetch it again{trusted}")
    return result
