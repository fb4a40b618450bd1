"""Quality per class: F1 of classification and detection, IoU of segmentation; networks beside the baseline."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import GRAY, MARKERS, WIDTH, Figure, shade
from rvkernels.results import Results

QUANTITY = {"classification": ("f1", "F1"), "segmentation": ("iou", "IoU"), "detection": ("ap50", "AP50")}


def figures(results: Results) -> Iterator[Figure]:
    for name, experiment in results.experiments.items():
        quantity, label = QUANTITY[experiment.task]
        rows = results.classes[(results.classes.experiment == name) & (results.classes.quantity == quantity)]
        runs = results.runs_of(name, baseline=True)[["model", "framework", "seed"]]  # in the study's order
        rows = runs.merge(rows, on=["model", "framework", "seed"])
        table = rows.groupby(["model", "framework", "class_id", "class_name"], sort=False, as_index=False)[
            "value"
        ].mean()
        networks = table[table.model != "baseline"].dropna(subset=["value"])
        if networks.empty:
            continue
        low, high = networks.loc[networks["value"].idxmin()], networks.loc[networks["value"].idxmax()]
        text = (
            f"Easiest: {high.class_name} ({high['value']:.2f} by {high.model}); "
            f"hardest: {low.class_name} ({low['value']:.2f} by {low.model})."
        )
        yield Figure(
            name=f"classes_{name}",
            section=name,
            title=f"{label} per class",
            caption=f"{label} of every class on the test split, mean over seeds; gray rings are the baseline. {text}",
            alt=f"Dot plot of {label} per class and model. {text}",
            draw=lambda t=table, n=name, q=label: _draw(results, t, n, q),
            table=table,
        )


def _draw(results: Results, table: pd.DataFrame, name: str, label: str) -> plt.Figure:
    classes = results.experiments[name].classes
    groups = dict(list(table.groupby(["model", "framework"], sort=False)))
    networks = [key for key in groups if key[0] != "baseline"]
    # Frameworks of equal quality would hide each other: a line each.
    step = 0.0 if len(networks) < 3 else 0.55 / (len(networks) - 1)
    figure, ax = plt.subplots(figsize=(WIDTH, 0.9 + max(0.27, 0.11 * len(networks)) * len(classes)))
    for (model, framework), rows in groups.items():
        y = rows.class_name.map(classes.index)
        if model == "baseline":
            ring = {"mfc": "white", "mec": GRAY, "mew": 1.3, "zorder": 1}
            ax.plot(rows["value"], y, "o", markersize=6, label="baseline", **ring)
            continue
        index = results.model_index(name, model)
        ax.plot(
            rows["value"],
            y + step * (networks.index((model, framework)) - (len(networks) - 1) / 2),
            MARKERS[index % len(MARKERS)],
            color=shade(framework, index),
            markersize=6,
            mec="white",
            mew=0.6,
            label=f"{model} · {framework}",
        )
    ax.set_yticks(range(len(classes)), classes)
    ax.set_ylim(len(classes) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(f"{label}, test split")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
