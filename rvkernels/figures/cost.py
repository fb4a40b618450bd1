"""What training costs: wall time, throughput and peak memory of every run."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import INK, Panel, Selection, Tables, shade, three_digits
from rvkernels.results import Results

# What is drawn: the training's time is in Results.training_unit, which stands for {unit}.
QUANTITIES = {
    "train_time": "training, {unit}",
    "chips_per_s": "training, chips/s",
    "predict_chips_per_s": "prediction, windows/s",
    "peak_rss_mb": "peak memory, MiB",
}


def select(results: Results) -> Iterator[Selection]:
    rows = pd.concat([results.runs_of(name) for name in results.experiments], ignore_index=True)
    unit, seconds = results.training_unit
    table = rows.assign(train_time=rows.train_epoch_s / seconds, unit=unit)[
        ["experiment", "model", "framework", "seed", "unit", *QUANTITIES]
    ]
    models = {name: e.models for name, e in results.experiments.items()}
    groups = table.groupby(["experiment", "model", "framework"]).ngroups
    panels = [
        Panel({"table": table, "quantity": q, "models": models}, 0.5 + 0.32 * groups)
        for q in QUANTITIES
        if table[q].notna().any()
    ]
    yield Selection("cost", "Results", "What it costs", {"table": table}, panels, abreast=(4, 1), same_rows=True)


def caption(tables: Tables) -> str:
    several = tables["table"].seed.nunique() > 1
    bars = " Bars are medians over seeds, lines reach from the lowest to the highest seed." if several else ""
    return f"Training time, throughput and peak memory of each model.{bars} {_longest(tables)}"


def alt(tables: Tables) -> str:
    return f"Bar charts of training time, training and prediction throughput, and peak memory. {_longest(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    quantity = tables["quantity"]
    values = tables["table"].groupby(["experiment", "model", "framework"], sort=False)[quantity]
    median, low, high = values.median(), values.min(), values.max()
    for y, (experiment, model, framework) in enumerate(median.index):
        at, place = median.iloc[y], tables["models"][experiment].index(model)
        ax.barh(y, at, color=shade(framework, place), height=0.62)
        if high.iloc[y] > low.iloc[y]:
            ax.plot([low.iloc[y], high.iloc[y]], [y, y], color=INK, linewidth=1)
        text = f"{at:.3g}" if at < 1000 else f"{at:.0f}"
        ax.annotate(text, (max(at, high.iloc[y]), y), (2, 0), textcoords="offset points", va="center", fontsize=7)
    ax.set_xlabel(QUANTITIES[quantity].format(unit=tables["table"].unit.iloc[0]))
    ax.set_xlim(0, 1.35 * high.max())
    ax.set_yticks(range(len(median)), [f"{e}\n{m} · {f}" for e, m, f in median.index], fontsize=7)
    ax.set_ylim(len(median) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.locator_params(axis="x", nbins=4)


def _longest(tables: Tables) -> str:
    table = tables["table"]
    slowest = table.loc[table.train_time.idxmax()]
    return (
        f"All runs together trained for {three_digits(table.train_time.sum())} {slowest.unit}; the longest was "
        f"{slowest.experiment} with {slowest.model} in {slowest.framework} "
        f"({three_digits(slowest.train_time)} {slowest.unit})."
    )
