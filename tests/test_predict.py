"""Windows, mirrored edges, blending, boxes across windows, and the files predictions are written to."""

from __future__ import annotations

import csv
import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from rvkernels import assemble, dihedral, predict, raster, registry
from rvkernels.checkpoint import Checkpoint, write_checkpoint
from rvkernels.frameworks import check_state, complete_optimizer, reference
from rvkernels.ops import tile
from rvkernels.ops.iou import iou as pairwise_iou
from rvkernels.predictions import Predictions, scene_file
from rvkernels.scene import Region, Scene
from rvkernels.weights import initial

UTM = "EPSG:32618"
TRANSFORM = (500_000.0, 0.5, 0.0, 4_500_000.0, 0.0, -0.5)
CLASSES = [
    {"name": "field", "color": "#00ff00"},
    {"name": "wood land/1", "color": "#004000"},
    {"name": "c", "color": "#0000ff"},
]


def make_scene(folder, name: str, image: np.ndarray, crs: str | None = UTM, nodata: float | None = None) -> Scene:
    path = folder / f"{name}.tif"
    raster.write_geotiff(path, image, crs, TRANSFORM, nodata=nodata)
    about = raster.describe(path)
    rows, cols, bands = image.shape
    return Scene(name, (str(path),), rows, cols, bands, about["dtype"], TRANSFORM, about["crs"], nodata)


def run(folder, task, score, scenes, regions, settings, split="test", multiple=1):
    folder.mkdir(exist_ok=True)
    return predict.predict_scenes(
        score,
        task=task,
        multiple=multiple,
        scenes={s.id: s for s in scenes},
        regions=regions,
        split=split,
        bands=scenes[0].bands,
        classes=CLASSES,
        settings=predict.for_task(settings, task),
        folder=folder,
        threads=1,
    )


def by_value(images: np.ndarray) -> np.ndarray:
    """Pixel scores that say the class whose id is the first band's value, with 0.6."""
    return (0.2 + 0.4 * (images[..., :1] == np.arange(3))).astype(np.float32)


def class_image(rows: int, cols: int, bands: int = 2) -> np.ndarray:
    image = np.random.default_rng(rows * cols).integers(0, 3, (rows, cols)).repeat(bands).reshape(rows, cols, bands)
    return image.astype(np.uint8)


# --- windows


def test_first_pixels_cover_or_stay_inside():
    assert assemble.first_pixels(11, 4, 3, flush=True) == [0, 3, 6, 7]
    assert assemble.first_pixels(11, 4, 4, flush=False) == [0, 4]
    assert assemble.first_pixels(3, 4, 2, flush=True) == assemble.first_pixels(3, 4, 2, flush=False) == [0]


def test_mirror_repeats_the_edge():
    assert predict.mirror(np.arange(-3, 8), 0, 4).tolist() == [2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]
    assert predict.mirror(np.arange(9, 14), 10, 11).tolist() == [10] * 5


def test_core_leaves_no_gap():
    limits = assemble.core([0, 50, 70], 100)
    assert limits[0] == (float("-inf"), 75 + 12.5)
    assert limits[50] == (75 - 12.5, 110 + 20)
    assert limits[70] == (110 - 20, float("inf"))


# --- segmentation


@pytest.mark.parametrize(
    ("rows", "cols", "settings"),
    [
        (64, 48, {"size": 16}),
        (61, 47, {"size": 16, "stride": 7}),
        (61, 47, {"size": 16, "stride": 8, "crop": 3, "window": "constant"}),
        (40, 30, {"size": 30, "stride": 11, "window": "linear", "batch": 1}),
        (9, 30, {"size": 16}),
    ],
)
def test_every_pixel_is_predicted(tmp_path, rows, cols, settings):
    image = class_image(rows, cols)
    scene = make_scene(tmp_path, "a", image)
    _, counts = run(
        tmp_path / "out", "segmentation", by_value, [scene], [Region("a", 0, 0, rows, cols, "test")], settings
    )
    window = np.array([[0, 0, rows, cols]])
    assert (tile.read(tmp_path / "out/a/labels.tif", window)[0, ..., 0] == image[..., 0]).all()
    scores = tile.read(tmp_path / "out/a/scores.tif", window)[0]
    assert scores.dtype == np.uint8
    assert (scores == np.where(image[..., :1] == np.arange(3), round(0.6 * 255), round(0.2 * 255))).all()
    assert counts["pixels"] == rows * cols


