"""Kernels against the fastest alternatives: the ratio on a logarithmic axis, one line per case."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, hover, number
from rvkernels.figures.kernels import COLORS, OTHER


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    threads = sorted(set(table.threads.tolist()), key=lambda count: (count == 0, count))
    names = ["all cores" if count == 0 else f"{count} thread{'s' * (count > 1)}" for count in threads]
    columns = ["kernel", "case", "peer", "ratio_to_fastest_peer", "ratio_to_floor", "ours_s", "peer_s", "floor_s"]
    encoding = {
        "y": {"field": "line", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}},
        "yOffset": {"field": "cores", "sort": names},
        "color": {
            "field": "cores",
            "scale": {"domain": names, "range": [COLORS.get(count, OTHER) for count in threads]},
            "legend": {"orient": "top", "title": None},
        },
        "tooltip": [{"field": "cores", "type": "nominal", "title": "threads"}, *hover(table, columns)],
    }
    threads_named = "datum.threads == 0 ? 'all cores' : datum.threads == 1 ? '1 thread' : datum.threads + ' threads'"
    ratio = number("ratio_to_fastest_peer", "times as fast as the fastest peer", scale={"type": "log"})
    yield Chart(
        "",
        (12 * len(threads) + 4) * len(table.groupby(["kernel", "case"])),
        [
            {
                "transform": [
                    {"filter": "isValid(datum.ratio_to_fastest_peer)"},
                    {"calculate": "datum.kernel + ', ' + datum.case", "as": "line"},
                    {"calculate": threads_named, "as": "cores"},
                ],
                "mark": {"type": "bar"},
                "encoding": {**encoding, "x": ratio, "x2": {"datum": 1}},
            },
            {"data": {"values": [{}]}, "mark": {"type": "rule"}, "encoding": {"x": {"datum": 1}}},
        ],
    )
