"""Predictions beside the truth on test scenes, with an error map."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels import labels
from rvkernels.figures import WIDTH, Panel, Selection, Tables, pages
from rvkernels.figures._pictures import (
    Picture,
    abreast,
    classes_picture,
    draw_mosaic,
    label_classes,
    mosaic_height,
    picture,
)
from rvkernels.ops import tile
from rvkernels.ops.iou import iou
from rvkernels.predictions import Predictions, scene_file
from rvkernels.results import Experiment, Results
from rvkernels.scene import Region

SCENES = {"classification": 3, "segmentation": 3, "detection": 2}  # that are shown
SIDE = {"classification": 640, "segmentation": 512, "detection": 320}  # pixels of a scene that are shown, at most
COLUMNS = {"classification": 6, "segmentation": 6, "detection": 4}  # pictures beside each other, at least
MOST = 6  # predictions beside each other in one figure
UNLABELLED = 255
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
            file = f"maps_{name}" + (f"_{shown[0]}" if alone else "")
            views = [[one for column in block for one in column] for block in tables["blocks"]]
            yield Selection(file, name, title, tables, [panel], framed=False, views=views, classes=tables["classes"])


def caption(tables: Tables) -> str:
    errors = (
        " With each prediction its errors, in red."
        if tables["task"] != "detection"
        else " Boxes in the colour of their class, only those above the score shown in precision and recall."
    )
    scenes = ", ".join(dict.fromkeys(tables["table"].scene))
    return (
        f"Test scenes {scenes}, the middle {SIDE[tables['task']]} pixels of each, first seed.{errors} "
        f"{_agreement(tables)}"
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
    table = tables["table"]
    best, worst = table.loc[table.agreement.idxmax()], table.loc[table.agreement.idxmin()]
    what = {"classification": "cells", "segmentation": "pixels", "detection": "boxes"}[tables["task"]]
    return (
        f"Agreement with the truth in the parts shown: {worst.agreement:.0%} ({worst.model} in {worst.framework}, "
        f"{worst.scene}) to {best.agreement:.0%} ({best.model} in {best.framework}, {best.scene}) of the {what}."
    )


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


def _window(region: Region) -> np.ndarray:
    return np.array([[region.row, region.col, region.rows, region.cols]], np.int64)


def _image(experiment: Experiment, region: Region) -> np.ndarray:
    pixels = tile.Raster(experiment.scenes[region.scene].images).read(_window(region))
    return picture(pixels[0], *experiment.stretch())


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
    how = experiment.settings["chip"]
    blocks, rows = [], []
    for region in regions:
        scene = experiment.scenes[region.scene]
        truth = labels.masks(
            scene, _window(region), experiment.description["classes"],
            background=how["background"], all_touched=how["all_touched"],
        )[0]  # fmt: skip
        known = truth != UNLABELLED
        block = Block(_scene(experiment, region, truth), {})
        for key, folder in folders.items():
            found = tile.Raster(scene_file(folder, region.scene, "") / "labels.tif").read(_window(region))[0, ..., 0]
            right = known & (found == truth)
            agreement = right.sum() / max(1, known.sum())
            block.made[key] = _found(experiment, key, found, np.where(known, ~right, UNLABELLED), agreement)
            rows.append({"scene": region.scene, "model": key[0], "framework": key[1], "agreement": agreement})
        blocks.append(block)
    return blocks, pd.DataFrame(rows)


def _scene(experiment: Experiment, region: Region, truth: np.ndarray) -> list[Picture]:
    return [
        Picture(_image(experiment, region), region.scene, photo=True),
        Picture(classes_picture(truth, experiment.colors), "truth"),
    ]


def _found(
    experiment: Experiment, key: tuple[str, str], found: np.ndarray, wrong: np.ndarray, agreement: float
) -> list[Picture]:
    """The prediction, and its errors below: `wrong` is 1, right 0, no label 255."""
    return [
        Picture(classes_picture(found, experiment.colors), "\n".join(key)),
        Picture(
            classes_picture(wrong.astype(np.uint8), np.array([RIGHT, WRONG], np.uint8)), f"{1 - agreement:.1%} wrong"
        ),
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
            wrong = _paint(region, windows, np.where(~known, UNLABELLED, found != truth))
            agreement = (found == truth)[known].mean() if known.any() else float("nan")
            block.made[key] = _found(experiment, key, _paint(region, windows, found), wrong, agreement)
            rows.append({"scene": region.scene, "model": key[0], "framework": key[1], "agreement": agreement})
        blocks.append(block)
    return blocks, pd.DataFrame(rows)


def _paint(region: Region, windows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Cells as a picture of class ids; 255 where there is none."""
    canvas = np.full((region.rows, region.cols), UNLABELLED, np.uint8)
    for (row, col, rows, cols), c in zip(windows - (region.row, region.col, 0, 0), ids):
        canvas[row : row + rows, col : col + cols] = c if c >= 0 else UNLABELLED
    return canvas


def _boxes(
    experiment: Experiment,
    regions: list[Region],
    made: dict[tuple[str, str], Predictions],
    folders: dict[tuple[str, str], Path],
) -> tuple[list[Block], pd.DataFrame]:
    colors = experiment.colors / 255
    blocks, rows = [], []
    for region in regions:
        scene = experiment.scenes[region.scene]
        features = labels.load_features(scene, experiment.description["classes"])
        window = (region.row, region.col, region.rows, region.cols)
        boxes, index = labels.boxes_in(features.boxes, window, min_share=0.5)
        image = _image(experiment, region)
        marked = tuple((b, colors[c]) for b, c in zip(boxes, features.class_ids[index]))
        block = Block([Picture(image, f"{region.scene}, truth", marked, photo=True)], {})
        for key, predictions in made.items():
            a = predictions.arrays
            shown = (a["box_scene"] == predictions.scenes.index(region.scene)) & (
                a["scores"] >= predictions.settings["score_show"]
            )
            found, kept = labels.boxes_in(a["boxes"][shown], window, min_share=0.5)
            classes = a["box_class"][shown][kept]
            marked = tuple((b, colors[c]) for b, c in zip(found, classes))
            block.made[key] = [Picture(image, "\n".join(key), marked, photo=True)]
            agreement = _matched(boxes, features.class_ids[index], found, classes)
            counts = {"truth": len(boxes), "found": len(found), "agreement": agreement}
            rows.append({"scene": region.scene, "model": key[0], "framework": key[1], **counts})
        blocks.append(block)
    return blocks, pd.DataFrame(rows)


def _matched(truth: np.ndarray, truth_class: np.ndarray, found: np.ndarray, found_class: np.ndarray) -> float:
    """Share of true boxes that a found box of their class overlaps with IoU 0.5 or more."""
    if not len(truth):
        return float("nan")
    if not len(found):
        return 0.0
    overlap = iou(truth, found) * (truth_class[:, None] == found_class)
    return float((overlap.max(axis=1) >= 0.5).mean())