def test_a_window_multiple_is_padded_not_scored(tmp_path):
    image = class_image(21, 34)
    scene = make_scene(tmp_path, "a", image)
    seen = []

    def score(images):
        seen.append(images.shape[1:3])
        return by_value(images)

    regions = [Region("a", 0, 0, 21, 34, "test")]
    run(tmp_path / "out", "segmentation", score, [scene], regions, {"size": 12}, multiple=8)
    assert set(seen) == {(16, 16)}
    labels = tile.read(tmp_path / "out/a/labels.tif", np.array([[0, 0, 21, 34]]))
    assert (labels[0, ..., 0] == image[..., 0]).all()


def test_portions_of_reading_change_nothing(tmp_path, monkeypatch):
    image = class_image(61, 47)
    scenes = [make_scene(tmp_path, name, image if name == "a" else image[::-1]) for name in "ab"]
    regions = [Region(s.id, 0, 0, 61, 47, "test") for s in scenes]
    monkeypatch.setattr(predict, "READ_BYTES", 16 * 16 * 2 * 9)
    times, counts = run(tmp_path / "out", "segmentation", by_value, scenes, regions, {"size": 16, "batch": 3})
    assert counts["windows"] == 2 * 7 * 5
    assert len(times["read"]) == 8
    assert len(times["network"]) == 24
    for name, expected in (("a", image), ("b", image[::-1])):
        labels = tile.read(tmp_path / f"out/{name}/labels.tif", np.array([[0, 0, 61, 47]]))
        assert (labels[0, ..., 0] == expected[..., 0]).all()


def test_every_size_of_batch_warms_up_once(tmp_path, monkeypatch):
    """A framework may compile for each: 7 x 5 windows are 8 batches of 4 and one of 3."""
    scene = make_scene(tmp_path, "a", class_image(61, 47))
    now, seen = [0.0], []

    def score(images):
        now[0] += 1.0 if len(images) in seen else 100.0
        seen.append(len(images))
        return by_value(images)

    monkeypatch.setattr(predict.time, "perf_counter", lambda: now[0])
    regions = [Region("a", 0, 0, 61, 47, "test")]
    times, _ = run(tmp_path / "out", "segmentation", score, [scene], regions, {"size": 16, "batch": 4})
    assert seen == [4] * 9 + [3] * 2
    assert times["warmup"] == [100.0, 100.0]
    assert times["network"] == [1.0] * 9
    assert times["total"] == [9.0]


def test_strips_change_nothing(tmp_path, monkeypatch):
    noise = np.random.default_rng(0)

    def score(images):
        # differs from window to window, so that blending matters
        offset = images[:, :1, :1, :1].astype(np.float32) / 10
        raw = by_value(images) + offset * np.array([1, 0, 0], np.float32)
        return raw / raw.sum(-1, keepdims=True)

    image = noise.integers(0, 3, (90, 40, 1)).astype(np.uint8)
    scene = make_scene(tmp_path, "a", image)
    regions = [Region("a", 5, 3, 80, 30, "test")]
    settings = {"size": 16, "stride": 5, "crop": 2, "scores": "float32", "batch": 7}
    run(tmp_path / "whole", "segmentation", score, [scene], regions, settings)
    monkeypatch.setattr(assemble, "STRIP", 17)
    run(tmp_path / "strips", "segmentation", score, [scene], regions, settings)
    window = np.array([[0, 0, 90, 40]])
    for name in ("a/labels.tif", "a/scores.tif"):
        assert (tile.read(tmp_path / "whole" / name, window) == tile.read(tmp_path / "strips" / name, window)).all()


