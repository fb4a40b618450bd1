"""The worst mistakes: cells that are wrong with the highest score, and windows with the most errors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import Panel, Selection, Tables, pages
from rvkernels.figures._pictures import Picture, abreast, classes_picture, draw_mosaic, label_classes, mosaic_height
from rvkernels.figures._scenes import boxes, found_classes, outlines, photo, true_classes
from rvkernels.predictions import Predictions
from rvkernels.results import Experiment, Results
from rvkernels.scene import Region

SHOWN = {"classification": 18, "segmentation": 6, "detection": 6}  # cells or windows
COLUMNS = 6


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        run = results.runs_of(name).iloc[0]
        table = pd.DataFrame(results.evaluation(run)["worst"])
        if table.empty:
            continue
        show = {"classification": _cell, "segmentation": _land, "detection": _boxes}[experiment.task]
        folder = results.run_folder(run) / "predictions"
        windows = [row._asdict() for row in table.head(SHOWN[experiment.task]).itertuples(index=False)]
        tables = {
            "table": table,
            "blocks": [show(experiment, folder, window) for window in windows],
            "task": experiment.task,
            "classes": None if experiment.task == "classification" else (experiment.classes, experiment.colors),
            "model": run.model,
            "framework": run.framework,
            "seed": run.seed,
        }
        panel = Panel(tables, functools.partial(_height, tables))
        yield Selection(f"failures_{name}", name, "The worst mistakes", tables, [panel], framed=False)


def caption(tables: Tables) -> str:
    who = f"{tables['model']} in {tables['framework']}, seed {tables['seed']}"
    what = {
        "classification": f"What {who}, gets wrong with the highest score: truth, then prediction and score.",
        "segmentation": f"Windows of the test split of which {who}, has most wrong: image, truth, prediction.",
        "detection": f"Windows of the test split with the most missed and false boxes of {who}: truth, prediction.",
    }[tables["task"]]
    return f"{what} {_first(tables)}"


def alt(tables: Tables) -> str:
    return f"The worst mistakes as pictures. {_first(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    draw_mosaic(ax, *_arranged(tables, ax.figure.get_figwidth()))
    if tables["classes"] is not None:
        label_classes(ax, *tables["classes"])


def _arranged(tables: Tables, width: float) -> tuple[list[list[Picture]], int]:
    columns = abreast(width, COLUMNS)
    columns -= columns % len(tables["blocks"][0])
    return list(pages([one for block in tables["blocks"] for one in block], columns)), columns


def _height(tables: Tables, width: float) -> float:
    return mosaic_height(*_arranged(tables, width), width)


def _first(tables: Tables) -> str:
    worst = tables["table"].iloc[0]
    if tables["task"] == "classification":
        return f"The worst is {worst.truth} in {worst.scene}, taken for {worst.prediction} ({worst.score:.2f})."
    if tables["task"] == "segmentation":
        return f"In the worst, of {worst.scene}, {worst.wrong:.0%} of the labelled pixels are wrong."
    return (
        f"In the worst, of {worst.scene}, {worst.missed} boxes are missed, {worst.false} are false and {worst.found} "
        "are found."
    )


def _region(w: dict) -> Region:
    return Region(w["scene"], w["row"], w["col"], w["rows"], w["cols"], "test")


def _cell(experiment: Experiment, folder: Path, w: dict) -> list[Picture]:
    return [photo(experiment, _region(w), f"{w['truth']}\n→ {w['prediction']} {w['score']:.2f}")]


def _land(experiment: Experiment, folder: Path, w: dict) -> list[Picture]:
    region = _region(w)
    return [
        photo(experiment, region, w["scene"]),
        Picture(classes_picture(true_classes(experiment, region), experiment.colors), "truth"),
        Picture(classes_picture(found_classes(folder, region), experiment.colors), f"{w['wrong']:.0%} wrong"),
    ]


def _boxes(experiment: Experiment, folder: Path, w: dict) -> list[Picture]:
    region = _region(w)
    here = boxes(experiment, Predictions.read(folder), region)
    wanted = ~here.ignored
    image = photo(experiment, region, f"{w['scene']}\ntruth")
    truth = outlines(experiment, region, here.truth[wanted], here.truth_class[wanted])
    found = outlines(experiment, region, here.boxes, here.box_class)
    title = f"{w['missed']} missed\n{w['false']} false"
    return [dataclasses.replace(image, boxes=truth), dataclasses.replace(image, title=title, boxes=found)]
