"""Quality against cost: every model and framework, with intervals, and what no other one beats in both."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, color, hover, number
from rvkernels.figures import GRAY, metric_name
from rvkernels.figures.pareto import limits


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    columns = ["model", "framework", "seeds", "quality", "low", "high", "at", "at_low", "at_high"]
    for (experiment, cost), rows in table.groupby(["experiment", "cost"], sort=False):
        baseline = rows.baseline.iloc[0]
        across, upright = limits(rows, baseline)
        x = number(
            "at",
            cost,
            scale={"type": "log", "domain": list(across), "nice": False},
            axis={"tickCount": 4, "format": "~g"},
        )
        y = number("quality", None, scale={"domain": list(upright), "nice": False, "zero": False})
        shown = {"color": color(table.framework), "tooltip": hover(table, columns)}
        middle = {"x": x, "y": y}
        rule = {"type": "rule", "clip": True, "strokeWidth": 1.2}
        gray = {"color": GRAY, "strokeWidth": 1}
        front = [{"filter": "datum.front == 'True'"}]
        point = {**middle, **shown}
        if rows.model.nunique() > 1:
            point["shape"] = {"field": "model", "type": "nominal", "legend": {"orient": "bottom", "title": None}}
        layers = [
            {"mark": rule, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **shown}},
            {"mark": rule, "encoding": {"x": {**x, "field": "at_low"}, "x2": {"field": "at_high"}, "y": y, **shown}},
            {"transform": front, "mark": {"type": "line", "interpolate": "step-after", **gray}, "encoding": middle},
            {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 1}, "encoding": point},
            {"transform": front, "mark": {"type": "point", "size": 260, **gray}, "encoding": middle},
        ]
        if pd.notna(baseline):
            dashed = {"type": "rule", "strokeDash": [5, 4], "clip": True, **gray}
            layers.append({"mark": dashed, "encoding": {"y": {**y, "field": "baseline", "aggregate": "mean"}}})
        yield Chart(
            f"{experiment}: {metric_name(rows.metric.iloc[0])}",
            250,
            layers,
            f"datum.experiment == '{experiment}' && datum.cost == '{cost}'",
        )
