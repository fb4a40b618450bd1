"""Every framework, every model, every loss, every optimizer against the float64 reference.

A framework or model is tested the moment its file is there; a framework whose package is not installed is skipped. The
reference itself is held to finite differences and, where those see nothing, to numbers worked by hand.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import shutil
import zlib

import numpy as np
import pytest

from rvkernels import registry, weights
from rvkernels.frameworks import complete_loss, reference
from rvkernels.models import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    GlobalMean,
    Graph,
    Locations,
    MaxPool,
    Relu,
    Resize,
    trained,
)

# framework: the package that it stands on, where that is not its own name
PACKAGES = {"reference": "numpy"}
OTHERS = [name for name in registry.names("frameworks") if name != "reference"]
# Caffe2 has neither bfloat16 nor, in its last wheels, today's GPUs, and refuses both: tests/frameworks/test_caffe2.py.
MODERN = [name for name in OTHERS if name != "caffe2"]

# Tiny, with awkward sizes: odd, not square, smaller than the network's stride where the model allows it.
CASES = {
    "cnn": ("cnn", {"width": 4, "blocks": 2, "convs": 2}, (13, 17)),
    "resnet18": ("resnet", {"depth": 18, "width": 3, "stem": "standard"}, (39, 33)),
    "resnet50": ("resnet", {"depth": 50, "width": 2, "stem": "half"}, (21, 30)),
    "fcn": ("fcn", {"depth": 10, "width": 3}, (64, 32)),
    "unet": ("unet", {"depth": 2, "width": 3}, (12, 20)),
    "detector": ("detector", {"depth": 10, "width": 3, "pyramid": 6, "tower": 1, "strides": (4, 8, 16, 32)}, (32, 64)),
    "vocabulary": (None, {}, (9, 14)),
}
BANDS, CLASSES, BATCH = 5, 4, 4

WEIGHTED = {"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": [0.5, 2.0, 0.0, 1.5]}
LOSSES = {
    "classification": {
        "cross_entropy": {"name": "cross_entropy"},
        "weighted": WEIGHTED,
        "focal": {"name": "focal"},
        "dice": {"name": "dice"},
    },
    "segmentation": {
        "cross_entropy_dice": {"name": "cross_entropy_dice"},
        "weighted_dice": {**WEIGHTED, "name": "cross_entropy_dice"},
        "cross_entropy": {"name": "cross_entropy"},
        "focal": {"name": "focal", "gamma": 1.5},
        "dice": {"name": "dice", "ignore": 9},
    },
    "detection": {
        "giou": {"name": "detection"},
        "l1": {"name": "detection", "box": "l1", "box_weight": 0.5},
        "giou_l1": {"name": "detection", "box": "giou_l1"},
    },
}
OPTIMIZERS = {
    "momentum": {"name": "sgd", "weight_decay": 0.01},
    "nesterov": {"name": "sgd", "momentum": 0.8, "nesterov": True},
    "plain": {"name": "sgd", "momentum": 0.0},
    # With the default eps a gradient that is 0 but for rounding makes a full step, up or down.
    "adamw": {"name": "adamw", "weight_decay": 0.05, "eps": 1e-5},
}
SGD = {"name": "sgd"}
# Norms of cases with `clip`: above all that occur, and so low that every step is cut.
LOOSE, TIGHT = 1e3, 0.05
RATES = (0.02, 0.05, 0.01, 0.03, 0.002)


def vocabulary() -> Graph:
    """What the models leave out: average pooling, biases before ReLU, overlapping transposed convolution, a layer read
    three times, ReLUs on the image and on what is read again, nearest and bilinear resizing by 3."""
    layers = (
        Relu("positive", "image"),
        Conv("a", "positive", 4, kernel=3, stride=2, pad=2, bias=True),
        Relu("a_relu", "a"),
        AveragePool("average", "a_relu", kernel=3, stride=2, pad=1),
        MaxPool("max", "a_relu", kernel=3, stride=2, pad=1),
        Add("both", "average", "max"),
        Add("twice", "both", "both"),
        Resize("near", "twice", 3, "nearest"),
        Resize("smooth", "both", 3, "bilinear"),
        ConvTranspose("grow", "max", 3, kernel=5, stride=2, bias=True),
        Relu("grow_relu", "grow"),
        BatchNorm("grow_bn", "grow_relu"),
        Concat("join", ("near", "smooth")),
        Conv("b", "join", 3, kernel=1, bias=False),
        GlobalMean("mean_b", "b"),
        GlobalMean("mean_grow", "grow_bn"),
        Add("means", "mean_b", "mean_grow"),
        Relu("means_relu", "means"),
        Add("mixed", "means", "means_relu"),
        Dense("hidden", "mixed", 6, bias=False),
        Relu("hidden_relu", "hidden"),
        Dense("head", "hidden_relu", CLASSES),
    )
    return Graph("classification", layers, "head", BANDS, CLASSES)


@functools.cache
def graph_of(case: str) -> Graph:
    name, settings, _ = CASES[case]
    return registry.load("models", name).graph(BANDS, CLASSES, **settings) if name else vocabulary()


def start(case: str) -> dict[str, np.ndarray]:
    """Initial weights, moved off the zeros and ones that would hide a mistake."""
    rng = np.random.default_rng(zlib.crc32(case.encode()))
    found = weights.initial(graph_of(case), seed=1)
    for name, array in found.items():
        if name.endswith((".scale", ".variance")):
            # Small in residual branches, which start at 0: tiny networks of many blocks would be chaotic otherwise.
            low, high = (0.5, 1.5) if array.any() else (0.1, 0.3)
            array[:] = rng.uniform(low, high, array.shape)
        elif name.endswith((".bias", ".mean")):
            array += rng.normal(0, 0.2, array.shape).astype(np.float32)
    return found


@functools.cache
def batch(case: str, seed: int = 0):
    """Images and targets; labels follow a band's mean so that there is something to learn; some are ignored."""
    graph = graph_of(case)
    rows, cols = CASES[case][2]
    rng = np.random.default_rng([seed, zlib.crc32(case.encode())])
    images = rng.standard_normal((BATCH, rows, cols, BANDS)).astype(np.float32)
    if graph.task == "classification":
        labels = rng.permutation(BATCH).astype(np.int32) % CLASSES
        images += labels[:, None, None, None] * np.linspace(0.5, -0.5, BANDS, dtype=np.float32)
        labels[0] = -1
        return images, (labels,)
    if graph.task == "segmentation":
        labels = np.clip(images[..., 0] * 1.2 + 1.5, 0, CLASSES - 1).astype(np.int32)
        labels[rng.uniform(size=labels.shape) < 0.1] = 255
        return images, (labels,)
    places = sum((rows // s) * (cols // s) for s in graph.strides)
    labels = rng.choice([-2, -1, -1, -1, 0, 1, 3], (BATCH, places)).astype(np.int32)
    return images, (labels, rng.uniform(0.1, 3, (BATCH, places, 4)).astype(np.float32))


def targets_for(loss: dict, targets: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Targets whose ignore label is the one that the loss names."""
    if loss.get("ignore") is None:
        return targets
    return (np.where(targets[0] == 255, loss["ignore"], targets[0]).astype(np.int32),)


def framework_class(name: str):
    package = PACKAGES.get(name, name)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed in this environment")
    if name == "torch" and importlib.metadata.version(package).startswith("1."):
        pytest.skip("this PyTorch is the one that holds Caffe2")
    return registry.load("frameworks", name).Framework


@pytest.fixture(scope="module", params=OTHERS)
def framework(request):
    return framework_class(request.param)


@pytest.fixture(scope="module", params=MODERN)
def modern_framework(request):
    return framework_class(request.param)


@pytest.fixture(scope="module", params=registry.names("frameworks"))
def any_framework(request):
    return framework_class(request.param)


def combinations():
    """(case, loss, optimizer): every loss with every case, every optimizer with every case and every loss."""
    found = []
    for case in CASES:
        losses = LOSSES[graph_of(case).task]
        for i, loss in enumerate(losses):
            for j, optimizer in enumerate(OPTIMIZERS):
                if i == 0 or j in (0, 3) or case in ("cnn", "unet", "detector"):
                    found.append((case, loss, optimizer))
    return found


def loss_cases():
    return [(case, loss) for case in CASES for loss in LOSSES[graph_of(case).task]]


def settings_of(case: str, loss: str) -> dict:
    return LOSSES[graph_of(case).task][loss]


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Within `tolerance` of the largest magnitude of each array."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        largest = np.abs(array).max()
        error = np.abs(found[name] - array).max()
        assert error <= tolerance * max(largest, 1e-6), f"{name}: off by {error:.3g}, largest {largest:.3g}"


def as_layout(framework, images: np.ndarray) -> np.ndarray:
    return images if framework.layout == "NHWC" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("case", CASES)
def test_logits(framework, case):
    images, _ = batch(case)
    loss = next(iter(LOSSES[graph_of(case).task].values()))
    expected = reference.Framework(graph_of(case), start(case), loss, {"name": "sgd"}).predict(images)
    model = framework(graph_of(case), start(case), loss, {"name": "sgd"})
    found = model.predict(as_layout(framework, images))
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    single = model.predict(as_layout(framework, images[2:3]))
    np.testing.assert_allclose(single, expected[2:3], rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("case", "loss"), loss_cases())
def test_loss_and_gradients(framework, case, loss):
    images, targets = batch(case)
    settings = settings_of(case, loss)
    targets = targets_for(settings, targets)
    judge = reference.Framework(graph_of(case), start(case), settings, {"name": "sgd"})
    expected, gradients = judge.gradients(images, targets)
    begin = start(case)
    model = framework(graph_of(case), begin, settings, {"name": "sgd"})
    before = model.predict(as_layout(framework, images))
    value, found = model.gradients(as_layout(framework, images), targets)
    assert value == pytest.approx(expected, rel=1e-4)
    assert_close(found, gradients, 1e-3)
    assert all(np.array_equal(array, begin[name]) for name, array in model.weights().items())
    assert np.array_equal(before, model.predict(as_layout(framework, images)))
    assert model.differentiate(as_layout(framework, images), targets) == pytest.approx(expected, rel=1e-4)
    kept = model.weights()
    assert all(np.array_equal(kept[name], begin[name]) for name in filter(trained, begin))
    assert not model.state()


SOFT = {"soft": {"name": "cross_entropy", "soft": True}, "weighted": {**WEIGHTED, "soft": True}}


def shares_of(labels: np.ndarray) -> np.ndarray:
    """Soft targets: two classes of each image."""
    own = np.linspace(1, 0.4, len(labels), dtype=np.float32)[:, None]
    one_hot = np.eye(CLASSES, dtype=np.float32)
    return own * one_hot[labels % CLASSES] + (1 - own) * one_hot[(labels + 1) % CLASSES]


@pytest.mark.parametrize("loss", SOFT)
def test_soft_targets(framework, loss):
    images, (labels,) = batch("cnn")
    targets = (shares_of(labels),)
    judge = reference.Framework(graph_of("cnn"), start("cnn"), SOFT[loss], OPTIMIZERS["momentum"])
    model = framework(graph_of("cnn"), start("cnn"), SOFT[loss], OPTIMIZERS["momentum"])
    expected, gradients = judge.gradients(images, targets)
    value, found = model.gradients(as_layout(framework, images), targets)
    assert value == pytest.approx(expected, rel=1e-4)
    assert_close(found, gradients, 1e-3)
    for rate in RATES[:3]:
        done = model.step(as_layout(framework, images), targets, rate)
        assert done == pytest.approx(judge.step(images, targets, rate), rel=1e-3)
    assert_close(model.weights(), judge.weights(), 1e-3)
    parts = framework(graph_of("cnn"), start("cnn"), SOFT[loss], {"name": "sgd"}, accumulate=2)
    judge = reference.Framework(graph_of("cnn"), start("cnn"), SOFT[loss], {"name": "sgd"}, accumulate=2)
    expected, gradients = judge.gradients(images, targets)
    value, found = parts.gradients(as_layout(framework, images), targets)
    assert value == pytest.approx(expected, rel=1e-4)
    assert_close(found, gradients, 1e-3)


@pytest.mark.parametrize("loss", SOFT)
def test_soft_targets_of_one_class_are_its_label(any_framework, loss):
    images, (labels,) = batch("cnn")
    labels = labels % CLASSES
    hard = {key: value for key, value in SOFT[loss].items() if key != "soft"}
    arguments = (as_layout(any_framework, images),)
    one = any_framework(graph_of("cnn"), start("cnn"), hard, {"name": "sgd"}).gradients(*arguments, (labels,))
    one_hot = (np.eye(CLASSES, dtype=np.float32)[labels],)
    other = any_framework(graph_of("cnn"), start("cnn"), SOFT[loss], {"name": "sgd"}).gradients(*arguments, one_hot)
    assert other[0] == pytest.approx(one[0], rel=1e-5)
    assert_close(other[1], one[1], 1e-4)


@pytest.mark.parametrize("case", ["resnet18", "unet"])
def test_flat_ground_has_one_maximum(framework, case):
    """Windows of equal pixels, such as nodata makes: max pooling gives the gradient to one of them, not to each."""
    _, targets = batch(case)
    images = np.ones((BATCH, *CASES[case][2], BANDS), np.float32)
    images[:, :, ::17] = 2
    settings = next(iter(LOSSES[graph_of(case).task].values()))
    judge = reference.Framework(graph_of(case), start(case), settings, {"name": "sgd"})
    model = framework(graph_of(case), start(case), settings, {"name": "sgd"})
    _, expected = judge.gradients(images, targets)
    _, found = model.gradients(as_layout(framework, images), targets)
    assert_close(found, expected, 1e-3)


@functools.cache
def reference_steps(case: str, loss: str, optimizer: str):
    settings = settings_of(case, loss)
    judge = reference.Framework(graph_of(case), start(case), settings, OPTIMIZERS[optimizer])
    losses = []
    for seed, rate in enumerate(rates_for(case, optimizer)):
        images, targets = batch(case, seed)
        losses.append(judge.step(images, targets_for(settings, targets), rate))
    return losses, judge.weights(), judge.state()


def rates_for(case: str, optimizer: str) -> list[float]:
    """RATES, lower for AdamW, whose steps do not shrink with the gradient, and for the deepest networks, in which
    larger steps carry single ReLUs across zero in one precision and not in the other."""
    lower = (10 if optimizer == "adamw" else 1) * {"resnet18": 2, "resnet50": 5}.get(case, 1)
    if (case, optimizer) == ("unet", "nesterov"):
        lower = 1.5  # at the full rates a ReLU of the reference itself meets 6e-7
    return [rate / lower for rate in RATES]


@pytest.mark.parametrize(("case", "loss", "optimizer"), combinations())
def test_five_steps_with_changing_learning_rate(framework, case, loss, optimizer):
    settings = settings_of(case, loss)
    expected, end, state = reference_steps(case, loss, optimizer)
    model = framework(graph_of(case), start(case), settings, OPTIMIZERS[optimizer])
    losses = []
    for seed, rate in enumerate(rates_for(case, optimizer)):
        images, targets = batch(case, seed)
        losses.append(model.step(as_layout(framework, images), targets_for(settings, targets), rate))
    model.wait()
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert_close(model.weights(), end, 1e-3)  # running statistics are among them
    kept = {name: array for name, array in state.items() if not name.startswith("w/")}
    assert_close(model.state(), kept, 3e-3)  # squares and sums of gradients within 1e-3


@pytest.mark.parametrize(("case", "optimizer"), [("cnn", "plain"), ("cnn", "adamw"), ("detector", "nesterov")])
def test_clipped_steps(any_framework, case, optimizer):
    """As the reference with `clip`, every step cut; and to the bit as without it where the norm stays below."""
    settings = next(iter(LOSSES[graph_of(case).task].values()))

    def train(framework, clip=None):
        model = framework(graph_of(case), start(case), settings, {**OPTIMIZERS[optimizer], "clip": clip})
        for seed, rate in enumerate(rates_for(case, optimizer)[:2]):
            images, targets = batch(case, seed)
            model.step(as_layout(framework, images), targets, rate)
        if clip == TIGHT:
            _, gradients = model.gradients(as_layout(framework, images), targets)
            norm = np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in gradients.values()))
            assert 2 * TIGHT < norm < LOOSE / 2  # as they are, not clipped
        return model.weights(), {name: array for name, array in model.state().items() if not name.startswith("w/")}

    weights_cut, state_cut = train(any_framework, clip=TIGHT)
    expected, state = train(reference.Framework, clip=TIGHT)
    assert_close(weights_cut, expected, 1e-3)
    assert_close(state_cut, state, 3e-3)
    free, _ = train(any_framework)
    loose, _ = train(any_framework, clip=LOOSE)
    assert all(np.array_equal(array, loose[name]) for name, array in free.items())
    assert not all(np.array_equal(array, weights_cut[name]) for name, array in free.items())


def without_norms(task: str) -> Graph:
    """A small network without batch norm, whose step is the same however its batch is divided."""
    stride = 4 if task == "detection" else 1
    layers = [Conv("a", "image", 6, kernel=3, stride=stride, pad=1, bias=True), Relu("a_relu", "a")]
    if task == "classification":
        layers += [GlobalMean("mean", "a_relu"), Dense("head", "mean", CLASSES)]
        return Graph(task, tuple(layers), "head", BANDS, CLASSES)
    if task == "segmentation":
        return Graph(task, (*layers, Conv("head", "a_relu", CLASSES, kernel=1, bias=True)), "head", BANDS, CLASSES)
    layers += [Conv("head", "a_relu", CLASSES + 4, kernel=1, bias=True), Locations("out", ("head",))]
    return Graph(task, tuple(layers), "out", BANDS, CLASSES, multiple=4, strides=(4,))


def uneven_batch(task: str, seed: int):
    """Eight chips. What the loss is divided by lies mostly in the last ones, and nothing of it in the first two."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((8, 12, 16, BANDS)).astype(np.float32) + np.linspace(-1, 1, 8).reshape(8, 1, 1, 1)
    images = images.astype(np.float32)
    if task == "classification":
        return images, (np.array([-1, -1, -1, 0, 3, 1, 2, 3], np.int32),)  # class 2 has the weight 0
    if task == "segmentation":
        labels = rng.integers(0, CLASSES, (8, 12, 16)).astype(np.int32)
        labels[:2] = 255
        labels[2:5][rng.uniform(size=(3, 12, 16)) < 0.9] = 255
        return images, (labels,)
    labels = np.full((8, 12), -1, np.int32)
    labels[:, 0] = -2
    labels[3, 5] = 2
    labels[5:, 2::2] = rng.integers(0, CLASSES, (3, 5))
    return images, (labels, rng.uniform(0.1, 3, (8, 12, 4)).astype(np.float32))


DIVIDED = {
    "classification": WEIGHTED,
    "segmentation": {"name": "focal"},
    "detection": {"name": "detection", "box": "giou_l1"},
}


@pytest.mark.parametrize("task", DIVIDED)
def test_micro_batches_make_the_step_of_the_whole_batch(any_framework, task):
    graph, optimizer = without_norms(task), {"name": "sgd", "clip": 0.5}
    begin = weights.initial(graph, 1)
    judge = reference.Framework(graph, begin, DIVIDED[task], optimizer)
    model = any_framework(graph, begin, DIVIDED[task], optimizer, accumulate=4)
    images, targets = uneven_batch(task, 0)
    expected, gradients = judge.gradients(images, targets)
    value, found = model.gradients(as_layout(any_framework, images), targets)
    assert value == pytest.approx(expected, rel=1e-4)
    assert_close(found, gradients, 1e-3)
    assert model.differentiate(as_layout(any_framework, images), targets) == pytest.approx(expected, rel=1e-4)
    assert all(np.array_equal(array, begin[name]) for name, array in model.weights().items())
    for seed in range(3):
        images, targets = uneven_batch(task, seed)
        expected = judge.step(images, targets, 0.1)
        assert model.step(as_layout(any_framework, images), targets, 0.1) == pytest.approx(expected, rel=1e-3)
    assert_close(model.weights(), judge.weights(), 1e-3)
    nothing = np.full_like(targets[0], {"classification": -1, "segmentation": 255, "detection": -2}[task])
    value, found = model.gradients(as_layout(any_framework, images), (nothing, *targets[1:]))
    assert value == 0
    assert not any(array.any() for array in found.values())


@pytest.mark.parametrize("task", DIVIDED)
def test_the_mean_of_micro_batches_is_another_loss(task):
    """So that the test above can fail."""
    judge = reference.Framework(without_norms(task), weights.initial(without_norms(task), 1), DIVIDED[task], SGD)
    images, targets = uneven_batch(task, 0)
    whole, _ = judge.gradients(images, targets)
    parts = [judge.gradients(images[i : i + 2], tuple(t[i : i + 2] for t in targets))[0] for i in range(0, 8, 2)]
    assert abs(np.mean(parts) - whole) > 0.05 * whole


def test_batch_norm_sees_micro_batches(any_framework):
    settings, optimizer = LOSSES["classification"]["cross_entropy"], {**OPTIMIZERS["adamw"], "clip": TIGHT}
    arguments = graph_of("cnn"), start("cnn"), settings, optimizer
    judge, model = reference.Framework(*arguments, accumulate=2), any_framework(*arguments, accumulate=2)
    whole = reference.Framework(*arguments)
    for seed in range(2):
        images, targets = batch("cnn", seed)
        begin = model.weights()
        model.gradients(as_layout(any_framework, images), targets)
        assert all(np.array_equal(array, begin[name]) for name, array in model.weights().items())
        expected = judge.step(images, targets, 0.002)
        assert model.step(as_layout(any_framework, images), targets, 0.002) == pytest.approx(expected, rel=1e-3)
        whole.step(images, targets, 0.002)
    assert_close(model.weights(), judge.weights(), 1e-3)  # running statistics are among them
    for name in (name for name in begin if name.endswith(".variance")):  # the whole batch's have moved half as often
        assert np.abs(whole.weights()[name] / judge.weights()[name] - 1).max() > 0.05, name


@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_follow_the_reference(framework, case):
    settings = next(iter(LOSSES[graph_of(case).task].values()))
    optimizer = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4}
    judge = reference.Framework(graph_of(case), start(case), settings, optimizer)
    model = framework(graph_of(case), start(case), settings, optimizer)
    losses = []
    for step in range(50):
        images, targets = batch(case, step % 4)
        rate = rates_for(case, "momentum")[4] * (1 - step / 50)
        losses.append((model.step(as_layout(framework, images), targets, rate), judge.step(images, targets, rate)))
    found, expected = np.array(losses).T
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert expected[-4:].mean() < expected[:4].mean()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", ["cnn", "detector"])
def test_resume_is_bit_equal(any_framework, case, optimizer, tmp_path):
    settings = next(iter(LOSSES[graph_of(case).task].values()))
    arguments = (graph_of(case), start(case), settings, OPTIMIZERS[optimizer])

    def train(model, steps):
        return [model.step(as_layout(any_framework, batch(case, s)[0]), batch(case, s)[1], RATES[s]) for s in steps]

    through = any_framework(*arguments)
    whole = train(through, range(5))

    first = any_framework(*arguments)
    halves = train(first, range(3))
    weights.save(tmp_path / "weights.npz", first.weights())
    weights.save(tmp_path / "state.npz", first.state())
    second = any_framework(*arguments)
    train(second, range(2))  # another past, which load forgets
    second.load(weights.load(tmp_path / "weights.npz"), weights.load(tmp_path / "state.npz"))
    halves += train(second, range(3, 5))

    assert halves == whole
    for one, other in ((through.weights(), second.weights()), (through.state(), second.state())):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_moves_to_another_framework(framework, optimizer):
    """Weights and state of one framework continue in the reference as they do at home, and the other way round."""
    settings = LOSSES["classification"]["cross_entropy"]
    arguments = (graph_of("cnn"), start("cnn"), settings, OPTIMIZERS[optimizer])
    for here, there in ((framework, reference.Framework), (reference.Framework, framework)):
        home = here(*arguments)
        for seed in range(3):
            images, targets = batch("cnn", seed)
            home.step(as_layout(here, images), targets, 0.01)
        away = there(*arguments)
        away.load(home.weights(), home.state())
        images, targets = batch("cnn")
        np.testing.assert_allclose(
            away.predict(as_layout(there, images)), home.predict(as_layout(here, images)), rtol=1e-4, atol=1e-4
        )
        images, targets = batch("cnn", 3)
        away.step(as_layout(there, images), targets, 0.01)
        home.step(as_layout(here, images), targets, 0.01)
        assert_close(away.weights(), home.weights(), 1e-4)


def test_a_fresh_optimizer_forgets(any_framework):
    settings = LOSSES["classification"]["cross_entropy"]
    model = any_framework(graph_of("cnn"), start("cnn"), settings, OPTIMIZERS["momentum"])
    images, targets = batch("cnn")
    once = model.step(as_layout(any_framework, images), targets, 0.05)
    after = model.weights()
    model.load(start("cnn"))
    assert model.step(as_layout(any_framework, images), targets, 0.05) == once
    assert all(np.array_equal(after[name], array) for name, array in model.weights().items())


@pytest.mark.parametrize(
    ("case", "loss"), [("cnn", loss) for loss in LOSSES["classification"]] + [("detector", "giou_l1")]
)
def test_nothing_to_learn_from_changes_nothing(any_framework, case, loss):
    images, targets = batch(case)
    settings = settings_of(case, loss)
    nothing = np.full_like(targets[0], -2 if case == "detector" else complete_loss(settings, graph_of(case))["ignore"])
    model = any_framework(graph_of(case), start(case), settings, {"name": "sgd"})
    value, gradients = model.gradients(as_layout(any_framework, images), (nothing, *targets[1:]))
    assert value == 0  # dice: (0 + 1) / (0 + 1) for every class
    assert not any(array.any() for array in gradients.values())


def small(framework, **settings):
    """A network large enough for rounding to average out."""
    graph = registry.load("models", "cnn").graph(3, 4, width=8, blocks=2)
    return framework(graph, weights.initial(graph, 1), {"name": "cross_entropy"}, {"name": "sgd"}, **settings)


def small_batch():
    images = np.random.default_rng(0).standard_normal((6, 16, 20, 3)).astype(np.float32)
    return images, (np.arange(6, dtype=np.int32) % 4,)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(modern_framework):
    exact, rounded = small(modern_framework), small(modern_framework, precision="bfloat16")
    images, targets = small_batch()
    images = as_layout(modern_framework, images)
    one, other = exact.predict(images), rounded.predict(images)
    assert other.dtype == np.float32
    error = np.abs(one - other).max() / np.abs(one).max()
    assert 1e-5 < error < 3e-2  # bfloat16 has 8 bits, so about 2^-8 per layer; equal logits were float32
    losses = [rounded.step(images, targets, 0.05) for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    assert all(array.dtype == np.float32 for array in rounded.weights().values())
    # Weights hold steps that bfloat16 would round away.
    before = rounded.weights()["head.weight"]
    rounded.step(images, targets, 1e-5)
    assert not np.array_equal(before, rounded.weights()["head.weight"])


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has CUDA")
def test_a_machine_without_cuda_says_so(modern_framework):
    with pytest.raises(ValueError, match=r"device 'cuda': \w+ .* finds no CUDA device; use device 'cpu'"):
        small(modern_framework, device="cuda")


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(modern_framework):
    here = small(modern_framework)
    try:
        there = small(modern_framework, device="cuda")
    except ValueError as error:  # its package may be the one for processors only
        pytest.skip(str(error))
    images, targets = small_batch()
    images = as_layout(modern_framework, images)
    for rate in (0.1, 0.05, 0.02):
        assert there.step(images, targets, rate) == pytest.approx(here.step(images, targets, rate), rel=1e-4)
    there.wait()
    np.testing.assert_allclose(there.predict(images), here.predict(images), rtol=1e-3, atol=1e-4)
    assert there.memory() > 0


def test_running_statistics_by_hand(any_framework):
    layers = (
        Conv("c", "image", 1, kernel=1),
        BatchNorm("n", "c"),
        GlobalMean("mean", "n"),
        Dense("head", "mean", 2),
    )
    graph = Graph("classification", layers, "head", 1, 2)
    begin = weights.initial(graph, 1)
    begin["c.weight"][:] = 2
    images = np.array([1, 2, 3, 6], dtype=np.float32).reshape(2, 1, 2, 1)
    model = any_framework(graph, begin, {"name": "cross_entropy"}, {"name": "sgd"})
    model.step(as_layout(any_framework, images), (np.array([0, 1], dtype=np.int32),), 0.0)
    # after the convolution 2, 4, 6, 12: mean 6, sum of squares 16 + 4 + 0 + 36 = 56, over n - 1 = 3
    assert model.weights()["n.mean"] == pytest.approx(0.6)
    assert model.weights()["n.variance"] == pytest.approx(0.9 + 0.1 * 56 / 3)


@pytest.mark.parametrize("bands", [3, 12, 16])
def test_gradients_of_a_strided_convolution_of_few_channels(any_framework, bands):
    """oneDNN's own, channels last, ends the process."""
    graph = Graph("segmentation", (Conv("c", "image", 24, 1, 2), ConvTranspose("up", "c", 2, 2, 2)), "up", bands, 2)
    begin = weights.initial(graph, 1)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 80, 82, bands)).astype(np.float32)
    targets = (rng.integers(0, 2, (2, 80, 82)).astype(np.int32),)
    loss, sgd = {"name": "cross_entropy"}, {"name": "sgd"}
    _, expected = reference.Framework(graph, begin, loss, sgd).gradients(images, targets)
    model = any_framework(graph, begin, loss, sgd)
    for _ in range(4):
        _, found = model.gradients(as_layout(any_framework, images), targets)
        assert_close(found, expected, 1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": {"name": "cross_entropi"}}, "unknown loss 'cross_entropi'.*Did you mean 'cross_entropy'"),
        ({"loss": {"name": "focal", "gama": 2}}, "loss 'focal': unknown setting 'gama'.*Did you mean 'gamma'"),
        ({"loss": {"name": "focal", "gamma": 0.5}}, r"gamma is 0.5; it must be a number in \[1"),
        ({"loss": {"name": "detection"}}, "loss 'detection' does not fit the task classification"),
        ({"loss": {"name": "cross_entropy", "ignore": 2}}, "ignore is 2; .* none of the classes 0 to 3"),
        ({"loss": {"name": "cross_entropy", "class_weights": [1, 2]}}, "for each of the 4 classes"),
        (
            {"loss": {"name": "cross_entropy", "class_weights": "balance"}},
            "class_weights is 'balance'; expected a number",
        ),
        ({"loss": {"name": "focal", "soft": True}}, "soft targets are for classification by cross_entropy"),
        ({"optimizer": {"name": "adam"}}, "unknown optimizer 'adam'.*Did you mean 'adamw'"),
        ({"optimizer": {"name": "sgd", "momentum": 1.5}}, "momentum is 1.5"),
        ({"optimizer": {"name": "sgd", "nesterov": 1}}, "nesterov is 1; it must be true or false"),
        ({"optimizer": {"name": "sgd", "nesterov": True, "momentum": 0.0}}, "nesterov needs a momentum"),
        ({"optimizer": {"name": "sgd", "clip": 0}}, "clip is 0; it must be a positive number or null"),
        ({"optimizer": {"name": "adamw", "clip": True}}, "clip is True; it must be a positive number or null"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"precision": "half"}, "unknown precision 'half'"),
        ({"threads": 0}, "threads is 0"),
        ({"accumulate": 0}, "accumulate is 0, expected a whole number of at least 1"),
        ({"loss": {"name": "dice"}, "accumulate": 2}, "accumulate is 2, but the loss 'dice' is a ratio of sums"),
        ({"weights": {}}, "is missing; the model has"),
    ],
)
def test_wrong_settings_are_the_same_error_everywhere(any_framework, change, message):
    given = {"weights": start("cnn"), "loss": {"name": "cross_entropy"}, "optimizer": {"name": "sgd"}, **change}
    with pytest.raises(ValueError, match=message):
        any_framework(graph_of("cnn"), **given)


