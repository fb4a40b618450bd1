"""A graph as an ONNX file, built layer by layer from the graph itself: no framework is asked.

Operator set 17 (ONNX 1.12, 2022) is the oldest that has all that is needed and is read by every runtime in use. Input
"image" is (n, bands, rows, cols) float32 with n, rows and cols free; output "logits" is in PyTorch's layout as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

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
    weight_shapes,
)

OPSET = 17
IR_VERSION = 8  # that of ONNX 1.12

# Operator, inputs, output, attributes.
_Node = tuple[str, list[str], str, dict[str, object]]


def write(path: Path, graph: Graph, weights: Mapping[str, np.ndarray], properties: Mapping[str, str]) -> None:
    """Write the graph with its weights, and `properties` as metadata_props; checked by onnx.checker.

    Raises ValueError when the package onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise ValueError("the package onnx is not installed in this Python; `pip install onnx`") from None
    from onnx import helper, numpy_helper

    into = channels(graph)
    nodes: list[onnx.NodeProto] = []
    constants = {name: np.asarray(weights[name], np.float32) for name in weight_shapes(graph)}
    for layer in graph.layers:
        for kind, inputs, output, attributes in _nodes(layer, into[inputs_of(layer)[0]], constants):
            names = ["logits" if name == graph.output else name for name in (*inputs, output)]
            nodes.append(helper.make_node(kind, names[:-1], names[-1:], name=names[-1], **attributes))
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", graph.bands, "rows", "cols"])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, _output_shape(graph))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            graph.task,
            [image],
            [logits],
            initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        producer_name="rvkernels",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _nodes(layer: Layer, into: int, constants: dict[str, np.ndarray]) -> list[_Node]:
    """The nodes of one layer; what they need beside the weights is added to `constants`."""
    read, output = list(inputs_of(layer)), layer.name
    own = [name for name in (f"{layer.name}.weight", f"{layer.name}.bias") if name in constants]
    if isinstance(layer, Conv):
        return [("Conv", read + own, output, {**_window(layer), "pads": [layer.pad] * 4})]
    if isinstance(layer, ConvTranspose):
        return [("ConvTranspose", read + own, output, _window(layer))]
    if isinstance(layer, BatchNorm):
        parts = [f"{layer.name}.{part}" for part in ("scale", "bias", "mean", "variance")]
        return [("BatchNormalization", read + parts, output, {"epsilon": 1e-5})]
    if isinstance(layer, Relu):
        return [("Relu", read, output, {})]
    if isinstance(layer, MaxPool):
        return [("MaxPool", read, output, {**_window(layer), "pads": [layer.pad] * 4})]
    if isinstance(layer, AveragePool):
        attributes = {**_window(layer), "pads": [layer.pad] * 4, "count_include_pad": 1}
        return [("AveragePool", read, output, attributes)]
    if isinstance(layer, GlobalMean):
        pooled = f"{layer.name}.pooled"
        return [("GlobalAveragePool", read, pooled, {}), ("Flatten", [pooled], output, {})]
    if isinstance(layer, Resize):
        scales = f"{layer.name}.scales"
        constants[scales] = np.array([1, 1, layer.factor, layer.factor], np.float32)
        how: dict[str, object] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        if layer.method == "nearest":
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return [("Resize", [*read, "", scales], output, how)]
    if isinstance(layer, Add):
        return [("Add", read, output, {})]
    if isinstance(layer, Concat):
        return [("Concat", read, output, {"axis": 1})]
    if isinstance(layer, Dense):
        return [("Gemm", read + own, output, {"transB": 1})]
    if isinstance(layer, Locations):
        shape = f"{layer.name}.shape"
        constants[shape] = np.array([0, -1, into], np.int64)  # 0: as many images as there are
        nodes: list[_Node] = []
        for i, level in enumerate(read):
            last, flat = f"{layer.name}.{i}.last", f"{layer.name}.{i}.flat"
            nodes.append(("Transpose", [level], last, {"perm": [0, 2, 3, 1]}))
            nodes.append(("Reshape", [last, shape], flat, {}))
        return [*nodes, ("Concat", [node[2] for node in nodes[1::2]], output, {"axis": 1})]
    raise TypeError(f"no ONNX operator for {type(layer).__name__}")


def _window(layer: Conv | ConvTranspose | MaxPool | AveragePool) -> dict[str, object]:
    return {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}


def _output_shape(graph: Graph) -> list[str | int]:
    if graph.task == "classification":
        return ["n", graph.classes]
    if graph.task == "detection":
        return ["n", "locations", graph.classes + 4]
    return ["n", graph.classes, "rows", "cols"]
