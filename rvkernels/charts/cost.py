"""What training costs: every run as a point and the median as a line, per quantity."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, color, hover, name, number
from rvkernels.figures.cost import QUANTITIES

LINE = "datum.experiment + ' · ' + datum.model"


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    lines = len(table.groupby(["experiment", "model"]))
    frameworks = table.framework.nunique()
    for quantity, title in QUANTITIES.items():
        if table[quantity].isna().all():
            continue
        where = {
            "y": name("line"),
            "yOffset": {"field": "framework", "sort": list(table.framework.unique())},
            "color": color(table.framework),
        }
        line = [{"calculate": LINE, "as": "line"}]
        every = hover(table, ["experiment", "model", "framework", "seed", quantity])
        spread = {
            "x": number(quantity, None, aggregate="min"),
            "x2": {"field": quantity, "aggregate": "max"},
        }
        layers = [
            ({"type": "bar", "opacity": 0.4, "height": 9}, {"x": number(quantity, None, aggregate="median")}),
            ({"type": "rule", "strokeWidth": 1.2}, spread),
            (
                {"type": "point", "filled": True, "size": 36, "opacity": 1},
                {"x": number(quantity, None), "tooltip": every},
            ),
        ]
        yield Chart(
            title.format(unit=table.unit.iloc[0]),
            lines * (14 * frameworks + 12),
            [{"transform": line, "mark": mark, "encoding": {**where, **place}} for mark, place in layers],
        )
