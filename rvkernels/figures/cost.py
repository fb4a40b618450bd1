"""What training costs: wall time, throughput and peak memory of every run."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.figures import WIDTH, Figure, shade
from rvkernels.results import Results

QUANTITIES = (
    ("train_minutes", "training, minutes"),
    ("chips_per_s", "training, chips/s"),
    ("predict_chips_per_s", "prediction, windows/s"),
    ("peak_rss_mb", "peak memory, MiB"),
)


def figures(results: Results) -> Iterator[Figure]:
    rows = pd.concat([results.runs_of(name) for name in results.experiments], ignore_index=True)
    table = rows.assign(train_minutes=rows.train_epoch_s / 60)[
        ["experiment", "model", "framework", "seed", *(q for q, _ in QUANTITIES)]
    ]
    total = table.train_minutes.sum()
    slowest = table.loc[table.train_minutes.idxmax()]
    text = (
        f"All runs together trained for {total:.1f} minutes; the longest was {slowest.experiment} with {slowest.model} "
        f"in {slowest.framework} ({slowest.train_minutes:.1f} minutes)."
    )
    yield Figure(
        name="cost",
        section="Results",
        title="What it costs",
        caption=f"Training time, throughput and peak memory of each model; the median over seeds. {text}",
        alt=f"Bar charts of training time, training and prediction throughput, and peak memory per model. {text}",
        draw=lambda: _draw(results, table),
        table=table,
    )


def _draw(results: Results, table: pd.DataFrame) -> plt.Figure:
    groups = table.groupby(["experiment", "model", "framework"], sort=False)
    medians = groups[[q for q, _ in QUANTITIES]].median()
    figure, axes = plt.subplots(1, 4, figsize=(WIDTH, 0.9 + 0.3 * len(medians)), sharey=True)
    y = np.arange(len(medians))
    colors = [shade(f, results.model_index(e, m)) for e, m, f in medians.index]
    for ax, (quantity, label) in zip(axes, QUANTITIES):
        bars = ax.barh(y, medians[quantity], color=colors, height=0.62)
        ax.bar_label(bars, [f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in medians[quantity]], padding=2, fontsize=7.5)
        ax.set_xlabel(label)
        ax.set_xlim(0, 1.3 * medians[quantity].max())
        ax.grid(axis="y", visible=False)
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(y, [f"{e}\n{m} · {f}" for e, m, f in medians.index], fontsize=7.5)
    axes[0].invert_yaxis()
    return figure
