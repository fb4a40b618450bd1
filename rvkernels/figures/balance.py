"""How much there is of each class in training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import SPLITS, Panel, Selection, Tables
from rvkernels.results import Experiment, Results

UNITS = {"classification": "chips", "segmentation": "pixels", "detection": "boxes"}


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        there = set(experiment.chips.table["split"])
        table = pd.concat([_counts(experiment, s) for s in SPLITS if s in there], ignore_index=True)
        tables = {"table": table, "unit": UNITS[experiment.task]}
        panel = Panel(tables, 0.6 + 0.36 * len(experiment.classes))
        yield Selection(f"balance_{name}", name, "Balance of the classes", tables, [panel])


def caption(tables: Tables) -> str:
    return (
        f"Share of each class among the labelled {tables['unit']} of the chips of a split; the number is the count in "
        f"training. {_ends(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Bars of the share of each class per split. {_ends(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    groups = dict(list(tables["table"].groupby("split", sort=False)))
    height = 0.78 / len(groups)
    for i, (split, rows) in enumerate(groups.items()):
        y = np.arange(len(rows)) + height * (i - (len(groups) - 1) / 2)
        bars = ax.barh(y, 100 * rows.share, height=height, color=SPLITS[split], label=split)
        if split == "train":
            ax.bar_label(bars, [f"{count:,}" for count in rows["count"]], padding=3, fontsize=7)
    classes = next(iter(groups.values()))["class"]
    ax.set_yticks(range(len(classes)), classes)
    ax.set_ylim(len(classes) - 0.5, -0.5)
    ax.set_xlim(0, 118 * tables["table"].share.max())
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"% of the labelled {tables['unit']} of the split")


def _counts(experiment: Experiment, split: str) -> pd.DataFrame:
    chips = experiment.chips
    counts = chips.class_counts(chips.rows(split), len(experiment.classes))
    share = counts / max(1, counts.sum())
    return pd.DataFrame({"split": split, "class": experiment.classes, "count": counts, "share": share})


def _ends(tables: Tables) -> str:
    train = tables["table"][tables["table"].split == "train"]
    most, least = train.loc[train["count"].idxmax()], train.loc[train["count"].idxmin()]
    if most["count"] == least["count"]:
        return "In training every class is as frequent as the others."
    return (
        f"In training the most frequent class is {most['class']} ({most.share:.1%}), the rarest {least['class']} "
        f"({least.share:.1%})."
    )