def test_no_data_and_regions_side_by_side_in_strips(tmp_path, monkeypatch):
    image = np.random.default_rng(1).integers(1, 4, (70, 50, 1)).astype(np.uint8)
    image[np.random.default_rng(2).random((70, 50)) < 0.02] = 0
    image[28:40] = 0
    scene = make_scene(tmp_path, "a", image, nodata=0)
    regions = [Region("a", 0, 0, 70, 25, "test"), Region("a", 10, 25, 60, 25, "test")]
    monkeypatch.setattr(assemble, "STRIP", 8)
    settings = {"size": 16, "stride": 7, "batch": 5}
    run(tmp_path / "out", "segmentation", lambda x: by_value(np.maximum(x, 1) - 1), [scene], regions, settings)
    window = np.array([[0, 0, 70, 50]])
    labels = tile.read(tmp_path / "out/a/labels.tif", window)[0, ..., 0]
    want = image[..., 0].astype(np.int64) - 1
    want[want < 0] = 255
    want[:10, 25:] = 255
    assert (labels == want).all()
    scores = tile.read(tmp_path / "out/a/scores.tif", window)[0]
    assert (scores.max(-1) == np.where(want == 255, 0, 153)).all()


def test_memory_does_not_grow_with_the_rows_of_a_scene(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "READ_BYTES", 1 << 16)
    monkeypatch.setattr(assemble, "STRIP", 64)
    peaks = []
    for rows in (256, 2048):
        scene = make_scene(tmp_path, f"a{rows}", np.ones((rows, 96, 1), np.uint8))
        regions = [Region(scene.id, 0, 0, rows, 96, "test")]
        settings = {"size": 32, "scores": "float32", "polygons": None}
        tracemalloc.start()
        run(tmp_path / "out", "segmentation", by_value, [scene], regions, settings)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    scores_of_all_rows = 2048 * 96 * 3 * 4
    assert peaks[1] < peaks[0] + scores_of_all_rows / 4


def test_a_region_is_predicted_without_its_neighbours(tmp_path):
    image = np.full((40, 60, 1), 77, np.uint8)
    image[:, 30:] = class_image(40, 30, 1)
    scene = make_scene(tmp_path, "a", image)
    regions = [Region("a", 0, 0, 40, 30, "train"), Region("a", 0, 30, 40, 30, "test")]

    def score(images):
        assert images.max() < 3, "a window holds a pixel of the training region"
        return by_value(images)

    run(tmp_path / "out", "segmentation", score, [scene], regions, {"size": 32, "stride": 9})
    labels = tile.read(tmp_path / "out/a/labels.tif", np.array([[0, 0, 40, 60]]))[0, ..., 0]
    assert (labels[:, :30] == 255).all()
    assert (labels[:, 30:] == image[:, 30:, 0]).all()


def test_no_data_gives_no_label(tmp_path):
    image = class_image(40, 30) + 1
    image[:7] = 0
    image[20:24, 5:9] = 0
    scene = make_scene(tmp_path, "a", image, nodata=0)
    run(
        tmp_path / "out",
        "segmentation",
        lambda images: by_value(np.maximum(images, 1) - 1),
        [scene],
        [Region("a", 0, 0, 40, 30, "test")],
        {"size": 16},
    )
    labels = tile.read(tmp_path / "out/a/labels.tif", np.array([[0, 0, 40, 30]]))[0, ..., 0]
    assert ((labels == 255) == (image[..., 0] == 0)).all()
    assert (labels[labels != 255] == image[..., 0][labels != 255] - 1).all()


def test_labels_open_in_a_gis(tmp_path):
    image = np.zeros((40, 60, 1), np.uint8)
    image[10:20, 30:50] = 1
    image[30:32, 5:9] = 2  # below the 16 pixels of the smallest polygon
    scene = make_scene(tmp_path, "a", image)
    run(tmp_path / "out", "segmentation", by_value, [scene], [Region("a", 0, 0, 40, 60, "test")], {"size": 32})
    about = raster.describe(tmp_path / "out/a/labels.tif")
    assert about["nodata"] == 255
    assert about["transform"] == TRANSFORM
    assert "32618" in about["crs"]
    assert tuple(about["palette"][1][:3]) == (0, 64, 0)
    names = sorted(p.name for p in (tmp_path / "out/a/polygons").iterdir())
    assert names == ["class-0-field.json", "class-1-wood_land_1.json", "class-2-c.json"]
    assert (tile.read(tmp_path / "out/a/labels.tif", np.array([[0, 0, 40, 60]]))[0] == image).all()
    assert json.loads((tmp_path / "out/a/polygons" / names[2]).read_text())["features"] == []
    (feature,) = json.loads((tmp_path / "out/a/polygons" / names[1]).read_text())["features"]
    assert feature["properties"] == {"class_id": 1, "class_name": "wood land/1"}
    ring = raster.to_pixels(scene, np.array(feature["geometry"]["coordinates"][0]))
    assert {tuple(p) for p in np.round(ring, 1).tolist()} == {(30, 10), (50, 10), (50, 20), (30, 20)}


