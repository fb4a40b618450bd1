"""JAX: one compiled step with donated buffers, images NHWC, convolution weights HWIO."""

from __future__ import annotations

import functools
import os
from typing import Any, Callable, NamedTuple

import numpy as np

# XLA takes three quarters of a GPU's memory at start otherwise, and the peak that a record keeps would be that.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import jaxlib
from jax import lax

from rvkernels import own_model
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
    OwnModel,
    Relu,
    Resize,
    inputs_of,
    trained,
    weight_shapes,
)

TITLE = "JAX"
COLOR = "#aa4499"

# GPUs compute products of float32 with fewer bits otherwise.
_EXACT = lax.Precision.HIGHEST
_IMAGES = ("NHWC", "HWIO", "NHWC")

Arrays = dict[str, jax.Array]
# weights, images, training -> logits, new running statistics
Forward = Callable[[Arrays, jax.Array, bool], tuple[jax.Array, Arrays]]

# The number of threads that XLA's CPU client of this process was started with; None before the start.
_threads: int | None = None


class Framework(Base):
    """One model in JAX; the contract is frameworks/__init__.py.

    XLA compiles every function, with `compile` or without. It starts its threads once: a process has one number of
    them. Deterministic on the CPU. Frameworks of equal graphs and settings share their compiled functions.
    """

    def __init__(
        self,
        graph: Graph | OwnModel,
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
        _start(threads)
        try:
            self._device = jax.devices(device)[0]
        except RuntimeError as error:
            raise ValueError(
                f"device {device!r}: JAX {jax.__version__} finds no CUDA device; use device 'cpu'"
            ) from error
        self._own = isinstance(graph, OwnModel)
        if self._own and precision != "float32":
            raise ValueError(f"precision {precision!r}: in JAX a model of your own decides that itself; use 'float32'")
        if self._own:
            start, forward = _own_forward(graph, int(weights.get("seed", 0)))
            weights = start if set(weights) == {"seed"} else weights
            self._shapes = {name: array.shape for name, array in start.items()}
            self._functions = _compiled(forward, graph.task, self._loss, device)
        else:
            self._shapes = weight_shapes(graph)
            self._functions = _functions(graph, _frozen(self._loss), device, precision)
        self._update, self._clip = _update(_frozen(self._optimizer), device), _clip(device)
        self._gather = _gather(device)
        self.load(weights)

    def step(self, images: np.ndarray, targets: tuple[np.ndarray, ...], lr: float) -> float:
        """One optimizer step in training mode; the loss before it."""
        loss, gradients, self._running = self._differentiate(images, targets)
        self._steps += 1
        if self._optimizer["clip"] is not None:
            gradients = self._clip(gradients, np.float32(self._optimizer["clip"]))
        rates = _rates(lr, self._steps, self._optimizer)
        self._weights, self._kept = self._update(self._weights, gradients, self._kept, rates)
        return float(loss)

    def differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        """The forward and backward pass of `step` alone; the loss."""
        loss, gradients, _ = self._differentiate(images, targets)
        jax.block_until_ready(gradients)
        return float(loss)

    def gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients by weight name in training mode; no weight, state or running statistic changes."""
        loss, gradients, _ = self._differentiate(images, targets)
        return float(loss), {name: self._outward(gradients[name]) for name in self._shapes if name in gradients}

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, in inference mode, in the form that Graph.output describes."""
        self._check(images)
        return np.array(self._functions.predict(self._weights, self._running, images))

    def weights(self) -> dict[str, np.ndarray]:
        """Copies, float32, under canonical names and in canonical layouts."""
        arrays = {**self._weights, **self._running}
        return {name: self._outward(arrays[name]) for name in self._shapes}

    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the optimizer keeps between steps; see frameworks/__init__.py."""
        if not self._steps:
            return {}
        found = {f"{part}/{n}": self._outward(array) for part, kept in self._kept.items() for n, array in kept.items()}
        if self._optimizer["name"] == "adamw":
            found["t"] = np.array(self._steps, dtype=np.int64)
        return found

    def load(self, weights: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None) -> None:
        """Continue from `weights` and `state` (None: a fresh optimizer)."""
        weight_files.check_shapes(self._shapes, weights)
        fitted = [name for name in self._shapes if self._own or trained(name)]
        parts = check_state(state, self._optimizer, weights, fitted)
        self._weights = {name: self._inward(weights[name]) for name in fitted}
        self._running = {name: self._inward(weights[name]) for name in self._shapes if name not in self._weights}
        self._kept = {
            part: {n: self._inward(state[f"{part}/{n}"] if state else np.zeros_like(weights[n])) for n in self._weights}
            for part in parts
        }
        # Only AdamW's update reads the number of steps; for SGD it says whether there is a state.
        self._steps = int(state.get("t", 1)) if state else 0

    def parameters(self) -> int:
        """Numbers that training fits."""
        return sum(array.size for array in self._weights.values())

    def wait(self) -> None:
        """Return when the device has finished."""
        jax.block_until_ready((self._weights, self._running, self._kept))

    def memory(self) -> int | None:
        """Bytes of JAX's arrays on the GPU at most so far; None on the CPU."""
        return self._device.memory_stats()["peak_bytes_in_use"] if self._device.platform == "gpu" else None

    @staticmethod
    def versions() -> dict[str, str]:
        """Versions of JAX and XLA's library, and the device once a framework was made (asking starts the client)."""
        found = {"jax": jax.__version__, "jaxlib": jaxlib.__version__}
        if _threads is not None:
            found["device"] = jax.devices()[0].device_kind
        return found

    def _differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[jax.Array, Arrays, Arrays]:
        """Loss, gradients and new running statistics of a batch, whose micro-batches follow each other."""
        self._check(images, targets)
        running, total = self._running, None
        for part, truth, share in self._micro_batches(images, targets):
            loss, gradients, running = self._functions.differentiate(self._weights, running, part, truth)
            if self._accumulate == 1:
                return loss, gradients, running
            total = self._gather(total, (loss, gradients), np.float32(share))
        return (*total, running)

    def _inward(self, array: np.ndarray) -> jax.Array:
        """A float32 copy on the device: a graph's convolution weights (kh, kw, in, out), dense ones (in, out)."""
        axes = None if self._own else {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
        moved = np.ascontiguousarray(array if axes is None else array.transpose(axes), dtype=np.float32)
        return jax.device_put(moved, self._device, may_alias=False)  # the update writes over it

    def _outward(self, array: jax.Array) -> np.ndarray:
        """A C-contiguous NumPy copy in the canonical layout."""
        axes = None if self._own else {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
        return np.array(array if axes is None else np.asarray(array).transpose(axes), order="C")


def _own_forward(model: OwnModel, seed: int) -> tuple[dict[str, np.ndarray], Forward]:
    """The user's initial weights and function."""
    made = own_model.make(model, "jax", tuple, key=jax.random.key(seed))
    if len(made) != 2 or not isinstance(made[0], dict) or not callable(made[1]):
        raise ValueError(
            f"model {model.name!r}: {model.entry('jax')} returned another pair than {own_model.RETURNS['jax']}"
        )
    parameters, apply = made

    def forward(weights: Arrays, images: jax.Array, training: bool) -> tuple[jax.Array, Arrays]:
        return apply(weights, images, training).astype(jnp.float32), {}

    return {name: np.asarray(array, np.float32) for name, array in parameters.items()}, forward


def _start(threads: int) -> None:
    """Start XLA's CPU client with a pool of `threads` threads; ValueError when it runs with another number."""
    global _threads
    if _threads is None:
        # Read once, when the client is made: XLA's DefaultThreadPoolSize (xla/pjrt/utils.cc).
        before = os.environ.get("NPROC")
        os.environ["NPROC"] = str(threads)
        jax.devices("cpu")
        if before is None:
            del os.environ["NPROC"]
        else:
            os.environ["NPROC"] = before
        _threads = threads
    elif threads != _threads:
        raise ValueError(
            f"threads is {threads}, but JAX has started with {_threads} in this process and keeps them; use one number "
            f"of threads per process"
        )


def _frozen(settings: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(settings.items()))


# --- compiled functions --------------------------------------------------------------------------------------------


class _Functions(NamedTuple):
    # weights, running, images, targets -> loss, gradients, new running statistics
    differentiate: Callable[..., tuple[jax.Array, Arrays, Arrays]]
    # weights, running, images -> logits
    predict: Callable[..., jax.Array]


@functools.cache
def _functions(graph: Graph, loss: tuple, device: str, precision: str) -> _Functions:
    number = jnp.dtype(precision)

    def forward(weights: Arrays, images: jax.Array, training: bool) -> tuple[jax.Array, Arrays]:
        return _forward(graph, weights, images, number, training=training)

    return _compiled(forward, graph.task, dict(loss), device)


def _compiled(forward: Forward, task: str, loss: dict[str, Any], device: str) -> _Functions:
    def value(weights: Arrays, running: Arrays, images: jax.Array, targets: tuple) -> tuple[jax.Array, Arrays]:
        logits, moved = forward({**weights, **running}, images, True)
        if task == "detection":
            return _detection(logits, targets[0], targets[1], loss), moved
        return _classes(logits, targets[0], loss), moved

    def differentiate(
        weights: Arrays, running: Arrays, images: jax.Array, targets: tuple
    ) -> tuple[jax.Array, Arrays, Arrays]:
        (found, moved), gradients = jax.value_and_grad(value, has_aux=True)(weights, running, images, targets)
        return found, gradients, moved

    def predict(weights: Arrays, running: Arrays, images: jax.Array) -> jax.Array:
        return forward({**weights, **running}, images, False)[0]

    return _Functions(_jit(differentiate, device), _jit(predict, device))


@functools.cache
def _update(optimizer: tuple, device: str) -> Callable[..., tuple[Arrays, dict[str, Arrays]]]:
    """weights, gradients, kept, rates -> weights, kept; weights and kept given are used up."""
    settings = dict(optimizer)
    rule = _sgd if settings["name"] == "sgd" else _adamw

    def update(
        weights: Arrays, gradients: Arrays, kept: dict[str, Arrays], rates: tuple
    ) -> tuple[Arrays, dict[str, Arrays]]:
        after: Arrays = {}
        parts: dict[str, Arrays] = {part: {} for part in kept}
        for name, weight in weights.items():
            decay = settings["weight_decay"] if weight.ndim > 1 else 0.0  # of a graph: names that end in .weight
            before = {part: kept[part][name] for part in kept}
            after[name], new = rule(weight, gradients[name], before, rates, decay, settings)
            for part, array in new.items():
                parts[part][name] = array
        return after, parts

    return _jit(update, device, donate_argnums=(0, 2))


@functools.cache
def _clip(device: str) -> Callable[[Arrays, np.float32], Arrays]:
    """gradients, clip -> gradients; those given are used up. Apart from the update: XLA would fuse the factor into it
    and round otherwise where it is 1."""

    def clipped(gradients: Arrays, clip: np.float32) -> Arrays:
        norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in gradients.values()))
        return {name: gradient * (clip / jnp.maximum(norm, clip)) for name, gradient in gradients.items()}

    return _jit(clipped, device, donate_argnums=0)


@functools.cache
def _gather(device: str) -> Callable[..., tuple[jax.Array, Arrays]]:
    """total (None before the first part), found, share -> total + share * found; the total given is used up."""

    def gathered(
        total: tuple[jax.Array, Arrays] | None, found: tuple[jax.Array, Arrays], share: np.float32
    ) -> tuple[jax.Array, Arrays]:
        scaled = jax.tree.map(lambda array: share * array, found)
        return scaled if total is None else jax.tree.map(jnp.add, total, scaled)

    return _jit(gathered, device, donate_argnums=0)


def _jit(function: Callable, device: str, **settings: Any) -> Callable:
    options = {"xla_gpu_deterministic_ops": True} if device == "cuda" else None
    return jax.jit(function, compiler_options=options, **settings)


def _rates(lr: float, step: int, optimizer: dict[str, Any]) -> tuple[np.float32, ...]:
    """What changes from step to step: lr and, for AdamW, 1 / (1 - beta^step) of both betas, made in float64."""
    if optimizer["name"] == "sgd":
        return (np.float32(lr),)
    return (np.float32(lr), *(np.float32(1 / (1 - optimizer[beta] ** step)) for beta in ("beta1", "beta2")))


def _sgd(
    weight: jax.Array, gradient: jax.Array, kept: Arrays, rates: tuple, decay: float, settings: dict[str, Any]
) -> tuple[jax.Array, Arrays]:
    (lr,) = rates
    if decay:
        gradient = gradient + decay * weight
    if not kept:
        return weight - lr * gradient, {}
    v = settings["momentum"] * kept["v"] + gradient
    return weight - lr * (gradient + settings["momentum"] * v if settings["nesterov"] else v), {"v": v}


def _adamw(
    weight: jax.Array, gradient: jax.Array, kept: Arrays, rates: tuple, decay: float, settings: dict[str, Any]
) -> tuple[jax.Array, Arrays]:
    lr, to_mean, to_square = rates
    m = settings["beta1"] * kept["m"] + (1 - settings["beta1"]) * gradient
    s = settings["beta2"] * kept["s"] + (1 - settings["beta2"]) * gradient**2
    change = m * to_mean / (jnp.sqrt(s * to_square) + settings["eps"]) + decay * weight
    return weight - lr * change, {"m": m, "s": s}


# --- layers --------------------------------------------------------------------------------------------------------


def _forward(
    graph: Graph, weights: Arrays, images: jax.Array, number: jnp.dtype, *, training: bool
) -> tuple[jax.Array, Arrays]:
    """float32 logits, and the new running statistics (training); products and feature maps are of type `number`."""
    values: Arrays = {"image": images.astype(number)}
    moved: Arrays = {}
    for layer in graph.layers:
        into = [values[name] for name in inputs_of(layer)]
        own = {p: weights[f"{layer.name}.{p}"] for p in _PARTS.get(type(layer), ()) if f"{layer.name}.{p}" in weights}
        if isinstance(layer, BatchNorm):
            values[layer.name], new = _batch_norm(layer, into[0], own, training)
            moved.update({f"{layer.name}.{part}": array for part, array in new.items()})
        else:
            values[layer.name] = _operation(layer, into, {part: array.astype(number) for part, array in own.items()})
    return values[graph.output].astype(jnp.float32), moved


_PARTS: dict[type, tuple[str, ...]] = {
    Conv: ("weight", "bias"),
    ConvTranspose: ("weight", "bias"),
    Dense: ("weight", "bias"),
    BatchNorm: ("scale", "bias", "mean", "variance"),
}


def _operation(layer: Layer, into: list[jax.Array], own: Arrays) -> jax.Array:
    x = into[0]
    if isinstance(layer, Conv):
        stride, pad = (layer.stride,) * 2, ((layer.pad, layer.pad),) * 2
        y = lax.conv_general_dilated(x, own["weight"], stride, pad, dimension_numbers=_IMAGES, precision=_EXACT)
        return y + own["bias"] if layer.bias else y
    if isinstance(layer, ConvTranspose):
        stride, pad = (layer.stride,) * 2, ((layer.kernel - 1,) * 2,) * 2
        y = lax.conv_transpose(
            x, own["weight"], stride, pad, dimension_numbers=_IMAGES, transpose_kernel=True, precision=_EXACT
        )
        return y + own["bias"] if layer.bias else y
    if isinstance(layer, Dense):
        y = jnp.matmul(x, own["weight"], precision=_EXACT)
        return y + own["bias"] if layer.bias else y
    if isinstance(layer, Relu):
        return jax.nn.relu(x)
    if isinstance(layer, MaxPool):
        return _max_pool(layer, x)
    if isinstance(layer, AveragePool):
        window, stride = (1, layer.kernel, layer.kernel, 1), (1, layer.stride, layer.stride, 1)
        pad = ((0, 0), (layer.pad, layer.pad), (layer.pad, layer.pad), (0, 0))
        # The start has to be a constant: of a traced one JAX does not see that this is a sum, and has no gradient.
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, stride, pad) / layer.kernel**2
    if isinstance(layer, GlobalMean):
        return x.mean(axis=(1, 2))
    if isinstance(layer, Resize):
        n, rows, cols, width = x.shape
        size = (n, rows * layer.factor, cols * layer.factor, width)
        if layer.method == "bilinear":
            return jax.image.resize(x, size, "bilinear", antialias=False, precision=_EXACT)
        spread = (n, rows, layer.factor, cols, layer.factor, width)
        return jnp.broadcast_to(x[:, :, None, :, None], spread).reshape(size)
    if isinstance(layer, Add):
        return x + into[1]
    if isinstance(layer, Concat):
        return jnp.concatenate(into, axis=-1)
    if isinstance(layer, Locations):
        return jnp.concatenate([level.reshape(len(level), -1, level.shape[-1]) for level in into], axis=1)
    raise TypeError(f"no operation for {type(layer).__name__}")


