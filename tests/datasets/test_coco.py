"""COCO's JSON: one file per split, or one for all; boxes, polygons, run lengths, crowds."""

from __future__ import annotations

import copy
import json

import pytest
import shapely

LAYOUT = {"archive": "tiny.zip", "annotations": "annotations/all.json", "images": "images"}
CATEGORIES = [{"id": 7, "name": "ship"}, {"id": 3, "name": "plane"}]
SQUARE = [2, 3, 12, 3, 12, 13, 2, 13]
# A crowd of two rows of pixels in column 1 of a picture of 20 x 30: 20 pixels of column 0 and 4 more come before.
RUNS = {"size": [20, 30], "counts": [24, 2, 574]}


def content(names=("a.jpg", "sub/b.jpg")) -> dict:
    images = [{"id": i, "file_name": name, "height": 20, "width": 30} for i, name in enumerate(names, 10)]
    return {
        "images": images,
        "categories": CATEGORIES,
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "bbox": [2, 3, 10, 10], "segmentation": [SQUARE], "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 7, "bbox": [1, 4, 1, 2], "segmentation": RUNS, "iscrowd": 1},
        ],
    }


def run(workplace, files: dict[str, dict], pictures=("images/a.jpg", "images/sub/b.jpg"), task="detection", **layout):
    members = {name: json.dumps(text) for name, text in files.items()}
    members.update({name: workplace.noise((20, 30), "JPEG") for name in pictures})
    workplace.archive("tiny.zip", members)
    return workplace.features(
        tasks=[task],
        form="coco",
        files=[{"name": "tiny.zip"}],
        layout={**LAYOUT, **layout},
        classes=[{"name": "plane"}, {"name": "ship"}],
    )


def test_boxes(workplace):
    scenes, features = run(workplace, {"annotations/all.json": content()})
    assert [(s.id, s.rows, s.cols, s.split) for s in scenes] == [("a", 20, 30, None), ("b", 20, 30, None)]
    assert features[0].class_ids.tolist() == [0]  # the crowd is no object
    assert features[0].boxes.tolist() == [[3, 2, 13, 12]]
    assert len(features[1].boxes) == 0


def test_polygons_and_crowds(workplace):
    _, features = run(workplace, {"annotations/all.json": content()}, task="segmentation")
    assert features[0].class_ids.tolist() == [0, 1]
    assert features[0].geometries[0].equals(shapely.box(2, 3, 12, 13))
    assert features[0].geometries[1].equals(shapely.box(1, 4, 2, 6))


def test_a_file_per_split(workplace):
    files = {f"annotations/{s}.json": content(["a.jpg"]) for s in ("train", "val")}
    layout = {
        "annotations": {"train": "annotations/train.json", "val": "annotations/val.json"},
        "images": "{split}2017",
    }
    scenes, features = run(workplace, files, [f"{s}2017/a.jpg" for s in ("train", "val")], **layout)
    assert [(s.id, s.split) for s in scenes] == [("train_a", "train"), ("val_a", "val")]
    assert [len(f.boxes) for f in features] == [1, 1]


def test_annotations_in_an_archive_of_their_own(workplace):
    workplace.archive("labels.zip", {"annotations/all.json": json.dumps(content(["a.jpg"]))})
    workplace.archive("tiny.zip", {"images/a.jpg": workplace.noise((20, 30), "JPEG")})
    _, features = workplace.features(
        tasks=["detection"],
        form="coco",
        files=[{"name": "tiny.zip"}, {"name": "labels.zip"}],
        layout={**LAYOUT, "label_archive": "labels.zip"},
        classes=[{"name": "plane"}],
    )
    assert features[0].boxes.tolist() == [[3, 2, 13, 12]]


def changed(place: str, key: str, value: object) -> dict:
    """The annotations with one value changed; `place` is images, annotations or categories."""
    found = copy.deepcopy(content())
    found[place][0][key] = value
    return found


def with_harbor() -> dict:
    found = changed("annotations", "category_id", 4)
    return {**found, "categories": [*CATEGORIES, {"id": 4, "name": "harbor"}]}


def test_only_listed(workplace):
    _, features = run(workplace, {"annotations/all.json": with_harbor()}, only_listed=True)
    assert [len(f.boxes) for f in features] == [0, 0]


@pytest.mark.parametrize(
    ("annotations", "task", "says"),
    [
        (
            changed("annotations", "bbox", [2, 3, 0, 10]),
            "detection",
            r"annotations\[0\] \(id 1\): the box is empty: x 2 to 2",
        ),
        (changed("annotations", "bbox", [2, 3, 5]), "detection", r"expected bbox x, y, width, height, got '2 3 5'"),
        (changed("annotations", "bbox", None), "detection", r"expected bbox x, y, width, height, got 'None'"),
        (changed("annotations", "image_id", 99), "detection", r"annotations\[0\] .*: image_id 99 is in no entry"),
        (changed("annotations", "category_id", 99), "detection", r"category_id 99 is in no entry of the file"),
        (changed("annotations", "segmentation", []), "segmentation", r"segmentation: expected polygons or run lengths"),
        (
            changed("annotations", "segmentation", [[1, 2, 3, 4]]),
            "segmentation",
            r"expected x, y of three points or more",
        ),
        (
            changed("annotations", "segmentation", {"size": [20, 30], "counts": "abc"}),
            "segmentation",
            r"are compressed;",
        ),
        (
            changed("annotations", "segmentation", {**RUNS, "size": [30, 20]}),
            "segmentation",
            r"size: expected \[20, 30\]",
        ),
        (changed("annotations", "segmentation", {**RUNS, "counts": [24, 2]}), "segmentation", r"add up to 600 pixels"),
        (changed("images", "height", 21), "detection", r"image 10: is for 21 x 30 pixels, but .*a\.jpg is 20 x 30"),
        (changed("images", "file_name", "c.jpg"), "detection", r"image 10: no file 'images/c\.jpg'"),
        (changed("images", "file_name", "sub/b.jpg"), "detection", r"image 11: images/sub/b\.jpg is there twice"),
        (changed("images", "id", 11), "detection", r"images\[1\]: id 11 is there twice"),
        (changed("categories", "id", None), "detection", r"categories\[0\]: id: expected a number or a text"),
        (with_harbor(), "detection", r"annotations\[0\] \(id 1\): class 'harbor' is not in the class list"),
        ({"images": []}, "detection", r"annotations: expected a list of objects"),
        ([], "detection", r"expected a JSON object, got list"),
    ],
)
def test_mistakes(workplace, annotations, task, says):
    with pytest.raises(ValueError, match=rf"annotations/all\.json: .*{says}") as error:
        run(workplace, {"annotations/all.json": annotations}, task=task)
    assert "\n" not in str(error.value)
    assert not (workplace.folder / "scenes.jsonl").exists()


def test_a_file_that_is_not_there(workplace):
    with pytest.raises(
        ValueError, match=r"no annotations 'annotations/al\.json'; .*Did you mean 'annotations/all\.json'"
    ):
        run(workplace, {"annotations/all.json": content()}, annotations="annotations/al.json")
