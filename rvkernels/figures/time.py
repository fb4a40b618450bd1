"""Where the time of a run goes: set-up, waiting for data, steps, validation, and the rest."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import Panel, Selection, Tables, reach
from rvkernels.results import Results

# Okabe and Ito's; hatches tell them apart in print without colours. No framework is meant.
PARTS = {
    "set-up": ("#999999", ""),
    "waiting for data": ("#f0e442", "//"),
    "forward and backward": ("#56b4e9", ""),
    "update": ("#0072b2", ".."),
    "rest of the epochs": ("#cc79a7", "xx"),
    "validation": ("#e69f00", ""),
}


def select(results: Results) -> Iterator[Selection]:
    rows = pd.concat([results.runs_of(name) for name in results.experiments], ignore_index=True)
    spent = pd.DataFrame(
        {
            "set-up": _column(rows, "import_s") + _column(rows, "build_s"),
            "waiting for data": _column(rows, "wait_s"),
            "forward and backward": _column(rows, "step_s") * rows.passes_share,
            "update": _column(rows, "step_s") * (1 - rows.passes_share),
            "rest of the epochs": rows.train_epoch_s - _column(rows, "step_s") - _column(rows, "wait_s"),
            "validation": _column(rows, "val_epoch_s"),
        }
    ).clip(lower=0)
    table = pd.concat([rows[["experiment", "model", "framework"]], spent], axis=1)
    table = table.groupby(["experiment", "model", "framework"], sort=False).mean().reset_index()
    tables = {"table": table}
    panels = [Panel({**tables, "share": share}, 0.5 + 0.3 * len(table)) for share in (False, True)]
    title = "Where the time of a training goes"
    yield Selection("time", "Time", title, tables, panels, abreast=(2, 1), same_rows=True)


def caption(tables: Tables) -> str:
    return (
        "Seconds and shares, means over seeds. A step is one call of a framework; how much of it the forward and "
        "backward pass take is timed after the training, by calls without the update in turns with whole steps. "
        "Batches are made beside the steps, so that only waiting for them costs "
        "time; set-up is importing the framework and building the network; the rest of the epochs is what training "
        f"does between steps, such as writing checkpoints. {_largest(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Stacked bars of the seconds and shares of each part of a training. {_largest(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    table = tables["table"]
    values = table[list(PARTS)].to_numpy()
    values = 100 * values / values.sum(axis=1, keepdims=True) if tables["share"] else values
    left, y = np.zeros(len(table)), np.arange(len(table))
    for (name, (color, hatch)), width in zip(PARTS.items(), values.T):
        line = {"edgecolor": "#5b6068", "linewidth": 0.3}
        ax.barh(y, width, left=left, height=0.62, color=color, hatch=hatch, label=name, **line)
        left += width
    ax.set_yticks(y, [f"{r.experiment}\n{r.model} · {r.framework}" for r in table.itertuples()], fontsize=7)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("% of the run" if tables["share"] else "seconds of a run")


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows[name].fillna(0.0) if name in rows else pd.Series(0.0, index=rows.index)


def _largest(tables: Tables) -> str:
    table = tables["table"]
    shares = table[list(PARTS)].div(table[list(PARTS)].sum(axis=1), axis=0)
    steps, wait = shares["forward and backward"] + shares["update"], shares["waiting for data"]
    share = reach(steps, "{:.0%}".format)
    return f"Steps take {share} of the time of a run, waiting for data at most {wait.max():.1%}."
