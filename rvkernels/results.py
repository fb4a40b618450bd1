"""What a study left under results/<study>/, opened for the report."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rvkernels import dataset, leaks
from rvkernels.chips import Chips
from rvkernels.files import read_json
from rvkernels.runs import read_steps
from rvkernels.scene import Scene, read_scenes


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
    def models(self) -> list[str]:
        return list(self.settings["models"])

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
    def leaks(self) -> dict:
        """What the splits have in common, as rvkernels.leaks wrote it."""
        return read_json(self.folder / "chips" / leaks.FILE)

    @functools.cached_property
    def scenes(self) -> dict[str, Scene]:
        return read_scenes(self.folder / "scenes.jsonl")

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
        self._records: dict[Path, dict] = {}
        self.experiments = {
            name: Experiment(name, settings, dataset.load(datasets[name]), self.folder / "data" / name)
            for name, settings in study["experiments"].items()
        }
        self.runs = self._table("runs", reached="boolean", weight_identical="boolean")
        self.summary = self._table("summary")
        self.margins = self._table("margins")
        self.epochs = self._table("epochs")
        self.classes = self._table("classes")
        self.targets = self._table("targets")
        self.pairs = self._table("frameworks", equivalent="boolean")
        self.divergence = self._table("divergence", within_first_20="boolean", within_control="boolean")
        self.equal = self._table("equal")
        # Beside the studies, which share them.
        kernels = self.folder.parent / "bench"
        self.kernels = pd.DataFrame(read_json(kernels / "kernels.json") if study.get("bench") else [])
        self.kernels_machine = read_json(kernels / "machine.json") if study.get("bench") else {}

    def _table(self, name: str, **types: str) -> pd.DataFrame:
        """A table of compare, experiments and models in the study's order."""
        table = pd.read_csv(self.folder / "tables" / f"{name}.csv", dtype=types)
        place = {(e, m): (i, j) for i, (e, x) in enumerate(self.experiments.items()) for j, m in enumerate(x.models)}
        last = (len(place), 0)
        keys = [place.get((e, m), last) for e, m in zip(table.experiment, table.model)]
        return table.iloc[sorted(range(len(table)), key=keys.__getitem__)].reset_index(drop=True)

    def runs_of(self, experiment: str, *, baseline: bool = False) -> pd.DataFrame:
        """Rows of runs.csv of one experiment, networks first in the study's order, then the baseline if asked for."""
        rows = self.runs[self.runs.experiment == experiment]
        models = self.experiments[experiment].models
        networks = rows[rows.model.isin(models)]
        order = {"model": models.index, "framework": self.study["frameworks"].index}
        networks = networks.sort_values(["model", "framework", "seed"], key=lambda c: c.map(order.get(c.name, int)))
        return pd.concat([networks, rows[~rows.model.isin(models)]]) if baseline else networks

    @functools.cached_property
    def training_unit(self) -> tuple[str, float]:
        """What the time of a training is told in, and the seconds of it: one for all, so that times compare."""
        longest = self.runs.groupby(["experiment", "model", "framework"]).train_epoch_s.median().max()
        units = {"hours": 3600.0, "minutes": 60.0}
        return next(((name, unit) for name, unit in units.items() if longest >= 10 * unit), ("seconds", 1.0))

    @property
    def several_frameworks(self) -> bool:
        """Whether there is anything to compare."""
        return not self.pairs.empty

    def run_folder(self, row: pd.Series) -> Path:
        return self.folder / "runs" / Path(row.record).parent

    def record(self, row: pd.Series) -> dict:
        path = self.run_folder(row) / "record.json"
        if path not in self._records:
            self._records[path] = read_json(path)
        return self._records[path]

    def step_seconds(self, row: pd.Series) -> np.ndarray:
        """Seconds of every training step, (steps,), without those that warm up after a start."""
        steps = read_steps(self.run_folder(row))
        return steps["seconds"][steps["since_start"] >= self.record(row)["result"].get("warmup_steps", 0)]

    def evaluation(self, row: pd.Series) -> dict:
        return read_json(self.run_folder(row) / "eval.json")
