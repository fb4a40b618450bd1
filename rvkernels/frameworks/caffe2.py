"""Caffe2, as in the last wheels of PyTorch that hold it (1.10, Python 3.9): float32 on the CPU, channels first.

Each model has a workspace of its own with three nets, made once: `train` (forward, loss, gradients by
AddGradientOperators), `update` (the optimizer) and `predict`; and two that sum the gradients of micro-batches, where
there are several, `first` and `more`. A step feeds images and targets and runs the first two.
What a loss needs of the targets (one-hot rows, masks, counts) is prepared in NumPy; no loss and no gradient is.

Where Caffe2 differs from the contract, and what is done instead:

* MomentumSGDUpdate keeps lr * g in its momentum, which a changing lr does not forget; here MomentumSGD runs with the
  rate 1 and WeightedSum applies the rate.
* Adam's eps is not corrected for the first steps, and weight decay is no part of it; here WeightedSum, Sqr, Sqrt, Add
  and Div make the step.
* MaxPoolGradient gives the whole gradient to each of several equal pixels of a window, as there are on flat ground;
  here it reads maps in which no two positive pixels of a window are equal, so that the first gets it. Zeros, whose
  gradient a ReLU stops, and what is negative would be another matter: a MaxPool has to stand behind a ReLU.
* UpsampleBilinear aligns corners; here a transposed convolution with a fixed kernel samples at pixel centres.
* SoftmaxWithLoss adds the losses and the weights of all pixels one by one in float32; here the value that is reported
  is summed row by row, and the rounding of the sum of weights is taken out of the gradient.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import itertools
import os
import re
import warnings
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Callable, Union

import numpy as np

from rvkernels import weights as weight_files
from rvkernels.files import atomic
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
    channels,
    inputs_of,
    shapes,
    trained,
    weight_shapes,
)

TITLE = "Caffe2"
COLOR = "#009e73"


def _mkl_cpu_type(cpuinfo: str) -> str | None:
    """What MKL is to take the processor for, given the text of /proc/cpuinfo; None: what it finds itself.

    The MKL of these wheels (2020.0) uses no AVX on processors that are not Intel's, but obeys MKL_DEBUG_CPU_TYPE: 7 is
    AVX-512, 5 is AVX2. Convolutions then take half of the time.
    """
    fields = dict(re.findall(r"^(vendor_id|flags)\s*:\s*(.*)$", cpuinfo, re.MULTILINE))
    flags = set(fields.get("flags", "").split())
    if fields.get("vendor_id") == "GenuineIntel":
        return None
    if flags.issuperset(("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        return "7"
    return "5" if "avx2" in flags else None


_CPUINFO = Path("/proc/cpuinfo")
_CPU_TYPE = _mkl_cpu_type(_CPUINFO.read_text()) if _CPUINFO.exists() else None
if _CPU_TYPE:
    os.environ.setdefault("MKL_DEBUG_CPU_TYPE", _CPU_TYPE)  # read when MKL first computes

# core.Net imports net_builder, which names types by aliases that NumPy 1.20 deprecates, when it is first called.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"`np\.\w+` is a deprecated alias", DeprecationWarning)
    from caffe2.python import core, workspace

    importlib.import_module("caffe2.python.net_builder")

Arrays = dict[str, np.ndarray]
Blob = Union[str, core.BlobReference]

# Blobs by name: "image" (n, bands, rows, cols) and "logits" (as Graph.output describes) cross the border; weights have
# their canonical names, the map that a layer makes is "<layer>.out".
_IMAGE, _LOGITS, _LOSS = "image", "logits", "loss"

_NUMBERS = itertools.count()  # of workspaces
_threads = 0  # of this process; 0 before the first model


class Framework(Base):
    """One model in Caffe2; the contract is frameworks/__init__.py.

    Deterministic for a number of threads, which is one for the whole process: the last model made sets it.
    """

    layout = "NCHW"

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
                f"framework 'caffe2' computes in float32 on the CPU and runs its nets as they are; it takes device "
                f"'cpu', precision 'float32' and no compile; got {device!r}, {precision!r}, {compile}"
            )
        weight_files.check(graph, weights)
        _set_threads(threads)
        self._workspace = f"rvkernels{next(_NUMBERS)}"
        weakref.finalize(self, _free, self._workspace).atexit = False
        train, gradients, constants = _train_net(graph, self._loss)
        nets = {"train": train}
        if accumulate > 1:
            nets["first"], nets["more"], gradients = _sum_nets(gradients)
        nets["update"], scalars = _update_net(gradients, self._optimizer)
        nets["predict"] = _predict_net(graph)
        _share_blobs(nets["predict"], [_LOGITS])
        self._gradients = gradients
        self._size: tuple[int, ...] = ()  # rows and columns of the training images last seen
        self._nets = {name: net.Name() for name, net in nets.items()}
        with self._inside():
            # An operator is made only when the blobs that it reads are there.
            for net in nets.values():
                for blob in net.Proto().external_input:
                    workspace.C.create_blob(str(blob))
            for name, array in {**constants, **scalars}.items():
                workspace.FeedBlob(name, array)
            for net in nets.values():
                workspace.CreateNet(net)
        self.load(weights)

    def step(self, images: np.ndarray, targets: tuple[np.ndarray, ...], lr: float) -> float:
        """One optimizer step in training mode; the loss before it."""
        with self._inside():
            loss = self._differentiate(images, targets)
            self._steps += 1
            for name, value in _rates(self._optimizer, lr, self._steps).items():
                workspace.FeedBlob(name, _scalar(value))
            workspace.RunNet(self._nets["update"])
        return loss

    def differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        """The forward and backward pass of `step` alone; the loss."""
        with self._inside():
            return self._differentiate(images, targets)

    def gradients(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients by weight name in training mode; no weight, state or running statistic changes."""
        with self._inside():
            running = {name: workspace.FetchBlob(name) for name in weight_shapes(self._graph) if not trained(name)}
            loss = self._differentiate(images, targets)
            found = {name: workspace.FetchBlob(blob) for name, blob in self._gradients.items()}
            for name, array in running.items():
                workspace.FeedBlob(name, array)
        return loss, found

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, in inference mode, in the form that Graph.output describes."""
        self._check(images)
        with self._inside():
            workspace.FeedBlob(_IMAGE, np.ascontiguousarray(images))
            workspace.RunNet(self._nets["predict"])
            return workspace.FetchBlob(_LOGITS)

    def weights(self) -> dict[str, np.ndarray]:
        """Copies, float32, under canonical names and in canonical layouts."""
        with self._inside():
            return {name: workspace.FetchBlob(name) for name in weight_shapes(self._graph)}

    def state(self) -> dict[str, np.ndarray]:
        """Copies of what the optimizer keeps between steps; see frameworks/__init__.py."""
        if not self._steps:
            return {}
        with self._inside():
            found = {name: workspace.FetchBlob(name) for name in self._kept}
        if self._optimizer["name"] == "adamw":
            found["t"] = np.array(self._steps, dtype=np.int64)
        return found

    def load(self, weights: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None) -> None:
        """Continue from `weights` and `state` (None: a fresh optimizer)."""
        weight_files.check(self._graph, weights)
        parts = check_state(state, self._optimizer, weights)
        self._kept = [f"{part}/{name}" for name in self._gradients for part in parts]
        with self._inside():
            for name in weight_shapes(self._graph):
                workspace.FeedBlob(name, _float32(weights[name]))
            for kept in self._kept:
                name = kept.split("/", 1)[1]
                workspace.FeedBlob(kept, _float32(state[kept] if state else np.zeros_like(weights[name])))
        self._steps = int(state.get("t", 1)) if state else 0

    def wait(self) -> None:
        """Nothing runs behind the caller's back."""

    @staticmethod
    def versions() -> dict[str, str]:
        """Versions of Caffe2 and its compute library, and with which operators it makes the contract's updates."""
        options = workspace.C.get_build_options()
        return {
            "caffe2": f"of PyTorch {options['TORCH_VERSION']}",
            "operators": str(len(workspace.RegisteredOperators())),
            "blas": options["BLAS_INFO"],
            "mkl_cpu_type": os.environ.get("MKL_DEBUG_CPU_TYPE", "found by MKL"),
            "sgd": "MomentumSGD with the rate 1, the rate by WeightedSum",
            "adamw": "elementwise operators; Caffe2's Adam corrects eps and decays weights differently",
        }

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Work in the model's own workspace."""
        outside = workspace.CurrentWorkspace()
        workspace.SwitchWorkspace(self._workspace, True)
        try:
            yield
        finally:
            workspace.SwitchWorkspace(outside)

    def _differentiate(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        """The loss in training mode; leaves gradients in their blobs and moves the running statistics."""
        self._check(images, targets)
        loss = 0.0
        for number, (part, truth, share) in enumerate(self._micro_batches(images, targets)):
            loss += share * self._differentiate_part(part, truth)
            if self._accumulate > 1:
                workspace.FeedBlob("share", _scalar(share))
                workspace.RunNet(self._nets["more" if number else "first"])
        return loss

    def _differentiate_part(self, images: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
        self._check_norms(images)
        if images.shape[2:] != self._size:
            self._size = images.shape[2:]
            for name, array in _orders(self._graph, *self._size).items():
                workspace.FeedBlob(name, array)
        workspace.FeedBlob(_IMAGE, np.ascontiguousarray(images))
        for name, array in _PREPARE[self._loss["name"]](targets, self._graph.classes, self._loss).items():
            workspace.FeedBlob(name, array)
        workspace.RunNet(self._nets["train"])
        return float(workspace.FetchBlob(_LOSS))

    def _check_norms(self, images: np.ndarray) -> None:
        """Raise ValueError where SpatialBN would divide by n - 1 = 0; a batch of two images never does."""
        if len(images) > 1:
            return
        sizes = shapes(self._graph, *images.shape[2:])
        for layer in self._graph.layers:
            if isinstance(layer, BatchNorm) and sizes[layer.name][:2] == (1, 1):
                raise ValueError(f"BatchNorm {layer.name!r}: one value per channel has no variance; use larger batches")


def _set_threads(threads: int) -> None:
    """Compute with `threads` threads from now on, in all of the process.

    Caffe2 takes the number from its flags, once; a later one goes to the OpenMP and MKL that it is linked with.
    """
    global _threads
    if not _threads:
        flags = [f"--caffe2_{library}_num_threads={threads}" for library in ("omp", "mkl")]
        workspace.GlobalInit(["caffe2", "--caffe2_log_level=3", *flags])
    elif threads != _threads:
        folder = importlib.util.find_spec("torch").submodule_search_locations[0]
        linked = ctypes.CDLL(str(Path(folder, "lib", "libtorch_cpu.so")))
        linked.omp_set_num_threads(threads)
        linked.MKL_Set_Num_Threads(threads)
    _threads = threads


def _free(name: str) -> None:
    """Drop all blobs and nets of the workspace `name`."""
    outside = workspace.CurrentWorkspace()
    workspace.SwitchWorkspace(name, True)
    workspace.ResetWorkspace()
    workspace.SwitchWorkspace(outside)


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)


def _scalar(value: float) -> np.ndarray:
    """(1,) float32: what operators take where they want one number."""
    return np.array([value], dtype=np.float32)


# --- nets ----------------------------------------------------------------------------------------------------------


def _train_net(graph: Graph, loss: dict[str, object]) -> tuple[core.Net, dict[str, str], Arrays]:
    """Forward pass, loss and gradients: the net, the gradient's blob of every trained weight, constants to feed."""
    _check_pools(graph)
    net = core.Net("train")
    logits = _output(net, graph, _forward(net, graph, training=True), net.NextName("logits"))
    minimised, reported = _LOSSES[graph.task](net, logits, graph.classes, loss)
    net.Copy(reported, _LOSS)
    found = net.AddGradientOperators([minimised])
    _break_ties(net)
    gradients = {name: str(found[name]) for name in weight_shapes(graph) if trained(name)}
    _drop_unread(net, [_LOSS, *gradients.values()])
    _share_blobs(net, [_LOSS, *gradients.values()])
    return net, gradients, {**_kernels(graph), **_constants(graph.classes)}


def _sum_nets(gradients: dict[str, str]) -> tuple[core.Net, core.Net, dict[str, str]]:
    """Nets that write and that add "share" times the gradients of a micro-batch to sums, and the blobs of these."""
    first, more = core.Net("first"), core.Net("more")
    sums = {name: f"{name}.sum" for name in gradients}
    for name, total in sums.items():
        first.WeightedSum([gradients[name], "share"], total)
        more.WeightedSum([total, "one", gradients[name], "share"], total)
    return first, more, sums


def _check_pools(graph: Graph) -> None:
    """Raise ValueError for a MaxPool of maps that may be negative; see the module on equal pixels."""
    layers = {layer.name: layer for layer in graph.layers}
    for layer in graph.layers:
        source = layer
        while isinstance(source, MaxPool):
            source = layers.get(source.input)
        if isinstance(layer, MaxPool) and not isinstance(source, Relu):
            raise ValueError(
                f"framework 'caffe2': MaxPool {layer.name!r} reads {layer.input!r}, which is no ReLU; of equal "
                f"pixels below zero another would get the gradient than elsewhere: put a ReLU before it"
            )


def _predict_net(graph: Graph) -> core.Net:
    net = core.Net("predict")
    net.AddExternalOutput(_output(net, graph, _forward(net, graph, training=False), _LOGITS))
    return net


def _forward(net: core.Net, graph: Graph, *, training: bool) -> str:
    """Add the operators of all layers; the blob of the output layer, channels first."""
    into = channels(graph)
    kinds = {layer.name: layer for layer in graph.layers}
    readers = [name for layer in graph.layers for name in inputs_of(layer)] + [graph.output]
    blobs = {_IMAGE: _IMAGE}
    fixed = {_IMAGE}  # what no weight has touched, so that no gradient is wanted
    for layer in graph.layers:
        names = inputs_of(layer)
        blob = f"{layer.name}.out"
        source = kinds.get(names[0])
        if (
            isinstance(layer, Relu)
            and isinstance(source, (Conv, ConvTranspose, BatchNorm, Add))
            and readers.count(source.name) == 1
        ):
            blob = blobs[source.name]  # the gradients of these do not need their own output
        _add_layer(net, layer, [blobs[name] for name in names], blob, into[names[0]], training, fixed.issuperset(names))
        blobs[layer.name] = blob
        if fixed.issuperset(names) and not isinstance(layer, (Conv, ConvTranspose, BatchNorm, Dense)):
            fixed.add(layer.name)
    return blobs[graph.output]


def _add_layer(
    net: core.Net, layer: Layer, inputs: list[str], blob: str, into: int, training: bool, fixed: bool
) -> None:
    """Add operators that write `blob`; `into`: channels of the first input, `fixed`: no input wants a gradient."""
    name, x = layer.name, inputs[0]
    weights = [f"{name}.weight", f"{name}.bias"] if getattr(layer, "bias", False) else [f"{name}.weight"]
    if isinstance(layer, Conv):
        window = {"kernel": layer.kernel, "stride": layer.stride, "pad": layer.pad}
        net.Conv([x, *weights], blob, shared_buffer=1, no_gradient_to_input=int(fixed), **window)
    elif isinstance(layer, ConvTranspose):
        net.ConvTranspose([x, *weights], blob, kernel=layer.kernel, stride=layer.stride)
    elif isinstance(layer, BatchNorm):
        parts = [f"{name}.{part}" for part in ("scale", "bias", "mean", "variance")]
        outputs = [blob, *parts[2:], f"{name}.batch_mean", f"{name}.batch_deviation"] if training else [blob]
        net.SpatialBN([x, *parts], outputs, epsilon=1e-5, momentum=0.9, is_test=int(not training))
    elif isinstance(layer, Relu):
        net.Relu(x, blob)
    elif isinstance(layer, MaxPool):
        net.MaxPool(x, blob, kernel=layer.kernel, stride=layer.stride, pad=layer.pad)
    elif isinstance(layer, AveragePool):
        window = {"kernel": layer.kernel, "stride": layer.stride, "pad": layer.pad}
        net.AveragePool(x, blob, count_include_pad=1, **window)
    elif isinstance(layer, GlobalMean):
        net.ReduceBackMean(x, blob, num_reduce_dim=2)
    elif isinstance(layer, Resize) and layer.method == "nearest":
        net.ResizeNearest(x, blob, width_scale=float(layer.factor), height_scale=float(layer.factor))
    elif isinstance(layer, Resize):
        _add_bilinear(net, x, blob, into, layer.factor)
    elif isinstance(layer, Add):
        net.Sum(inputs, blob)
    elif isinstance(layer, Concat):
        net.Concat(inputs, [blob, f"{blob}.split"], axis=1)
    elif isinstance(layer, Dense) and layer.bias:
        net.FC([x, *weights], blob)
    elif isinstance(layer, Dense):
        net.MatMul([x, *weights], blob, trans_b=1)
    elif isinstance(layer, Locations):
        levels = [_reshape(net, net.NCHW2NHWC(level), (0, -1, into)) for level in inputs]
        net.Concat(levels, [blob, f"{blob}.split"], axis=1)
    else:
        raise TypeError(f"no operators for {type(layer).__name__}")


def _add_bilinear(net: core.Net, x: str, blob: str, width: int, factor: int) -> None:
    """Every channel as an image of its own, one pixel of edge repeated, spread by a triangle, the edge cut off."""
    kernel = 2 * factor - factor % 2
    planes = net.PadImage(_reshape(net, x, (-1, 1, 0, 0)), 1, pad=1, mode="edge")
    cut = factor + (kernel - factor) // 2
    planes = net.ConvTranspose([planes, f"bilinear{factor}"], 1, kernel=kernel, stride=factor, pad=cut)
    net.Reshape(planes, [blob, f"{blob}.shape"], shape=[-1, width, 0, 0])


def _kernels(graph: Graph) -> Arrays:
    """The fixed kernels (1, 1, k, k) of bilinear resizing, by blob."""
    found = {}
    for layer in graph.layers:
        if isinstance(layer, Resize) and layer.method == "bilinear":
            size = 2 * layer.factor - layer.factor % 2
            triangle = 1 - np.abs(np.arange(size) - (size - 1) / 2) / layer.factor
            found[f"bilinear{layer.factor}"] = _float32(np.outer(triangle, triangle))[None, None]
    return found


def _output(net: core.Net, graph: Graph, x: Blob, blob: Blob) -> Blob:
    """Write the logits, in the form that Graph.output describes, to `blob`."""
    return net.NCHW2NHWC(x, blob) if graph.task == "segmentation" else net.Copy(x, blob)


def _reshape(net: core.Net, x: Blob, shape: tuple[int, ...]) -> Blob:
    """0 keeps an axis, -1 takes what is left."""
    return net.Reshape(x, 2, shape=shape)[0]


def _reshape_like(net: core.Net, x: Blob, like: Blob) -> Blob:
    return net.Reshape([x, net.Shape(like)], 2)[0]


def _break_ties(net: core.Net) -> None:
    """Let MaxPoolGradient read maps times `_orders` in place of the maps."""
    operators = []
    for operator in net.Proto().op:
        if operator.type == "MaxPoolGradient":
            x, y = operator.input[:2]
            order = f"{y[: -len('.out')]}.order"
            ordered, pooled = f"{order}.map", f"{order}.out"
            operators.append(core.CreateOperator("Mul", [x, order], [ordered]))
            operators.append(core.CreateOperator("MaxPool", [ordered], [pooled], arg=list(operator.arg)))
            operator.input[:2] = [ordered, pooled]
            net.Proto().external_input.append(order)
        operators.append(operator)
    _replace(net, operators)


def _orders(graph: Graph, rows: int, cols: int) -> Arrays:
    """Factors (rows, cols) of the map that each MaxPool reads, by blob: 1 + j / 2^22, with another j for every pixel of
    a window, so that equal numbers come to differ by a few units in the last place. Where windows do not overlap the
    first of equals, in row-major order, becomes the largest.
    """
    sizes = shapes(graph, rows, cols)
    found = {}
    for layer in graph.layers:
        if isinstance(layer, MaxPool):
            row, col = ((np.arange(length) + layer.pad) % layer.kernel for length in sizes[layer.input][:2])
            last = layer.kernel**2 - 1 - layer.kernel * row[:, None] - col
            found[f"{layer.name}.order"] = _float32(1 + last / 2**22)
    return found


def _drop_unread(net: core.Net, wanted: Iterable[str]) -> None:
    """Remove operators that nothing `wanted` depends on, such as gradients of targets and of constants."""
    needed, kept = set(wanted), []
    for operator in reversed(net.Proto().op):
        if needed.intersection(operator.output):
            needed.difference_update(operator.output)
            needed.update(operator.input)
            kept.append(operator)
    kept.reverse()
    _replace(net, kept)


# Outputs that hold integers, by operator: a blob that changes its type is allocated anew.
_INTEGERS = {"Concat": 1, "Reshape": 1, "Shape": 0}


def _share_blobs(net: core.Net, wanted: Iterable[str]) -> None:
    """Let blobs that are not needed at the same time be one, as memory is kept for every blob between runs.

    Blobs from outside the net and those `wanted` afterwards stay. An output never takes the place of an input of its
    own operator.
    """
    operators = list(net.Proto().op)
    outside, made = set(wanted), set()
    for operator in operators:
        outside.update(set(operator.input) - made)
        made.update(operator.output)
        if operator.type in _INTEGERS:
            outside.add(operator.output[_INTEGERS[operator.type]])
    last = {blob: i for i, operator in enumerate(operators) for blob in (*operator.input, *operator.output)}
    places: dict[str, str] = {}
    free: list[str] = []
    count = itertools.count()
    for i, operator in enumerate(operators):
        for blob in operator.output:
            if blob not in outside and blob not in places:
                places[blob] = free.pop() if free else f"{net.Name()}.shared{next(count)}"
        used = {*operator.input, *operator.output}
        for blobs in (operator.input, operator.output):
            blobs[:] = [places.get(blob, blob) for blob in blobs]
        free += [places.pop(blob) for blob in sorted(used & places.keys()) if last[blob] == i]
    _replace(net, operators)


def _replace(net: core.Net, operators: list) -> None:
    """Make `operators` the net's."""
    fresh = [type(operator).FromString(operator.SerializeToString()) for operator in operators]
    del net.Proto().op[:]
    net.Proto().op.extend(fresh)


# --- losses --------------------------------------------------------------------------------------------------------
# A loss adds operators and returns two blobs: what is minimised, and the value that is reported. Both are the same
# number but for rounding.


def _constants(classes: int) -> Arrays:
    return {
        "one": _scalar(1),
        "two": _scalar(2),
        "identity": np.eye(classes, dtype=np.float32),
        "column": np.ones((classes, 1), dtype=np.float32),
    }


def _add_classes(net: core.Net, logits: Blob, classes: int, loss: dict[str, object]) -> tuple[Blob, Blob]:
    """The losses of classification and segmentation: logits (..., classes)."""
    rows = _reshape(net, logits, (-1, classes))
    if loss["name"] == "cross_entropy":
        return _add_cross_entropy(net, rows, loss)
    if loss["name"] == "focal":
        focal = _add_focal(net, rows, loss)
        return focal, focal
    dice = _add_dice(net, rows)
    if loss["name"] == "dice":
        return dice, dice
    minimised, reported = _add_cross_entropy(net, rows, loss)
    return net.Add([minimised, dice]), net.Add([reported, dice])


def _add_cross_entropy(net: core.Net, rows: Blob, loss: dict[str, object]) -> tuple[Blob, Blob]:
    if loss["label_smoothing"] or loss["soft"]:
        p, mean = net.SoftmaxWithLoss([rows, "target", "weight"], 2, label_prob=1)
        each = net.CrossEntropy([p, "target"])
    else:
        p, mean = net.SoftmaxWithLoss([rows, "target", "weight"], 2)
        each = net.LabelCrossEntropy([p, "target"])
    return net.Mul([mean, "mean_factor"]), net.Mul([_add_sum(net, each, "weight"), "sum_factor"])


def _add_sum(net: core.Net, each: Blob, weight: Blob) -> Blob:
    """The sum of each * weight, of as many numbers. Rows of `weight` (rows, cols) are summed first: a single sum of all
    pixels, as MatMul and SumElements make it, is off by thousandths in float32."""
    return net.SumElements(net.DotProduct([_reshape_like(net, each, weight), weight]))


def _prepare_cross_entropy(targets: tuple[np.ndarray, ...], classes: int, loss: dict[str, object]) -> Arrays:
    """Rows of the loss are weighted means over the classes, of target_k = w_k t_k / weight with weight = sum w_k t_k;
    their sum is divided by the mass, the sum of w[y]."""
    if loss["soft"]:
        of_class = np.ones(classes) if loss["class_weights"] is None else np.array(loss["class_weights"])
        target, total = _smoothed(targets[0].astype(np.float64), of_class, loss)
        return _feeds(target, _float32(total)[None], float((targets[0] @ of_class).sum()))
    labels = targets[0].reshape(-1)
    keep = labels != loss["ignore"]
    target = np.where(keep, labels, 0)
    if loss["class_weights"] is None:
        weight = keep.astype(np.float32)
        mass = float(np.count_nonzero(keep))
    else:
        of_class = np.array(loss["class_weights"])
        weight = (of_class[target] * keep).astype(np.float32)
        mass = float(np.bincount(target[keep], minlength=classes) @ of_class)
    if loss["label_smoothing"]:
        of_class = np.ones(classes) if loss["class_weights"] is None else of_class
        soft, total = _smoothed(np.eye(classes), of_class, loss)  # one row per class of the target
        weight = (total[target] * keep).astype(np.float32)
        target = soft[target]
    return _feeds(target, weight.reshape(-1, targets[0].shape[-1]), mass)


def _smoothed(truth: np.ndarray, of_class: np.ndarray, loss: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (k, classes) float32 that add up to 1, and what each was multiplied by for it, of true shares `truth`."""
    classes = len(of_class)
    soft = ((1 - loss["label_smoothing"]) * truth + loss["label_smoothing"] / classes) * of_class
    total = soft.sum(axis=1)
    rows = np.where(total[:, None] > 0, soft / np.where(total, total, 1)[:, None], 1 / classes)
    return _float32(rows), total


def _feeds(target: np.ndarray, weight: np.ndarray, mass: float) -> Arrays:
    """What the operators of cross-entropy read; `weight` (rows, cols) of each target."""
    # SoftmaxWithLoss divides by the sum of weights added one by one in float32, as cumsum adds them.
    added = float(np.cumsum(weight.reshape(-1), dtype=np.float32)[-1])
    return {
        "target": target,
        "weight": weight,
        "mean_factor": _scalar(added / mass if mass else 0),
        "sum_factor": _scalar(1 / mass if mass else 0),
    }


def _add_dice(net: core.Net, rows: Blob) -> Blob:
    # Rows of `confusion` are true classes, columns the probability mass given to each.
    p = _reshape_like(net, net.Softmax(rows, axis=1), "one_hot")
    confusion = net.ReduceSum(net.BatchMatMul(["one_hot", p], trans_a=1), axes=[0], keepdims=0)
    overlap = net.ReduceSum(net.Mul([confusion, "identity"]), axes=[0], keepdims=0)
    above = net.Add([net.Scale(overlap, scale=2.0), "one"])
    below = net.Add([net.ReduceSum(confusion, axes=[0], keepdims=0), "one_and_count"])
    return net.Sub(["one", net.ReduceMean(net.Div([above, below]), axes=[0], keepdims=1)])


def _prepare_dice(targets: tuple[np.ndarray, ...], classes: int, loss: dict[str, object]) -> Arrays:
    one_hot = _one_hot(targets[0].reshape(-1, targets[0].shape[-1]), classes)
    return {"one_hot": one_hot, "one_and_count": _float32(1 + one_hot.sum(axis=(0, 1), dtype=np.float64))}


def _add_focal(net: core.Net, rows: Blob, loss: dict[str, object]) -> Blob:
    largest = net.StopGradient(net.ReduceMax(rows, axes=[1], keepdims=1))
    rows = net.Sub([rows, largest])
    # Sums over the classes by matrix product, which is faster forth and back than ReduceSum.
    total = net.Log(net.MatMul([net.Exp(rows), "column"]))
    loss_of_true = net.Sub([total, net.MatMul([net.Mul([rows, "one_hot"]), "column"])])
    p = net.Exp(net.Scale(loss_of_true, scale=-1.0))
    each = net.Mul([net.Pow(net.Sub(["one", p]), exponent=float(loss["gamma"])), loss_of_true])
    return _add_sum(net, each, "weight")


def _prepare_focal(targets: tuple[np.ndarray, ...], classes: int, loss: dict[str, object]) -> Arrays:
    labels = targets[0].reshape(-1)
    keep = labels != loss["ignore"]
    weight = _float32(keep / max(1, np.count_nonzero(keep)))
    return {"one_hot": _one_hot(labels, classes), "weight": weight.reshape(-1, targets[0].shape[-1])}


def _prepare_both(targets: tuple[np.ndarray, ...], classes: int, loss: dict[str, object]) -> Arrays:
    return {**_prepare_cross_entropy(targets, classes, loss), **_prepare_dice(targets, classes, loss)}


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(..., classes) float32; all 0 where a label is no class."""
    return (labels[..., None] == np.arange(classes, dtype=labels.dtype)).astype(np.float32)


def _add_detection(net: core.Net, logits: Blob, classes: int, loss: dict[str, object]) -> tuple[Blob, Blob]:
    """logits (n, locations, classes + 4)."""
    scores, raw = net.Split(logits, 2, axis=2, split=[classes, 4])
    scores = _reshape(net, scores, (-1, 1))
    each = net.SigmoidCrossEntropyWithLogits([scores, "truth"])
    missing = _reshape(net, net.Sqr(net.Sub([net.Sigmoid(scores), "truth"])), (-1,))
    terms = [_add_sum(net, net.Mul([missing, each]), "alpha")]

    chosen = net.Gather([_reshape(net, raw, (-1, 4)), "places"], dense_gradient=1)
    chosen = _reshape(net, chosen, (-1, 1))
    # The loss of answering 0 is softplus, here without the overflow of the operator Softplus.
    found = net.SigmoidCrossEntropyWithLogits([chosen, net.ConstantFill(chosen, value=0.0)])
    found = _reshape(net, found, (-1, 4))
    if loss["box"] in ("giou", "giou_l1"):
        box = net.Mul([net.Sub(["two", _add_overlaps(net, found, "wanted")]), "box_weight"])
        terms.append(net.Scale(net.SumElements(box), scale=float(loss["box_weight"])))
    if loss["box"] in ("l1", "giou_l1"):
        box = net.Mul([net.Abs(net.Sub([found, "wanted"])), "box_weight"])
        terms.append(net.Scale(net.SumElements(box), scale=loss["box_weight"] / 4))
    total = net.Sum(terms)
    return total, total


def _add_overlaps(net: core.Net, a: Blob, b: Blob) -> Blob:
    """(k, 1): 1 + GIoU (Rezatofighi et al. 2019) of boxes about one centre, as distances (top, left, bottom, right)."""

    def area(distances: Blob) -> Blob:
        sides = net.ReduceSum(_reshape(net, distances, (-1, 2, 2)), axes=[1], keepdims=0)
        return net.Mul(net.Split(sides, 2, axis=1))

    overlap = area(net.Min([a, b]))
    union = net.Sub([net.Add([area(a), area(b)]), overlap])
    hull = area(net.Max([a, b]))
    return net.Add([net.Div([overlap, union]), net.Div([union, hull])])


def _prepare_detection(targets: tuple[np.ndarray, ...], classes: int, loss: dict[str, object]) -> Arrays:
    labels, distances = targets[0].reshape(-1), targets[1].reshape(-1, 4)
    truth = _one_hot(labels, classes)
    places = np.flatnonzero(labels >= 0).astype(np.int32)
    count = max(1, len(places))
    alpha = (0.75 - 0.5 * truth) * (labels != -2)[:, None] / count  # 0.25 for an object, 0.75 for background
    found = {"truth": truth.reshape(-1, 1), "alpha": _float32(alpha).reshape(len(targets[0]), -1)}
    wanted, weight = distances[places], np.full((len(places), 1), 1 / count, dtype=np.float32)
    if not len(places):  # operators do not take empty blobs: any box, of weight 0, stands in
        places = np.zeros(1, dtype=np.int32)
        wanted, weight = np.ones((1, 4), dtype=np.float32), np.zeros((1, 1), dtype=np.float32)
    return {**found, "places": places, "wanted": wanted, "box_weight": weight}


_LOSSES = {"classification": _add_classes, "segmentation": _add_classes, "detection": _add_detection}
_PREPARE: dict[str, Callable[[tuple[np.ndarray, ...], int, dict[str, object]], Arrays]] = {
    "cross_entropy": _prepare_cross_entropy,
    "dice": _prepare_dice,
    "cross_entropy_dice": _prepare_both,
    "focal": _prepare_focal,
    "detection": _prepare_detection,
}


# --- optimizers ----------------------------------------------------------------------------------------------------


def _update_net(gradients: dict[str, str], optimizer: dict[str, object]) -> tuple[core.Net, Arrays]:
    """The net that moves all weights along their gradients, and the scalars it reads beside those of `_rates`."""
    net = core.Net("update")
    scalars = {"one": 1.0, "minus_one": -1.0, "decay": optimizer["weight_decay"]}
    if optimizer["name"] == "adamw":
        for name in ("beta1", "beta2"):
            scalars.update({name: optimizer[name], f"rest_{name}": 1 - optimizer[name]})
    if optimizer["clip"] is not None:
        squares = [net.SumSqrElements(g) for g in gradients.values()]
        norm = net.Sqrt(net.Sum(squares))
        for g in gradients.values():
            net.ClipTensorByScaling([g, norm], g, threshold=optimizer["clip"])
    for name, g in gradients.items():
        decays = optimizer["weight_decay"] > 0 and name.endswith(".weight")
        if optimizer["name"] == "sgd":
            if decays:
                net.WeightedSum([g, "one", name, "decay"], g)
            if optimizer["momentum"]:
                v, settings = f"v/{name}", {key: optimizer[key] for key in ("momentum", "nesterov")}
                net.MomentumSGD([g, v, "one"], [g, v], **settings)
            net.WeightedSum([name, "one", g, "minus_rate"], name)
        else:
            m, s = f"m/{name}", f"s/{name}"
            net.WeightedSum([m, "beta1", g, "rest_beta1"], m)
            net.WeightedSum([s, "beta2", net.Sqr(g, g), "rest_beta2"], s)
            move = net.Div([m, net.Add([net.Sqrt(s, g), "eps"], g)], "move")
            if decays:
                net.WeightedSum([move, "rate", name, "rate_decay"], move)
                net.WeightedSum([name, "one", move, "minus_one"], name)
            else:
                net.WeightedSum([name, "one", move, "minus_rate"], name)
    return net, {name: _scalar(value) for name, value in scalars.items()}


def _rates(optimizer: dict[str, object], lr: float, t: int) -> dict[str, float]:
    """Scalars of step t, counted from 1.

    For AdamW the corrections of m and s are taken into the rate and into eps: m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) +
    eps) = sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(s) + eps sqrt(1 - b2^t)).
    """
    if optimizer["name"] == "sgd":
        return {"minus_rate": -lr}
    root = (1 - optimizer["beta2"] ** t) ** 0.5
    rate = lr * root / (1 - optimizer["beta1"] ** t)
    decay = lr * optimizer["weight_decay"]
    return {"rate": rate, "minus_rate": -rate, "rate_decay": decay, "eps": optimizer["eps"] * root}


# --- export --------------------------------------------------------------------------------------------------------


def export(graph: Graph, weights: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Write init_net.pb and predict_net.pb into `folder`, as caffe2.python.workspace and Caffe2's Predictor load them.

    init_net fills the weights by GivenTensorFill; predict_net reads the blob "image", float32 (n, bands, rows, cols) of
    any n and any size that the model takes, and writes "logits" in the form that Graph.output describes.
    """
    weight_files.check(graph, weights)
    start = core.Net("init")
    start.ConstantFill([], _IMAGE, shape=[1])  # a net is made only when the blobs that it reads are there
    for name, array in {**weights, **_kernels(graph)}.items():
        start.GivenTensorFill([], name, shape=array.shape, values=_float32(array).reshape(-1))
    written = []
    for net, name in ((start, "init_net.pb"), (_predict_net(graph), "predict_net.pb")):
        with atomic(Path(folder, name)) as temporary:
            temporary.write_bytes(net.Proto().SerializeToString())
        written.append(Path(folder, name))
    return written


EXPORTS = {"caffe2": export}
