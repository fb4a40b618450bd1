"""DOTA's text files: two header lines, then quadrilaterals."""

from __future__ import annotations

import pytest
import shapely

LAYOUT = {"archive": "tiny.zip", "images": "images/{name}.png", "labels": "labelTxt/{name}.txt"}
HEADER = "imagesource:GoogleEarth\ngsd:0.146\n"
DIAMOND = "10 2 20 10 10 18 0.5 10"


def run(workplace, text: str, task="detection", **layout):
    workplace.archive("tiny.zip", {"images/P0001.png": workplace.noise((30, 40), "PNG"), "labelTxt/P0001.txt": text})
    return workplace.features(
        tasks=[task],
        form="dota",
        files=[{"name": "tiny.zip"}],
        layout={**LAYOUT, **layout},
        classes=[{"name": "plane"}, {"name": "small-vehicle"}],
    )


def test_boxes_around_quadrilaterals(workplace):
    scenes, features = run(workplace, f"{HEADER}{DIAMOND} small-vehicle 1\n{DIAMOND} plane 0\n")
    assert [s.id for s in scenes] == ["P0001"]
    assert features[0].class_ids.tolist() == [1, 0]
    assert features[0].boxes.tolist() == [[2, 0.5, 18, 20]] * 2
    assert features[0].geometries[0].area == 16 * 19.5


def test_difficult_objects_may_be_left_out(workplace):
    _, features = run(workplace, f"{DIAMOND} small-vehicle 1\n{DIAMOND} plane 0\n", difficult=False)
    assert features[0].class_ids.tolist() == [0]


def test_quadrilaterals(workplace):
    _, features = run(workplace, f"{HEADER}{DIAMOND} plane 0\n", task="segmentation")
    assert features[0].geometries[0].equals(shapely.Polygon([(10, 2), (20, 10), (10, 18), (0.5, 10)]))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1 2 3 4 5 6 7 8 plane", r"expected x1 y1 x2 y2 x3 y3 x4 y4 category difficult \(0 or 1\), got '1 2 3"),
        (f"{DIAMOND} plane 2", r"expected x1 y1"),
        ("1 2 3 4 5 6 7 x plane 0", r"expected eight numbers x1 y1 \.\.\. x4 y4, got '1 2 3 4 5 6 7 x'"),
        ("1 2 1 4 1 6 1 8 plane 0", r"the box is empty: x 1 to 1"),
        (f"{DIAMOND} plan 0", r"class 'plan' is not in the class list; .*Did you mean 'plane'"),
    ],
)
def test_mistakes(workplace, line, says):
    with pytest.raises(ValueError, match=rf"labelTxt/P0001\.txt: line 3: {says}") as error:
        run(workplace, HEADER + line)
    assert "\n" not in str(error.value)
