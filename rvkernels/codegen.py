"""A graph as Python source for PyTorch or JAX alone: readable, one line per layer, no import of rvkernels.

Both modules take normalised images; docstrings in them say in which layout.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

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
)

_TORCH = '''\
"""{title}

Written by rvkernels; it needs PyTorch alone. README.md and card.json beside it say what goes in and comes out.
"""

{imports}from torch import nn
from torch.nn import functional as F  # noqa: N812


class Model(nn.Module):
    def __init__(self):
        super().__init__()
{modules}

    def forward(self, image):
        """image: (n, {bands}, rows, cols) float32 -> {output} logits."""
{lines}
'''

_JAX = '''\
"""{title}

Written by rvkernels; it needs JAX and NumPy alone. README.md and card.json beside it say what goes in and comes out.
"""

import jax
import jax.numpy as jnp
import numpy as np


def load(path="weights.npz"):
    """Weights by name: convolutions (out, in, rows, cols), transposed ones (in, out, rows, cols), dense (out, in)."""
    with np.load(path) as file:
        return {{name: jnp.asarray(file[name]) for name in file.files}}


def apply(weights, image):
    """image: (n, rows, cols, {bands}) float32 -> {output} logits; a pure function, ready for jax.jit and jax.grad."""
{lines}


{functions}
'''

# The layers that need more than a call; of these the module gets those it uses.
_JAX_FUNCTIONS = {
    "conv": """\
def conv(weights, name, x, stride, pad):
    kernel, layout = weights[f"{name}.weight"], ("NHWC", "OIHW", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout)
    return y + weights.get(f"{name}.bias", 0.0)""",
    "conv_transpose": """\
def conv_transpose(weights, name, x, stride):
    kernel, layout = weights[f"{name}.weight"], ("NHWC", "IOHW", "NHWC")
    pad = kernel.shape[-1] - 1
    y = jax.lax.conv_general_dilated(
        x, kernel[:, :, ::-1, ::-1], (1, 1), [(pad, pad)] * 2, lhs_dilation=(stride, stride), dimension_numbers=layout
    )
    return y + weights.get(f"{name}.bias", 0.0)""",
    "batch_norm": """\
def batch_norm(weights, name, x):
    scale = weights[f"{name}.scale"] * jax.lax.rsqrt(weights[f"{name}.variance"] + 1e-5)
    return (x - weights[f"{name}.mean"]) * scale + weights[f"{name}.bias"]""",
    "max_pool": """\
def max_pool(x, size, stride, pad):
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), around)""",
    "average_pool": """\
def average_pool(x, size, stride, pad):
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, size, size, 1), (1, stride, stride, 1), around)
    return total / size**2""",
    "resize": """\
def resize(x, factor, method):
    n, rows, cols, width = x.shape
    return jax.image.resize(x, (n, rows * factor, cols * factor, width), method)""",
    "dense": """\
def dense(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)""",
    "locations": """\
def locations(*levels):
    return jnp.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in levels], axis=1)""",
}


def torch_module(graph: Graph, taken: Iterable[str] = ()) -> tuple[str, dict[str, str]]:
    """The source of a module with a class `Model`, and the attribute of each layer that has weights by layer name.

    The module takes (n, bands, rows, cols) and gives segmentation logits as (n, classes, rows, cols).
    taken: names that an attribute must not have.
    """
    into = channels(graph)
    names = _identifiers(graph, {*taken, "self", "torch", "nn", "F"})
    variables = _variables(graph, names)
    modules, lines, attributes = [], [], {}
    for layer in graph.layers:
        module = _torch_constructor(layer, into[inputs_of(layer)[0]])
        if module:
            modules.append(f"        self.{names[layer.name]} = {module}")
            attributes[layer.name] = names[layer.name]
        call = _torch_call(layer, names[layer.name], [variables[name] for name in inputs_of(layer)])
        lines.append(f"        {variables[layer.name]} = {call}")
    lines.append(f"        return {variables[graph.output]}")
    source = _TORCH.format(
        title=_title(graph),
        imports="import torch\n" if any("torch." in line for line in lines) else "",
        modules="\n".join(modules),
        bands=graph.bands,
        output=shape_text(graph, "NCHW"),
        lines="\n".join(lines),
    )
    return source, attributes


def jax_module(graph: Graph) -> str:
    """The source of a module with `load(path) -> weights` and `apply(weights, image) -> logits`, in NHWC.

    The weights are those of the graph, under their canonical names and in their canonical layouts.
    """
    names = _identifiers(graph, {"weights", "jax", "jnp", "np", "load", "apply", *_JAX_FUNCTIONS})
    variables = _variables(graph, names)
    lines, used = [], set()
    for layer in graph.layers:
        call = _jax_call(layer, [variables[name] for name in inputs_of(layer)])
        used.add(call.partition("(")[0])
        lines.append(f"    {variables[layer.name]} = {call}")
    lines.append(f"    return {variables[graph.output]}")
    return _JAX.format(
        title=_title(graph),
        bands=graph.bands,
        output=shape_text(graph, "NHWC"),
        lines="\n".join(lines),
        functions="\n\n\n".join(text for name, text in _JAX_FUNCTIONS.items() if name in used),
    )


def shape_text(graph: Graph, layout: str) -> str:
    """The shape of the logits, "(n, 4)", in the layout "NCHW" or "NHWC"."""
    if graph.task == "classification":
        return f"(n, {graph.classes})"
    if graph.task == "detection":
        return f"(n, locations, {graph.classes + 4})"
    return f"(n, {graph.classes}, rows, cols)" if layout == "NCHW" else f"(n, rows, cols, {graph.classes})"


def _title(graph: Graph) -> str:
    return f"A network for {graph.task}: {graph.bands} bands, {graph.classes} classes."


def _identifiers(graph: Graph, taken: set[str]) -> dict[str, str]:
    """A Python name for every layer, none of them twice or in `taken`."""
    used = {*taken, *keyword.kwlist, "x", "image"}
    found = {}
    for layer in graph.layers:
        name = re.sub(r"\W", "_", layer.name)
        name = f"layer_{name}" if name[:1].isdigit() else name
        while name in used:
            name += "_"
        used.add(name)
        found[layer.name] = name
    return found


def _variables(graph: Graph, names: dict[str, str]) -> dict[str, str]:
    """The variable that holds each layer's output: "x" when only the next layer reads it, so that it is freed there."""
    readers: dict[str, list[int]] = {layer.name: [] for layer in graph.layers}
    for i, layer in enumerate(graph.layers):
        for name in inputs_of(layer):
            if name != "image":
                readers[name].append(i)
    readers[graph.output].append(len(graph.layers))
    chained = {layer.name for i, layer in enumerate(graph.layers) if set(readers[layer.name]) == {i + 1}}
    return {"image": "image", **{name: "x" if name in chained else own for name, own in names.items()}}


