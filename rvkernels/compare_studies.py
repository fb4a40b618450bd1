"""What two studies differ in: settings, versions, machine and data, and what that did to quality and cost.

A study is read from results/<study>/: tables/runs.csv and tables/study.json of `rvk compare`, and, where they are
there, the runs' records (versions, machine) and checkpoints (checksums of chips and initial weights).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rvkernels.checkpoint import read_meta
from rvkernels.compare import BASELINE, COST, GROUP, MEASURED, TARGET, metric_columns
from rvkernels.files import atomic, read_json, write_json
from rvkernels.interval import Interval, paired, paired_ratio, ratio_bound, welch, welch_ratio

ABSENT = "—"
# Costs that text and Markdown show; CSV and JSON have every column of seconds, chips per second and MiB.
SHOWN = (
    *("train_epoch_s", TARGET[-1], "step_median_s", "latency_1_median_s"),
    *COST,
)
SIDES = ("a", "b")
CHANGES = ["part", "key", *SIDES]
ONLY = [*GROUP, "in", "seeds"]
RESULTS = [*GROUP, "quantity", "measure", *SIDES, "estimate", "low", "high", "method", "outside"]
WIDEST = 60  # characters of a setting in text and Markdown


@dataclass(frozen=True)
class Study:
    """One side: its settings, a row per run, and per run the record and what the training kept of its start.

    Records and starts are empty where there is none; a start also where the checkpoint is of another version.
    """

    folder: Path
    settings: dict
    runs: pd.DataFrame
    records: list[dict]
    starts: list[dict]

    @property
    def name(self) -> str:
        return self.settings["study"]

    def groups(self) -> dict[tuple, pd.DataFrame]:
        """(experiment, dataset, task, model, framework) -> its runs, in the table's order."""
        return dict(iter(self.runs.groupby(GROUP, sort=False)))


@dataclass(frozen=True)
class Difference:
    """What is told of two studies. Tables have the columns CHANGES, ONLY and RESULTS.

    changes  part is settings, software, machine or data; a and b are texts
    only     runs that one side lacks: `in` is a or b
    results  per experiment, model, framework and quantity: means of the seeds that count, and the estimate of what b
             has more (measure "difference", of metrics) or as a multiple of a (measure "ratio", of costs, geometric
             means) with its 95 % interval; outside: whether the interval excludes no change (empty: no interval)
    notes    what a reader has to know besides
    """

    a: Study
    b: Study
    changes: pd.DataFrame
    only: pd.DataFrame
    results: pd.DataFrame
    notes: list[str]


def read_study(folder: str | Path) -> Study:
    """Open results/<study>/.

    Raises FileNotFoundError when it is not the folder of a study whose runs were compared.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected a study's results, results/STUDY")
    for name in ("runs.csv", "study.json"):
        if not (folder / "tables" / name).is_file():
            raise FileNotFoundError(
                f"{folder}: no tables/{name}; expected a study's results, results/STUDY, whose runs are compared"
            )
    runs = pd.read_csv(folder / "tables/runs.csv", dtype={"reached": "boolean"})
    run_folders = [folder / "runs" / Path(record).parent for record in runs.record]
    return Study(
        folder=folder,
        settings=read_json(folder / "tables/study.json"),
        runs=runs,
        records=[read_json(f / "record.json") if (f / "record.json").is_file() else {} for f in run_folders],
        starts=[_start(f / "best.npz") for f in run_folders],
    )


def _start(checkpoint: Path) -> dict:
    if not checkpoint.is_file():
        return {}
    try:
        return read_meta(checkpoint)["identity"]
    except ValueError:  # all else of an older version's study can still be compared; _notes tells
        return {}


def compare_studies(a: str | Path, b: str | Path) -> Difference:
    """Compare the studies in the folders `a` and `b`.

    Seeds are paired where both studies have at least two in common. Elsewhere two or more seeds on each side give
    Welch's interval, and a single seed gives a difference without one.

    Raises FileNotFoundError for a folder that is no study; ValueError when no network of one is in the other.
    """
    first, second = read_study(a), read_study(b)
    ours, theirs = first.groups(), second.groups()
    shared = [key for key in ours if key in theirs]
    if all(_named(key)["model"] == BASELINE for key in shared):
        raise ValueError(
            f"{first.folder} and {second.folder} have nothing in common: no experiment with the same dataset, task, "
            f"model and framework; {_contents(first)}, {_contents(second)}"
        )
    changes = [
        *_settings(first.settings, second.settings),
        *_recorded(first, second),
        *_data(first, second),
    ]
    only = [
        {**_named(key), "in": side, "seeds": _seeds(runs.seed)}
        for side, groups, others in (("a", ours, theirs), ("b", theirs, ours))
        for key, runs in groups.items()
        if key not in others
    ]
    results = [row for key in shared for row in _results(key, ours[key], theirs[key])]
    return Difference(
        first,
        second,
        pd.DataFrame(changes, columns=CHANGES),
        pd.DataFrame(only, columns=ONLY),
        pd.DataFrame(results, columns=RESULTS),
        _notes(first, second, shared, results),
    )


def _named(key: tuple) -> dict[str, str]:
    return dict(zip(GROUP, key))


def _contents(study: Study) -> str:
    networks = study.runs[study.runs.model != BASELINE][GROUP].drop_duplicates()
    return f"{study.name} has {'; '.join(' '.join(row) for row in networks.itertuples(index=False)) or 'no network'}"


def _seeds(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


# --- what changed ----------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _settings(a: object, b: object, key: str = "") -> list[dict]:
    """Keys whose values differ. The study's name is no setting."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [] if a == b else [{"part": "settings", "key": key, "a": _text(a), "b": _text(b)}]
    names = [name for name in {**a, **b} if key or name != "study"]
    return [
        row
        for name in names
        for row in _settings(a.get(name, ABSENT), b.get(name, ABSENT), f"{key}.{name}" if key else name)
    ]


