"""Frameworks that train in several processes: 1, 2 and 4 workers against the float64 reference on the whole batch.

The workers of one framework and count are started once and compute every case: starting them is what takes time.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from rvkernels import registry, weights, workers
from rvkernels.frameworks import reference

ROOT = Path(__file__).parents[2]
BANDS, CLASSES, BATCH = 3, 3, 8
WEIGHTED = {"label_smoothing": 0.1, "class_weights": [0.5, 2.0, 1.0]}
# Clipped, as most steps are: only the gradient of the whole batch has the right norm.
SGD = {"name": "sgd", "weight_decay": 0.01, "clip": 0.3}
# task and loss; batches of eight chips, so that four workers have two each.
CASES = {
    "cross_entropy": ("cnn", {"width": 4, "blocks": 2}, (12, 12), {"name": "cross_entropy"}),
    "shares": ("cnn", {"width": 4, "blocks": 2}, (12, 12), {"name": "cross_entropy", "soft": True, **WEIGHTED}),
    "pixels": ("unet", {"depth": 1, "width": 4}, (12, 16), {"name": "cross_entropy"}),
    "weighted_dice": ("unet", {"depth": 1, "width": 4}, (12, 16), {"name": "cross_entropy_dice", **WEIGHTED}),
    "dice": ("unet", {"depth": 1, "width": 4}, (12, 16), {"name": "dice"}),
    "focal": ("unet", {"depth": 1, "width": 4}, (12, 16), {"name": "focal"}),
    "divided": (
        "unet",
        {"depth": 1, "width": 4},
        (12, 16),
        {"name": "cross_entropy", "class_weights": WEIGHTED["class_weights"]},
    ),
    "objects": (
        "detector",
        {"depth": 10, "width": 4, "pyramid": 6, "tower": 0, "strides": (4, 8)},
        (16, 16),
        {"name": "detection", "box": "giou_l1"},
    ),
}
# Micro-batches of a step; 1 elsewhere.
ACCUMULATE = {"divided": 2}
STEPS = 4
# Every loss with two workers, and every task with four: TensorFlow takes seconds to trace a case in each.
OF = {2: tuple(CASES), 4: ("cross_entropy", "weighted_dice", "objects")}
COMBINATIONS = [(f, count, case) for f in workers.frameworks() for count in OF for case in OF[count]]


def graph_of(case):
    model, settings, _, _ = CASES[case]
    return registry.load("models", model).graph(BANDS, CLASSES, **settings)


def start(case):
    """Initial weights, the scales of batch norm moved off 1 and 0."""
    random = np.random.default_rng(zlib.crc32(case.encode()))
    found = weights.initial(graph_of(case), seed=1)
    for name, array in found.items():
        if name.endswith(".scale"):
            array[:] = random.uniform(0.5, 1.5, array.shape)
    return found


def batch(case, step):
    """Images and targets. What counts lies unevenly: nearly all pixels of the first chips are to be ignored, and nearly
    all objects are in the last ones, so that a mean of the workers' means is far from the mean."""
    graph, (rows, cols) = graph_of(case), CASES[case][2]
    random = np.random.default_rng([step, zlib.crc32(case.encode())])
    images = random.standard_normal((BATCH, rows, cols, BANDS)).astype(np.float32)
    images += np.linspace(-1, 1, BATCH, dtype=np.float32)[:, None, None, None]  # statistics differ from slice to slice
    if graph.task == "classification":
        labels = random.integers(0, CLASSES, BATCH).astype(np.int32)
        if CASES[case][3].get("soft"):
            one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
            return images, (np.float32(0.7) * one_hot + np.float32(0.3) * np.roll(one_hot, 1, axis=0),)
        return images, (labels,)
    if graph.task == "segmentation":
        labels = np.clip(images[..., 0] + 1.5, 0, CLASSES - 1).astype(np.int32)
        labels[:3][random.uniform(size=labels[:3].shape) < 0.95] = 255
        labels[3] = 255
        return images, (labels,)
    places = sum((rows // s) * (cols // s) for s in graph.strides)
    labels = np.where(random.uniform(size=(BATCH, places)) < 0.1, -2, -1).astype(np.int32)
    labels[6:, ::2] = random.integers(0, CLASSES, labels[6:, ::2].shape)
    labels[1, 0] = 2
    return images, (labels, random.uniform(0.1, 3, (BATCH, places, 4)).astype(np.float32))


def compute(net, case, part=(0, 1)):
    """Losses of STEPS steps, and gradients of one more, of worker `part`: (rank, count)."""
    rank, count = part

    def own(array):
        micro = np.split(array, ACCUMULATE.get(case, 1))
        return np.concatenate([np.array_split(some, count)[rank] for some in micro])

    found = {"loss": []}
    for step in range(STEPS + 1):
        images, targets = batch(case, step)
        images = own(images)
        images = images if net.layout == "NHWC" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        targets = tuple(own(target) for target in targets)
        if step < STEPS:
            found["loss"].append(net.step(images, targets, 0.02))
            continue
        found.update({f"weight/{name}": array for name, array in net.weights().items()})
        net.wait()
        loss, gradients = net.gradients(images, targets)
        found.update({f"gradient/{name}": array for name, array in gradients.items()})
        found["loss"] += [loss, net.differentiate(images, targets)]
    return {name: np.asarray(array) for name, array in found.items()}


def work(framework, out):
    """What each worker does: the process is started by the framework's `launch`."""
    place = workers.seat(os.environ)
    with workers.meet(place, "test") as team:
        build = registry.load("frameworks", framework).Framework
        for case in OF[team.count]:
            divided = {"accumulate": ACCUMULATE.get(case, 1)}
            net = build(graph_of(case), start(case), CASES[case][3], SGD, team=team, **divided)
            np.savez(f"{out}/{case}-{team.rank}.npz", **compute(net, case, (team.rank, team.count)))
        team.share()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that gives the folder with what each of `count` workers of a framework found."""
    folders = {}

    def of(framework, count):
        if importlib.util.find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed in this environment")
        if (framework, count) not in folders:
            folders[framework, count] = train(framework, count, tmp_path_factory.mktemp(f"{framework}{count}"))
        return folders[framework, count]

    return of


def train(framework, count, out):
    # The launcher runs in a process of its own, as of `rvk train`: pytest's is not to load a framework for it.
    code = (
        "import sys; from rvkernels import registry; name, count, *command = sys.argv[1:]; "
        "print(registry.load('frameworks', name).launch(int(count), command))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, framework, str(count), sys.executable, __file__, framework, str(out)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RVK_MEETING": f"127.0.0.1:{workers.free_port()}",
        },
        cwd=out, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("{}"), done.stdout + done.stderr[-3000:]
    return out


@pytest.mark.parametrize(("framework", "count", "case"), COMBINATIONS)
def test_workers_find_the_losses_gradients_and_weights_of_the_whole_batch(trained, framework, count, case):
    out = trained(framework, count)
    divided = {"accumulate": ACCUMULATE.get(case, 1)}
    judge = reference.Framework(graph_of(case), start(case), CASES[case][3], SGD, **divided)
    expected = compute(judge, case)
    for rank in range(count):
        with np.load(out / f"{case}-{rank}.npz") as found:
            assert set(found.files) == set(expected)
            np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-4)
            for name in expected:
                largest = max(np.abs(expected[name]).max(), 1e-6)
                assert np.abs(found[name] - expected[name]).max() <= 1e-3 * largest, name
    with np.load(out / f"{case}-0.npz") as first, np.load(out / f"{case}-{count - 1}.npz") as last:
        for name in first.files:  # no worker drifts off
            assert np.array_equal(first[name], last[name]), name


def test_the_mean_of_the_slices_is_another_loss():
    """So that the test above can fail: what counts is spread unevenly enough."""
    for case in CASES:
        settings = CASES[case][3]
        images, targets = batch(case, 0)
        net = reference.Framework(graph_of(case), start(case), settings, SGD)
        whole = net.gradients(images, targets)[0]
        halves = [net.gradients(images[s], tuple(t[s] for t in targets))[0] for s in (slice(0, 4), slice(4, 8))]
        assert abs(np.mean(halves) - whole) > 1e-3 * whole, case


if __name__ == "__main__":
    work(*sys.argv[1:])
