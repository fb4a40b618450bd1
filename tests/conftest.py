"""Versions in the header of every test run, and what a test may ask for."""

from __future__ import annotations

import importlib.metadata
import shutil

import hypothesis
import pytest

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
