"""Image and mask pairs in the layout of the Dubai dataset."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels.fetch import fetch

PATTERNS = {"images": "Data set/{group}/images/{name}.jpg", "labels": "Data set/{group}/masks/{name}.png"}


def pictures(workplace) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    members = {"Data set/classes.json": b"{}"}
    for tile in (1, 2):
        for part in (1, 2):
            shape = (10 + tile, 12, 3)
            where = f"Data set/Tile {tile}/"
            members[f"{where}images/part_{part}.jpg"] = workplace.picture(rng.integers(0, 255, shape, np.uint8), "JPEG")
            members[f"{where}masks/part_{part}.png"] = workplace.picture(np.zeros(shape, np.uint8), "PNG")
    return members


def run(workplace, members, *, files=({"name": "tiny.zip"},), **layout):
    workplace.archive("tiny.zip", members)
    path = workplace.describe(
        tasks=["segmentation"],
        form="pairs",
        files=list(files),
        layout={"archive": "tiny.zip", **PATTERNS, **layout},
        classes=[{"name": "Land", "color": "#000000"}],
    )
    return fetch(path, workplace.downloads, workplace.mirror, workplace.folder / "scenes.jsonl")


def test_scenes(workplace):
    scenes = run(workplace, pictures(workplace))
    assert [s.id for s in scenes] == ["Tile_1_part_1", "Tile_1_part_2", "Tile_2_part_1", "Tile_2_part_2"]
    assert [s.group for s in scenes] == ["Tile 1", "Tile 1", "Tile 2", "Tile 2"]
    assert scenes[0].labels.endswith("/tiny.zip/Data set/Tile 1/masks/part_1.png")
    assert (scenes[3].rows, scenes[3].cols, scenes[3].crs) == (12, 12, None)


def test_labels_in_an_archive_of_their_own(workplace):
    members = pictures(workplace)
    workplace.archive("labels.zip", {n: data for n, data in members.items() if n.endswith(".png")})
    images = {n: data for n, data in members.items() if n.endswith(".jpg")}
    files = [{"name": "tiny.zip"}, {"name": "labels.zip"}]
    scenes = run(workplace, images, files=files, label_archive="labels.zip")
    assert len(scenes) == 4
    assert scenes[0].labels.endswith("/labels.zip/Data set/Tile 1/masks/part_1.png")
    with pytest.raises(ValueError, match=r"layout: no file 'label\.zip'; .*Did you mean 'labels\.zip'"):
        run(workplace, images, files=files, label_archive="label.zip")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("Data set/Tile 1/masks/part_2.png", r"Tile 1/images/part_2\.jpg has no label file .*\(1 of 4 images"),
        ("Data set/Tile 2/images/part_1.jpg", r"Tile 2/masks/part_1\.png has no image"),
    ],
)
def test_half_a_pair(workplace, lost, message):
    members = pictures(workplace)
    del members[lost]
    with pytest.raises(ValueError, match=message):
        run(workplace, members)


def test_a_mask_of_another_size(workplace):
    members = pictures(workplace)
    members["Data set/Tile 2/masks/part_1.png"] = workplace.picture(np.zeros((12, 9, 3), np.uint8), "PNG")
    with pytest.raises(ValueError, match=r"part_1\.png: 12 rows and 9 columns, but its image has 12 and 12"):
        run(workplace, members)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"images": "Data/{group}/{name}.jpg"}, r"no image fits 'Data/"),
        ({"labels": "Data set/{group}/masks/{nome}.png"}, r"must have the same fields"),
        (
            {"images": "Data set/{group}/images/*.jpg", "labels": "Data set/{group}/masks/*.png"},
            r"are the same scene by pattern",
        ),
    ],
)
def test_mistakes(workplace, layout, message):
    with pytest.raises(ValueError, match=message) as error:
        run(workplace, pictures(workplace), **layout)
    assert "\n" not in str(error.value)
