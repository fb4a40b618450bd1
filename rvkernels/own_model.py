"""A user's own model: in the place of a graph, a native module that a Python entry point makes in each framework.

In a study, under `models:` of an experiment:

    mine:
      torch: "mypkg.models:factory"         an entry point for each framework it is to run in
      tensorflow: "mypkg.layers:factory"
      settings: { width: 16 }               keyword arguments of every factory
      multiple: 8                           rows and columns of an image must be multiples of this; 1

factory(bands, classes, **settings) is called after the framework's seed is set from the run's (in JAX, which has none,
with the keyword argument `key`, a jax.random.key of it), and returns what RETURNS says. Loss, optimizer, batches,
checkpoints and metrics are those of every model; weights have the names and layouts of the module itself, so that
frameworks do not start from the same ones. Modules are found where Python finds them (installed, or on PYTHONPATH), and
in the working directory.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np

from rvkernels import registry
from rvkernels.models import OwnModel, shapes

# What the factory of each framework returns. Logits of segmentation are for every pixel of the image.
RETURNS = {
    "torch": "a torch.nn.Module: images (n, bands, rows, cols) -> logits (n, classes) or (n, classes, rows, cols)",
    "tensorflow": (
        "a tf.keras.Model that is built, or a tf.Module with __call__(images, training): images "
        "(n, rows, cols, bands) -> logits (n, classes) or (n, rows, cols, classes)"
    ),
    "jax": (
        "a pair (parameters, apply): a dict of float32 arrays by name, and apply(parameters, images, training): images "
        "(n, rows, cols, bands) -> logits (n, classes) or (n, rows, cols, classes)"
    ),
}

# Frameworks whose modules train in several processes: their batch norms can be found, and replaced.
TOGETHER = ("torch",)

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str, settings: Mapping[str, object]) -> bool:
    """Whether `models: {name: settings}` means an own model: no file of rvkernels/models/, but entry points."""
    entry_points = any(k in registry.names("frameworks") or ":" in str(v) for k, v in settings.items())
    return name not in registry.names("models") and entry_points


def own_model(name: str, settings: Mapping[str, object], task: str, bands: int, classes: int) -> OwnModel:
    """The model that `models: {name: settings}` describes; nothing of the user's is imported.

    Raises ValueError, one line, for a name that makes no folder, an unknown framework or key, an entry point of another
    form or whose module is not found, and for detection.
    """
    where = f"model {name!r}"
    if not re.fullmatch("[a-z0-9_]+", name):
        raise ValueError(f"{where}: the name of a model has small letters, digits and _ only")
    if task == "detection":
        raise ValueError(
            f"{where}: own models are for classification and segmentation; detection needs the strides of a graph: "
            f"write rvkernels/models/{name}.py"
        )
    entries = {key: value for key, value in settings.items() if key not in ("settings", "multiple")}
    for framework, entry in entries.items():
        if framework not in RETURNS:
            known = registry.suggest(framework, [*RETURNS, "settings", "multiple"])
            raise ValueError(f"{where}: own models do not run in {framework!r}; {known}")
        if not isinstance(entry, str) or not _ENTRY.fullmatch(entry):
            raise ValueError(
                f"{where}: {framework} is {entry!r}, expected an entry point such as 'mypkg.models:factory'"
            )
        source_of(entry, where)
    if not entries:
        raise ValueError(f"{where}: no entry point; name one for each framework, such as torch: 'mypkg.models:factory'")
    arguments, multiple = settings.get("settings", {}), settings.get("multiple", 1)
    if not isinstance(arguments, dict):
        raise ValueError(f"{where}: settings is {arguments!r}, expected the keyword arguments of the factory")
    if type(multiple) is not int or multiple < 1:
        raise ValueError(f"{where}: multiple is {multiple!r}, expected a whole number of at least 1")
    return OwnModel(name, task, bands, classes, dict(entries), dict(arguments), multiple)


def source_of(entry: str, where: str) -> Path:
    """The file of an entry point's module, found without importing it.

    Raises ValueError, naming `where`, when there is none.
    """
    module = entry.partition(":")[0]
    path, spec = _path(), None
    for i in range(module.count(".") + 1):
        spec = PathFinder.find_spec(".".join(module.split(".")[: i + 1]), path)
        if spec is None:
            break
        path = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None:
        raise ValueError(
            f"{where}: {entry}: no module {module!r}; it is looked for where Python looks (set PYTHONPATH, or install "
            f"it) and in the working directory"
        )
    return Path(spec.origin)


def _path() -> list[str]:
    return [*sys.path, os.getcwd()]


def digest(entry: str, model: str) -> str:
    """Of an entry point of `model` and of all Python files of its package: what decides how the module is made.

    Raises ValueError when the package is gone.
    """
    source = source_of(entry, f"model {model!r}")
    top = source
    for _ in range(entry.partition(":")[0].count(".") + (source.name == "__init__.py")):
        top = top.parent
    found = hashlib.sha256(f"{entry}\n".encode())
    for path in [top] if top.is_file() else sorted(top.rglob("*.py")):
        found.update(f"{path.relative_to(top.parent).as_posix()}\n".encode() + path.read_bytes())
    return found.hexdigest()


def make(model: OwnModel, framework: str, kind: type | tuple[type, ...], **more: object) -> Any:
    """What the factory of `framework` returns; `more` are keyword arguments that this framework's factories take too.

    Raises ValueError, one line, when there is no entry point for the framework, its module or attribute is missing,
    importing or calling raises anything, or the result is no `kind`.
    """
    where, entry = f"model {model.name!r}", model.entry(framework)
    name, _, attribute = entry.partition(":")
    source_of(entry, where)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"{where}: importing {name} raised {_told(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        known = registry.suggest(attribute, [n for n, v in vars(module).items() if callable(v) and n[0] != "_"])
        raise ValueError(f"{where}: {name} has no function {attribute!r}; {known}")
    try:
        made = factory(model.bands, model.classes, **model.settings, **more)
    except Exception as error:
        raise ValueError(f"{where}: {entry} raised {_told(error)}") from error
    if not isinstance(made, kind):
        raise ValueError(f"{where}: {entry} returned {type(made).__name__}, expected {RETURNS[framework]}")
    return made


def try_out(model: OwnModel, framework: object, rows: int, cols: int) -> None:
    """Predict one image of zeros.

    framework  a rvkernels.frameworks.Framework of `model`

    Raises ValueError, one line, when the user's module raises anything or its logits have no shape of the task.
    """
    shape = (1, rows, cols, model.bands) if framework.layout == "NHWC" else (1, model.bands, rows, cols)
    try:
        logits = framework.predict(np.zeros(shape, np.float32))
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"model {model.name!r}: predicting an image of zeros raised {_told(error)}") from error
    expected = (1, *shapes(model, rows, cols)[model.output])
    if logits.shape != expected:
        raise ValueError(
            f"model {model.name!r}: for images of shape {shape} the logits have, classes last, shape {logits.shape}; "
            f"{model.task} needs {expected}"
        )


def _told(error: Exception) -> str:
    """An exception in one line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {text}"
