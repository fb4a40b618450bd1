"""A user's own model: a package of the user's, trained, resumed, predicted and compared like every model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rvkernels import export, own_model, predict, timing
from rvkernels import train as training
from rvkernels import weights as weight_files
from rvkernels.checkpoint import read_checkpoint
from rvkernels.models import shapes
from rvkernels.study import Study
from rvkernels.train import Run, build_graph

ROOT = Path(__file__).parents[1]
TORCH = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, bands, classes, width, dense):
        super().__init__()
        self.first = nn.Conv2d(bands, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Conv2d(width, classes, 1)
        self.unused = nn.Linear(2, 2)
        self.dense = dense

    def forward(self, x):
        x = self.head(self.drop(torch.relu(self.norm(self.first(x)))))
        return x if self.dense else x.mean((2, 3))

def chips(bands, classes, *, width=4):
    return Net(bands, classes, width, False)

def pixels(bands, classes, *, width=4):
    return Net(bands, classes, width, True)

def broken(bands, classes):
    raise RuntimeError("no such\\nbackbone")

def list_of(bands, classes):
    return [bands, classes]

def blind(bands, classes):
    return Net(bands + 1, classes, 4, False)
"""
TENSORFLOW = """
import tensorflow as tf

def net(bands, classes, width, dense):
    layers = [
        tf.keras.Input((None, None, bands)),
        tf.keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.ReLU(),
        tf.keras.layers.Dropout(0.2),
        tf.keras.layers.Conv2D(classes, 1),
    ]
    return tf.keras.Sequential(layers if dense else [*layers, tf.keras.layers.GlobalAveragePooling2D()])

def chips(bands, classes, *, width=4):
    return net(bands, classes, width, False)

def pixels(bands, classes, *, width=4):
    return net(bands, classes, width, True)

def unbuilt(bands, classes):
    return tf.keras.Sequential([tf.keras.layers.Conv2D(classes, 1)])

class Plain(tf.Module):
    def __init__(self, bands, classes):
        super().__init__()
        self.weight = tf.Variable(tf.random.normal([bands, classes]), name="weight")
        self.bias = tf.Variable(tf.zeros([classes]), name="bias")
        self.calls = tf.Variable(0, trainable=False, name="calls")

    def __call__(self, images, training):
        if training:
            self.calls.assign_add(1)
        return tf.reduce_mean(images, [1, 2]) @ self.weight + self.bias
"""
JAX = """
import jax
import jax.numpy as jnp
from jax import lax

def net(bands, classes, width, dense, key):
    first, last = jax.random.split(key)
    parameters = {
        "first": jax.random.normal(first, (3, 3, bands, width)) * 0.3,
        "bias": jnp.zeros(width),
        "last": jax.random.normal(last, (width, classes)) * 0.3,
    }

    def apply(parameters, images, training):
        axes = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(images, parameters["first"], (1, 1), "SAME", dimension_numbers=axes)
        x = jax.nn.relu(x + parameters["bias"]) @ parameters["last"]
        return x if dense else x.mean((1, 2))

    return parameters, apply

def chips(bands, classes, *, key, width=4):
    return net(bands, classes, width, False, key)

def pixels(bands, classes, *, key, width=4):
    return net(bands, classes, width, True, key)

def three(bands, classes, *, key):
    return 1, 2, 3
"""
FACTORY = {"classification": "chips", "segmentation": "pixels"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package of the user's, beside the study: in the working directory."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text(TORCH)
    (folder / "layers.py").write_text(TENSORFLOW)
    (folder / "functions.py").write_text(JAX)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.0)
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "mine"]:
        del sys.modules[name]


MODULES = {"torch": "nets", "tensorflow": "layers", "jax": "functions"}


def settings(entry="mine.nets:chips", framework="torch", **others):
    return {framework: entry, **others}


@pytest.fixture
def own(study, package):
    """A function: the arguments of a training of the package's model."""

    def prepare(task="classification", framework="torch", factory=None, **more):
        pytest.importorskip(framework, reason=f"{framework} is not installed in this environment")
        arguments = study(task, **more)
        entry = f"mine.{MODULES[framework]}:{factory or FACTORY[task]}"
        about = settings(entry, framework, settings={} if factory else {"width": 6})
        graph = build_graph("net", about, task, 3, 2)
        weight_files.save(arguments["weights"], weight_files.initial(graph, arguments["seed"]))
        return {**arguments, "framework": framework, "model": "net", "model_settings": about}

    return prepare


