"""A trained network in the form that a framework's users expect, usable without rvkernels.

The exported folder holds the kind's own files, card.json (what goes in, what comes out, what the network was trained
on) and README.md (the same for a person, with lines of Python that load the files and predict).

A framework's kinds are the `EXPORTS` of rvkernels/frameworks/<name>.py, functions (graph, weights, folder) -> files;
that framework has to be installed. "onnx" and "jax" are made from the graph alone and need no framework.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import rvkernels
from rvkernels import codegen, registry
from rvkernels import weights as weight_files
from rvkernels.checkpoint import read_checkpoint
from rvkernels.files import atomic, write_json
from rvkernels.models import BatchNorm, Concat, Graph, Locations, OwnModel
from rvkernels.train import build_graph


@dataclasses.dataclass(frozen=True)
class Kind:
    """How one kind of export is made and used.

    framework  the file of rvkernels/frameworks/ whose EXPORTS writes it; None: made here
    images     their layout, "NCHW" or "NHWC"
    logits     the layout of segmentation's
    usage      Python that turns `images` into `logits`, run in the exported folder
    """

    framework: str | None
    images: str
    logits: str
    usage: str


KINDS = {
    "torch": Kind(
        "torch",
        "NCHW",
        "NCHW",
        """\
import torch
from model import Model

model = Model()
model.load_state_dict(torch.load("weights.pt", weights_only=True))
model.eval()
with torch.inference_mode():
    logits = model(torch.from_numpy(images)).numpy()
""",
    ),
    "keras": Kind(
        "tensorflow",
        "NHWC",
        "NHWC",
        """\
import keras

model = keras.saving.load_model("model.keras")
logits = keras.ops.convert_to_numpy(model(images, training=False))
""",
    ),
    "savedmodel": Kind(
        "tensorflow",
        "NHWC",
        "NHWC",
        """\
import tensorflow as tf

model = tf.saved_model.load("saved_model")
logits = model.signatures["serving_default"](tf.constant(images))["logits"].numpy()
""",
    ),
    "caffe2": Kind(
        "caffe2",
        "NCHW",
        "NHWC",
        """\
from caffe2.python import workspace

with open("init_net.pb", "rb") as init_net, open("predict_net.pb", "rb") as predict_net:
    predictor = workspace.Predictor(init_net.read(), predict_net.read())
logits = predictor.run([images])[0]
""",
    ),
    "onnx": Kind(
        None,
        "NCHW",
        "NCHW",
        """\
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits = session.run(["logits"], {"image": images})[0]
""",
    ),
    "jax": Kind(
        None,
        "NHWC",
        "NHWC",
        """\
import jax
import numpy as np
from model import apply, load

logits = np.asarray(jax.jit(apply)(load("weights.npz"), images))
""",
    ),
}

_README = """\
# {model} for {task}

Exported by rvkernels {version} as {kind}. Files: {files}.

Input: `images`, float32, {input}, {pixels}; rows and cols are {sizes}.
Bands in order: {bands}.

Output: `logits`, {output}. {meaning}
Classes in order: {classes}.

```python
{usage}```
"""

_MEANING = {
    "classification": "Softmax over the classes gives probabilities.",
    "segmentation": "Softmax over the classes gives the probabilities of every pixel.",
    "detection": (
        "Locations are ordered by stride ({strides}), then row, then column; location (row, col) of stride s is for "
        "the point ((row + 0.5) s, (col + 0.5) s) in pixels (y, x). Sigmoid of the first {classes} values gives the "
        "score of each class; softplus of the last four, times s, gives the distances in pixels from the point to the "
        "box's edges (top, left, bottom, right). Overlapping boxes of a class are left to non-maximum suppression."
    ),
}


def export(run: str | Path, kind: str, out: str | Path, *, normalise: bool = False) -> None:
    """Write the best weights of a training as `kind` into the new folder `out`, whole; an older export is replaced.

    run        folder of `rvk train`
    kind       one of KINDS
    normalise  put (pixels - mean) / std into the network, so that it takes pixel values; else the user does that, and
               the card has mean and std

    Raises ValueError or FileNotFoundError, one line, when there is no finished epoch in `run`, for a model that is no
    file of rvkernels/models/, for a kind whose framework is not installed, and for a folder `out` of something else.
    """
    if kind not in KINDS:
        raise ValueError(f"export: no kind {kind!r}; {registry.suggest(kind, KINDS)}")
    out = Path(out)
    if out.exists() and not (out / "card.json").is_file():
        raise ValueError(f"export: {out} is there and is no export; name a new folder")
    checkpoint = read_checkpoint(Path(run) / "best.npz")
    about = checkpoint.meta["identity"]
    bands, classes = len(about["bands"]), len(about["classes"])
    graph = build_graph(about["model"], about["model_settings"], about["task"], bands, classes)
    if isinstance(graph, OwnModel):
        raise ValueError(
            f"export: model {graph.name!r} is your own and needs no export: load the arrays weights/* of "
            f"{Path(run) / 'best.npz'} into it, whose names are the module's"
        )
    weights = checkpoint.weights
    weight_files.check(graph, weights, str(Path(run) / "best.npz"))
    if normalise:
        graph, weights = with_normalisation(graph, weights, about["mean"], about["std"])
    card = _card(kind, graph, checkpoint.meta, normalise)
    with atomic(out) as folder:
        folder.mkdir()
        files = _write(kind, graph, weights, folder, card)
        card["files"] = [path.relative_to(folder).as_posix() for path in files]
        write_json(folder / "card.json", card)
        (folder / "README.md").write_text(_readme(card))


def with_normalisation(
    graph: Graph, weights: Mapping[str, np.ndarray], mean: list[float], std: list[float]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph and weights that take pixel values: a batch norm of fixed statistics reads the image first.

    It multiplies by 1 / std, as rvkernels/ops/normalize.py does; its variance is such that sqrt(variance + eps) is 1.
    """
    name = "normalise"
    layers = []
    for layer in graph.layers:
        moved: dict[str, object] = {key: name for key in ("input", "other") if getattr(layer, key, None) == "image"}
        if isinstance(layer, (Concat, Locations)):
            moved["inputs"] = tuple(name if source == "image" else source for source in layer.inputs)
        layers.append(dataclasses.replace(layer, **moved))
    first = {
        f"{name}.scale": np.float32(1) / np.asarray(std, np.float32),
        f"{name}.bias": np.zeros(graph.bands, np.float32),
        f"{name}.mean": np.asarray(mean, np.float32),
        f"{name}.variance": np.full(graph.bands, 1 - 1e-5, np.float32),
    }
    graph = dataclasses.replace(graph, layers=(BatchNorm(name, "image"), *layers))
    return graph, {**first, **weights}