def _recorded(a: Study, b: Study) -> list[dict]:
    """Differences of the records' software and machine, framework by framework where frameworks differ in them."""
    rows = []
    for part, facts in (("software", _software), ("machine", _machine)):
        ours, theirs = _facts(a, facts), _facts(b, facts)
        names = {name: None for framework in ours for name in {**ours[framework], **theirs.get(framework, {})}}
        for name in names:
            pairs = {
                framework: (ours[framework].get(name, ABSENT), theirs[framework].get(name, ABSENT))
                for framework in ours
                if framework in theirs and (name in ours[framework] or name in theirs[framework])
            }
            one = len(set(pairs.values())) == 1
            for framework, (x, y) in list(pairs.items())[: 1 if one else None]:
                if x != y:
                    rows.append({"part": part, "key": name if one else f"{name} ({framework})", "a": x, "b": y})
    return rows


def _facts(study: Study, of: Callable[[dict], dict[str, str]]) -> dict[str, dict[str, str]]:
    """framework -> name -> value in the records; several values, where runs differ, separated by commas."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for framework, record in zip(study.runs.framework, study.records):
        if record:
            for name, value in of(record).items():
                found.setdefault(framework, {}).setdefault(name, {})[value] = None
    return {f: {name: ", ".join(sorted(values)) for name, values in names.items()} for f, names in found.items()}


def _software(record: dict) -> dict[str, str]:
    software = dict(record.get("software", {}))
    dirty = software.pop("dirty", False)
    if dirty and "commit" in software:
        software["commit"] += " with changes"
    return {name: _text(value) for name, value in software.items()}


def _machine(record: dict) -> dict[str, str]:
    told = {name: record[name] for name in ("device", "threads") if name in record}
    if "workers" in record:
        told["workers"] = record["workers"]["count"]
    return {name: _text(value) for name, value in {**record.get("machine", {}), **told}.items()}


def _data(a: Study, b: Study) -> list[dict]:
    """Differences of checksums: regions, chips, their normalisation, and initial weights of the seeds in common."""
    ours, theirs = _checksums(a), _checksums(b)
    rows = []
    for key in (key for key in ours if key in theirs):
        common = [seed for seed in ours[key] if seed in theirs[key]]
        x, y = ("; ".join(dict.fromkeys(side[key][seed] for seed in common)) for side in (ours, theirs))
        if x != y:
            rows.append({"part": "data", "key": key, "a": x, "b": y})
    return rows


def _checksums(study: Study) -> dict[str, dict[int, str]]:
    """What -> seed -> checksum. What concerns no seed has it under 0."""
    found: dict[str, dict[int, str]] = {}
    for experiment in study.runs.experiment.unique():
        regions = study.folder / "data" / experiment / "regions.csv"
        if regions.is_file():
            found[f"{experiment}: regions"] = {0: hashlib.sha256(regions.read_bytes()).hexdigest()[:12]}
    for row, start in zip(study.runs.itertuples(), study.starts):
        if start:
            found.setdefault(f"{row.experiment}: chips", {})[0] = start["chips"][:12]
            found.setdefault(f"{row.experiment}: normalisation", {})[0] = _text([start["mean"], start["std"]])
            weights = f"{row.experiment}: initial weights of {row.model} in {row.framework}"
            found.setdefault(weights, {})[row.seed] = start["weights"][:12]
    return found


# --- what it did -----------------------------------------------------------------------------------------------------


def _results(key: tuple, a: pd.DataFrame, b: pd.DataFrame) -> list[dict]:
    columns = [c for c in a if c in b]
    metrics = [c for c in metric_columns(a) if c in columns]
    primary = a.primary.iloc[0]
    metrics.sort(key=lambda name: name != primary)
    costs = [c for c in columns if c.endswith(MEASURED)]
    censored = any((~runs.reached.fillna(True)).any() for runs in (a, b))
    rows = []
    for name in [*metrics, *costs]:
        x, y = (runs.set_index("seed")[name].dropna().to_dict() for runs in (a, b))
        ratio = name in costs
        if not x or not y or (ratio and min(*x.values(), *y.values()) <= 0) or (name == TARGET[-1] and censored):
            continue
        interval, method, seeds = estimate(x, y, ratio=ratio)
        none = 1.0 if ratio else 0.0
        rows.append(
            {
                **_named(key),
                "quantity": name,
                "measure": "ratio" if ratio else "difference",
                "a": math.fsum(x[s] for s in seeds[0]) / len(seeds[0]),
                "b": math.fsum(y[s] for s in seeds[1]) / len(seeds[1]),
                "estimate": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "method": method,
                "outside": None if math.isnan(interval.low) else not interval.low <= none <= interval.high,
            }
        )
    return rows


def estimate(
    a: dict[int, float], b: dict[int, float], *, ratio: bool
) -> tuple[Interval, str, tuple[list[int], list[int]]]:
    """What b has more than a (or as a multiple of it), how that was found, and the seeds of each that count."""
    shared = [seed for seed in a if seed in b]
    if len(shared) >= 2 or (shared and min(len(a), len(b)) == 1):
        x, y = ({seed: side[seed] for seed in shared} for side in (a, b))
        method = f"paired, {len(shared)} seeds" if len(shared) > 1 else f"seed {shared[0]}, no interval"
        return (paired_ratio if ratio else paired)(y, x), method, (shared, shared)
    method = f"Welch, {len(a)} and {len(b)} seeds" if min(len(a), len(b)) > 1 else "other seeds, no interval"
    return (welch_ratio if ratio else welch)(b.values(), a.values()), method, (list(a), list(b))


def _notes(a: Study, b: Study, shared: list[tuple], results: list[dict]) -> list[str]:
    notes = []
    for study, groups in ((a, a.groups()), (b, b.groups())):
        failed = [key for key in shared if not groups[key].validated.all()]
        if failed:
            named = "; ".join(" ".join((key[0], *key[3:])) for key in failed)
            notes.append(f"{study.folder}: runs that failed their check are among: {named}.")
        if not any(study.records):
            notes.append(f"{study.folder}: no records; versions and machine are not compared.")
        if not all(start for start, model in zip(study.starts, study.runs.model) if model != BASELINE):
            notes.append(
                f"{study.folder}: not every run has a checkpoint of this version; chips and initial weights "
                "are compared where there is one."
            )
    with_interval = sum(row["outside"] is not None for row in results if row["measure"] == "difference")
    if with_interval:
        chance = 0.05 * with_interval
        notes.append(
            f"Of {with_interval} intervals of metrics at 95 %, about {chance:.2g} exclude 0 by chance where nothing "
            "changed."
        )
    if any(row["outside"] is None for row in results if row["model"] != BASELINE):
        notes.append("A single seed has no interval: whether such a difference is more than chance is not known.")
    return notes


# --- told ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table of texts, with what is said where it has no row."""

    title: str
    empty: str
    heads: list[str]
    rows: list[list[str]]


