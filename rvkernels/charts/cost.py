"""What training costs: every run as a point and the median as a line, per quantity."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, color, hover, number
from rvkernels.figures.cost import QUANTITIES

LINE = "datum.experiment + ' · ' + datum.model"


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    lines = len(table.groupby(["experiment", "model"]))
    frameworks = table.framework.nunique()
    for quantity, title in QUANTITIES.items():
        if table[quantity].isna().all():
            continue
        where = {
            "y": {"field": "line", "type": "nominal", "sort": None, "title": None},
            "yOffset": {"field": "framework", "sort": list(table.framework.unique())},
            "color": color(table.framework),
        }
        every = hover(table, ["experiment", "model", "framework", "seed", quantity])
        yield Chart(
            title,
            lines * (14 * frameworks + 12),
            [
                {
                    "transform": [{"calculate": LINE, "as": "line"}],
                    "mark": {"type": "bar", "opacity": 0.4, "height": 9},
                    "encoding": {**where, "x": number(quantity, None, aggregate="median")},
                },
                {
                    "transform": [{"calculate": LINE, "as": "line"}],
                    "mark": {"type": "point", "filled": True, "size": 42},
                    "encoding": {**where, "x": number(quantity, None), "tooltip": every},
                },
            ],
        )
