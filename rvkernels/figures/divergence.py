"""Losses of all frameworks from the same weights and batches, and how far they drift from those of the first."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.divergence import CONTROL_FACTOR, FIRST, LONG, read_losses, relative_difference
from rvkernels.figures import GRAY, LINES, WIDTH, Figure, label_log_axis, pages, scientific, shade
from rvkernels.results import Results

FLOOR = 1e-9  # of the axis of differences; equal losses are drawn here
ABREAST = 3  # models beside each other


def figures(results: Results) -> Iterator[Figure]:
    for name in results.experiments:
        summary = results.divergence[results.divergence.experiment == name]
        if summary.empty:
            continue
        table = pd.concat([_losses(results, name, model) for model in summary.model.unique()], ignore_index=True)
        seeds = ", ".join(f"seed {s}" for s in table.seed.unique())
        text = _text(summary)
        yield Figure(
            name=f"divergence_{name}",
            section="Frameworks",
            title=f"Drift of the losses: {name}",
            caption=(
                f"Above, the loss of every training step from the same weights and batches ({seeds}). Below, its "
                "relative difference to the first framework's (thin), and the largest so far (thick). "
                f"{_control_text(summary)}{text}"
            ),
            alt=f"Losses of all frameworks over steps, and their relative differences on a logarithmic axis. {text}",
            draw=lambda t=table, n=name: _draw(results, t, n),
            table=table,
        )


def _text(summary: pd.DataFrame) -> str:
    apart = summary[~summary.control]
    first, long = (apart.loc[apart[column].idxmax()] for column in ("first_20", "first_200"))
    return (
        f"Over all seeds the largest relative difference is {scientific(first.first_20)} in the first {FIRST} steps "
        f"({first.model} in {first.framework}) and {scientific(long.first_200)} in the first {min(LONG, long.steps)} "
        f"({long.model} in {long.framework})."
    )


def _control_text(summary: pd.DataFrame) -> str:
    control = summary[summary.control]
    if control.empty:
        return ""
    row = control.iloc[0]
    return (
        f"The gray band reaches to {CONTROL_FACTOR:g} times the largest difference of {row.framework} to itself with "
        f"{row.threads:.0f} instead of {row.against_threads:.0f} threads (gray line), which adds up in another order. "
    )


def _losses(results: Results, name: str, model: str) -> pd.DataFrame:
    """Per framework, and for the control, losses and their differences to the first framework's, of one seed."""
    runs = results.runs_of(name)
    runs = runs[runs.model == model]
    known = results.divergence[(results.divergence.experiment == name) & (results.divergence.model == model)]
    seed = known[known.control].seed.min() if known.control.any() else known.seed.min()
    runs = runs[runs.seed == seed]
    folders = {row.framework: results.run_folder(row) for row in runs.itertuples()}
    reference = read_losses(next(iter(folders.values())))
    control = next(iter(folders.values())) / "control"
    if control.is_dir():
        folders["control"] = control
    parts = []
    for framework, folder in folders.items():
        relative = relative_difference(read_losses(folder), reference)
        losses = read_losses(folder)[: len(relative)]
        steps = np.arange(1, len(relative) + 1)
        values = {"step": steps, "loss": losses, "relative_difference": relative}
        parts.append(pd.DataFrame({"model": model, "framework": framework, "seed": seed, **values}))
    return pd.concat(parts, ignore_index=True)


def _draw(results: Results, table: pd.DataFrame, name: str) -> plt.Figure:
    rows = list(pages(list(table.model.unique()), ABREAST))
    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        2 * len(rows), columns, figsize=(WIDTH, 4.0 * len(rows)), height_ratios=[1.1, 1] * len(rows), squeeze=False
    )
    for ax in axes.ravel():
        ax.set_visible(False)
    for i, models in enumerate(rows):
        for j, model in enumerate(models):
            upper, lower = axes[2 * i, j], axes[2 * i + 1, j]
            _draw_model(upper, lower, table[table.model == model], results.model_index(name, model))
            upper.set(title=model, ylabel="training loss" if j == 0 else "")
            lower.set(xlabel="step", ylabel="relative difference" if j == 0 else "")
    axes[0, columns - 1].legend(loc="upper right")
    if "control" in set(table.framework):
        axes[1, columns - 1].legend(loc="lower right")
    return figure


def _draw_model(upper: plt.Axes, lower: plt.Axes, table: pd.DataFrame, index: int) -> None:
    top = 10 * max(table.relative_difference[np.isfinite(table.relative_difference)].max(), FLOOR)
    for number, (framework, rows) in enumerate(table.groupby("framework", sort=False)):
        drift = np.clip(rows.relative_difference, FLOOR, top)
        so_far = np.maximum.accumulate(drift)
        if framework == "control":
            band = np.clip(CONTROL_FACTOR * so_far, FLOOR, top)
            lower.fill_between(rows.step, FLOOR, band, color=GRAY, alpha=0.18, linewidth=0, zorder=0)
            lower.plot(rows.step, so_far, color=GRAY, linewidth=1.2, zorder=1, label="control")
            continue
        color = shade(framework, index)
        upper.plot(rows.step, rows.loss, LINES[number % len(LINES)], color=color, linewidth=1.1, label=framework)
        if number:  # the first differs in nothing from itself
            lower.plot(rows.step, drift, color=color, linewidth=0.5, alpha=0.35)
            lower.plot(rows.step, so_far, color=color, linewidth=1.7)
    for ax in (upper, lower):
        ax.set_visible(True)
        ax.set_xlim(1, table.step.max())
        ax.axvline(FIRST, color=GRAY, linewidth=0.7, linestyle=":")
        if table.step.max() > LONG:
            ax.axvline(LONG, color=GRAY, linewidth=0.7, linestyle=":")
    upper.set_yscale("log")
    lower.set(yscale="log", ylim=(FLOOR, top))
    label_log_axis(upper.yaxis)
    label_log_axis(lower.yaxis, powers=True)
