"""TensorFlow: one graph per kind of call and batch shape (tf.function), optional bfloat16 and XLA.

The optimizers are TensorFlow's own update operators, ApplyMomentum and ApplyAdam. Its ApplyAdam adds eps before the
bias correction of the second moment (as tf.keras.optimizers.Adam does), the contract after it; the operator takes
learning rate and eps as inputs, and with

    lr' = lr sqrt(1 - beta2^t) / (1 - beta1^t),  eps' = eps sqrt(1 - beta2^t)

lr' m / (sqrt(s) + eps') is the contract's step. The operator rounds beta1 and beta2 to float32, so the corrections take
the rounded numbers.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from rvkernels import own_model, workers
from rvkernels import weights as weight_files
from rvkernels.files import atomic
from rvkernels.frameworks import Framework as Base
from rvkernels.frameworks import check_state, skips_before
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
from rvkernels.workers import Team

TITLE = "TensorFlow"
COLOR = "#0072b2"


@contextlib.contextmanager
def _log_held_back() -> Iterator[None]:
    """Keep what is written to file descriptor 2 to ourselves; shown after an error.

    While TensorFlow is loaded its C++ log obeys no setting (tensorflow/tensorflow issue 100442).
    """
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its errors come as exceptions
with _log_held_back():
    import tensorflow as tf
    from tensorflow.python.util import _pywrap_util_port as build  # nothing public tells whether oneDNN is on

Tensors = dict[str, tf.Tensor]
Summed = Callable[[tf.Tensor], tf.Tensor]

# Axes of a canonical weight (out, in, kh, kw), or (in, out, kh, kw) when transposed, in TensorFlow's order, and back.
_NATIVE = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
_CANONICAL = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}

# Without growth a process takes all memory of a GPU when it starts. This is possible before first use only.
for _gpu in tf.config.list_physical_devices("GPU"):
    tf.config.experimental.set_memory_growth(_gpu, True)


class Framework(Base):
    """One model in TensorFlow; the contract is frameworks/__init__.py.

    A new shape of a batch is traced once. Deterministic on the CPU for a number of threads; that number is one per
    process, as TensorFlow fixes it when it starts.
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
        team: Team | None = None,
    ) -> None:
        super().__init__(
            graph, loss, optimizer, device=device, threads=threads, precision=precision, accumulate=accumulate
        )
        if device == "cuda" and not tf.config.list_physical_devices("GPU"):
            raise ValueError(f"device 'cuda': TensorFlow {tf.__version__} finds no CUDA device; use device 'cpu'")
        self._own = isinstance(graph, OwnModel)
        if self._own and precision != "float32":
            raise ValueError(
                f"precision {precision!r}: in TensorFlow a model of your own decides that itself; use 'float32'"
            )
        if not self._own:
            weight_files.check(graph, weights)
        _start(threads)
        self._workers = 1 if team is None else team.count
        self._strategy = None if team is None else _join(team)
        if device == "cuda":
            tf.config.experimental.enable_op_determinism()
            tf.config.experimental.enable_tensor_float_32_execution(False)
        self._device = "/GPU:0" if device == "cuda" else "/CPU:0"
        self._dtype = tf.bfloat16 if precision == "bfloat16" else tf.float32
        self._compile = compile
        self._functions: dict[tuple, Callable[..., tf.Tensor]] = {}
        with tf.device(self._device):
            if self._own:
                self._module = _own_module(graph, int(weights.get("seed", 0)))
                self._variables, self._fitted = _own_variables(self._module)
            else:
                self._variables = {name: _variable(array.shape) for name, array in weights.items()}
                self._fitted = [name for name in self._variables if trained(name)]
            self._kept = {
                f"{part}/{name}": tf.Variable(tf.zeros_like(self._variables[name]))
                for part in check_state(None, self._optimizer, weights, self._fitted)
                for name in self._fitted
            }
            self._sums: list[tf.Variable] = []  # loss and gradients of the micro-batches so far
            if accumulate > 1:
                like = [tf.zeros([]), *(self._variables[name] for name in self._fitted)]
                self._sums = [tf.Variable(tf.zeros_like(tensor), trainable=False) for tensor in like]
        self._steps = 0
        if set(weights) != {"seed"}:
            self.load(weights)

    def step(self, images: np.ndarray, targets: tuple[np.ndarray, ...], lr: float) -> float:
        """One optimizer step in training mode; the loss before it."""
        self._check(images, targets)
        self._steps += 1
        if self._accumulate == 1:
            return float(self._run(self._step, self._rates(lr), images, *targets, together=True))
        self._gather(images, targets)
        return float(self._run(self._step_along_sums, self._rates(lr), together=True))

    def differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        """The forward and backward pass of `step` alone; the loss."""
        return float(self._differentiate(images, targets)[0])

    def gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients by weight name in training mode; no weight, state or running statistic changes."""
        moving = self._own or self._accumulate > 1
        moved = {name: self._variables[name].numpy() for name in self._variables if moving and name not in self._fitted}
        loss, *found = self._differentiate(images, targets)
        for name, array in moved.items():
            self._variables[name].assign(array)
        return float(loss), {name: self._outward(array) for name, array in zip(self._fitted, found)}

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, in inference mode, in the form that Graph.output describes."""
        self._check(images)
        return self._run(self._logits, images).numpy()

    def weights(self) -> dict[str, np.ndarray]:
        """Copies, float32, under canonical names and in canonical layouts; of an own model all its variables."""
        return {name: self._outward(variable) for name, variable in self._variables.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the optimizer keeps between steps; see frameworks/__init__.py."""
        if not self._steps:
            return {}
        found = {name: self._outward(variable) for name, variable in self._kept.items()}
        if self._optimizer["name"] == "adamw":
            found["t"] = np.array(self._steps, dtype=np.int64)
        return found

    def load(self, weights: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None) -> None:
        """Continue from `weights` and `state` (None: a fresh optimizer)."""
        if self._own:
            weight_files.check_shapes({name: tuple(v.shape) for name, v in self._variables.items()}, weights)
        else:
            weight_files.check(self._graph, weights)
        check_state(state, self._optimizer, weights, self._fitted)
        for name, variable in self._variables.items():
            variable.assign(self._inward(weights[name]))
        for name, variable in self._kept.items():
            variable.assign(self._inward(state[name]) if state else tf.zeros_like(variable))
        # The count matters to AdamW only; SGD's velocity just has to be known as begun.
        self._steps = int(state.get("t", 1)) if state else 0

    def parameters(self) -> int:
        """Numbers that training fits."""
        return sum(math.prod(self._variables[name].shape) for name in self._fitted)

    def wait(self) -> None:
        """Return when the device has finished."""
        with tf.device(self._device):  # tf.test.experimental.sync_devices would ask those of other workers, too
            tf.raw_ops.SyncDevice()

    def memory(self) -> int | None:
        """Bytes of TensorFlow's tensors on the GPU at most so far; None on the CPU."""
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self._device == "/GPU:0" else None

    @staticmethod
    def versions() -> dict[str, str]:
        """Versions of TensorFlow and its compute libraries, the device, where the optimizers' formulas come from."""
        found = {
            "tensorflow": tf.__version__,
            "onednn": "on" if build.IsMklEnabled() else "off",
            "optimizer": "ApplyMomentum, ApplyAdam with lr and eps scaled so that eps is added after bias correction",
        }
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            libraries = tf.sysconfig.get_build_info()
            found["cuda"] = str(libraries["cuda_version"])
            found["cudnn"] = str(libraries["cudnn_version"])
            found["device"] = str(tf.config.experimental.get_device_details(gpus[0])["device_name"])
        return found

    def _run(self, kind: Callable[..., object], *arrays: np.ndarray, together: bool = False) -> object:
        """What `kind`, a method of tensors, gives for `arrays`: traced when their shapes are new.

        together  all workers call it at once, if there are several
        """
        key = (kind.__name__, *[array.shape for array in arrays])
        with tf.device(self._device):
            if key not in self._functions:
                signature = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
                call = kind
                if together and self._strategy is not None:
                    call = functools.partial(_call_together, self._strategy, kind)
                function = tf.function(call, signature, autograph=False, jit_compile=self._compile)
                self._functions[key] = function.get_concrete_function()
            return self._functions[key](*[tf.convert_to_tensor(array) for array in arrays])

    def _differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> list[tf.Tensor]:
        """Loss and gradients in the order of self._fitted."""
        self._check(images, targets)
        if self._accumulate == 1:
            return self._run(self._slopes, images, *targets, together=True)
        self._gather(images, targets)
        return self._run(self._sums_of_all, together=True)

    def _gather(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> None:
        """Leave this worker's loss and gradients of a batch, micro-batch by micro-batch, in `_sums`."""
        parts = self._micro_batches(images, targets)
        self._run(self._clear)
        for part, truth, share in parts:
            self._run(self._add, np.float32(share), part, *truth, together=True)

    def _sum_of_workers(self, numbers: np.ndarray) -> np.ndarray:
        return numbers if self._strategy is None else self._run(_sum_of_all, numbers, together=True).numpy()

    def _rates(self, lr: float) -> np.ndarray:
        """The numbers of an optimizer step that change: [lr], or AdamW's [lr', eps', decay]; see the module."""
        settings = self._optimizer
        if settings["name"] == "sgd":
            return np.array([lr], dtype=np.float32)
        first, second = (1 - float(np.float32(settings[beta])) ** self._steps for beta in ("beta1", "beta2"))
        scale = math.sqrt(second)
        return np.array([lr * scale / first, settings["eps"] * scale, lr * settings["weight_decay"]], dtype=np.float32)

    def _inward(self, array: np.ndarray) -> np.ndarray:
        return array if self._own else _native(array)

    def _outward(self, tensor: tf.Tensor | tf.Variable) -> np.ndarray:
        return np.array(tensor.numpy()) if self._own else _canonical(tensor)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        if self._own:
            return tf.cast(self._module(images, training=False), tf.float32)
        return _forward(self._graph, self._variables, images, self._dtype)

    def _backward(self, images: tf.Tensor, targets: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, list, Tensors]:
        """The loss in training mode, its gradients in the order of self._fitted, the next running statistics.

        Loss and gradients are this worker's parts; `_sum_of_all` makes them those of the batch.
        """
        values = dict(self._variables)
        if not self._own:
            values = {name: tf.convert_to_tensor(variable) for name, variable in values.items()}
        fitted = [values[name] for name in self._fitted]
        running: Tensors = {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fitted)
            if self._own:
                logits = tf.cast(self._module(images, training=True), tf.float32)  # moves its running statistics
            else:
                logits = _forward(self._graph, values, images, self._dtype, running, self._summed)
            if self._graph.task == "detection":
                loss = _detection(logits, targets[0], targets[1], self._loss, self._summed)
            else:
                loss = _classes(logits, targets[0], self._loss, self._summed, self._workers)
        gradients = tape.gradient(loss, fitted, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, gradients, running

    @property
    def _summed(self) -> Summed | None:
        """The sum of a tensor over all workers; None where there is one."""
        return None if self._strategy is None else _sum_of_all

    def _slopes(self, images: tf.Tensor, *targets: tf.Tensor) -> list[tf.Tensor]:
        loss, gradients, _ = self._backward(images, targets)
        return self._of_all([loss, *gradients])

    def _of_all(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        return tensors if self._strategy is None else _sum_of_all(tensors)

    def _clear(self) -> None:
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def _add(self, share: tf.Tensor, images: tf.Tensor, *targets: tf.Tensor) -> None:
        loss, gradients, running = self._backward(images, targets)
        for name, value in running.items():
            self._variables[name].assign(value)
        for total, found in zip(self._sums, [loss, *gradients]):
            total.assign_add(share * found)

    def _sums_of_all(self) -> list[tf.Tensor]:
        return self._of_all([tf.convert_to_tensor(total) for total in self._sums])

    def _step_along_sums(self, rates: tf.Tensor) -> tf.Tensor:
        loss, *gradients = self._sums_of_all()
        self._move(rates, gradients)
        return loss

    def _step(self, rates: tf.Tensor, images: tf.Tensor, *targets: tf.Tensor) -> tf.Tensor:
        loss, gradients, running = self._backward(images, targets)
        loss, *gradients = self._of_all([loss, *gradients])
        for name, value in running.items():
            self._variables[name].assign(value)
        self._move(rates, gradients)
        return loss

    def _move(self, rates: tf.Tensor, gradients: list[tf.Tensor]) -> None:
        """The optimizer's update."""
        if self._optimizer["clip"] is not None:
            clip = self._optimizer["clip"]
            scale = clip / tf.maximum(tf.linalg.global_norm(gradients), clip)  # exactly 1 up to there
            gradients = [scale * gradient for gradient in gradients]
        update = self._adamw if self._optimizer["name"] == "adamw" else self._sgd
        update(dict(zip(self._fitted, gradients)), *tf.unstack(rates))

    def _sgd(self, gradients: Tensors, lr: tf.Tensor) -> None:
        momentum, decay = tf.constant(self._optimizer["momentum"]), self._optimizer["weight_decay"]
        for name, gradient in gradients.items():
            variable = self._variables[name]
            if decay and variable.shape.rank > 1:  # of a graph those whose names end in .weight
                gradient += decay * variable
            if not self._kept:
                variable.assign_sub(lr * gradient)
                continue
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=self._kept[f"v/{name}"].handle,
                lr=lr,
                grad=gradient,
                momentum=momentum,
                use_nesterov=self._optimizer["nesterov"],
            )

    def _adamw(self, gradients: Tensors, lr: tf.Tensor, eps: tf.Tensor, decay: tf.Tensor) -> None:
        beta1, beta2 = tf.constant(self._optimizer["beta1"]), tf.constant(self._optimizer["beta2"])
        zero = tf.constant(0.0)
        for name, gradient in gradients.items():
            variable = self._variables[name]
            if self._optimizer["weight_decay"] and variable.shape.rank > 1:
                variable.assign_sub(decay * variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._kept[f"m/{name}"].handle,
                v=self._kept[f"s/{name}"].handle,
                beta1_power=zero,  # the operator's own bias corrections are off
                beta2_power=zero,
                lr=lr,
                beta1=beta1,
                beta2=beta2,
                epsilon=eps,
                grad=gradient,
            )


def launch(count: int, command: Sequence[str]) -> dict[int, int]:
    """Run `command` as `count` workers on this machine; TensorFlow has no launcher of its own."""
    return workers.start(count, command)


@functools.cache
def _connected(addresses: tuple[str, ...], rank: int) -> tf.distribute.Strategy:
    """One per process, made before anything is computed: TensorFlow connects its workers when it starts."""
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": rank}}
    )
    return tf.distribute.MultiWorkerMirroredStrategy()


def _join(team: Team) -> tf.distribute.Strategy:
    return _connected(tuple(team.addresses), team.rank)


def _call_together(strategy: tf.distribute.Strategy, kind: Callable[..., object], *tensors: tf.Tensor) -> object:
    """`kind` in the one replica of this worker.

    Weights are variables of this process: all workers start with the same ones and make the same steps.
    """
    return strategy.run(kind, tensors)


def _sum_of_all(value: tf.Tensor | list[tf.Tensor]) -> tf.Tensor | list[tf.Tensor]:
    """The sum of each tensor over all workers; what it is worth to each of their losses comes back to each."""
    # What a function is given, and what a variable holds, is on no device by itself, and so not reduced.
    value = tf.nest.map_structure(tf.identity, value)
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def _own_module(model: OwnModel, seed: int) -> tf.Module | tf.keras.Model:
    """The user's module, made after every seed of TensorFlow and Keras is set."""
    tf.keras.utils.set_random_seed(seed % 2**32)  # NumPy's takes no larger one
    module = own_model.make(model, "tensorflow", (tf.Module, tf.keras.Model))
    if not module.trainable_variables:
        raise ValueError(
            f"model {model.name!r}: {model.entry('tensorflow')} returned a model without variables to train; build it "
            f"there, for instance with a keras.Input for a first layer"
        )
    return module


def _own_variables(module: tf.Module | tf.keras.Model) -> tuple[dict[str, tf.Variable], list[str]]:
    """Variables by place and own name, such as "2.kernel", and the names of the trained ones.

    Keras numbers layers through a process, so that a second model of the same function has other full names.
    """
    names = [f"{i}.{v.name.split('/')[-1].split(':')[0]}" for i, v in enumerate(module.variables)]
    trainable = {id(v) for v in module.trainable_variables}
    fitted = [name for name, v in zip(names, module.variables) if id(v) in trainable]
    keras = isinstance(module, tf.keras.Model)  # whose variables wrap TensorFlow's
    return {name: v.value if keras else v for name, v in zip(names, module.variables)}, fitted


def _start(threads: int) -> None:
    """Fix TensorFlow's number of compute threads; one operation runs at a time."""
    try:
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        config = tf.config.threading
        running = config.get_intra_op_parallelism_threads(), config.get_inter_op_parallelism_threads()
        raise ValueError(
            f"threads is {threads}, but TensorFlow already runs in this process and cannot change its own "
            f"(intra-op {running[0]}, inter-op {running[1]}); use a new process"
        ) from None


def _variable(shape: tuple[int, ...]) -> tf.Variable:
    """Zeros for a canonical weight of `shape`, in TensorFlow's order of axes."""
    return tf.Variable(tf.zeros([shape[axis] for axis in _NATIVE[len(shape)]]))


def _native(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(_NATIVE[array.ndim]), dtype=np.float32)


def _canonical(tensor: tf.Tensor | tf.Variable) -> np.ndarray:
    """A C-contiguous NumPy copy with the axes in canonical order."""
    array = tensor.numpy()
    return np.ascontiguousarray(array.transpose(_CANONICAL[array.ndim]))


def _forward(
    graph: Graph,
    weights: Mapping[str, tf.Tensor | tf.Variable],
    images: tf.Tensor,
    dtype: tf.DType,
    running: Tensors | None = None,
    summed: Summed | None = None,
) -> tf.Tensor:
    """Logits, float32, of images (n, rows, cols, bands) float32; sizes may be unknown.

    running  a dict that takes the next running statistics, for training mode; None for inference mode
    summed   the sum over all workers, which train together
    """
    values = {"image": tf.cast(images, dtype)}
    for layer in graph.layers:
        values[layer.name] = _operation(layer, [values[name] for name in inputs_of(layer)], weights, running, summed)
    return tf.cast(values[graph.output], tf.float32)


def _operation(
    layer: Layer,
    inputs: list[tf.Tensor],
    weights: Mapping[str, tf.Tensor | tf.Variable],
    running: Tensors | None,
    summed: Summed | None,
) -> tf.Tensor:
    x = inputs[0]
    if isinstance(layer, BatchNorm):
        if running is not None and summed is not None:
            return _batch_norm_of_all(layer.name, x, weights, running, summed)
        return _batch_norm(layer.name, x, weights, running)
    if isinstance(layer, (Conv, ConvTranspose, Dense)):
        weight = tf.cast(weights[f"{layer.name}.weight"], x.dtype)
        if isinstance(layer, Conv):
            y = _conv(layer, x, weight)
        elif isinstance(layer, ConvTranspose):
            n, rows, cols, _ = _sizes(x)
            size = [(length - 1) * layer.stride + layer.kernel for length in (rows, cols)]
            y = tf.nn.conv2d_transpose(x, weight, [n, *size, layer.filters], layer.stride, "VALID")
        else:
            y = tf.matmul(x, weight)
        return tf.nn.bias_add(y, tf.cast(weights[f"{layer.name}.bias"], x.dtype)) if layer.bias else y
    if isinstance(layer, Relu):
        return tf.nn.relu(x)
    if isinstance(layer, MaxPool):
        return tf.nn.max_pool2d(_pad(x, layer.pad, x.dtype.min), layer.kernel, layer.stride, "VALID")
    if isinstance(layer, AveragePool):
        return tf.nn.avg_pool2d(_pad(x, layer.pad, 0), layer.kernel, layer.stride, "VALID")
    if isinstance(layer, GlobalMean):
        return tf.reduce_mean(x, [1, 2])
    if isinstance(layer, Resize) and layer.method == "nearest":
        return tf.repeat(tf.repeat(x, layer.factor, axis=2), layer.factor, axis=1)
    if isinstance(layer, Resize):
        size = [length * layer.factor for length in _sizes(x)[1:3]]
        return tf.cast(tf.raw_ops.ResizeBilinear(images=x, size=size, half_pixel_centers=True), x.dtype)
    if isinstance(layer, Add):
        return x + inputs[1]
    if isinstance(layer, Concat):
        return tf.concat(inputs, axis=-1)
    if isinstance(layer, Locations):
        flat = [tf.reshape(level, [_sizes(level)[0], -1, level.shape[-1]]) for level in inputs]
        return tf.concat(flat, axis=1)
    raise TypeError(f"no operation for {type(layer).__name__}")


def _sizes(x: tf.Tensor) -> list[int | tf.Tensor]:
    """Lengths of the axes: numbers where they are known while tracing."""
    dynamic = tf.shape(x)
    return [dynamic[axis] if length is None else length for axis, length in enumerate(x.shape)]


def _pad(x: tf.Tensor, pad: int, value: float) -> tf.Tensor:
    """`pad` pixels of `value` on every side. Measured: faster before an operation than its own explicit padding."""
    return tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]], constant_values=value) if pad else x


