"""Scenes and regions that do not belong together."""

from __future__ import annotations

import pytest

from rvkernels.predictions import scene_file
from rvkernels.scene import Region, Scene, check_regions

SCENES = {"a": Scene("a", ("a.tif",), rows=20, cols=30, bands=1, dtype="uint8")}


@pytest.mark.parametrize(
    ("extent", "said"),
    [
        ((0, 0, 21, 30), "rows 0 to 21 and columns 0 to 30 are no part of scene a, which has 20 x 30 pixels"),
        ((4, 10, 8, 21), "rows 4 to 12 and columns 10 to 31 are no part of scene a"),
        ((-1, 0, 5, 5), "rows -1 to 4"),
        ((0, 0, 0, 5), "rows 0 to 0"),
    ],
)
def test_a_region_that_is_no_part_of_its_scene(extent, said):
    with pytest.raises(ValueError, match=rf"regions: {said}.*run `rvk split` again"):
        check_regions([Region("a", 0, 0, 20, 30, "train"), Region("a", *extent, "test")], SCENES)


def test_a_region_of_no_scene():
    with pytest.raises(ValueError, match=r"regions: no scene 'b'; run `rvk split` again"):
        check_regions([Region("b", 0, 0, 20, 30, "test")], SCENES)


def test_a_scene_whose_file_would_be_another():
    assert scene_file("out", "record", "").as_posix() == "out/record"
    with pytest.raises(ValueError, match=r"scene 'record': its predictions would be record.json"):
        scene_file("out", "record", ".json")
