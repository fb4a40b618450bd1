"""The kernels beside the fastest alternatives, and beside what no implementation can undercut."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, PercentFormatter

from rvkernels.figures import GRAY, MARKERS, WIDTH, Figure, label_log_axis
from rvkernels.results import Results

# Okabe and Ito's, as the frameworks' are, but none of theirs: a colour says how many threads.
COLORS, OTHER = {1: "#e69f00", 0: "#56b4e9"}, "#009e73"


def figures(results: Results) -> Iterator[Figure]:
    if results.kernels.empty:
        return
    table = results.kernels[
        ["kernel", "case", "threads", "peer", "ratio_to_fastest_peer", "ratio_to_floor", "ours_s", "peer_s", "floor_s"]
    ]
    ratio = table.ratio_to_fastest_peer.dropna()
    text = "No peer was there to compare with."
    if len(ratio):
        least = table.loc[ratio.idxmin()]
        text = (
            f"The median ratio is {ratio.median():.1f}; the kernel is faster in {(ratio > 1).sum()} of {len(ratio)} "
            f"comparisons, and the least ratio is {ratio.min():.2g} ({least.kernel}, {least.case})."
        )
    yield Figure(
        name="kernels",
        section="Kernels",
        title="Kernels against the fastest alternatives",
        caption=(
            "Left: how many times as fast as the fastest peer, whose name stands beside it, a kernel is, on a "
            "logarithmic scale; a bar to the left of 1 is slower. Right: the time of the floor over the kernel's; at "
            "100 % no implementation can be faster. The floor differs from case to case: reading the input, writing "
            f"the output, decompressing the file; points are missing where none was measured. {text}"
        ),
        alt=f"Bars of each kernel's speed relative to the fastest peer, and points of its share of the floor. {text}",
        draw=lambda: _draw(table),
        table=table,
    )


def _draw(table: pd.DataFrame) -> plt.Figure:
    # A line for each case, below one with the kernel's name.
    lines: list[tuple[str, str | None]] = []
    for kernel, case in dict.fromkeys(zip(table.kernel, table.case)):
        lines += [] if any(kernel == name for name, _ in lines) else [(kernel, None)]
        lines.append((kernel, case))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 0.8 + 0.22 * len(lines)), sharey=True, width_ratios=(3, 1)
    )
    threads = sorted(set(table.threads.tolist()), key=lambda number: (number == 0, number))
    height = 0.76 / len(threads)
    for i, number in enumerate(threads):
        these = table[table.threads == number]
        y = np.array([lines.index(line) for line in zip(these.kernel, these.case)]) + height * (
            i - len(threads) / 2 + 0.5
        )
        ratio = these.ratio_to_fastest_peer.to_numpy(float)
        color = COLORS.get(number, OTHER)
        label = "all cores" if number == 0 else f"{number} thread{'s' * (number > 1)}"
        left.barh(y, ratio - 1, left=1, height=height, color=color, label=label)
        for at, value, peer in zip(y, ratio, these.peer):
            place = {"xytext": (3, 0), "textcoords": "offset points", "va": "center_baseline", "fontsize": 6}
            if np.isfinite(value):
                digits = f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
                left.annotate(f"{digits}  {peer}", (max(value, 1), at), **place)
            else:
                left.annotate("no peer", (1, at), color=GRAY, **place)
        right.plot(these.ratio_to_floor, y, MARKERS[i], color=color, markersize=4, mec="#444444", mew=0.4)
    left.set_xscale("log")
    low, high = min(0.9, 0.9 * table.ratio_to_fastest_peer.min()), max(2, table.ratio_to_fastest_peer.max())
    left.set_xlim(low, high * (high / low) ** 0.35)  # with room for the label of the longest bar
    label_log_axis(left.xaxis)
    if high / low > 200:  # no room for 2 and 5
        left.xaxis.set_major_locator(LogLocator())
    left.minorticks_off()
    left.axvline(1, color="#444444", linewidth=0.8)
    left.set_xlabel("times as fast as the fastest peer")
    right.axvline(1, color="#444444", linewidth=0.8)
    right.set_xlim(0, max(1.1, 1.05 * table.ratio_to_floor.max()))
    right.xaxis.set_major_formatter(PercentFormatter(1))
    right.set_xlabel("share of the floor")
    left.set_yticks(range(len(lines)), [case or kernel for kernel, case in lines], fontsize=7)
    for label, (_, case) in zip(left.get_yticklabels(), lines):
        if case is None:
            label.set(weight="bold", fontsize=8)
    left.set_ylim(len(lines) - 0.4, -0.6)
    for ax in (left, right):
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        for i, (_, case) in enumerate(lines[1:], 1):
            if case is None:
                ax.axhline(i - 0.5, color="#e3e6ea", linewidth=0.7)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=len(threads))
    return figure