def _write(
    kind: str, graph: Graph, weights: dict[str, np.ndarray], folder: Path, card: Mapping[str, object]
) -> list[Path]:
    """The files of the kind."""
    if kind == "onnx":
        from rvkernels import onnx

        properties = {k: v if isinstance(v, str) else json.dumps(v) for k, v in card.items()}
        onnx.write(folder / "model.onnx", graph, weights, properties)
        return [folder / "model.onnx"]
    if kind == "jax":
        (folder / "model.py").write_text(codegen.jax_module(graph))
        weight_files.save(folder / "weights.npz", weights)
        return [folder / "model.py", folder / "weights.npz"]
    framework = KINDS[kind].framework
    try:
        module = registry.load("frameworks", framework)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"export: --to {kind} needs {framework}, but this Python has no {error.name}; call rvk in the environment "
            f"of envs/{framework}.yaml: .venv, or .venv-{framework} where it needs another Python"
        ) from None
    return module.EXPORTS[kind](graph, weights, folder)


def _card(kind: str, graph: Graph, meta: Mapping[str, object], normalise: bool) -> dict[str, object]:
    about = meta["identity"]
    layout = KINDS[kind].images
    n, rows, cols = "n", "rows", "cols"
    strides = ", ".join(map(str, graph.strides))
    return {
        "kind": kind,
        "task": about["task"],
        "model": about["model"],
        "model_settings": about["model_settings"],
        "classes": about["classes"],
        "bands": about["bands"],
        "mean": about["mean"],
        "std": about["std"],
        "normalisation": "inside" if normalise else "outside",
        "input": {
            "layout": layout,
            "shape": [n, graph.bands, rows, cols] if layout == "NCHW" else [n, rows, cols, graph.bands],
            "dtype": "float32",
            "pixels": (
                "pixel values as in the files" if normalise else "(pixels - mean) / std per band, see mean and std here"
            ),
            "multiple": graph.multiple,
        },
        "output": {
            "shape": codegen.shape_text(graph, KINDS[kind].logits),
            "meaning": _MEANING[graph.task].format(strides=strides, classes=graph.classes),
        },
        "strides": list(graph.strides),
        "trained": {
            **{key: about[key] for key in ("dataset", "framework", "seed", "rvkernels")},
            "epoch": meta["epoch"],
            "validation": meta["metrics"],
        },
    }


def _readme(card: Mapping[str, object]) -> str:
    layout = {"NCHW": "(n, bands, rows, cols)", "NHWC": "(n, rows, cols, bands)"}[card["input"]["layout"]]
    multiple = card["input"]["multiple"]
    pixels = "pixel values as in the image files, not normalised"
    if card["normalisation"] == "outside":
        pairs = zip(card["bands"], card["mean"], card["std"])
        pixels = "normalised per band as (pixel - mean) / std with " + ", ".join(
            f"{band}: {mean:.9g}, {std:.9g}" for band, mean, std in pairs
        )
    return _README.format(
        model=card["model"],
        task=card["task"],
        version=rvkernels.__version__,
        kind=card["kind"],
        files=", ".join(f"`{name}`" for name in card["files"]),
        input=layout,
        pixels=pixels,
        sizes="free" if multiple == 1 else f"multiples of {multiple}",
        bands=", ".join(card["bands"]),
        output=card["output"]["shape"],
        meaning=card["output"]["meaning"],
        classes=", ".join(card["classes"]),
        usage=KINDS[card["kind"]].usage,
    )
