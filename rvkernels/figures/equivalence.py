"""Differences of quality between frameworks, beside the margin within which they count as equivalent."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import WIDTH, Figure, metric_name, shade
from rvkernels.interval import differences, t_interval
from rvkernels.results import Results


def figures(results: Results) -> Iterator[Figure]:
    table = results.pairs[results.pairs.margin.notna()]
    if table.empty:
        return
    table = table.assign(**_inner(results, table))
    tested = table[table.equivalent.notna()]
    text = (
        f"For {tested.equivalent.sum()} of {len(table)} pairs equivalence is shown."
        if len(tested)
        else "With one seed there is no test."
    )
    yield Figure(
        name="equivalence",
        section="Frameworks",
        title="Differences of quality between frameworks",
        caption=(
            "Mean difference of the main metric on the test split over the same seeds, with its 95 % interval (thin) "
            "and 90 % interval (thick). Where the thick line lies within the gray margin, two one-sided tests at 5 % "
            f"show that the frameworks are equivalent. No correction for several pairs. {text}"
        ),
        alt=f"Differences of the main metric between pairs of frameworks with intervals and margins. {text}",
        draw=lambda: _draw(results, table),
        table=table.dropna(axis="columns", how="all"),
    )


def _inner(results: Results, table: pd.DataFrame) -> dict[str, list[float]]:
    """The 90 % intervals: two one-sided tests at 5 % ask whether they lie within the margin."""
    low, high = [], []
    for pair in table.itertuples():
        runs = results.runs[(results.runs.experiment == pair.experiment) & (results.runs.model == pair.model)]
        a, b = (runs[runs.framework == f].set_index("seed")[pair.quantity].to_dict() for f in (pair.a, pair.b))
        inner = t_interval(differences(a, b), level=0.9)
        low.append(inner.low)
        high.append(inner.high)
    return {"low_90": low, "high_90": high}


def _draw(results: Results, table: pd.DataFrame) -> plt.Figure:
    panels = list(table.groupby(["experiment", "model"], sort=False))
    heights = [len(rows) + 1.2 for _, rows in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH, 0.24 * sum(heights) + 0.42 * len(panels)), height_ratios=heights, squeeze=False
    )
    for ax, ((experiment, model), rows) in zip(axes[:, 0], panels):
        margin = rows.margin.iloc[0]
        ax.axvspan(-margin, margin, color="#e3e6ea", zorder=0)
        ax.axvline(0, color="#444444", linewidth=0.8)
        for y, row in enumerate(rows.itertuples()):
            color = shade(row.a, results.model_index(experiment, model))
            ax.plot([row.low, row.high], [y, y], color=color, linewidth=1)
            ax.plot([row.low_90, row.high_90], [y, y], color=color, linewidth=3, solid_capstyle="butt")
            ax.plot(row.mean, y, "o", color=color, mec="white", markersize=6)
        ends = rows[["mean", "low", "high"]].abs().max().max()
        # An interval of two seeds can be many times the margin; its ends are in the table then.
        reach = min(max(1.25 * margin, 1.1 * ends), 4 * margin)
        ax.set_xlim(-reach, reach)
        ax.set_yticks(range(len(rows)), [f"{row.a} − {row.b}" for row in rows.itertuples()])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_title(f"{experiment} · {model}: {metric_name(rows.quantity.iloc[0])}, margin ±{margin:g}")
    return figure
