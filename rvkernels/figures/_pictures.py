"""Rows of pictures with titles and boxes, as one panel without axes.

The pictures are pasted into one before matplotlib sees them: an axes for each, or an image, takes many times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection
from PIL import Image

from rvkernels.figures import DPI, WIDTH

GAP = 0.07  # inches between pictures
TITLE = 0.16  # inches of a line of a title
HEAD = 0.22  # inches of a line's head at its left
LETTER = 0.058  # inches of a letter of a title, about


@dataclass(frozen=True)
class Picture:
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


def picture(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(rows, cols, bands) of any dtype -> (rows, cols, 3) uint8 for display.

    The first three bands (or the first one, thrice) stretched so that `low` becomes 0 and `high` 255, per band.
    """
    bands = [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]
    low, high = np.asarray(low, float)[bands], np.asarray(high, float)[bands]
    scaled = (image[..., bands].astype(np.float32) - low) / np.maximum(high - low, 1e-9)
    return (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)


def classes_picture(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """(rows, cols) class ids -> (rows, cols, 3) uint8; ids that are no class are white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(colors)] = colors
    return table[labels]


def abreast(width: float, page: int) -> int:
    """Pictures beside each other: `page` of them on a page, half as many in a column of a paper."""
    return page if width >= WIDTH else max(1, page // 2)


def mosaic_height(rows: list[list[Picture]], columns: int, width: float, heads: list | None = None) -> float:
    """Inches of draw_mosaic."""
    side = _side(columns, width, heads)
    return sum(side + GAP + TITLE * _lines(row) for row in rows)


def draw_mosaic(
    ax: plt.Axes, rows: list[list[Picture]], columns: int, heads: list[tuple[str, str]] | None = None
) -> None:
    """Square pictures in rows of at most `columns`, over the whole width of the figure of `ax`.

    heads     (text, colour) at the left of each row; "" for none
    """
    width = ax.figure.get_figwidth()
    height, side = mosaic_height(rows, columns, width, heads), _side(columns, width, heads)
    left = 0.0 if heads is None else HEAD
    ax.set_axis_off()
    canvas = Image.new("RGB", (round(DPI * width), round(DPI * height)), "white")
    # Only the pictures are opaque: titles stand on the page.
    mask = Image.new("L", canvas.size, 0)
    y = 0.0
    for i, row in enumerate(rows):
        y += TITLE * _lines(row)
        for j, one in enumerate(row):
            _draw(ax, canvas, mask, one, left + j * (side + GAP), y, side)
        if heads is not None and heads[i][0]:
            text, color = heads[i]
            ax.text(0.1, y + side / 2, text, rotation=90, ha="center", va="center", weight="bold", color=color)
        y += side + GAP
    canvas.putalpha(mask)
    ax.imshow(canvas, extent=(0, width, height, 0), interpolation="none", aspect="auto")


def label_classes(ax: plt.Axes, names: list[str], colors: np.ndarray) -> None:
    """A legend entry per class."""
    for name, color in zip(names, np.asarray(colors) / 255):
        ax.plot([], [], "s", markersize=8, color=color, mec="#888888", mew=0.4, label=name)


def _lines(row: list[Picture]) -> int:
    return max((one.title.count("\n") + 1 for one in row if one.title), default=0)


def _side(columns: int, width: float, heads: list | None) -> float:
    return (width - (0.0 if heads is None else HEAD) - GAP * (columns - 1)) / columns


def _draw(ax: plt.Axes, canvas: Image.Image, mask: Image.Image, one: Picture, x: float, y: float, side: float) -> None:
    rows, cols = one.image.shape[:2]
    scale = side / max(rows, cols)
    size = (round(DPI * cols * scale), round(DPI * rows * scale))
    how = Image.Resampling.LANCZOS if one.photo and size[0] < cols else Image.Resampling.NEAREST
    place = (round(DPI * x), round(DPI * y))
    canvas.paste(Image.fromarray(one.image).resize(size, how), place)
    mask.paste(255, (*place, place[0] + size[0], place[1] + size[1]))
    if one.title:
        room = int((side + GAP) / LETTER)
        lines = [line if len(line) <= room else line[: room - 1] + "…" for line in one.title.split("\n")]
        ax.text(x, y - 0.03, "\n".join(lines), fontsize=7.5, va="bottom")
    if one.boxes:
        corners = [
            [(x + c * scale, y + r * scale) for r, c in ((y0, x0), (y0, x1), (y1, x1), (y1, x0))]
            for (y0, x0, y1, x1), _ in one.boxes
        ]
        colors = [color for _, color in one.boxes]
        ax.add_collection(PolyCollection(corners, facecolors="none", edgecolors=colors, linewidths=0.8), autolim=False)
