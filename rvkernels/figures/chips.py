"""Chips with their labels, per split: does the data look right?"""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import SPLITS, Figure, classes_picture, picture
from rvkernels.figures._panels import Panel, draw_panels
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
    rows, heads = [], []
    for split in splits:
        chosen = _choice(experiment, split)
        line = []
        for row in chosen:
            image = picture(chips.images[row], low, high)
            if experiment.task == "classification":
                line.append(Panel(image, experiment.classes[chips.labels[row]], photo=True))
            elif experiment.task == "detection":
                inside = range(chips.box_start[row], chips.box_start[row + 1])
                boxes = tuple((chips.boxes[k], experiment.colors[chips.box_class[k]] / 255) for k in inside)
                line.append(Panel(image, boxes=boxes, photo=True))
            else:
                line.append(Panel(image, photo=True))
        rows.append(line)
        heads.append((split, SPLITS[split]))
        if experiment.task == "segmentation":
            rows.append([Panel(classes_picture(chips.labels[row], experiment.colors)) for row in chosen])
            heads.append(("", ""))
    classes = None if experiment.task == "classification" else (experiment.classes, experiment.colors)
    return draw_panels(rows, COLUMNS, heads=heads, classes=classes)
