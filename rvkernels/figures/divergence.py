"""Losses of all frameworks from the same weights and batches, and how far they drift from those of the first."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rvkernels.divergence import CONTROL_FACTOR, FIRST, LONG, relative_difference
from rvkernels.figures import GRAY, LINES, Panel, Selection, Tables, label_log_axis, scientific, shade
from rvkernels.results import Results
from rvkernels.runs import read_steps

FLOOR = 1e-9  # of the axis of differences; equal losses are drawn here


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        summary = results.divergence[results.divergence.experiment == name]
        if summary.empty:
            continue
        models = list(summary.model.unique())
        table = pd.concat([_losses(results, name, model) for model in models], ignore_index=True)
        panels = [
            Panel({"table": table[table.model == model], "place": experiment.models.index(model), "what": what}, 2.5,
                  title if len(models) == 1 else f"{model}: {title}")
            for model in models
            for what, title in (("loss", "loss of a step"), ("difference", "difference to the first"))
        ]  # fmt: skip
        yield Selection(
            f"divergence_{name}", "Divergence", f"Drift of the losses: {name}",
            {"table": table, "summary": summary}, panels, abreast=(2, 1), experiment=name,
        )  # fmt: skip


def caption(tables: Tables) -> str:
    seeds = ", ".join(f"seed {s}" for s in tables["table"].seed.unique())
    return (
        f"Left (above, in a column) the loss of every training step from the same weights and batches ({seeds}). Right "
        "(below) its relative difference to the first framework's (thin), and the largest so far (thick). "
        f"{_control(tables['summary'])}{_largest(tables['summary'])}"
    )


def alt(tables: Tables) -> str:
    return (
        "Losses of all frameworks over steps, and their relative differences on a logarithmic axis. "
        f"{_largest(tables['summary'])}"
    )


def draw(tables: Tables, ax: plt.Axes) -> None:
    table = tables["table"]
    (_draw_losses if tables["what"] == "loss" else _draw_differences)(table, tables["place"], ax)
    ax.set_xlim(1, table.step.max())
    ax.set_xlabel("step")
    for step in (FIRST, LONG):
        if table.step.max() > step:
            ax.axvline(step, color=GRAY, linewidth=0.7, linestyle=":")


def _draw_losses(table: pd.DataFrame, place: int, ax: plt.Axes) -> None:
    for number, (framework, rows) in enumerate(_frameworks(table)):
        dash = LINES[number % len(LINES)]
        ax.plot(rows.step, rows.loss, dash, color=shade(framework, place), linewidth=1.1, label=framework)
    ax.set(yscale="log", ylabel="training loss")
    label_log_axis(ax.yaxis)


def _draw_differences(table: pd.DataFrame, place: int, ax: plt.Axes) -> None:
    top = 10 * max(table.relative_difference[np.isfinite(table.relative_difference)].max(), FLOOR)
    control = table[table.framework == "control"]
    if len(control):
        so_far = np.clip(control.largest_so_far, FLOOR, top)
        band = np.clip(CONTROL_FACTOR * so_far, FLOOR, top)
        ax.fill_between(control.step, FLOOR, band, color=GRAY, alpha=0.18, linewidth=0, zorder=0)
        ax.plot(control.step, so_far, color=GRAY, linewidth=1.2, zorder=1, label="control")
    for framework, rows in _frameworks(table)[1:]:  # the first differs in nothing from itself
        drift = np.clip(rows.relative_difference, FLOOR, top)
        ax.plot(rows.step, drift, color=shade(framework, place), linewidth=0.5, alpha=0.35)
        ax.plot(rows.step, np.clip(rows.largest_so_far, FLOOR, top), color=shade(framework, place), linewidth=1.7)
    ax.set(yscale="log", ylim=(FLOOR, top), ylabel="relative difference")
    label_log_axis(ax.yaxis, powers=True)


def _frameworks(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return list(table[table.framework != "control"].groupby("framework", sort=False))


def _largest(summary: pd.DataFrame) -> str:
    apart = summary[~summary.control]
    first, long = (apart.loc[apart[column].idxmax()] for column in ("first_20", "first_200"))
    return (
        f"Over all seeds the largest relative difference is {scientific(first.first_20)} in the first {FIRST} steps "
        f"({first.model} in {first.framework}) and {scientific(long.first_200)} in the first {min(LONG, long.steps)} "
        f"({long.model} in {long.framework})."
    )


def _control(summary: pd.DataFrame) -> str:
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
    control = next(iter(folders.values())) / "control"
    if control.is_dir():
        folders["control"] = control
    every = {framework: read_steps(folder)["loss"] for framework, folder in folders.items()}
    parts = []
    for framework, losses in every.items():
        relative = relative_difference(losses, next(iter(every.values())))
        losses = losses[: len(relative)]
        steps = np.arange(1, len(relative) + 1)
        so_far = np.maximum.accumulate(relative)
        values = {"step": steps, "loss": losses, "relative_difference": relative, "largest_so_far": so_far}
        parts.append(pd.DataFrame({"model": model, "framework": framework, "seed": seed, **values}))
    return pd.concat(parts, ignore_index=True)