def _torch_constructor(layer: Layer, into: int) -> str | None:
    if isinstance(layer, Conv):
        size = f"{into}, {layer.filters}, {layer.kernel}"
        return f"nn.Conv2d({size}, stride={layer.stride}, padding={layer.pad}, bias={layer.bias})"
    if isinstance(layer, ConvTranspose):
        size = f"{into}, {layer.filters}, {layer.kernel}"
        return f"nn.ConvTranspose2d({size}, stride={layer.stride}, bias={layer.bias})"
    if isinstance(layer, BatchNorm):
        return f"nn.BatchNorm2d({into}, eps=1e-5)"
    if isinstance(layer, Dense):
        return f"nn.Linear({into}, {layer.filters}, bias={layer.bias})"
    return None


def _torch_call(layer: Layer, own: str, into: list[str]) -> str:
    first, several = into[0], ", ".join(into)
    if isinstance(layer, (Conv, ConvTranspose, BatchNorm, Dense)):
        return f"self.{own}({first})"
    if isinstance(layer, Relu):
        return f"F.relu({first})"
    if isinstance(layer, MaxPool):
        return f"F.max_pool2d({first}, {layer.kernel}, stride={layer.stride}, padding={layer.pad})"
    if isinstance(layer, AveragePool):
        return f"F.avg_pool2d({first}, {layer.kernel}, stride={layer.stride}, padding={layer.pad})"
    if isinstance(layer, GlobalMean):
        return f"{first}.mean(dim=(2, 3))"
    if isinstance(layer, Resize):
        how = 'mode="nearest"' if layer.method == "nearest" else 'mode="bilinear", align_corners=False'
        return f"F.interpolate({first}, scale_factor={layer.factor}, {how})"
    if isinstance(layer, Add):
        return " + ".join(into)
    if isinstance(layer, Concat):
        return f"torch.cat([{several}], dim=1)"
    if isinstance(layer, Locations):
        return f"torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in [{several}]], dim=1)"
    raise TypeError(f"no PyTorch source for {type(layer).__name__}")


def _jax_call(layer: Layer, into: list[str]) -> str:
    first, several = into[0], ", ".join(into)
    own = f'weights, "{layer.name}", {first}'
    if isinstance(layer, Conv):
        return f"conv({own}, stride={layer.stride}, pad={layer.pad})"
    if isinstance(layer, ConvTranspose):
        return f"conv_transpose({own}, stride={layer.stride})"
    if isinstance(layer, BatchNorm):
        return f"batch_norm({own})"
    if isinstance(layer, Relu):
        return f"jax.nn.relu({first})"
    if isinstance(layer, MaxPool):
        return f"max_pool({first}, {layer.kernel}, stride={layer.stride}, pad={layer.pad})"
    if isinstance(layer, AveragePool):
        return f"average_pool({first}, {layer.kernel}, stride={layer.stride}, pad={layer.pad})"
    if isinstance(layer, GlobalMean):
        return f"{first}.mean(axis=(1, 2))"
    if isinstance(layer, Resize):
        return f'resize({first}, {layer.factor}, "{layer.method}")'
    if isinstance(layer, Add):
        return " + ".join(into)
    if isinstance(layer, Concat):
        return f"jnp.concatenate([{several}], axis=-1)"
    if isinstance(layer, Dense):
        return f"dense({own})"
    if isinstance(layer, Locations):
        return f"locations({several})"
    raise TypeError(f"no JAX source for {type(layer).__name__}")
