"""Every kind of export of every model, loaded by the lines of its README in a process that cannot import rvkernels.

The logits have to be those of the float64 reference with the same weights. Exports and their use are processes of their
own, one for all models of a kind: a process has one framework.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from rvkernels import cli, codegen, registry, weights
from rvkernels.checkpoint import Checkpoint, write_checkpoint
from rvkernels.export import KINDS, export, with_normalisation
from rvkernels.frameworks import reference
from rvkernels.models import Concat, Conv, Dense, GlobalMean, Graph, Relu

ROOT = Path(__file__).parents[1]
# kinds that one process makes and another uses: the packages that their READMEs use; those of the other kinds are made
# impossible to import
USES = {
    ("torch",): {"torch"},
    ("keras", "savedmodel"): {"keras", "tensorflow"},
    ("caffe2",): {"caffe2", "torch"},
    ("onnx",): {"onnxruntime"},
    ("jax",): {"jax"},
}
# case: model, settings, rows and columns (not those of any chip: the exports take every size that the graph takes)
CASES = {
    "cnn": ("cnn", {"width": 4, "blocks": 2, "convs": 2}, (13, 17)),
    "resnet18": ("resnet", {"depth": 18, "width": 3, "stem": "standard"}, (39, 33)),
    "resnet50": ("resnet", {"depth": 50, "width": 2, "stem": "half"}, (21, 30)),
    "fcn": ("fcn", {"depth": 10, "width": 3}, (64, 32)),
    "unet": ("unet", {"depth": 2, "width": 3}, (12, 20)),
    "detector": ("detector", {"depth": 10, "width": 3, "pyramid": 6, "tower": 1, "strides": [4, 8, 16, 32]}, (32, 64)),
}
BANDS, CLASSES, BATCH = 5, 4, 3
MEAN, STD = [10.0, 20.5, 0.25, -3.0, 1e4], [2.0, 7.25, 0.001, 1.0, 3e3]
# Runs the README of every folder named, on the images of the same name, with the packages named made impossible to
# import. model.py of one folder is not that of the next.
USE = """
import json, os, pathlib, re, sys
import numpy as np
todo = json.loads(sys.stdin.read())
sys.modules.update(dict.fromkeys(todo["without"]))
for folder in todo["folders"]:
    os.chdir(folder)
    sys.path[0] = folder
    sys.modules.pop("model", None)
    names = {"images": np.load(folder + ".images.npy")}
    code = re.search("```python\\n(.*?)```", pathlib.Path("README.md").read_text(), re.S)[1]
    exec(code, names)
    np.save(folder + ".logits.npy", names["logits"])
"""
EXPORT = """
import json, sys
from rvkernels.export import export
for run, kind, out, normalise in json.loads(sys.stdin.read()):
    export(run, kind, out, normalise=normalise)
