"""How frameworks are timed, the same in every stage: warm-up apart, the device waited for, their order balanced."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rvkernels.frameworks import Framework

# The first steps after a start fill caches, allocate memory and compile; no mean has them.
WARMUP_STEPS = 5
# Calls of `predict` that are timed: at least and at most so many, and no further one after so many seconds.
LATENCY_CALLS = (3, 20)
LATENCY_SECONDS = 0.5
# The same of the pairs that tell the passes and the update of a step apart.
PAIRS = (5, 20)
PAIRS_SECONDS = 3.0


class Step(NamedTuple):
    """One training step: its loss, and the wall and process CPU seconds it took.

    CPU seconds are those of all threads of the process, so that they hold what prepares batches beside the step.
    """

    loss: float
    seconds: float
    cpu_seconds: float


def timed_step(net: Framework, images: np.ndarray, targets: tuple[np.ndarray, ...], rate: float) -> Step:
    """net.step, until the device has finished."""
    began, cpu_began = time.perf_counter(), time.process_time()
    loss = float(net.step(images, targets, rate))
    net.wait()
    return Step(loss, time.perf_counter() - began, time.process_time() - cpu_began)


def timed_calls(net: Framework, images: np.ndarray) -> list[float]:
    """Seconds of single calls net.predict(images), after two that warm up: a new size of batch may compile."""
    least, most = LATENCY_CALLS
    seconds: list[float] = []
    for _ in range(2):
        net.predict(images)
    net.wait()
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < LATENCY_SECONDS):
        began = time.perf_counter()
        net.predict(images)
        net.wait()
        seconds.append(time.perf_counter() - began)
    return seconds


def timed_passes(
    net: Framework, images: np.ndarray, targets: tuple[np.ndarray, ...]
) -> tuple[list[float], list[float]]:
    """Seconds of the forward and backward pass alone, and of whole steps on the same batch, in turns.

    After two of each that warm up. What a step takes more is the update. The learning rate is 0: no weight moves.
    """
    least, most = PAIRS
    passes: list[float] = []
    steps: list[float] = []
    for number in range(2 + most):
        net.wait()
        began = time.perf_counter()
        net.differentiate(images, targets)
        net.wait()
        between = time.perf_counter()
        whole = timed_step(net, images, targets, 0.0).seconds
        if number >= 2:
            passes.append(between - began)
            steps.append(whole)
        if len(passes) >= least and sum(passes) + sum(steps) > PAIRS_SECONDS:
            break
    return passes, steps


def steady(since_start: Sequence[int]) -> tuple[np.ndarray, int]:
    """Which steps count, bool (steps,), and how many after each start do not.

    since_start  number of each step since the process that made it started, from 0

    The first WARMUP_STEPS after every start are left out; where nothing remains so, the first one only, and of runs of
    one step none.
    """
    number = np.asarray(since_start)
    warmup = next(w for w in (WARMUP_STEPS, 1, 0) if w == 0 or (number >= w).any())
    return number >= warmup, warmup


def turned(names: Sequence[str], block: int) -> list[str]:
    """`names` in the order in which block number `block` takes them, so that a machine's drift favours none.

    Rotated by one from block to block, and reversed in every other cycle of len(names) blocks: over two cycles every
    name stands in every place equally often, and follows as often as it precedes (after Williams, 1949).
    """
    cycle, first = divmod(block, len(names))
    order = [*names[first:], *names[:first]]
    return order[::-1] if cycle % 2 else order
