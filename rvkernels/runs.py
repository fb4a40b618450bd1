"""What a training keeps in its folder, read back: log.csv, a row per epoch, and steps.npz, a value per step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Optional

import numpy as np

Epoch = dict[str, Optional[float]]  # by column; None where it is undefined


def read_log(run: str | Path) -> list[Epoch]:
    """The epochs of log.csv. FileNotFoundError when there is none."""
    with _there(Path(run) / "log.csv").open(newline="") as lines:
        return [{name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(lines)]


def read_steps(run: str | Path) -> dict[str, np.ndarray]:
    """The columns of steps.npz (rvkernels.train.STEP_COLUMNS), (steps,) each. FileNotFoundError when there is none."""
    with np.load(_there(Path(run) / "steps.npz")) as steps:
        return {name: steps[name] for name in steps.files}


def _there(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; this run is not finished")
    return path
