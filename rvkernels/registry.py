"""A name in a study is a file in a folder: `models: {unet: ...}` is rvkernels/models/unet.py."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Callable


def names(kind: str) -> list[str]:
    """Names that `load(kind, name)` accepts, sorted."""
    package = importlib.import_module(f"rvkernels.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def suggest(name: str, known: Iterable[str]) -> str:
    """'; there are a, b. Did you mean 'a'?' for an error about an unknown `name`."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"there are {', '.join(known) or 'none'}." + (f" Did you mean {near[0]!r}?" if near else "")


def load(kind: str, name: str) -> ModuleType:
    """Import rvkernels/<kind>/<name>.py.

    Raises ValueError, listing what there is, when there is no such file.
    """
    if name not in names(kind):
        raise ValueError(f"no {name!r} in rvkernels/{kind}/; {suggest(name, names(kind))}")
    return importlib.import_module(f"rvkernels.{kind}.{name}")


def tree(kind: str, name: str) -> ast.Module:
    """What stands in rvkernels/<kind>/<name>.py, without importing it; nothing when there is no such file."""
    spec = importlib.util.find_spec(f"rvkernels.{kind}.{name}")
    return ast.parse(Path(spec.origin).read_text() if spec else "")


@functools.cache
def constant(kind: str, name: str, what: str, default: object = None) -> object:
    """What rvkernels/<kind>/<name>.py assigns to `what`, a literal, read without importing the file.

    `default` when there is no such file, or it says nothing.
    """
    for line in tree(kind, name).body:
        if isinstance(line, ast.Assign) and [getattr(target, "id", None) for target in line.targets] == [what]:
            return ast.literal_eval(line.value)
    return default


def parameters(function: Callable) -> dict[str, object]:
    """Keyword-only parameters of `function` with their defaults: the settings a study may give it."""
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


def check_parameters(function: Callable, given: Iterable[str], where: str) -> None:
    """Raise ValueError naming `where` when `given` holds a key that is no keyword-only parameter of `function`."""
    known = parameters(function)
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown setting {key!r}; {suggest(key, known)}")


def complete(function: Callable[..., dict], given: Mapping[str, object] | None, where: str) -> dict | None:
    """`function(**given)`, settings with their defaults; None for None. ValueError naming `where` and the key."""
    if given is None:
        return None
    check_parameters(function, given, where)
    try:
        return function(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
