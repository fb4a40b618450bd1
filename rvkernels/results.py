"""What a study left under results/<study>/, opened for the report."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rvkernels import dataset
from rvkernels.chips import Chips
from rvkernels.files import read_json
from rvkernels.scene import Region, Scene, read_regions, read_scenes


@dataclass(frozen=True)
class Experiment:
    """One experiment's data: what every run of it shares."""

    name: str
    settings: dict
    description: dict
    folder: Path

    @property
    def task(self) -> str:
        return self.settings["task"]

    @property
    def classes(self) -> list[str]:
        return dataset.class_names(self.description)

    @property
    def colors(self) -> np.ndarray:
        """(classes, 3) uint8."""
        return dataset.colors(self.description)

    @functools.cached_property
    def statistics(self) -> dict:
        return read_json(self.folder / "statistics.json")

    @functools.cached_property
    def chips(self) -> Chips:
        return Chips.open(self.folder / "chips")

    @functools.cached_property
    def scenes(self) -> dict[str, Scene]:
        return read_scenes(self.folder / "scenes.jsonl")

    @functools.cached_property
    def regions(self) -> list[Region]:
        return read_regions(self.folder / "regions.csv")

    def stretch(self) -> tuple[np.ndarray, np.ndarray]:
        """Per band the values that are shown black and white: the 1st and 99th percentile of the training pixels."""
        quantiles = self.statistics["quantiles"]
        return np.asarray(quantiles["0.01"]), np.asarray(quantiles["0.99"])


class Results:
    """A study's tables, records and experiments."""

    def __init__(self, folder: str | Path, study: dict, datasets: dict[str, str]) -> None:
        """`study`: the resolved configuration; `datasets`: experiment -> its dataset's description file."""
        self.folder = Path(folder)
        self.study = study
        self.experiments = {
            name: Experiment(name, settings, dataset.load(datasets[name]), self.folder / "data" / name)
            for name, settings in study["experiments"].items()
        }
        tables = self.folder / "tables"
        self.runs = pd.read_csv(tables / "runs.csv")
        self.summary = pd.read_csv(tables / "summary.csv")
        self.margins = pd.read_csv(tables / "margins.csv")
        self.epochs = pd.read_csv(tables / "epochs.csv")
        self.classes = pd.read_csv(tables / "classes.csv")

    def runs_of(self, experiment: str, *, baseline: bool = False) -> pd.DataFrame:
        """Rows of runs.csv of one experiment, networks first in the study's order, then the baseline if asked for."""
        rows = self.runs[self.runs.experiment == experiment]
        order = {m: i for i, m in enumerate(self.experiments[experiment].settings["models"])}
        networks = rows[rows.model.isin(order)]
        networks = networks.sort_values(
            ["model", "framework", "seed"], key=lambda c: c.map(order) if c.name == "model" else c
        )
        return pd.concat([networks, rows[~rows.model.isin(order)]]) if baseline else networks

    def run_folder(self, row: pd.Series) -> Path:
        return self.folder / "runs" / Path(row.record).parent

    def record(self, row: pd.Series) -> dict:
        return read_json(self.run_folder(row) / "record.json")

    def evaluation(self, row: pd.Series) -> dict:
        return read_json(self.run_folder(row) / "eval.json")

    def model_index(self, experiment: str, model: str) -> int:
        """Position of the model among the experiment's: its shade, line and marker."""
        return list(self.experiments[experiment].settings["models"]).index(model)
