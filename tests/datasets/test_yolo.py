"""YOLO's text files in folders images and labels; a picture without objects has none."""

from __future__ import annotations

import pytest

LAYOUT = {"archive": "tiny.zip", "images": "images/{group}/{name}.png", "labels": "labels/{group}/{name}.txt"}


def run(workplace, labels: dict[str, str]):
    members = {f"images/{place}.png": workplace.noise((20, 40), "PNG") for place in ("train/a", "val/b")}
    members.update({f"labels/{place}.txt": text for place, text in labels.items()})
    workplace.archive("tiny.zip", members)
    return workplace.features(
        tasks=["detection"],
        form="yolo",
        files=[{"name": "tiny.zip"}],
        layout=LAYOUT,
        classes=[{"name": "car"}, {"name": "bus"}],
    )


def test_scenes(workplace):
    scenes, features = run(workplace, {"train/a": "1 0.5 0.25 0.5 0.5\n0 0.125 0.5 0.25 1\n"})
    assert [(s.id, s.group) for s in scenes] == [("a", "train"), ("b", "val")]
    assert features[0].class_ids.tolist() == [1, 0]
    assert features[0].boxes.tolist() == [[0, 10, 10, 30], [0, 0, 20, 10]]
    assert features[1].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.5 0.5 0.5", r"expected class x y width height, got '0\.5 0\.5 0\.5'"),
        ("0 0.5 0.5 0.5 a", r"expected class x y width height"),
        ("0 0.5 0.5 0.5 nan", r"expected class x y width height"),
        ("0 200 100 50 50", r"as shares of the picture, 0 to 1, got '0 200 100 50 50'"),
        ("2 0.5 0.5 0.5 0.5", r"class '2' is not one of 0 to 1 \(car, bus\)"),
        ("car 0.5 0.5 0.5 0.5", r"class 'car' is not one of 0 to 1"),
        ("0 0.5 0.5 0 0.5", r"the box is empty: x 20 to 20, y 5 to 15"),
    ],
)
def test_mistakes(workplace, line, says):
    with pytest.raises(ValueError, match=rf"labels/val/b\.txt: line 1: .*{says}") as error:
        run(workplace, {"val/b": line})
    assert "\n" not in str(error.value)


def test_a_text_file_without_picture(workplace):
    with pytest.raises(ValueError, match=r"labels/val/c\.txt has no image by pattern"):
        run(workplace, {"val/c": ""})
