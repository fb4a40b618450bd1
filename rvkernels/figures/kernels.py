"""The kernels beside the fastest alternatives, and beside what no implementation can undercut."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, PercentFormatter

from rvkernels.figures import GRAY, INK, MARKERS, WIDTH, Panel, Selection, Tables, label_log_axis
from rvkernels.results import Results

# Okabe and Ito's, as the frameworks' are, but none of theirs: a colour says how many threads.
COLORS, OTHER = {1: "#e69f00", 0: "#56b4e9"}, "#cc79a7"


def select(results: Results) -> Iterator[Selection]:
    if results.kernels.empty:
        return
    table = results.kernels[
        ["kernel", "case", "threads", "peer", "ratio_to_fastest_peer", "ratio_to_floor", "ours_s", "peer_s", "floor_s"]
    ]
    cores = table.threads.map(lambda count: f"{count} thread{'s' * (count > 1)}" if count else "all cores")
    table = table.assign(cores=cores)
    height = 0.7 + 0.22 * len(_lines(table))
    panels = [Panel({"table": table, "what": what}, height) for what in ("ratio", "floor")]
    title = "Kernels against the fastest alternatives"
    yield Selection("kernels", "Kernels", title, {"table": table}, panels, abreast=(2, 1), same_rows=True)


def caption(tables: Tables) -> str:
    return (
        "One panel says how many times as fast as the fastest peer, which the table names, a kernel is, on a "
        "logarithmic scale; a bar to the left of 1 is slower. The other gives the time of the floor over the kernel's; "
        "at 100 % no implementation can be faster. The floor differs from case to case: reading the input, writing the "
        f"output, decompressing the file; points are missing where none was measured. {_summary(tables)}"
    )


def alt(tables: Tables) -> str:
    return (
        "Bars of each kernel's speed relative to the fastest peer, and points of its share of the floor. "
        f"{_summary(tables)}"
    )


def draw(tables: Tables, ax: plt.Axes) -> None:
    table = tables["table"]
    lines, threads = _lines(table), _threads(table)
    for i, number in enumerate(threads):
        these = table[table.threads == number]
        offset = 0.76 / len(threads) * (i - len(threads) / 2 + 0.5)
        y = np.array([lines.index(line) for line in zip(these.kernel, these.case)]) + offset
        (_draw_ratio if tables["what"] == "ratio" else _draw_floor)(these, y, i, len(threads), ax)
    (_scale_ratio if tables["what"] == "ratio" else _scale_floor)(table, ax)
    ax.axvline(1, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(lines)), [case or kernel for kernel, case in lines], fontsize=5.5 if _narrow(ax) else 7)
    for label, (_, case) in zip(ax.get_yticklabels(), lines):
        if case is None:
            label.set(weight="bold", fontsize=7 if _narrow(ax) else 8)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    for i, (_, case) in enumerate(lines[1:], 1):
        if case is None:
            ax.axhline(i - 0.5, color=INK, alpha=0.2, linewidth=0.7)


def _draw_ratio(table: pd.DataFrame, y: np.ndarray, i: int, count: int, ax: plt.Axes) -> None:
    ratio = table.ratio_to_fastest_peer.to_numpy(float)
    color = COLORS.get(table.threads.iloc[0], OTHER)
    ax.barh(y, ratio - 1, left=1, height=0.76 / count, color=color, label=table.cores.iloc[0])
    for at, value, peer in zip(y, ratio, table.peer):
        place = {"xytext": (3, 0), "textcoords": "offset points", "va": "center_baseline", "fontsize": 6}
        if np.isfinite(value):
            digits = f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
            # A column has room for the number only.
            ax.annotate(digits if _narrow(ax) else f"{digits}  {peer}", (max(value, 1), at), **place)
        else:
            ax.annotate("no peer", (1, at), color=GRAY, **place)


def _scale_ratio(table: pd.DataFrame, ax: plt.Axes) -> None:
    ax.set_xscale("log")
    low, high = min(0.9, 0.9 * table.ratio_to_fastest_peer.min()), max(2, table.ratio_to_fastest_peer.max())
    ax.set_xlim(low, high * (high / low) ** 0.55)  # with room for the label of the longest bar
    label_log_axis(ax.xaxis)
    if high / low > 40:  # no room for 2 and 5
        ax.xaxis.set_major_locator(LogLocator())
    ax.minorticks_off()
    ax.set_xlabel("times as fast as the fastest peer")


def _draw_floor(table: pd.DataFrame, y: np.ndarray, i: int, count: int, ax: plt.Axes) -> None:
    color = COLORS.get(table.threads.iloc[0], OTHER)
    ax.plot(table.ratio_to_floor, y, MARKERS[i % len(MARKERS)], color=color, markersize=4, mec="#666666", mew=0.4)


def _scale_floor(table: pd.DataFrame, ax: plt.Axes) -> None:
    ax.set_xlim(0, max(1.1, 1.05 * table.ratio_to_floor.max()))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("share of the floor")


def _narrow(ax: plt.Axes) -> bool:
    return ax.figure.get_figwidth() < WIDTH / 2


def _threads(table: pd.DataFrame) -> list[int]:
    return sorted(set(table.threads.tolist()), key=lambda number: (number == 0, number))


def _lines(table: pd.DataFrame) -> list[tuple[str, str | None]]:
    """A line for each case, below one with the kernel's name."""
    lines: list[tuple[str, str | None]] = []
    for kernel, case in dict.fromkeys(zip(table.kernel, table.case)):
        lines += [] if any(kernel == name for name, _ in lines) else [(kernel, None)]
        lines.append((kernel, case))
    return lines


def _summary(tables: Tables) -> str:
    table = tables["table"]
    ratio = table.ratio_to_fastest_peer.dropna()
    if ratio.empty:
        return "No peer was there to compare with."
    least = table.loc[ratio.idxmin()]
    return (
        f"The median ratio is {ratio.median():.1f}; the kernel is faster in {(ratio > 1).sum()} of {len(ratio)} "
        f"comparisons, and the least ratio is {ratio.min():.2g} ({least.kernel}, {least.case})."
    )
