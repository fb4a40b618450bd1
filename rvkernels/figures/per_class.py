"""Quality per class: F1 of classification, IoU of segmentation, AP of detection; networks beside the baseline."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt

from rvkernels.compare import BASELINE
from rvkernels.figures import GRAY, MARKERS, Panel, Selection, Tables, shade
from rvkernels.results import Results

QUANTITY = {"classification": ("f1", "F1"), "segmentation": ("iou", "IoU"), "detection": ("ap50", "AP50")}
KEYS = ["model", "framework", "class_id", "class_name"]


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        quantity, label = QUANTITY[experiment.task]
        rows = results.classes[(results.classes.experiment == name) & (results.classes.quantity == quantity)]
        runs = results.runs_of(name, baseline=True)[["model", "framework", "seed"]]  # in the study's order
        rows = runs.merge(rows, on=["model", "framework", "seed"])
        table = rows.groupby(KEYS, sort=False)["value"].agg(["mean", "min", "max", "count"]).reset_index()
        networks = table[table.model != BASELINE].dropna(subset=["mean"])
        if networks.empty:
            continue
        tables = {"table": table, "label": label, "classes": experiment.classes, "models": experiment.models}
        # Frameworks of equal quality would hide each other: a line each.
        lines = networks.groupby(["model", "framework"]).ngroups
        height = 0.6 + max(0.27, 0.11 * lines) * len(experiment.classes)
        yield Selection(f"classes_{name}", name, f"{label} per class", tables, [Panel(tables, height)])


def caption(tables: Tables) -> str:
    several = tables["table"]["count"].max() > 1
    spread = "mean over seeds, with a line from the lowest to the highest seed" if several else "one seed"
    return f"{tables['label']} of every class on the test split, {spread}; gray rings are the baseline. {_ends(tables)}"


def alt(tables: Tables) -> str:
    return f"Dot plot of {tables['label']} per class and model. {_ends(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    classes, models = tables["classes"], tables["models"]
    groups = dict(list(tables["table"].groupby(["model", "framework"], sort=False)))
    networks = [key for key in groups if key[0] != BASELINE]
    step = 0.0 if len(networks) < 3 else 0.55 / (len(networks) - 1)
    for (model, framework), rows in groups.items():
        y = rows.class_name.map(classes.index)
        if model == BASELINE:
            ax.plot(rows["mean"], y, "o", markersize=6, mfc="none", mec=GRAY, mew=1.3, zorder=1, label="baseline")
            continue
        y = y + step * (networks.index((model, framework)) - (len(networks) - 1) / 2)
        color, marker = shade(framework, models.index(model)), MARKERS[models.index(model) % len(MARKERS)]
        ax.hlines(y, rows["min"], rows["max"], color=color, linewidth=1.2)
        ax.plot(
            rows["mean"], y, marker, color=color, markersize=5, mec="white", mew=0.5, label=f"{model} · {framework}"
        )
    ax.set_yticks(range(len(classes)), classes)
    ax.set_ylim(len(classes) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(f"{tables['label']}, test split")


def _ends(tables: Tables) -> str:
    table = tables["table"]
    networks = table[table.model != BASELINE].dropna(subset=["mean"])
    low, high = networks.loc[networks["mean"].idxmin()], networks.loc[networks["mean"].idxmax()]
    return (
        f"Easiest: {high.class_name} ({high['mean']:.2f} by {high.model} in {high.framework}); hardest: "
        f"{low.class_name} ({low['mean']:.2f} by {low.model} in {low.framework})."
    )
