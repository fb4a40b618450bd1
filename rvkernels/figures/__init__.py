"""Figures of the report: one file each, drawn from a study's results and from nothing else.

rvkernels/figures/<name>.py has `figures(results) -> Iterator[Figure]`. This file holds what they share: the form of a
figure, the colours, and how one is written as SVG, PNG and CSV.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

STYLE = Path(__file__).with_name("style.mplstyle")
WIDTH = 7.3  # inches: 700 pixels of a page at 96 dots per inch
DPI = 192  # of pictures: twice the page's
GRAY = "#6b7280"

# Distinguishable with colour-blind eyes (Okabe and Ito 2008); a framework keeps its colour in every figure.
FRAMEWORKS = {"torch": "#d55e00", "tensorflow": "#0072b2", "caffe2": "#009e73", "jax": "#aa4499", "logistic": GRAY}
SPLITS = {"train": "#0072b2", "val": "#009e73", "test": "#d55e00"}
NAMES = {"accuracy": "accuracy", "miou": "mIoU", "mean_iou": "mIoU", "ap50": "AP50", "ap50_95": "AP50:95"}
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class Figure:
    """One figure.

    name      file name without suffix
    title     a few words; `section` groups figures on the page
    caption   what is shown and how to read it, with its numbers filled in from the tables
    alt       what a person who cannot see it should know
    draw      makes the figure
    table     the numbers behind it
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Canvas]
    table: pd.DataFrame = field(repr=False)


def write(figure: Figure, folder: Path) -> None:
    """Write <name>.svg, <name>.png (at DPI) and <name>.csv into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    # A fixed salt and no date: the same numbers give the same bytes. Canvases print without savefig, which draws all a
    # second time to find out how large it is.
    with plt.style.context(STYLE), mpl.rc_context({"svg.hashsalt": figure.name}):
        canvas = figure.draw()
        canvas.set_dpi(DPI)
        FigureCanvasSVG(canvas).print_svg(folder / f"{figure.name}.svg", metadata={"Date": None})
        canvas.set_layout_engine("none")  # it has done its work, which takes as long as drawing
        canvas.set_dpi(DPI)  # print_svg leaves its own
        FigureCanvasAgg(canvas).print_png(folder / f"{figure.name}.png")
        plt.close(canvas)
    figure.table.to_csv(folder / f"{figure.name}.csv", index=False)


def shade(framework: str, model: int) -> tuple[float, float, float]:
    """The framework's colour, mixed with white for the second, third, ... model of an experiment."""
    white = min(0.65, 0.4 * model)
    r, g, b = (c + white * (1 - c) for c in to_rgb(FRAMEWORKS.get(framework, "#444444")))
    return r, g, b


def metric_name(column: str) -> str:
    """How a metric's column is written for people."""
    return NAMES.get(column, column.replace("_", " "))


def power_of_ten(exponent: int) -> str:
    """10⁻⁴ for -4."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def scientific(value: float) -> str:
    """0.00023 as 2.3 × 10⁻⁴."""
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × {power_of_ten(int(exponent))}"


def label_log_axis(axis: mpl.axis.Axis, *, powers: bool = False) -> None:
    """Powers of ten at a logarithmic axis, or plain numbers 1, 2, 5, 10; matplotlib's own labels are slow to set."""
    if powers:
        axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(round(math.log10(value)))))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


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


def legend_patches(names: list[str], colors: np.ndarray) -> list[mpl.patches.Patch]:
    """A legend entry per class."""
    return [
        mpl.patches.Patch(facecolor=c / 255.0, edgecolor="#333333", linewidth=0.4, label=n)
        for n, c in zip(names, np.asarray(colors))
    ]


def pages(items: list, size: int) -> Iterator[list]:
    """Consecutive pieces of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