# 6 x 3 x 9 + 6 + 6 + 2 x 6 + 2, and in PyTorch the unused 2 x 2 + 2; 6 x 3 x 9 + 6 + 2 x 6
PARAMETERS = {"torch": 188 + 6, "tensorflow": 188, "jax": 180}


@pytest.mark.parametrize("framework", MODULES)
@pytest.mark.parametrize("task", FACTORY)
def test_it_trains_and_the_record_says_that_it_is_not_weight_identical(own, task, framework):
    arguments = own(task, framework, epochs=6, schedule={"name": "constant", "lr": 0.02})
    Run(**arguments).go()
    out = Path(arguments["out"])
    record = json.loads((out / "record.json").read_text())
    assert record["weight_identical"] is False
    assert record["settings"]["model"] == arguments["model_settings"]
    assert record["result"]["parameters"] == PARAMETERS[framework]
    with np.load(out / "steps.npz") as steps:
        assert steps["loss"][-5:].mean() < 0.8 * steps["loss"][:5].mean()
    kept = read_checkpoint(out / "best.npz").weights
    if framework == "torch":
        assert list(kept)[:3] == ["first.weight", "norm.weight", "norm.bias"]
        assert kept["first.weight"].shape == (6, 3, 3, 3)
        assert kept["norm.num_batches_tracked"].dtype == np.int64
    elif framework == "jax":
        assert list(kept) == ["first", "bias", "last"]
        assert kept["first"].shape == (3, 3, 3, 6)
    else:
        assert list(kept)[:4] == ["0.kernel", "1.gamma", "2.beta", "3.moving_mean"]
        assert kept["0.kernel"].shape == (3, 3, 3, 6)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("framework", MODULES)
def test_it_resumes_with_the_same_dropout(own, monkeypatch, framework):
    whole = own("classification", framework, epochs=3, checkpoint_steps=2)
    Run(**whole).go()
    cut = {**whole, "out": f"{whole['out']}_cut"}
    save, calls = training.Run.save, []

    def save_and_die(self, net):
        save(self, net)
        calls.append(1)
        if len(calls) == 3:
            raise KilledError

    monkeypatch.setattr(training.Run, "save", save_and_die)
    with pytest.raises(KilledError):
        Run(**cut).go()
    monkeypatch.setattr(training.Run, "save", save)
    Run(**cut).go()
    one, other = (read_checkpoint(Path(a["out"], "last.npz")) for a in (whole, cut))
    assert np.array_equal(one.steps["loss"], other.steps["loss"])
    for name, array in one.weights.items():
        assert np.array_equal(array, other.weights[name]), name
    assert ("random" in other.state) == (framework == "torch")


@pytest.mark.parametrize("framework", MODULES)
def test_seeds_and_code_decide_the_start(own, package, framework):
    first = own("classification", framework)

    def loss(**change):
        run = training.Run(**{**first, **change})
        net = run.build(run.initial)
        return run.identity["weights"], next(iter(net.weights().values()))

    digest, weights = loss()
    again, same = loss()
    assert digest == again
    assert np.array_equal(weights, same)
    weight_files.save(first["weights"], {"seed": np.array(9, np.uint64)})
    assert loss()[0] != digest
    assert not np.array_equal(loss()[1], weights)
    weight_files.save(first["weights"], {"seed": np.array(first["seed"], np.uint64)})
    (package / "blocks.py").write_text("# a change in the package\n")
    assert loss()[0] != digest


