"""Chips with their labels, per split: does the data look right?"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import SPLITS, Panel, Selection, Tables
from rvkernels.figures._pictures import (
    Picture,
    abreast,
    classes_picture,
    draw_mosaic,
    label_classes,
    mosaic_height,
    picture,
)
from rvkernels.results import Experiment, Results

COLUMNS = 6
LABELS = {
    "classification": "the class above each",
    "segmentation": "the label mask below each",
    "detection": "boxes in the colour of their class",
}


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        chips = experiment.chips
        counts = pd.Series(chips.table["split"]).value_counts()
        chosen = {split: _choice(experiment, split) for split in SPLITS if split in counts}
        tables = {
            "table": pd.concat([_shown(experiment, rows) for rows in chosen.values()], ignore_index=True),
            "counts": {split: int(counts[split]) for split in chosen},
            "shape": (*chips.shape, chips.bands),
            "labels": LABELS[experiment.task],
            "classes": None if experiment.task == "classification" else (experiment.classes, experiment.colors),
            "pictures": [line for split, rows in chosen.items() for line in _lines(experiment, split, rows)],
        }
        panel = Panel(tables, functools.partial(_height, tables))
        yield Selection(f"chips_{name}", name, "Chips and labels", tables, [panel], framed=False)


def caption(tables: Tables) -> str:
    rows, cols, bands = tables["shape"]
    return (
        f"Chips of {rows} x {cols} pixels and {bands} bands as training sees them, evenly spaced through each split, "
        f"with {tables['labels']}. There are {_counted(tables)}. Displayed with a 1-99 % stretch per band."
    )


def alt(tables: Tables) -> str:
    return f"Example chips with labels; {_counted(tables)}."


def draw(tables: Tables, ax: plt.Axes) -> None:
    rows, columns, heads = _arranged(tables, ax.figure.get_figwidth())
    draw_mosaic(ax, rows, columns, heads)
    if tables["classes"] is not None:
        label_classes(ax, *tables["classes"])


def _arranged(tables: Tables, width: float) -> tuple[list[list[Picture]], int, list[tuple[str, str]]]:
    columns = abreast(width, COLUMNS)
    return [row[:columns] for _, row in tables["pictures"]], columns, [head for head, _ in tables["pictures"]]


def _height(tables: Tables, width: float) -> float:
    rows, columns, heads = _arranged(tables, width)
    return mosaic_height(rows, columns, width, heads)


def _counted(tables: Tables) -> str:
    return ", ".join(f"{count} for {split}" for split, count in tables["counts"].items())


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


def _shown(experiment: Experiment, rows: np.ndarray) -> pd.DataFrame:
    columns = experiment.chips.table
    return pd.DataFrame({name: [columns[name][r] for r in rows] for name in ("split", "chip", "scene", "row", "col")})


def _lines(experiment: Experiment, split: str, chosen: np.ndarray) -> Iterator[tuple[tuple[str, str], list[Picture]]]:
    """The chips of a split below each other with what is at their left: the split, or nothing before label masks."""
    chips, (low, high) = experiment.chips, experiment.stretch()
    line = []
    for row in chosen:
        image = picture(chips.images[row], low, high)
        if experiment.task == "classification":
            line.append(Picture(image, experiment.classes[chips.labels[row]], photo=True))
        elif experiment.task == "detection":
            inside = range(chips.box_start[row], chips.box_start[row + 1])
            boxes = tuple((chips.boxes[k], experiment.colors[chips.box_class[k]] / 255) for k in inside)
            line.append(Picture(image, boxes=boxes, photo=True))
        else:
            line.append(Picture(image, photo=True))
    yield (split, SPLITS[split]), line
    if experiment.task == "segmentation":
        yield ("", ""), [Picture(classes_picture(chips.labels[row], experiment.colors)) for row in chosen]
