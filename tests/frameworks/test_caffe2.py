"""What only Caffe2 has: nets made once, workspaces, threads of the process, its own files; and where it is mended."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rvkernels import registry, weights
from rvkernels.frameworks import complete_loss, reference
from rvkernels.models import BatchNorm, Conv, Dense, GlobalMean, Graph, MaxPool, Relu, Resize, trained

if importlib.util.find_spec("caffe2") is None:
    pytest.skip("Caffe2 is not installed in this environment", allow_module_level=True)

GRAPH = registry.load("models", "cnn").graph(3, 4, width=8, blocks=2)
LOSS, SGD = {"name": "cross_entropy"}, {"name": "sgd"}


@pytest.fixture(scope="module")
def caffe2():
    return registry.load("frameworks", "caffe2")


def model(caffe2, seed=1, **settings):
    return caffe2.Framework(GRAPH, weights.initial(GRAPH, seed), LOSS, SGD, **settings)


def batch(n=6, rows=16, cols=20):
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, 3, rows, cols)).astype(np.float32), (np.arange(n, dtype=np.int32) % 4,)


def operators(caffe2, net, clip=None):
    """Types of the operators of one of the three nets, as the workspace has it."""
    made = {"train": caffe2._train_net(GRAPH, complete_loss(LOSS, GRAPH))[0]}
    made["update"] = caffe2._update_net(
        {"head.weight": "g"}, {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.1, "clip": clip}
    )[0]
    made["predict"] = caffe2._predict_net(GRAPH)
    return [operator.type for operator in made[net].Proto().op]


def test_nets_are_of_caffe2s_own_operators(caffe2):
    known = set(caffe2.workspace.RegisteredOperators())
    train = operators(caffe2, "train")
    for kind in ("Conv", "SpatialBN", "Relu", "MaxPool", "FC", "SoftmaxWithLoss"):
        assert kind in train
        assert f"{kind}Gradient" in train
    assert {"MomentumSGD", "WeightedSum"} == set(operators(caffe2, "update"))
    assert "ClipTensorByScaling" in operators(caffe2, "update", clip=1.0)
    assert known.issuperset(train + operators(caffe2, "update") + operators(caffe2, "predict"))
    assert not any("Gradient" in kind for kind in operators(caffe2, "predict"))
    assert not any("Python" in kind for kind in train)


def test_nets_are_made_once(caffe2, monkeypatch):
    built = model(caffe2)

    def refuse(*arguments, **settings):
        raise AssertionError("a net is made")

    for name in ("CreateNet", "RunNetOnce", "RunOperatorOnce"):
        monkeypatch.setattr(caffe2.workspace, name, refuse)
    monkeypatch.setattr(caffe2.core, "Net", refuse)
    for n, rows, cols in ((6, 16, 20), (3, 16, 20), (8, 12, 28)):
        images, targets = batch(n, rows, cols)
        built.step(images, targets, 0.1)
        built.gradients(images, targets)
        built.predict(images)
    with built._inside():
        assert sorted(caffe2.workspace.C.nets()) == sorted(built._nets.values())


def test_the_image_gets_no_gradient(caffe2):
    net, gradients, _ = caffe2._train_net(GRAPH, complete_loss(LOSS, GRAPH))
    first = [operator for operator in net.Proto().op if "image" in operator.input]
    assert [operator.type for operator in first] == ["Conv", "ConvGradient"]
    assert list(first[1].output) == [gradients["block1.conv1.weight"]]


@pytest.mark.parametrize("settings", [{"device": "cuda"}, {"precision": "bfloat16"}, {"compile": True}])
def test_what_caffe2_cannot_is_refused(caffe2, settings):
    with pytest.raises(ValueError, match=r"^framework 'caffe2' computes in float32 on the CPU.* no compile; got .*$"):
        model(caffe2, **settings)


def test_a_pool_of_what_may_be_negative_is_refused(caffe2):
    def build(*first):
        layers = (
            *first,
            MaxPool("once", "first", kernel=2, stride=2),
            MaxPool("twice", "once", kernel=2, stride=2),
            GlobalMean("mean", "twice"),
            Dense("head", "mean", 4),
        )
        graph = Graph("classification", layers, "head", 3, 4)
        return caffe2.Framework(graph, weights.initial(graph, 0), LOSS, SGD)

    build(Conv("conv", "image", 2, kernel=3), Relu("first", "conv"))
    with pytest.raises(ValueError, match="MaxPool 'once' reads 'first', which is no ReLU"):
        build(Conv("first", "image", 2, kernel=3))


def test_models_beside_each_other_do_not_meet(caffe2):
    images, targets = batch()
    alone = []
    for seed in (1, 2):
        one = model(caffe2, seed)
        alone.append([one.step(images, targets, rate) for rate in (0.1, 0.05, 0.02)])
    assert alone[0] != alone[1]
    first, second = model(caffe2, 1), model(caffe2, 2)
    both = [(first.step(images, targets, rate), second.step(images, targets, rate)) for rate in (0.1, 0.05, 0.02)]
    assert list(zip(*alone)) == both


def test_a_model_leaves_the_callers_workspace_and_frees_its_own(caffe2):
    workspace = caffe2.workspace
    here, blobs = workspace.CurrentWorkspace(), workspace.Blobs()
    built = model(caffe2)
    built.step(*batch(), 0.1)
    with pytest.raises(ValueError, match="targets have shape"):
        built.step(batch()[0], batch(3)[1], 0.1)
    assert workspace.CurrentWorkspace() == here
    assert workspace.Blobs() == blobs
    name = built._workspace
    with built._inside():
        assert workspace.HasBlob("head.weight")
    del built
    gc.collect()
    assert workspace.CurrentWorkspace() == here
    workspace.SwitchWorkspace(name)
    try:
        assert workspace.Blobs() == []
        assert workspace.C.nets() == []
    finally:
        workspace.SwitchWorkspace(here)


def test_sizes_may_change_from_step_to_step(caffe2):
    """What another size leaves in blobs does not show; unet has pooling, bilinear resizing is in fcn."""
    for name, settings, sizes in (
        ("unet", {"depth": 2, "width": 4}, [(2, 16, 24), (5, 8, 8), (1, 32, 16), (2, 16, 24)]),
        ("fcn", {"depth": 10, "width": 4, "stem": "half"}, [(2, 32, 16), (3, 16, 16), (2, 48, 32), (2, 32, 16)]),
    ):
        graph = registry.load("models", name).graph(3, 4, **settings)
        arguments = (graph, weights.initial(graph, 1), {"name": "cross_entropy_dice"}, SGD)
        one = caffe2.Framework(*arguments)
        for n, rows, cols in sizes:
            images = batch(n, rows, cols)[0]
            targets = ((images[:, 0] > 0).astype(np.int32),)
            fresh = caffe2.Framework(*arguments)
            assert np.array_equal(one.predict(images), fresh.predict(images))
            (value, found), (expected, gradients) = one.gradients(images, targets), fresh.gradients(images, targets)
            assert value == expected
            assert all(np.array_equal(found[key], array) for key, array in gradients.items())


def test_a_model_computes_with_the_threads_it_is_given(caffe2):
    folder = importlib.util.find_spec("torch").submodule_search_locations[0]
    linked = ctypes.CDLL(str(Path(folder, "lib", "libtorch_cpu.so")))
    for threads in (2, 1):
        model(caffe2, threads=threads)
        assert linked.MKL_Get_Max_Threads() == threads
        assert linked.omp_get_max_threads() == threads


def test_flags_set_the_threads_of_a_process():
    script = (
        "import ctypes, importlib.util, pathlib\n"
        "from rvkernels.frameworks import caffe2\n"
        "caffe2._set_threads(2)\n"
        "folder = importlib.util.find_spec('torch').submodule_search_locations[0]\n"
        "linked = ctypes.CDLL(str(pathlib.Path(folder, 'lib', 'libtorch_cpu.so')))\n"
        "print(linked.MKL_Get_Max_Threads(), linked.omp_get_max_threads())\n"
    )
    assert run(script).split() == ["2", "2"]


def run(script: str, *arguments: object) -> str:
    """What a fresh Python prints for `script`."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sums_over_many_pixels_are_exact(caffe2):
    """Of a million equal terms, added one by one in float32, the sum is off by thousandths."""
    layers = (Conv("head", "image", 2, kernel=1, bias=True),)
    graph = Graph("segmentation", layers, "head", 1, 2)
    begin = {"head.weight": np.full((2, 1, 1, 1), 0.1, np.float32), "head.bias": np.array([0, 0.3], np.float32)}
    images = np.full((64, 1, 128, 128), 0.5, np.float32)
    targets = (np.zeros((64, 128, 128), np.int32),)
    weighted = {"name": "cross_entropy", "class_weights": [0.7, 0.3]}
    for loss in (weighted, {**weighted, "label_smoothing": 0.1}, {"name": "dice"}, {"name": "focal"}):
        value, found = caffe2.Framework(graph, begin, loss, SGD).gradients(images, targets)
        judge = reference.Framework(graph, begin, loss, SGD)
        expected, gradients = judge.gradients(images.transpose(0, 2, 3, 1), targets)
        assert value == pytest.approx(expected, rel=2e-5)
        for name in gradients:
            np.testing.assert_allclose(found[name], gradients[name], rtol=2e-4)


