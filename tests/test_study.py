"""Studies: what resolves, and every wrong one refused with one line before any work."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml

from rvkernels import cli, registry
from rvkernels import study as study_module
from rvkernels.study import Study, code_digest, load

ROOT = Path(__file__).parents[1]
DATASETS = ROOT / "config/datasets"
SMOKE = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())


def changed(path, value):
    """The smoke study with `value` at the dotted `path`; None removes the key."""
    config = copy.deepcopy(SMOKE)
    *folders, last = path.split(".")
    inner = config
    for key in folders:
        inner = inner.setdefault(key, {})
    if value is None:
        inner.pop(last)
    else:
        inner[last] = value
    return config


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_of_the_project_resolves(path):
    study = Study.resolve(load(str(path)), datasets=DATASETS)
    assert study.runs()
    assert study.name == path.stem or path.stem == "config"


def test_defaults_are_filled_in_and_runs_follow_the_file():
    study = Study.resolve({**SMOKE, "seeds": [0, 3]}, datasets=DATASETS)
    landcover = study.experiments["landcover"]
    assert landcover["train"]["optimizer"]["name"] == "adamw"
    assert landcover["train"]["metric"] == "miou"
    assert landcover["predict"] == {**landcover["predict"], "size": 128, "stride": 64}
    assert study.experiments["cells"]["predict"]["size"] == 32
    assert landcover["split"] == {"by": "listed"}
    assert study.runs()[:2] == [("landcover", "unet", "torch", 0), ("landcover", "unet", "torch", 3)]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("sede", [1], ["unknown key 'sede'", "Did you mean 'seeds'?"]),
        ("experiments.cells.trian", {}, ["cells", "unknown key 'trian'", "Did you mean 'train'?"]),
        ("experiments.cells.train.epoch", 3, ["cells", "train", "'epoch'", "Did you mean 'epochs'?"]),
        ("experiments.cells.train.epochs", 0, ["cells", "epochs is 0"]),
        ("experiments.cells.train.optimizer", {"name": "adam"}, ["cells", "adam", "adamw"]),
        ("experiments.cells.train.schedule", {"name": "cosin", "lr": 1}, ["cells", "cosin", "cosine"]),
        ("experiments.cells.train.augment", {"flipp": True}, ["cells", "flipp", "Did you mean 'flip'?"]),
        ("experiments.cells.train.metric", "accurracy", ["cells", "accurracy", "accuracy"]),
        ("experiments.cells.train.precision", "half", ["cells", "half", "bfloat16"]),
        ("experiments.cells.train.loss", {"name": "focall"}, ["cells", "focall", "focal"]),
        ("experiments.cells.train.loss", {"name": "focal", "class_weights": "balanced"}, ["cells", "'class_weights'"]),
        ("experiments.cells.train.loss", {"name": "dice", "class_weights": "balanced"}, ["cells", "'class_weights'"]),
        ("experiments.cells.train.loss", {"class_weights": "balanced"}, ["cells", "unknown loss None", "dice"]),
        ("experiments.cells.chip", {"sise": 4}, ["cells", "chip", "sise", "Did you mean 'size'?"]),
        ("experiments.landcover.chip", {}, ["landcover", "chip", "size is missing"]),
        ("experiments.landcover.predict.stride", 999, ["landcover", "stride is 999"]),
        ("experiments.cells.split", {"by": "lisst"}, ["cells", "split", "lisst", "listed"]),
        ("experiments.cells.models", {"resnett": {}}, ["cells", "resnett", "Did you mean 'resnet'?"]),
        ("experiments.cells.models", {"unet": {}}, ["cells", "unet is for segmentation", "cnn, resnet"]),
        ("experiments.cells.models", {"cnn": {"widht": 3}}, ["cells", "cnn", "widht", "Did you mean 'width'?"]),
        ("experiments.cells.models", {}, ["cells", "models"]),
        ("experiments.cells.dataset", "town", ["cells", "no 'town'", "Did you mean 'towns'?"]),
        ("experiments.cells.dataset", "mine.yaml", ["cells", "no file mine.yaml", "working directory"]),
        ("experiments.cells.dataset", "dubai", ["cells", "dubai has labels for segmentation"]),
        ("experiments.cells.layout", {"sizes": 3}, ["cells", "sizes", "Did you mean 'size'?"]),
        ("experiments.cells.pretrained", {"cn": {"file": "w.npz"}}, ["cells", "no model 'cn'", "Did you mean 'cnn'?"]),
        ("experiments.cells.pretrained", {"cnn": {"file": "w.pth"}}, ["cells", "w.pth", "rvk convert-weights"]),
        ("experiments.cells.pretrained", {"cnn": {"file": "w.npz"}}, ["cells", "no file w.npz", "working directory"]),
        ("experiments.cells.pretrained", {"cnn": {"fil": "w.npz"}}, ["cells", "fil", "Did you mean 'file'?"]),
        ("frameworks", ["troch"], ["troch", "Did you mean 'torch'?"]),
        ("frameworks", ["reference"], ["reference", "torch"]),
        ("seeds", [], ["seeds"]),
        ("device", "gpu", ["device", "gpu", "cuda"]),
        ("equivalence", {"acuracy": 0.1}, ["equivalence", "acuracy", "Did you mean 'accuracy'?"]),
        ("equivalence", {"miou": 0}, ["equivalence: miou", "0"]),
        ("divergence_control", 1, ["divergence_control", "1", "boolean"]),
        ("experiments.cells.target", 70, ["cells: target", "70", "maximum"]),
        ("experiments", None, ["experiments"]),
    ],
)
def test_a_wrong_study_is_one_line_with_the_key_and_a_suggestion(path, value, words):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Study.resolve(changed(path, value), datasets=DATASETS)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_balanced_class_weights_wait_for_the_chips():
    loss = {"name": "cross_entropy", "class_weights": "balanced"}
    study = Study.resolve(changed("experiments.cells.train.loss", loss), datasets=DATASETS)
    assert study.experiments["cells"]["train"]["loss"] == loss


def test_controls_repeat_the_first_run_of_every_model_with_other_threads(monkeypatch):
    names = registry.names
    monkeypatch.setattr(registry, "names", lambda kind: [*names(kind), "other"])
    config = {**SMOKE, "divergence_control": True, "frameworks": ["torch", "other"], "seeds": [4, 2]}
    study = Study.resolve(config, datasets=DATASETS)
    first = [(name, model, "torch", 4) for name, e in study.experiments.items() for model in e["models"]]
    assert study.controls() == first
    assert study.threads != study.control_threads
    assert Study.resolve({**config, "frameworks": ["torch"]}, datasets=DATASETS).controls() == []
    assert Study.resolve({**config, "divergence_control": False}, datasets=DATASETS).controls() == []


def test_a_users_own_description_is_named_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text((DATASETS / "towns.yaml").read_text())
    study = Study.resolve(changed("experiments.cells.dataset", "mine.yaml"), datasets=DATASETS)
    assert study.dataset_file("cells") == "mine.yaml"


def test_a_study_knows_the_polygons_of_its_split(tmp_path):
    file = tmp_path / "areas.geojson"
    with pytest.raises(FileNotFoundError, match=r"experiments: cells: split: file: no file .*areas\.geojson"):
        Study.resolve(changed("experiments.cells.split", {"by": "vector", "file": str(file)}), datasets=DATASETS)
    file.write_text("{}")
    study = Study.resolve(changed("experiments.cells.split", {"by": "vector", "file": str(file)}), datasets=DATASETS)
    assert study.split_file("cells") == [str(file)]
    assert study.split_file("landcover") == []


def test_pretrained_weights_reach_init_and_their_bands_are_those_of_the_dataset(tmp_path):
    file = tmp_path / "w.npz"
    file.touch()

    def study(*bands):
        entry = {"cnn": {"file": str(file), "bands": list(bands)}}
        return Study.resolve(changed("experiments.cells.pretrained", entry), datasets=DATASETS)

    found = study("green", None, "red")
    settings = found.settings_file(str(tmp_path), ("init",), experiment="cells", model="cnn", seed="0")
    assert json.loads(Path(settings).read_text())["pretrained"]["bands"] == ["green", None, "red"]
    assert found.pretrained_files("cells", "cnn") == [str(file)]
    assert found.pretrained_files("landcover", "unet") == []
    with pytest.raises(ValueError, match="cells: pretrained: cnn: bands: the dataset has no band 'ultraviolet'"):
        study("ultraviolet")
    with pytest.raises(ValueError, match="bands: 'red' is named twice"):
        study("red", "red")


def test_settings_change_with_what_decides_a_job_and_with_nothing_else(tmp_path):
    def files(config, stages, **wildcards):
        return Study.resolve(config, datasets=DATASETS).settings_file(str(tmp_path), stages, **wildcards)

    job = {"experiment": "cells", "model": "cnn", "framework": "torch", "seed": "0"}
    train = files(SMOKE, ("train",), **job)
    assert files(changed("experiments.landcover.train.epochs", 9), ("train",), **job) == train
    assert files(changed("experiments.cells.predict", {"batch": 3}), ("train",), **job) == train
    assert files(changed("experiments.cells.train.epochs", 9), ("train",), **job) != train
    assert files(changed("experiments.cells.models", {"cnn": {"width": 4}}), ("train",), **job) != train
    settings = json.loads(Path(train).read_text())
    assert settings["train"]["epochs"] == 2
    assert settings["model"] == {"width": 8, "blocks": 3}


def test_the_code_digest_follows_imports_and_stops_there():
    # report imports figures; the schedule of a training is none of its business.
    assert code_digest("rvkernels.schedule") != code_digest("rvkernels.split")
    assert code_digest("rvkernels.train") == code_digest("rvkernels.train", "rvkernels.schedule")
    assert code_digest("rvkernels.split") != code_digest("rvkernels.split", "rvkernels.schedule")


@pytest.mark.parametrize(
    ("stage", "file", "reruns"),
    [
        ("train", "tasks/classification.py", True),
        ("train", "tasks/detection.py", False),
        ("predict", "tasks/classification.py", True),
        ("evaluate", "tasks/classification.py", True),
        ("report", "charts/cost.py", True),
        ("report", "figures/cost.py", True),
        ("report", "page/report.css", True),
        ("report", "figures/style.mplstyle", True),
        ("blog", "page/post.md.j2", True),
        ("compare", "page/post.md.j2", False),
    ],
)
def test_an_edit_of_what_a_stage_loads_by_name_reruns_it(tmp_path, monkeypatch, stage, file, reruns):
    study = Study.resolve(SMOKE, datasets=DATASETS)
    job = {"experiment": "cells"} if stage in ("train", "predict", "evaluate") else {}
    before = study.settings_file(str(tmp_path), (stage,), **job)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"\n" * path.as_posix().endswith(file))
    monkeypatch.setattr(study_module, "code_digest", code_digest.__wrapped__)
    assert (study.settings_file(str(tmp_path), (stage,), **job) != before) is reruns


def test_the_code_digest_of_a_checkout_is_that_of_its_sources(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "rvkernels", checkout / "rvkernels", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (checkout / "cpp/ops").mkdir(parents=True)
    for name in ("cpp/ops/a.cpp", "CMakeLists.txt"):
        (checkout / name).write_text("one")

    def digests():
        study_module._compiled_from.cache_clear()
        code_digest.cache_clear()
        return [code_digest(f"rvkernels.{name}", sources=checkout) for name in ("chip", "timing")]

    before = digests()
    for name in ("cpp/ops/a.cpp", "CMakeLists.txt", "rvkernels/split.py"):
        (checkout / name).write_text((checkout / name).read_text() + "\n")
        after = digests()
        assert before[0] != after[0], name
        assert before[1] == after[1], "timing imports no kernel and no split"
        before = after


def test_check_prints_one_line_and_returns_2(tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(changed("frameworks", ["troch"])))
    assert cli.main(["check", str(path), "--datasets", str(DATASETS)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rvk check: error: study: frameworks: no framework 'troch'")
    path.write_text("a: [")
    assert cli.main(["check", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert cli.main(["check", str(tmp_path / "none.yaml")]) == 2
