"""The worst mistakes: single pictures that are wrong with the highest score."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import Panel, Selection, Tables, pages
from rvkernels.figures._pictures import Picture, abreast, draw_mosaic, mosaic_height, picture
from rvkernels.figures.maps import of_pictures
from rvkernels.ops import tile
from rvkernels.predictions import Predictions
from rvkernels.results import Experiment, Results

SHOWN = 18
COLUMNS = 6


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        if experiment.task != "classification" or not of_pictures(experiment):
            continue
        run = results.runs_of(name).iloc[0]
        tables = _mistakes(experiment, Predictions.read(results.run_folder(run) / "predictions"))
        if tables["table"].empty:
            continue
        tables = {**tables, "model": run.model, "framework": run.framework}
        panel = Panel(tables, functools.partial(_height, tables))
        yield Selection(f"failures_{name}", name, "The worst mistakes", tables, [panel], framed=False)


def caption(tables: Tables) -> str:
    return (
        f"Test pictures that {tables['model']} in {tables['framework']} gets wrong with the highest score: truth, then "
        f"prediction and score. {_count(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Wrongly classified test pictures. {_count(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    draw_mosaic(ax, *_arranged(tables, ax.figure.get_figwidth()))


def _arranged(tables: Tables, width: float) -> tuple[list[list[Picture]], int]:
    columns = abreast(width, COLUMNS)
    return list(pages(tables["pictures"], columns)), columns


def _height(tables: Tables, width: float) -> float:
    return mosaic_height(*_arranged(tables, width), width)


def _count(tables: Tables) -> str:
    return f"{tables['wrong']} of {tables['pictures_tested']} test pictures are wrong."


def _mistakes(experiment: Experiment, predictions: Predictions) -> Tables:
    """The wrong pictures with the highest scores."""
    scores = predictions.arrays["scores"]
    ids = [predictions.scenes[i] for i in predictions.arrays["cells"][:, 0]]
    truth = np.array([experiment.classes.index(experiment.scenes[i].class_name) for i in ids])
    found = scores.argmax(1)
    wrong = np.flatnonzero(found != truth)
    worst = wrong[np.argsort(-scores[wrong, found[wrong]], kind="stable")][:SHOWN]
    table = pd.DataFrame(
        {
            "scene": [ids[i] for i in worst],
            "truth": [experiment.classes[truth[i]] for i in worst],
            "prediction": [experiment.classes[found[i]] for i in worst],
            "score": scores[worst, found[worst]],
        }
    )
    pictures = []
    for row in table.itertuples():
        scene = experiment.scenes[row.scene]
        pixels = tile.Raster(scene.images).read(np.array([[0, 0, scene.rows, scene.cols]], np.int64))[0]
        title = f"{row.truth}\n→ {row.prediction} {row.score:.2f}"
        pictures.append(Picture(picture(pixels, *experiment.stretch()), title, photo=True))
    return {"table": table, "wrong": len(wrong), "pictures_tested": len(ids), "pictures": pictures}
