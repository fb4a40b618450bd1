"""Chips of two splits that show the same picture, or nearly: is there anything of the training in the test?"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import Panel, Selection, Tables
from rvkernels.figures._pictures import Picture, abreast, draw_mosaic, mosaic_height, picture
from rvkernels.results import Experiment, Results

COLUMNS = 6


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        examples = experiment.leaks["duplicates"]["examples"][:COLUMNS]
        if examples:
            tables = {
                "table": _table(experiment, examples),
                "pairs": [(_picture(experiment, e["chip"]), _picture(experiment, e["like"])) for e in examples],
            }
            panel = Panel(tables, functools.partial(_height, tables))
            yield Selection(f"duplicates_{name}", name, "Alike in two splits", tables, [panel], framed=False)


def caption(tables: Tables) -> str:
    table = tables["table"]
    equal = int(table.bits.isna().sum())
    return (
        f"{len(table)} chips above the chip of another split that each is like, the most alike first: {equal} of them "
        f"pixel by pixel, {len(table) - equal} by a hash of 64 bits. Whether they are one place, or two that look the "
        "same, is for the eye to say. Displayed with a 1-99 % stretch per band."
    )


def alt(tables: Tables) -> str:
    table = tables["table"]
    pairs = "; ".join(f"{row.split} {row.scene} and {row.against} {row.like_scene}" for row in table.itertuples())
    return f"Pairs of chips that look alike: {pairs}."


def draw(tables: Tables, ax: plt.Axes) -> None:
    draw_mosaic(ax, *_arranged(tables, ax.figure.get_figwidth()))


def _arranged(tables: Tables, width: float) -> tuple[list[list[Picture]], int]:
    columns = abreast(width, COLUMNS)
    return [list(row) for row in zip(*tables["pairs"][:columns])], columns


def _height(tables: Tables, width: float) -> float:
    rows, columns = _arranged(tables, width)
    return mosaic_height(rows, columns, width)


def _picture(experiment: Experiment, chip: int) -> Picture:
    table = experiment.chips.table
    image = picture(experiment.chips.images[chip], *experiment.stretch())
    return Picture(image, f"{table['split'][chip]}\n{table['scene'][chip]}", photo=True)


def _table(experiment: Experiment, examples: list[dict]) -> pd.DataFrame:
    table = experiment.chips.table
    return pd.DataFrame(
        {
            "split": [table["split"][e["chip"]] for e in examples],
            "chip": [e["chip"] for e in examples],
            "scene": [table["scene"][e["chip"]] for e in examples],
            "against": [table["split"][e["like"]] for e in examples],
            "like": [e["like"] for e in examples],
            "like_scene": [table["scene"][e["like"]] for e in examples],
            "bits": pd.array([e["bits"] for e in examples], "Int64"),
        }
    )
