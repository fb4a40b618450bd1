"""Chip classification: one class per chip."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rvkernels.batches import Batch
from rvkernels.frameworks import Framework
from rvkernels.metrics import matrix_summary, score_matrix
from rvkernels.models import Graph

PRIMARY = "accuracy"
METRICS = ("accuracy", "macro_f1")
LOSS = {"name": "cross_entropy"}


def targets(graph: Graph, batch: Batch) -> tuple[np.ndarray]:
    """Class ids, (n,) int32; of mixed chips shares of classes, (n, classes) float32."""
    if batch.shares is None:
        return (batch.labels.astype(np.int32, copy=False),)
    found = np.zeros((len(batch.labels), graph.classes), np.float32)
    each = np.arange(len(found))
    found[each, batch.labels] = batch.shares
    found[each, batch.others] += 1 - batch.shares
    return (found,)


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Softmax over the last axis of logits (..., classes): float32 of the same shape."""
    # Classes first, so that NumPy runs over many pixels at a time and not over a handful of classes.
    scores = np.ascontiguousarray(outputs.reshape(-1, outputs.shape[-1]).T)
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return np.ascontiguousarray(scores.T).reshape(outputs.shape)


def validate(framework: Framework, graph: Graph, stream: Iterable[Batch]) -> dict[str, float]:
    """accuracy and macro_f1 (mean over classes that occur in truth or prediction) over all batches of `stream`."""
    matrix = np.zeros((graph.classes, graph.classes), np.int64)
    for batch in stream:
        matrix += score_matrix(probabilities(framework.predict(batch.images)), batch.labels)
    summary = matrix_summary(matrix)
    return {"accuracy": summary["accuracy"], "macro_f1": summary["macro_f1"]}
