"""Bytes from a URL to a file: continued where they ended, retried, never more than expected.

http, https and file URLs, and s3://bucket/key of public buckets. S3 gives these by HTTPS, with ranges and ETags, so
they take the same way as everything else; a client of S3 (s3fs, boto3) would add what only private buckets need.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import requests

from rvkernels.files import read_json, remove, write_json
from rvkernels.progress import Progress

log = logging.getLogger(__name__)

CHUNK = 1 << 20
ATTEMPTS = 5  # in a row without a megabyte of progress
BACKOFF = 1.0  # seconds before the second attempt; doubles from attempt to attempt
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
LARGEST = 1 << 38  # bytes of a file whose size no description gives: 256 GiB


class UnavailableError(Exception):
    """A URL does not give the file."""


class _BusyError(Exception):
    """The server asks to come again later."""


def address(url: str) -> str:
    """`url` as it is asked for: s3://bucket/key as HTTPS, others unchanged.

    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL in the environment name another server that speaks S3.
    Raises ValueError for any other scheme.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("http", "https", "file"):
        return url
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ValueError(f"{url}: expected an http, https or file URL, or s3://bucket/key")
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if server is None and "." not in bucket:
        return f"https://{bucket}.s3.amazonaws.com/{quote(key)}"
    # The certificate of a host name does not hold for a bucket with a dot.
    return f"{(server or 'https://s3.amazonaws.com').rstrip('/')}/{bucket}/{quote(key)}"


def note(part: Path) -> Path:
    """The file beside an unfinished download that says where it came from."""
    return part.parent / f"{part.name}.json"


def download(url: str, part: Path, name: str, size: int | None = None) -> bool:
    """Download `url` to `part`, continuing what is there of it; returns whether it was put together from pieces.

    name    of the file, for messages
    size    bytes that it has; None: unknown, and no more than LARGEST

    Raises UnavailableError, one line with the URL: it is not there, its server gives up too often, or it announces or
    sends another size.
    """
    asked = address(url)
    if urlsplit(asked).scheme == "file":
        source = Path(unquote(urlsplit(asked).path))
        if not source.is_file():
            raise UnavailableError(f"{url}: no such file")
        _check_size(url, source.stat().st_size, size)
        shutil.copyfile(source, part)
        write_json(note(part), {"url": url})
        return False
    before = read_json(note(part)) if note(part).is_file() else {}
    if before.get("url") != url or not before.get("validator"):
        # Without a validator nothing says that the rest belongs to the beginning.
        part.unlink(missing_ok=True)
    failures, resumed, last = 0, False, ""
    furthest = part.stat().st_size if part.exists() else 0
    with requests.Session() as session:
        while failures < ATTEMPTS:
            if failures:
                time.sleep(min(30.0, BACKOFF * 2 ** (failures - 1)))
            start = part.stat().st_size if part.exists() else 0
            try:
                complete, continued = _piece(session, url, asked, part, start, name, size)
                resumed |= continued
                if complete:
                    return resumed
                last = "the connection ended early"
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                last = " ".join(str(error).split())
            except _BusyError as error:
                last = str(error)
            reached = part.stat().st_size if part.exists() else 0
            # Bytes that came before and were thrown away are no progress: it would go on for ever.
            failures = 1 if reached - furthest >= CHUNK else failures + 1
            furthest = max(furthest, reached)
            if failures < ATTEMPTS:
                log.info("%s: %s; attempt %d of %d follows", name, last, failures + 1, ATTEMPTS)
    raise UnavailableError(f"{url}: gave up after {ATTEMPTS} attempts: {last}")


def _check_size(url: str, announced: int | None, size: int | None) -> None:
    """Refuse a file that is not of the size it should have, before it is fetched."""
    if announced is None:
        return
    if size is not None and announced != size:
        raise UnavailableError(f"{url}: it has {announced:,} bytes, and the description says {size:,}")
    if announced > LARGEST:
        raise UnavailableError(f"{url}: it has {announced:,} bytes; give its bytes in the description if that is so")


def _piece(
    session: requests.Session, url: str, asked: str, part: Path, start: int, name: str, size: int | None
) -> tuple[bool, bool]:
    """One request. Returns (the file is complete, it was continued at byte `start`)."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "rvkernels"}
    if start:
        headers["Range"] = f"bytes={start}-"
        validator = read_json(note(part))["validator"]
        if validator:
            headers["If-Range"] = validator
    with session.get(asked, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # more is here than there: not the same file
            part.unlink()
            raise _BusyError("the file has changed")
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise _BusyError(f"HTTP {answer.status_code} {answer.reason}")
        if answer.status_code >= 400:
            raise UnavailableError(f"{url}: HTTP {answer.status_code} {answer.reason}")
        continued = answer.status_code == 206 and start > 0
        if continued and not re.match(rf"bytes {start}-\d+/", answer.headers.get("Content-Range", "")):
            part.unlink()
            raise _BusyError(f"other bytes than asked for ({answer.headers.get('Content-Range')}, not from {start})")
        if not continued:
            start = 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        _check_size(url, total, size)
        etag = answer.headers.get("ETag", "")
        validator = answer.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
        write_json(note(part), {"url": url, "validator": validator})
        most, done = LARGEST if size is None else size, start
        with part.open("ab" if continued else "wb") as out, Progress(total or 0, name, "B", start=start) as progress:
            for piece in answer.iter_content(CHUNK):
                done += len(piece)
                if done > most:
                    remove(part)
                    raise UnavailableError(f"{url}: sends more than {most:,} bytes")
                out.write(piece)
                progress.add(len(piece))
        whole = size if total is None else total
        return whole is None or done == whole, continued
