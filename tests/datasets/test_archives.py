"""The same dataset in every kind of archive: the same scenes and the same pixels."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest

from rvkernels import archive
from rvkernels.fetch import fetch
from rvkernels.ops import tile

CLASSES = [{"name": "Land", "color": "#000000"}]


def pictures(workplace) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    shape = (10, 12, 3)
    members = {}
    for i in range(3):
        members[f"images/{i}.tif"] = workplace.picture(rng.integers(0, 255, shape, np.uint8), "TIFF")
        members[f"masks/{i}.png"] = workplace.picture(np.zeros(shape, np.uint8), "PNG")
    return members


def scenes(workplace, name: str) -> list:
    layout = {"archive": name, "images": "images/{name}.tif", "labels": "masks/{name}.png"}
    files = [{"name": name}]
    path = workplace.describe(tasks=["segmentation"], form="pairs", files=files, layout=layout, classes=CLASSES)
    return fetch(path, workplace.downloads, workplace.mirror)


def pixels(found: list) -> list[list]:
    return [np.asarray(image).tolist() for image in tile.read_many([s.images[0] for s in found])]


@pytest.mark.parametrize("ending", archive.TARS)
def test_a_tar_gives_what_a_zip_gives(workplace, ending):
    members = pictures(workplace)
    workplace.archive("tiny.zip", members)
    compression = next((name for name in ("gz", "xz", "bz2") if ending.endswith(name)), "")
    with tarfile.open(workplace.mirror / f"tiny{ending}", f"w:{compression}") as packed:
        for name, data in members.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    expected, found = scenes(workplace, "tiny.zip"), scenes(workplace, f"tiny{ending}")
    assert [s.id for s in found] == [s.id for s in expected] == ["0", "1", "2"]
    assert pixels(found) == pixels(expected)
    place = f"/vsitar/{workplace.downloads}/tiny/tiny.tar/" if ending == ".tar" else f"tiny{ending}.unpacked/"
    assert place in found[0].images[0]


def test_archives_in_an_archive(workplace):
    members = pictures(workplace)
    workplace.archive("tiny.zip", members)
    expected = scenes(workplace, "tiny.zip")
    parts = {}
    for part in ("images", "masks"):
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as packed:
            for name, data in members.items():
                if name.startswith(part):
                    packed.writestr(name, data)
        parts[f"Tiny/{part}.zip"] = inner.getvalue()
    workplace.archive("outer.zip", parts)
    layout = {
        "archive": "outer.zip",
        "images": "Tiny/images.zip/images/{name}.tif",
        "labels": "Tiny/masks.zip/masks/{name}.png",
    }
    files = [{"name": "outer.zip", "nested": True}]
    path = workplace.describe(tasks=["segmentation"], form="pairs", files=files, layout=layout, classes=CLASSES)
    found = fetch(path, workplace.downloads, workplace.mirror)
    assert pixels(found) == pixels(expected)


def test_a_file_that_is_no_archive_by_its_name(workplace):
    (workplace.mirror / "tiny.rar").write_bytes(b"Rar!")
    with pytest.raises(ValueError, match=r"layout: tiny\.rar is no archive by its name"):
        scenes(workplace, "tiny.rar")