# --- classification


def by_mean(images: np.ndarray) -> np.ndarray:
    best = np.round(images.mean((1, 2, 3))).astype(int)
    return np.where(best[:, None] == np.arange(3), 0.8, 0.1).astype(np.float32)


def test_cells_of_a_scene(tmp_path):
    image = np.kron(np.array([[0, 1, 2], [2, 1, 0]]), np.ones((8, 8)))[..., None].astype(np.uint8)
    image = np.pad(image, ((0, 3), (0, 0), (0, 0)))  # three rows that hold no whole cell
    scene = make_scene(tmp_path, "town/a", image)
    regions = [Region("town/a", 0, 0, 19, 24, "test")]
    run(tmp_path / "out", "classification", by_mean, [scene], regions, {"size": 8})
    features = json.loads((tmp_path / "out/town/a.json").read_text())["features"]
    assert [f["properties"]["class_id"] for f in features] == [0, 1, 2, 2, 1, 0]
    assert features[1]["properties"]["class_name"] == "wood land/1"
    assert features[1]["properties"]["scores"] == pytest.approx([0.1, 0.8, 0.1])
    ring = raster.to_pixels(scene, np.array(features[5]["geometry"]["coordinates"][0]))
    assert (ring.min(0).round(2).tolist(), ring.max(0).round(2).tolist()) == ([16, 8], [24, 16])
    made = Predictions.read(tmp_path / "out")
    assert made.arrays["cells"].tolist()[4] == [0, 8, 8, 8, 8]
    assert made.arrays["scores"].dtype == np.float32
    assert not (tmp_path / "out/predictions.csv").exists()


def test_scenes_that_are_chips_make_one_table(tmp_path):
    values = [1, 0, 2, 2, 1]
    scenes = [make_scene(tmp_path, f"s{i}", np.full((8, 8, 2), v, np.uint8), None) for i, v in enumerate(values)]
    regions = [Region(s.id, 0, 0, 8, 8, "test") for s in scenes]
    for size in (8, None, 11):  # 11: cells larger than the scene are mirrored
        run(tmp_path / "out", "classification", by_mean, scenes, regions, {"size": size, "batch": 2})
        with (tmp_path / "out/predictions.csv").open() as lines:
            table = list(csv.DictReader(lines))
        assert [int(row["class_id"]) for row in table] == values
        assert list(table[0]) == ["scene", "class_id", "class_name", "score_field", "score_wood land/1", "score_c"]
        assert Predictions.read(tmp_path / "out").arrays["cells"][:, 3:].tolist() == [[8, 8]] * 5


# --- detection


def bright_boxes(images: np.ndarray) -> list:
    """A perfect detector of what a window shows: the bounding box of every connected bright area; class = value - 1."""
    found = []
    for image in images[..., 0]:
        areas, _ = ndimage.label(image)
        places = ndimage.find_objects(areas)
        boxes = np.array([(p[0].start, p[1].start, p[0].stop, p[1].stop) for p in places], np.float32).reshape(-1, 4)
        classes = np.array([image[p].max() - 1 for p in places], np.int32)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        found.append((boxes, (0.2 + np.minimum(area, 60) / 100).astype(np.float32), classes))
    return found


def objects_image() -> tuple[np.ndarray, list[list[int]]]:
    image = np.zeros((100, 120, 1), np.uint8)
    boxes = [[3, 3, 10, 9], [0, 60, 7, 68], [45, 50, 55, 58], [30, 90, 38, 98], [92, 112, 100, 120], [60, 28, 66, 36]]
    for i, (top, left, bottom, right) in enumerate(boxes):
        image[top:bottom, left:right] = 1 + i % 3
    return image, boxes


