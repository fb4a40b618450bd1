"""Chips with their labels, per split: does the data look right?"""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from rvkernels.figures import SPLITS, WIDTH, Figure, classes_picture, legend_patches, picture
from rvkernels.results import Experiment, Results

COLUMNS = 6


def figures(results: Results) -> Iterator[Figure]:
    for name, experiment in results.experiments.items():
        chips = experiment.chips
        counts = pd.Series(chips.table["split"]).value_counts()
        splits = [s for s in SPLITS if s in counts]
        table = pd.concat([_counts(experiment, s) for s in splits], ignore_index=True)
        rows, cols = chips.shape
        shown = ", ".join(f"{counts[s]} for {s}" for s in splits)
        labels = {
            "classification": "the class above each",
            "segmentation": "the label mask below each",
            "detection": "boxes in the colour of their class",
        }[experiment.task]
        yield Figure(
            name=f"chips_{name}",
            section=name,
            title="Chips and labels",
            caption=(
                f"Chips of {rows} x {cols} pixels and {chips.bands} bands as training sees them, evenly spaced through "
                f"each split, with {labels}. There are {shown}. Displayed with a 1-99 % stretch per band."
            ),
            alt=f"Example chips with labels; {shown}.",
            draw=lambda e=experiment, s=splits: _draw(e, s),
            table=table,
        )


def _counts(experiment: Experiment, split: str) -> pd.DataFrame:
    chips = experiment.chips
    counts = chips.class_counts(chips.rows(split), len(experiment.classes))
    unit = {"classification": "chips", "segmentation": "pixels", "detection": "boxes"}[experiment.task]
    return pd.DataFrame(
        {
            "split": split,
            "class": experiment.classes,
            "unit": unit,
            "count": counts,
            "share": counts / max(1, counts.sum()),
        }
    )


def _choice(experiment: Experiment, split: str) -> np.ndarray:
    """Chips to show: evenly spaced over the split, for detection over the chips that hold a box."""
    chips = experiment.chips
    rows = chips.rows(split)
    if experiment.task == "detection":
        full = rows[np.diff(chips.box_start)[rows] > 0]
        rows = full if len(full) else rows
    if experiment.task == "classification":
        # One of each class in turn, so that the classes are seen.
        classes = chips.labels[rows]
        rows = np.concatenate([rows[classes == c][:1] for c in np.unique(classes)] + [rows])
        rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
        return rows[:COLUMNS]
    return rows[np.linspace(0, len(rows) - 1, min(COLUMNS, len(rows))).round().astype(int)]


def _draw(experiment: Experiment, splits: list[str]) -> plt.Figure:
    chips, (low, high) = experiment.chips, experiment.stretch()
    tall = 2 if experiment.task == "segmentation" else 1
    side = WIDTH / (COLUMNS + 0.4)
    figure, axes = plt.subplots(
        tall * len(splits), COLUMNS, figsize=(WIDTH, side * tall * len(splits) + 0.5), squeeze=False
    )
    for ax in axes.ravel():
        ax.set_axis_off()
    for i, split in enumerate(splits):
        for j, row in enumerate(_choice(experiment, split)):
            ax = axes[tall * i, j]
            ax.imshow(picture(chips.images[row], low, high), interpolation="nearest")
            if experiment.task == "classification":
                ax.set_title(experiment.classes[chips.labels[row]], fontsize=7, fontweight="normal", pad=2)
            elif experiment.task == "segmentation":
                axes[tall * i + 1, j].imshow(
                    classes_picture(chips.labels[row], experiment.colors), interpolation="nearest"
                )
            else:
                for k in range(chips.box_start[row], chips.box_start[row + 1]):
                    y0, x0, y1, x1 = chips.boxes[k]
                    color = experiment.colors[chips.box_class[k]] / 255
                    ax.add_patch(
                        Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.0)
                    )
        axes[tall * i, 0].text(
            -0.06,
            0.5,
            split,
            transform=axes[tall * i, 0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=SPLITS[split],
        )
    if experiment.task != "classification":
        figure.legend(
            handles=legend_patches(experiment.classes, experiment.colors),
            loc="outside lower center",
            ncols=min(7, len(experiment.classes)),
        )
    return figure
