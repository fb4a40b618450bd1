"""Precision against recall per class: what a lower score buys, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import LINES, Panel, Selection, Tables, shade
from rvkernels.metrics import RECALLS
from rvkernels.results import Results


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        if experiment.task == "segmentation":
            continue  # its scores are not kept exactly
        runs = results.runs_of(name)
        curves = [_curve(run, c) for _, run in runs.iterrows() for c in results.evaluation(run)["curves"]]
        table = pd.concat(curves).groupby(["model", "framework", "class", "recall"], sort=False).agg(
            precision=("precision", "mean"),
            low=("precision", "min"),
            high=("precision", "max"),
            score=("score", "mean"),
            seeds=("seed", "nunique"),
        ).reset_index()  # fmt: skip
        frameworks = results.study["frameworks"]
        panels = [
            Panel({"table": rows, "models": experiment.models, "frameworks": frameworks}, 1.9, name_)
            for name_, rows in table.groupby("class", sort=False)
        ]
        tables = {"table": table, "detection": experiment.task == "detection"}
        title = "Precision and recall per class"
        yield Selection(f"precision_recall_{name}", name, title, tables, panels, abreast=(4, 2))


def caption(tables: Tables) -> str:
    what = (
        "A box is found when one of its class overlaps it with an IoU of 0.5 or more; the mean of a curve is AP50."
        if tables["detection"]
        else "Each class against the rest, by its score."
    )
    several = tables["table"].seeds.max() > 1
    spread = " Lines are means over seeds, bands reach from the lowest to the highest." if several else ""
    return (
        "The precision that is possible at each recall or a higher one, as the score that counts as a find is lowered. "
        f"{what}{spread} {_half(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Curves of precision over recall, a panel per class. {_half(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    frameworks, models = tables["frameworks"], tables["models"]
    for (model, framework), rows in tables["table"].groupby(["model", "framework"], sort=False):
        place = models.index(model)
        dash = LINES[(frameworks.index(framework) if len(frameworks) > 1 else place) % len(LINES)]
        color = shade(framework, place)
        if rows.seeds.max() > 1:
            ax.fill_between(rows.recall, rows.low, rows.high, color=color, alpha=0.15, linewidth=0)
        ax.plot(rows.recall, rows.precision, dash, color=color, linewidth=1.3, label=f"{model} · {framework}")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def _curve(run: pd.Series, curve: dict) -> pd.DataFrame:
    """A class of eval.json's curves, a row per recall."""
    values = {"precision": np.array(curve["precision"], float), "score": np.array(curve["score"], float)}
    return pd.DataFrame(
        {**run[["model", "framework", "seed"]].to_dict(), "class": curve["class_name"], "recall": RECALLS, **values}
    )


def _half(tables: Tables) -> str:
    table = tables["table"]
    half = table[(table.recall - 0.5).abs() < 1e-6].groupby("class").precision.mean().dropna()
    if half.empty:
        return "No class occurs."
    return (
        f"At a recall of one half, mean over models, precision is lowest for {half.idxmin()} ({half.min():.2f}) and "
        f"highest for {half.idxmax()} ({half.max():.2f})."
    )