@pytest.mark.parametrize("settings", [{"size": 40}, {"size": 48, "stride": 30, "batch": 5}, {"size": 150}])
def test_every_object_once(tmp_path, settings):
    image, boxes = objects_image()
    scene = make_scene(tmp_path, "a", image)
    regions = [Region("a", 0, 0, 100, 120, "test")]
    run(tmp_path / "out", "detection", bright_boxes, [scene], regions, settings)
    arrays = Predictions.read(tmp_path / "out").arrays
    assert sorted(arrays["boxes"].tolist()) == sorted(map(list, boxes))
    assert dict(zip(map(tuple, arrays["boxes"].tolist()), arrays["box_class"].tolist())) == {
        tuple(map(float, box)): i % 3 for i, box in enumerate(boxes)
    }
    assert (np.diff(arrays["scores"]) <= 0).all()
    features = json.loads((tmp_path / "out/a.json").read_text())["features"]
    assert len(features) == 6
    assert set(features[0]["properties"]) == {"class_id", "class_name", "score"}
    assert -90 < features[0]["geometry"]["coordinates"][0][0][0] < -70  # longitude, not a column


def test_weak_boxes_are_kept_for_evaluation_but_not_shown(tmp_path):
    image, _ = objects_image()
    scene = make_scene(tmp_path, "a", image)
    regions = [Region("a", 0, 0, 100, 120, "test")]
    run(tmp_path / "out", "detection", bright_boxes, [scene], regions, {"size": 150, "score_show": 0.7})
    scores = Predictions.read(tmp_path / "out").arrays["scores"]
    features = json.loads((tmp_path / "out/a.json").read_text())["features"]
    assert len(scores) == 6
    assert len(features) == (scores >= 0.7).sum() == 4


def test_boxes_without_a_crs_are_pixels(tmp_path):
    image, boxes = objects_image()
    scene = dataclasses.replace(make_scene(tmp_path, "a", image, None), transform=(0, 1, 0, 0, 0, 1))
    regions = [Region("a", 0, 0, 50, 120, "test"), Region("a", 50, 0, 50, 120, "test")]
    run(tmp_path / "out", "detection", bright_boxes, [scene], regions, {"size": 64})
    collection = json.loads((tmp_path / "out/a.json").read_text())
    assert collection["crs"] is None
    rings = [f["geometry"]["coordinates"][0] for f in collection["features"]]
    assert [[9.0, 3.0], [9.0, 10.0], [3.0, 10.0], [3.0, 3.0], [9.0, 3.0]] in rings
    # the box that the border of the two regions cuts is found on both sides, and none reaches across
    found = Predictions.read(tmp_path / "out").arrays["boxes"].tolist()
    assert [45.0, 50.0, 50.0, 58.0] in found
    assert [50.0, 50.0, 55.0, 58.0] in found
    assert len(found) == len(boxes) + 1


def test_a_scene_without_objects(tmp_path):
    scene = make_scene(tmp_path, "a", np.zeros((30, 30, 1), np.uint8))
    run(tmp_path / "out", "detection", bright_boxes, [scene], [Region("a", 0, 0, 30, 30, "test")], {"size": 16})
    assert json.loads((tmp_path / "out/a.json").read_text())["features"] == []
    assert Predictions.read(tmp_path / "out").arrays["boxes"].shape == (0, 4)


# --- networks


def trained_in(precision: str) -> dict:
    """What a training keeps of its settings, as far as a prediction asks."""
    return {"identity": {"settings": {"precision": precision}}}


