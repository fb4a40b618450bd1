"""The judge: NumPy in float64, slow and plain. tests/frameworks/test_contract.py holds every other framework to it.

A layer's forward pass returns its output and `backward`, a function from the gradient of the output to the gradients of
the inputs and of the weights. Running the graph keeps these functions; going back calls them in reverse.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

from rvkernels import weights as weight_files
from rvkernels.frameworks import Framework as Base
from rvkernels.frameworks import check_state
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
    Layer,
    Locations,
    MaxPool,
    Relu,
    Resize,
    inputs_of,
    trained,
)

TITLE = "the NumPy reference"
COLOR = "#8c564b"

Arrays = dict[str, np.ndarray]
# Gradient of the output -> gradients of the inputs in order, gradients of the weights by part ("weight", "bias", ...).
Backward = Callable[[np.ndarray], tuple[list[np.ndarray], Arrays]]


class Framework(Base):
    """One model in float64; the contract is frameworks/__init__.py.

    `weights` and `predict` round to float32, `gradients` and `state` do not: they are what others are compared with.
    """

    def __init__(
        self,
        graph: Graph,
        weights: dict[str, np.ndarray],
        loss: dict,
        optimizer: dict,
        *,
        device: str = "cpu",
        threads: int = 1,
        precision: str = "float32",
        compile: bool = False,
        accumulate: int = 1,
    ) -> None:
        super().__init__(
            graph, loss, optimizer, device=device, threads=threads, precision=precision, accumulate=accumulate
        )
        if device != "cpu" or precision != "float32" or compile:
            raise ValueError(
                f"framework 'reference' computes in float64 on the CPU; it takes device 'cpu', precision 'float32' and "
                f"no compile; got {device!r}, {precision!r}, {compile}"
            )
        self.load(weights)

    def step(self, images: np.ndarray, targets: tuple[np.ndarray, ...], lr: float) -> float:
        """One optimizer step in training mode; the loss before it."""
        loss, gradients, running = self._differentiate(images, targets)
        self._weights.update(running)
        self._steps += 1
        if self._optimizer["clip"] is not None:
            gradients = _clipped(gradients, self._optimizer["clip"])
        for name, gradient in gradients.items():
            decay = self._optimizer["weight_decay"] if name.endswith(".weight") else 0.0
            kept = self._kept.setdefault(name, {})
            rule = _sgd if self._optimizer["name"] == "sgd" else _adamw
            self._weights[name] = rule(self._weights[name], gradient, kept, lr, decay, self._steps, self._optimizer)
        return loss

    def differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        """The forward and backward pass of `step` alone; the loss."""
        return self._differentiate(images, targets)[0]

    def gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients (float64) by weight name in training mode; nothing changes."""
        loss, gradients, _ = self._differentiate(images, targets)
        return loss, gradients

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, in inference mode, in the form that Graph.output describes."""
        self._check(images)
        logits, _, _ = run(self._graph, self._weights, images.astype(np.float64), training=False)
        return logits.astype(np.float32)

    def weights(self) -> dict[str, np.ndarray]:
        """Copies, float32, under canonical names and in canonical layouts."""
        return {name: array.astype(np.float32) for name, array in self._weights.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Copies (float64) of what the optimizer keeps between steps; see frameworks/__init__.py.

        Beyond the contract "w/<weight name>", the weights before `weights` rounds them, so that a resumed run is exact.
        """
        found = {f"{part}/{name}": array.copy() for name, kept in self._kept.items() for part, array in kept.items()}
        found.update({f"w/{name}": array.copy() for name, array in self._weights.items()})
        if self._optimizer["name"] == "adamw":
            found["t"] = np.array(self._steps, dtype=np.int64)
        return found

    def load(self, weights: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None) -> None:
        """Continue from `weights` and `state` (None: a fresh optimizer).

        Exact weights in `state` count where they round to `weights`.
        """
        weight_files.check(self._graph, weights)
        parts = check_state(state, self._optimizer, weights)
        self._weights = {}
        for name, array in weights.items():
            exact = (state or {}).get(f"w/{name}")
            rounds = exact is not None and np.array_equal(exact.astype(np.float32), array)
            self._weights[name] = np.array(exact if rounds else array, dtype=np.float64)
        self._kept = {}
        for name in weights:
            if state and parts and trained(name):
                self._kept[name] = {part: np.array(state[f"{part}/{name}"], dtype=np.float64) for part in parts}
        self._steps = int(state["t"]) if state and "t" in state else 0

    def wait(self) -> None:
        """Nothing runs behind the caller's back."""

    @staticmethod
    def versions() -> dict[str, str]:
        """NumPy's version."""
        return {"numpy": np.__version__}

    def _differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, Arrays, Arrays]:
        """Loss, gradients of the trained weights, new running statistics."""
        self._check(images, targets)
        total, gradients, running = 0.0, {}, {}
        for part, truth, share in self._micro_batches(images, targets):
            weights = {**self._weights, **running}
            logits, moved, back = run(self._graph, weights, part.astype(np.float64), training=True)
            running.update(moved)
            loss, gradient = loss_and_gradient(logits, truth, self._loss)
            total += share * loss
            for name, found in back(share * gradient).items():
                gradients[name] = gradients[name] + found if name in gradients else found
        return total, gradients, running


