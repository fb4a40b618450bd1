"""Which class is taken for which: the confusion matrix of every model of a classification or segmentation."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.compare import BASELINE
from rvkernels.figures import Panel, Selection, Tables
from rvkernels.results import Results


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        if experiment.task == "detection":
            continue
        classes = experiment.classes
        groups = results.runs_of(name, baseline=True).groupby(["model", "framework"], sort=False)
        table = pd.concat([_matrix(results, rows, classes) for _, rows in groups], ignore_index=True)
        panels = [
            Panel({"table": rows, "classes": classes}, _height, f"{model} · {framework}")
            for (model, framework), rows in table.groupby(["model", "framework"], sort=False)
        ]
        small = len(classes) <= 7
        yield Selection(
            f"confusion_{name}", name, "Confusion matrices", {"table": table}, panels,
            abreast=(4, 2) if small else (2, 1), same_rows=True,
        )  # fmt: skip


def caption(tables: Tables) -> str:
    return (
        "Rows are the truth and sum to 100 %, columns the prediction, shares of less than 1 % are left out; test "
        f"split, all seeds added. {_worst(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Confusion matrix per model. {_worst(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    classes = tables["classes"]
    share = 100 * tables["table"].share_of_truth.to_numpy().reshape(len(classes), len(classes))
    ax.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for y, x in np.argwhere(share >= 1):
        color = "white" if share[y, x] > 55 else "#222222"
        ax.text(x, y, f"{share[y, x]:.0f}", ha="center", va="center", fontsize=7, color=color)
    ax.set_xticks(range(len(classes)), classes, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    ax.set_yticks(range(len(classes)), classes, fontsize=7)
    ax.set(xlabel="prediction", ylabel="truth, % of it")
    ax.grid(False)


def _height(width: float) -> float:
    return min(width, 4.0) + 0.55


def _matrix(results: Results, runs: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    count = sum(np.array(results.evaluation(row)["overall"][-1]["conf_mat"], float) for _, row in runs.iterrows())
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    n = len(classes)
    return pd.DataFrame(
        {
            "model": runs.model.iloc[0],
            "framework": runs.framework.iloc[0],
            "truth": np.repeat(classes, n),
            "prediction": np.tile(classes, n),
            "count": count.ravel(),
            "share_of_truth": share.ravel(),
        }
    )


def _worst(tables: Tables) -> str:
    table = tables["table"]
    wrong = table[(table.truth != table.prediction) & (table.model != BASELINE)]
    worst = wrong.loc[wrong.share_of_truth.idxmax()]
    return (
        f"The networks' largest confusion: {worst.share_of_truth:.0%} of {worst.truth} is taken for "
        f"{worst.prediction} by {worst.model} in {worst.framework}."
    )
