"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rvkernels.batches import Batch
from rvkernels.chips import IGNORE
from rvkernels.frameworks import Framework
from rvkernels.metrics import matrix_summary
from rvkernels.models import Graph
from rvkernels.ops.confusion import confusion
from rvkernels.tasks.classification import probabilities

__all__ = ["LOSS", "METRICS", "PRIMARY", "probabilities", "targets", "validate"]

PRIMARY = "miou"
METRICS = ("miou", "pixel_accuracy")
LOSS = {"name": "cross_entropy"}


def targets(graph: Graph, batch: Batch) -> tuple[np.ndarray]:
    """Class ids, (n, rows, cols) int32; 255 = ignore."""
    return (batch.labels.astype(np.int32),)


def validate(framework: Framework, graph: Graph, stream: Iterable[Batch]) -> dict[str, float]:
    """miou (mean over classes that occur in truth or prediction) and pixel_accuracy over all labelled pixels.

    Ties between classes go to the lowest id.
    """
    matrix = np.zeros((graph.classes, graph.classes), np.int64)
    for batch in stream:
        predicted = framework.predict(batch.images).argmax(axis=-1).astype(np.uint8)
        matrix += confusion(batch.labels, predicted, graph.classes, ignore=IGNORE)
    summary = matrix_summary(matrix)
    return {"miou": summary["miou"], "pixel_accuracy": summary["accuracy"]}