def _conv(layer: Conv, x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    if skips_before(layer, x.shape[-1]):
        return tf.nn.conv2d(x[:, :: layer.stride, :: layer.stride], weight, 1, "VALID")
    # "SAME" is these numbers exactly where it depends on no size, and fastest there.
    if layer.stride == 1 and layer.kernel == 2 * layer.pad + 1:
        return tf.nn.conv2d(x, weight, 1, "SAME")
    return tf.nn.conv2d(_pad(x, layer.pad, 0), weight, layer.stride, "VALID")


def _batch_norm(
    name: str, x: tf.Tensor, weights: Mapping[str, tf.Tensor | tf.Variable], running: Tensors | None
) -> tf.Tensor:
    """The fused operator: it normalises with the population variance and gives running statistics of the unbiased one.

    The raw one, as tf.nn's and Keras' raise eps to 1.001e-5.
    """
    result = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=weights[f"{name}.scale"],
        offset=weights[f"{name}.bias"],
        mean=weights[f"{name}.mean"],
        variance=weights[f"{name}.variance"],
        epsilon=1e-5,
        exponential_avg_factor=0.1,
        is_training=running is not None,
    )
    if running is not None:
        running[f"{name}.mean"], running[f"{name}.variance"] = result.batch_mean, result.batch_variance
    return result.y


