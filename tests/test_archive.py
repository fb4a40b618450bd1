"""Archives of every kind: the same content whatever packed it; nothing hostile is opened; every damage is told."""

from __future__ import annotations

import hashlib
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvkernels import archive
from rvkernels.archive import ArchiveError, content_checksum, unpack

KINDS = [".zip", *archive.TARS]
TARS = list(archive.TARS)
DATA = random.Random(0).randbytes(100_000)
MEMBERS = {"b/1.txt": b"one" * 100, "a 2.txt": b"two", "empty": b""}


def pack(path: Path, members: dict[str, bytes], **header: object) -> Path:
    """An archive of the kind of its name; `header` sets fields of the headers of a tar."""
    ending = archive.kind(path.name)
    if ending == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        return path
    compression = next((name for name in ("gz", "xz", "bz2") if ending.endswith(name)), "")
    with tarfile.open(path, f"w:{compression}") as packed:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in header.items():
                setattr(member, key, value)
            packed.addfile(member, io.BytesIO(data))
    return path


def refused(path: Path, message: str, tmp_path: Path, **limit: int) -> None:
    """Neither the test nor the unpacking takes the archive, in one line; nothing is beside the folder."""
    folder = tmp_path / "out" / "folder"
    folder.mkdir(parents=True)
    for call in (
        lambda: content_checksum(path, path.name, **limit),
        lambda: unpack(path, folder, path.name, **limit),
    ):
        with pytest.raises(ArchiveError, match=message) as error:
            call()
        assert str(error.value).startswith(f"{path.name}: ")
        assert "\n" not in str(error.value)
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("ending", KINDS)
def test_content_is_the_same_whatever_packed_it(tmp_path, ending):
    path = pack(tmp_path / f"x{ending}", dict(reversed(MEMBERS.items())))
    listed = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(MEMBERS.items()))
    assert content_checksum(path, path.name) == hashlib.sha256(listed.encode()).hexdigest()
    (tmp_path / "out").mkdir()
    unpack(path, tmp_path / "out", path.name)
    assert sum(p.is_file() for p in (tmp_path / "out").rglob("*")) == len(MEMBERS)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in MEMBERS} == MEMBERS


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_names_of_what_is_read_in_place(tmp_path, ending):
    path = pack(tmp_path / f"x{ending}", {f"./{name}": data for name, data in MEMBERS.items()})
    assert archive.names(path) == sorted(MEMBERS)
    assert archive.prefix(path) == f"/vsi{ending[1:]}/{path}/"