@pytest.mark.parametrize("framework", MODULES)
def test_predictions_read_the_checkpoint_back(own, framework):
    arguments = own("segmentation", framework)
    Run(**arguments).go()
    kept = read_checkpoint(Path(arguments["out"], "best.npz")).weights
    statistics = {"mean": [0.0] * 3, "std": [1.0] * 3}
    graph = build_graph("net", arguments["model_settings"], "segmentation", 3, 2)
    network = predict.Network(framework, graph, kept, statistics, predict.for_task({"size": 16}, "segmentation"))
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    # the module's sums in inference mode, by hand
    if framework == "torch":
        first, scale, bias, mean, variance, _, head, shift = list(kept.values())[:8]
        first, head, eps = first.transpose(2, 3, 1, 0), head[:, :, 0, 0].T, 1e-5
    elif framework == "jax":
        first, bias, head = kept.values()
        scale, mean, variance, eps, shift = 1, 0, 1, 0, 0
    else:
        first, scale, bias, mean, variance, _, head, shift = kept.values()
        head, eps = head[0, 0], 1e-3
    x = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    y = np.einsum("nrcbij,ijbf->nrcf", windows, first)
    y = np.exp(np.maximum((y - mean) / np.sqrt(variance + eps) * scale + bias, 0) @ head + shift)
    np.testing.assert_allclose(network(images), y / y.sum(-1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("framework", MODULES)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_leaves_norms_and_biases(own, framework, optimizer):
    run = training.Run(**own("classification", framework, optimizer={"name": optimizer, "weight_decay": 0.5}))
    net = run.build(run.initial)
    before = net.weights()
    nothing = np.full(4, -1, np.int32)
    net.step(np.zeros((4, 16, 16, 3), np.float32), (nothing,), 0.1)
    after = net.weights()
    for name, array in before.items():
        if array.ndim > 1:
            np.testing.assert_allclose(after[name], array * 0.95, rtol=1e-6)
        elif name.endswith(("bias", "gamma", "beta", "norm.weight")):
            assert np.array_equal(after[name], array)


@pytest.mark.parametrize("framework", MODULES)
def test_gradients_move_nothing(own, framework):
    run = training.Run(**own("classification", framework))
    net = run.build(run.initial)
    images = np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)
    labels = (np.array([0, 1, 0, 1], np.int32),)
    before = net.weights()
    _, first = net.gradients(images, labels)
    _, again = net.gradients(images, labels)
    assert sum(array.size for array in first.values()) == PARAMETERS[framework]
    assert any(array.any() for array in first.values())
    for name, array in first.items():
        assert np.array_equal(array, again[name]), name  # the same dropout
    for name, array in net.weights().items():
        assert np.array_equal(array, before[name]), name


def test_a_plain_module_of_tensorflow(own):
    arguments = own("classification", "tensorflow", "Plain", epochs=2)
    Run(**arguments).go()
    kept = read_checkpoint(Path(arguments["out"], "last.npz")).weights
    assert sorted(kept) == ["0.bias", "1.calls", "2.weight"]
    assert kept["1.calls"] == 2 * 5


def test_what_tensorflow_refuses(own):
    arguments = own("classification", "tensorflow", "unbuilt")
    with pytest.raises(ValueError, match=r"mine\.layers:unbuilt returned a model without variables to train; build it"):
        Run(**arguments).go()
    arguments["settings"]["precision"] = "bfloat16"
    with pytest.raises(ValueError, match="precision 'bfloat16': in TensorFlow a model of your own decides that itself"):
        Run(**arguments).go()


def test_what_jax_refuses(own):
    arguments = own("classification", "jax", "three")
    with pytest.raises(
        ValueError, match=r"mine\.functions:three returned another pair than a pair \(parameters, apply\)"
    ):
        Run(**arguments).go()
    arguments["settings"]["precision"] = "bfloat16"
    with pytest.raises(ValueError, match="precision 'bfloat16': in JAX a model of your own decides that itself"):
        Run(**arguments).go()


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (settings("mine.nets:chips", settings={"widht": 3}), ["mine.nets:chips raised TypeError", "widht"]),
        (settings("mine.nets:chps"), ["mine.nets has no function 'chps'", "Did you mean 'chips'?"]),
        (settings("mine.nets:broken"), ["mine.nets:broken raised RuntimeError at nets.py:26: no such backbone"]),
        (settings("mine.nets:list_of"), ["mine.nets:list_of returned list, expected a torch.nn.Module"]),
        (settings("mine.nets:blind"), ["predicting an image of zeros raised RuntimeError", "channels"]),
        (settings("mine.nets:pixels"), ["shape (1, 16, 16, 2)", "classification needs (1, 2)"]),
        (settings("mine.wrong:chips"), ["importing mine.wrong raised ZeroDivisionError at wrong.py:1"]),
    ],
)
def test_what_goes_wrong_in_the_package_is_one_line_before_any_step(own, package, about, words):
    (package / "wrong.py").write_text("1 / 0\n")
    arguments = {**own(), "model_settings": about}
    with pytest.raises(ValueError, match="model 'net'") as error:
        Run(**arguments).go()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert not Path(arguments["out"]).exists()


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"net": settings("mine.netz:chips")}, ["no module 'mine.netz'", "PYTHONPATH", "working directory"]),
        ({"net": settings("nowhere:chips")}, ["no module 'nowhere'"]),
        ({"net": settings("mine.nets.chips")}, ["torch is 'mine.nets.chips'", "'mypkg.models:factory'"]),
        ({"net": {"troch": "mine.nets:chips"}}, ["do not run in 'troch'", "Did you mean 'torch'?"]),
        ({"net": {"caffe2": "mine.nets:chips"}}, ["do not run in 'caffe2'"]),
        ({"net": settings(setings={})}, ["'setings'", "Did you mean 'settings'?"]),
        ({"net": settings(settings=3)}, ["settings is 3"]),
        ({"net": settings(multiple=0)}, ["multiple is 0"]),
        ({"My-Net": settings()}, ["small letters"]),
        ({"cnn": settings()}, ["cnn: unknown setting 'torch'"]),
    ],
)
def test_a_wrong_study_is_refused_before_any_work(package, models, words):
    config = smoke(models)
    with pytest.raises(ValueError, match="experiments: cells: models") as error:
        Study.resolve(config, datasets=ROOT / "config/datasets")
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def smoke(models, experiment="cells", **more):
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    config["experiments"] = {experiment: {**config["experiments"][experiment], "models": models}}
    return {**config, **more}


