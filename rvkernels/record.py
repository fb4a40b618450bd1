"""The record of a run: what was done, every raw time, whether its check passed, on which machine, with what software.

No host name, user name or path goes into a record.
"""

from __future__ import annotations

import datetime
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

import rvkernels
from rvkernels.files import write_json
from rvkernels.registry import suggest

# The closed set of keys. "machine", "software" and "environment" are filled in by write_record.
REQUIRED = ("what", "validated")
KEYS = {
    "what": "the stage: train, predict, bench-train, ...",
    "validated": "true when the check of this result passed; a figure is drawn only from such records",
    "check": "what was checked and what came out",
    "dataset": "name of the dataset description",
    "task": "classification, segmentation or detection",
    "model": "name of the model",
    "framework": "name of the framework",
    "seed": "the seed of the run",
    "device": "cpu or cuda",
    "threads": "threads the stage was given",
    "workers": "processes that trained together: how many, at each start, and on which machines at the last",
    "started": "when the run began, UTC (ISO 8601); of a resumed run its first start",
    "weight_identical": "true when all frameworks start this model from the same weights; false of a user's own model",
    "settings": "every setting of the stage",
    "result": "numbers the stage found: the best metric, counts, ...",
    "times_s": "every raw time in seconds, as lists by name",
    "chips_per_s": "chips per second of training or prediction, warm-up left out",
    "peak_rss_mb": "largest resident memory of the process, MiB; of several workers the first's",
    "peak_device_mb": "largest memory the framework held on the device, MiB, where it can tell",
    "machine": "see machine()",
    "software": "see software()",
    "environment": "see environment()",
}

# Environment variables that decide how many threads a framework's libraries compute with, where, and how they wait.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OMP_DYNAMIC",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "OMP_THREAD_LIMIT",
    "GOMP_CPU_AFFINITY",
    "GOMP_SPINCOUNT",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "MKL_DYNAMIC",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
# What tells of the machine or the checkout is given up after so long.
PATIENCE_SECONDS = 20.0


def utc_now() -> str:
    """The time as 2026-01-31T12:00:00Z."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def environment() -> dict[str, str]:
    """Those of THREAD_VARIABLES that are set in this process."""
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}


def peak_rss_mb() -> float:
    """Largest resident set of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count what the parent had at the fork; VmHWM starts anew with the program.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0)


def _cpu_model() -> str:
    """The processor's name as its maker writes it, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model") and value.strip():
                return value.strip()
    if sys.platform == "darwin":
        return output_of(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    return platform.processor() or platform.machine()


def output_of(command: list[str]) -> str | None:
    """Standard output of `command`; None when it is not installed, fails or takes over PATIENCE_SECONDS."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    except (FileNotFoundError, PermissionError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()


def machine() -> dict[str, object]:
    """Processor, cores this process may use, memory in MiB, and GPUs with their driver where there are any."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, object] = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
    }
    lines = output_of(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"])
    if lines:
        gpus = [[part.strip() for part in line.split(",")] for line in lines.splitlines()]
        found["gpus"] = [{"name": g[0], "memory_mb": g[1], "driver": g[2]} for g in gpus if len(g) == 3]
    return found


def _commit(package: Path) -> dict[str, object]:
    """{"commit", "dirty"} of the checkout that `package` lies in or was built from; {} when neither is known."""
    # Only a checkout that tracks this very file tells which commit runs: a virtual environment may lie inside the
    # checkout of something else.
    git = ["git", "-C", str(package)]
    if output_of([*git, "ls-files", "--error-unmatch", "__init__.py"]) is not None:
        changes = output_of([*git, "status", "--porcelain", "--untracked-files=no"])
        return {"commit": output_of([*git, "rev-parse", "HEAD"]), "dirty": bool(changes)}
    built = package / "commit.txt"
    commit, _, dirty = (built.read_text().strip() if built.is_file() else "").partition("-")
    return {"commit": commit, "dirty": bool(dirty)} if commit else {}


def software() -> dict[str, object]:
    """Versions of Python, NumPy and this package; its commit; compiler and flags of the kernels."""
    found: dict[str, object] = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rvkernels": rvkernels.__version__,
    }
    found.update(_commit(Path(rvkernels.__file__).resolve().parent))
    try:
        from rvkernels import _core
    except ImportError:
        return found
    for key in ("compiler", "flags"):
        if hasattr(_core, key):
            found[key] = getattr(_core, key)
    return found


def write_record(path: str | Path, *, software_of: dict[str, str] | None = None, **fields: object) -> None:
    """Write a record as JSON, atomically.

    fields       values of KEYS; None values are left out. "what" and "validated" are required
    software_of  versions of the framework, added to software()

    Raises ValueError for an unknown or missing key and for a number that is not finite.
    """
    for key in fields:
        if key not in KEYS:
            raise ValueError(f"record {path}: unknown key {key!r}; {suggest(key, KEYS)}")
    for key in REQUIRED:
        if fields.get(key) is None:
            raise ValueError(f"record {path}: {key!r} is missing")
    if not isinstance(fields["validated"], bool):
        raise ValueError(f"record {path}: validated is {fields['validated']!r}, expected True or False")
    full = {"peak_rss_mb": round(peak_rss_mb(), 1), "machine": machine(), **fields}
    full["software"] = {**software(), **(software_of or {})}
    full["environment"] = environment()
    write_json(path, {key: full[key] for key in KEYS if full.get(key) is not None})
