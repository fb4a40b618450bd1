"""All runs of a study in tables: one row per run, summaries over seeds, learning curves, margins over the baseline.

A run is a folder <runs>/<experiment>/<model>/<framework>/<seed>/ with record.json (training or baseline), eval.json,
log.csv (not for a baseline) and predictions/record.json. The baseline's model is called "baseline".
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pandas as pd

from rvkernels.files import atomic, read_json
from rvkernels.interval import Interval, paired, t_interval

BASELINE = "baseline"
KEYS = ["experiment", "dataset", "task", "model", "framework", "seed"]
LOWER_IS_BETTER = ("ece",)


def compare(runs: str | Path, out: str | Path, study: dict | None = None) -> None:
    """Write runs.csv, summary.csv, classes.csv, epochs.csv and margins.csv into the folder `out`.

    runs     the folder of the runs
    study    the study's settings (experiments with their models, frameworks, seeds): which runs belong to it; None
             takes every folder there is

    runs.csv     per run: KEYS, primary (the name of the task's main metric), every overall metric of eval.json, every
                 time of the records summed in seconds (train_epoch_s, ..., predict_network_s, ...), chips_per_s,
                 predict_chips_per_s, peak_rss_mb, device, threads, validated, and the record's path below `runs`
    summary.csv  per experiment, model, framework and quantity: mean, std, low, high (95 % t interval), count
    classes.csv  per run, class and quantity of eval.json's class items: value
    epochs.csv   per run, epoch and quantity of log.csv: value
    margins.csv  per network run and metric: network, baseline, margin = network - baseline, and over the seeds the
                 mean margin with its interval; holds = the whole interval is on the better side of 0 (for one seed:
                 empty)

    Raises FileNotFoundError for a run without its files, ValueError when there is no run or a record misses a key.
    """
    runs, out = Path(runs), Path(out)
    folders = run_folders(runs, study)
    rows, classes, epochs = [], [], []
    metrics: dict[str, None] = {}  # names in order of appearance
    for folder in folders:
        key, evaluation = _key(runs, folder), _read(folder / "eval.json")
        overall = evaluation["summary"]["overall"]
        metrics.update(dict.fromkeys(overall))
        rows.append({**key, "primary": evaluation["primary"], **overall, **_measured(runs, folder)})
        classes += _classes(key, evaluation)
        epochs += _epochs(key, folder)
    _write(out / "runs.csv", rows, KEYS)
    _write(out / "summary.csv", _summary(rows), [*KEYS[:-1], "quantity"])
    _write(out / "classes.csv", classes, [*KEYS, "class_id", "class_name", "quantity", "value"])
    _write(out / "epochs.csv", epochs, [*KEYS, "epoch", "quantity", "value"])
    _write(out / "margins.csv", _margins(rows, list(metrics)), [*KEYS[:-1], "metric", "seed"])


def run_folders(runs: Path, study: dict | None = None) -> list[Path]:
    """Folders of the runs, sorted by experiment, model, framework and seed; with `study` only those of it."""
    found = [p.parent for p in runs.glob("*/*/*/*/record.json") if p.parent.name.isdigit()]
    if study is not None:
        found = [p for p in found if _belongs(p.relative_to(runs).parts, study)]
    if not found:
        raise ValueError(f"{runs}: no run with a record.json in <experiment>/<model>/<framework>/<seed>/; train first")
    return sorted(found, key=lambda p: (*p.relative_to(runs).parts[:3], int(p.name)))


def _belongs(parts: tuple[str, ...], study: dict) -> bool:
    experiment, model, framework, seed = parts
    if experiment not in study["experiments"]:
        return False
    if model == BASELINE:
        return True
    models = study["experiments"][experiment]["models"]
    return model in models and framework in study["frameworks"] and int(seed) in study["seeds"]


def _key(runs: Path, folder: Path) -> dict:
    record = _read(folder / "record.json")
    experiment, model, framework, seed = folder.relative_to(runs).parts
    for name in ("dataset", "task"):
        if name not in record:
            raise ValueError(f"{folder / 'record.json'}: no key {name!r}; run the stage again")
    return {
        "experiment": experiment,
        "dataset": record["dataset"],
        "task": record["task"],
        "model": model,
        "framework": framework,
        "seed": int(seed),
    }


def _measured(runs: Path, folder: Path) -> dict:
    """What the records of a run say: times, throughput, memory, whether the checks passed."""
    record, predicted = _read(folder / "record.json"), _read(folder / "predictions" / "record.json")
    row = {
        f"{prefix}{name}_s": sum(seconds)
        for prefix, source in (("", record), ("predict_", predicted))
        for name, seconds in source.get("times_s", {}).items()
    }
    row["chips_per_s"] = record.get("chips_per_s")
    row["predict_chips_per_s"] = predicted.get("chips_per_s")
    row["peak_rss_mb"] = record.get("peak_rss_mb")
    row["device"] = record.get("device")
    row["threads"] = record.get("threads")
    row["validated"] = record["validated"] and predicted["validated"]
    row["record"] = (folder / "record.json").relative_to(runs).as_posix()
    return row


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; this run is not finished")
    return read_json(path)


def _classes(key: dict, evaluation: dict) -> list[dict]:
    rows = []
    for item in evaluation["overall"]:
        if "class_id" not in item:  # the average
            continue
        values = {**item, **item["metrics"]}
        rows += [
            {**key, "class_id": item["class_id"], "class_name": item["class_name"], "quantity": name, "value": value}
            for name, value in values.items()
            if name != "class_id" and (value is None or _is_number(value))
        ]
    return rows


def _epochs(key: dict, folder: Path) -> list[dict]:
    path = folder / "log.csv"
    if key["model"] == BASELINE:
        return []
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; this run is not finished")
    with path.open(newline="") as lines:
        return [
            {**key, "epoch": int(line["epoch"]), "quantity": name, "value": float(value)}
            for line in csv.DictReader(lines)
            for name, value in line.items()
            if name != "epoch" and value not in ("", None) and _is_number_text(value)
        ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_number_text(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _interval(values: Interval) -> dict[str, float]:
    return {"mean": values.mean, "std": values.std, "low": values.low, "high": values.high, "count": values.count}


def _groups(rows: list[dict]) -> list[tuple[dict, list[dict]]]:
    """Runs that differ in their seed only: (keys without the seed, rows)."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in KEYS[:-1]), []).append(row)
    return [(dict(zip(KEYS[:-1], key)), members) for key, members in groups.items()]


def _summary(rows: list[dict]) -> list[dict]:
    names = dict.fromkeys(n for row in rows for n in row if n not in (*KEYS, "threads"))
    numbers = [n for n in names if any(_is_number(row.get(n)) for row in rows)]
    summary = []
    for key, members in _groups(rows):
        for name in numbers:
            values = [row[name] for row in members if row.get(name) is not None]
            if values:
                summary.append({**key, "quantity": name, **_interval(t_interval(values))})
    return summary


def _margins(rows: list[dict], metrics: list[str]) -> list[dict]:
    baselines = {key["experiment"]: members for key, members in _groups(rows) if key["model"] == BASELINE}
    margins = []
    for key, members in _groups(rows):
        if key["model"] == BASELINE or key["experiment"] not in baselines:
            continue
        against = {row["seed"]: row for row in baselines[key["experiment"]]}
        if len(against) == 1:  # a baseline computed once stands against every seed; else each seed has its own
            only = next(iter(against.values()))
            against = {row["seed"]: only for row in members}
        for metric in metrics:
            network = {row["seed"]: row[metric] for row in members if row.get(metric) is not None}
            base = {seed: row[metric] for seed, row in against.items() if row.get(metric) is not None}
            seeds = [seed for seed in network if seed in base]
            if not seeds:
                continue
            over = paired(network, base)
            worst = -over.high if metric in LOWER_IS_BETTER else over.low
            margins += [
                {
                    **key,
                    "metric": metric,
                    "seed": seed,
                    "network": network[seed],
                    "baseline": base[seed],
                    "margin": network[seed] - base[seed],
                    **_interval(over),
                    "holds": None if math.isnan(worst) else worst > 0,
                }
                for seed in seeds
            ]
    return margins


def _write(path: Path, rows: list[dict], columns: list[str]) -> None:
    """CSV with `columns` first, then whatever else the rows hold, in order of appearance."""
    more = dict.fromkeys(n for row in rows for n in row if n not in columns)
    with atomic(path) as temporary:
        pd.DataFrame(rows, columns=[*columns, *more]).to_csv(temporary, index=False)
