"""Learning curves: a line per run, loss and validation metric beside each other."""

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
        encoding = {
            "x": number("epoch", "epoch", axis={"tickMinStep": 1, "format": "d"}, scale={"zero": False}),
            "y": number("value", None, scale=scale, axis={"format": "~g", "tickCount": 5}),
            "color": color(table.framework),
            "detail": [{"field": "seed"}],
            "tooltip": hover(table, ["model", "framework", "seed", "epoch", "value"]),
        }
        if table.model.nunique() > 1:
            encoding["strokeDash"] = {"field": "model", "type": "nominal", "legend": {"orient": "bottom"}}
        yield Chart(
            title,
            230,
            [{"mark": {"type": "line", "point": {"size": 18}}, "encoding": encoding}],
            f"datum.quantity == '{quantity}'",
        )
