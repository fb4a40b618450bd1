"""Differences of quality between frameworks, beside the margin within which they count as equivalent."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import BAND, INK, Panel, Selection, Tables, metric_name, shade
from rvkernels.interval import differences, t_interval
from rvkernels.results import Results


def select(results: Results) -> Iterator[Selection]:
    table = results.pairs[results.pairs.margin.notna()]
    if table.empty:
        return
    table = table.assign(**_inner(results, table))
    panels = []
    for (experiment, model), rows in table.groupby(["experiment", "model"], sort=False):
        title = f"{experiment} · {model}"
        place = results.experiments[experiment].models.index(model)
        panels.append(Panel({"table": rows, "place": place}, 0.75 + 0.24 * len(rows), title))
    title = "Differences of quality between frameworks"
    yield Selection("equivalence", "Frameworks", title, {"table": table}, panels)


def caption(tables: Tables) -> str:
    return (
        "Mean difference of the main metric on the test split over the same seeds, with its 95 % interval (thin) and "
        "90 % interval (thick). Where the thick line lies within the gray margin, two one-sided tests at 5 % show that "
        f"the frameworks are equivalent. No correction for several pairs. {_shown(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Differences of the main metric between pairs of frameworks with intervals and margins. {_shown(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    rows = tables["table"]
    margin = rows.margin.iloc[0]
    ax.axvspan(-margin, margin, color=BAND, alpha=0.25, linewidth=0, zorder=0)
    ax.axvline(0, color=INK, linewidth=0.8)
    for y, (_, row) in enumerate(rows.iterrows()):
        color = shade(row.a, tables["place"])
        ax.plot([row.low, row.high], [y, y], color=color, linewidth=1)
        ax.plot([row.low_90, row.high_90], [y, y], color=color, linewidth=3, solid_capstyle="butt")
        ax.plot(row["mean"], y, "o", color=color, mec="white", markersize=6)
    ends = rows[["mean", "low", "high"]].abs().max().max()
    # An interval of two seeds can be many times the margin; its ends are in the table then.
    reach = min(max(1.25 * margin, 1.1 * ends), 4 * margin)
    ax.set_xlim(-reach, reach)
    ax.set_yticks(range(len(rows)), [f"{row.a} − {row.b}" for row in rows.itertuples()])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"Δ {metric_name(rows.quantity.iloc[0])} (margin ±{margin:g})")


def _shown(tables: Tables) -> str:
    tested = tables["table"].equivalent.dropna()
    if tested.empty:
        return "With one seed there is no test."
    return f"For {tested.sum()} of {len(tested)} pairs equivalence is shown."


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
