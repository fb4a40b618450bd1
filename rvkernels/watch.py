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
    return Group(*parts, "", _trainings(state.trainings, width, room), "", _machine(state))


def duration(seconds: float) -> str:
    """42 s, 7 min 05 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def spark(values: Iterable[float | None]) -> str:
    """A curve in one line of text, from its lowest to its highest value."""
    known = [v for v in values if v is not None][-CURVE:]
    if len(known) < 2:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((v - low) / span * len(BLOCKS)))] for v in known)


def left(state: State) -> str:
    """How long it still takes, in words."""
    if state.state != "running":
        return ""
    if state.left_s is None:
        return "time left not known yet"
    return f"{'at least' if state.left_least else 'about'} {duration(state.left_s)} to go"


def _head(state: State) -> Text:
    head = Text(state.study, style="bold")
    if state.title:
        head.append(f" · {state.title}", style="not bold")
    head.append("   ")
    head.append(state.state, style=STYLES.get(state.state, "bold"))
    if state.seconds is not None:
        head.append(f" {'for' if state.state == 'running' else 'after'} {duration(state.seconds)}", style="not bold")
    if left(state):
        head.append(f", {left(state)}", style="not bold")
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


# Heads of the table of trainings.
HEADS = ("experiment", "model", "framework", "seed", "state", "epoch", "step", "loss", "metric", "best")
HEADS += ("chips/s", "cores", "MiB", "left", "curve")
TEXTS = ("experiment", "model", "framework", "state", "curve")
# From how wide a terminal on a column is there; the others always are.
WIDTHS = {"step": 110, "best": 130, "chips/s": 110, "cores": 145, "MiB": 145, "curve": 130}


def _trainings(trainings: list[Training], width: int, room: int | None) -> Table:
    # What moves first.
    order = sorted(trainings, key=lambda t: ("running", "stopped", "done", "waiting").index(t.state))
    shown = order if room is None or len(order) <= room else order[: room - 1]
    rows = [_cells(t) for t in shown]
    heads = [h for h in HEADS if WIDTHS.get(h, 0) <= width and (h in HEADS[:7] or any(row[h] for row in rows))]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for head in heads:
        table.add_column(head, justify="left" if head in TEXTS else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[head] for head in heads))
    if len(shown) < len(order):
        rest = [t.state for t in order[len(shown) :]]
        counts = ", ".join(f"{rest.count(state)} {state}" for state in STATES if state in rest)
        table.caption, table.caption_justify = f"and {counts}", "left"
    return table


def _cells(t: Training) -> dict[str, str | Text]:
    """What stands below each of HEADS."""
    phase = t.phase if t.state == "running" and t.phase not in (None, "train") else t.state
    return {
        **{name: str(getattr(t, name)) for name in HEADS[:4]},
        "state": Text(phase, style=STYLES[t.state]),
        "epoch": "" if t.epoch is None else f"{t.epoch}/{t.epochs}",
        "step": _step(t),
        "loss": _number(t.loss, ".4g"),
        "metric": "" if t.value is None else f"{t.metric} {t.value:.3f}",
        "best": _number(t.best, ".3f"),
        "chips/s": _number(t.chips_per_s, ".3g" if (t.chips_per_s or 0) < 10 else ".0f"),
        "cores": _number(t.cores, ".1f"),
        "MiB": _number(t.memory_mb, ",.0f"),
        "left": "" if t.left_s is None else duration(t.left_s),
        "curve": spark(value for _, _, value in t.curve),
    }


def _step(t: Training) -> str:
    if t.step is None:
        return ""
    return f"{t.step}/{t.steps}" if t.steps else str(t.step)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _machine(state: State) -> Text:
    m = state.machine
    used, total = m["memory_used_mb"] / 1024, m["memory_mb"] / 1024
    busy = "" if m["cpu_share"] is None else f"{m['cpu_share']:.0%} of "
    words = [f"this machine: {busy}{m['cores']} cores, {used:.1f} of {total:.1f} GiB"]
    for gpu in m["gpus"]:
        share = "" if gpu["share"] is None else f" {gpu['share']:.0%},"
        memory = "" if gpu["memory_used_mb"] is None else f" {gpu['memory_used_mb']:,.0f} MiB"
        words.append(f"{gpu['name']}{share}{memory}")
    return Text(" · ".join(words), style="dim")
