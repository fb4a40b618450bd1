"""The environment that a framework runs in: which Python, and how many threads its libraries start."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# What numerical libraries read when they are loaded: OpenMP (torch, Caffe2), OpenBLAS (NumPy), MKL (torch, Caffe2).
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def home(framework: str) -> Path:
    """Where the framework's Python is installed.

    A framework may need another Python than the rest. Its environment then stands beside this one with the framework's
    name added, `.venv-caffe2` beside `.venv`, and has its own `rvk`; all others are in this one.
    """
    own = Path(f"{sys.prefix}-{framework}")
    return own if (own / "bin/rvk").is_file() else Path(sys.prefix)


def check(frameworks: Iterable[str]) -> None:
    """Raise ValueError, one line, for the first framework whose packages its environment lacks."""
    for framework in frameworks:
        environment = home(framework)
        missing = _missing(environment, _packages(framework))
        if missing:
            raise ValueError(
                f"study: frameworks: {framework} is not installed: no package {', '.join(missing)} in "
                f"{environment.name}; `envs/setup.sh {framework}` in the checkout installs it, or take it out"
            )


def enter(framework: str, threads: int, arguments: list[str]) -> None:
    """Make this process one that runs `framework`: to be called before anything numerical is imported.

    Sets the number of threads (0: all cores that this process may use) and how they wait, the same for every framework;
    OMP_WAIT_POLICY and GOMP_SPINCOUNT stay as they are when one is set. A framework that has its own environment goes
    on there, as `rvk` with `arguments` in place of this program.
    """
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    # OpenMP's waiting threads spin for milliseconds by default, and so keep other jobs and the thread that prepares
    # batches from a core; with OMP_WAIT_POLICY=PASSIVE they sleep at once. Measured with PyTorch on 2 cores (steps of
    # fcn, resnet and detector): on idle ones this number is as fast as the default and sleeping takes 1.3 to 1.6 times
    # as long; beside a process that takes one of the cores sleeping is faster, by a factor of 1.7 to 2.5.
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = "10000"
    environment = home(framework)
    if environment == Path(sys.prefix):
        return
    # Packages of one Python do not load in another.
    path = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    ours = [p for p in path if p and not {"site-packages", "dist-packages"} & set(Path(p).parts)]
    if ours:
        os.environ["PYTHONPATH"] = os.pathsep.join(ours)
    rvk = environment / "bin/rvk"
    os.execv(rvk, [str(rvk), *arguments])


def _packages(framework: str) -> list[str]:
    """What rvkernels/frameworks/<framework>.py imports when it is loaded, besides rvkernels."""
    spec = importlib.util.find_spec(f"rvkernels.frameworks.{framework}")
    if spec is None or spec.origin is None:
        raise ValueError(f"study: frameworks: no rvkernels/frameworks/{framework}.py")
    found = {name.partition(".")[0] for name in imported(Path(spec.origin).read_bytes(), inside=False)}
    return sorted(found - {"rvkernels", "__future__"})


def imported(source: bytes, *, inside: bool = True) -> list[str]:
    """Names in import statements, a module's and of `from` also what is taken from it, which may be a module.

    inside  also those in functions and classes
    """
    found: list[str] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif inside or not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
    return found


def _missing(environment: Path, packages: list[str]) -> list[str]:
    """Those of `packages` that the environment's Python does not find."""
    if environment == Path(sys.prefix):
        return [name for name in packages if importlib.util.find_spec(name) is None]
    look = "import sys; from importlib.util import find_spec; print(*(n for n in sys.argv[1:] if find_spec(n) is None))"
    command = [environment / "bin/python", "-I", "-c", look, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else packages
