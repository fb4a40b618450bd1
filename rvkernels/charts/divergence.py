"""How far losses drift apart: the loss of every step and its difference to the first framework's, per model."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rvkernels.charts import Chart, color, hover, number


def charts(table: pd.DataFrame) -> Iterator[Chart]:
    for model in table.model.unique():
        for field, title, rows in (
            ("loss", "training loss", "datum.framework != 'control'"),
            # A difference of 0 has no place on a logarithmic axis.
            ("relative_difference", "relative difference to the first framework", "datum.relative_difference > 0"),
        ):
            encoding = {
                "x": number("step", "step"),
                "y": number(field, None, scale={"type": "log"}, axis={"format": ".0e" if "rel" in field else "~g"}),
                "color": color(table.framework),
                "tooltip": hover(table, ["framework", "step", field]),
            }
            yield Chart(
                f"{model}: {title}",
                230,
                [{"mark": {"type": "line", "strokeWidth": 1.2, "clip": True}, "encoding": encoding}],
                f"datum.model == '{model}' && {rows}",
            )
