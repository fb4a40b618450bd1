"""Interactive figures: what Vega-Lite draws on the page from a figure's own table, the CSV that stands beside it.

rvkernels/charts/<name>.py has `charts(table) -> Iterator[Chart]` for the figures of rvkernels/figures/<name>.py, and
`rows(table)` where the page is not to carry the whole table; a figure without such a file is shown as it was drawn. A
chart is data, a specification of Vega-Lite; the page gives it colours of the theme and buttons that hide
what has a colour, frameworks as a rule.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import vl_convert

from rvkernels import registry
from rvkernels.figures import Figure
from rvkernels.frameworks import color as framework_color

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


@dataclass(frozen=True)
class Chart:
    """One chart.

    title    above it
    height   pixels of the plot
    layers   marks with their encodings, drawn over each other
    rows     a condition on the table's rows, in Vega's expressions
    hides    the column whose values the page has buttons to hide, those of the first layer's colours
    """

    title: str
    height: float
    layers: list[dict]
    rows: str = "true"
    hides: str = "framework"

    def specification(self) -> dict:
        """For Vega-Lite, without the data."""
        return {
            "$schema": SCHEMA,
            "width": "container",
            "height": self.height,
            "params": [{"name": "hidden", "value": []}],
            "transform": [{"filter": self.rows}, {"filter": f"indexof(hidden, datum.{self.hides}) < 0"}],
            "layer": self.layers,
        }


def interactive(figure: Figure) -> tuple[str, str] | None:
    """The charts of a figure as JSON, and its table as CSV; None when its kind has none."""
    if figure.kind not in registry.names("charts"):
        return None
    module = registry.load("charts", figure.kind)
    found = [{"title": c.title, "spec": c.specification()} for c in module.charts(figure.table)]
    rows = module.rows(figure.table) if hasattr(module, "rows") else figure.table
    # Said here: what Vega-Lite guesses of a column it guesses after some of the transforms.
    types = {column: _type(values) for column, values in figure.table.items()}
    described = json.dumps({"charts": found, "types": types}, ensure_ascii=False)
    return _inside(described), _inside(rows.to_csv(index=False))


def _type(column: pd.Series) -> str:
    # Vega takes pandas' "False" for true: truth values are compared as the words that they are in the file.
    truth = pd.api.types.is_bool_dtype(column)
    return "number" if pd.api.types.is_numeric_dtype(column) and not truth else "string"


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, which a page carries."""
    return _inside(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", "6.4"))


def _inside(text: str) -> str:
    """What may stand in a <script> element, in a string of JavaScript or JSON."""
    return text.replace("</script", "<\\/script")


# --- pieces of specifications ----------------------------------------------------------------------------------------


def color(frameworks: Iterable[str]) -> dict:
    """A framework has the colour that it has in every figure."""
    names = list(dict.fromkeys(frameworks))
    scale = {"domain": names, "range": [framework_color(name) for name in names]}
    return {"field": "framework", "type": "nominal", "scale": scale, "legend": None}


def number(field: str, title: str | None, **more: object) -> dict:
    """A quantity on an axis."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def name(field: str, **more: object) -> dict:
    """A category, in the order of the table."""
    return {"field": field, "type": "nominal", "sort": None, "title": None, **more}


def hover(table: pd.DataFrame, columns: Iterable[str]) -> list[dict]:
    """What stands beside the pointer: these columns, numbers with four digits."""
    return [
        {"field": column, "type": "quantitative", "format": ".4~g"}
        if pd.api.types.is_float_dtype(table[column])
        else {"field": column, "type": "nominal"}
        for column in columns
    ]
