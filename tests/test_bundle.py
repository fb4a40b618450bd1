"""Bundles: an image is predicted from one file as its study predicts it, byte for byte; what does not fit is told."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rvkernels import bundle, cli, environment, predict, progress, raster, registry
from rvkernels.batches import Normalisation
from rvkernels.checkpoint import Checkpoint, write_checkpoint
from rvkernels.datasets._files import build
from rvkernels.files import read_json, write_json
from rvkernels.predictions import Predictions
from rvkernels.scene import Region
from rvkernels.weights import initial

TASKS = {
    "classification": ("cnn", {"width": 4, "blocks": 1, "convs": 1}),
    "segmentation": ("unet", {"depth": 2, "width": 4}),
    "detection": ("detector", {"depth": 10, "width": 4, "pyramid": 8}),
}
CLASSES = [{"name": "tree", "color": "#108020"}, {"name": "roof", "color": "#a01010"}]
STATISTICS = {"mean": [120.25, 130.123456789], "std": [70.1, 75.7]}
UTM = "EPSG:32618"


def write_image(
    path: Path, rows: int = 45, cols: int = 61, bands: int = 2, dtype: str = "uint8", seed: int = 3
) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (rows, cols, bands)).astype(dtype)
    raster.write_geotiff(path, pixels, UTM, (500000.0, 0.5, 0.0, 4e6, 0.0, -0.5))
    return path


@pytest.fixture
def run(tmp_path):
    """A function of a task: a folder as a study leaves it after its prediction of town.tif, by the NumPy reference."""

    def make(task: str = "segmentation", size: int | None = 24, rows: int = 45, cols: int = 61) -> Path:
        model, settings = TASKS[task]
        folder = tmp_path / "study" / task
        folder.mkdir(parents=True)
        scale = Normalisation.of(STATISTICS, 2)
        identity = {
            "task": task,
            "framework": "reference",
            "model": model,
            "model_settings": settings,
            "classes": [c["name"] for c in CLASSES],
            "bands": ["red", "green"],
            "mean": scale.mean.tolist(),
            "std": scale.std.tolist(),
            "settings": {"precision": "float32"},
            "dataset": "towns",
            "seed": 5,
        }
        graph = registry.load("models", model).graph(2, 2, **settings)
        meta = {"identity": identity, "epoch": 3, "metrics": {"miou": 0.5}}
        write_checkpoint(folder / "best.npz", Checkpoint(initial(graph, 1), meta))
        write_json(folder / "record.json", {"started": "2026-01-01T00:00:00Z", "software": {"commit": "abc"}})
        (scene,) = build([{"id": "town", "images": [str(write_image(tmp_path / "town.tif", rows, cols))]}])
        predict.predict(
            **{key: identity[key] for key in ("framework", "model", "model_settings", "task", "dataset", "seed")},
            checkpoint=folder / "best.npz",
            scenes={"town": scene},
            regions=[Region("town", 0, 0, rows, cols, "test")],
            statistics=STATISTICS,
            classes=CLASSES,
            settings={"size": size, "batch": 4, "score_min": 0.0, "polygons": 3},
            out=folder / "predictions",
        )
        return folder

    return make


@pytest.mark.parametrize("task", TASKS)
def test_an_image_is_predicted_as_its_study_predicts_it(run, tmp_path, task):
    folder = run(task)
    bundle.write(folder, tmp_path / "model.zip")
    shutil.rmtree(tmp_path / "study")  # a bundle needs nothing else
    again = run(task)
    shown = bundle.predict(tmp_path / "model.zip", [tmp_path / "town.tif"], tmp_path / "out")
    theirs = {p.relative_to(again / "predictions"): p for p in (again / "predictions").rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path / "out") for p in shown} == set(theirs) - {
        Path("predictions.npz"),
        Path("record.json"),
    }
    assert shown
    for path in shown:
        assert path.read_bytes() == theirs[path.relative_to(tmp_path / "out")].read_bytes(), path
    ours, expected = Predictions.read(tmp_path / "out"), Predictions.read(again / "predictions")
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array)


def test_whole_pictures_are_cells_of_the_size_of_the_training(run, tmp_path):
    bundle.write(run("classification", None, 32, 32), tmp_path / "model.zip")
    assert bundle.read_about(tmp_path / "model.zip")["predict"]["size"] == 32
    write_image(tmp_path / "large.tif", 64, 96)
    bundle.predict(tmp_path / "model.zip", [tmp_path / "large.tif"], tmp_path / "out")
    assert len(Predictions.read(tmp_path / "out").arrays["cells"]) == 6


def test_several_images_and_settings_of_the_call(run, tmp_path, capsys, monkeypatch):
    entered = []
    monkeypatch.setattr(progress, "start_log", lambda *_, **__: None)
    monkeypatch.setattr(environment, "enter", lambda framework, threads, _: entered.append((framework, threads)))
    assert cli.main(["bundle", str(run()), "--out", str(tmp_path / "model.zip")]) == 0
    images = [str(write_image(tmp_path / name, 30, 40)) for name in ("a.tif", "b c.tif")]
    call = ["predict", str(tmp_path / "model.zip"), *images, str(tmp_path / "out"), "--stride", "20", "--threads", "1"]
    capsys.readouterr()
    assert cli.main(call) == 0
    assert entered == [("reference", 1)]
    shown = capsys.readouterr().out.splitlines()
    assert {Path(line).relative_to(tmp_path / "out").parts[0] for line in shown} == {"a", "b_c"}
    assert all(Path(line).is_file() for line in shown)
    settings = read_json(tmp_path / "out" / "record.json")["settings"]
    assert (settings["predict"]["stride"], settings["predict"]["batch"]) == (20, 4)
    assert cli.main(call) == 0, "older predictions are replaced"
    assert raster.describe(tmp_path / "out/a/labels.tif")["transform"] == raster.describe(images[0])["transform"]


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    folder = run()
    for name in ("a.zip", "b.zip"):
        bundle.write(folder, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("best.npz") == (folder / "best.npz").read_bytes()
    assert bundle.read_about(tmp_path / "a.zip")["trained"] == {
        "dataset": "towns",
        "seed": 5,
        "epoch": 3,
        "validation": {"miou": 0.5},
        "started": "2026-01-01T00:00:00Z",
        "software": {"commit": "abc"},
    }


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ({"bands": 3}, r"odd\.tif: it has 3 bands, but the model reads 2 \(red, green\)"),
        ({"dtype": "uint16"}, r"odd\.tif: its pixels are uint16, but the model was trained on uint8"),
    ],
)
def test_an_image_of_another_kind_is_refused(run, tmp_path, image, says):
    bundle.write(run(), tmp_path / "model.zip")
    with pytest.raises(ValueError, match=says):
        bundle.predict(tmp_path / "model.zip", [write_image(tmp_path / "odd.tif", **image)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_of_one_name_are_refused(run, tmp_path):
    bundle.write(run(), tmp_path / "model.zip")
    (tmp_path / "b").mkdir()
    images = [write_image(tmp_path / "b" / "town.tif"), tmp_path / "town.tif"]
    with pytest.raises(ValueError, match=r"town\.tif: is called town, and so is .*town\.tif"):
        bundle.predict(tmp_path / "model.zip", images, tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(run, tmp_path):
    bundle.write(run(), tmp_path / "model.zip")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("years of work")
    with pytest.raises(ValueError, match="holds no predictions"):
        bundle.predict(tmp_path / "model.zip", [tmp_path / "town.tif"], tmp_path / "out")
    assert (tmp_path / "out" / "thesis.doc").read_text() == "years of work"


def test_a_framework_that_is_not_installed(run, tmp_path, monkeypatch):
    bundle.write(run(), tmp_path / "model.zip")

    def missing(kind, name):
        raise ModuleNotFoundError("no torch", name="torch")

    monkeypatch.setattr(registry, "load", missing)
    with pytest.raises(ValueError, match="framework torch is not installed: no package torch"):
        bundle.predict(tmp_path / "model.zip", [tmp_path / "town.tif"], tmp_path / "out", framework="torch")


def test_what_is_no_bundle_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "start_log", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError, match=r"gone\.zip: no such file; `rvk bundle` makes one"):
        bundle.read_about(tmp_path / "gone.zip")
    (tmp_path / "text.zip").write_text("<html>")
    with pytest.raises(ValueError, match=r"text\.zip: no bundle, or damaged: File is not a zip file"):
        bundle.read_about(tmp_path / "text.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("bundle.json", "{}")
    with pytest.raises(ValueError, match=r"other\.zip: no bundle, as it has no best\.npz"):
        bundle.read_about(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "later.zip", "w") as archive:
        archive.writestr("best.npz", b"")
        archive.writestr("bundle.json", '{"format": 2}')
    with pytest.raises(ValueError, match=r"later\.zip: a bundle of format 2, expected 1"):
        bundle.read_about(tmp_path / "later.zip")
    with zipfile.ZipFile(tmp_path / "list.zip", "w") as archive:
        archive.writestr("best.npz", b"")
        archive.writestr("bundle.json", "[]")
    with pytest.raises(ValueError, match=r"list\.zip: a bundle of format None, expected 1"):
        bundle.read_about(tmp_path / "list.zip")
    bundle.write(run(), tmp_path / "model.zip")
    data = bytearray((tmp_path / "model.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"flipped\.zip: no bundle, or damaged: Bad CRC-32"):
        bundle.predict(tmp_path / "flipped.zip", [tmp_path / "town.tif"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert cli.main(["predict", str(tmp_path / "gone.zip"), "a.tif", str(tmp_path / "out")]) == 2


def test_a_run_that_cannot_be_bundled(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best\.npz"):
        bundle.write(tmp_path, tmp_path / "model.zip")
    folder = run()
    record = read_json(folder / "predictions/record.json")
    del record["settings"]["classes"]
    (folder / "predictions/record.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="of an earlier rvkernels"):
        bundle.write(folder, tmp_path / "model.zip")
    shutil.rmtree(folder / "predictions")
    with pytest.raises(FileNotFoundError, match=r"predictions\.npz"):
        bundle.write(folder, tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()
