"""Predictions beside the truth on test scenes, with an error map; for single pictures, the worst mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from rvkernels import labels
from rvkernels.figures import WIDTH, Figure, classes_picture, legend_patches, picture
from rvkernels.ops import tile
from rvkernels.ops.iou import iou
from rvkernels.predictions import Predictions, scene_file
from rvkernels.results import Experiment, Results
from rvkernels.scene import Region

SCENES = {"classification": 3, "segmentation": 3, "detection": 2}  # that are shown
SIDE = {"classification": 640, "segmentation": 512, "detection": 320}  # pixels of a scene that are shown, at most
MISTAKES = 18
UNLABELLED = 255
RIGHT, WRONG, UNKNOWN = (221, 235, 221), (200, 40, 40), (255, 255, 255)


def figures(results: Results) -> Iterator[Figure]:
    for name, experiment in results.experiments.items():
        runs = results.runs_of(name)
        folders = {
            f"{row.model} · {row.framework}": results.run_folder(row) / "predictions"
            for _, row in runs.drop_duplicates(["model", "framework"]).iterrows()
        }
        made = {key: Predictions.read(folder) for key, folder in folders.items()}
        if experiment.task == "classification" and _of_pictures(experiment):
            yield from _mistakes(name, experiment, made)
            continue
        regions = _choice(experiment, next(iter(made.values())))
        draw = {"classification": _cells, "segmentation": _land, "detection": _boxes}[experiment.task]
        panels, table = draw(experiment, regions, made, folders)
        scenes = ", ".join(dict.fromkeys(r.scene for r in regions))
        best = table.loc[table.agreement.idxmax()]
        worst = table.loc[table.agreement.idxmin()]
        what = {"classification": "cells", "segmentation": "pixels", "detection": "boxes"}[experiment.task]
        text = (
            f"Agreement with the truth in the parts shown: {worst.agreement:.0%} ({worst.model}, {worst.scene}) to "
            f"{best.agreement:.0%} ({best.model}, {best.scene}) of the {what}."
        )
        errors = (
            " Errors are red in the last column of each model."
            if experiment.task != "detection"
            else (" Boxes in the colour of their class, only those above the score shown in precision and recall.")
        )
        yield Figure(
            name=f"maps_{name}",
            section=name,
            title="Predictions beside the truth",
            caption=(
                f"Test scenes {scenes}, the middle {SIDE[experiment.task]} pixels of each, first seed.{errors} {text}"
            ),
            alt=f"Test scenes with truth and predictions side by side. {text}",
            draw=lambda p=panels, e=experiment: _draw(p, e),
            table=table,
        )


def _of_pictures(experiment: Experiment) -> bool:
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


# A panel: (title, picture, boxes as (box, color) pairs).
Panel = tuple


def _land(
    experiment: Experiment, regions: list[Region], made: dict[str, Predictions], folders: dict[str, Path]
) -> tuple[list[list[Panel]], pd.DataFrame]:
    how = experiment.settings["chip"]
    panels, rows = [], []
    for region in regions:
        scene = experiment.scenes[region.scene]
        truth = labels.masks(
            scene, _window(region), experiment.description["classes"],
            background=how["background"], all_touched=how["all_touched"],
        )[0]  # fmt: skip
        line: list[Panel] = [
            (region.scene, _image(experiment, region), []),
            ("truth", classes_picture(truth, experiment.colors), []),
        ]
        for key, folder in folders.items():
            found = tile.Raster(scene_file(folder, region.scene, "") / "labels.tif").read(_window(region))[0, ..., 0]
            known = truth != UNLABELLED
            right = known & (found == truth)
            error = np.select([~known[..., None], right[..., None]], [UNKNOWN, RIGHT], WRONG).astype(np.uint8)
            line += [(key, classes_picture(found, experiment.colors), []), ("errors", error, [])]
            rows.append({"scene": region.scene, "model": key, "agreement": right.sum() / max(1, known.sum())})
        panels.append(line)
    return panels, pd.DataFrame(rows)


def _cells(
    experiment: Experiment, regions: list[Region], made: dict[str, Predictions], folders: dict[str, Path]
) -> tuple[list[list[Panel]], pd.DataFrame]:
    how = experiment.settings["chip"]
    panels, rows = [], []
    for region in regions:
        scene = experiment.scenes[region.scene]
        line: list[Panel] = [(region.scene, _image(experiment, region), [])]
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
            truth = labels.cells(
                scene, windows, experiment.description["classes"],
                min_share=how["min_cover"], background=how["background"],
            )  # fmt: skip
            truth = np.where(labels.within(windows, labels.aoi(scene)), truth, -1)
            maps = [_paint(region, windows, ids) for ids in (truth, found)]
            known = truth >= 0
            error = _paint(region, windows, np.where(~known, UNLABELLED, np.where(found == truth, 0, 1)))
            if len(line) == 1:
                line.append(("truth", classes_picture(maps[0], experiment.colors), []))
            colors = np.array([RIGHT, WRONG], np.uint8)
            line += [
                (key, classes_picture(maps[1], experiment.colors), []),
                ("errors", classes_picture(error, colors), []),
            ]
            agreement = (found == truth)[known].mean() if known.any() else float("nan")
            rows.append({"scene": region.scene, "model": key, "agreement": agreement})
        panels.append(line)
    return panels, pd.DataFrame(rows)


def _paint(region: Region, windows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Cells as a picture of class ids; 255 where there is none."""
    canvas = np.full((region.rows, region.cols), UNLABELLED, np.uint8)
    for (row, col, rows, cols), c in zip(windows - (region.row, region.col, 0, 0), ids):
        canvas[row : row + rows, col : col + cols] = c if c >= 0 else UNLABELLED
    return canvas


