"""What only TensorFlow has: XLA, tracing, threads fixed per process, exports, a log to silence."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rvkernels import registry, weights
from rvkernels.models import AveragePool, BatchNorm, Conv, ConvTranspose, Dense, GlobalMean, Graph, MaxPool

# Not importorskip: importing takes seconds, and the framework's file silences the log meanwhile.
missing = importlib.util.find_spec("tensorflow") is None
pytestmark = pytest.mark.skipif(missing, reason="TensorFlow is not installed in this environment")

ROOT = Path(__file__).parents[2]
GRAPH = registry.load("models", "cnn").graph(3, 4, width=8, blocks=2)
LOSS, SGD = {"name": "cross_entropy"}, {"name": "sgd"}


def file():
    return registry.load("frameworks", "tensorflow")


def model(graph=GRAPH, optimizer=SGD, **settings):
    return file().Framework(graph, weights.initial(graph, 1), LOSS, optimizer, **settings)


def batch(n=6):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 16, 20, 3)).astype(np.float32), (np.arange(n, dtype=np.int32) % 4,)


def fresh(code: str, *arguments: object) -> subprocess.CompletedProcess:
    """`code` in a new Python that finds the package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, env=environment, cwd=Path(sys.executable).parent, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), [("fcn", {"depth": 10, "width": 2}), ("unet", {"depth": 1, "width": 2})])
def test_bfloat16_reaches_every_operation_of_segmentation(name, settings):
    """Resizing and transposed convolution, whose operators differ in the types they take."""
    graph = registry.load("models", name).graph(3, 4, **settings)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    labels = (images[..., 0] > 0).astype(np.int32)
    exact, rounded = model(graph), model(graph, precision="bfloat16")
    for rate in (0.01, 0.01):
        assert rounded.step(images, (labels,), rate) == pytest.approx(exact.step(images, (labels,), rate), rel=0.05)


