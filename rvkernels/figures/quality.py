"""Quality on the test split: every network beside its baseline, one panel per experiment."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import GRAY, MARKERS, WIDTH, Figure, metric_name, shade
from rvkernels.results import Results


def figures(results: Results) -> Iterator[Figure]:
    table = pd.concat([_table(results, name) for name in results.experiments], ignore_index=True)
    several = results.runs.groupby(["experiment", "model", "framework"]).seed.nunique().max() > 1
    lines = []
    for name in results.experiments:
        rows = table[table.experiment == name]
        means = rows[rows.model != "baseline"].groupby(["model", "framework"])["value"].mean()
        low, high = f"{means.min():.3f}", f"{means.max():.3f}"
        base = rows[rows.model == "baseline"]["value"].mean()
        lines.append(
            f"{name}: {metric_name(rows.metric.iloc[0])} {low if low == high else f'{low} to {high}'}, the baseline "
            f"{base:.3f}."
        )
    bars = " Lines span the 95 % t interval over seeds." if several else ""
    yield Figure(
        name="quality",
        section="Results",
        title="Quality on the test split",
        caption="Each dot is one run (one seed); the dashed line is the logistic-regression baseline."
        + bars
        + " "
        + " ".join(lines),
        alt="Dot plot of the main metric of every run beside the baseline. " + " ".join(lines),
        draw=lambda: _draw(results, table),
        table=table,
    )


def _table(results: Results, name: str) -> pd.DataFrame:
    rows = results.runs_of(name, baseline=True)
    metric = rows.primary.iloc[0]
    table = rows[["experiment", "model", "framework", "seed"]].assign(metric=metric, value=rows[metric])
    summary = results.summary[(results.summary.experiment == name) & (results.summary.quantity == metric)]
    return table.merge(summary[["model", "framework", "low", "high"]], on=["model", "framework"], how="left")


def _draw(results: Results, table: pd.DataFrame) -> plt.Figure:
    names = list(results.experiments)
    groups = {n: _groups(table[table.experiment == n]) for n in names}
    heights = [max(2, len(g)) for g in groups.values()]
    figure, axes = plt.subplots(
        len(names),
        1,
        figsize=(WIDTH, 0.75 + 0.36 * sum(heights) + 0.42 * len(names)),
        height_ratios=heights,
        squeeze=False,
    )
    for ax, name in zip(axes[:, 0], names):
        rows = table[table.experiment == name]
        for y, (model, framework) in enumerate(groups[name]):
            these = rows[(rows.model == model) & (rows.framework == framework)]
            index = results.model_index(name, model)
            color = shade(framework, index)
            if these.low.notna().all():
                ax.plot([these.low.iloc[0], these.high.iloc[0]], [y, y], color=color, linewidth=2.2, alpha=0.6)
            ax.plot(
                these["value"],
                np.full(len(these), y),
                MARKERS[index % len(MARKERS)],
                color=color,
                markersize=5.5,
                mec="white",
                mew=0.6,
            )
        base = rows[rows.model == "baseline"]["value"].mean()
        ax.axvline(base, color=GRAY, linestyle="--", linewidth=1.2)
        ax.annotate(
            f"baseline {base:.2f}",
            (base, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 1),
            textcoords="offset points",
            fontsize=7.5,
            color=GRAY,
        )
        ax.set_yticks(range(len(groups[name])), [f"{m} · {f}" for m, f in groups[name]])
        ax.set_ylim(len(groups[name]) - 0.4, -0.6)
        ax.set_xlim(0, 1)
        ax.grid(axis="y", visible=False)
        ax.set_title(f"{name} ({results.experiments[name].task})", pad=12)
        ax.set_xlabel(f"{metric_name(rows.metric.iloc[0])}, test split")
    return figure


def _groups(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(rows[rows.model != "baseline"].model, rows[rows.model != "baseline"].framework)))
