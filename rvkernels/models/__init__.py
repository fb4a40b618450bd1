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


def inputs_of(layer: Layer) -> tuple[str, ...]:
    """Names of the layers that `layer` reads."""
    if isinstance(layer, (Concat, Locations)):
        return layer.inputs
    if isinstance(layer, Add):
        return (layer.input, layer.other)
    return (layer.input,)