@pytest.mark.parametrize("optimizer", [SGD, {"name": "adamw", "weight_decay": 0.1, "eps": 1e-5}])
def test_xla_gives_the_same_numbers(optimizer):
    # Padded max pooling is an operator that XLA does not have.
    layers = (
        Conv("conv", "image", 4, kernel=3, stride=2, pad=1),
        BatchNorm("norm", "conv"),
        MaxPool("pool", "norm", kernel=3, stride=2, pad=1),
        GlobalMean("mean", "pool"),
        Dense("head", "mean", 4),
    )
    graph = Graph("classification", layers, "head", 3, 4)
    plain, compiled = model(graph, optimizer), model(graph, optimizer, compile=True)
    images, targets = batch()
    for rate in (0.1, 0.05):
        assert compiled.step(images, targets, rate) == pytest.approx(plain.step(images, targets, rate), rel=1e-4)
    for name, array in plain.weights().items():
        np.testing.assert_allclose(compiled.weights()[name], array, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(compiled.predict(images), plain.predict(images), rtol=1e-3, atol=1e-5)
    (function,) = {function for key, function in compiled._functions.items() if key[0] == "_step"}
    assert function.function_def.attr["_XlaMustCompile"].b


def test_a_shape_is_traced_once(monkeypatch):
    built = model()
    traced = []
    forward = file()._forward

    def counted(graph, values, images, *others):
        traced.append(images.shape[0])
        return forward(graph, values, images, *others)

    monkeypatch.setattr(file(), "_forward", counted)
    for n in (6, 6, 4, 6, 4):
        built.step(*batch(n), 0.1)
    for n in (6, 1, 6, 1):
        built.predict(batch(n)[0])
    built.gradients(*batch(6))
    built.gradients(*batch(6))
    assert traced == [6, 4, 6, 1, 6]


def test_a_second_number_of_threads_is_an_error():
    model(threads=1)
    message = r"^threads is 2, but TensorFlow already runs .* \(intra-op 1, inter-op 1\); use a new process$"
    with pytest.raises(ValueError, match=message):
        model(threads=2)


THREADS = """
import sys
from pathlib import Path
import numpy as np
from rvkernels import registry, weights
threads = int(sys.argv[1])
graph = registry.load("models", "unet").graph(4, 5, width=8, depth=2)
build = registry.load("frameworks", "tensorflow").Framework
rng = np.random.default_rng(0)
images = rng.standard_normal((8, 64, 64, 4)).astype(np.float32)
labels = rng.integers(0, 5, (8, 64, 64)).astype(np.int32)
def on_cpu():  # nanoseconds of every thread
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in Path("/proc/self/task").iterdir()}
def computing(before):
    spent = [time - before.get(task, 0) for task, time in on_cpu().items()]
    return sum(time > 0.1 * sum(spent) for time in spent)
ends = []
for run in range(2):
    model = build(graph, weights.initial(graph, 0), {"name": "cross_entropy_dice"}, {"name": "adamw"}, threads=threads)
    losses = [model.step(images, (labels,), 0.01)]
    before = on_cpu()
    losses += [model.step(images, (labels,), 0.01) for _ in range(5)]
    ends.append((losses, *(array.tobytes() for array in model.weights().values())))
assert ends[0] == ends[1], "not bit-equal"
assert len(set(losses)) == 6
for _ in range(500):  # where other work keeps a thread from its core, it gets its share later
    if computing(before) >= threads:
        break
    model.step(images, (labels,), 0.01)
print(computing(before))
"""


# With one thread the one that runs the graph computes; else a pool of that many does, and the first what is small.
@pytest.mark.parametrize(("threads", "computing"), [(1, {1}), (2, {2, 3})])
def test_as_many_threads_compute_as_asked_for_and_results_repeat(threads, computing):
    done = fresh(THREADS, threads)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # TensorFlow's log among it
    assert int(done.stdout) in computing


def test_the_log_is_shown_after_an_error(capfd):
    with file()._log_held_back():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == ""

    def fail():
        with file()._log_held_back():
            os.write(2, b"the reason\n")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "the reason\n"


def exported_graph() -> Graph:
    """Layers that no model has, or not so, with what is easily missed; the models: tests/test_export.py."""
    layers = (
        Conv("a", "image", 3, kernel=3, stride=2, pad=2, bias=True),
        MaxPool("a_max", "a", kernel=3, stride=2, pad=1),  # of negative numbers too, so that zeros as padding show
        AveragePool("a_average", "a_max", kernel=3, stride=2, pad=1),
        ConvTranspose("grow", "a_average", 4, kernel=2, stride=3, bias=True),
        GlobalMean("mean", "grow"),
        Dense("head", "mean", 4),
    )
    return Graph("classification", layers, "head", 3, 4)


USES = {
    "keras": """
import sys, numpy as np, keras
model = keras.saving.load_model(f"{sys.argv[1]}/model.keras")
assert [type(layer).__module__.split(".")[0] for layer in model.layers] == ["keras"] * len(model.layers)
np.save(f"{sys.argv[1]}/logits.npy", model.predict(np.load(f"{sys.argv[1]}/images.npy"), verbose=0))
assert "rvkernels" not in sys.modules
""",
    "savedmodel": """
import sys, numpy as np, tensorflow as tf
serve = tf.saved_model.load(f"{sys.argv[1]}/saved_model").signatures["serving_default"]
np.save(f"{sys.argv[1]}/logits.npy", serve(tf.constant(np.load(f"{sys.argv[1]}/images.npy")))["logits"].numpy())
assert "rvkernels" not in sys.modules
""",
}


@pytest.mark.parametrize("kind", USES)
def test_exports_give_the_same_logits_without_us(kind, tmp_path):
    rng = np.random.default_rng(0)
    graph = exported_graph()
    begin = weights.initial(graph, 1)
    for array in begin.values():
        array += rng.uniform(0.01, 0.2, array.shape).astype(np.float32)
    images = rng.standard_normal((3, 13, 18, 3)).astype(np.float32)
    expected = file().Framework(graph, begin, LOSS, SGD).predict(images)
    assert all(path.exists() for path in file().EXPORTS[kind](graph, begin, tmp_path))
    np.save(tmp_path / "images.npy", images)
    done = fresh(USES[kind], tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_an_export_of_other_weights_is_an_error(tmp_path):
    for write in file().EXPORTS.values():
        with pytest.raises(ValueError, match="is missing; the model has"):
            write(GRAPH, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_versions_name_the_libraries():
    found = file().Framework.versions()
    assert found["tensorflow"]
    assert found["onednn"] in ("on", "off")
    assert "ApplyAdam" in found["optimizer"]
    assert all(isinstance(value, str) for value in found.values())