def _batch_norm(layer: BatchNorm, x: jax.Array, own: Arrays, training: bool) -> tuple[jax.Array, Arrays]:
    """The normalised map, and the new running statistics when training."""
    if not training:
        inverse = own["scale"] * lax.rsqrt(own["variance"] + 1e-5)
        return ((x.astype(jnp.float32) - own["mean"]) * inverse + own["bias"]).astype(x.dtype), {}
    count = x.size // x.shape[-1]
    if count < 2:
        raise ValueError(f"BatchNorm {layer.name!r}: one value per channel has no variance; use larger batches")
    y, mean, variance = _normalised(x, own["scale"], own["bias"])
    moved = {
        "mean": 0.9 * own["mean"] + 0.1 * mean,
        "variance": 0.9 * own["variance"] + 0.1 * variance * (count / (count - 1)),
    }
    return y, moved


@jax.custom_vjp
def _normalised(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x normalised by the mean and variance of its batch, which come with it, scaled and shifted."""
    return _normalise(x, scale, bias)[0]


def _normalise(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    axes = tuple(range(x.ndim - 1))
    exact = x.astype(jnp.float32)
    mean = exact.mean(axis=axes)
    variance = jnp.square(exact - mean).mean(axis=axes)
    inverse = lax.rsqrt(variance + 1e-5)
    y = (exact - mean) * (scale * inverse) + bias
    return (y.astype(x.dtype), mean, variance), (x, mean, inverse, scale)


def _normalise_back(kept: tuple[jax.Array, ...], slopes: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Ioffe and Szegedy (2015), section 3, with the gradients of mean and variance put in; those of the running
    statistics are nobody's."""
    x, mean, inverse, scale = kept
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    dy = slopes[0].astype(jnp.float32)
    normal = (x.astype(jnp.float32) - mean) * inverse
    to_bias, to_scale = dy.sum(axis=axes), (dy * normal).sum(axis=axes)
    dx = (scale * inverse) * (dy - to_bias / count - normal * (to_scale / count))
    return dx.astype(x.dtype), to_scale, to_bias


_normalised.defvjp(_normalise, _normalise_back)


def _max_pool(layer: MaxPool, x: jax.Array) -> jax.Array:
    """The maximum as a chain of choices between shifted maps, whose gradient goes to the first of equals.

    XLA's own gradient of a pooling, a select-and-scatter, is a slow loop on the CPU.
    """
    pad = (layer.pad, layer.pad, 0)
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), pad, pad, (0, 0, 0)))
    n, rows, cols, width = x.shape
    high, wide = ((size - layer.kernel) // layer.stride + 1 for size in (rows, cols))
    best = None
    for i in range(layer.kernel):
        for j in range(layer.kernel):
            end = (n, i + (high - 1) * layer.stride + 1, j + (wide - 1) * layer.stride + 1, width)
            tap = lax.slice(x, (0, i, j, 0), end, (1, layer.stride, layer.stride, 1))
            best = tap if best is None else jnp.where(tap > best, tap, best)
    return best


# --- losses --------------------------------------------------------------------------------------------------------


def _classes(logits: jax.Array, targets: jax.Array, loss: dict[str, Any]) -> jax.Array:
    """The losses of classification and segmentation: logits (..., classes), targets (...) or soft ones (n, classes)."""
    classes = logits.shape[-1]
    logits = logits.reshape(-1, classes)
    if loss["soft"]:
        keep, truth = jnp.ones((1, 1), logits.dtype), targets
    else:
        targets = targets.reshape(-1, 1)
        keep = (targets != loss["ignore"]).astype(logits.dtype)
        truth = (targets == jnp.arange(classes)).astype(logits.dtype)  # zeros where targets are to ignore
    log_p = jax.nn.log_softmax(logits)
    total = jnp.zeros((), logits.dtype)
    if loss["name"] in ("cross_entropy", "cross_entropy_dice"):
        weights = jnp.array(loss["class_weights"] or (1.0,) * classes, logits.dtype)
        smooth = (1 - loss["label_smoothing"]) * truth + keep * (loss["label_smoothing"] / classes)
        mass = (truth * weights).sum()
        there = mass > 0
        total -= jnp.where(there, (smooth * weights * log_p).sum() / jnp.where(there, mass, 1), 0)
    if loss["name"] in ("dice", "cross_entropy_dice"):
        p = jnp.exp(log_p) * keep
        total += 1 - ((2 * (p * truth).sum(0) + 1) / (p.sum(0) + truth.sum(0) + 1)).mean()
    if loss["name"] == "focal":
        log_q = (truth * log_p).sum(-1)  # of the true class
        total -= ((-jnp.expm1(log_q)) ** loss["gamma"] * log_q).sum() / jnp.maximum(keep.sum(), 1)
    return total


def _detection(logits: jax.Array, labels: jax.Array, distances: jax.Array, loss: dict[str, Any]) -> jax.Array:
    """logits (n, locations, classes + 4), labels (n, locations), distances (n, locations, 4)."""
    scores, raw = logits[..., :-4], logits[..., -4:]
    truth = (labels[..., None] == jnp.arange(scores.shape[-1])).astype(scores.dtype)
    log_p = jax.nn.log_sigmoid((2 * truth - 1) * scores)  # of the right answer
    alpha = 0.75 - 0.5 * truth  # 0.25 for an object, 0.75 for background
    total = -(alpha * jnp.expm1(log_p) ** 2 * log_p * (labels != -2)[..., None]).sum()

    objects = labels >= 0
    # Elsewhere boxes of one size, whose losses and gradients are numbers, and are left out.
    found = jnp.where(objects[..., None], jax.nn.softplus(raw), 1)
    wanted = jnp.where(objects[..., None], distances, 1)
    each = jnp.zeros(labels.shape, scores.dtype)
    if loss["box"] in ("giou", "giou_l1"):
        each += 1 - _giou(found, wanted)
    if loss["box"] in ("l1", "giou_l1"):
        each += jnp.abs(found - wanted).mean(axis=-1)
    total += loss["box_weight"] * (each * objects).sum()
    return total / jnp.maximum(objects.sum(), 1)


def _giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised IoU (Rezatofighi et al. 2019) of boxes about one centre, as distances (top, left, bottom, right)."""

    def area(d: jax.Array) -> jax.Array:
        return (d[..., 0] + d[..., 2]) * (d[..., 1] + d[..., 3])

    overlap = area(jnp.minimum(a, b))
    union = area(a) + area(b) - overlap
    hull = area(jnp.maximum(a, b))
    return overlap / union - (hull - union) / hull
