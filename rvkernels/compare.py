"""All runs of a study in tables: one row per run, summaries over seeds, learning curves, and comparisons.

A run is a folder <runs>/<experiment>/<model>/<framework>/<seed>/ with record.json (training or baseline), eval.json,
predictions/record.json, and for a training log.csv, steps.npz and best.npz. The baseline's model is called "baseline".
A training's folder may hold control/, the same training with another number of threads.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rvkernels.checkpoint import read_meta
from rvkernels.divergence import CONTROL_FACTOR, FIRST_BOUND, divergence
from rvkernels.files import atomic, read_json, write_json
from rvkernels.interval import Interval, differences, paired, paired_ratio, t_interval, tost
from rvkernels.runs import Epoch, read_log, read_steps

Runs = dict[tuple, tuple[Path, dict]]  # values of KEYS -> a run's folder and record
BASELINE = "baseline"
KEYS = ["experiment", "dataset", "task", "model", "framework", "seed"]
GROUP = KEYS[:-1]
TARGET = ["target", "reached", "time_to_target_s"]
COST = ["chips_per_s", "predict_chips_per_s", "peak_rss_mb", "peak_device_mb"]
LAST = ["device", "threads", "workers", "weight_identical", "validated", "record"]
LOWER_IS_BETTER = ("ece",)
# Endings of what a run costs; above 0, so that ratios of frameworks mean something.
MEASURED = ("_s", "_mb")
HEADS = {
    "summary": [*GROUP, "quantity", "mean", "std", "low", "high", "count"],
    "classes": [*KEYS, "class_id", "class_name", "quantity", "value"],
    "epochs": [*KEYS, "epoch", "quantity", "value"],
    "margins": [
        *(*GROUP, "metric", "seed", "network", "baseline", "margin"),
        *("mean", "std", "low", "high", "count", "holds"),
    ],
    "targets": [*GROUP, "metric", "target", "runs", "reached", "median_s", "mean", "std", "low", "high", "count"],
    "frameworks": [
        *("experiment", "dataset", "task", "model", "a", "b", "quantity", "mean", "std", "low", "high", "count"),
        *("ratio", "ratio_low", "ratio_high", "margin", "p_lower", "p_upper", "equivalent"),
    ],
    "divergence": [
        *(*KEYS, "control", "against", "threads", "against_threads", "steps", "first_20", "first_200", "end"),
        *("times_control", "within_first_20", "within_control"),
    ],
    "equal": ["experiment", "model", "what", "equal", "values"],
}


def compare(runs: str | Path, out: str | Path, study: dict | None = None) -> None:
    """Write the tables runs, summary, classes, epochs, margins, targets, frameworks, divergence and equal (.csv).

    With `study` also study.json: the settings that the tables belong to.

    runs     the folder of the runs
    out      the folder of the tables
    study    the study's settings (experiments with their models and targets, frameworks, seeds, equivalence): which
             runs belong to it; None takes every folder there is, and knows neither targets nor margins

    Intervals are Student's t intervals at 95 % over seeds; a single seed has none, and its cells are empty.

    runs         per run, in this order: KEYS; primary (the name of the task's main metric) and every overall metric of
                 eval.json; target, reached and time_to_target_s; every number of the record's result; chips_per_s,
                 predict_chips_per_s, peak_rss_mb, peak_device_mb; every time of the records summed in seconds
                 (train_epoch_s, ..., predict_network_s, ...); device, threads (of each worker), workers (that trained),
                 weight_identical (false: a user's own model, whose frameworks start from weights of their own),
                 validated, and the record's path below `runs`. Groups whose members depend on task and framework are
                 sorted by name.
    summary      per experiment, model, framework and quantity: mean, std, low, high, count
    classes      per run, class and quantity of eval.json's class items: value
    epochs       per run, epoch and quantity of log.csv: value
    margins      per network run and metric: network, baseline, margin = network - baseline, and over the seeds the
                 mean margin with its interval; holds = the whole interval is on the better side of 0
    targets      per experiment with a target, model and framework: how many runs reach it in validation, and the
                 seconds of training until then (epochs whole, validation apart). The median counts a run that does not
                 as infinitely late (empty: infinite); mean and interval are given when all runs reach it
    frameworks   per experiment, model, pair of frameworks and quantity: mean of a - b over the seeds that both have,
                 with its interval; for times, throughput and memory the ratio a / b of geometric means with its
                 interval on the logarithmic scale; for the main metric the p values of both one-sided tests against
                 the study's margin, and equivalent = both are below 0.05. b comes before a in the study
    divergence   per run of a framework (or control) and the run of the study's first framework with the same seed, for
                 models that all frameworks start from the same weights:
                 relative differences of the losses as rvkernels.divergence has them; times_control = first_200 / the
                 control's; within_first_20 = first_20 <= 1e-3; within_control = times_control <= 2
    equal        per experiment and model that several frameworks trained: what is the same in all of them, seed by
                 seed; values are the frameworks' of the first seed in which they differ

    Raises FileNotFoundError for a run without its files, ValueError when there is no run or a record misses a key.
    """
    runs, out = Path(runs), Path(out)
    tables: dict[str, list[dict]] = {name: [] for name in HEADS}
    rows, found = [], {}
    names: list[dict[str, None]] = [{}, {}, {}]  # of metrics, results and times, each in a group of columns
    for folder in run_folders(runs, study):
        record, predicted, evaluation = (
            _read(folder / name) for name in ("record.json", "predictions/record.json", "eval.json")
        )
        key = _key(runs, folder, record)
        log = [] if key["model"] == BASELINE else read_log(folder)
        groups = [evaluation["summary"]["overall"], *_measured(record, predicted)]
        for known, group in zip(names, groups):
            known.update(dict.fromkeys(group))
        primary, target = {"primary": evaluation["primary"]}, _target(key, log, study)
        rows.append(_row(key, primary, target, *groups, _last(runs, folder, record, predicted)))
        found[tuple(key.values())] = folder, record
        tables["classes"] += _classes(key, evaluation)
        tables["epochs"] += _epochs(key, log)
    metrics, results, times = (sorted(group) for group in names)
    quantities = [*metrics, TARGET[-1], *results, *COST, *times]
    order = study["frameworks"] if study else sorted({row["framework"] for row in rows})
    margins = study["equivalence"] if study else {}
    tables["summary"] = _summary(rows, quantities)
    tables["margins"] = _margins(rows, metrics)
    tables["targets"] = _targets(rows, study)
    tables["frameworks"] = _pairs(rows, order, quantities, margins)
    tables["divergence"] = _divergences(rows, found, order)
    tables["equal"] = _equal(rows, found, order)
    _write(out / "runs.csv", rows, [*KEYS, "primary", *metrics, *TARGET, *results, *COST, *times, *LAST])
    for name, head in HEADS.items():
        _write(out / f"{name}.csv", tables[name], head)
    if study is not None:
        write_json(out / "study.json", study)


def metric_columns(runs: pd.DataFrame) -> list[str]:
    """The columns of runs.csv that are metrics of quality on the test split."""
    columns = list(runs)
    return columns[columns.index("primary") + 1 : columns.index(TARGET[0])]


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


# --- one run ---------------------------------------------------------------------------------------------------------


def _key(runs: Path, folder: Path, record: dict) -> dict:
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


def _row(*groups: dict) -> dict:
    row: dict = {}
    for group in groups:
        twice = row.keys() & group.keys()
        if twice:
            raise ValueError(f"runs.csv: two columns would be called {min(twice)!r}; rename one in record or eval.json")
        row.update(group)
    return row


def _measured(record: dict, predicted: dict) -> tuple[dict, dict]:
    """Numbers of the record's result, and the summed times of training and prediction."""
    times = {
        f"{prefix}{name}_s": math.fsum(seconds)
        for prefix, source in (("", record), ("predict_", predicted))
        for name, seconds in source.get("times_s", {}).items()
    }
    return {name: value for name, value in record.get("result", {}).items() if _is_number(value)}, times


def _last(runs: Path, folder: Path, record: dict, predicted: dict) -> dict:
    return {
        "chips_per_s": record.get("chips_per_s"),
        "predict_chips_per_s": predicted.get("chips_per_s"),
        "peak_rss_mb": record.get("peak_rss_mb"),
        "peak_device_mb": record.get("peak_device_mb"),
        "device": record.get("device"),
        "threads": record.get("threads"),
        "workers": record.get("workers", {}).get("count"),
        "weight_identical": record.get("weight_identical"),
        "validated": record["validated"] and predicted["validated"],
        "record": (folder / "record.json").relative_to(runs).as_posix(),
    }


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; this run is not finished")
    return read_json(path)


def _target(key: dict, log: list[Epoch], study: dict | None) -> dict:
    experiment = (study or {"experiments": {}})["experiments"].get(key["experiment"], {})
    target = experiment.get("target")
    if target is None or key["model"] == BASELINE:
        return {}
    seconds = time_to_target(log, f"val_{experiment['train']['metric']}", target)
    return {"target": target, "reached": seconds is not None, "time_to_target_s": seconds}


def time_to_target(log: list[Epoch], column: str, target: float) -> float | None:
    """Seconds of training, validation apart, until the end of the first epoch with `column` >= target; None: never."""
    seconds = 0.0
    for line in log:
        seconds += line["train_seconds"]
        value = line.get(column)
        if value is not None and value >= target:
            return seconds
    return None


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


def _epochs(key: dict, log: list[Epoch]) -> list[dict]:
    return [
        {**key, "epoch": int(line["epoch"]), "quantity": name, "value": value}
        for line in log
        for name, value in line.items()
        if name != "epoch" and value is not None
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- over seeds ------------------------------------------------------------------------------------------------------


def _interval(values: Interval) -> dict[str, float]:
    return {"mean": values.mean, "std": values.std, "low": values.low, "high": values.high, "count": values.count}


def _groups(rows: list[dict]) -> list[tuple[dict, list[dict]]]:
    """Runs that differ in their seed only: (keys without the seed, rows)."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in GROUP), []).append(row)
    return [(dict(zip(GROUP, key)), members) for key, members in groups.items()]


def _by_framework(rows: list[dict], order: list[str]) -> list[tuple[dict, dict[str, list[dict]]]]:
    """Networks that several frameworks trained: (keys without framework and seed, framework -> its runs in `order`)."""
    models: dict[tuple, dict[str, list[dict]]] = {}
    for key, members in _groups(rows):
        if key["model"] != BASELINE:
            framework = key.pop("framework")
            models.setdefault(tuple(key.items()), {})[framework] = members
    return [
        (dict(key), {f: frameworks[f] for f in order if f in frameworks})
        for key, frameworks in models.items()
        if len(frameworks) > 1
    ]


def _values(members: Iterable[dict], quantity: str) -> dict[int, float]:
    """seed -> value, of the runs that have one."""
    return {row["seed"]: row[quantity] for row in members if row.get(quantity) is not None}


def _censored(members: Iterable[dict], quantity: str) -> bool:
    """Whether the mean would leave out the slowest runs: those that never reach the target."""
    return quantity == TARGET[-1] and any(row.get("reached") is False for row in members)


def _summary(rows: list[dict], quantities: list[str]) -> list[dict]:
    return [
        {**key, "quantity": name, **_interval(t_interval(values.values()))}
        for key, members in _groups(rows)
        for name in quantities
        if not _censored(members, name) and (values := _values(members, name))
    ]


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
            network = _values(members, metric)
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


def _targets(rows: list[dict], study: dict | None) -> list[dict]:
    targets = []
    for key, members in _groups(rows):
        if "target" not in members[0]:
            continue
        seconds = [math.inf if row["time_to_target_s"] is None else row["time_to_target_s"] for row in members]
        reached = [s for s in seconds if s < math.inf]
        median = statistics.median(seconds)
        whole = len(reached) == len(members)
        targets.append(
            {
                **key,
                "metric": study["experiments"][key["experiment"]]["train"]["metric"],
                "target": members[0]["target"],
                "runs": len(members),
                "reached": len(reached),
                "median_s": median if median < math.inf else None,
                **(_interval(t_interval(seconds)) if whole else {}),
            }
        )
    return targets


# --- between frameworks ----------------------------------------------------------------------------------------------


def _pairs(rows: list[dict], order: list[str], quantities: list[str], margins: dict[str, float]) -> list[dict]:
    pairs = []
    for key, frameworks in _by_framework(rows, order):
        primary = next(iter(frameworks.values()))[0]["primary"]
        for (b, first), (a, second) in itertools.combinations(frameworks.items(), 2):
            for name in quantities:
                x, y = _values(second, name), _values(first, name)
                if _censored([*first, *second], name) or not x.keys() & y.keys():
                    continue
                row = {**key, "a": a, "b": b, "quantity": name, **_interval(paired(x, y))}
                if name.endswith(MEASURED) and min(*x.values(), *y.values()) > 0:
                    ratio = paired_ratio(x, y)
                    row.update(ratio=ratio.mean, ratio_low=ratio.low, ratio_high=ratio.high)
                if name == primary and name in margins:
                    test = tost(differences(x, y), margins[name])
                    row.update(margin=margins[name], p_lower=test.p_lower, p_upper=test.p_upper)
                    row["equivalent"] = test.equivalent
                pairs.append(row)
    return pairs


def _divergences(rows: list[dict], runs: Runs, order: list[str]) -> list[dict]:
    found = []
    for _, frameworks in _by_framework(rows, order):
        reference, *others = frameworks
        if any(row["weight_identical"] is False for members in frameworks.values() for row in members):
            continue
        for first in frameworks[reference]:
            folder, _ = _of(runs, first)
            losses = read_steps(folder)["loss"]
            scale = None
            if (folder / "control" / "record.json").is_file():
                control = _read(folder / "control" / "record.json")
                row = _divergence_row(first, first, control["threads"], read_steps(folder / "control")["loss"], losses)
                scale = row["first_200"]
                found.append({**row, "control": True})
            for row in [r for name in others for r in frameworks[name] if r["seed"] == first["seed"]]:
                theirs = read_steps(_of(runs, row)[0])["loss"]
                drift = _divergence_row(row, first, row["threads"], theirs, losses)
                drift["within_first_20"] = drift["first_20"] <= FIRST_BOUND
                if scale:  # a control that differs in nothing has no scale
                    drift["times_control"] = drift["first_200"] / scale
                    drift["within_control"] = drift["times_control"] <= CONTROL_FACTOR
                found.append({**drift, "control": False})
    return found


def _divergence_row(run: dict, first: dict, threads: int, losses: object, reference: object) -> dict:
    apart = divergence(losses, reference)
    return {
        **{k: run[k] for k in KEYS},
        "against": first["framework"],
        "threads": threads,
        "against_threads": first["threads"],
        "steps": apart.steps,
        "first_20": apart.first,
        "first_200": apart.long,
        "end": apart.end,
    }


def _equal(rows: list[dict], runs: Runs, order: list[str]) -> list[dict]:
    found = []
    for key, frameworks in _by_framework(rows, order):
        held = {name: {row["seed"]: _held(*_of(runs, row)) for row in members} for name, members in frameworks.items()}
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in held.values())))
        first = next(iter(held.values()))
        for what in first[seeds[0]] if seeds else ():
            other = [s for s in seeds if len({by_seed[s][what] for by_seed in held.values()}) > 1]
            values = [f"{name}: {by_seed[other[0]][what]}" for name, by_seed in held.items()] if other else []
            where = {"experiment": key["experiment"], "model": key["model"], "what": what}
            found.append({**where, "equal": not other, "values": "; ".join(values)})
    return found


def _of(runs: Runs, row: dict) -> tuple[Path, dict]:
    """The folder and the record of a row of runs.csv."""
    return runs[tuple(row[k] for k in KEYS)]


def _held(folder: Path, record: dict) -> dict[str, str]:
    """What a comparison of frameworks has to hold equal, as texts: digests and settings that the training kept."""
    identity = read_meta(folder / "best.npz")["identity"]
    settings = dict(identity["settings"])
    precision, compiled = settings.pop("precision"), settings.pop("compile")
    parts = {
        "initial weights": identity["weights"][:12],
        "chips and their normalisation": [identity["chips"][:12], identity["mean"], identity["std"]],
        "model": identity["model_settings"],
        "order of chips, augmentation, loss, optimizer and schedule": settings,
        "steps": record["result"]["steps"],
        "precision": precision,
        "compilation": compiled,
        "threads": record["threads"],
        "device": record["device"],
        "machine": record["machine"],
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in parts.items()}


def _write(path: Path, rows: list[dict], columns: list[str]) -> None:
    """CSV with exactly these columns."""
    with atomic(path) as temporary:
        pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)
