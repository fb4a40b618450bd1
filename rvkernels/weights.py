"""Initial weights from a seed, weights in files, whether weights fit a model. Weights are a dict of canonical names.

The numbers come from the raw words of NumPy's Philox4x64-10 bit generator, whose stream is fixed, keyed by (seed,
CRC-32 of the weight's name): a weight does not depend on which other layers there are. Normal numbers are made from the
words by the Box-Muller transform in float64 and rounded to multiples of 2^-16, so that the last bit of a log or cosine,
in which NumPy builds differ, does not show.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from rvkernels import files
from rvkernels.models import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Graph,
    OwnModel,
    Relu,
    inputs_of,
    weight_shapes,
)


def initial(graph: Graph | OwnModel, seed: int) -> dict[str, np.ndarray]:
    """Weights before training, float32, in order of the layers.

    Conv           read by BatchNorm or Relu: normal, variance 2 / (filters * kernel^2) (He et al. 2015, fan-out);
                   else, as it makes scores or distances: uniform in +-1 / sqrt(channels in * kernel^2)
    ConvTranspose  normal, variance 1 / (channels in * kernel^2 / stride^2), what one output pixel sums over;
                   twice that when read by BatchNorm or Relu
    Dense          uniform in +-1 / sqrt(features in)
    bias           bias_start of a Conv (the detector's prior), else 0
    BatchNorm      scale_start (0 for the last of a residual branch, else 1), bias 0, mean 0, variance 1
    OwnModel       "seed", uint64, alone: from it each framework makes the model's weights

    Raises ValueError when seed is not in [0, 2^64).
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must be at least 0 and below 2^64")
    if isinstance(graph, OwnModel):
        return {"seed": np.array(seed, dtype=np.uint64)}
    shapes = weight_shapes(graph)
    rectified = {name for layer in graph.layers if isinstance(layer, (BatchNorm, Relu)) for name in inputs_of(layer)}
    found: dict[str, np.ndarray] = {}
    for layer in graph.layers:
        weight = f"{layer.name}.weight"
        if isinstance(layer, ConvTranspose):
            into, _, kernel, _ = shapes[weight]
            gain = 2 if layer.name in rectified else 1
            deviation = (gain * layer.stride**2 / (into * kernel**2)) ** 0.5
            found[weight] = deviation * _normal(seed, weight, shapes[weight])
        elif isinstance(layer, Conv) and layer.name in rectified:
            deviation = (2 / (layer.filters * layer.kernel**2)) ** 0.5
            found[weight] = deviation * _normal(seed, weight, shapes[weight])
        elif isinstance(layer, (Conv, Dense)):
            bound = math.prod(shapes[weight][1:]) ** -0.5
            found[weight] = bound * (2 * _uniform(seed, weight, math.prod(shapes[weight])) - 1)
        elif isinstance(layer, BatchNorm):
            starts = {"scale": layer.scale_start, "bias": 0.0, "mean": 0.0, "variance": 1.0}
            for part, start in starts.items():
                found[f"{layer.name}.{part}"] = np.full(shapes[f"{layer.name}.{part}"], start)
        bias = f"{layer.name}.bias"
        if bias in shapes and bias not in found:
            found[bias] = np.full(shapes[bias], layer.bias_start if isinstance(layer, Conv) else 0.0)
    return {name: found[name].reshape(shape).astype(np.float32) for name, shape in shapes.items()}


def _uniform(seed: int, name: str, count: int) -> np.ndarray:
    """(count,) float64 multiples of 2^-53 in [0, 1)."""
    key = np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(count)
    return (words >> np.uint64(11)) * 2.0**-53


def _normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float64 of `shape`, multiples of 2^-16."""
    count = math.prod(shape)
    pairs = (count + 1) // 2
    uniform = _uniform(seed, name, 2 * pairs).reshape(pairs, 2)
    radius = np.sqrt(-2 * np.log(1 - uniform[:, 0]))  # 1 - u lies in (0, 1]
    angle = 2 * np.pi * uniform[:, 1]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return (np.rint(both * 2**16) / 2**16).reshape(-1)[:count].reshape(shape)


def save(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as .npz, atomically. Equal arrays give equal bytes.

    Raises ValueError when `path` does not end in .npz.
    """
    if not os.fspath(path).endswith(".npz"):
        raise ValueError(f"{os.fspath(path)}: a file of weights ends in .npz")
    with files.atomic(path) as temporary:
        np.savez(temporary, **arrays)


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Arrays by name from .npz, in the order saved.

    Raises FileNotFoundError when there is no such file, ValueError naming it when it is no .npz or is damaged.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{os.fspath(path)}: no such file of weights") from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
        raise ValueError(f"{os.fspath(path)}: not an .npz file of plain arrays, or damaged: {error}") from None


def check(graph: Graph | OwnModel, weights: Mapping[str, np.ndarray], where: str = "weights") -> None:
    """Raise ValueError naming `where` unless `weights` holds exactly the graph's weights (an own model's: the seed that
    `initial` gives), in their shapes."""
    check_shapes({"seed": ()} if isinstance(graph, OwnModel) else weight_shapes(graph), weights, where)


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, np.ndarray], where: str = "weights"
) -> None:
    """Raise ValueError naming `where` unless `weights` holds exactly these names, in these shapes."""
    for name, shape in shapes.items():
        if name not in weights:
            raise ValueError(f"{where}: {name!r} is missing; the model has {len(shapes)} weights, here {len(weights)}")
        if tuple(np.shape(weights[name])) != shape:
            raise ValueError(f"{where}: {name!r} has shape {np.shape(weights[name])}; the model needs {shape}")
    for name in weights:
        if name not in shapes:
            raise ValueError(f"{where}: {name!r} is no weight of the model")
