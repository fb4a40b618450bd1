"""Results that are kept in results/published/ beside those of the literature.

A folder in it holds what a study left, tables/ and, anywhere, the records of its trainings, and published.yaml, which
says what cannot be read from them (workflow/schemas/published.schema.yaml). No number is typed: ours are copied from
the tables, others' from the descriptions of the datasets.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from rvkernels import schema
from rvkernels.compare import BASELINE

COLUMNS = (
    *("dataset", "task", "model", "framework", "metric", "ours_mean", "ours_sd", "seeds", "published", "source"),
    *("protocol_difference", "command", "machine", "hours"),
)
FILE = "published.yaml"


@dataclass(frozen=True)
class Published:
    """A study's folder in results/published/."""

    folder: Path

    @functools.cached_property
    def said(self) -> dict:
        """published.yaml, checked. Raises FileNotFoundError or ValueError."""
        path = self.folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; say in it `what` was run and by which `command`")
        return schema.validate(schema.read(path), schema.find("published.schema.yaml"), str(path))

    def table(self, name: str) -> list[dict[str, str]]:
        """Rows of tables/<name>.csv, as text."""
        with (self.folder / f"tables/{name}.csv").open(newline="") as lines:
            return list(csv.DictReader(lines))

    @functools.cached_property
    def runs(self) -> list[dict[str, str]]:
        """Rows of tables/runs.csv without the baselines'."""
        return [row for row in self.table("runs") if row["model"] != BASELINE]

    @functools.cached_property
    def records(self) -> list[dict]:
        """The records of trainings that were kept."""
        found = (json.loads(path.read_text()) for path in sorted(self.folder.rglob("*.json")))
        return [record for record in found if isinstance(record, dict) and record.get("what") == "train"]

    def machines(self, **keys: str) -> str:
        """Where the trainings with these keys ran, by their records; empty where none of them was kept."""
        records = [r for r in self.records if all(str(r.get(key)) == value for key, value in keys.items())]
        return "; ".join(dict.fromkeys(_machine(record) for record in records))

    def hours(self, **keys: str) -> str:
        """Hours of training steps and their batches, all seeds together; empty where they are not known."""
        rows = [row for row in self.runs if all(row[key] == value for key, value in keys.items())]
        seconds = [row.get("train_epoch_s", "") for row in rows]
        return f"{sum(map(float, seconds)) / 3600:.3g}" if rows and all(seconds) else ""


def studies(folder: str | Path) -> list[Published]:
    """The studies in results/published/, by name."""
    return [Published(path.parent) for path in sorted(Path(folder).glob("*/tables"))]


def rows(folder: str | Path, datasets: str | Path) -> list[dict[str, str]]:
    """Every mean of ours with each published value of the same dataset and metric, by COLUMNS.

    folder    results/published/
    datasets  folder of the datasets' descriptions
    Raises ValueError when a study does not say in what its protocol differs from the published ones.
    """
    found = []
    for study in studies(folder):
        differences = study.said["protocol_difference"]
        for ours in study.table("summary"):
            if ours["model"] == BASELINE:
                continue
            keys = {key: ours[key] for key in ("dataset", "model", "framework")}
            seeds = [r["seed"] for r in study.runs if all(r[k] == ours[k] for k in (*keys, "experiment"))]
            for theirs in _published(Path(datasets), ours["dataset"]):
                if theirs["metric"] != ours["quantity"]:
                    continue
                if ours["experiment"] not in differences:
                    raise ValueError(
                        f"{study.folder / FILE}: protocol_difference: says nothing of {ours['experiment']}; write in "
                        f"what it differs from the published results of {ours['dataset']}"
                    )
                values = (
                    *(ours["dataset"], ours["task"], ours["model"], ours["framework"], ours["quantity"]),
                    *(ours["mean"], ours["std"], " ".join(seeds), str(theirs["value"])),
                    f"{theirs['what']} ({theirs['source']})",
                    *(differences[ours["experiment"]], study.said["command"], study.machines(**keys)),
                    study.hours(**keys, experiment=ours["experiment"]),
                )
                found.append(dict(zip(COLUMNS, values)))
    return found


def as_csv(found: list[dict[str, str]]) -> str:
    """The contents of published.csv."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(found)
    return text.getvalue()


def as_markdown(folder: str | Path, found: list[dict[str, str]]) -> str:
    """What ran, where, how long and by which command; then ours beside the published results, a row for each metric
    of an experiment: every pair of ours with one of theirs is in the table of `as_csv`."""
    ran = [
        (
            f"`{s.folder.name}/`",
            s.said["what"],
            s.machines() or "not kept",
            s.hours() or "not kept",
            f"`{s.said['command']}`",
        )
        for s in studies(folder)
    ]
    groups: dict[tuple[str, ...], tuple[dict[str, None], dict[str, None]]] = {}
    for row in found:
        ours, theirs = groups.setdefault(
            tuple(row[key] for key in ("dataset", "metric", "protocol_difference")), ({}, {})
        )
        spread = f" ± {float(row['ours_sd']):.4f}" if row["ours_sd"] else ""
        seeds = len(row["seeds"].split())
        ours[
            f"{float(row['ours_mean']):.4f}{spread} {row['model']} in {row['framework']} "
            f"({seeds} seed{'' if seeds == 1 else 's'})"
        ] = None
        theirs[f"{row['published']} {row['source']}"] = None
    beside = [
        (dataset, metric, "<br>".join(ours), "<br>".join(theirs), difference)
        for (dataset, metric, difference), (ours, theirs) in groups.items()
    ]
    return "\n\n".join(
        [
            _table(("folder", "what ran", "machine", "hours of training", "command"), ran),
            "Ours beside published results of the same dataset and metric:",
            _table(
                ("dataset", "metric", "ours, mean ± standard deviation over seeds", "published", "what differs"), beside
            ),
        ]
    )


def _published(datasets: Path, name: str) -> list[dict]:
    """What the description of a dataset lists; nothing when it is not one of the project's."""
    path = datasets / f"{name}.yaml"
    return yaml.safe_load(path.read_text()).get("published", []) if path.is_file() else []


def _machine(record: dict) -> str:
    machine = record["machine"]
    gpus = [gpu["name"] for gpu in machine.get("gpus", [])] if record["device"] == "cuda" else []
    return ", ".join([machine["cpu"], f"{machine['usable_cores']} cores", *gpus])


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