@pytest.mark.parametrize(
    ("task", "model", "model_settings"),
    [
        ("classification", "cnn", {}),
        ("segmentation", "unet", {"depth": 2, "width": 4}),
        ("detection", "detector", {}),
    ],
)
def test_a_network_predicts_a_scene(tmp_path, task, model, model_settings):
    pytest.importorskip("torch", minversion="2")
    graph = registry.load("models", model).graph(2, 3, **model_settings)
    weights = initial(graph, 7)
    write_checkpoint(tmp_path / "best.npz", Checkpoint(weights, trained_in("float32")))
    image = np.random.default_rng(3).integers(0, 255, (70, 90, 2)).astype(np.uint8)
    scene = make_scene(tmp_path, "a", image)
    options = {
        "framework": "torch",
        "model": model,
        "model_settings": model_settings,
        "task": task,
        "checkpoint": tmp_path / "best.npz",
        "scenes": {"a": scene},
        "regions": [Region("a", 0, 0, 70, 90, "test")],
        "statistics": {"mean": [120.0, 130.0], "std": [70.0, 75.0]},
        "classes": CLASSES,
        "settings": {"size": 50, "batch": 4, "scores": "float32", "score_min": 0.0},
        "out": tmp_path / "out",
        "dataset": "noise",
        "seed": 7,
    }
    predict.predict(**options)
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert (record["what"], record["validated"], record["dataset"], record["seed"]) == ("predict", True, "noise", 7)
    assert record["chips_per_s"] == pytest.approx(record["result"]["windows"] / sum(record["times_s"]["network"]))
    assert set(record["times_s"]) == {"import", "build", "warmup", "network", "read", "total"}
    assert record["started"].endswith("Z")
    assert record["settings"]["precision"] == "float32"
    assert "torch" in record["software"]
    assert not list(tmp_path.glob(".out*"))

    # the same by hand, for the first window
    side = -(-50 // graph.multiple) * graph.multiple
    network = registry.load("frameworks", "torch").Framework(
        graph, weights, registry.load("tasks", task).LOSS, {"name": "sgd"}
    )
    window = np.pad(image[:side, :side], ((0, max(0, side - 70)), (0, max(0, side - 90)), (0, 0)), mode="symmetric")
    logits = network.predict(((window[None] - [120, 130]) / [70, 75]).astype(np.float32))
    scores = registry.load("tasks", task).probabilities(logits)
    if task == "classification":
        assert Predictions.read(tmp_path / "out").arrays["scores"][0] == pytest.approx(scores[0], abs=1e-4)
    elif task == "segmentation":
        found = tile.read(tmp_path / "out/a/scores.tif", np.array([[0, 0, 20, 25]]))[0]
        assert found == pytest.approx(scores[0, :20, :25], abs=1e-4)  # pixels that only this window sees
    else:
        assert len(Predictions.read(tmp_path / "out").arrays["boxes"]) > 0


def test_a_network_computes_in_its_training_s_precision_and_keeps_nothing_to_train_with(tmp_path, monkeypatch):
    graph = registry.load("models", "cnn").graph(2, 3)
    write_checkpoint(tmp_path / "best.npz", Checkpoint(initial(graph, 0), trained_in("bfloat16")))
    asked = {}

    class Asked(reference.Framework):
        def __init__(self, graph, weights, loss, optimizer, *, precision, **others):
            asked.update(precision=precision, kept=check_state(None, complete_optimizer(optimizer), weights))
            super().__init__(graph, weights, loss, optimizer, **others)

    monkeypatch.setattr(reference, "Framework", Asked)
    predict.predict(
        framework="reference",
        model="cnn",
        model_settings={},
        task="classification",
        checkpoint=tmp_path / "best.npz",
        scenes={"a": make_scene(tmp_path, "a", class_image(20, 20))},
        regions=[Region("a", 0, 0, 20, 20, "test")],
        statistics={"mean": [1.0, 1.0], "std": [1.0, 1.0]},
        classes=CLASSES,
        settings={"size": 20},
        out=tmp_path / "out",
    )
    assert asked == {"precision": "bfloat16", "kept": ()}
    assert json.loads((tmp_path / "out/record.json").read_text())["settings"]["precision"] == "bfloat16"


def test_a_band_that_never_varies_is_predicted_as_it_was_trained():
    graph = registry.load("models", "cnn").graph(2, 3)
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 2), dtype=np.uint8)
    images[..., 1] = 7
    scores = [
        predict.Network("reference", graph, initial(graph, 0), {"mean": [9.0, 7.0], "std": [4.0, last]}, {"views": 1})(
            images
        )
        for last in (0.0, 1.0)
    ]
    np.testing.assert_array_equal(*scores)


# The eight symmetries of a square, as turns and a mirror.
SYMMETRIES = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


