"""eval.json: Raster Vision's keys and formulas by hand, our additions, what is counted and what is not."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from rvkernels import evaluate as module
from rvkernels import predict, raster
from rvkernels.evaluate import evaluate, matrix_items
from rvkernels.ops.tile import IDENTITY
from rvkernels.predictions import Predictions
from rvkernels.scene import Region, Scene

CLASSES = [{"name": "road", "color": "#808080"}, {"name": "house", "color": "#ff0000"}]
NAMES = ["road", "house"]
PIXELS = {"type": "FeatureCollection", "crs": None}


def geojson(path, shapes) -> str:
    """A file of boxes (ymin, xmin, ymax, xmax, class name) in pixels."""
    features = [
        {"type": "Feature", "geometry": raster.box_geometry(box), "properties": {"class_name": name} if name else {}}
        for *box, name in shapes
    ]
    path.write_text(json.dumps({**PIXELS, "features": features}))
    return str(path)


def make_scene(folder, name, shapes, size=(40, 60), nodata=None, image=None) -> Scene:
    image = np.ones((*size, 1), np.uint8) if image is None else image
    path = folder / f"{name}.tif"
    raster.write_geotiff(path, image, None, IDENTITY, nodata=nodata)
    labels = geojson(folder / f"{name}.geojson", shapes)
    return Scene(name, (str(path),), *image.shape, "uint8", nodata=nodata, labels=labels)


def whole(scene: Scene) -> Region:
    return Region(scene.id, 0, 0, scene.rows, scene.cols, "test")


def judged(tmp_path, made, scenes, **options) -> dict:
    if isinstance(made, Predictions):
        made.write(tmp_path / "predictions")
    known = {s.id: s for s in scenes}
    evaluate(predictions=tmp_path / "predictions", scenes=known, classes=CLASSES, out=tmp_path / "eval.json", **options)
    return json.loads((tmp_path / "eval.json").read_text())


# --- items


def test_items_by_hand():
    road, _, average = matrix_items(np.array([[6, 2], [1, 1]]), NAMES, int)
    assert set(road) >= {"class_id", "class_name", "gt_count", "pred_count", "count_error", "relative_frequency"}
    assert (road["gt_count"], road["pred_count"], road["count_error"], road["relative_frequency"]) == (8, 7, 1, 0.8)
    assert road["conf_mat"] == [[1, 1], [2, 6]]  # [[TN, FP], [FN, TP]]
    assert road["conf_mat_frac"] == [[0.1, 0.1], [0.2, 0.6]]
    assert road["conf_mat_dict"] == {"TN": 1, "FP": 1, "FN": 2, "TP": 6}
    assert road["conf_mat_frac_dict"] == {"TN": 0.1, "FP": 0.1, "FN": 0.2, "TP": 0.6}
    assert road["metrics"] == pytest.approx(
        {"recall": 6 / 8, "precision": 6 / 7, "f1": 0.8, "sensitivity": 6 / 8, "specificity": 1 / 2}
    )
    assert road["iou"] == pytest.approx(6 / 9)
    assert average["class_name"] == "average"
    assert "class_id" not in average
    assert average["metrics"]["precision"] == pytest.approx((8 * 6 / 7 + 2 * 1 / 3) / 10)
    assert average["metrics"]["f1"] == pytest.approx((8 * 0.8 + 2 * 0.4) / 10)
    assert (average["gt_count"], average["pred_count"], average["count_error"]) == (10, 10, 2)
    assert average["conf_mat"] == [[6, 2], [1, 1]]
    assert average["conf_mat_frac"] == [[0.6, 0.2], [0.1, 0.1]]


def test_undefined_items():
    road, house, average = matrix_items(np.array([[0, 3], [0, 0]]), NAMES, int)
    assert math.isnan(road["metrics"]["precision"])
    assert road["metrics"]["recall"] == 0
    assert math.isnan(road["metrics"]["f1"])
    assert math.isnan(house["metrics"]["recall"])
    assert average["metrics"]["precision"] == 0  # undefined counts as 0 here, as in Raster Vision
    assert matrix_items(np.zeros((2, 2), int), NAMES, int)[-1]["metrics"]["f1"] == 0


# --- segmentation


def predict_labels(tmp_path, scenes, regions, predicted: dict[str, np.ndarray]):
    """Writes predictions through the real writer: the image of each scene holds what is to be predicted."""
    seen = []
    for scene in scenes:
        path = tmp_path / f"{scene.id}.predicted.tif"
        raster.write_geotiff(path, predicted[scene.id][..., None], None, IDENTITY, nodata=scene.nodata)
        seen.append(dataclasses.replace(scene, images=(str(path),)))
    folder = tmp_path / "predictions"
    folder.mkdir()
    predict.predict_scenes(
        lambda images: (np.maximum(images, 1) == np.arange(1, 3)).astype(np.float32),
        task="segmentation",
        multiple=1,
        scenes={s.id: s for s in seen},
        regions=regions,
        split="test",
        bands=1,
        classes=CLASSES,
        settings=predict.for_task({"size": 16}, "segmentation"),
        folder=folder,
    )


def test_segmentation_by_hand(tmp_path):
    a = make_scene(tmp_path, "a", [(0, 0, 40, 60, "road"), (0, 0, 10, 10, "house")])
    b = make_scene(tmp_path, "b", [(0, 0, 20, 60, "road")])  # the rest has no label
    predicted = {"a": np.ones((40, 60), np.uint8), "b": np.ones((40, 60), np.uint8)}
    predicted["a"][0:10, 5:15] = 2
    predict_labels(tmp_path, [a, b], [whole(a), whole(b)], predicted)
    result = judged(tmp_path, None, [a, b])
    in_a = [[2250, 50], [50, 50]]
    assert result["per_scene"]["a"][-1]["conf_mat"] == in_a
    assert result["per_scene"]["b"][-1]["conf_mat"] == [[1200, 0], [0, 0]]
    assert result["overall"][-1]["conf_mat"] == [[3450, 50], [50, 50]]
    assert isinstance(result["overall"][0]["gt_count"], float)  # pixels are floats, as in Raster Vision
    assert result["per_scene"]["b"][1]["iou"] is None
    assert result["summary"]["overall"]["miou"] == pytest.approx((3450 / 3550 + 50 / 150) / 2)
    assert result["summary"]["per_scene"]["a"]["accuracy"] == pytest.approx(2300 / 2400)
    assert (result["task"], result["split"], result["primary"]) == ("segmentation", "test", "miou")
    assert result["primary"] in result["summary"]["overall"]


def test_blocks_change_nothing(tmp_path, monkeypatch):
    a = make_scene(tmp_path, "a", [(0, 0, 40, 60, "road"), (3, 7, 31, 44, "house")])
    predicted = np.random.default_rng(0).integers(1, 3, (40, 60)).astype(np.uint8)
    predict_labels(tmp_path, [a], [Region("a", 2, 1, 35, 50, "test")], {"a": predicted})
    once = judged(tmp_path, None, [a])
    monkeypatch.setattr(module, "BLOCK", 13)
    assert judged(tmp_path, None, [a]) == once
    assert once["overall"][-1]["gt_count"] == 35 * 50  # the region only


def test_outside_the_area_of_interest_nothing_counts(tmp_path):
    a = make_scene(tmp_path, "a", [(0, 0, 40, 60, "road")])
    a = dataclasses.replace(a, aoi=geojson(tmp_path / "aoi.geojson", [(10, 0, 20, 30, None)]))
    predicted = np.full((40, 60), 2, np.uint8)
    predicted[10:20, :30] = 1
    predict_labels(tmp_path, [a], [whole(a)], {"a": predicted})
    result = judged(tmp_path, None, [a])
    assert result["overall"][-1]["conf_mat"] == [[300, 0], [0, 0]]


def test_pixels_without_data_do_not_count(tmp_path):
    image = np.ones((40, 60, 1), np.uint8)
    image[:15] = 0
    a = make_scene(tmp_path, "a", [(0, 0, 40, 60, "road")], nodata=0, image=image)
    predict_labels(tmp_path, [a], [whole(a)], {"a": image[..., 0]})
    assert judged(tmp_path, None, [a])["overall"][-1]["conf_mat"] == [[25 * 60, 0], [0, 0]]


def test_a_pixel_with_data_and_no_prediction_is_an_error(tmp_path):
    image = np.ones((40, 60), np.uint8)
    image[3, 4] = 0  # no data when it was predicted, but the scene itself has data there
    a = make_scene(tmp_path, "a", [(0, 0, 40, 60, "road")], nodata=0)
    predict_labels(tmp_path, [a], [whole(a)], {"a": image})
    with pytest.raises(ValueError, match="scene a: 1 labelled pixels have data but no prediction"):
        judged(tmp_path, None, [a])
    assert not (tmp_path / "eval.json").exists()


def test_nothing_labelled_is_an_error(tmp_path):
    a = make_scene(tmp_path, "a", [])
    predict_labels(tmp_path, [a], [whole(a)], {"a": np.ones((40, 60), np.uint8)})
    with pytest.raises(ValueError, match="no labelled pixel"):
        judged(tmp_path, None, [a])


# --- classification


def cell_predictions(scenes, cells, scores) -> Predictions:
    arrays = {"cells": np.array(cells, np.int64).reshape(-1, 5), "scores": np.array(scores, np.float32).reshape(-1, 2)}
    regions = np.array([(i, 0, 0, s.rows, s.cols) for i, s in enumerate(scenes)], np.int64)
    return Predictions("classification", "test", NAMES, [s.id for s in scenes], {}, regions, arrays)


def test_cells_by_inference(tmp_path):
    # cells of 20: road, road | house, mostly empty, inside and outside of the area of interest
    a = make_scene(tmp_path, "a", [(0, 0, 20, 60, "road"), (20, 0, 40, 20, "house"), (20, 20, 25, 40, "house")])
    cells = [(0, r, c, 20, 20) for r in (0, 20) for c in (0, 20, 40)]
    scores = [[0.9, 0.1], [0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.9, 0.1]]
    made = cell_predictions([a], cells, scores)
    result = judged(tmp_path, made, [a])
    assert result["overall"][-1]["conf_mat"] == [[2, 1], [0, 1]]
    assert isinstance(result["overall"][0]["gt_count"], int)
    assert result["summary"]["overall"]["accuracy"] == 0.75
    # confidences .9 (2 right), .6 (wrong), .8 (right)
    assert result["summary"]["overall"]["ece"] == pytest.approx((2 * 0.1 + 0.6 + 0.2) / 4, abs=1e-6)
    assert sum(row["count"] for row in result["calibration"]) == 4
    assert result["per_scene"]["a"] == result["overall"]
    assert result["summary"]["per_scene"]["a"]["accuracy"] == 0.75
    with_background = judged(tmp_path, made, [a], background="road")
    assert with_background["overall"][-1]["conf_mat"] == [[4, 1], [0, 1]]
    half = dataclasses.replace(a, aoi=geojson(tmp_path / "aoi.geojson", [(0, 0, 40, 30, None)]))
    assert judged(tmp_path, made, [half])["overall"][-1]["conf_mat"] == [[1, 0], [0, 1]]


def test_cells_without_data_do_not_count(tmp_path):
    image = np.ones((40, 60, 1), np.uint8)
    image[:, :20] = 0  # all of two cells
    image[:5, 20:40] = 0  # a quarter of one
    image[20:32, 20:40] = 0  # and three fifths of another
    a = make_scene(tmp_path, "a", [(0, 0, 40, 60, "road")], nodata=0, image=image)
    cells = [(0, r, c, 20, 20) for r in (0, 20) for c in (0, 20, 40)]
    made = cell_predictions([a], cells, [[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    assert judged(tmp_path, made, [a])["overall"][-1]["conf_mat"] == [[3, 0], [0, 0]]
    assert judged(tmp_path, made, [a], nodata_max=0.7)["overall"][-1]["conf_mat"] == [[3, 1], [0, 0]]
    assert judged(tmp_path, made, [a], nodata_max=1)["overall"][-1]["conf_mat"] == [[3, 3], [0, 0]]


def test_scenes_with_a_class(tmp_path):
    scenes = [
        dataclasses.replace(make_scene(tmp_path, name, []), labels=None, class_name=name_class)
        for name, name_class in (("a", "road"), ("b", "house"), ("c", "house"))
    ]
    cells = [(i, 0, 0, 40, 60) for i in range(3)]
    result = judged(tmp_path, cell_predictions(scenes, cells, [[0.9, 0.1], [0.3, 0.7], [0.8, 0.2]]), scenes)
    assert result["overall"][-1]["conf_mat"] == [[1, 0], [1, 1]]
    assert result["per_scene"] == result["summary"]["per_scene"] == {}  # one cell each: nothing to say
    wrong = [dataclasses.replace(scenes[0], class_name="rode"), *scenes[1:]]
    with pytest.raises(ValueError, match=r"'rode' is not in the class list.*Did you mean 'road'"):
        judged(tmp_path, None, wrong)


# --- detection


def box_predictions(scenes, regions, boxes, scores, box_class=None, box_scene=None, show=0.5) -> Predictions:
    n = len(boxes)
    arrays = {
        "boxes": np.array(boxes, np.float32).reshape(n, 4),
        "scores": np.array(scores, np.float32),
        "box_class": np.array(box_class or [0] * n, np.int32),
        "box_scene": np.array(box_scene or [0] * n, np.int64),
    }
    ids = [s.id for s in scenes]
    table = np.array([(ids.index(r.scene), r.row, r.col, r.rows, r.cols) for r in regions], np.int64)
    return Predictions("detection", "test", NAMES, ids, {"score_show": show}, table, arrays)


def test_boxes_by_hand(tmp_path):
    a = make_scene(tmp_path, "a", [(0, 0, 10, 10, "road"), (20, 20, 30, 30, "house"), (0, 40, 9, 50, "road")])
    b = make_scene(tmp_path, "b", [(5, 5, 15, 15, "house")])
    made = box_predictions(
        [a, b],
        [whole(a), whole(b)],
        [[0, 0, 10, 10], [20, 20, 30, 30], [0, 41, 9, 50], [5, 5, 15, 15]],
        [0.9, 0.8, 0.4, 0.7],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
    )
    result = judged(tmp_path, made, [a, b])
    road, house, average = result["overall"]
    # the third detection is right, but below the score that counts as found
    assert (road["true_pos"], road["false_pos"], road["false_neg"]) == (1, 1, 1)
    assert (house["true_pos"], house["false_pos"], house["false_neg"]) == (1, 0, 1)
    assert (road["gt_count"], road["pred_count"]) == (2.0, 2.0)
    assert road["metrics"]["specificity"] is None
    assert "conf_mat" not in road
    assert "relative_frequency" not in road
    assert average["metrics"]["specificity"] == 0.0
    assert average["metrics"]["recall"] == 0.5
    # road: right (.9), wrong (.8), right (.4): precision 1 up to recall 1/2 (51 of 101 levels), then 2/3
    assert road["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert house["ap50"] == pytest.approx(51 / 101)
    assert result["summary"]["overall"]["ap50"] == pytest.approx((road["ap50"] + house["ap50"]) / 2)
    assert result["summary"]["overall"]["recall"] == 0.5
    assert result["summary"]["per_scene"]["b"]["ap50"] == pytest.approx(1.0)
    assert result["per_scene"]["b"][0]["ap50"] is None
    assert result["primary"] in result["summary"]["overall"]


def test_boxes_at_the_edge_of_a_region(tmp_path):
    # 30 % and 70 % of the boxes lie in the region
    a = make_scene(tmp_path, "a", [(0, 0, 10, 10, "road"), (0, 23, 10, 33, "road"), (20, 27, 30, 37, "road")])
    region = Region("a", 0, 0, 40, 30, "test")
    found = [[0, 0, 10, 10], [0, 23, 10, 30], [20, 27, 30, 30], [35, 50, 40, 60]]
    result = judged(tmp_path, box_predictions([a], [region], found, [0.9, 0.8, 0.7, 0.6]), [a])
    road = result["overall"][0]
    assert (road["true_pos"], road["false_pos"], road["false_neg"]) == (2, 0, 0)
    assert road["ap50"] == pytest.approx(1.0)


def test_boxes_outside_the_area_of_interest(tmp_path):
    a = make_scene(tmp_path, "a", [(0, 0, 10, 10, "road"), (20, 40, 30, 50, "road")])
    a = dataclasses.replace(a, aoi=geojson(tmp_path / "aoi.geojson", [(0, 0, 40, 30, None)]))
    found = [[0, 0, 10, 10], [20, 40, 30, 50], [0, 50, 10, 60]]
    road = judged(tmp_path, box_predictions([a], [whole(a)], found, [0.9] * 3), [a])["overall"][0]
    assert (road["true_pos"], road["false_pos"], road["false_neg"]) == (1, 0, 0)


# --- errors


def test_other_classes_or_scenes_are_refused(tmp_path):
    a = make_scene(tmp_path, "a", [(0, 0, 10, 10, "road")])
    made = box_predictions([a], [whole(a)], [[0, 0, 10, 10]], [0.9])
    with pytest.raises(ValueError, match="scene 'a' is not in the dataset"):
        judged(tmp_path, made, [])
    with pytest.raises(ValueError, match="predicted classes are"):
        judged(tmp_path, dataclasses.replace(made, classes=["house", "road"]), [a])


def test_a_detection_file_without_labels_in_it_is_an_error(tmp_path):
    a = make_scene(tmp_path, "a", [])
    with pytest.raises(ValueError, match="no labelled box"):
        judged(tmp_path, box_predictions([a], [whole(a)], [], []), [a])


# --- where it is wrong


def test_the_worst_windows_of_a_scene(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 20)
    a = make_scene(tmp_path, "a", [(0, 0, 40, 60, "road")])
    predicted = np.ones((40, 60), np.uint8)
    predicted[20:30, 40:60] = 2  # half of the last window
    predicted[0:5, 0:5] = 2
    predict_labels(tmp_path, [a], [whole(a)], {"a": predicted})
    results = []
    for block in (2048, 16):  # counted in parts, they are the same
        monkeypatch.setattr(module, "BLOCK", block)
        results.append(judged(tmp_path, None, [a])["worst"])
    assert results[0] == results[1]
    size = {"rows": 20, "cols": 20, "known": 400}
    assert results[0] == [
        {"scene": "a", "row": 20, "col": 40, **size, "wrong": 0.5},
        {"scene": "a", "row": 0, "col": 0, **size, "wrong": 25 / 400},
    ]


def test_a_scene_of_odd_size_has_no_slivers_among_its_worst_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 20)
    a = make_scene(tmp_path, "a", [(0, 0, 45, 63, "road")], image=np.ones((45, 63, 1), np.uint8))
    b = make_scene(tmp_path, "b", [(0, 0, 8, 8, "road")], image=np.ones((8, 8, 1), np.uint8))  # less than a window
    predicted = {"a": np.ones((45, 63), np.uint8), "b": np.ones((8, 8), np.uint8)}
    predicted["a"][:, 60:] = 2
    predicted["b"][:4] = 2
    predict_labels(tmp_path, [a, b], [whole(a), whole(b)], predicted)
    worst = judged(tmp_path, None, [a, b])["worst"]
    assert [tuple(w.values()) for w in worst] == [
        ("b", 0, 0, 8, 8, 64, 0.5),
        ("a", 0, 42, 22, 21, 22 * 21, 3 / 21),
        ("a", 22, 42, 23, 21, 23 * 21, 3 / 21),
    ]


def test_the_worst_cells_and_the_curves_of_classes(tmp_path):
    a = make_scene(tmp_path, "a", [(0, 0, 20, 60, "road"), (20, 0, 40, 60, "house")])
    cells = [(0, r, c, 20, 20) for r in (0, 20) for c in (0, 20, 40)]
    scores = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]]
    result = judged(tmp_path, cell_predictions([a], cells, scores), [a])
    worst = [{k: w[k] for k in ("row", "col", "truth", "prediction")} for w in result["worst"]]
    assert worst == [
        {"row": 0, "col": 40, "truth": "road", "prediction": "house"},
        {"row": 0, "col": 20, "truth": "road", "prediction": "house"},
    ]
    assert result["worst"][0]["score"] == pytest.approx(0.7)
    road, house = result["curves"]
    # road is perfectly ordered by its score, and so is house
    assert road["precision"] == house["precision"] == [1.0] * 101
    assert (road["score"][0], road["score"][100]) == pytest.approx((0.9, 0.3))


def test_the_worst_windows_and_the_curve_of_boxes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 20)
    a = make_scene(tmp_path, "a", [(0, 0, 10, 10, "road"), (22, 22, 32, 32, "road"), (24, 45, 34, 55, "road")])
    found = [[0, 0, 10, 10], [20, 50, 30, 60], [24, 46, 34, 56]]
    result = judged(tmp_path, box_predictions([a], [whole(a)], found, [0.9, 0.8, 0.7]), [a])
    counts = [(w["row"], w["col"], w["found"], w["missed"], w["false"]) for w in result["worst"]]
    assert counts == [(20, 20, 0, 1, 0), (20, 40, 1, 0, 1)]
    road, house = result["curves"]
    # right (.9), wrong (.8), right (.7): precision 1 up to a recall of 1/3, 2/3 up to 2/3, then nothing
    assert road["precision"] == pytest.approx([1.0] * 34 + [2 / 3] * 33 + [0.0] * 34, abs=1e-5)
    assert np.mean(road["precision"]) == pytest.approx(result["overall"][0]["ap50"], abs=1e-5)
    assert house["precision"] == [None] * 101
