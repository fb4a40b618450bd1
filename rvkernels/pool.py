"""Processes that share the work of one job, and end with it.

They start anew: one that is forked may find locks held.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection
from typing import Any, Callable


def pool(
    workers: int, initializer: Callable[..., None] | None = None, initargs: Sequence[Any] = ()
) -> ProcessPoolExecutor:
    """A pool of `workers` new processes, each of which calls initializer(*initargs) first.

    They end when this process does, however it ends. By themselves they would not when it is killed: each holds both
    ends of the pipe that it reads its work from, and so would wait for ever.
    """
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(initializer, tuple(initargs))
    )


def _start(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    def watch(parent: int) -> None:
        connection.wait([parent])
        os._exit(1)

    sentinel = multiprocessing.parent_process().sentinel
    threading.Thread(target=watch, args=(sentinel,), daemon=True, name="watch").start()
    if initializer is not None:
        initializer(*initargs)