def test_wrong_boxes_and_sizes_are_the_same_error_everywhere(any_framework):
    with pytest.raises(ValueError, match=r"unknown box 'iou'.*Did you mean 'giou'"):
        any_framework(graph_of("detector"), start("detector"), {"name": "detection", "box": "iou"}, {"name": "sgd"})
    model = any_framework(graph_of("unet"), start("unet"), {"name": "dice"}, {"name": "sgd"})
    with pytest.raises(ValueError, match=r"30 x 32 pixels.*multiples of 4, such as 28 x 32"):
        model.predict(as_layout(any_framework, np.zeros((1, 30, 32, BANDS), np.float32)))


def test_a_batch_that_does_not_divide_is_the_same_error_everywhere(any_framework):
    model = any_framework(graph_of("cnn"), start("cnn"), {"name": "cross_entropy"}, SGD, accumulate=3)
    images, targets = batch("cnn")
    with pytest.raises(ValueError, match="accumulate is 3, but 4 images are no multiple of it"):
        model.step(as_layout(any_framework, images), targets, 0.1)


def test_wrong_arrays_are_the_same_error_everywhere(any_framework):
    model = any_framework(graph_of("cnn"), start("cnn"), {"name": "cross_entropy"}, {"name": "adamw"})
    images, (labels,) = batch("cnn")
    images = as_layout(any_framework, images)
    with pytest.raises(ValueError, match=r"images have shape .* float64; expected float32"):
        model.predict(images.astype(np.float64))
    with pytest.raises(ValueError, match="with n at least 1"):
        model.predict(images[:0])
    with pytest.raises(ValueError, match=r"targets have shape \(3,\).*expected \(4,\) int32"):
        model.step(images, (labels[:3],), 0.1)
    with pytest.raises(ValueError, match=r"dtype int64; expected \(4,\) int32"):
        model.step(images, (labels.astype(np.int64),), 0.1)
    with pytest.raises(ValueError, match="targets hold the class 4; classes are 0 to 3 and -1 to ignore"):
        model.step(images, (labels + 2,), 0.1)
    with pytest.raises(ValueError, match="classification takes 1 target arrays; got 2"):
        model.step(images, (labels, labels), 0.1)
    soft = any_framework(graph_of("cnn"), start("cnn"), SOFT["soft"], {"name": "adamw"})
    with pytest.raises(ValueError, match=r"soft targets are \(4,\) int32; expected one array, \(4, 4\) float32"):
        soft.step(images, (labels,), 0.1)
    with pytest.raises(ValueError, match=r"soft targets of image 2 are \[0.5, .*; expected shares of 1"):
        soft.step(images, (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0, 0, 0], [0, 1, 0, 0]], np.float32),), 0.1)
    with pytest.raises(ValueError, match="'t', the number of steps taken, is missing"):
        model.load(start("cnn"), {"m/head.bias": np.zeros(4)})
    with pytest.raises(ValueError, match=r"'m/block1\.conv1\.weight' is missing"):
        model.load(start("cnn"), {"t": np.array(1)})


