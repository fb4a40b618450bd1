"""How far losses drift apart: the loss of every step and its difference to the first framework's, per model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, color, hover, number
from rvkernels.divergence import CONTROL_FACTOR
from rvkernels.figures import GRAY, power_of_ten

DASHES = ([1, 0], [6, 4], [2, 3], [8, 3, 2, 3])
LARGEST_SO_FAR = {
    "window": [{"op": "max", "field": "relative_difference", "as": "so_far"}],
    "sort": [{"field": "step"}],
    "groupby": ["framework"],
}


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    for model, rows in table.groupby("model", sort=False):
        yield Chart(f"{model}: training loss", 230, [_losses(rows)], f"{_of(model)} && datum.framework != 'control'")
        # A difference of 0 has no place on a logarithmic axis.
        yield Chart(
            f"{model}: relative difference to the first framework",
            230,
            _differences(rows),
            f"{_of(model)} && datum.relative_difference > 0",
        )


def _of(model: str) -> str:
    return f"datum.model == '{model}'"


def _losses(rows: pd.DataFrame) -> dict:
    # Frameworks draw the same line as a rule: dashes let the others show through.
    names = list(rows.framework.unique())
    dash = {"domain": names, "range": [DASHES[i % len(DASHES)] for i in range(len(names))]}
    return {
        "mark": {"type": "line", "strokeWidth": 1.3},
        "encoding": {
            "x": number("step", "step", scale={"nice": False}),
            "y": number("loss", None, scale={"type": "log", "nice": False}, axis={"format": "~g", "tickCount": 5}),
            "color": color(rows.framework),
            "strokeDash": {"field": "framework", "type": "nominal", "scale": dash, "legend": None},
            "tooltip": hover(rows, ["framework", "step", "loss"]),
        },
    }


def _differences(rows: pd.DataFrame) -> list[dict]:
    differences = rows.relative_difference[rows.relative_difference > 0]
    if differences.empty:
        return [_losses(rows)]
    low, high = (math.floor(math.log10(x)) for x in (differences.min(), differences.max()))
    powers = [10.0**exponent for exponent in range(low, high + 2)]
    x = number("step", "step", scale={"nice": False})
    scale = {"type": "log", "domain": [powers[0], powers[-1]], "clamp": True, "nice": False}
    y = number("relative_difference", None, scale=scale, axis={"values": powers, "labelExpr": _labels(low, high + 1)})
    shade = color(rows.framework)
    tooltip = hover(rows, ["framework", "step", "relative_difference"])
    control = {"filter": "datum.framework == 'control'"}
    band = {"calculate": f"{CONTROL_FACTOR} * datum.so_far", "as": "bound"}
    thin = {"type": "line", "strokeWidth": 0.6, "opacity": 0.5}
    layers: list[dict] = [{"mark": thin, "encoding": {"x": x, "y": y, "color": shade, "tooltip": tooltip}}]
    if "control" in set(rows.framework):
        layers.append(
            {
                "transform": [control, LARGEST_SO_FAR, band],
                "mark": {"type": "area", "color": GRAY, "opacity": 0.2},
                "encoding": {"x": x, "y": {**y, "field": "bound"}, "y2": {"datum": powers[0]}},
            }
        )
    layers.append(
        {
            "transform": [LARGEST_SO_FAR],
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"x": x, "y": {**y, "field": "so_far"}, "color": shade, "tooltip": tooltip},
        }
    )
    return layers


def _labels(low: int, high: int) -> str:
    """An expression that writes a power of ten between these as one."""
    names = ", ".join(f"'{power_of_ten(exponent)}'" for exponent in range(low, high + 1))
    return f"[{names}][round(log(datum.value) / LN10) - {low}]".replace("- -", "+ ")
