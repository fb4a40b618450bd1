"""Archives that come from elsewhere: every member tested, nothing written outside the folder, no size bombs.

What can be read at any place, zip and plain tar, GDAL reads where it lies. A compressed tar has to be read from its
beginning for any member (and GDAL knows no xz and no bzip2), so it is unpacked once.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Callable, NoReturn

CHUNK = 1 << 20
RATIO = 100  # what an archive may unpack to, times its own size
FREE = 1 << 30  # bytes that any archive may unpack to
HEADER = 1 << 24  # bytes of a tar header, extended ones included
ENCRYPTED = 1  # of a zip member's flags

# Endings of names, and what opens the bytes of a tar; GDAL's prefix for those read in place.
TARS: dict[str, Callable[[Path], IO[bytes]]] = {
    ".tar": lambda path: path.open("rb"),
    **dict.fromkeys((".tar.gz", ".tgz"), gzip.open),
    **dict.fromkeys((".tar.xz", ".txz"), lzma.open),
    **dict.fromkeys((".tar.bz2", ".tbz2"), bz2.open),
}
IN_PLACE = {".zip": "/vsizip/", ".tar": "/vsitar/"}

# What the standard library's readers raise for damaged bytes; ValueError is tarfile's, of a header's numbers.
BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, struct.error),
    ValueError,
)


class ArchiveError(ValueError):
    """An archive that is corrupt, or does what one may not do."""


def kind(name: str) -> str | None:
    """The ending of `name` that makes it an archive, lower case; None when it is none."""
    return next((ending for ending in (".zip", *TARS) if name.lower().endswith(ending)), None)


def prefix(path: str | Path) -> str | None:
    """What GDAL wants before the name of a member of an archive that is read in place; None for others."""
    before = IN_PLACE.get(kind(str(path)) or "")
    return f"{before}{Path(path).resolve().as_posix()}/" if before else None


def names(path: str | Path) -> list[str]:
    """Names of the files in a zip or plain tar archive that was checked, sorted."""
    if kind(str(path)) == ".zip":
        with zipfile.ZipFile(path) as opened:
            found = [member.filename for member in opened.infolist() if not member.is_dir()]
    else:
        with tarfile.open(path, "r:") as opened:
            found = [member.name for member in opened if member.isfile()]
    return sorted(str(PurePosixPath(name)) for name in found)


def content_checksum(path: Path, name: str, unpacked_bytes: int | None = None) -> str:
    """Test every member of an archive; returns the checksum of the content.

    That is the SHA-256 of lines "SHA-256 of a member, two spaces, its name, newline", sorted by name: what
    `sha256sum` prints for the extracted files. It does not depend on how the archive was packed.

    name            of the archive: its ending says what it is; stands in messages
    unpacked_bytes  what it may unpack to; None: RATIO times its own size, or FREE when that is more

    Raises ArchiveError, one line naming the archive and the member: see `walk`.
    """
    lines = []

    def hash_member(member: str, data: IO[bytes]) -> None:
        digest = hashlib.sha256()
        for piece in iter(lambda: data.read(CHUNK), b""):
            digest.update(piece)
        lines.append((member.encode("utf-8", "surrogateescape"), digest.hexdigest().encode()))

    walk(path, name, hash_member, unpacked_bytes)
    content = hashlib.sha256()
    for member, digest in sorted(lines):
        content.update(digest + b"  " + member + b"\n")
    return content.hexdigest()


def unpack(path: Path, folder: Path, name: str, unpacked_bytes: int | None = None, *, nested: bool = False) -> None:
    """Write the files of an archive to `folder`, which must be empty.

    nested  archives in it are unpacked, too, each to a folder of its own name; those in them stay as they are. They
            count towards what the whole may unpack to.

    Other arguments and errors as those of `content_checksum`. Of a member's attributes none but its name is taken.
    """
    left = unpacked_bytes or _allowed(path)
    inner = []

    def write_member(member: str, data: IO[bytes]) -> None:
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            shutil.copyfileobj(data, out, CHUNK)
        if nested and kind(member):
            inner.append(target)

    walk(path, name, write_member, left)
    left -= _size(folder) if inner else 0
    for target in inner:
        packed = target.rename(target.with_name(f".{target.name}.packed"))
        target.mkdir()
        unpack(packed, target, f"{name}: {target.relative_to(folder)}", left)
        packed.unlink()
        left -= _size(target)


def walk(path: Path, name: str, take: Callable[[str, IO[bytes]], None], unpacked_bytes: int | None = None) -> None:
    """Call take(name, open file) for every file in an archive, in its order; it is to read to the end.

    Other arguments as those of `content_checksum`.

    Raises ArchiveError: bytes that are no archive or end early, a member whose checksum is wrong or that
    is encrypted, a name that leaves the archive or is there twice, a link, device or sparse file, and more bytes than
    it may unpack to, before they are written.
    """
    most = unpacked_bytes or _allowed(path)
    ending = kind(name)
    try:
        if ending == ".zip":
            _walk_zip(path, _Names(name), take, most)
        else:
            _walk_tar(path, TARS[ending], _Names(name), take, most)
    except ArchiveError:
        raise
    except _TooLargeError:
        raise ArchiveError(
            f"{name}: unpacks to more than {most:,} bytes, and has {path.stat().st_size:,} itself; if it is known to "
            f"be that large, give its unpacked_bytes in the dataset's description"
        ) from None
    except NotImplementedError as error:  # zipfile's, of a member's method
        raise ArchiveError(
            f"{name}: corrupt archive, or one that Python's zipfile does not read: {error}; remove it and fetch it "
            f"again, or pack its files anew"
        ) from None
    except BROKEN as error:
        raise ArchiveError(f"{name}: corrupt archive: {error}; remove it and fetch it again") from None
    except OSError as error:
        if error.errno is not None:
            raise
        # What bz2 says of bytes that are not its own.
        raise ArchiveError(f"{name}: corrupt archive: {error}; remove it and fetch it again") from None


def _allowed(path: Path) -> int:
    return max(FREE, RATIO * path.stat().st_size)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


class _TooLargeError(Exception):
    pass


class _Names:
    """The names of an archive, checked one by one."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = set()

    def add(self, name: str, *, folder: bool, plain: bool) -> str:
        """The name as a path below the archive. Raises ArchiveError when it is not to be unpacked."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            self.refuse(f"the path of member {name!r} leaves the archive")
        if not folder and not plain:
            self.refuse(f"member {name!r} is a link, a device or a sparse file")
        if not folder and path in self._files:
            self.refuse(f"two members are called {name!r}")
        if not folder and not path.parts:
            self.refuse("a member has no name")
        if path in (self._files if folder else self._folders) or not self._files.isdisjoint(path.parents):
            self.refuse(f"member {name!r} is below a file, or a file and a folder at once")
        self._folders.update(path.parents)
        (self._folders if folder else self._files).add(path)
        return str(path)

    def refuse(self, why: str) -> NoReturn:
        raise ArchiveError(f"{self._archive}: {why}")


def _walk_zip(path: Path, known: _Names, take: Callable[[str, IO[bytes]], None], most: int) -> None:
    with zipfile.ZipFile(path) as archive:
        there = []
        for member in archive.infolist():
            mode = stat.S_IFMT(member.external_attr >> 16)  # 0 where it was not packed on Unix
            plain = mode in (0, stat.S_IFREG)
            there.append((known.add(member.filename, folder=member.is_dir(), plain=plain), member))
            if member.flag_bits & ENCRYPTED:
                known.refuse(f"member {member.filename!r} is encrypted; decrypt it and pack its files anew")
        # Members give no more than they announce.
        if sum(member.file_size for _, member in there) > most:
            raise _TooLargeError
        for name, member in there:
            if not member.is_dir():
                with archive.open(member) as data:
                    take(name, data)


def _walk_tar(
    path: Path,
    opener: Callable[[Path], IO[bytes]],
    known: _Names,
    take: Callable[[str, IO[bytes]], None],
    most: int,
) -> None:
    with opener(path) as unpacked:
        stream = _Forward(unpacked, most)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                plain = member.isfile() and not member.issparse()
                name = known.add(member.name, folder=member.isdir(), plain=plain)
                if plain:
                    take(name, archive.extractfile(member))
        # tarfile takes a damaged header for the end. A tar ends with empty blocks, and the checksum of what is
        # compressed comes last.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends early, or a header is damaged")
        while stream.read(CHUNK):
            pass


class _Forward:
    """A file for tarfile that is read in one go: it never goes back, and never gives more than `most` bytes."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return False

    def read(self, count: int) -> bytes:
        if not 0 <= count <= HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        self.last = self._file.read(count)
        self._position += len(self.last)
        if self._position > self._most:
            raise _TooLargeError
        return self.last

    def seek(self, position: int) -> int:
        if position < self._position:
            raise tarfile.ReadError("a header that points back")
        while self._position < position and self.read(min(CHUNK, position - self._position)):
            pass
        return self._position
