"""Times of training steps: boxes of every framework, per experiment and model."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, color, hover, name, number


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    tooltip = hover(table, ["framework", "steps", "p05", "p25", "median", "p75", "p95"])
    for (experiment, model), rows in table.groupby(["experiment", "model"], sort=False):
        shared = {"y": name("framework"), "color": color(table.framework), "tooltip": tooltip}
        whisker = {"x": number("p05", "milliseconds per step"), "x2": {"field": "p95"}}
        box = {"x": number("p25", "milliseconds per step"), "x2": {"field": "p75"}}
        middle = {"x": number("median", "milliseconds per step")}
        yield Chart(
            f"{experiment} · {model}",
            34 * len(rows),
            [
                {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": {**shared, **whisker}},
                {"mark": {"type": "bar", "height": 16, "opacity": 0.45}, "encoding": {**shared, **box}},
                {"mark": {"type": "tick", "thickness": 3, "size": 18}, "encoding": {**shared, **middle}},
            ],
            f"datum.experiment == '{experiment}' && datum.model == '{model}'",
        )