# The reference itself.


@pytest.mark.parametrize(("case", "loss"), loss_cases())
def test_reference_gradients_by_finite_differences(case, loss):
    """The slope along a random direction of single weights, by central differences."""
    images, targets = batch(case)
    settings = settings_of(case, loss)
    targets = targets_for(settings, targets)
    # Up to 30 weights of all depths with a case's first loss; other losses differ in what reaches the last layers.
    first = loss == next(iter(LOSSES[graph_of(case).task]))
    begin = {name: array.astype(np.float64) for name, array in start(case).items()}
    _, gradients = reference.Framework(graph_of(case), begin, settings, {"name": "sgd"}).gradients(images, targets)
    rng = np.random.default_rng(3)
    fitted = [name for name in begin if trained(name)]
    assert list(gradients) == fitted

    def value(name, moved):
        logits, _, _ = reference.run(graph_of(case), {**begin, name: moved}, images.astype(float), training=True)
        return reference.loss_and_gradient(logits, targets, complete_loss(settings, graph_of(case)))[0]

    for name in fitted[:: -(-len(fitted) // 30)] if first else fitted[-4:]:
        direction = rng.standard_normal(begin[name].shape)
        direction /= np.linalg.norm(direction)
        slope = (value(name, begin[name] + 1e-6 * direction) - value(name, begin[name] - 1e-6 * direction)) / 2e-6
        scale = np.linalg.norm(gradients[name])
        assert slope == pytest.approx(float((gradients[name] * direction).sum()), abs=1e-5 * scale + 1e-8), name


def test_reference_losses_by_hand():
    """Two places, two classes; logits such that p = (1/4, 3/4) and (1/2, 1/2)."""
    graph = Graph("segmentation", (), "image", 2, 2)
    logits = np.array([[0, np.log(3)], [0, 0], [5, -5]])
    labels = (np.array([1, 0, 255]),)

    def loss(**settings):
        return reference.loss_and_gradient(logits, labels, complete_loss(settings, graph))[0]

    half, quarter, three = np.log(0.5), np.log(0.25), np.log(0.75)
    assert loss(name="cross_entropy") == pytest.approx(-(three + half) / 2)
    assert loss(name="cross_entropy", class_weights=[3, 1]) == pytest.approx(-(three + 3 * half) / 4)
    # smoothing 0.2: 0.9 and 0.1 of the true and the other class
    assert loss(name="cross_entropy", label_smoothing=0.2) == pytest.approx(
        -(0.9 * three + 0.1 * quarter + 0.9 * half + 0.1 * half) / 2
    )
    assert loss(name="focal", gamma=2) == pytest.approx(-(three / 16 + half / 4) / 2)
    # class 0: overlap 1/2, sizes 3/4 and 1; class 1: overlap 3/4, sizes 5/4 and 1
    dice = 1 - ((2 * 0.5 + 1) / (0.75 + 1 + 1) + (2 * 0.75 + 1) / (1.25 + 1 + 1)) / 2
    assert loss(name="dice") == pytest.approx(dice)
    assert loss(name="cross_entropy_dice") == pytest.approx(dice - (three + half) / 2)


def test_reference_soft_targets_by_hand():
    """p = (1/4, 3/4), of which 0.4 and 0.6 are true, of weight 3 and 1."""
    graph = Graph("classification", (), "image", 2, 2)
    full = complete_loss({"name": "cross_entropy", "soft": True, "class_weights": [3, 1]}, graph)
    logits, shares = np.array([[0, np.log(3)]]), np.array([[0.4, 0.6]], np.float32)
    value, gradient = reference.loss_and_gradient(logits, (shares,), full)
    assert value == pytest.approx(-(1.2 * np.log(0.25) + 0.6 * np.log(0.75)) / 1.8)
    assert gradient == pytest.approx(np.array([[1.8 / 4 - 1.2, 1.8 * 3 / 4 - 0.6]]) / 1.8)


def test_reference_detection_loss_by_hand():
    """Three locations: one of class 0, one background, one ignored; one class."""
    graph = Graph("detection", (), "image", 1, 1)
    raw = np.log(np.expm1(np.array([1.0, 2.0, 1.0, 2.0])))  # softplus gives 1, 2, 1, 2: a box of 2 x 4
    logits = np.zeros((1, 3, 5))
    logits[0, 0] = [0, *raw]
    logits[0, 1, 0] = -np.log(3)  # p = 1/4
    logits[0, 2, 0] = 7
    labels = np.array([[0, -1, -2]])
    distances = np.zeros((1, 3, 4))
    distances[0, 0] = [2, 1, 1, 1]  # 3 x 2: overlap 2 x 2, union 8 + 6 - 4, hull 3 x 4

    def loss(**settings):
        full = complete_loss({"name": "detection", **settings}, graph)
        return reference.loss_and_gradient(logits, (labels, distances), full)[0]

    focal = -(0.25 * 0.25 * np.log(0.5) + 0.75 / 16 * np.log(0.75))
    giou = 4 / 10 - 2 / 12
    l1 = (1 + 1 + 0 + 1) / 4
    assert loss() == pytest.approx(focal + 1 - giou)
    assert loss(box="l1", box_weight=3.0) == pytest.approx(focal + 3 * l1)
    assert loss(box="giou_l1") == pytest.approx(focal + 1 - giou + l1)


def test_reference_bilinear_samples_at_pixel_centres():
    # 2 samples to 4: at -0.25 (clamped to 0), 0.25, 0.75, 1.25 (clamped to 1)
    graph = Graph("segmentation", (Resize("up", "image", 2, "bilinear"),), "up", 1, 1)
    image = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    logits, _, _ = reference.run(graph, {}, image, training=False)
    assert logits[0, 0, :, 0].tolist() == logits[0, 1, :, 0].tolist() == [0, 1, 3, 4]


def test_reference_optimizers_by_hand():
    layers = (GlobalMean("mean", "image"), Dense("head", "mean", 2, bias=False))
    graph = Graph("classification", layers, "head", 1, 2)
    images, targets = np.ones((1, 1, 1, 1), np.float32), (np.zeros(1, np.int32),)

    def slope(w):  # d / d w0 = p0 - 1 and d / d w1 = p1; w stays (u, -u)
        return 1 / (1 + np.exp(-2 * w)) - 1

    def train(**optimizer):
        model = reference.Framework(graph, {"head.weight": np.zeros((2, 1))}, {"name": "cross_entropy"}, optimizer)
        for rate in (1.0, 0.1):
            model.step(images, targets, rate)
        return float(model.weights()["head.weight"][0, 0])

    g1 = slope(0.0)
    assert train(name="sgd", momentum=0.0) == pytest.approx(-g1 - 0.1 * slope(-g1))
    v2 = 0.9 * g1 + slope(-g1)
    assert train(name="sgd") == pytest.approx(-g1 - 0.1 * v2)
    w1 = -(g1 + 0.5 * g1)
    v2 = 0.5 * g1 + slope(w1)
    assert train(name="sgd", momentum=0.5, nesterov=True) == pytest.approx(w1 - 0.1 * (slope(w1) + 0.5 * v2))
    g2 = slope(-g1) + 0.2 * -g1
    assert train(name="sgd", momentum=0.0, weight_decay=0.2) == pytest.approx(-g1 - 0.1 * g2)
    g2 = slope(1.0)  # the first step of AdamW is lr * sign(g)
    m, s = (0.09 * g1 + 0.1 * g2) / 0.19, (0.000999 * g1**2 + 0.001 * g2**2) / 0.001999
    # clipped to 0.1: the two slopes are g and -g, so each becomes 0.1 / sqrt(2); decay comes after
    w1 = 0.1 / np.sqrt(2)
    assert train(name="sgd", momentum=0.0, clip=0.1) == pytest.approx(w1 + 0.1 * w1)
    assert train(name="sgd", momentum=0.0, weight_decay=0.2, clip=0.1) == pytest.approx(w1 + 0.1 * (w1 - 0.2 * w1))
    assert train(name="adamw", weight_decay=0.3) == pytest.approx(1 - 0.1 * (m / np.sqrt(s) + 0.3 * 1), rel=1e-6)