def _boxes(
    experiment: Experiment, regions: list[Region], made: dict[str, Predictions], folders: dict[str, Path]
) -> tuple[list[list[Panel]], pd.DataFrame]:
    colors = experiment.colors / 255
    panels, rows = [], []
    for region in regions:
        scene = experiment.scenes[region.scene]
        features = labels.load_features(scene, experiment.description["classes"])
        window = (region.row, region.col, region.rows, region.cols)
        boxes, index = labels.boxes_in(features.boxes, window, min_share=0.5)
        image = _image(experiment, region)
        line: list[Panel] = [
            (f"{region.scene}, truth", image, [(b, colors[c]) for b, c in zip(boxes, features.class_ids[index])])
        ]
        for key, predictions in made.items():
            a = predictions.arrays
            shown = (a["box_scene"] == predictions.scenes.index(region.scene)) & (
                a["scores"] >= predictions.settings["score_show"]
            )
            found, kept = labels.boxes_in(a["boxes"][shown], window, min_share=0.5)
            classes = a["box_class"][shown][kept]
            line.append((key, image, [(b, colors[c]) for b, c in zip(found, classes)]))
            rows.append(
                {
                    "scene": region.scene,
                    "model": key,
                    "truth": len(boxes),
                    "found": len(found),
                    "agreement": _matched(boxes, features.class_ids[index], found, classes),
                }
            )
        panels.append(line)
    return panels, pd.DataFrame(rows)


def _matched(truth: np.ndarray, truth_class: np.ndarray, found: np.ndarray, found_class: np.ndarray) -> float:
    """Share of true boxes that a found box of their class overlaps with IoU 0.5 or more."""
    if not len(truth):
        return float("nan")
    if not len(found):
        return 0.0
    overlap = iou(truth, found) * (truth_class[:, None] == found_class)
    return float((overlap.max(axis=1) >= 0.5).mean())


def _mistakes(name: str, experiment: Experiment, made: dict[str, Predictions]) -> Iterator[Figure]:
    """The wrong pictures with the highest scores, of the first model."""
    key, predictions = next(iter(made.items()))
    scores = predictions.arrays["scores"]
    ids = [predictions.scenes[i] for i in predictions.arrays["cells"][:, 0]]
    truth = np.array([experiment.classes.index(experiment.scenes[i].class_name) for i in ids])
    found = scores.argmax(1)
    wrong = np.flatnonzero(found != truth)
    worst = wrong[np.argsort(-scores[wrong, found[wrong]], kind="stable")][:MISTAKES]
    table = pd.DataFrame(
        {
            "scene": [ids[i] for i in worst],
            "truth": [experiment.classes[truth[i]] for i in worst],
            "prediction": [experiment.classes[found[i]] for i in worst],
            "score": scores[worst, found[worst]],
        }
    )
    text = f"{len(wrong)} of {len(ids)} test pictures are wrong."
    if not len(worst):
        return

    def draw() -> plt.Figure:
        columns = 6
        lines = -(-len(worst) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(WIDTH, lines * (WIDTH / columns + 0.35)), squeeze=False)
        for ax in axes.ravel():
            ax.set_axis_off()
        for ax, row in zip(axes.ravel(), table.itertuples()):
            scene = experiment.scenes[row.scene]
            pixels = tile.Raster(scene.images).read(np.array([[0, 0, scene.rows, scene.cols]], np.int64))[0]
            ax.imshow(picture(pixels, *experiment.stretch()), interpolation="nearest")
            ax.set_title(f"{row.truth}\n→ {row.prediction} {row.score:.2f}", fontsize=6.5, fontweight="normal", pad=2)
        return figure

    yield Figure(
        name=f"mistakes_{name}",
        section=name,
        title="The worst mistakes",
        caption=(
            f"Test pictures that {key} gets wrong with the highest score: truth, then prediction and score. {text}"
        ),
        alt=f"Wrongly classified test pictures. {text}",
        draw=draw,
        table=table,
    )


def _draw(panels: list[list[Panel]], experiment: Experiment) -> plt.Figure:
    columns = len(panels[0])
    side = WIDTH / columns
    figure, axes = plt.subplots(
        len(panels), columns, figsize=(WIDTH, len(panels) * side + 0.28 * len(panels) + 0.35), squeeze=False
    )
    for ax in axes.ravel():
        ax.set_axis_off()
    for line, row in zip(panels, axes):
        for (title, image, boxes), ax in zip(line, row):
            ax.imshow(image, interpolation="nearest" if len(boxes) == 0 else "antialiased")
            ax.set_title(title, fontsize=7.5, fontweight="normal", pad=3)
            for (y0, x0, y1, x1), color in boxes:
                ax.add_patch(
                    Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=0.8)
                )
    figure.legend(
        handles=legend_patches(experiment.classes, experiment.colors),
        loc="outside lower center",
        ncols=min(7, len(experiment.classes)),
    )
    return figure