def tables(difference: Difference) -> list[Table]:
    """The difference in tables for people; of results only what differs at all."""
    results = difference.results
    metrics, costs = results[results.measure == "difference"], results[results.quantity.isin(SHOWN)]
    quality, cost = (
        rows[(rows.estimate != none) | (rows.low != rows.high) & rows.low.notna()]
        for rows, none in ((metrics, 0), (costs, 1))
    )
    same = len(metrics) - len(quality)
    groups = ["experiment", "model", "framework"]
    return [
        Table(
            "What changed",
            "Settings, versions, machine and data are the same.",
            ["part", "key", "A", "B"],
            [[row.part, row.key, _short(row.a), _short(row.b)] for row in difference.changes.itertuples()],
        ),
        Table(
            "In one study alone",
            "",
            [*groups, "in", "seeds"],
            difference.only.assign(**{"in": difference.only["in"].str.upper()})[
                [*groups, "in", "seeds"]
            ].values.tolist(),
        ),
        Table(
            "Quality: B - A with 95 % interval" + (f"; {same} metrics are the same" if same else ""),
            f"Quality is the same to the last digit in all {same} metrics.",
            [*groups, "metric", "A", "B", "B - A", "interval", "how"],
            [_row(row, "+.4f", ".4f") for row in quality.itertuples()],
        ),
        Table(
            "Times, rates and memory: B / A with 95 % interval",
            "Times, rates and memory are the same.",
            [*groups, "quantity", "A", "B", "B / A", "interval", "how"],
            [_row(row, ".3f", ".4g") for row in cost.itertuples()],
        ),
    ]


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _row(row: tuple, change: str, value: str) -> list[str]:
    interval = ""
    if row.outside is not None:
        write = ratio_bound if row.measure == "ratio" else format
        low, high = write(row.low, change), write(row.high, change)
        interval = f"{low} to {high}{' *' if row.outside else ''}"
    return [
        *(row.experiment, row.model, row.framework, row.quantity, f"{row.a:{value}}", f"{row.b:{value}}"),
        *(f"{row.estimate:{change}}", interval, row.method),
    ]


