"""The form of a figure file, how panels become a figure, and what figures say by rules of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rvkernels import frameworks, registry
from rvkernels.figures import COLUMN, INK, STYLE, WIDTH, Figure, Panel, Selection, compose, figures, pareto, write


@pytest.mark.parametrize("name", registry.names("figures"))
def test_a_figure_file_has_four_functions(name):
    module = registry.load("figures", name)
    assert all(callable(getattr(module, function)) for function in ("select", "draw", "caption", "alt"))


def test_every_framework_has_a_name_and_a_colour_that_are_known_without_it():
    names = [*registry.names("frameworks"), "logistic"]
    for what in (frameworks.title, frameworks.color):
        assert len({what(name) for name in names}) == len(names)
    assert frameworks.title("torch") == "PyTorch"
    program = "import sys; from rvkernels.frameworks import color; print(color('torch'), 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == f"{frameworks.color('torch')} False\n"


def draw_line(tables, ax):
    ax.plot(tables["table"].x, tables["table"].y, label=tables["label"])
    ax.set(xlabel="x, m", ylabel="y, s")


@pytest.fixture
def selection():
    table = pd.DataFrame({"x": [1, 2, 3], "y": [3.0, 1.0, 2.0]})
    panels = [Panel({"table": table, "label": label}, 2.0, f"panel {label}") for label in "abc"]
    return Selection("lines", "Results", "Lines", {"table": table}, panels, abreast=(2, 1))


@pytest.mark.parametrize(("width", "rows"), [(WIDTH, 2), (COLUMN, 3)])
def test_panels_stand_beside_each_other_where_there_is_room(selection, width, rows):
    with plt.style.context(STYLE):
        canvas = compose(selection, draw_line, width)
    shown = [ax for ax in canvas.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == ["panel a", "panel b", "panel c"]
    assert len({ax.get_subplotspec().rowspan.start for ax in shown}) == rows
    assert canvas.get_figwidth() == width
    assert canvas.get_figheight() == pytest.approx(2.0 * rows, abs=0.5)  # and the legend
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["a", "b", "c"]
    labels = [ax.get_xlabel() for ax in shown]
    assert labels == (["", "x, m", "x, m"] if rows == 2 else ["", "", "x, m"])  # once in a column
    plt.close(canvas)


def test_text_in_svg_is_text_that_a_page_may_style(selection, tmp_path):
    figure = Figure(
        "lines", "lines", "Results", "Lines", "caption", "alt",
        lambda width: compose(selection, draw_line, width), selection.tables["table"],
    )  # fmt: skip
    write(figure, tmp_path)
    svg = (tmp_path / "lines.svg").read_text()
    assert re.search(r"<text[^>]*>x, m</text>", svg)
    assert INK not in svg
    assert 'style="font-size' not in svg or "font-family:" not in svg
    root = re.search(r"<svg [^>]*>", svg)[0]
    assert 'color="' in root
    assert "currentColor" in svg
    assert "fill: #ffffff" not in svg  # the background is the page's
    first = {suffix: (tmp_path / f"lines.{suffix}").read_bytes() for suffix in ("svg", "png", "pdf", "csv")}
    write(figure, tmp_path)
    assert {suffix: (tmp_path / f"lines.{suffix}").read_bytes() for suffix in first} == first


def runs(*rows):
    return pd.DataFrame(rows, columns=["model", "framework", "seed", "miou", "minutes"])


def test_what_nothing_beats_is_on_the_front():
    made = runs(("a", "torch", 0, 0.8, 2.0), ("b", "torch", 0, 0.7, 1.0), ("c", "torch", 0, 0.7, 1.5))
    points = pareto._points(made, "miou", "minutes").set_index("model")
    assert points.front.to_dict() == {"a": True, "b": True, "c": False}
    assert points.low.isna().all()  # one seed has no interval


def results(*networks):
    """Of one experiment, as far as quality against cost is concerned."""
    rows = [("land", *network, 0, "miou", 0.5 + i / 10, 60.0 + i) for i, network in enumerate(networks)]
    columns = ["experiment", "model", "framework", "seed", "primary", "miou", "train_epoch_s"]
    table = pd.DataFrame(rows, columns=columns)

    def runs_of(name, *, baseline=False):
        return pd.concat([table, pd.DataFrame([{"model": "baseline", "miou": 0.3}])]) if baseline else table

    experiments = {"land": SimpleNamespace(models=sorted({model for model, _ in networks}))}
    return SimpleNamespace(experiments=experiments, training_unit=("minutes", 60.0), runs_of=runs_of)


def test_quality_against_cost_is_of_two_networks_or_more():
    assert list(pareto.select(results(("unet", "torch")))) == []
    (selection,) = pareto.select(results(("unet", "torch"), ("unet", "caffe2")))
    table = selection.tables["table"]
    assert set(table.cost) == {"training, minutes"}
    assert table["at"].tolist() == pytest.approx([1.0, 61 / 60])


def test_intervals_of_cost_are_on_its_logarithm():
    made = runs(("a", "torch", 0, 0.8, 1.0), ("a", "torch", 1, 0.7, 4.0))
    point = pareto._points(made, "miou", "minutes").iloc[0]
    half = 12.7062 * np.log(4) / 2  # t of 1 degree of freedom; the standard error is half the distance of two values
    assert point["at"] == pytest.approx(2.0)
    assert point.at_low == pytest.approx(2.0 * np.exp(-half), rel=1e-3)
    assert point.quality == pytest.approx(0.75)
    assert (point.low, point.high) == pytest.approx((0.75 - 12.7062 * 0.05, 0.75 + 12.7062 * 0.05), abs=1e-4)


def test_an_unknown_figure_is_named():
    with pytest.raises(ValueError, match=r"no 'qualitty'.*Did you mean 'quality'"):
        next(figures("qualitty", None))
