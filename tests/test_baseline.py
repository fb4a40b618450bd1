"""The baseline: the solver against conditions it must meet, features by hand, whole runs on small scenes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from rvkernels import baseline as stage
from rvkernels import raster
from rvkernels.baseline import baseline, boxes_of, chip_features, fit
from rvkernels.evaluate import evaluate
from rvkernels.ops.tile import IDENTITY
from rvkernels.predictions import Predictions
from rvkernels.scene import Region, Scene

CLASSES = [{"name": "dark", "color": "#000000"}, {"name": "bright", "color": "#ffffff"}]


def write_chips(folder, images: np.ndarray, split: list[str], **arrays: np.ndarray) -> str:
    folder.mkdir()
    np.save(folder / "images.npy", images)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    with (folder / "chips.csv").open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["chip", "scene", "row", "col", "split", "nodata_share"])
        table.writerows([i, "s", 0, 0, s, 0.0] for i, s in enumerate(split))
    return str(folder)


def make_scene(folder, name, image, shapes) -> Scene:
    raster.write_geotiff(folder / f"{name}.tif", image, None, IDENTITY)
    features = [
        {"type": "Feature", "geometry": raster.box_geometry(box), "properties": {"class_name": label}}
        for *box, label in shapes
    ]
    path = folder / f"{name}.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": features}))
    return Scene(name, (str(folder / f"{name}.tif"),), *image.shape, "uint8", labels=str(path))


def scene_image() -> tuple[np.ndarray, list]:
    """Dark ground, three bright squares, noise that leaves them apart."""
    image = np.random.default_rng(1).integers(30, 60, (64, 64, 2)).astype(np.uint8)
    shapes = []
    for row, col in ((5, 5), (30, 40), (50, 8)):
        image[row : row + 8, col : col + 8] += 100
        shapes.append((row, col, row + 8, col + 8, "bright"))
    return image, shapes


def cut(image: np.ndarray, size: int) -> np.ndarray:
    rows, cols, bands = image.shape
    parts = image.reshape(rows // size, size, cols // size, size, bands).swapaxes(1, 2)
    return np.ascontiguousarray(parts.reshape(-1, size, size, bands))


# --- the solver


def test_two_pixels_on_either_side():
    # by symmetry bias 0 and weights -w, w on the standardised feature, with -1 + sigmoid(2w) ... = 0 at the optimum:
    # d/dw of log(1 + exp(-2w)) + penalty w^2: penalty w = 1 / (1 + exp(2 w))
    model = fit(np.array([[10.0], [20.0]]), np.array([0, 1]), 2, penalty=0.1)
    w = model.weight[0, 1]
    assert model.weight[0, 0] == pytest.approx(-w, rel=1e-4)
    assert 0.1 * w == pytest.approx(1 / (1 + np.exp(2 * w)), rel=1e-3)
    assert model.probabilities(np.array([15.0])).tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert model.converged


def test_three_classes_are_told_apart_and_probabilities_are_calibrated():
    noise = np.random.default_rng(0)
    labels = np.arange(3000) % 3
    features = np.array([[0.0, 0], [3, 0], [0, 3]])[labels] + noise.normal(size=(3000, 2))
    model = fit(features, labels, 3, penalty=0.0)
    scores = model.probabilities(features)
    assert scores.sum(1) == pytest.approx(np.ones(3000), abs=1e-5)
    # without penalty the mean probability of a class is its share: the gradient of the bias is 0
    assert scores.mean(0) == pytest.approx([1 / 3] * 3, abs=1e-3)
    # classes of unit variance around known means: Bayes' rule gives the weights in the features' own units
    raw = model.weight / model.std[:, None]
    assert raw[0, 1] - raw[0, 0] == pytest.approx(3, rel=0.15)
    assert raw[1, 2] - raw[1, 0] == pytest.approx(3, rel=0.15)


def test_a_constant_feature_says_nothing():
    features = np.array([[1.0, 7.0], [2.0, 7.0], [8.0, 7.0], [9.0, 7.0]])
    model = fit(features, np.array([0, 0, 1, 1]), 2, penalty=1e-4)
    assert model.weight[1].tolist() == [0, 0]
    assert (model.logits(features).argmax(1) == [0, 0, 1, 1]).all()


def test_no_sample_is_an_error():
    with pytest.raises(ValueError, match="no labelled sample"):
        fit(np.zeros((0, 3)), np.zeros(0, np.int64), 2, penalty=0.0)


# --- features and boxes


def test_chip_features_by_hand():
    chip = np.array([[[1, 10], [3, 10]], [[1, 10], [3, 10]]], np.uint16)[None]
    assert chip_features(chip).tolist() == [[2, 10, 1, 0]]


def test_boxes_of_connected_pixels():
    scores = np.zeros((6, 8, 3), np.float32)
    scores[..., 2] = 0.9  # background
    for row, col, c, score in ((0, 0, 0, 1.0), (1, 1, 0, 0.95), (1, 6, 0, 1.0), (4, 3, 1, 1.0), (4, 4, 1, 1.0)):
        scores[row, col, c] = score
    boxes, means, ids = boxes_of(scores, 2, least=2)
    assert boxes.tolist() == [[0, 0, 2, 2], [4, 3, 5, 5]]  # neighbours across a corner are one; one pixel is noise
    assert means.tolist() == pytest.approx([0.975, 1.0])
    assert ids.tolist() == [0, 1]
    assert [part.shape for part in boxes_of(np.ones((6, 8, 1), np.float32), 0, least=1)] == [(0, 4), (0,), (0,)]


# --- whole runs


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    monkeypatch.setattr(stage, "PIXELS", 2000)


def run(tmp_path, task, chips, scene, out="out"):
    region = Region(scene.id, 0, 0, scene.rows, scene.cols, "test")
    baseline(
        task=task,
        chips=chips,
        scenes={scene.id: scene},
        regions=[region],
        classes=CLASSES,
        predict_settings={"size": 32},
        out=tmp_path / out,
        dataset="squares",
    )
    record = json.loads((tmp_path / out / "record.json").read_text())
    evaluate(
        predictions=tmp_path / out / "predictions",
        scenes={scene.id: scene},
        classes=CLASSES,
        out=tmp_path / out / "eval.json",
        background="dark" if task != "detection" else None,
    )
    return record, json.loads((tmp_path / out / "eval.json").read_text())["summary"]["overall"]


def test_segmentation_of_what_brightness_tells(tmp_path):
    image, shapes = scene_image()
    labels = np.zeros((64, 64), np.uint8)
    for row, col, bottom, right, _ in shapes:
        labels[row:bottom, col:right] = 1
    labels[:3] = 255
    chips = write_chips(tmp_path / "chips", cut(image, 16), ["train"] * 16, labels=cut(labels[..., None], 16)[..., 0])
    scene = make_scene(tmp_path, "s", image, shapes)
    record, summary = run(tmp_path, "segmentation", chips, scene)
    assert summary["miou"] == 1.0
    assert (record["what"], record["model"], record["framework"], record["dataset"]) == (
        "baseline",
        "baseline",
        "logistic",
        "squares",
    )
    assert record["validated"] is True
    assert 1500 < record["result"]["samples"] < 2000  # pixels without a label are no samples
    assert set(record["times_s"]) == {"sample", "fit"}
    predicted = json.loads((tmp_path / "out/predictions/record.json").read_text())
    assert predicted["result"] == {"scenes": 1, "windows": 4, "pixels": 64 * 64}
    assert len(predicted["times_s"]["network"]) == 1


def test_the_same_twice_and_another_seed_another_sample(tmp_path, monkeypatch):
    image, shapes = scene_image()
    labels = np.random.default_rng(0).integers(0, 2, (16, 16, 16)).astype(np.uint8)
    chips = write_chips(tmp_path / "chips", cut(image, 16), ["train"] * 16, labels=labels)
    scene = make_scene(tmp_path, "s", image, shapes)
    scores = {}
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        monkeypatch.setattr(stage, "SEED", seed)
        run(tmp_path, "segmentation", chips, scene, out)
        scores[out] = (tmp_path / out / "predictions/s/labels.tif").read_bytes()
    assert scores["a"] == scores["b"] != scores["c"]


def test_only_training_chips_are_used(tmp_path):
    image, shapes = scene_image()
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[:8, :, :8] = 1
    images = cut(image, 16)
    split = ["train"] * 8 + ["val"] * 8
    scene = make_scene(tmp_path, "s", image, shapes)
    chips = write_chips(tmp_path / "a", images, split, labels=labels)
    run(tmp_path, "segmentation", chips, scene, "one")
    images[8:], labels[8:] = 200, 1
    chips = write_chips(tmp_path / "b", images, split, labels=labels)
    run(tmp_path, "segmentation", chips, scene, "two")
    one, two = (tmp_path / out / "predictions/s/labels.tif" for out in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_classification_of_what_brightness_tells(tmp_path):
    image = np.kron(np.array([[40, 140], [140, 40]]), np.ones((32, 32)))[..., None].repeat(2, -1).astype(np.uint8)
    image += np.random.default_rng(0).integers(0, 30, image.shape).astype(np.uint8)
    images = cut(image, 32)
    chips = write_chips(tmp_path / "chips", images, ["train"] * 4, labels=np.array([0, 1, 1, 0], np.int32))
    scene = make_scene(tmp_path, "s", image, [(0, 32, 32, 64, "bright"), (32, 0, 64, 32, "bright")])
    record, summary = run(tmp_path, "classification", chips, scene)
    assert summary["accuracy"] == 1.0
    assert record["result"]["training_accuracy"] == 1.0


def test_detection_of_what_brightness_tells(tmp_path):
    image, shapes = scene_image()
    boxes = np.array([s[:4] for s in shapes], np.float32)
    arrays = {
        "boxes": boxes,
        "box_class": np.ones(3, np.int32),
        "box_start": np.array([0, 3], np.int64),
    }
    chips = write_chips(tmp_path / "chips", image[None], ["train"], **arrays)
    scene = make_scene(tmp_path, "s", image, shapes)
    _, summary = run(tmp_path, "detection", chips, scene)
    assert summary["ap50"] == pytest.approx(1.0)
    assert summary["f1"] == 1.0
    found = Predictions.read(tmp_path / "out/predictions").arrays
    assert sorted(found["boxes"].tolist()) == sorted(boxes.tolist())
    assert set(found["box_class"].tolist()) == {1}


# --- errors


def test_bad_input(tmp_path):
    image, shapes = scene_image()
    chips = write_chips(tmp_path / "chips", cut(image, 16), ["train"] * 16, labels=np.zeros(16, np.int32))
    scene = make_scene(tmp_path, "s", image, shapes)
    with pytest.raises(ValueError, match="these chips are for classification, not for segmentation"):
        run(tmp_path, "segmentation", chips, scene)
    assert not (tmp_path / "out").exists()
