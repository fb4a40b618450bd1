"""Learning curves: training loss and the validation metric over epochs, beside published ones where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import GRAY, LINES, WIDTH, Figure, label_log_axis, metric_name, shade
from rvkernels.results import Experiment, Results


def figures(results: Results) -> Iterator[Figure]:
    for name, experiment in results.experiments.items():
        metric = experiment.settings["train"]["metric"]
        column = f"val_{metric}"
        runs = results.runs_of(name)[["model", "framework", "seed"]]  # in the study's order
        epochs = runs.merge(results.epochs[results.epochs.experiment == name], on=["model", "framework", "seed"])
        table = epochs[epochs.quantity.isin(["train_loss", column])]
        curve = published(experiment, Path(results.study["downloads"]))
        best = table[table.quantity == column].groupby(["model", "framework", "seed"], sort=False)["value"].max()
        means = best.groupby(["model", "framework"], sort=False).mean()
        text = "; ".join(f"{model} in {framework} {value:.3f}" for (model, framework), value in means.items())
        beside = ""
        if curve is not None:
            rows = ", ".join(f"{k} {v}" for k, v in experiment.settings["published_curve"].items())
            beside = f" Gray: the published validation curve ({rows})."
        yield Figure(
            name=f"curves_{name}",
            section=name,
            title="Learning curves",
            caption=(
                f"Mean training loss per epoch (left) and {metric_name(metric)} on the validation split (right), one "
                f"line per run.{beside} Best validation {metric_name(metric)}, mean over seeds: {text}."
            ),
            alt=f"Training loss falls and validation {metric_name(metric)} rises over epochs. Best values: {text}.",
            draw=lambda t=table, n=name, c=column, m=metric, k=curve: _draw(results, t, n, c, m, k),
            table=table,
        )


def published(experiment: Experiment, downloads: Path) -> pd.DataFrame | None:
    """The published curve that the study asks for: columns epoch, val_accuracy; None when there is none on disk."""
    wanted = experiment.settings["published_curve"]
    if not wanted or not experiment.description.get("curves"):
        return None
    path = downloads / experiment.description["name"] / experiment.description["curves"]
    if not path.is_file():
        return None
    curves = pd.read_csv(path)
    for column, value in wanted.items():
        curves = curves[curves[column] == value]
    if curves.empty:
        raise ValueError(f"{path}: no row with {wanted}; correct published_curve of experiment {experiment.name}")
    return curves.sort_values("epoch")


def _draw(
    results: Results, table: pd.DataFrame, name: str, column: str, metric: str, curve: pd.DataFrame | None
) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
    for (model, framework, _), rows in table.groupby(["model", "framework", "seed"], sort=False):
        index = results.model_index(name, model)
        # Frameworks draw the same line as a rule: dashes let the others show through.
        frameworks = results.study["frameworks"]
        dash = frameworks.index(framework) if len(frameworks) > 1 else index
        for ax, quantity in ((left, "train_loss"), (right, column)):
            these = rows[rows.quantity == quantity].sort_values("epoch")
            ax.plot(
                these.epoch,
                these["value"],
                LINES[dash % len(LINES)],
                color=shade(framework, index),
                label=f"{model} · {framework}",
            )
    if curve is not None:
        shown = curve[curve.epoch <= 2 * table.epoch.max()]
        right.plot(shown.epoch, shown.val_accuracy, color=GRAY, linewidth=1.1, label="published")
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    label_log_axis(left.yaxis)
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="epoch", ylabel=f"validation {metric_name(metric)}")
    handles = dict(zip(*reversed(right.get_legend_handles_labels())))
    right.legend(handles.values(), handles.keys(), loc="lower right")
    return figure
