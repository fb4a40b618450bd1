"""Which class is taken for which: the confusion matrix of every model of a classification or segmentation."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import Figure, pages
from rvkernels.results import Results


def figures(results: Results) -> Iterator[Figure]:
    for name, experiment in results.experiments.items():
        if experiment.task == "detection":
            continue
        classes = experiment.classes
        runs = results.runs_of(name, baseline=True)
        matrices = {}
        for (model, framework), rows in runs.groupby(["model", "framework"], sort=False):
            total = sum(
                np.array(results.evaluation(row)["overall"][-1]["conf_mat"], float) for _, row in rows.iterrows()
            )
            matrices[f"{model} · {framework}"] = total
        table = pd.DataFrame(
            [
                {"model": key, "truth": t, "prediction": p, "count": matrix[i, j], "share_of_truth": share[i, j]}
                for key, matrix in matrices.items()
                for share in [_shares(matrix)]
                for i, t in enumerate(classes)
                for j, p in enumerate(classes)
            ]
        )
        wrong = table[(table.truth != table.prediction) & ~table.model.str.startswith("baseline")]
        worst = wrong.loc[wrong.share_of_truth.idxmax()]
        text = (
            f"The networks' largest confusion: {worst.share_of_truth:.0%} of {worst.truth} is taken for "
            f"{worst.prediction} by {worst.model}."
        )
        yield Figure(
            name=f"confusion_{name}",
            section=name,
            title="Confusion matrices",
            caption=f"Rows are the truth and sum to 100 %, columns the prediction; test split, all seeds added. {text}",
            alt=f"Confusion matrix per model. {text}",
            draw=lambda m=matrices, c=classes: _draw(m, c),
            table=table,
        )


def _shares(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def _draw(matrices: dict[str, np.ndarray], classes: list[str]) -> plt.Figure:
    most = 4 if len(classes) <= 7 else 2  # beside each other
    rows = list(pages(list(matrices), -(-len(matrices) // -(-len(matrices) // most))))
    columns = max(map(len, rows))
    side = 7.3 / (columns + 0.45)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(7.3, (side + 0.75) * len(rows)), squeeze=False, sharey=True
    )
    for ax in axes.ravel():
        ax.set_visible(False)
    for i, keys in enumerate(rows):
        for j, key in enumerate(keys):
            ax, share = axes[i, j], _shares(matrices[key])
            ax.set_visible(True)
            ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
            for y, x in np.ndindex(share.shape):
                if share[y, x] >= 0.005:
                    ax.text(
                        x,
                        y,
                        f"{100 * share[y, x]:.0f}",
                        ha="center",
                        va="center",
                        fontsize=6.5,
                        color="white" if share[y, x] > 0.55 else "#222222",
                    )
            ax.set_xticks(range(len(classes)), classes, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
            ax.set_yticks(range(len(classes)), classes, fontsize=7)
            ax.set_title(key, fontsize=8.5)
            ax.grid(False)
    return figure
