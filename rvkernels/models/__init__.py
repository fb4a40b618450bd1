"""Models as data: a graph of layers from a small vocabulary, read by every framework.

`rvkernels/models/<name>.py` has `TASK` and `graph(bands, classes, *, ...) -> Graph`; its keyword-only parameters are
the settings a study may give. Layers are in order of computation and name their inputs; the first input is "image".

Conventions that frameworks default differently (every framework obeys, tests/frameworks/test_contract.py checks):

* images and feature maps cross as (n, rows, cols, channels) float32; a framework may work in another layout inside
* Conv: cross-correlation, zero padding of `pad` pixels on every side (a number, never "same"), weight (out, in, kh, kw)
* ConvTranspose: weight (in, out, kh, kw), no padding, output (size - 1) * stride + kernel
* BatchNorm: eps 1e-5; normalises with the population variance of the batch when training;
  running = 0.9 * running + 0.1 * batch, where the running variance takes the unbiased batch variance (n / (n - 1));
  weights <name>.scale, <name>.bias, <name>.mean, <name>.variance
* MaxPool pads with -inf, AveragePool counts padding as zeros in the mean; both give
  floor((size + 2 pad - kernel) / stride) + 1 pixels
* Resize: integer factor; "nearest" repeats pixels, "bilinear" samples at half-pixel centres and clamps at the edge
* Dense: weight (out, in), on (n, features)
* weights are named <layer>.weight and <layer>.bias
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True)
class Conv:
    name: str
    input: str
    filters: int
    kernel: int
    stride: int = 1
    pad: int = 0
    bias: bool = False
    bias_start: float = 0.0  # the bias before training


@dataclass(frozen=True)
class ConvTranspose:
    name: str
    input: str
    filters: int
    kernel: int
    stride: int
    bias: bool = False


@dataclass(frozen=True)
class BatchNorm:
    name: str
    input: str
    scale_start: float = 1.0  # the scale before training


@dataclass(frozen=True)
class Relu:
    name: str
    input: str


@dataclass(frozen=True)
class MaxPool:
    name: str
    input: str
    kernel: int
    stride: int
    pad: int = 0


@dataclass(frozen=True)
class AveragePool:
    name: str
    input: str
    kernel: int
    stride: int
    pad: int = 0


@dataclass(frozen=True)
class GlobalMean:
    """(n, rows, cols, channels) -> (n, channels)."""

    name: str
    input: str


@dataclass(frozen=True)
class Resize:
    name: str
    input: str
    factor: int
    method: str  # "nearest" or "bilinear"


@dataclass(frozen=True)
class Add:
    name: str
    input: str
    other: str


@dataclass(frozen=True)
class Concat:
    """Channels of all inputs, in order."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Dense:
    name: str
    input: str
    filters: int
    bias: bool = True


@dataclass(frozen=True)
class Locations:
    """Feature maps of several levels, (n, rows, cols, channels) each -> (n, locations, channels).

    Locations are ordered by level (in the order of `inputs`), then row, then column.
    """

    name: str
    inputs: tuple[str, ...]


Layer = Union[
    Conv, ConvTranspose, BatchNorm, Relu, MaxPool, AveragePool, GlobalMean, Resize, Add, Concat, Dense, Locations
]


