"""Weights from elsewhere as the start of a training: read, converted to canonical names, fitted to a graph.

A file holds arrays by canonical name (.npz, .safetensors) or is the best.npz of a training. Names up to the first dot
are the parts of a model (stem, stage1, head, ...). A part that the file and the model share has to agree in every name
and shape, with two exceptions: a layer that reads the image may differ in its bands, and a head (a layer with no
weights behind it) in its classes. Those layers, and parts that the file does not have, keep the weights of the seed.
So a network of one dataset serves another, and a classifier's encoder serves a segmentation model or a detector.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rvkernels import weights as weight_files
from rvkernels.checkpoint import read_checkpoint
from rvkernels.models import Conv, ConvTranspose, Dense, Graph, OwnModel, inputs_of, resnet, weight_shapes
from rvkernels.progress import LOG


def check_name(path: str | Path, where: str) -> None:
    """Raise ValueError, naming `where`, unless `path` is called as a file that `read` can read."""
    if Path(path).suffix not in (".npz", ".safetensors"):
        raise ValueError(f"{where}: {path} is no .npz or .safetensors; `rvk convert-weights` makes one of a state_dict")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name, float32 where they are of floating point.

    .npz: as `weights.save` writes it, or a checkpoint of a training, of which it gives the weights; .safetensors.
    Raises FileNotFoundError or ValueError naming the file.
    """
    path = Path(path)
    check_name(path, "pretrained weights")
    if path.suffix == ".safetensors":
        found = _read_safetensors(path)
    else:
        found = weight_files.load(path)
        if "meta" in found:
            found = read_checkpoint(path).weights
    return {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in found.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    try:
        return load_file(path)
    except (SafetensorError, TypeError, KeyError) as error:  # the latter two: a type that NumPy does not have
        raise ValueError(f"{path}: not a .safetensors file of types that NumPy has, or damaged: {error}") from None


def initial(
    graph: Graph,
    seed: int,
    file: str | Path | None = None,
    bands: Sequence[str | None] | None = None,
    image_bands: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The weights a training starts from: those of the seed, and where `file` is given what it has in their place.

    bands        see `fit`; None leaves a first layer of another number of bands to the seed
    image_bands  names of the images' bands, which those in `bands` are looked up in
    """
    start = weight_files.initial(graph, seed)
    if file is None:
        return start
    if isinstance(graph, OwnModel):
        raise ValueError(f"{file}: model {graph.name!r} is the user's own, which makes its weights itself")
    places = None if bands is None else [None if name is None else list(image_bands).index(name) for name in bands]
    return fit(graph, read(file), start, str(file), places)


def fit(
    graph: Graph,
    found: Mapping[str, np.ndarray],
    start: Mapping[str, np.ndarray],
    where: str,
    bands: Sequence[int | None] | None = None,
) -> dict[str, np.ndarray]:
    """`start` with the weights of `found` in the place of those that agree; what does not is logged.

    bands  for each band that the first layers of `found` read, the image's band that takes its kernels, or None when
           the image has no such band. An image's band that is not named takes the mean of all kernels, and all are
           multiplied by (bands of `found`) / (bands of the image), so that the sum over bands keeps its size.

    Raises ValueError naming `where` and the first weight that has no place, is missing or has another shape, and when
    `found` and the graph share no part besides the head.
    """
    shapes = weight_shapes(graph)
    parts = {_part(name) for name in shapes} & {_part(name) for name in found}
    result = dict(start)
    from_seed = {_part(name) for name in shapes} - parts
    for name in found:
        if _part(name) in parts and name not in shapes:
            raise ValueError(f"{where}: {name!r} has no place in the model; give the settings it was trained with")
    heads, first = _heads(graph), {layer.name for layer in graph.layers if "image" in inputs_of(layer)}
    seeded = set()
    for name, shape in shapes.items():
        if _part(name) not in parts:
            continue
        layer = name.rpartition(".")[0]
        if name not in found:
            raise ValueError(f"{where}: {name!r} is missing; give the model the settings these were trained with")
        array = found[name]
        if layer in first and name.endswith(".weight") and array.ndim == len(shape):
            if bands is not None:
                array = _spread(array, bands, shape[1], where)
            elif array.shape[1] != shape[1] and array.shape[:1] + array.shape[2:] == shape[:1] + shape[2:]:
                seeded.add(layer)
                continue
        if layer in heads and array.shape[1:] == shape[1:] and array.shape != shape:
            seeded.add(layer)
            continue
        if array.shape != shape:
            raise ValueError(f"{where}: {name!r} has shape {array.shape}; the model needs {shape}")
        result[name] = array.astype(np.float32)
    for name in shapes:
        if name.rpartition(".")[0] in seeded:
            result[name] = start[name]
    if not parts - heads - seeded:
        raise ValueError(f"{where}: nothing in it is for this model, whose weights start with {next(iter(shapes))!r}")
    unused = {_part(name) for name in found} - parts
    LOG.info(
        "pretrained weights from %s; from the seed: %s; of the file unused: %s",
        where,
        ", ".join(sorted(from_seed | seeded)) or "nothing",
        ", ".join(sorted(unused)) or "nothing",
    )
    return result


def _part(name: str) -> str:
    return name.partition(".")[0]


def _heads(graph: Graph) -> set[str]:
    """Layers with weights that no other layer with weights reads, directly or through others."""
    behind: set[str] = set()  # everything that leads to a layer with weights
    heads = set()
    for layer in reversed(graph.layers):
        weighted = isinstance(layer, (Conv, ConvTranspose, Dense))
        if weighted and layer.name not in behind:
            heads.add(layer.name)
        if weighted or layer.name in behind:
            behind.update(inputs_of(layer))
    return heads


def _spread(kernel: np.ndarray, bands: Sequence[int | None], count: int, where: str) -> np.ndarray:
    """kernel (out, bands of the file, rows, cols) -> (out, count, rows, cols); see `fit`."""
    if kernel.shape[1] != len(bands):
        raise ValueError(f"{where}: bands names {len(bands)} bands, but the file's first layer reads {kernel.shape[1]}")
    result = np.repeat(kernel.mean(axis=1, keepdims=True), count, axis=1)
    for i, band in enumerate(bands):
        if band is not None:
            result[:, band] = kernel[:, i]
    return result * np.float32(len(bands) / count)


# --- ResNets of torchvision and timm ---------------------------------------------------------------------------------

_TOP = {"conv1": "stem", "bn1": "stem_bn", "fc": "head"}
_INNER = {"downsample.0": "shortcut", "downsample.1": "shortcut_bn"}
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}


def from_torchvision(state: Mapping[str, np.ndarray], where: str) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Settings of rvkernels/models/resnet.py and its weights, from a state_dict of torchvision's or timm's ResNet.

    resnet18, resnet34 and resnet50 of any width, bands and classes; without "fc" there is no head in the result. The
    graph of these settings is the same network: 7x7 stem with stride 2 and padding 3, 3x3 max pooling with stride 2 and
    padding 1, a bottleneck's stride at its 3x3 convolution (torchvision's v1.5), batch norm with eps 1e-5.

    Raises ValueError naming `where` for any other network.
    """
    renamed = {}
    for name, array in state.items():
        if not name.endswith(".num_batches_tracked"):
            renamed[_canonical(name, where)] = array
    if "stem.weight" not in renamed:
        raise ValueError(f"{where}: 'conv1.weight' is missing; expected a ResNet's state_dict as torchvision names it")
    counts = tuple(1 + max(_blocks(renamed, stage), default=-1) for stage in range(1, 5))
    bottleneck = "stage1.0.conv3.weight" in renamed
    depth = next((depth for depth, form in resnet.DEPTHS.items() if form == (bottleneck, counts)), None)
    if depth is None:
        kind = "bottleneck" if bottleneck else "basic"
        known = ", ".join(map(str, resnet.DEPTHS))
        raise ValueError(f"{where}: {counts} {kind} blocks per stage; there are ResNets of depth {known}")
    width, bands = renamed["stem.weight"].shape[:2]
    head = renamed.get("head.weight")
    settings: dict[str, object] = {"depth": depth, "width": width, "stem": "standard"}
    graph = resnet.graph(bands, 1 if head is None else len(head), **settings)
    shapes = weight_shapes(graph)
    if head is None:
        shapes = {name: shape for name, shape in shapes.items() if _part(name) != "head"}
    weights = {}
    for name, shape in shapes.items():
        if name not in renamed:
            raise ValueError(f"{where}: the weight of {name!r} is missing for a ResNet-{depth}")
        if renamed[name].shape != shape:
            raise ValueError(
                f"{where}: the weight of {name!r} has shape {renamed[name].shape}; a ResNet-{depth} of width {width} "
                f"has {shape}; wide, grouped (ResNeXt) and other variants are other networks"
            )
        weights[name] = renamed[name].astype(np.float32)
    extra = [name for name in renamed if name not in shapes]
    if extra:
        raise ValueError(f"{where}: {extra[0]!r} is no weight of a ResNet-{depth}")
    return settings, weights


def _canonical(name: str, where: str) -> str:
    """Our name of the weight that torchvision calls `name`."""
    layer, _, part = name.rpartition(".")
    match = re.fullmatch(r"layer([1-4])\.(\d+)\.(conv[1-3]|bn[1-3]|downsample\.[01])", layer)
    if match:
        stage, block, own = match.groups()
        own = _INNER.get(own) or re.sub(r"bn(\d)", r"conv\1_bn", own)
        ours = f"stage{stage}.{block}.{own}"
    else:
        ours = _TOP.get(layer, "")
    part = _NORM.get(part, "") if ours.endswith("_bn") else part
    if not ours or part not in ("weight", *_NORM.values()):
        raise ValueError(
            f"{where}: {name!r} is no weight of torchvision's or timm's ResNet-18, 34 or 50; other networks (a deep "
            f"stem, squeeze and excitation, a feature extractor of another library) are not converted"
        )
    return f"{ours}.{part}"


def _blocks(names: Iterable[str], stage: int) -> set[int]:
    found = (re.match(rf"stage{stage}\.(\d+)\.", name) for name in names)
    return {int(match[1]) for match in found if match}


def convert(source: str | Path, out: str | Path) -> None:
    """Write the weights of a state_dict (.pth, .pt, .safetensors) as .npz under canonical names; log the settings.

    Raises ValueError or FileNotFoundError naming the file.
    """
    source = Path(source)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file of weights")
    if source.suffix in (".pt", ".pth"):
        from rvkernels import registry

        state = registry.load("frameworks", "torch").read_state_dict(source)
    else:
        state = read(source)
    settings, weights = from_torchvision(state, str(source))
    weight_files.save(out, weights)
    count = sum(math.prod(array.shape) for array in weights.values())
    LOG.info("%s: %d numbers, for the model resnet with the settings %s", out, count, json.dumps(settings))
