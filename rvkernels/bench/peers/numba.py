"""numba: loops that a user writes, compiled."""

import os

import numba
import numpy as np


@numba.njit(nogil=True)
def _count(truth, predicted, classes, tables):
    """Four tables in turn, so that one counter need not wait for its last change."""
    spare = classes * classes
    for i in range(0, truth.size - 3, 4):
        for k in range(4):
            t = truth[i + k]
            cell = np.int64(t) * classes + predicted[i + k] if t < classes else spare
            tables[k, cell] += 1
    for i in range(truth.size // 4 * 4, truth.size):
        t = truth[i]
        tables[0, np.int64(t) * classes + predicted[i] if t < classes else spare] += 1


@numba.njit(parallel=True)
def _count_parts(truth, predicted, classes, tables):
    parts = tables.shape[0]
    for part in numba.prange(parts):
        begin, end = truth.size * part // parts, truth.size * (part + 1) // parts
        _count(truth[begin:end], predicted[begin:end], classes, tables[part])


def confusion(inputs, threads):
    truth, predicted, classes = inputs["truth"], inputs["predicted"], inputs["classes"]
    workers = threads or os.cpu_count()
    numba.set_num_threads(workers)

    def run():
        tables = np.zeros((workers, 4, classes * classes + 1), np.int64)
        _count_parts(truth, predicted, classes, tables)
        return tables.sum((0, 1))[:-1].reshape(classes, classes)

    return run
