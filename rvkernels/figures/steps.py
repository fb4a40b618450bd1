"""How long a training step takes: the distribution of every step after warm-up, per model and framework."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import Panel, Selection, Tables, shade
from rvkernels.results import Results

QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def select(results: Results) -> Iterator[Selection]:
    table = pd.DataFrame(
        [
            {"experiment": name, "model": model, "framework": framework, **_distribution(results, runs)}
            for name in results.experiments
            for (model, framework), runs in results.runs_of(name).groupby(["model", "framework"], sort=False)
        ]
    )
    panels = [
        Panel(
            {"table": rows, "place": results.experiments[experiment].models.index(model)},
            0.6 + 0.28 * len(rows),
            f"{experiment} · {model}",
        )
        for (experiment, model), rows in table.groupby(["experiment", "model"], sort=False)
    ]
    yield Selection("steps", "Time", "Time of a training step", {"table": table}, panels)


def caption(tables: Tables) -> str:
    return (
        "Boxes span the middle half of all steps of all seeds, whiskers 90 % of them, the line and the number are the "
        f"median. The first steps after a start, which warm up, are left out. {_spread(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Box plots of the time of a training step per model and framework. {_spread(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    rows = tables["table"]
    for y, row in enumerate(rows.itertuples()):
        color = shade(row.framework, tables["place"])
        ax.plot([row.p05, row.p95], [y, y], color=color, linewidth=1.2)
        ax.barh(y, row.p75 - row.p25, left=row.p25, height=0.56, color=color, alpha=0.35, edgecolor=color)
        ax.plot([row.median, row.median], [y - 0.28, y + 0.28], color=color, linewidth=2)
        text = f"{row.median:.3g}"
        ax.annotate(text, (row.p95, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    ax.set_yticks(range(len(rows)), rows.framework)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1.15 * rows.p95.max())
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("milliseconds per step")


def _spread(tables: Tables) -> str:
    table = tables["table"]
    return f"The 95th percentile is at most {(table.p95 / table['median']).max():.2f} times the median."


def _distribution(results: Results, runs: pd.DataFrame) -> dict[str, float]:
    every = 1000 * np.concatenate([results.step_seconds(run) for _, run in runs.iterrows()])
    return {"steps": len(every), **{name: np.quantile(every, q) for name, q in QUANTILES.items()}}
