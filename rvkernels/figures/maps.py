"""Predictions beside the truth on test scenes, with an error map."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels import labels, metrics
from rvkernels.figures import WIDTH, Panel, Selection, Tables, pages
from rvkernels.figures._pictures import Picture, abreast, classes_picture, draw_mosaic, label_classes, mosaic_height
from rvkernels.figures._scenes import boxes, found_classes, outlines, photo, true_classes
from rvkernels.predictions import UNSEEN, Predictions
from rvkernels.results import Experiment, Results
from rvkernels.scene import Region

SCENES = {"classification": 3, "segmentation": 3, "detection": 2}  # that are shown
SIDE = {"classification": 640, "segmentation": 512, "detection": 320}  # pixels of a scene that are shown, at most
COLUMNS = {"classification": 6, "segmentation": 6, "detection": 4}  # pictures beside each other, at least
MOST = 6  # predictions beside each other in one figure
RIGHT, WRONG = (221, 235, 221), (200, 40, 40)


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        runs = results.runs_of(name).drop_duplicates(["model", "framework"])
        folders = {(row.model, row.framework): results.run_folder(row) / "predictions" for row in runs.itertuples()}
        made = {key: Predictions.read(folder) for key, folder in folders.items()}
        if experiment.task == "classification" and of_pictures(experiment):
            continue  # failures.py shows these
        show = {"classification": _cells, "segmentation": _land, "detection": _boxes}[experiment.task]
        blocks, table = show(experiment, _choice(experiment, next(iter(made.values()))), made, folders)
        models = list(dict.fromkeys(model for model, _ in made))
        together = [models] if len(made) <= MOST else [[model] for model in models]
        for shown in together:
            alone = len(together) > 1
            tables = {
                "table": table[table.model.isin(shown)],
                "blocks": [[b.scene, *(p for (m, _), p in b.made.items() if m in shown)] for b in blocks],
                "task": experiment.task,
                "classes": (experiment.classes, experiment.colors),
            }
            panel = Panel(tables, functools.partial(_height, tables["blocks"], experiment.task))
            title = "Predictions beside the truth" + (f": {shown[0]}" if alone else "")
            file = f"maps_{shown[0]}_{name}" if alone else f"maps_{name}"
            views = [[one for column in block for one in column] for block in tables["blocks"]]
            yield Selection(file, name, title, tables, [panel], framed=False, views=views, classes=tables["classes"])


def caption(tables: Tables) -> str:
    errors = (
        " With each prediction its errors, in red."
        if tables["task"] != "detection"
        else " Boxes in the colour of their class, only those above the score shown in precision and recall."
    )
    scenes, side = list(dict.fromkeys(tables["table"].scene)), SIDE[tables["task"]]
    return (
        f"Test scene{'' if len(scenes) == 1 else 's'} {', '.join(scenes)}, at most {side} x {side} pixels around the "
        f"middle, first seed.{errors} {_agreement(tables)}"
    )


def alt(tables: Tables) -> str:
    return f"Test scenes with truth and predictions side by side. {_agreement(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    draw_mosaic(ax, *_arranged(tables["blocks"], tables["task"], ax.figure.get_figwidth()))
    label_classes(ax, *tables["classes"])


def _arranged(blocks: list[list[list[Picture]]], task: str, width: float) -> tuple[list[list[Picture]], int]:
    """Scenes side by side as far as there is room, each with its predictions beside it, in lines when there is none."""
    wide = len(blocks[0])
    most = MOST + 1 if width >= WIDTH else 4
    room = max(abreast(width, COLUMNS[task]), -(-wide // -(-wide // most)))
    together = max(1, room // wide)
    rows = []
    for line in pages(blocks, together):
        columns = [column for block in line for column in block]
        for some in pages(columns, room):
            rows += [[column[i] for column in some] for i in range(len(some[0]))]
    return rows, min(room, wide * min(together, len(blocks)))


def _height(blocks: list[list[list[Picture]]], task: str, width: float) -> float:
    return mosaic_height(*_arranged(blocks, task, width), width)


def _agreement(tables: Tables) -> str:
    table = tables["table"].dropna(subset=["agreement"])
    if table.empty:
        return "Nothing is labelled in the parts shown."
    best, worst = table.loc[table.agreement.idxmax()], table.loc[table.agreement.idxmin()]
    what = {"classification": "cells", "segmentation": "pixels", "detection": "boxes"}[tables["task"]]
    ends = [f"{row.agreement:.0%} ({row.model} in {row.framework}, {row.scene})" for row in (worst, best)]
    return f"Agreement with the truth in the parts shown: {' to '.join(dict.fromkeys(ends))} of the {what}."


def of_pictures(experiment: Experiment) -> bool:
    """Whether every scene is one picture of one class, as in EuroSAT."""
    return all(s.class_name is not None for s in experiment.scenes.values())


def _choice(experiment: Experiment, made: Predictions) -> list[Region]:
    """Up to SCENES predicted regions, evenly spaced over the test scenes, cut to SIDE around their middle."""
    count, side = SCENES[experiment.task], SIDE[experiment.task]
    regions = [r for scene in made.scenes for r in made.scene_regions(scene)[:1]]
    chosen = [
        regions[i] for i in np.unique(np.linspace(0, len(regions) - 1, min(count, len(regions))).round().astype(int))
    ]
    cut = []
    for r in chosen:
        rows, cols = min(r.rows, side), min(r.cols, side)
        cut.append(Region(r.scene, r.row + (r.rows - rows) // 2, r.col + (r.cols - cols) // 2, rows, cols, r.split))
    return cut


@dataclass(frozen=True)
class Block:
    """One scene: columns of panels, first the scene itself, then one per model and framework."""

    scene: list[Picture]
    made: dict[tuple[str, str], list[Picture]]


def _land(
    experiment: Experiment,
    regions: list[Region],
    made: dict[tuple[str, str], Predictions],
    folders: dict[tuple[str, str], Path],
) -> tuple[list[Block], pd.DataFrame]:
    blocks, rows = [], []
    for region in regions:
        truth, made_here = true_classes(experiment, region), {}
        for key, folder in folders.items():
            found = found_classes(folder, region)
            known = (truth != labels.IGNORE) & (found != UNSEEN)
            wrong = np.where(known, found != truth, labels.IGNORE)
            agreement = _share((found == truth)[known])
            made_here[key] = _found(experiment, key, found, wrong, agreement)
            rows.append({"scene": region.scene, "model": key[0], "framework": key[1], "agreement": agreement})
        blocks.append(Block(_scene(experiment, region, truth), made_here))
    return blocks, pd.DataFrame(rows)


def _share(right: np.ndarray) -> float:
    """NaN where there is nothing to be right about."""
    return float(right.mean()) if right.size else float("nan")


def _scene(experiment: Experiment, region: Region, truth: np.ndarray) -> list[Picture]:
    return [
        photo(experiment, region, region.scene),
        Picture(classes_picture(truth, experiment.colors), "truth"),
    ]


def _found(
    experiment: Experiment, key: tuple[str, str], found: np.ndarray, wrong: np.ndarray, agreement: float
) -> list[Picture]:
    """The prediction, and its errors below: `wrong` is 1, right 0, no label labels.IGNORE."""
    share = "no label" if np.isnan(agreement) else f"{1 - agreement:.1%} wrong"
    return [
        Picture(classes_picture(found, experiment.colors), "\n".join(key)),
        Picture(classes_picture(wrong.astype(np.uint8), np.array([RIGHT, WRONG], np.uint8)), share),
    ]


def _cells(
    experiment: Experiment,
    regions: list[Region],
    made: dict[tuple[str, str], Predictions],
    folders: dict[tuple[str, str], Path],
) -> tuple[list[Block], pd.DataFrame]:
    how, classes = experiment.settings["chip"], experiment.description["classes"]
    blocks, rows = [], []
    for region in regions:
        scene = experiment.scenes[region.scene]
        features, area = labels.load_features(scene, classes), labels.aoi(scene)
        block, truths = None, {}
        for key, predictions in made.items():
            cells = predictions.arrays["cells"]
            here = cells[:, 0] == predictions.scenes.index(region.scene)
            windows = cells[here, 1:]
            inside = (
                (windows[:, :2] >= (region.row, region.col)).all(1)
                & (windows[:, :2] + windows[:, 2:] <= (region.row + region.rows, region.col + region.cols)).all(1)
            )  # fmt: skip
            windows = windows[inside]
            found = predictions.arrays["scores"][here][inside].argmax(1)
            same = windows.tobytes()  # every model has the same cells as a rule
            if same not in truths:
                truth = labels.cells(
                    scene, windows, classes,
                    features=features, min_share=how["min_cover"], background=how["background"],
                )  # fmt: skip
                truths[same] = np.where(labels.in_aoi(windows, area), truth, -1)
            truth = truths[same]
            known = truth >= 0
            if block is None:
                block = Block(_scene(experiment, region, _paint(region, windows, truth)), {})
            wrong = _paint(region, windows, np.where(known, found != truth, -1))
            agreement = _share((found == truth)[known])
            block.made[key] = _found(experiment, key, _paint(region, windows, found), wrong, agreement)
            rows.append({"scene": region.scene, "model": key[0], "framework": key[1], "agreement": agreement})
        blocks.append(block)
    return blocks, pd.DataFrame(rows)


def _paint(region: Region, windows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Cells as a picture of class ids; labels.IGNORE where there is none."""
    canvas = np.full((region.rows, region.cols), labels.IGNORE, np.uint8)
    for (row, col, rows, cols), c in zip(windows - (region.row, region.col, 0, 0), ids):
        canvas[row : row + rows, col : col + cols] = c if c >= 0 else labels.IGNORE
    return canvas


def _boxes(
    experiment: Experiment,
    regions: list[Region],
    made: dict[tuple[str, str], Predictions],
    folders: dict[tuple[str, str], Path],
) -> tuple[list[Block], pd.DataFrame]:
    blocks, rows = [], []
    for region in regions:
        image, made_here = photo(experiment, region, ""), {}
        for key, predictions in made.items():
            here = boxes(experiment, predictions, region)
            wanted, right = here.truth[~here.ignored], metrics.match(here) >= 0
            marked = outlines(experiment, region, here.boxes, here.box_class)
            made_here[key] = [dataclasses.replace(image, title="\n".join(key), boxes=marked)]
            agreement = right.sum() / len(wanted) if len(wanted) else float("nan")
            counts = {"truth": len(wanted), "found": len(here.boxes), "agreement": agreement}
            rows.append({"scene": region.scene, "model": key[0], "framework": key[1], **counts})
        marked = outlines(experiment, region, wanted, here.truth_class[~here.ignored])
        scene = dataclasses.replace(image, title=f"{region.scene}, truth", boxes=marked)
        blocks.append(Block([scene], made_here))
    return blocks, pd.DataFrame(rows)
