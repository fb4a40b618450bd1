"""The terminal's view of a running study."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rvkernels.live import STATES, Running, Stage, State, Training, Watcher
from rvkernels.live_words import NUMBERS, duration, heads, in_order, machine, progress, row

BLOCKS = "▁▂▃▄▅▆▇█"
STYLES = {"running": "bold cyan", "stopped": "red", "done": "green", "complete": "green", "waiting": "dim"}
CURVE = 16  # last epochs that are drawn
LINES = 12  # of what is not a table of trainings, at most


def watch(where: str | Path, *, once: bool = False, every: float = 2.0, console: Console | None = None) -> None:
    """Show the study in the terminal until Ctrl-C or SIGTERM; one state, once, or where standard output is no terminal.

    where   results/STUDY, or the study's file
    every   seconds between two looks
    """
    watcher, console = Watcher(where), console or Console()
    if not console.is_terminal:
        console.width, once = max(console.width, 160), True
    if once:
        console.print(render(watcher.look(), console.width))
        return
    state = watcher.look()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, with the terminal as it was
    try:
        # On a screen of its own, that the terminal takes back at the end; what is left is the last state.
        with Live(
            render(state, console.width, console.height), console=console, screen=True, auto_refresh=False
        ) as live:
            while True:
                time.sleep(every)
                state = watcher.look()
                live.update(render(state, console.width, console.height), refresh=True)
    except KeyboardInterrupt:
        console.print(render(state, console.width))


def render(state: State, width: int, lines: int | None = None) -> RenderableType:
    """The state as tables of `width` columns and, unless None, at most about `lines` lines."""
    parts: list[RenderableType] = [_head(state), "", _stages(state)]
    jobs = [*(("running", job) for job in state.running), *(("failed", job) for job in state.failed)]
    if jobs:
        parts += ["", _jobs(jobs)]
    room = None if lines is None else max(3, lines - LINES - len(state.stages) // 2 - len(jobs))
    return Group(*parts, "", _trainings(state.trainings, width, room), "", Text(machine(state), style="dim"))


def spark(values: Iterable[float | None]) -> str:
    """A curve in one line of text, from its lowest to its highest value."""
    known = [v for v in values if v is not None][-CURVE:]
    if len(known) < 2:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((v - low) / span * len(BLOCKS)))] for v in known)


def _head(state: State) -> Text:
    head = Text(state.study, style="bold")
    if state.title:
        head.append(f" · {state.title}", style="not bold")
    head.append("   ")
    head.append(state.state, style=STYLES.get(state.state, "bold"))
    head.append(f" {progress(state)}", style="not bold")
    head.append(f"   {state.folder}", style="dim")
    return head


def _stages(state: State) -> Table:
    """Stages in two columns."""
    grid = Table.grid(padding=(0, 3))
    half = (len(state.stages) + 1) // 2
    for one, other in itertools.zip_longest(state.stages[:half], state.stages[half:]):
        grid.add_row(*_stage(one), *(_stage(other) if other else ()))
    return grid


def _stage(stage: Stage) -> list[Text]:
    width = 12
    done = stage.done * width // stage.total
    running = min(width - done, -(-stage.running * width // stage.total))
    bar = Text("━" * done, style="green")
    bar.append("━" * running, style="cyan").append("━" * (width - done - running), style="bright_black")
    style = "green" if stage.done == stage.total else "bold cyan" if stage.running else "dim"
    words = f"{stage.done}/{stage.total}" + (f", {stage.running} running" if stage.running else "")
    return [Text(stage.rule, style=style), bar, Text(words)]


def _jobs(jobs: list[tuple[str, Running]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for state, job in jobs:
        words = Text(f"{state} {job.rule}", style=STYLES.get(state, "red"))
        line = Text(job.line, style="dim", no_wrap=True, overflow="ellipsis")
        grid.add_row(words, Text(job.what), Text(duration(job.seconds)), line)
    return grid


# From how wide a terminal on a column is there; the others always are.
WIDTHS = {"step": 110, "best": 130, "chips/s": 110, "cores": 145, "MiB": 145, "device MiB": 145, "curve": 130}


def _trainings(trainings: list[Training], width: int, room: int | None) -> Table:
    order = in_order(trainings)
    shown = order if room is None or len(order) <= room else order[: room - 1]
    rows = [row(t) for t in shown]
    kept = [head for head in heads(rows) if WIDTHS.get(head, 0) <= width]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for head in kept:
        table.add_column(head, justify="right" if head in NUMBERS else "left", no_wrap=True)
    curves = [spark(value for _, _, value in t.curve) for t in shown]
    if drawn := WIDTHS["curve"] <= width and any(curves):
        table.add_column("curve", no_wrap=True)
    for t, cells, curve in zip(shown, rows, curves):
        texts = [Text(cells[head], style=STYLES[t.state] if head == "state" else "") for head in kept]
        table.add_row(*texts, *([curve] if drawn else []))
    if len(shown) < len(order):
        rest = [t.state for t in order[len(shown) :]]
        counts = ", ".join(f"{rest.count(state)} {state}" for state in STATES if state in rest)
        table.caption, table.caption_justify = f"and {counts}", "left"
    return table
