"""A training step in the harness against a hand-written loop of the same network in the framework's own terms.

The network is the default study's residual network (models/resnet.py with depth 10, width 16, stem half) on batches of
32 x 64 x 64 pixels x 4 bands, with cross-entropy and AdamW, on one thread. Both get the same arrays and start from the
same weights; their losses are compared, then their steps take turns. The ratios are the harness's median step over the
loop's, and stand in the benchmark's JSON too: pytest tests/benchmarks/test_step.py --benchmark-only -s
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np
import pytest

from rvkernels import registry, weights

ROUNDS, THREADS = 40, 1
CLASSES, WIDTH, DECAY = 6, 16, 0.01
GRAPH = registry.load("models", "resnet").graph(4, CLASSES, depth=10, width=WIDTH, stem="half")

Step = Callable[[np.ndarray, np.ndarray, float], float]


def torch_loop(begin: dict[str, np.ndarray]) -> Step:
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, into: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.shortcut = nn.Identity()
            if stride != 1 or into != out:
                self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x):
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)), inplace=True)))
            return functional.relu(y + self.shortcut(x), inplace=True)

    torch.set_num_threads(THREADS)
    widths = [WIDTH * 2**stage for stage in range(4)]
    blocks = [Block(widths[max(i - 1, 0)], width, 2 if i else 1) for i, width in enumerate(widths)]
    stem = [nn.Conv2d(4, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES)]
    model = nn.Sequential(*stem, *blocks, *end).to(memory_format=torch.channels_last)
    own = [tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")]
    for tensor, array in zip(own, begin.values()):
        tensor.copy_(torch.from_numpy(array))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)

    def step(images: np.ndarray, labels: np.ndarray, lr: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        logits = model(torch.from_numpy(images).permute(0, 3, 1, 2))
        loss = functional.cross_entropy(logits, torch.from_numpy(labels).long())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def tensorflow_loop(begin: dict[str, np.ndarray]) -> Step:
    import tensorflow as tf  # its threads are those of the harness's model, which is built before

    axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
    values = {
        name: tf.Variable(array.transpose(axes[array.ndim]), trainable=not name.endswith((".mean", ".variance")))
        for name, array in begin.items()
    }
    fitted = [value for value in values.values() if value.trainable]
    optimizer = tf.keras.optimizers.AdamW(weight_decay=DECAY, epsilon=1e-8)
    optimizer.exclude_from_weight_decay(var_list=[value for value in fitted if len(value.shape) == 1])
    optimizer.build(fitted)

    def conv(x, name: str, stride: int = 1):
        weight = values[f"{name}.weight"]
        pad = [weight.shape[0] // 2] * 2
        return tf.nn.conv2d(x, weight, stride, "SAME" if stride == 1 else [[0, 0], pad, pad, [0, 0]])

    def norm(x, name: str):
        mean, variance = values[f"{name}.mean"], values[f"{name}.variance"]
        y, *running = tf.compat.v1.nn.fused_batch_norm(
            x,
            values[f"{name}.scale"],
            values[f"{name}.bias"],
            mean,
            variance,
            epsilon=1e-5,
            exponential_avg_factor=0.1,
        )
        mean.assign(running[0])
        variance.assign(running[1])
        return y

    def block(x, name: str, stride: int):
        y = tf.nn.relu(norm(conv(x, f"{name}.conv1", stride), f"{name}.conv1_bn"))
        y = norm(conv(y, f"{name}.conv2"), f"{name}.conv2_bn")
        if f"{name}.shortcut.weight" in values:
            x = norm(conv(x, f"{name}.shortcut", stride), f"{name}.shortcut_bn")
        return tf.nn.relu(x + y)

    @tf.function
    def update(images, labels):
        with tf.GradientTape() as tape:
            x = tf.nn.relu(norm(conv(images, "stem", 2), "stem_bn"))
            for stage in range(1, 5):
                x = block(x, f"stage{stage}.0", 2 if stage > 1 else 1)
            logits = tf.reduce_mean(x, [1, 2]) @ values["head.weight"] + values["head.bias"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, fitted), fitted))
        return loss

    def step(images: np.ndarray, labels: np.ndarray, lr: float) -> float:
        optimizer.learning_rate.assign(lr)
        return float(update(tf.constant(images), tf.constant(labels)))

    return step


LOOPS = {"torch": torch_loop, "tensorflow": tensorflow_loop}


@pytest.mark.parametrize("name", LOOPS)
def test_step_against_a_hand_written_loop(benchmark, name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed in this environment")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((32, 64, 64, 4)).astype(np.float32)
    labels = rng.integers(0, CLASSES, 32).astype(np.int32)
    begin = weights.initial(GRAPH, 0)
    optimizer = {"name": "adamw", "weight_decay": DECAY}
    build = registry.load("frameworks", name).Framework
    built = build(GRAPH, begin, {"name": "cross_entropy"}, optimizer, threads=THREADS)
    loop = LOOPS[name](begin)
    steps = {"harness": lambda: built.step(images, (labels,), 1e-3), "loop": lambda: loop(images, labels, 1e-3)}

    # The first 5 losses of both: the same network, loss and optimizer; and a warm-up.
    first = {key: [step() for _ in range(5)] for key, step in steps.items()}
    np.testing.assert_allclose(first["harness"], first["loop"], rtol=1e-3)
    assert first["harness"][-1] < first["harness"][0]

    wall, cpu = {"harness": [], "loop": []}, {"harness": [], "loop": []}
    order = list(steps)

    def turns():
        order.reverse()  # neither always runs on what the other left in the caches
        for key in order:
            start = time.perf_counter(), time.process_time()
            steps[key]()
            wall[key].append(time.perf_counter() - start[0])
            cpu[key].append(time.process_time() - start[1])

    benchmark.pedantic(turns, rounds=ROUNDS)
    for clock, times in (("wall", wall), ("cpu", cpu)):
        harness, other = (float(np.median(times[key])) for key in ("harness", "loop"))
        benchmark.extra_info.update({f"{clock}_ratio": harness / other, f"{clock}_harness_s": harness})
        print(f"{name} {clock}: {1e3 * harness:.2f} ms, loop {1e3 * other:.2f} ms, ratio {harness / other:.3f}")
