"""The process in which one library's functions run: `python -I _server.py peers/<library>.py`.

Any interpreter that has NumPy and the library runs it; it needs neither rvkernels nor its compiled modules. Requests
come as lines of JSON on standard input and are answered, one line each, on standard output:

    {"do": "prepare", "function": name, "inputs": encoded, "threads": n, "folder": for the result of one run, or null}
                                                                          -> {"result": encoded, or null}
    {"do": "time", "run": number of the former, "calls": n, "warm": n}    -> {"seconds": [s, ...]}
    {"do": "forget"}                                                      -> {}: of all that was prepared

Every request has a "number", and so has its answer. Before them comes, with number 0, {"versions": {distribution:
version}} of what the library's file imports. Any answer may have {"error": one line} instead.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import numpy as np


def encode(value: object, folder: Path, stem: str = "a") -> Any:
    """`value` as JSON: its arrays are written to <stem>....npy in `folder`, a whole .npy that is mapped stays there."""
    if isinstance(value, np.memmap) and _maps_all(value):
        return {"array": str(value.filename)}
    if isinstance(value, np.ndarray) and not value.size:
        return {"empty": [value.dtype.str, value.shape]}  # which cannot be mapped
    if isinstance(value, np.ndarray):
        path = folder / f"{stem}.npy"
        np.save(path, value)
        return {"array": str(path)}
    if isinstance(value, (list, tuple)):
        return {"list": [encode(part, folder, f"{stem}_{i}") for i, part in enumerate(value)]}
    if isinstance(value, dict):
        # Numbered, not named: a key may hold what a file name cannot.
        return {"dict": {key: encode(part, folder, f"{stem}_{i}") for i, (key, part) in enumerate(value.items())}}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"no {type(value).__name__} among inputs and results; there are arrays, numbers and strings")


def decode(value: Any) -> Any:
    """What `encode` was given: arrays mapped from their files and read-only, tuples as lists."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return np.asarray(np.load(content, mmap_mode="r"))  # some libraries refuse a subclass
    if kind == "empty":
        return np.empty(content[1], content[0])
    if kind == "list":
        return [decode(part) for part in content]
    return {key: decode(part) for key, part in content.items()}


def _maps_all(value: np.memmap) -> bool:
    if not (value.filename and str(value.filename).endswith(".npy") and value.flags.c_contiguous):
        return False
    whole = np.load(value.filename, mmap_mode="r")
    return (whole.shape, whole.dtype) == (value.shape, value.dtype)


def timed(run: Callable[[], Any], calls: int, warm: int) -> list[float]:
    """Seconds of each of `calls` calls, after `warm` that do not count."""
    for _ in range(warm):
        run()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def _load(path: str) -> ModuleType:
    # Under a name of its own: peers/numpy.py is not numpy.
    spec = importlib.util.spec_from_file_location(f"peer_{Path(path).stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _versions(module: ModuleType) -> dict[str, str]:
    tops = set()
    for value in vars(module).values():
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        tops.add(str(name).partition(".")[0])
    distributions = importlib.metadata.packages_distributions()
    found = {name for top in tops for name in distributions.get(top, ())}
    return {name: importlib.metadata.version(name) for name in sorted(found)}


def serve(path: str) -> None:
    """Answer requests until standard input ends."""
    # Libraries print, too: what they print goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(number: int, value: dict) -> None:
        answers.write(json.dumps({"number": number, **value}) + "\n")
        answers.flush()

    try:
        module = _load(path)
        answer(0, {"versions": _versions(module)})
    except Exception as error:
        answer(0, {"error": line(error)})
        return
    runs: dict[int, Callable[[], Any]] = {}
    for request in map(json.loads, sys.stdin):
        try:
            answer(request["number"], _do(request, module, runs))
        except Exception as error:
            answer(request["number"], {"error": line(error)})


def _do(request: dict, module: ModuleType, runs: dict[int, Callable[[], Any]]) -> dict:
    do = request["do"]
    if do == "forget":
        runs.clear()
        return {}
    if do == "time":
        return {"seconds": timed(runs[request["run"]], request["calls"], request["warm"])}
    run = getattr(module, request["function"])(decode(request["inputs"]), request["threads"])
    result = run()
    runs[request["number"]] = run
    return {"result": None if request["folder"] is None else encode(result, Path(request["folder"]))}


def line(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    serve(sys.argv[1])
