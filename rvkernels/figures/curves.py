"""Learning curves: training loss and the validation metric over epochs, beside published ones where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import GRAY, LINES, Panel, Selection, Tables, label_log_axis, metric_name, shade
from rvkernels.results import Experiment, Results


def select(results: Results) -> Iterator[Selection]:
    frameworks = results.study["frameworks"]
    for name, experiment in results.experiments.items():
        metric = experiment.settings["train"]["metric"]
        column = f"val_{metric}"
        runs = results.runs_of(name)[["model", "framework", "seed"]]  # in the study's order
        epochs = runs.merge(results.epochs[results.epochs.experiment == name], on=["model", "framework", "seed"])
        tables = {
            "table": epochs[epochs.quantity.isin(["train_loss", column])],
            "metric": metric,
            "published": published(experiment, Path(results.study["downloads"])),
            "published_rows": experiment.settings["published_curve"],
            "models": experiment.models,
            "frameworks": frameworks,
        }
        panels = [Panel({**tables, "quantity": quantity}, 2.7) for quantity in ("train_loss", column)]
        yield Selection(f"curves_{name}", name, "Learning curves", tables, panels, abreast=(2, 1))


def caption(tables: Tables) -> str:
    metric, beside = metric_name(tables["metric"]), ""
    if tables["published"] is not None:
        rows = ", ".join(f"{k} {v}" for k, v in tables["published_rows"].items())
        beside = f" Gray: the published validation curve ({rows})."
    lines = "one line per run"
    if tables["table"].seed.nunique() > 1:
        lines = "the mean over seeds and the band from the lowest to the highest"
    return (
        f"Mean training loss per epoch and {metric} on the validation split, {lines}.{beside} Best validation "
        f"{metric}, mean over seeds: {_best(tables)}."
    )


def alt(tables: Tables) -> str:
    metric = metric_name(tables["metric"])
    return f"Training loss and validation {metric} over epochs, per model. Best {metric}: {_best(tables)}."


def draw(tables: Tables, ax: plt.Axes) -> None:
    table, quantity, frameworks, models = (tables[k] for k in ("table", "quantity", "frameworks", "models"))
    for (model, framework), rows in table[table.quantity == quantity].groupby(["model", "framework"], sort=False):
        place = models.index(model)
        # Frameworks draw the same line as a rule: dashes let the others show through.
        dash = frameworks.index(framework) if len(frameworks) > 1 else place
        over = rows.groupby("epoch")["value"]
        color = shade(framework, place)
        if rows.seed.nunique() > 1:
            ax.fill_between(over.mean().index, over.min(), over.max(), color=color, alpha=0.15, linewidth=0)
        ax.plot(over.mean(), LINES[dash % len(LINES)], color=color, label=f"{model} · {framework}")
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if quantity == "train_loss":
        ax.set(ylabel="training loss", yscale="log")
        label_log_axis(ax.yaxis)
        return
    ax.set_ylabel(f"validation {metric_name(tables['metric'])}")
    if tables["published"] is not None:
        shown = tables["published"][tables["published"].epoch <= 2 * table.epoch.max()]
        ax.plot(shown.epoch, shown[quantity], color=GRAY, linewidth=1.1, label="published")


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


def _best(tables: Tables) -> str:
    table = tables["table"]
    best = table[table.quantity != "train_loss"].groupby(["model", "framework", "seed"], sort=False)["value"].max()
    means = best.groupby(["model", "framework"], sort=False).mean()
    return "; ".join(f"{model} in {framework} {value:.3f}" for (model, framework), value in means.items())