def test_kinds_of_names():
    assert [archive.kind(n) for n in ("A.ZIP", "a.b.tar.gz", "a.TGZ", "a.gz", "zip", "a.tif")] == [
        *(".zip", ".tar.gz", ".tgz", None, None, None)
    ]
    assert archive.prefix("a.tar.gz") is None


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "b/../../a.txt", "..\\a.txt"])
def test_members_that_leave_it(tmp_path, name, ending):
    refused(pack(tmp_path / f"x{ending}", {name: b"1"}), r"the path of member .* leaves the archive", tmp_path)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path, ending, kind):
    path = pack(tmp_path / f"x{ending}", {"a": b""}, type=kind, linkname="/etc/passwd")
    refused(path, "member 'a' is a link, a device or a sparse file", tmp_path)


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip(tmp_path, mode):
    member = zipfile.ZipInfo("a")
    member.create_system, member.external_attr = 3, (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr(member, "/etc/passwd")
    refused(tmp_path / "x.zip", "member 'a' is a link, a device or a sparse file", tmp_path)


def test_a_sparse_file_in_a_tar(tmp_path):
    headers = {"major": "1", "minor": "0", "name": "a", "realsize": "9" * 12}
    headers = {f"GNU.sparse.{key}": value for key, value in headers.items()}
    path = pack(tmp_path / "x.tar", {"a": b"1\n0\n1\n".ljust(512, b"\0")}, pax_headers=headers)
    refused(path, "member 'a' is a link, a device or a sparse file", tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a")])
def test_members_in_each_others_way(tmp_path, ending, names):
    path = tmp_path / f"x{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name in names:
                packed.writestr(name, "1")
    else:
        with tarfile.open(path, "w:gz") as packed:
            for name in names:
                packed.addfile(tarfile.TarInfo(name))
    refused(path, r"two members are called|is below a file, or a file and a folder at once", tmp_path)


@pytest.mark.parametrize("ending", KINDS)
def test_size_bombs(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(archive, "FREE", 1 << 20)
    path = pack(tmp_path / f"x{ending}", {str(i): bytes(1 << 19) for i in range(6)})
    if ending != ".tar":  # which cannot be much smaller than what is in it
        refused(path, rf"unpacks to more than {1 << 20:,} bytes.* give its unpacked_bytes", tmp_path)
    (tmp_path / "more").mkdir()
    refused(path, r"unpacks to more than 3,000,000 bytes", tmp_path / "more", unpacked_bytes=3_000_000)
    content_checksum(path, path.name, unpacked_bytes=4 << 20)


def test_a_bomb_in_a_header(tmp_path):
    # An extended header is read into memory at once, before any member is known.
    head = tarfile.TarInfo("././@PaxHeader")
    head.type, head.size = tarfile.XHDTYPE, 1 << 30
    with archive.gzip.open(tmp_path / "x.tar.gz", "wb") as out:
        out.write(head.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    refused(tmp_path / "x.tar.gz", r"corrupt archive: a header of 1073741824 bytes", tmp_path)


def test_bytes_after_the_end_count(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE", 1 << 20)
    path = pack(tmp_path / "y.tar", MEMBERS)
    with archive.gzip.open(tmp_path / "x.tar.gz", "wb") as out:
        out.write(path.read_bytes() + bytes(1 << 22))
    refused(tmp_path / "x.tar.gz", "unpacks to more than", tmp_path)


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damage(tmp_path, ending, damage):
    path = pack(tmp_path / f"x{ending}", {"a.bin": DATA, "b.bin": DATA})
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flip":
        if ending == ".tar":  # only headers have checksums
            data[data.index(b"b.bin")] ^= 1
        else:
            data[len(data) // 2] ^= 1
    elif damage == "empty":
        data.clear()
    else:
        data = b"<html>Please log in</html>"
    path.write_bytes(data)
    refused(path, r"corrupt archive: .*remove it and fetch it again", tmp_path)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
@settings(max_examples=30)
@given(data=st.data())
def test_no_damage_is_told_otherwise(tmp_path_factory, ending, data):
    """A byte changed or a cut: an ArchiveError and nothing else, or, where a checksum is over all, the same content."""
    path = pack(tmp_path_factory.mktemp("damage") / f"x{ending}", MEMBERS)
    whole, packed = content_checksum(path, path.name), bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        del packed[place:]
    else:
        packed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(packed)
    try:
        found = content_checksum(path, path.name)
    except ArchiveError:
        return
    assert found == whole or ending in (".zip", ".tar")


def test_a_tar_cut_between_members(tmp_path):
    path = pack(tmp_path / "x.tar", {"a.bin": DATA, "b.bin": DATA})
    path.write_bytes(path.read_bytes()[: 512 + len(DATA) + -len(DATA) % 512])
    refused(path, "corrupt archive: it ends early", tmp_path)


def test_an_encrypted_zip(tmp_path):
    path = pack(tmp_path / "x.zip", {"a.txt": b"1"})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)
    refused(path, r"x\.zip: member 'a\.txt' is encrypted", tmp_path)


def test_a_zip_packed_in_an_unknown_way(tmp_path):
    path = pack(tmp_path / "x.zip", {"a.txt": b"1"})
    data = bytearray(path.read_bytes())
    for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + method] = 97  # WavPack
    path.write_bytes(data)
    refused(path, "or one that Python's zipfile does not read: .*pack its files anew", tmp_path)


@pytest.mark.parametrize("outer", [".zip", ".tar"])
@pytest.mark.parametrize("inner", KINDS)
def test_archives_in_an_archive(tmp_path, outer, inner):
    content = pack(tmp_path / f"i{inner}", MEMBERS).read_bytes()
    path = pack(tmp_path / f"x{outer}", {f"P/i{inner}": content, "P/readme.txt": b"read me"})
    for name, nested in (("flat", False), ("deep", True)):
        (tmp_path / name).mkdir()
        unpack(path, tmp_path / name, path.name, nested=nested)
    assert (tmp_path / "flat" / "P" / f"i{inner}").read_bytes() == content
    deep = tmp_path / "deep" / "P"
    assert sorted(p.name for p in deep.iterdir()) == [f"i{inner}", "readme.txt"]
    assert {n: (deep / f"i{inner}" / n).read_bytes() for n in MEMBERS} == MEMBERS


def test_archives_in_an_archive_share_its_limit_and_are_named(tmp_path):
    inner = pack(tmp_path / "i.zip", {"a": bytes(1 << 20)}).read_bytes()
    path = pack(tmp_path / "x.zip", {"1.zip": inner, "2.zip": inner})
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match=r"^x\.zip: 2\.zip: unpacks to more than"):
        unpack(path, tmp_path / "out", path.name, 1_500_000, nested=True)
    hostile = pack(tmp_path / "h.zip", {"../a": b"1"}).read_bytes()
    (tmp_path / "more").mkdir()
    with pytest.raises(ArchiveError, match=r"^x\.zip: h\.zip: the path of member '\.\./a' leaves the archive"):
        unpack(pack(path, {"h.zip": hostile}), tmp_path / "more", path.name, nested=True)