def moved(images, symmetry):
    turns, mirrored = symmetry
    return np.rot90(images[:, :, ::-1] if mirrored else images, turns, axes=(1, 2))


def moved_back(maps, symmetry):
    turns, mirrored = symmetry
    maps = np.rot90(maps, -turns, axes=(1, 2))
    return maps[:, :, ::-1] if mirrored else maps


def network_of(task, views, threshold=0.0):
    """A network of random weights, which has no symmetry of its own, and windows for it."""
    model, given = {
        "classification": ("cnn", {"width": 4, "blocks": 2}),
        "segmentation": ("unet", {"width": 4, "depth": 2}),
        "detection": ("detector", {"depth": 10, "width": 4, "pyramid": 4, "tower": 0, "strides": [4, 8]}),
    }[task]
    graph = registry.load("models", model).graph(2, 3, **given)
    settings = {"views": views, "score_min": threshold, "nms_iou": 0.5}
    images = np.random.default_rng(1).integers(0, 255, (3, 32, 32, 2), dtype=np.uint8)
    statistics = {"mean": [120.0, 130.0], "std": [70.0, 75.0]}
    return predict.Network("reference", graph, initial(graph, 0), statistics, settings), images


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_eight_views_are_averaged(task):
    single, images = network_of(task, 1)
    all_views, _ = network_of(task, 8)
    parts = [single(np.ascontiguousarray(moved(images, symmetry))) for symmetry in SYMMETRIES]
    assert np.abs(parts[0] - parts[1]).max() > 1e-3  # a network that would not see a turn could not fail
    if task == "segmentation":
        parts = [moved_back(part, symmetry) for part, symmetry in zip(parts, SYMMETRIES)]
    np.testing.assert_allclose(all_views(images), np.mean(parts, axis=0), rtol=1e-5, atol=1e-6)
    four, _ = network_of(task, 4)
    kept = [parts[i] for i, (turns, _) in enumerate(SYMMETRIES) if turns % 2 == 0]
    np.testing.assert_allclose(four(images), np.mean(kept, axis=0), rtol=1e-5, atol=1e-6)


def test_boxes_of_eight_views_are_suppressed_together():
    """Of a turned image the same boxes are found, turned; one view alone finds others."""
    network, images = network_of("detection", 8)
    found, turned = network(images), network(np.ascontiguousarray(moved(images, (1, True))))
    for here, there in zip(found, turned):
        assert len(here.boxes) > 5
        # moved by (1, True): pixel (y, x) is at (x, y)
        np.testing.assert_allclose(here.boxes, there.boxes[:, [1, 0, 3, 2]], atol=1e-4)
        np.testing.assert_allclose(here.scores, there.scores, rtol=1e-5)
        assert here.classes.tolist() == there.classes.tolist()
        for c in range(3):
            boxes = here.boxes[here.classes == c]
            assert (np.triu(pairwise_iou(boxes, boxes), 1) <= 0.5).all()
    single, _ = network_of("detection", 1)
    alone = single(images)
    assert all(a.scores.max() <= b.scores.max() for a, b in zip(alone, found))
    assert any(len(a.boxes) != len(b.boxes) for a, b in zip(alone, found))


def test_a_box_moves_with_its_view():
    """Every view of an image that is not square, its one bright box found again and brought back."""
    image = np.zeros((1, 6, 9))
    image[0, 1:3, 4:8] = 1
    for view in range(8):
        seen = dihedral.look(image, view)
        rows, cols = np.nonzero(seen[0])
        box = np.array([[rows.min(), cols.min(), rows.max() + 1, cols.max() + 1]], np.float32)
        assert dihedral.undo_boxes(box, view, (6, 9)).tolist() == [[1, 4, 3, 8]]
        assert (dihedral.undo(seen, view) == image).all()
    square = np.arange(9).reshape(1, 3, 3)
    assert len({dihedral.look(square, view).tobytes() for view in range(8)}) == 8