def run(
    graph: Graph, weights: Arrays, images: np.ndarray, *, training: bool
) -> tuple[np.ndarray, Arrays, Callable[[np.ndarray], Arrays]]:
    """Run the graph: logits, new running statistics (training), and logits' gradient -> weights' gradients by name."""
    values: Arrays = {"image": images}
    backwards: dict[str, Backward] = {}
    running: Arrays = {}
    for layer in graph.layers:
        into = [values[name] for name in inputs_of(layer)]
        own = {name[len(layer.name) + 1 :]: w for name, w in weights.items() if name.rpartition(".")[0] == layer.name}
        if isinstance(layer, BatchNorm):
            values[layer.name], backwards[layer.name], moved = _batch_norm(layer, into[0], own, training)
            running.update({f"{layer.name}.{part}": value for part, value in moved.items()})
        else:
            values[layer.name], backwards[layer.name] = _FORWARD[type(layer)](layer, into, own)

    def back(gradient: np.ndarray) -> Arrays:
        flowing = {graph.output: gradient}
        found: Arrays = {}
        for layer in reversed(graph.layers):
            to_inputs, to_weights = backwards[layer.name](flowing.pop(layer.name))
            for name, part in zip(inputs_of(layer), to_inputs):
                flowing[name] = flowing[name] + part if name in flowing else part
            found.update({f"{layer.name}.{part}": value for part, value in to_weights.items()})
        return {name: found[name] for name in weights if name in found}

    return values[graph.output], running, back


def _windows(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """A view (n, rows, cols, channels, kernel, kernel) of all windows of x (n, rows, cols, channels)."""
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]


def _padded(x: np.ndarray, pad: int, value: float = 0.0) -> np.ndarray:
    return np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=value)


def _cropped(x: np.ndarray, pad: int) -> np.ndarray:
    return x[:, pad : x.shape[1] - pad, pad : x.shape[2] - pad]


def _taps(kernel: int, stride: int, shape: tuple[int, ...]) -> list[tuple[int, int, slice, slice]]:
    """(row, col) in the window, and the rows and columns of the image that this tap of all windows meets."""
    _, rows, cols, _ = shape
    return [
        (i, j, slice(i, i + stride * (rows - 1) + 1, stride), slice(j, j + stride * (cols - 1) + 1, stride))
        for i in range(kernel)
        for j in range(kernel)
    ]


