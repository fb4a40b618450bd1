"""Kernels against the fastest alternatives: the ratio on a logarithmic axis, one line per case."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rvkernels.charts import Chart, hover, name, number
from rvkernels.figures.kernels import COLORS, OTHER


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    cores = table.drop_duplicates("cores").sort_values("threads", key=lambda counts: counts.replace(0, np.inf))
    names = list(cores.cores)
    encoding = {
        "y": name("line", axis={"labelLimit": 260}),
        "yOffset": {"field": "cores", "sort": names},
        "color": {
            "field": "cores",
            "scale": {"domain": names, "range": [COLORS.get(count, OTHER) for count in cores.threads]},
            "legend": None,
        },
        "tooltip": hover(table, table.columns.drop("threads")),
    }
    ratio = number("ratio_to_fastest_peer", "times as fast as the fastest peer", scale={"type": "log"})
    yield Chart(
        "",
        (12 * len(names) + 4) * len(table.groupby(["kernel", "case"])),
        [
            {
                "transform": [
                    {"filter": "isValid(datum.ratio_to_fastest_peer)"},
                    {"calculate": "datum.kernel + ', ' + datum.case", "as": "line"},
                ],
                "mark": {"type": "bar"},
                "encoding": {**encoding, "x": ratio, "x2": {"datum": 1}},
            },
            {"data": {"values": [{}]}, "mark": {"type": "rule"}, "encoding": {"x": {"datum": 1}}},
        ],
        hides="cores",
    )
