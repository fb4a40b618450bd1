"""What deviates most from what one would expect, found in a study's tables by named rules.

A rule compares what it finds with a deviation that would surprise nobody; `excess` is how many times that was found (of
ratios, on their logarithm). Rules below 1 are silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rvkernels.compare import BASELINE
from rvkernels.facts import Number, Numbers
from rvkernels.figures import metric_name
from rvkernels.figures.per_class import QUANTITY
from rvkernels.frameworks import title
from rvkernels.results import Results

# What would surprise nobody.
RATIO = 1.25  # of times and memory between frameworks that compute the same
GAP = 0.3  # between the qualities of two classes
CONFUSED = 0.3  # share of a class taken for one other
DROP = 0.05  # from validation to test
TAIL = 1.5  # 95th percentile of the steps over their median
SETUP = 0.2  # share of a run before the first step
BEATEN = 0.02  # by which the baseline is better at a class


@dataclass(frozen=True)
class Surprise:
    """One sentence of what was expected, and a function that says in one what was found."""

    rule: str
    expected: str
    excess: float
    say: Callable[[Numbers], str] = field(repr=False)


def surprises(results: Results, most: int = 4) -> list[Surprise]:
    """The largest deviations, at most one per rule."""
    found = [s for rule in RULES if (s := _largest(rule, results)) is not None and s.excess >= 1]
    return sorted(found, key=lambda s: -s.excess)[:most]


# A deviation: excess, and a function that says it.
Found = Iterator[tuple[float, Callable[[Numbers], str]]]
Rule = Callable[[Results], Found]


def _largest(rule: Rule, results: Results) -> Surprise | None:
    found = [(excess, say) for excess, say in rule(results) if math.isfinite(excess)]
    if not found:
        return None
    excess, say = max(found, key=lambda pair: pair[0])
    return Surprise(rule.__name__, " ".join(rule.__doc__.split()), excess, say)


def speed(results: Results) -> Found:
    """Frameworks that do the same arithmetic take about the same time."""
    for (experiment, model), times in _medians(results, "step_median_s"):
        slow, fast = times.idxmax(), times.idxmin()
        ratio = times[slow] / times[fast]

        def say(n: Numbers, e=experiment, m=model, s=slow, f=fast, r=ratio) -> str:
            said = n(Number(r, f"tables/runs.csv: step_median_s of {m} on {e}, medians over seeds, {s} / {f}"), ".1f")
            return f"A training step of {m} on {e} takes {said} times as long in {title(s)} as in {title(f)}."

        yield math.log(ratio) / math.log(RATIO), say


def order(results: Results) -> Found:
    """The framework that is fastest for one model is fastest for all."""
    groups = _medians(results, "step_median_s")
    wins = pd.Series([times.idxmin() for _, times in groups], dtype=object).value_counts()
    for (experiment, model), times in groups:
        usual, here = wins.index[0], times.idxmin()
        if here == usual or usual not in times:
            continue
        ratio = times[usual] / times[here]

        def say(n: Numbers, e=experiment, m=model, u=usual, h=here, r=ratio) -> str:
            said = n(Number(r, f"tables/runs.csv: step_median_s of {m} on {e}, medians over seeds, {u} / {h}"), ".2f")
            return (
                f"{title(u)} is the fastest more often than any other, but with {m} on {e} a step takes {said} times "
                f"as long in it as in {title(h)}."
            )

        yield math.log(ratio) / math.log(RATIO), say


def memory(results: Results) -> Found:
    """The same network takes about the same memory everywhere."""
    for (experiment, model), values in _medians(results, "peak_rss_mb"):
        much, little = values.idxmax(), values.idxmin()
        ratio = values[much] / values[little]

        def say(n: Numbers, e=experiment, m=model, a=much, b=little, v=values, r=ratio) -> str:
            where = f"tables/runs.csv: peak_rss_mb of {m} on {e}, medians over seeds"
            return (
                f"With {m} on {e}, {title(a)} needs {n(Number(v[a], f'{where}, {a}'), ',.0f')} MiB at its peak, "
                f"{n(Number(r, f'{where}, {a} / {b}'), '.1f')} times as much as {title(b)} "
                f"({n(Number(v[b], f'{where}, {b}'), ',.0f')} MiB)."
            )

        yield math.log(ratio) / math.log(RATIO), say


def seeds(results: Results) -> Found:
    """Another framework changes the result at least as much as another seed."""
    for name in results.experiments:
        runs = results.runs_of(name)
        metric = runs.primary.iloc[0]
        for model, these in runs.groupby("model", sort=False):
            grid = these.pivot_table(metric, "seed", "framework")
            if grid.shape[0] < 2 or grid.shape[1] < 2 or grid.isna().any(axis=None):
                continue
            by_seed = float(np.mean([_apart(grid[f]) for f in grid]))
            by_framework = float(np.mean([_apart(row) for _, row in grid.iterrows()]))
            if by_framework <= 0:
                continue

            def say(n: Numbers, e=name, m=model, q=metric, s=by_seed, f=by_framework) -> str:
                where = f"tables/runs.csv: mean difference of {q} of {m} on {e}"
                return (
                    f"Two seeds of {m} on {e} in one framework are {n(Number(s, f'{where} between seeds'), '.4f')} "
                    f"{metric_name(q)} apart on average, two frameworks with one seed only "
                    f"{n(Number(f, f'{where} between frameworks'), '.4f')}."
                )

            yield math.log(max(by_seed / by_framework, 1e-9)) / math.log(2), say


def classes(results: Results) -> Found:
    """Classes of one dataset are about equally hard."""
    for name, experiment in results.experiments.items():
        quantity, label = QUANTITY[experiment.task]
        rows = results.classes[(results.classes.experiment == name) & (results.classes.quantity == quantity)]
        means = rows[rows.model != BASELINE].groupby("class_name")["value"].mean().dropna()
        if len(means) < 2:
            continue
        gap = means.max() - means.min()

        def say(n: Numbers, e=name, v=means, q=quantity, text=label) -> str:
            best, worst = v.idxmax(), v.idxmin()
            where = f"tables/classes.csv: mean {q} on {e} over networks"
            return (
                f"On {e} the networks reach {text} {n(Number(v[best], f'{where}, {best}'), '.2f')} for {best} and "
                f"{n(Number(v[worst], f'{where}, {worst}'), '.2f')} for {worst}."
            )

        yield gap / GAP, say


def confusion(results: Results) -> Found:
    """What a network finds is more often right than taken for one other class."""
    for name, experiment in results.experiments.items():
        if experiment.task == "detection":
            continue
        for (model, framework), runs in results.runs_of(name).groupby(["model", "framework"], sort=False):
            matrices = [results.evaluation(run)["overall"][-1].get("conf_mat") for _, run in runs.iterrows()]
            if not all(matrices):
                continue
            matrix = np.sum(np.array(matrices, float), axis=0)
            share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            right = np.diag(share).copy()
            np.fill_diagonal(share, 0)
            truth, taken = np.unravel_index(share.argmax(), share.shape)

            def say(n: Numbers, e=experiment, m=model, f=framework, t=truth, k=taken, s=share, r=right) -> str:
                where = f"eval.json: conf_mat of {m} on {e.name} in {f}, all seeds"
                other, own = n(Number(100 * s[t, k], where), ".0f"), n(Number(100 * r[t], where), ".0f")
                return (
                    f"On {e.name}, {m} in {title(f)} takes {other} % of {e.classes[t]} for {e.classes[k]}, and "
                    f"recognises {own} %."
                )

            yield share.max() / CONFUSED, say


def baseline(results: Results) -> Found:
    """A network is better than a logistic regression at every class."""
    for name, experiment in results.experiments.items():
        quantity, label = QUANTITY[experiment.task]
        rows = results.classes[(results.classes.experiment == name) & (results.classes.quantity == quantity)]
        mean = rows.assign(kind=np.where(rows.model == BASELINE, "base", "network")).pivot_table(
            "value", "class_name", "kind"
        )
        if set(mean) != {"base", "network"}:
            continue
        lead = (mean.base - mean.network).dropna()
        if lead.empty:
            continue
        worst = lead.idxmax()

        def say(n: Numbers, e=name, c=worst, v=mean, q=quantity, text=label) -> str:
            where = f"tables/classes.csv: mean {q} of {c} on {e}"
            base, network = v.base[c], v.network[c]
            return (
                f"For {c} on {e} the baseline reaches {text} {n(Number(base, f'{where}, baseline'), '.2f')}, and "
                f"the networks {n(Number(network, f'{where}, networks'), '.2f')}."
            )

        yield lead.max() / BEATEN, say


def drop(results: Results) -> Found:
    """A network is as good on the test split as on the validation split."""
    for name, experiment in results.experiments.items():
        runs = results.runs_of(name)
        metric = runs.primary.iloc[0]
        column = f"val_{metric}"
        # Boxes are validated chip by chip and tested in whole scenes, which is another average precision.
        if experiment.task == "detection" or column not in runs or experiment.settings["train"]["metric"] != metric:
            continue
        means = runs.groupby(["model", "framework"], sort=False)[[column, metric]].mean().dropna()
        for (model, framework), row in means.iterrows():

            def say(n: Numbers, e=name, m=model, f=framework, r=row, q=metric, v=column) -> str:
                where = f"tables/runs.csv: mean over seeds, {m} on {e} in {f}"
                return (
                    f"{m} in {title(f)} on {e} reaches {metric_name(q)} {n(Number(r[v], f'{where}, {v}'), '.3f')} in "
                    f"validation and {n(Number(r[q], f'{where}, {q}'), '.3f')} in the test."
                )

            yield (row[column] - row[metric]) / DROP, say


def tail(results: Results) -> Found:
    """Every step of a training takes about as long."""
    for name in results.experiments:
        for (model, framework), runs in results.runs_of(name).groupby(["model", "framework"], sort=False):
            seconds = np.concatenate([results.step_seconds(run) for _, run in runs.iterrows()])
            if not len(seconds):
                continue
            ratio = float(np.quantile(seconds, 0.95) / np.median(seconds))

            def say(n: Numbers, e=name, m=model, f=framework, r=ratio) -> str:
                said = n(Number(r, f"steps.npz: 95th percentile over median, {m} on {e} in {f}, all seeds"), ".1f")
                return f"One step in twenty of {m} on {e} in {title(f)} takes {said} times the median or longer."

            yield math.log(ratio) / math.log(TAIL), say


def set_up(results: Results) -> Found:
    """The time of a run is the time of its steps."""
    columns = ["import_s", "build_s", "train_epoch_s", "val_epoch_s"]
    for name in results.experiments:
        runs = results.runs_of(name)
        if not set(columns) <= set(runs):
            continue
        means = runs.groupby(["model", "framework"], sort=False)[columns].mean()
        for (model, framework), row in means.iterrows():
            share = (row.import_s + row.build_s) / row.sum()

            def say(n: Numbers, e=name, m=model, f=framework, s=share) -> str:
                where = (
                    f"tables/runs.csv: import_s and build_s of what a run of {m} on {e} in {f} takes, mean over seeds"
                )
                said = n(Number(100 * s, where), ".0f")
                return (
                    f"Before the first step, {title(f)} spends {said} % of a run of {m} on {e} on importing itself "
                    "and building the network."
                )

            yield share / SETUP, say


def target(results: Results) -> Found:
    """Every run reaches the quality that the study names."""
    for row in results.targets.itertuples():
        missed = row.runs - row.reached
        if missed:

            def say(n: Numbers, r=row, k=missed) -> str:
                where = f"tables/targets.csv: {r.model} on {r.experiment} in {r.framework}"
                return (
                    f"{n(Number(k, where))} of {n(Number(r.runs, where))} runs of {r.model} on {r.experiment} in "
                    f"{title(r.framework)} never reach {metric_name(r.metric)} "
                    f"{n(Number(r.target, where), 'g')} in validation."
                )

            yield 1.0 + missed / row.runs, say


RULES: tuple[Rule, ...] = (*(speed, order, memory, seeds, classes, confusion, baseline, drop, tail, set_up, target),)


def _medians(results: Results, column: str) -> list[tuple[tuple[str, str], pd.Series]]:
    """(experiment, model) and its median per framework, of what several frameworks trained."""
    runs = pd.concat([results.runs_of(name) for name in results.experiments], ignore_index=True)
    if column not in runs:
        return []
    groups = runs.dropna(subset=[column]).groupby(["experiment", "model"], sort=False)
    medians = [(key, rows.groupby("framework", sort=False)[column].median()) for key, rows in groups]
    return [(key, values) for key, values in medians if len(values) > 1 and values.min() > 0]


def _apart(values: pd.Series) -> float:
    """Mean distance of two of the values."""
    v = values.to_numpy(float)
    return float(np.abs(v[:, None] - v).sum() / (len(v) * (len(v) - 1)))