def _head(difference: Difference) -> list[str]:
    return [
        f"{letter}: {study.name} in {study.folder}, {len(study.runs)} runs"
        for letter, study in (("A", difference.a), ("B", difference.b))
    ]


def _told(difference: Difference) -> list[str]:
    """What stands below the tables."""
    marked = ["* the interval excludes no change."] if difference.results.outside.fillna(False).any() else []
    return [*marked, *difference.notes]


def show(difference: Difference) -> None:
    """Print the difference on standard output, as wide as the terminal, or as wide as needed where it is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240
    for line in _head(difference):
        console.print(line, markup=False, soft_wrap=True)
    for table in tables(difference):
        if not table.rows:
            if table.empty:
                console.print(f"\n{table.empty}", markup=False)
            continue
        grid = Grid(box=box.SIMPLE_HEAD, title=table.title, title_justify="left", title_style="bold", pad_edge=False)
        numeric = {"A", "B", "B - A", "B / A"} if len(table.heads) > 5 else set()
        for head in table.heads:
            grid.add_column(head, justify="right" if head in numeric else "left", overflow="fold")
        above = [""] * 3
        for row in table.rows:
            # What stands in the row above is not repeated.
            again = next((i for i, (x, y) in enumerate(zip(row, above)) if x != y), 3) if numeric else 0
            above = row[:3]
            grid.add_row(*[""] * again, *row[again:], style="bold" if row[-2].endswith(" *") else None)
        console.print()
        console.print(grid)
    for note in _told(difference):
        console.print(note, markup=False)


def check_out(path: Path) -> None:
    """Raise ValueError unless `write` has a form for the path's suffix."""
    if path.suffix not in WRITERS:
        raise ValueError(f"--out {path}: expected a name that ends in {', '.join(WRITERS)}")


def write(difference: Difference, path: Path) -> None:
    """Write the difference as Markdown, CSV (one table) or JSON, whichever the path's suffix says."""
    check_out(path)
    WRITERS[path.suffix](difference, path)


def _markdown(difference: Difference, path: Path) -> None:
    lines = [f"# {difference.a.name} and {difference.b.name}", "", *(f"* {line}" for line in _head(difference)), ""]
    for table in tables(difference):
        if table.rows:
            rows = [table.heads, ["---"] * len(table.heads), *table.rows]
            cells = [[cell.replace("|", "\\|").replace("*", "\\*") for cell in row] for row in rows]
            lines += [f"## {table.title}", "", *(f"| {' | '.join(row)} |" for row in cells), ""]
        elif table.empty:
            lines += [table.empty, ""]
    notes = [f"* {note}".replace("* *", "* \\*") for note in _told(difference)]
    with atomic(path) as temporary:
        temporary.write_text("\n".join([*lines, *notes, ""]))


def _csv(difference: Difference, path: Path) -> None:
    """Rows of all three tables in one; `part` tells them apart, `quantity` is a setting's key, too."""
    only = [
        {**{name: row[name] for name in GROUP}, "part": "runs", row["in"]: f"seeds {row['seeds']}"}
        for row in difference.only.to_dict("records")
    ]
    together = pd.concat(
        [
            difference.changes.rename(columns={"key": "quantity"}),
            pd.DataFrame(only, columns=["part", *GROUP, *SIDES]),
            difference.results.assign(part="results"),
        ]
    )
    with atomic(path) as temporary:
        together[["part", *RESULTS]].to_csv(temporary, index=False)


def _json(difference: Difference, path: Path) -> None:
    found = {name: getattr(difference, name) for name in ("changes", "only", "results")}
    write_json(
        path,
        {
            **{side: {"study": getattr(difference, side).name} for side in SIDES},
            **{name: json.loads(table.to_json(orient="records", double_precision=15)) for name, table in found.items()},
            "notes": difference.notes,
        },
    )


WRITERS: dict[str, Callable[[Difference, Path], None]] = {".md": _markdown, ".csv": _csv, ".json": _json}
