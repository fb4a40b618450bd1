"""Learning curves: means over seeds and bands from the lowest to the highest, loss and validation metric."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, color, hover, number
from rvkernels.figures import metric_name


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    for quantity in table.quantity.unique():
        loss = quantity == "train_loss"
        title = "training loss" if loss else f"validation {metric_name(quantity.removeprefix('val_'))}"
        scale = {"type": "log", "nice": False} if loss else {"zero": False}
        y = number("value", None, scale=scale, axis={"format": "~g", "tickCount": 5}, stack=None)
        shared = {
            "x": number("epoch", "epoch", axis={"tickMinStep": 1, "format": "d"}, scale={"zero": False, "nice": False}),
            "color": color(table.framework),
            "detail": [{"field": "model"}],
        }
        band = {**shared, "y": {**y, "aggregate": "min"}, "y2": {"field": "value", "aggregate": "max"}}
        mean = {"field": "value", "type": "quantitative", "aggregate": "mean", "format": ".4~g", "title": "mean"}
        line = {**shared, "y": {**y, "aggregate": "mean"}}
        line["tooltip"] = [*hover(table, ["model", "framework", "epoch"]), mean]
        if table.model.nunique() > 1:
            line["strokeDash"] = {"field": "model", "type": "nominal", "legend": {"orient": "bottom", "title": None}}
        yield Chart(
            title,
            230,
            [
                {"mark": {"type": "area", "opacity": 0.15}, "encoding": band},
                {"mark": {"type": "line", "point": {"size": 18}}, "encoding": line},
            ],
            f"datum.quantity == '{quantity}'",
        )
