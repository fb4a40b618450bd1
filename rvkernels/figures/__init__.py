"""Figures of the report: one file each, drawn from a study's tables and from nothing else.

rvkernels/figures/<name>.py has four functions:

    select(results) -> Iterator[Selection]    the tables of each of its figures: one, or one per experiment
    draw(tables, ax)                          draws one panel on axes of any size
    caption(tables) -> str                    what is shown and how to read it, with its numbers
    alt(tables) -> str                        what a person who cannot see it should know

This file holds what they share: how panels become a figure for a page and for a column of a paper, the colours, and how
a figure is written. `figures(name, results)` makes them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rvkernels import frameworks, registry
from rvkernels.results import Results

STYLE = Path(__file__).with_name("style.mplstyle")
WIDTH = 7.3  # inches: 700 pixels of a page at 96 dots per inch
COLUMN = 3.3  # inches: a column of a paper that has two
DPI = 192  # of pictures: twice the page's
INK = "#3b4048"  # text and axes, as style.mplstyle has it; in an SVG it becomes the colour of the text around it
NEUTRAL = "#757575"  # what that is where nothing says otherwise: read on white and on black (contrast 4.6 and 4.6)
GRAY = "#6b7280"
BAND = "#9aa2ad"  # filled, and drawn with little opacity: margins and bands

# Distinguishable with colour-blind eyes (Okabe and Ito 2008), as the frameworks' are.
SPLITS = {"train": "#0072b2", "val": "#009e73", "test": "#d55e00"}
NAMES = {"accuracy": "accuracy", "miou": "mIoU", "mean_iou": "mIoU", "ap50": "AP50", "ap50_95": "AP50:95"}
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")

Tables = Mapping[str, Any]  # data frames by name, with the few names and colours that go with them


@dataclass(frozen=True)
class Panel:
    """What is drawn on one pair of axes.

    tables    what draw(tables, ax) gets
    height    inches with title and labels, or a function of the width in inches
    title     above it
    """

    tables: Tables
    height: float | Callable[[float], float]
    title: str = ""


@dataclass(frozen=True)
class Selection:
    """What one figure shows.

    name       file name without suffix
    section    groups figures on the page: Results, Frameworks, Divergence, Time, Kernels, or the name of an experiment
    title      a few words
    tables     what caption(tables) and alt(tables) speak of; "table" is written beside the figure
    panels     in reading order
    abreast    panels beside each other on a page and in a column
    same_rows  panels beside each other share the labels of their rows
    framed     False: a panel of pictures, which fills the width and has no axes
    views      pictures of the same place, per place: a page shows them beside each other and zooms them together
    classes    names and colours of the classes in them
    experiment  of which it is, where the section does not say so
    """

    name: str
    section: str
    title: str
    tables: Tables
    panels: list[Panel]
    abreast: tuple[int, int] = (1, 1)
    same_rows: bool = False
    framed: bool = True
    views: Sequence[Sequence[Any]] = ()
    classes: tuple[list[str], np.ndarray] | None = None
    experiment: str | None = None


@dataclass(frozen=True)
class Figure:
    """One figure.

    kind      the file that draws it
    name      file name without suffix
    section   groups figures on the page
    title     a few words
    caption   what is shown and how to read it, with its numbers filled in from the tables
    alt       what a person who cannot see it should know
    draw      makes it, this many inches wide; None when it is written and done
    table     the numbers behind it
    views     as in Selection, as are classes
    experiment  of which it is; None: of all
    """

    kind: str
    name: str
    section: str
    title: str
    caption: str
    alt: str
    draw: Callable[[float], Canvas] | None = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    views: Sequence[Sequence[Any]] = field(default=(), repr=False)
    classes: tuple[list[str], np.ndarray] | None = None
    experiment: str | None = None

    def words(self) -> dict[str, str | None]:
        """What figures.json says of it; <name>.txt has the caption."""
        return {key: getattr(self, key) for key in ("kind", "name", "experiment", "title", "alt")}


def figures(name: str, results: Results) -> Iterator[Figure]:
    """The figures of rvkernels/figures/<name>.py."""
    module = registry.load("figures", name)
    for selection in module.select(results):
        yield Figure(
            kind=name,
            name=selection.name,
            section=selection.section,
            title=selection.title,
            caption=module.caption(selection.tables),
            alt=module.alt(selection.tables),
            draw=functools.partial(compose, selection, module.draw),
            table=selection.tables["table"],
            views=selection.views,
            classes=selection.classes,
            experiment=selection.section if selection.section in results.experiments else selection.experiment,
        )


# --- from panels to files --------------------------------------------------------------------------------------------


def compose(selection: Selection, draw: Callable[[Tables, plt.Axes], None], width: float) -> Canvas:
    """The panels of a figure on a canvas, as many beside each other as the width has room for, under one legend."""
    abreast = min(selection.abreast[width < WIDTH], len(selection.panels))
    rows = list(pages(selection.panels, abreast))
    heights = [max(_height(panel, width / abreast) for panel in row) for row in rows]
    canvas = plt.figure(figsize=(width, sum(heights)), layout="constrained" if selection.framed else "none")
    if selection.framed:
        axes = canvas.subplots(len(rows), abreast, height_ratios=heights, squeeze=False)
    else:
        axes = np.array([[canvas.add_axes((0, 0, 1, 1))]])
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            ax = axes[i, j]
            draw(panel.tables, ax)
            if panel.title:
                ax.set_title(panel.title, fontsize=9 if width / abreast > 2.2 else 7.5)
            if j and selection.same_rows:
                ax.tick_params(axis="y", labelleft=False)
        for ax in axes[i, len(row) :]:
            ax.set_visible(False)
    _label_once(axes)
    _legend(canvas, axes, framed=selection.framed)
    return canvas


def _height(panel: Panel, width: float) -> float:
    return panel.height(width) if callable(panel.height) else panel.height


def _label_once(axes: np.ndarray) -> None:
    """Neighbours with the same label keep one: the lowest of a column, and the first of a row."""
    for column in axes.T:
        for above, below in zip(column, column[1:]):
            if below.get_visible() and above.get_xlabel() == below.get_xlabel():
                above.set_xlabel("")
    for row in axes:
        first = row[0].get_ylabel()
        for ax in row[1:]:
            if ax.get_ylabel() == first:
                ax.set_ylabel("")


def _legend(canvas: Canvas, axes: np.ndarray, *, framed: bool) -> None:
    """One legend above all panels, for which the canvas grows."""
    entries: dict[str, Any] = {}
    for ax in axes.ravel():
        for handle, label in zip(*ax.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if not entries:
        return
    width, height = canvas.get_size_inches()
    entry = 0.42 + 0.075 * max(map(len, entries))  # inches of a handle and the longest label
    columns = min(len(entries), max(1, int(width / entry)))
    lines = -(-len(entries) // columns)
    room = 0.12 + 0.165 * lines
    canvas.set_size_inches(width, height + room)
    if framed:
        canvas.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=columns)
        return
    canvas.legend(entries.values(), entries.keys(), loc="upper left", ncols=columns, borderaxespad=0.2)
    axes[0, 0].set_position((0, 0, 1, height / (height + room)))


def write(figure: Figure, folder: Path) -> None:
    """Write <name>.svg and <name>.png for a page, <name>.pdf for a column of a paper, <name>.csv and its caption as
    <name>.txt into `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A fixed salt and no date: the same numbers give the same bytes. Canvases print without savefig, which draws all a
    # second time to find out how large it is.
    with plt.style.context(STYLE), mpl.rc_context({"svg.hashsalt": figure.name}):
        canvas = figure.draw(WIDTH)
        canvas.set_dpi(DPI)
        path = folder / f"{figure.name}.svg"
        canvas.set_facecolor("none")
        FigureCanvasSVG(canvas).print_svg(path, metadata={"Date": None})
        path.write_text(_inherit(path.read_text()))
        canvas.set_layout_engine("none")  # it has done its work, which takes as long as drawing
        canvas.set_dpi(DPI)  # print_svg leaves its own
        canvas.set_facecolor("white")
        FigureCanvasAgg(canvas).print_png(folder / f"{figure.name}.png")
        plt.close(canvas)
        canvas = figure.draw(COLUMN)
        canvas.set_dpi(DPI)
        FigureCanvasPdf(canvas).print_pdf(folder / f"{figure.name}.pdf", metadata={"CreationDate": None})
        plt.close(canvas)
    figure.table.to_csv(folder / f"{figure.name}.csv", index=False)
    (folder / f"{figure.name}.txt").write_text(f"{figure.caption}\n")


def _inherit(svg: str) -> str:
    """Text and axes take colour and font from where the picture stands: a page sets `color` and `font-family`."""
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    return svg.replace("<svg ", f'<svg color="{NEUTRAL}" font-family="DejaVu Sans, Verdana, sans-serif" ', 1)


# --- colours and numbers ---------------------------------------------------------------------------------------------


def shade(framework: str, model: int) -> tuple[float, float, float]:
    """The framework's colour, mixed with white for the second, third, ... model of an experiment."""
    white = min(0.55, 0.35 * model)
    r, g, b = (c + white * (1 - c) for c in to_rgb(frameworks.color(framework)))
    return r, g, b


def metric_name(column: str) -> str:
    """How a metric's column is written for people."""
    return NAMES.get(column, column.replace("_", " "))


def three_digits(value: float) -> str:
    """0.0123, 12.3 or 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def reach(values: pd.Series, write: Callable[[float], str]) -> str:
    """The least to the largest; once where they are written alike."""
    low, high = write(values.min()), write(values.max())
    return low if low == high else f"{low} to {high}"


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
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def pages(items: list, size: int) -> Iterator[list]:
    """Consecutive pieces of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
