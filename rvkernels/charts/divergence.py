"""How far losses drift apart: the loss of every step and its difference to the first framework's, per model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from rvkernels.charts import Chart, color, hover, number
from rvkernels.divergence import CONTROL_FACTOR, LONG
from rvkernels.figures import GRAY, power_of_ten

DASHES = ([1, 0], [6, 4], [2, 3], [8, 3, 2, 3])
MOST = 400  # steps of a line after the first LONG


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """The first LONG steps and at most MOST more of every line: a page carries no more of a long training."""
    return table[(table.step <= LONG) | ((table.step - LONG) % _stride(table) == 0)]


def _stride(table: pd.DataFrame) -> int:
    return max(1, math.ceil((table.step.max() - LONG) / MOST))


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    stride = _stride(table)
    thinned = f" (after step {LONG} one of {stride})" if stride > 1 else ""
    for model, these in table.groupby("model", sort=False):
        only = f"datum.model == '{model}'"
        losses = f"{model}: training loss{thinned}"
        yield Chart(losses, 230, [_losses(these)], f"{only} && datum.framework != 'control'")
        # A difference of 0 has no place on a logarithmic axis, nor has an infinite one.
        shown = these[(these.relative_difference > 0) & np.isfinite(these.relative_difference)]
        if len(shown):
            title = f"{model}: relative difference to the first framework{thinned}"
            yield Chart(title, 230, _differences(shown), f"{only} && datum.relative_difference > 0")


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
    ends = rows.relative_difference.min(), rows.relative_difference.max()
    low, high = (math.floor(math.log10(x)) for x in ends)
    powers = [10.0**exponent for exponent in range(low, high + 2)]
    x = number("step", "step", scale={"nice": False})
    scale = {"type": "log", "domain": [powers[0], powers[-1]], "clamp": True, "nice": False}
    y = number("relative_difference", None, scale=scale, axis={"values": powers, "labelExpr": _labels(low, high + 1)})
    shade = color(rows.framework)
    tooltip = hover(rows, ["framework", "step", "relative_difference", "largest_so_far"])
    control = {"filter": "datum.framework == 'control'"}
    band = {"calculate": f"{CONTROL_FACTOR} * datum.largest_so_far", "as": "bound"}
    thin = {"type": "line", "strokeWidth": 0.6, "opacity": 0.5}
    layers: list[dict] = [{"mark": thin, "encoding": {"x": x, "y": y, "color": shade, "tooltip": tooltip}}]
    if "control" in set(rows.framework):
        layers.append(
            {
                "transform": [control, band],
                "mark": {"type": "area", "color": GRAY, "opacity": 0.2},
                "encoding": {"x": x, "y": {**y, "field": "bound"}, "y2": {"datum": powers[0]}},
            }
        )
    layers.append(
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"x": x, "y": {**y, "field": "largest_so_far"}, "color": shade, "tooltip": tooltip},
        }
    )
    return layers


def _labels(low: int, high: int) -> str:
    """An expression that writes a power of ten between these as one."""
    names = ", ".join(f"'{power_of_ten(exponent)}'" for exponent in range(low, high + 1))
    return f"[{names}][round(log(datum.value) / LN10) - {low}]".replace("- -", "+ ")
