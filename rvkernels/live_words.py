"""A running study in words and rows of text, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Callable

from rvkernels.live import State, Training

ORDER = ("running", "stopped", "done", "waiting")  # of trainings: what moves first
# Columns of the table of trainings; those of NUMBERS stand to the right.
HEADS = ("experiment", "model", "framework", "seed", "state", "epoch", "step", "loss", "metric", "best")
HEADS += ("chips/s", "cores", "MiB", "device MiB", "left")
NUMBERS = HEADS[3:4] + HEADS[5:]


def duration(seconds: float) -> str:
    """42 s, 7 min 05 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def progress(state: State) -> str:
    """For how long it has run, and how long it still takes."""
    words = (
        "" if state.seconds is None else f"{'for' if state.state == 'running' else 'after'} {duration(state.seconds)}"
    )
    if state.state != "running":
        return words
    least = "at least" if state.left_least else "about"
    left = "time left not known yet" if state.left_s is None else f"{least} {duration(state.left_s)} to go"
    return f"{words}, {left}" if words else left


def machine(state: State) -> str:
    """How busy the machine is that watches."""
    m = state.machine
    used, total = m["memory_used_mb"] / 1024, m["memory_mb"] / 1024
    busy = "" if m["cpu_share"] is None else f"{m['cpu_share']:.0%} of "
    words = [f"this machine: {busy}{m['cores']} cores, {used:.1f} of {total:.1f} GiB"]
    for gpu in m["gpus"]:
        share = "" if gpu["share"] is None else f" {gpu['share']:.0%},"
        memory = "" if gpu["memory_used_mb"] is None else f" {gpu['memory_used_mb']:,.0f} MiB"
        words.append(f"{gpu['name']}{share}{memory}")
    return " · ".join(words)


def in_order(trainings: list[Training]) -> list[Training]:
    """What moves first."""
    return sorted(trainings, key=lambda t: ORDER.index(t.state))


def heads(rows: list[dict[str, str]]) -> list[str]:
    """Those of HEADS that are shown: the first seven, and what any row has."""
    return [head for head in HEADS if head in HEADS[:7] or any(row[head] for row in rows)]


def row(t: Training) -> dict[str, str]:
    """What stands below each of HEADS."""
    return {
        **{name: str(getattr(t, name)) for name in HEADS[:4]},
        "state": t.phase if t.state == "running" and t.phase not in (None, "train") else t.state,
        "epoch": "" if t.epoch is None else f"{t.epoch}/{t.epochs}",
        "step": _or_empty(t.step, lambda step: f"{step}/{t.steps}" if t.steps else str(step)),
        "loss": _or_empty(t.loss, "{:.4g}".format),
        "metric": _or_empty(t.value, lambda value: f"{t.metric} {value:.3f}"),
        "best": _or_empty(t.best, "{:.3f}".format),
        "chips/s": _or_empty(t.chips_per_s, lambda rate: f"{rate:.3g}" if rate < 10 else f"{rate:.0f}"),
        "cores": _or_empty(t.cores, "{:.1f}".format),
        "MiB": _or_empty(t.memory_mb, "{:,.0f}".format),
        "device MiB": _or_empty(t.device_mb, "{:,.0f}".format),
        "left": _or_empty(t.left_s, duration),
    }


def _or_empty(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)