def test_detection_and_pretrained_weights_are_refused(package):
    with pytest.raises(ValueError, match=r"classification and segmentation; .* write rvkernels/models/net\.py"):
        Study.resolve(smoke({"net": settings()}, "objects"), datasets=ROOT / "config/datasets")
    config = smoke({"net": settings()})
    config["experiments"]["cells"]["pretrained"] = {"net": {"file": "w.npz"}}
    with pytest.raises(ValueError, match="net is your own, and its factory makes its weights"):
        Study.resolve(config, datasets=ROOT / "config/datasets")


def test_a_study_runs_it_where_it_has_an_entry_point(package):
    config = smoke({"cnn": {}, "net": settings()}, frameworks=["torch", "caffe2"])
    study = Study.resolve(config, datasets=ROOT / "config/datasets")
    ran = [run[1:3] for run in study.runs()]
    assert ran == [("cnn", "torch"), ("cnn", "caffe2"), ("net", "torch")]
    with pytest.raises(ValueError, match="net has entry points for torch, but the study's frameworks are caffe2"):
        Study.resolve({**config, "frameworks": ["caffe2"]}, datasets=ROOT / "config/datasets")
    where = {"experiment": "cells", "model": "net", "framework": "torch"}
    before = study.settings_file("settings", ("train",), **where)
    init = study.settings_file("settings", ("init",), experiment="cells", model="net")
    assert study.settings_file("settings", ("train",), **where) == before
    (package / "nets.py").write_text(TORCH + "\n# another\n")
    assert study.settings_file("settings", ("train",), **where) != before
    assert study.settings_file("settings", ("init",), experiment="cells", model="net") == init


def test_a_module_is_found_as_a_file_and_nothing_is_imported(package):
    Path("single.py").write_text("raise SystemExit\n")
    assert own_model.source_of("single:f", "here").name == "single.py"
    assert len(own_model.digest("single:f", "net")) == 64
    assert own_model.source_of("mine:f", "here") == package / "__init__.py"
    assert own_model.digest("mine:f", "net") != own_model.digest("mine.nets:f", "net")
    assert "single" not in sys.modules
    assert "mine" not in sys.modules


def test_multiple_and_entry_points(package):
    graph = build_graph("net", settings(multiple=8), "segmentation", 3, 2)
    assert shapes(graph, 16, 24)["logits"] == (16, 24, 2)
    with pytest.raises(ValueError, match="multiples of 8, such as 8 x 16"):
        shapes(graph, 12, 16)
    with pytest.raises(ValueError, match="has no entry point for tensorflow; there are torch"):
        graph.entry("tensorflow")


def test_export_says_where_the_weights_are(own):
    arguments = own(epochs=1)
    Run(**arguments).go()
    with pytest.raises(ValueError, match=r"'net' is your own .*best\.npz"):
        export.export(arguments["out"], "onnx", "exported")
