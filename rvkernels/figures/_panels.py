"""Rows of pictures with titles, boxes and a legend of classes.

The pictures are pasted into one before matplotlib sees them: an axes for each, or an image, takes many times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection
from PIL import Image

from rvkernels.figures import DPI, WIDTH, legend_patches

GAP = 0.07  # inches between pictures
TITLE = 0.16  # inches of a line of a title


@dataclass(frozen=True)
class Panel:
    """One picture.

    image   (rows, cols, 3) uint8
    title   above it
    boxes   pairs of a box (ymin, xmin, ymax, xmax) in pixels and its colour
    photo   smoothed where it is drawn smaller; pictures of classes are not, since a mixed colour is no class
    """

    image: np.ndarray
    title: str = ""
    boxes: tuple = ()
    photo: bool = False


def draw_panels(
    rows: list[list[Panel]],
    columns: int,
    *,
    heads: list[tuple[str, str]] | None = None,
    classes: tuple[list[str], np.ndarray] | None = None,
) -> plt.Figure:
    """Square pictures in rows of at most `columns`.

    heads     (text, colour) at the left of each row; "" for none
    classes   their names and colours, for the legend
    """
    left = 0.0 if heads is None else 0.22
    side = (WIDTH - left - GAP * (columns - 1)) / columns
    lines = [max((panel.title.count("\n") + 1 for panel in row if panel.title), default=0) for row in rows]
    height = sum(side + GAP + TITLE * n for n in lines)
    legend = 0.0 if classes is None else 0.1 + 0.2 * -(-len(classes[0]) // 7)
    figure = plt.figure(figsize=(WIDTH, height + legend), layout="none")
    ax = figure.add_axes((0, legend / (height + legend), 1, height / (height + legend)))
    ax.set_axis_off()
    canvas = Image.new("RGB", (round(DPI * WIDTH), round(DPI * height)), "white")
    y = 0.0
    for i, (row, n) in enumerate(zip(rows, lines)):
        y += TITLE * n
        for j, panel in enumerate(row):
            _draw(ax, canvas, panel, left + j * (side + GAP), y, side)
        if heads is not None and heads[i][0]:
            text, color = heads[i]
            ax.text(0.1, y + side / 2, text, rotation=90, ha="center", va="center", weight="bold", color=color)
        y += side + GAP
    ax.imshow(canvas, extent=(0, WIDTH, height, 0), interpolation="none", aspect="auto")
    if classes is not None:
        names, colors = classes
        figure.legend(handles=legend_patches(names, colors), loc="lower center", ncols=min(7, len(names)))
    return figure


def _draw(ax: plt.Axes, canvas: Image.Image, panel: Panel, x: float, y: float, side: float) -> None:
    rows, cols = panel.image.shape[:2]
    scale = side / max(rows, cols)
    size = (round(DPI * cols * scale), round(DPI * rows * scale))
    shrinks = size[0] < cols
    how = Image.Resampling.LANCZOS if panel.photo and shrinks else Image.Resampling.NEAREST
    canvas.paste(Image.fromarray(panel.image).resize(size, how), (round(DPI * x), round(DPI * y)))
    if panel.title:
        ax.text(x, y - 0.03, panel.title, fontsize=7.5, va="bottom")
    if panel.boxes:
        corners = [
            [(x + c * scale, y + r * scale) for r, c in ((y0, x0), (y0, x1), (y1, x1), (y1, x0))]
            for (y0, x0, y1, x1), _ in panel.boxes
        ]
        colors = [color for _, color in panel.boxes]
        ax.add_collection(PolyCollection(corners, facecolors="none", edgecolors=colors, linewidths=0.8), autolim=False)
