"""Pictures and Pascal VOC boxes in the layout of the NEON tree crowns, with their quirks."""

from __future__ import annotations

import pytest

XML = (
    "<annotation><size><width>40</width><height>30</height></size>"
    "<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax></bndbox></object>"
    "</annotation>"
)


def run(workplace, labels: dict[str, str]):
    """Scenes and features of pictures 30 x 40 with these XML texts, or class names, by site/plot."""
    members = {}
    for place, text in labels.items():
        site, plot = place.split("/")
        members[f"{site}/{plot}.tif"] = workplace.noise((30, 40), "TIFF")
        members[f"{site}/annotations/{plot}.xml"] = text if text.startswith("<") else XML.format(name=text)
    workplace.archive("tiny.zip", members)
    return workplace.features(
        tasks=["detection"],
        form="voc",
        files=[{"name": "tiny.zip"}],
        layout={"archive": "tiny.zip", "images": "{group}/{name}.tif", "labels": "{group}/annotations/{name}.xml"},
        classes=[{"name": "Tree", "aliases": ["", "Tree\\"]}],
    )


def test_scenes_and_aliases(workplace):
    scenes, features = run(workplace, {"HARV/HARV_022": "Tree", "HARV/HARV_024": "", "TEAK/TEAK_044": "Tree\\"})
    assert [(s.id, s.group) for s in scenes] == [("HARV_022", "HARV"), ("HARV_024", "HARV"), ("TEAK_044", "TEAK")]
    for found in features:
        assert found.class_ids.tolist() == [0]
        assert found.boxes.tolist() == [[2, 1, 22, 11]]


def test_a_file_without_object(workplace):
    _, features = run(workplace, {"HARV/HARV_022": "<annotation/>"})
    assert features[0].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Trees", r"object 0: class 'Trees' is not in the class list; .*Did you mean 'Tree'"),
        (XML.format(name="Tree").replace("<ymax>22", "<ymax>2"), r"object 0: the box is empty: x 1 to 11, y 2 to 2"),
        (
            XML.format(name="Tree").replace(">11<", ">x<"),
            r"object 0: expected bndbox: xmin, ymin, xmax, ymax, got '1 2 x",
        ),
        (XML.format(name="Tree").replace(">40<", ">41<"), r"is for 30 x 41 pixels, but .*HARV_022\.tif is 30 x 40"),
        ("<a>", "not XML"),
        ("<a/>", "expected Pascal VOC"),
    ],
)
def test_mistakes(workplace, text, says):
    with pytest.raises(ValueError, match=rf"HARV/annotations/HARV_022\.xml: {says}") as error:
        run(workplace, {"HARV/HARV_022": text})
    assert "\n" not in str(error.value)
    assert not (workplace.folder / "scenes.jsonl").exists()
