"""Pictures and Pascal VOC boxes in the layout of the NEON tree crowns, with their quirks."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels import dataset
from rvkernels.fetch import fetch
from rvkernels.labels import load_features

XML = (
    "<annotation><size><width>40</width><height>30</height></size>"
    "<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox></object>"
    "</annotation>"
)


def run(workplace, names: dict[str, str]):
    rng = np.random.default_rng(1)
    members = {}
    for place, name in names.items():
        site, plot = place.split("/")
        members[f"{site}/{plot}.tif"] = workplace.picture(rng.integers(0, 255, (30, 40, 3), np.uint8), "TIFF")
        members[f"{site}/annotations/{plot}.xml"] = XML.format(name=name).encode()
    workplace.archive("tiny.zip", members)
    path = workplace.describe(
        tasks=["detection"],
        form="voc",
        files=[{"name": "tiny.zip"}],
        layout={"archive": "tiny.zip", "images": "{group}/{name}.tif", "labels": "{group}/annotations/{name}.xml"},
        classes=[{"name": "Tree", "aliases": ["", "Tree\\"]}],
    )
    return path, fetch(path, workplace.downloads, workplace.mirror, workplace.folder / "scenes.jsonl")


def test_scenes_and_aliases(workplace):
    path, scenes = run(workplace, {"HARV/HARV_022": "Tree", "HARV/HARV_024": "", "TEAK/TEAK_044": "Tree\\"})
    assert [(s.id, s.group) for s in scenes] == [("HARV_022", "HARV"), ("HARV_024", "HARV"), ("TEAK_044", "TEAK")]
    classes = dataset.load(path)["classes"]
    for scene in scenes:
        features = load_features(scene, classes)
        assert features.class_ids.tolist() == [0]
        assert features.boxes.tolist() == [[2, 1, 22, 11]]


def test_a_class_that_is_not_in_the_list(workplace):
    with pytest.raises(ValueError, match=r"HARV_024\.xml: object 0: class 'Trees' is not in the class list"):
        run(workplace, {"HARV/HARV_022": "Tree", "HARV/HARV_024": "Trees"})
    assert not (workplace.folder / "scenes.jsonl").exists()
