"""Quality against cost: which runs are beaten in neither, with intervals in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.compare import BASELINE
from rvkernels.figures import GRAY, MARKERS, Panel, Selection, Tables, label_log_axis, metric_name, shade
from rvkernels.interval import geometric_interval, t_interval
from rvkernels.results import Results

# What is drawn: the training's time is in Results.training_unit, which stands for {unit}.
COSTS = {"train_time": "training, {unit}", "latency_ms": "prediction of one chip, ms"}
KEYS = ["model", "framework"]


def select(results: Results) -> Iterator[Selection]:
    parts, panels = [], []
    unit, seconds = results.training_unit
    for name, experiment in results.experiments.items():
        runs = results.runs_of(name)
        if len(runs.groupby(KEYS)) < 2:
            continue  # a point alone is beside nothing
        metric = runs.primary.iloc[0]
        latency = 1000 * runs.get("latency_1_median_s", pd.Series(math.nan, index=runs.index))
        runs = runs.assign(train_time=runs.train_epoch_s / seconds, latency_ms=latency)
        base = results.runs_of(name, baseline=True)
        base = base[base.model == BASELINE][metric].mean()
        for cost in COSTS:
            if runs[cost].isna().all():
                continue
            rows, label = _points(runs, metric, cost), COSTS[cost].format(unit=unit)
            parts.append(rows.assign(experiment=name, metric=metric, cost=label, baseline=base))
            tables = {"table": rows, "metric": metric, "cost": label, "models": experiment.models, "baseline": base}
            panels.append(Panel(tables, 2.6, name))
    if not parts:
        return
    columns = ["experiment", "metric", "cost", *KEYS, "seeds", "quality", "low", "high", "at", "at_low", "at_high"]
    table = pd.concat(parts, ignore_index=True)[[*columns, "baseline", "front"]]
    yield Selection("pareto", "Results", "Quality against cost", {"table": table}, panels, abreast=(2, 1))


def caption(tables: Tables) -> str:
    bars = ""
    if tables["table"].seeds.max() > 1:
        bars = (
            " Lines are 95 % t intervals of the mean over seeds, of cost on its logarithm; an interval that leaves the "
            "picture ends at its edge."
        )
    return (
        "Points are means over seeds (of cost: geometric). The steps join what nothing beats in quality and cost: up "
        f"and left is better. The dashed line is the baseline's quality, unless it lies below.{bars} {_front(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Scatter plots of the main metric against training time and prediction latency. {_front(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    rows, models = tables["table"], tables["models"]
    front = rows[rows.front].sort_values("at")
    ax.plot(front["at"], front.quality, drawstyle="steps-post", color=GRAY, linewidth=1, alpha=0.7, zorder=1)
    for row in rows.itertuples():
        place = models.index(row.model)
        color = shade(row.framework, place)
        ax.plot([row.at_low, row.at_high], [row.quality] * 2, color=color, linewidth=1, alpha=0.7)
        ax.plot([row.at] * 2, [row.low, row.high], color=color, linewidth=1, alpha=0.7)
        marker, label = MARKERS[place % len(MARKERS)], f"{row.model} · {row.framework}"
        ax.plot(row.at, row.quality, marker, color=color, markersize=6, mec="white", mew=0.6, label=label, zorder=3)
    across, upright = limits(rows, tables["baseline"])
    ax.set(xscale="log", xlim=across, ylim=upright)
    ax.axhline(tables["baseline"], color=GRAY, linestyle="--", linewidth=1, zorder=0)
    label_log_axis(ax.xaxis)
    ax.minorticks_off()
    ax.set_xlabel(tables["cost"])
    ax.set_ylabel(f"{metric_name(tables['metric'])}, test split")


def limits(rows: pd.DataFrame, baseline: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of cost and of quality: the points and as much of the intervals as leaves the points apart."""
    reach = max(4 * (rows.quality.max() - rows.quality.min()), 0.1)
    ends = pd.concat([rows.quality, rows.low, rows.high]).dropna()
    bottom, top = max(ends.min(), rows.quality.min() - reach), min(ends.max(), rows.quality.max() + reach)
    if rows.quality.min() - baseline < 2 * reach:
        bottom = min(bottom, baseline)
    pad = 0.06 * max(top - bottom, 0.02)
    return (rows["at"].min() / 1.6, rows["at"].max() * 1.6), (bottom - pad, top + pad)


def _points(runs: pd.DataFrame, metric: str, cost: str) -> pd.DataFrame:
    """Means over seeds with their intervals, and whether nothing is better in one and as good in the other."""
    rows = []
    for (model, framework), these in runs.groupby(KEYS, sort=False):
        quality, at = t_interval(these[metric]), geometric_interval(these[cost])
        rows.append(
            {
                "model": model,
                "framework": framework,
                "seeds": quality.count,
                "quality": quality.mean,
                "low": quality.low,
                "high": quality.high,
                "at": at.mean,
                "at_low": at.low,
                "at_high": at.high,
            }
        )
    table = pd.DataFrame(rows)
    beaten = [
        bool(
            (
                (table.quality >= row.quality)
                & (table["at"] <= row.at)
                & ((table.quality > row.quality) | (table["at"] < row.at))
            ).any()
        )
        for row in table.itertuples()
    ]
    return table.assign(front=[not b for b in beaten])


def _front(tables: Tables) -> str:
    table = tables["table"]
    parts = []
    for (experiment, cost), rows in table[table.front].groupby(["experiment", "cost"], sort=False):
        names = ", ".join(f"{row.model} in {row.framework}" for row in rows.itertuples())
        parts.append(f"{experiment} ({cost.split(',')[0]}): {names}")
    return f"Beaten by none: {'; '.join(parts)}."