def _conv(layer: Conv, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    weight = own["weight"]
    x = _padded(into[0], layer.pad)
    windows = _windows(x, layer.kernel, layer.stride)
    y = np.tensordot(windows, weight, axes=([3, 4, 5], [1, 2, 3]))

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        dx = np.zeros_like(x)
        for i, j, rows, cols in _taps(layer.kernel, layer.stride, dy.shape):
            dx[:, rows, cols] += dy @ weight[:, :, i, j]
        gradients = {"weight": np.tensordot(dy, windows, axes=([0, 1, 2], [0, 1, 2]))}
        return [_cropped(dx, layer.pad)], {**gradients, **_bias_gradient(dy, own)}

    return y + own.get("bias", 0.0), backward


def _conv_transpose(layer: ConvTranspose, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    x, weight = into[0], own["weight"]
    n, rows, cols, _ = x.shape
    y = np.zeros((n, (rows - 1) * layer.stride + layer.kernel, (cols - 1) * layer.stride + layer.kernel, layer.filters))
    for i, j, r, c in _taps(layer.kernel, layer.stride, x.shape):
        y[:, r, c] += x @ weight[:, :, i, j]

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        windows = _windows(dy, layer.kernel, layer.stride)
        dx = np.tensordot(windows, weight, axes=([3, 4, 5], [1, 2, 3]))
        gradients = {"weight": np.tensordot(x, windows, axes=([0, 1, 2], [0, 1, 2]))}
        return [dx], {**gradients, **_bias_gradient(dy, own)}

    return y + own.get("bias", 0.0), backward


def _bias_gradient(dy: np.ndarray, own: Arrays) -> Arrays:
    return {"bias": dy.sum(axis=tuple(range(dy.ndim - 1)))} if "bias" in own else {}


def _batch_norm(layer: BatchNorm, x: np.ndarray, own: Arrays, training: bool) -> tuple[np.ndarray, Backward, Arrays]:
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    moved: Arrays = {}
    if training:
        if count < 2:
            raise ValueError(f"BatchNorm {layer.name!r}: one value per channel has no variance; use larger batches")
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
        moved["mean"] = 0.9 * own["mean"] + 0.1 * mean
        moved["variance"] = 0.9 * own["variance"] + 0.1 * variance * count / (count - 1)
    else:
        mean, variance = own["mean"], own["variance"]
    deviation = np.sqrt(variance + 1e-5)
    normal = (x - mean) / deviation

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        d_scale, d_bias = (dy * normal).sum(axis=axes), dy.sum(axis=axes)
        # Ioffe and Szegedy (2015), section 3, with the gradients of mean and variance put in.
        dx = own["scale"] / deviation * (dy - d_bias / count - normal * d_scale / count)
        return [dx], {"scale": d_scale, "bias": d_bias}

    return normal * own["scale"] + own["bias"], backward, moved


def _relu(layer: Relu, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    return np.maximum(into[0], 0), lambda dy: ([dy * (into[0] > 0)], {})


def _max_pool(layer: MaxPool, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    x = _padded(into[0], layer.pad, -np.inf)
    windows = _windows(x, layer.kernel, layer.stride)
    flat = windows.reshape(*windows.shape[:4], -1)
    chosen = flat.argmax(axis=-1)  # the first of equals, in row-major order

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        dx = np.zeros_like(x)
        for i, j, rows, cols in _taps(layer.kernel, layer.stride, dy.shape):
            dx[:, rows, cols] += dy * (chosen == i * layer.kernel + j)
        return [_cropped(dx, layer.pad)], {}

    return flat.max(axis=-1), backward


def _average_pool(layer: AveragePool, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    x = _padded(into[0], layer.pad)

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        dx = np.zeros_like(x)
        for _, _, rows, cols in _taps(layer.kernel, layer.stride, dy.shape):
            dx[:, rows, cols] += dy / layer.kernel**2
        return [_cropped(dx, layer.pad)], {}

    return _windows(x, layer.kernel, layer.stride).mean(axis=(4, 5)), backward


def _global_mean(layer: GlobalMean, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    n, rows, cols, width = into[0].shape

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        return [np.broadcast_to(dy[:, None, None] / (rows * cols), (n, rows, cols, width))], {}

    return into[0].mean(axis=(1, 2)), backward


def _resize(layer: Resize, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    down, right = (_interpolation(length, layer.factor, layer.method) for length in into[0].shape[1:3])
    y = np.einsum("ir,jc,nrck->nijk", down, right, into[0], optimize=True)
    return y, lambda dy: ([np.einsum("ir,jc,nijk->nrck", down, right, dy, optimize=True)], {})


def _interpolation(length: int, factor: int, method: str) -> np.ndarray:
    """(length * factor, length): what each new sample takes of each old one."""
    matrix = np.zeros((length * factor, length))
    for i in range(length * factor):
        if method == "nearest":
            matrix[i, i // factor] = 1
        else:
            at = min(max((i + 0.5) / factor - 0.5, 0.0), length - 1.0)
            low = int(at)
            matrix[i, low] += 1 - (at - low)
            matrix[i, min(low + 1, length - 1)] += at - low
    return matrix


def _add(layer: Add, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    return into[0] + into[1], lambda dy: ([dy, dy], {})


def _concat(layer: Concat, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    ends = np.cumsum([x.shape[-1] for x in into])[:-1]
    return np.concatenate(into, axis=-1), lambda dy: (np.split(dy, ends, axis=-1), {})


def _dense(layer: Dense, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    x, weight = into[0], own["weight"]

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        return [dy @ weight], {"weight": dy.T @ x, **_bias_gradient(dy, own)}

    return x @ weight.T + own.get("bias", 0.0), backward


def _locations(layer: Locations, into: list[np.ndarray], own: Arrays) -> tuple[np.ndarray, Backward]:
    flat = [x.reshape(len(x), -1, x.shape[-1]) for x in into]
    ends = np.cumsum([x.shape[1] for x in flat])[:-1]

    def backward(dy: np.ndarray) -> tuple[list[np.ndarray], Arrays]:
        return [part.reshape(x.shape) for part, x in zip(np.split(dy, ends, axis=1), into)], {}

    return np.concatenate(flat, axis=1), backward


_FORWARD: dict[type[Layer], Callable[[Layer, list[np.ndarray], Arrays], tuple[np.ndarray, Backward]]] = {
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Relu: _relu,
    MaxPool: _max_pool,
    AveragePool: _average_pool,
    GlobalMean: _global_mean,
    Resize: _resize,
    Add: _add,
    Concat: _concat,
    Dense: _dense,
    Locations: _locations,
}


def loss_and_gradient(
    logits: np.ndarray, targets: tuple[np.ndarray, ...], loss: dict[str, object]
) -> tuple[float, np.ndarray]:
    """The loss (settings complete) and its gradient with respect to float64 logits."""
    if loss["name"] == "detection":
        return _detection(logits, targets[0], targets[1], loss)
    if loss["soft"]:
        return _cross_entropy(logits, targets[0].astype(np.float64), loss)
    classes = logits.shape[-1]
    flat, labels = logits.reshape(-1, classes), targets[0].reshape(-1)
    keep = labels != loss["ignore"]
    terms = {
        "cross_entropy": [_cross_entropy],
        "dice": [_dice],
        "cross_entropy_dice": [_cross_entropy, _dice],
        "focal": [_focal],
    }[loss["name"]]
    gradient = np.zeros_like(flat)
    total = 0.0
    truth = np.eye(classes)[labels[keep]]
    for term in terms:
        value, part = term(flat[keep], truth, loss)
        total += value
        gradient[keep] += part
    return total, gradient.reshape(logits.shape)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _cross_entropy(logits: np.ndarray, truth: np.ndarray, loss: dict[str, object]) -> tuple[float, np.ndarray]:
    classes = logits.shape[1]
    smoothing = loss["label_smoothing"]
    weights = np.ones(classes) if loss["class_weights"] is None else np.array(loss["class_weights"])
    target = ((1 - smoothing) * truth + smoothing / classes) * weights
    mass = (truth @ weights).sum()
    if mass == 0:
        return 0.0, np.zeros_like(logits)
    log_p = _log_softmax(logits)
    gradient = np.exp(log_p) * target.sum(axis=1, keepdims=True) - target
    return float(-(target * log_p).sum() / mass), gradient / mass


def _focal(logits: np.ndarray, truth: np.ndarray, loss: dict[str, object]) -> tuple[float, np.ndarray]:
    if not len(truth):
        return 0.0, np.zeros_like(logits)
    gamma = loss["gamma"]
    log_p = _log_softmax(logits)
    log_q = log_p[truth == 1][:, None]  # of the true class
    q = np.exp(log_q)
    # d loss / d log q, then d log q / d logits = truth - p
    slope = gamma * (1 - q) ** (gamma - 1) * q * log_q - (1 - q) ** gamma
    value = -((1 - q) ** gamma) * log_q
    return float(value.mean()), slope * (truth - np.exp(log_p)) / len(truth)


def _dice(logits: np.ndarray, truth: np.ndarray, loss: dict[str, object]) -> tuple[float, np.ndarray]:
    classes = logits.shape[1]
    p = np.exp(_log_softmax(logits))
    above = 2 * (p * truth).sum(axis=0) + 1
    below = p.sum(axis=0) + truth.sum(axis=0) + 1
    dp = -(2 * truth / below - above / below**2) / classes
    # through the softmax: dz = p (dp - sum(p dp))
    return float(1 - (above / below).mean()), p * (dp - (p * dp).sum(axis=1, keepdims=True))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _detection(
    logits: np.ndarray, labels: np.ndarray, distances: np.ndarray, loss: dict[str, object]
) -> tuple[float, np.ndarray]:
    gradient = np.zeros_like(logits)
    classes = logits.shape[-1] - 4
    objects = labels >= 0
    count = max(1, int(objects.sum()))

    # Sigmoid focal loss (Lin et al. 2017): u is the score's sign towards the right answer, q the answer's probability.
    truth = labels[..., None] == np.arange(classes)
    sign = np.where(truth, 1.0, -1.0)
    alpha = np.where(truth, 0.25, 0.75) * (labels != -2)[..., None]
    u = sign * logits[..., :classes]
    q, log_q = _sigmoid(u), -np.logaddexp(0, -u)
    total = -(alpha * (1 - q) ** 2 * log_q).sum()
    gradient[..., :classes] = alpha * sign * (2 * (1 - q) ** 2 * q * log_q - (1 - q) ** 3)

    raw = logits[objects][:, classes:]
    found, wanted = np.logaddexp(0, raw), distances[objects].astype(np.float64)
    slope = np.zeros_like(found)
    if loss["box"] in ("giou", "giou_l1"):
        value, part = _giou_loss(found, wanted)
        total += loss["box_weight"] * value
        slope += loss["box_weight"] * part
    if loss["box"] in ("l1", "giou_l1"):
        total += loss["box_weight"] * np.abs(found - wanted).mean(axis=1).sum()
        slope += loss["box_weight"] * np.sign(found - wanted) / 4
    gradient[objects, classes:] = slope * _sigmoid(raw)
    return float(total / count), gradient / count


def _giou_loss(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Sum of 1 - GIoU of boxes about one centre, given as distances (k, 4) top, left, bottom, right; and d / d a."""

    def area(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, cols = d[:, 0] + d[:, 2], d[:, 1] + d[:, 3]
        return rows * cols, np.stack([cols, rows, cols, rows], axis=1)

    own, d_own = area(a)
    other, _ = area(b)
    overlap, d_overlap = area(np.minimum(a, b))
    hull, d_hull = area(np.maximum(a, b))
    # Where both distances are equal the minimum and the maximum each take half of the gradient.
    share = np.where(a < b, 1.0, np.where(a > b, 0.0, 0.5))
    d_overlap, d_hull = d_overlap * share, d_hull * (1 - share)
    union, d_union = own + other - overlap, d_own - d_overlap
    giou = overlap / union - (hull - union) / hull
    slope = (d_overlap * union[:, None] - overlap[:, None] * d_union) / union[:, None] ** 2
    slope += (d_union * hull[:, None] - union[:, None] * d_hull) / hull[:, None] ** 2
    return float((1 - giou).sum()), -slope


def _clipped(gradients: Arrays, clip: float) -> Arrays:
    norm = np.sqrt(sum(np.square(g).sum() for g in gradients.values()))
    return {name: g * (clip / max(norm, clip)) for name, g in gradients.items()}


def _sgd(
    w: np.ndarray, g: np.ndarray, kept: Arrays, lr: float, decay: float, t: int, settings: dict[str, object]
) -> np.ndarray:
    g = g + decay * w
    momentum = settings["momentum"]
    if momentum:
        kept["v"] = momentum * kept.get("v", 0.0) + g
        g = g + momentum * kept["v"] if settings["nesterov"] else kept["v"]
    return w - lr * g


def _adamw(
    w: np.ndarray, g: np.ndarray, kept: Arrays, lr: float, decay: float, t: int, settings: dict[str, object]
) -> np.ndarray:
    beta1, beta2 = settings["beta1"], settings["beta2"]
    kept["m"] = beta1 * kept.get("m", 0.0) + (1 - beta1) * g
    kept["s"] = beta2 * kept.get("s", 0.0) + (1 - beta2) * g**2
    m, s = kept["m"] / (1 - beta1**t), kept["s"] / (1 - beta2**t)
    return w - lr * (m / (np.sqrt(s) + settings["eps"]) + decay * w)
