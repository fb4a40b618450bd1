"""Quality on the test split: every network beside its baseline, one panel per experiment."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.compare import BASELINE
from rvkernels.figures import GRAY, MARKERS, Panel, Selection, Tables, metric_name, reach, shade
from rvkernels.results import Results


def select(results: Results) -> Iterator[Selection]:
    table = pd.concat([_table(results, name) for name in results.experiments], ignore_index=True)
    panels = []
    for name, experiment in results.experiments.items():
        rows = table[table.experiment == name]
        tables = {"table": rows, "models": experiment.models}
        panels.append(Panel(tables, 0.75 + 0.26 * (1 + max(2, len(_groups(rows)))), f"{name} ({experiment.task})"))
    yield Selection("quality", "Results", "Quality on the test split", {"table": table}, panels)


def caption(tables: Tables) -> str:
    table = tables["table"]
    seeds = table[table.model != BASELINE].groupby(["experiment", "model", "framework"]).seed.nunique().max()
    bars = " Lines span the 95 % t interval of the mean over seeds." if seeds > 1 else ""
    return f"Each dot is one run (one seed); the dashed line is the logistic-regression baseline.{bars} {_told(tables)}"


def alt(tables: Tables) -> str:
    return f"Dot plot of the main metric of every run beside the baseline. {_told(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    rows, groups = tables["table"], _groups(tables["table"])
    for y, (model, framework) in enumerate(groups):
        these = rows[(rows.model == model) & (rows.framework == framework)]
        place = tables["models"].index(model)
        color = shade(framework, place)
        if these.low.notna().all():
            ax.plot([these.low.iloc[0], these.high.iloc[0]], [y, y], color=color, linewidth=2.2, alpha=0.6)
        marker = MARKERS[place % len(MARKERS)]
        ax.plot(these["value"], np.full(len(these), y), marker, color=color, markersize=5.5, mec="white", mew=0.6)
    base = rows[rows.model == BASELINE]["value"].mean()
    ax.axvline(base, color=GRAY, linestyle="--", linewidth=1.2)
    if np.isfinite(base):
        ax.annotate(
            f"baseline {base:.2f}", (base, -0.85), (3, 0), textcoords="offset points", fontsize=7.5, va="center"
        )
    ax.set_yticks(range(len(groups)), [f"{m} · {f}" for m, f in groups])
    ax.set_ylim(len(groups) - 0.4, -1.2)
    ax.set_xlim(0, 1)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"{metric_name(rows.metric.iloc[0])}, test split")


def _told(tables: Tables) -> str:
    lines = []
    for name, rows in tables["table"].groupby("experiment", sort=False):
        means = rows[rows.model != BASELINE].groupby(["model", "framework"])["value"].mean()
        base = rows[rows.model == BASELINE]["value"].mean()
        metric, ends = metric_name(rows.metric.iloc[0]), reach(means, "{:.3f}".format)
        lines.append(f"{name}: {metric} {ends}, the baseline {base:.3f}.")
    return " ".join(lines)


def _table(results: Results, name: str) -> pd.DataFrame:
    rows = results.runs_of(name, baseline=True)
    metric = rows.primary.iloc[0]
    table = rows[["experiment", "model", "framework", "seed"]].assign(metric=metric, value=rows[metric])
    summary = results.summary[(results.summary.experiment == name) & (results.summary.quantity == metric)]
    return table.merge(summary[["model", "framework", "low", "high"]], on=["model", "framework"], how="left")


def _groups(rows: pd.DataFrame) -> list[tuple[str, str]]:
    networks = rows[rows.model != BASELINE]
    return list(dict.fromkeys(zip(networks.model, networks.framework)))
