"""Versions in the header of every test run, and what a test may ask for."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from rvkernels.checkpoint import Checkpoint, write_checkpoint
from rvkernels.files import write_json

# The same examples every time: a failure that comes and goes helps nobody. Deadlines are off, machines differ.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.load_profile("repeatable")

SHOWN = ("numpy", "gdal", "torch", "shapely", "snakemake")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def pytest_report_header() -> str:
    return "versions: " + ", ".join(f"{package} {version(package)}" for package in SHOWN)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("nvidia-smi") is not None:
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine (nvidia-smi not found)"))


@pytest.fixture
def made_run(tmp_path):
    """A function that writes the folder of a run as training, prediction and evaluation leave it, with made-up numbers.

    Returns the folder below tmp_path / "runs". `record` is merged into the record, `identity` into what the training
    kept of its start; `losses` are of every step, `validation` of the metric miou in every epoch.
    """

    def write(
        experiment: str,
        model: str,
        framework: str,
        seed: int,
        miou: float | None,
        *,
        validated: bool = True,
        record: dict | None = None,
        identity: dict | None = None,
        losses: Sequence[float] = (2.5, 1.25),
        validation: Sequence[float] = (0.4, 0.6),
    ) -> Path:
        folder = tmp_path / "runs" / experiment / model / framework / str(seed)
        write_json(
            folder / "record.json",
            {
                "what": "train",
                "validated": validated,
                "dataset": "towns",
                "task": "segmentation",
                "result": {"best_epoch": 2, "steps": len(losses), "stopped_early": False},
                "times_s": {"train_epoch": [1.0, 2.0], "val_epoch": [0.25, 0.25], "step": [0.5, 0.01, 0.02]},
                "chips_per_s": 10.0 * (seed + 1),
                "peak_rss_mb": 100.0,
                "device": "cpu",
                "threads": 2,
                "machine": {"cpu": "a processor", "usable_cores": 2, "cores": 2, "memory_mb": 4096.0},
                "software": {"rvkernels": "1.0", framework: "2.0"},
                **(record or {}),
            },
        )
        write_json(
            folder / "predictions" / "record.json",
            {"what": "predict", "validated": True, "times_s": {"network": [0.5, 0.5]}, "chips_per_s": 40.0},
        )
        item = {"class_id": 0, "class_name": "road", "gt_count": 7, "iou": miou, "metrics": {"f1": 0.5, "recall": None}}
        ece = None if miou is None else 1 - miou
        write_json(
            folder / "eval.json",
            {
                "overall": [item, {"class_name": "average", "metrics": {"f1": 0.5}}],
                "per_scene": {},
                "primary": "miou",
                "summary": {"overall": {"miou": miou, "ece": ece}, "per_scene": {}},
            },
        )
        if model == "baseline":
            return folder
        lines = [f"{i},0.1,2.5,{value},{i}.0,best" for i, value in enumerate(validation, 1)]
        (folder / "log.csv").write_text("\n".join(["epoch,lr,train_loss,val_miou,train_seconds,note", *lines, ""]))
        np.savez(folder / "steps.npz", loss=np.array(losses, np.float64))
        start = {
            "weights": f"{seed}" * 64,
            "chips": "c" * 64,
            "mean": [0.5],
            "std": [0.25],
            "model_settings": {"width": 8},
            "settings": {"batch": 2, "precision": "float32", "compile": False},
            **(identity or {}),
        }
        write_checkpoint(folder / "best.npz", Checkpoint({}, {"identity": start}))
        return folder

    return write