def test_a_single_value_has_no_variance(caffe2):
    layers = (Conv("c", "image", 2, kernel=4), BatchNorm("n", "c"), GlobalMean("m", "n"), Dense("head", "m", 2))
    graph = Graph("classification", layers, "head", 1, 2)
    built = caffe2.Framework(graph, weights.initial(graph, 1), LOSS, SGD)
    images, targets = np.ones((2, 1, 4, 4), np.float32), (np.array([0, 1], np.int32),)
    before = built.weights()
    with pytest.raises(ValueError, match="BatchNorm 'n': one value per channel has no variance; use larger batches"):
        built.step(images[:1], (targets[0][:1],), 0.1)
    assert all(np.array_equal(before[name], array) for name, array in built.weights().items())
    assert np.isfinite(built.step(images, targets, 0.1))


def test_large_logits_stay_finite(caffe2):
    """Where softmax and the operator Softplus leave float32."""
    layers = (GlobalMean("m", "image"), Dense("head", "m", 4, bias=False))
    graph = Graph("classification", layers, "head", 4, 4)
    begin = {"head.weight": np.diag([200.0, -200.0, 100.0, 0.0]).astype(np.float32)}
    images, targets = np.ones((3, 4, 1, 1), np.float32), (np.array([1, 0, 2], np.int32),)
    for name in ("cross_entropy", "focal", "dice"):
        value, found = caffe2.Framework(graph, begin, {"name": name}, SGD).gradients(images, targets)
        judge = reference.Framework(graph, begin, {"name": name}, SGD)
        _, gradients = judge.gradients(images.transpose(0, 2, 3, 1), targets)
        assert np.isfinite(value)
        np.testing.assert_allclose(found["head.weight"], gradients["head.weight"], atol=1e-5)