def _batch_norm_of_all(
    name: str, x: tf.Tensor, weights: Mapping[str, tf.Tensor | tf.Variable], running: Tensors, summed: Summed
) -> tf.Tensor:
    """`_batch_norm` in training mode with the statistics of the batches of all workers."""
    wide = tf.cast(x, tf.float32)
    here = tf.cast(tf.size(wide) // wide.shape[-1], tf.float32)
    total = summed(tf.concat([tf.reduce_sum(wide, [0, 1, 2]), [here]], axis=0))
    count = total[-1]
    mean = total[:-1] / count
    centred = wide - mean
    # In a second pass: the mean of squares less the square of the mean would lose the digits of a small variance.
    variance = summed(tf.reduce_sum(tf.square(centred), [0, 1, 2])) / count
    for part, now in (("mean", mean), ("variance", variance * count / (count - 1))):
        running[f"{name}.{part}"] = 0.9 * weights[f"{name}.{part}"] + 0.1 * now
    y = centred * tf.math.rsqrt(variance + 1e-5) * weights[f"{name}.scale"] + weights[f"{name}.bias"]
    return tf.cast(y, x.dtype)


def _classes(
    logits: tf.Tensor, targets: tf.Tensor, loss: dict[str, object], summed: Summed | None, workers: int
) -> tf.Tensor:
    """The losses of classification and segmentation: logits (..., classes), targets (...), or soft ones (n, classes).

    One worker's part: with `summed`, the sum over all `workers`, the parts add up to the loss of the whole batch.
    """
    summed = summed or tf.identity
    classes = logits.shape[-1]
    logits = tf.reshape(logits, [-1, classes])
    if loss["soft"]:
        keep, truth = tf.ones([1, 1]), targets
    else:
        targets = tf.reshape(targets, [-1])
        keep = tf.cast(targets != loss["ignore"], tf.float32)[:, None]
        truth = tf.one_hot(targets, classes)  # zeros for the label to ignore, as it is no class
    log_p = tf.nn.log_softmax(logits)
    name = loss["name"]
    total = tf.zeros([])
    if name in ("cross_entropy", "cross_entropy_dice"):
        weights = tf.constant(loss["class_weights"] or [1.0] * classes, tf.float32)
        smoothing = loss["label_smoothing"]
        target = ((1 - smoothing) * truth + smoothing / classes * keep) * weights
        mass = summed(tf.reduce_sum(truth * weights))
        total -= tf.reduce_sum(target * log_p) / tf.where(mass > 0, mass, 1.0)
    if name in ("dice", "cross_entropy_dice"):
        p = tf.exp(log_p) * keep
        overlap, size = summed(tf.reduce_sum(p * truth, axis=0)), summed(tf.reduce_sum(p + truth, axis=0))
        total += (1 - tf.reduce_mean((2 * overlap + 1) / (size + 1))) / workers  # the whole batch's, in every worker
    if name == "focal":
        log_p = tf.reduce_sum(log_p * truth, axis=1)  # of the true class
        each = -((-tf.math.expm1(log_p)) ** loss["gamma"]) * log_p
        total += tf.reduce_sum(each) / tf.maximum(summed(tf.reduce_sum(keep)), 1)
    return total


def _detection(
    logits: tf.Tensor, labels: tf.Tensor, distances: tf.Tensor, loss: dict[str, object], summed: Summed | None
) -> tf.Tensor:
    """logits (n, locations, classes + 4), labels (n, locations), distances (n, locations, 4). One worker's part."""
    summed = summed or tf.identity
    scores, raw = logits[..., :-4], logits[..., -4:]
    truth = tf.one_hot(labels, scores.shape[-1])  # zeros for background and what is ignored
    log_p = tf.math.log_sigmoid((2 * truth - 1) * scores)  # of the right answer
    alpha = 0.75 - 0.5 * truth  # 0.25 for an object, 0.75 for background
    focal = -alpha * tf.math.expm1(log_p) ** 2 * log_p
    total = tf.reduce_sum(focal * tf.cast(labels != -2, tf.float32)[..., None])

    # Shapes stay static: where there is no object two equal boxes meet, whose loss is 0.
    objects = labels >= 0
    found = tf.where(objects[..., None], tf.nn.softplus(raw), 1.0)
    wanted = tf.where(objects[..., None], distances, 1.0)
    if loss["box"] in ("giou", "giou_l1"):
        total += loss["box_weight"] * tf.reduce_sum(1 - _giou(found, wanted))
    if loss["box"] in ("l1", "giou_l1"):
        total += loss["box_weight"] * tf.reduce_sum(tf.abs(found - wanted)) / 4
    return total / tf.maximum(summed(tf.reduce_sum(tf.cast(objects, tf.float32))), 1)


def _giou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Generalised IoU (Rezatofighi et al. 2019) of boxes about one centre, as distances (top, left, bottom, right)."""

    def area(d: tf.Tensor) -> tf.Tensor:
        return (d[..., 0] + d[..., 2]) * (d[..., 1] + d[..., 3])

    overlap = area(tf.minimum(a, b))
    union = area(a) + area(b) - overlap
    hull = area(tf.maximum(a, b))
    return overlap / union - (hull - union) / hull


def _export_savedmodel(graph: Graph, weights: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """folder/saved_model: its signature "serving_default" maps images (n, rows, cols, bands) float32, of any size that
    the graph takes, to {"logits": float32}."""
    weight_files.check(graph, weights)
    module = tf.Module()
    module.weights = {name: tf.Variable(_native(array), trainable=trained(name)) for name, array in weights.items()}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, graph.bands], tf.float32, "images")])
    def logits(images: tf.Tensor) -> Tensors:
        return {"logits": _forward(graph, module.weights, images, tf.float32)}

    module.__call__ = logits
    with atomic(folder / "saved_model") as temporary:
        tf.saved_model.save(module, temporary, signatures=logits)
    return [folder / "saved_model"]


def _export_keras(graph: Graph, weights: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """folder/model.keras: a functional model of Keras' own layers, images (n, rows, cols, bands) to logits.

    Inference is the contract's. Training on from it is Keras': its running variance is of another convention.
    """
    weight_files.check(graph, weights)
    image = tf.keras.Input((None, None, graph.bands), name="image")
    values = {"image": image}
    for layer in graph.layers:
        values[layer.name] = _keras_layers(layer, [values[name] for name in inputs_of(layer)])
    model = tf.keras.Model(image, values[graph.output])
    by_layer: dict[str, list[np.ndarray]] = {}
    # weight_shapes has a layer's weights in Keras' order: weight, bias; scale (gamma), bias (beta), mean, variance.
    for name in weight_shapes(graph):
        by_layer.setdefault(name.rsplit(".", 1)[0], []).append(_native(weights[name]))
    for name, arrays in by_layer.items():
        model.get_layer(name).set_weights(arrays)
    with atomic(folder / "model.keras") as temporary, warnings.catch_warnings():
        # From Keras' own arrays, with NumPy 2.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
        model.save(temporary)
    return [folder / "model.keras"]


def _keras_layers(layer: Layer, inputs: list[object]) -> object:
    """Symbolic output of `layer`; the Keras layer that has its weights, if any, has its name."""
    keras = tf.keras.layers
    x, name = inputs[0], layer.name
    if isinstance(layer, (Conv, AveragePool)) and layer.pad:
        x = keras.ZeroPadding2D(layer.pad)(x)
    if isinstance(layer, Conv):
        return keras.Conv2D(layer.filters, layer.kernel, layer.stride, use_bias=layer.bias, name=name)(x)
    if isinstance(layer, ConvTranspose):
        y = keras.Conv2DTranspose(layer.filters, layer.kernel, layer.stride, use_bias=layer.bias, name=name)(x)
        surplus = max(layer.stride - layer.kernel, 0)  # rows and columns that Keras adds at the end
        return keras.Cropping2D(((0, surplus), (0, surplus)))(y) if surplus else y
    if isinstance(layer, Dense):
        return keras.Dense(layer.filters, use_bias=layer.bias, name=name)(x)
    if isinstance(layer, BatchNorm):
        return keras.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
    if isinstance(layer, Relu):
        return keras.ReLU(name=name)(x)
    if isinstance(layer, MaxPool):
        if layer.pad:
            pad = (layer.pad, layer.pad)
            x = tf.keras.ops.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=float(np.finfo(np.float32).min))
        return keras.MaxPooling2D(layer.kernel, layer.stride, name=name)(x)
    if isinstance(layer, AveragePool):
        return keras.AveragePooling2D(layer.kernel, layer.stride, name=name)(x)
    if isinstance(layer, GlobalMean):
        return keras.GlobalAveragePooling2D(name=name)(x)
    if isinstance(layer, Resize):
        return keras.UpSampling2D(layer.factor, interpolation=layer.method, name=name)(x)
    if isinstance(layer, Add):
        return keras.Add(name=name)(inputs)
    if isinstance(layer, Concat):
        return keras.Concatenate(name=name)(inputs)
    if isinstance(layer, Locations):
        return keras.Concatenate(axis=1, name=name)([keras.Reshape((-1, level.shape[-1]))(level) for level in inputs])
    raise TypeError(f"no Keras layer for {type(layer).__name__}")


EXPORTS = {"keras": _export_keras, "savedmodel": _export_savedmodel}