@dataclass(frozen=True)
class Graph:
    """A model.

    layers     in order of computation
    output     name of the layer whose output is the logits: (n, classes) for classification,
               (n, rows, cols, classes) for segmentation, (n, locations, classes + 4) for detection, where the last
               four are the raw distances (top, left, bottom, right) from the location's centre: the box edge lies
               stride * softplus(raw) pixels from it
    multiple   rows and columns of an image must be multiples of this
    strides    detection: the stride in pixels of each level, in the order of Locations.inputs
    """

    task: str
    layers: tuple[Layer, ...]
    output: str
    bands: int
    classes: int
    multiple: int = 1
    strides: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A user's own model, see rvkernels/own_model.py; it stands where a graph of no known layers would.

    entries    framework -> entry point "module:function"
    settings   keyword arguments of the functions
    """

    name: str
    task: str
    bands: int
    classes: int
    entries: Mapping[str, str]
    settings: Mapping[str, object]
    multiple: int = 1
    layers: tuple[Layer, ...] = ()
    output: str = "logits"

    def entry(self, framework: str) -> str:
        """The entry point for `framework`; ValueError when there is none."""
        if framework not in self.entries:
            known = ", ".join(sorted(self.entries))
            raise ValueError(f"model {self.name!r} has no entry point for {framework}; there are {known}")
        return self.entries[framework]


def inputs_of(layer: Layer) -> tuple[str, ...]:
    """Names of the layers that `layer` reads."""
    if isinstance(layer, (Concat, Locations)):
        return layer.inputs
    if isinstance(layer, Add):
        return (layer.input, layer.other)
    return (layer.input,)


def channels(graph: Graph) -> dict[str, int]:
    """Channels (features) of "image" and of every layer, by name.

    Raises ValueError for a name used twice, an input that no earlier layer made, an Add or Locations of unequal
    channels, an unknown Resize method, a layer that nobody reads, and an output that is no layer.
    """
    found = {"image": graph.bands}
    read = {graph.output}
    for layer in graph.layers:
        where = f"{type(layer).__name__} {layer.name!r}"
        if layer.name in found:
            raise ValueError(f"{where}: the name is taken by an earlier layer; every layer needs its own")
        for name in inputs_of(layer):
            if name not in found:
                raise ValueError(f"{where}: input {name!r} is no earlier layer; layers stand in order of computation")
        read.update(inputs_of(layer))
        into = [found[name] for name in inputs_of(layer)]
        if isinstance(layer, (Add, Locations)) and len(set(into)) != 1:
            raise ValueError(f"{where}: inputs have {' and '.join(map(str, into))} channels; they must be equal")
        if isinstance(layer, Resize) and layer.method not in ("nearest", "bilinear"):
            raise ValueError(f"{where}: unknown method {layer.method!r}; there are bilinear, nearest")
        if isinstance(layer, Concat):
            found[layer.name] = sum(into)
        elif isinstance(layer, (Conv, ConvTranspose, Dense)):
            found[layer.name] = layer.filters
        else:
            found[layer.name] = into[0]
    if graph.output not in found:
        raise ValueError(f"output {graph.output!r} is no layer of the graph")
    unread = [layer.name for layer in graph.layers if layer.name not in read]
    if unread:
        raise ValueError(f"layer {unread[0]!r} is neither read by a layer nor the output")
    return found


def weight_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights by canonical name, in order of the layers; running statistics included."""
    into = channels(graph)
    found: dict[str, tuple[int, ...]] = {}
    for layer in graph.layers:
        if isinstance(layer, Conv):
            found[f"{layer.name}.weight"] = (layer.filters, into[layer.input], layer.kernel, layer.kernel)
        elif isinstance(layer, ConvTranspose):
            found[f"{layer.name}.weight"] = (into[layer.input], layer.filters, layer.kernel, layer.kernel)
        elif isinstance(layer, Dense):
            found[f"{layer.name}.weight"] = (layer.filters, into[layer.input])
        elif isinstance(layer, BatchNorm):
            for part in ("scale", "bias", "mean", "variance"):
                found[f"{layer.name}.{part}"] = (into[layer.input],)
        if isinstance(layer, (Conv, ConvTranspose, Dense)) and layer.bias:
            found[f"{layer.name}.bias"] = (layer.filters,)
    return found


def trained(name: str) -> bool:
    """Whether the optimizer changes the weight `name`; the running statistics of BatchNorm it does not."""
    return not name.endswith((".mean", ".variance"))


def parameter_count(graph: Graph) -> int:
    """Numbers that training fits: all weights without the running statistics."""
    return sum(math.prod(shape) for name, shape in weight_shapes(graph).items() if trained(name))


