"""Parts of scenes as figures show them: the image, labels and predictions, by the rules of rvkernels.evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvkernels import labels
from rvkernels.evaluate import detected_in
from rvkernels.figures._pictures import Picture, picture
from rvkernels.metrics import Detected
from rvkernels.ops import tile
from rvkernels.predictions import Predictions, scene_file
from rvkernels.results import Experiment
from rvkernels.scene import Region


def photo(experiment: Experiment, region: Region, title: str) -> Picture:
    """The region's image, stretched as all of the experiment's."""
    pixels = tile.Raster(experiment.scenes[region.scene].images).read(_window(region))
    return Picture(picture(pixels[0], *experiment.stretch()), title, photo=True)


def true_classes(experiment: Experiment, region: Region) -> np.ndarray:
    """Classes of the region's pixels as labelled, (rows, cols) uint8; labels.IGNORE where there is no label."""
    how = experiment.settings["chip"]
    scene, classes = experiment.scenes[region.scene], experiment.description["classes"]
    masks = labels.SceneMasks(scene, classes, background=how["background"], all_touched=how["all_touched"])
    return masks.read(_window(region))[0]


def found_classes(folder: Path, region: Region) -> np.ndarray:
    """Classes of the region's pixels as predicted, (rows, cols) uint8; predictions.UNSEEN where there is none."""
    return tile.Raster(scene_file(folder, region.scene, "") / "labels.tif").read(_window(region))[0, ..., 0]


def boxes(experiment: Experiment, made: Predictions, region: Region) -> Detected:
    """The region's labelled boxes and those that were found with the score that counts, or a higher one."""
    scene, arrays = experiment.scenes[region.scene], made.arrays
    here = arrays["box_scene"] == made.scenes.index(region.scene)
    found = (arrays[name][here] for name in ("boxes", "box_class", "scores"))
    features = labels.load_features(scene, experiment.description["classes"])
    image = detected_in(region, features, labels.aoi(scene), *found, experiment.settings["chip"]["min_area"])
    return image.above(made.settings["score_show"])


def outlines(experiment: Experiment, region: Region, boxes: np.ndarray, classes: np.ndarray) -> tuple:
    """Boxes of a picture of the region, cut at its edges, in the colours of their classes."""
    cut = np.clip(boxes, 0, (region.rows, region.cols, region.rows, region.cols))
    return tuple(zip(cut, experiment.colors[classes] / 255))


def _window(region: Region) -> np.ndarray:
    return np.array([[region.row, region.col, region.rows, region.cols]], np.int64)