def test_a_failed_prediction_leaves_nothing(tmp_path):
    pytest.importorskip("torch", minversion="2")
    scene = make_scene(tmp_path, "a", class_image(20, 20))
    graph = registry.load("models", "cnn").graph(2, 3)
    broken = {name: np.full_like(array, np.nan) for name, array in initial(graph, 0).items()}
    write_checkpoint(tmp_path / "best.npz", Checkpoint(broken, trained_in("float32")))
    with pytest.raises(ValueError, match="did the training diverge"):
        predict.predict(
            framework="torch",
            model="cnn",
            model_settings={},
            task="classification",
            checkpoint=tmp_path / "best.npz",
            scenes={"a": scene},
            regions=[Region("a", 0, 0, 20, 20, "test")],
            statistics={"mean": [1.0, 1.0], "std": [1.0, 1.0]},
            classes=CLASSES,
            settings={"size": 20},
            out=tmp_path / "out",
        )
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


# --- errors


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"sise": 3}, "detection", "'sise'.*Did you mean 'size'"),
        ({"size": 0}, "detection", "size is 0"),
        ({}, "detection", "size is missing"),
        ({"size": 8, "window": "cosin"}, "segmentation", "Did you mean 'cosine'"),
        ({"size": 8, "crop": 4}, "segmentation", "crop is 4"),
        ({"size": 8, "crop": 1}, "detection", "only segmentation"),
        ({"size": 8, "stride": 9}, "detection", "stride is 9"),
        ({"scores": "int8"}, "segmentation", "scores is 'int8'"),
        ({"nms_iou": 2}, "detection", "nms_iou is 2"),
        ({"size": 8, "views": 2}, "detection", "views is 2, expected 1, 4 or 8"),
    ],
)
def test_settings_are_checked(settings, task, message):
    with pytest.raises(ValueError, match=message):
        predict.for_task(settings, task)


def test_bad_input_is_found_before_work(tmp_path):
    scene = make_scene(tmp_path, "a", class_image(20, 20))
    region = Region("a", 0, 0, 20, 20, "train")
    with pytest.raises(ValueError, match="no region is in split 'test'; there are train"):
        run(tmp_path / "out", "segmentation", by_value, [scene], [region], {"size": 8})
    three = make_scene(tmp_path, "b", class_image(20, 20, 3))
    regions = [Region("a", 0, 0, 20, 20, "test"), Region("b", 0, 0, 20, 20, "test")]
    with pytest.raises(ValueError, match="scene b: it has 3 bands"):
        run(tmp_path / "out", "segmentation", by_value, [scene, three], regions, {"size": 8})
    wide = make_scene(tmp_path, "c", class_image(20, 20).astype(np.uint16))
    regions = [Region("a", 0, 0, 20, 20, "test"), Region("c", 0, 0, 20, 20, "test")]
    with pytest.raises(ValueError, match="scene c: its pixels are uint16"):
        run(tmp_path / "out", "segmentation", by_value, [scene, wide], regions, {"size": 8})


def test_whole_pictures_must_be_of_one_size(tmp_path):
    scenes = [make_scene(tmp_path, "a", class_image(20, 20)), make_scene(tmp_path, "b", class_image(20, 24))]
    regions = [Region(s.id, 0, 0, s.rows, s.cols, "test") for s in scenes]
    with pytest.raises(ValueError, match="scene b is 20 x 24"):
        run(tmp_path / "out", "classification", by_mean, scenes, regions, {})


@pytest.mark.parametrize("task", ["classification", "segmentation"])
@pytest.mark.parametrize("wrong", [np.nan, 3.0])
def test_scores_that_are_no_probabilities_are_refused(tmp_path, task, wrong):
    scene = make_scene(tmp_path, "a", class_image(20, 20))
    score = {"classification": by_mean, "segmentation": by_value}[task]
    with pytest.raises(ValueError, match="no probabilities"):
        run(
            tmp_path / "out",
            task,
            lambda x: score(x) * wrong,
            [scene],
            [Region("a", 0, 0, 20, 20, "test")],
            {"size": 8},
        )


def test_a_scene_cannot_lead_out_of_the_folder(tmp_path):
    with pytest.raises(ValueError, match="file name"):
        scene_file(tmp_path, "../a", ".json")


def test_damaged_predictions_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="rvk predict-regions"):
        Predictions.read(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match="not readable predictions"):
        Predictions.read(tmp_path)