def shapes(graph: Graph | OwnModel, rows: int, cols: int) -> dict[str, tuple[int, ...]]:
    """Shapes of "image" and of every layer's output without the batch axis, for images of `rows` x `cols` pixels.

    (rows, cols, channels) for feature maps, (channels,) after GlobalMean, (locations, channels) after Locations. Of an
    own model the image and the logits that the task asks for.
    Raises ValueError as `channels` does, when rows or cols are no multiples of graph.multiple, when a feature map
    vanishes or two that meet differ in size, and when the output is not of the form that the task asks for.
    """
    if rows < 1 or cols < 1 or rows % graph.multiple or cols % graph.multiple:
        low = [max(size // graph.multiple, 1) * graph.multiple for size in (rows, cols)]
        raise ValueError(
            f"images of {rows} x {cols} pixels: this {graph.task} model needs rows and columns in multiples of "
            f"{graph.multiple}, such as {low[0]} x {low[1]}"
        )
    found: dict[str, tuple[int, ...]] = {"image": (rows, cols, graph.bands)}
    if isinstance(graph, OwnModel):
        return {**found, graph.output: ((rows, cols) if graph.task == "segmentation" else ()) + (graph.classes,)}
    width = channels(graph)
    for layer in graph.layers:
        into = [found[name] for name in inputs_of(layer)]
        found[layer.name] = _shape(layer, into, width[layer.name], f"images of {rows} x {cols} pixels")
    if graph.task == "classification":
        expected: tuple[int, ...] = (graph.classes,)
    elif graph.task == "segmentation":
        expected = (rows, cols, graph.classes)
    elif graph.task == "detection":
        expected = (sum(-(-rows // s) * -(-cols // s) for s in graph.strides), graph.classes + 4)
    else:
        raise ValueError(f"unknown task {graph.task!r}; there are classification, detection, segmentation")
    if found[graph.output] != expected:
        raise ValueError(
            f"output {graph.output!r} has shape {found[graph.output]} for images of {rows} x {cols} pixels; "
            f"{graph.task} of {graph.classes} classes needs {expected}"
        )
    return found


def _shape(layer: Layer, into: list[tuple[int, ...]], width: int, images: str) -> tuple[int, ...]:
    where = f"{images}: {type(layer).__name__} {layer.name!r}"
    if isinstance(layer, Dense):
        if len(into[0]) != 1:
            raise ValueError(f"{where}: input has shape {into[0]}; Dense reads (features,), so GlobalMean comes first")
        return (width,)
    if isinstance(layer, (BatchNorm, Relu)):
        return into[0]
    if isinstance(layer, Add):
        if into[0] != into[1]:
            raise ValueError(f"{where}: inputs have shapes {into[0]} and {into[1]}; they must be equal")
        return into[0]
    for name, shape in zip(inputs_of(layer), into):
        if len(shape) != 3:
            raise ValueError(f"{where}: input {name!r} has shape {shape}; it reads feature maps (rows, cols, channels)")
    if isinstance(layer, Locations):
        return (sum(r * c for r, c, _ in into), width)
    if isinstance(layer, Concat):
        if len({shape[:2] for shape in into}) != 1:
            raise ValueError(f"{where}: inputs have shapes {', '.join(map(str, into))}; rows and columns must be equal")
        return (*into[0][:2], width)
    if isinstance(layer, GlobalMean):
        return (width,)
    rows, cols, _ = into[0]
    if isinstance(layer, Resize):
        return (rows * layer.factor, cols * layer.factor, width)
    if isinstance(layer, ConvTranspose):
        return ((rows - 1) * layer.stride + layer.kernel, (cols - 1) * layer.stride + layer.kernel, width)
    size = [(length + 2 * layer.pad - layer.kernel) // layer.stride + 1 for length in (rows, cols)]
    if min(size) < 1:
        raise ValueError(f"{where}: its input of {rows} x {cols} is smaller than its kernel; use larger images")
    return (*size, width)