LOAD = """
import sys
import numpy as np
from caffe2.proto import caffe2_pb2
from caffe2.python import workspace

init, predict = caffe2_pb2.NetDef(), caffe2_pb2.NetDef()
for net, path in ((init, sys.argv[1]), (predict, sys.argv[2])):
    with open(path, "rb") as file:
        net.ParseFromString(file.read())
workspace.RunNetOnce(init)
workspace.CreateNet(predict)
for i, path in enumerate(sys.argv[4:]):
    workspace.FeedBlob("image", np.load(path))
    workspace.RunNet(predict.name)
    np.save(f"{sys.argv[3]}/logits{i}.npy", workspace.FetchBlob("logits"))
assert not any(name.startswith("rvkernels") for name in sys.modules)
"""


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cnn", {"width": 4, "blocks": 2}),
        ("fcn", {"depth": 10, "width": 4, "stem": "half"}),
        ("detector", {"depth": 10, "width": 4, "pyramid": 8, "tower": 1}),
    ],
)
def test_exported_nets_give_the_same_logits_in_caffe2_alone(caffe2, tmp_path, name, settings):
    graph = registry.load("models", name).graph(3, 4, **settings)
    loss = {"name": "detection"} if name == "detector" else LOSS
    built = caffe2.Framework(graph, weights.initial(graph, 1), loss, SGD)
    images = [batch(2, 32, 64)[0], batch(1, 48, 16)[0]]
    for i, array in enumerate(images):
        np.save(tmp_path / f"images{i}.npy", array)
    found = built.weights()
    for key in found:  # running statistics count, biases too
        if not trained(key) or key.endswith(".bias"):
            found[key] += np.random.default_rng(3).uniform(0.1, 0.5, found[key].shape).astype(np.float32)
    built.load(found)
    written = caffe2.EXPORTS["caffe2"](graph, found, tmp_path)
    assert [path.name for path in written] == ["init_net.pb", "predict_net.pb"]
    run(LOAD, *written, tmp_path, *(tmp_path / f"images{i}.npy" for i in range(2)))
    for i, array in enumerate(images):
        np.testing.assert_allclose(np.load(tmp_path / f"logits{i}.npy"), built.predict(array), rtol=1e-6, atol=1e-6)


def test_bilinear_kernels_of_several_factors(caffe2):
    layers = (Resize("a", "image", 2, "bilinear"), Resize("b", "a", 3, "bilinear"), GlobalMean("m", "b"))
    graph = Graph("classification", (*layers, Dense("head", "m", 2)), "head", 3, 2)
    images = batch(2, 3, 5)[0]
    found = caffe2.Framework(graph, weights.initial(graph, 1), LOSS, SGD).predict(images)
    judge = reference.Framework(graph, weights.initial(graph, 1), LOSS, SGD)
    np.testing.assert_allclose(found, judge.predict(images.transpose(0, 2, 3, 1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", "fpu avx2 avx512f avx512dq avx512bw avx512vl", "7"),
        ("AuthenticAMD", "fpu avx2 avx512f", "5"),
        ("AuthenticAMD", "fpu sse2", None),
        ("GenuineIntel", "fpu avx2", None),
    ],
)
def test_mkl_is_told_what_the_processor_can(caffe2, vendor, flags, expected):
    cpu = f"vendor_id\t: {vendor}\nmodel name\t: X\nflags\t\t: {flags}\nbugs\t\t: none\n\n"
    assert caffe2._mkl_cpu_type(cpu + cpu) == expected
    assert caffe2._mkl_cpu_type("processor\t: 0\nFeatures\t: fp asimd\n") is None


def test_versions_say_what_is_not_caffe2s_own(caffe2):
    found = caffe2.Framework.versions()
    assert found["caffe2"].startswith("of PyTorch 1.")
    assert int(found["operators"]) > 500
    assert "MomentumSGD" in found["sgd"]
    assert all(isinstance(value, str) for value in found.values())