"""


def process(code, given, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given), env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def graph_of(case):
    name, settings, _ = CASES[case]
    return registry.load("models", name).graph(BANDS, CLASSES, **settings)


def weights_of(graph, case):
    """Weights as after a training: nothing is 0 or 1, running statistics are those of no standard normal."""
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    found = weights.initial(graph, seed=1)
    for name, array in found.items():
        if name.endswith((".variance", ".scale")):
            found[name] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        else:
            found[name] = (array + rng.normal(0, 0.05, array.shape)).astype(np.float32)
    return found


def run_folder(folder, case):
    """A run folder as `rvk train` leaves it."""
    graph = graph_of(case)
    name, settings, _ = CASES[case]
    identity = {
        "dataset": "drawn", "task": graph.task, "model": name, "framework": "torch", "seed": 3, "device": "cpu",
        "rvkernels": "0.1.0", "model_settings": settings, "classes": [f"class {i}" for i in range(CLASSES)],
        "bands": [f"band {i}" for i in range(BANDS)], "mean": MEAN, "std": STD,
    }  # fmt: skip
    meta = {"identity": identity, "epoch": 7, "metrics": {"accuracy": 0.5}}
    write_checkpoint(folder / "best.npz", Checkpoint(weights_of(graph, case), meta))
    return folder


def images_of(case):
    rows, cols = CASES[case][2]
    rng = np.random.default_rng(zlib.crc32(case.encode()) + 1)
    return rng.normal(size=(BATCH, rows, cols, BANDS)).astype(np.float32)


def pixels_of(case):
    return (images_of(case) * STD + MEAN).astype(np.float32)


def expected(case, images):
    graph = graph_of(case)
    loss = registry.load("tasks", graph.task).LOSS
    return reference.Framework(graph, weights_of(graph, case), loss, {"name": "sgd"}).predict(images)


def assert_close(found, wanted):
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def is_there(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a package without a spec is loaded
        return True


def test_every_kind_is_tested():
    assert sorted(kind for kinds in USES for kind in kinds) == sorted(KINDS)


@pytest.mark.parametrize("kinds", USES, ids=", ".join)
def test_every_model_gives_the_same_logits_without_rvkernels(kinds, tmp_path):
    for package in USES[kinds] | ({"onnx"} if "onnx" in kinds else set()):
        if not is_there(package):
            pytest.skip(f"{package} is not installed in this environment")
    if "torch" in kinds and importlib.metadata.version("torch").startswith("1."):
        pytest.skip("this PyTorch is the one that holds Caffe2: its torch.load has no weights_only")
    for case in CASES:
        run_folder(tmp_path / "run" / case, case)
    # folder of an export: kind, case, whether it takes pixel values
    folders = {tmp_path / kind / case: (kind, case, False) for kind in kinds for case in CASES}
    folders.update({tmp_path / kind / "pixels": (kind, "unet", True) for kind in kinds})
    process(EXPORT, [[str(tmp_path / "run" / c), k, str(out), inside] for out, (k, c, inside) in folders.items()])

    for folder, (kind, case, inside) in folders.items():
        images = pixels_of(case) if inside else images_of(case)
        images = images.transpose(0, 3, 1, 2) if KINDS[kind].images == "NCHW" else images
        np.save(f"{folder}.images.npy", np.ascontiguousarray(images))
    without = ["rvkernels", *{package for used in USES.values() for package in used} - USES[kinds]]
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes the time here
    process(USE, {"folders": list(map(str, folders)), "without": without}, PYTHONPATH="", **quick)

    for folder, (kind, case, inside) in folders.items():
        images = ((pixels_of(case) - MEAN) / STD).astype(np.float32) if inside else images_of(case)
        logits = np.load(f"{folder}.logits.npy")
        if KINDS[kind].logits == "NCHW" and logits.ndim == 4:
            logits = logits.transpose(0, 2, 3, 1)
        assert_close(logits, expected(case, images))
        card = json.loads((folder / "card.json").read_text())
        there = {path.name for path in folder.iterdir()} - {"__pycache__"}
        assert there == {"card.json", "README.md", *card["files"]}


def test_the_card_says_what_another_person_needs(tmp_path):
    run = run_folder(tmp_path / "run", "detector")
    assert cli.main(["export", str(run), "--to", "jax", "--out", str(tmp_path / "out")]) == 0
    card = json.loads((tmp_path / "out/card.json").read_text())
    assert card["classes"] == [f"class {i}" for i in range(CLASSES)]
    assert card["bands"] == [f"band {i}" for i in range(BANDS)]
    assert (card["mean"], card["std"]) == (MEAN, STD)
    assert card["normalisation"] == "outside"
    assert card["input"]["shape"] == ["n", "rows", "cols", BANDS]
    assert card["input"]["multiple"] == 32
    assert card["output"]["shape"] == f"(n, locations, {CLASSES + 4})"
    assert card["strides"] == [4, 8, 16, 32]
    assert card["trained"]["epoch"] == 7
    readme = (tmp_path / "out/README.md").read_text()
    assert "(pixel - mean) / std with band 0: 10, 2, band 1: 20.5, 7.25," in readme
    assert "ordered by stride (4, 8, 16, 32)" in readme


def test_onnx_carries_the_card(tmp_path):
    onnx = pytest.importorskip("onnx")
    export(run_folder(tmp_path / "run", "fcn"), "onnx", tmp_path / "out")
    model = onnx.load(tmp_path / "out/model.onnx")
    properties = {p.key: p.value for p in model.metadata_props}
    assert json.loads(properties["classes"]) == [f"class {i}" for i in range(CLASSES)]
    assert json.loads(properties["bands"]) == [f"band {i}" for i in range(BANDS)]
    assert json.loads(properties["mean"]) == MEAN
    assert json.loads(properties["std"]) == STD
    assert properties["normalisation"] == "outside"
    sizes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["n", BANDS, "rows", "cols"]


def test_normalisation_moves_into_the_network_wherever_the_image_is_read():
    layers = (
        Relu("positive", "image"),
        Conv("conv", "image", BANDS, kernel=3, pad=1),
        Concat("join", ("image", "positive", "conv")),
        GlobalMean("mean", "join"),
        Dense("head", "mean", CLASSES),
    )
    graph = Graph("classification", layers, "head", BANDS, CLASSES)
    known = weights.initial(graph, 1)
    inside, more = with_normalisation(graph, known, MEAN, STD)
    pixels = pixels_of("cnn")
    images = ((pixels - MEAN) / STD).astype(np.float32)
    settings = ({"name": "cross_entropy"}, {"name": "sgd"})
    wanted = reference.Framework(graph, known, *settings).predict(images)
    assert_close(reference.Framework(inside, more, *settings).predict(pixels), wanted)


def test_a_module_is_readable_and_has_no_name_twice():
    layers = (
        Conv("forward", "image", 3, kernel=1),
        Conv("a.b", "forward", 3, kernel=1),
        Conv("a_b", "a.b", 3, kernel=1),
        Relu("class", "a_b"),
        Concat("join", ("class", "a_b")),
        GlobalMean("mean", "join"),
        Dense("1", "mean", CLASSES),
    )
    source, attributes = codegen.torch_module(Graph("classification", layers, "1", BANDS, CLASSES), taken=["forward"])
    ast.parse(source)
    assert attributes == {"forward": "forward_", "a.b": "a_b", "a_b": "a_b_", "1": "layer_1"}
    assert "        x = self.forward_(image)\n        x = self.a_b(x)\n        a_b_ = self.a_b_(x)\n" in source
    assert "        x = F.relu(a_b_)\n        x = torch.cat([x, a_b_], dim=1)\n" in source
    ast.parse(codegen.jax_module(Graph("classification", layers, "1", BANDS, CLASSES)))


def test_wrong_calls_are_one_line(tmp_path, capsys):
    run = run_folder(tmp_path / "run", "cnn")

    def error(*arguments):
        assert cli.main(["export", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "no kind 'onx'" in error(run, "--to", "onx", "--out", tmp_path / "out")
    assert "Did you mean 'onnx'?" in error(run, "--to", "onx", "--out", tmp_path / "out")
    assert "no such checkpoint" in error(tmp_path / "none", "--to", "jax", "--out", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    assert "is there and is no export" in error(run, "--to", "jax", "--out", tmp_path / "mine")
    if not is_there("caffe2"):
        line = error(run, "--to", "caffe2", "--out", tmp_path / "out")
        assert "needs caffe2" in line
        assert "envs/caffe2.yaml: .venv, or .venv-caffe2" in line
    assert not (tmp_path / "out").exists()


def test_an_older_export_is_replaced(tmp_path):
    run = run_folder(tmp_path / "run", "cnn")
    export(run, "jax", tmp_path / "out")
    (tmp_path / "out/stale").touch()
    export(run, "jax", tmp_path / "out")
    assert not (tmp_path / "out/stale").exists()
