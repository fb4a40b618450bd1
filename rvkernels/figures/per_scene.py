"""Quality scene by scene: is the mean carried by a few?"""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd

from rvkernels.figures import MARKERS, Panel, Selection, Tables, metric_name, shade
from rvkernels.results import Results

MOST = 30  # scenes; of more, the worst and the best are shown


def select(results: Results) -> Iterator[Selection]:
    for name, experiment in results.experiments.items():
        runs = results.runs_of(name)
        metric = runs.primary.iloc[0]
        table = pd.DataFrame(
            [
                {**run[["model", "framework", "seed"]].to_dict(), "scene": scene, "value": values[metric]}
                for _, run in runs.iterrows()
                for scene, values in results.evaluation(run)["summary"]["per_scene"].items()
                if values.get(metric) is not None
            ]
        )
        if table.empty:
            continue
        order = table.groupby("scene")["value"].mean().sort_values()
        shown = list(order.index if len(order) <= MOST else [*order.index[: MOST // 2], *order.index[-MOST // 2 :]])
        tables = {"table": table, "metric": metric, "order": order, "shown": shown, "models": experiment.models}
        groups = table.groupby(["model", "framework"]).ngroups
        panel = Panel(tables, 0.6 + max(0.22, 0.09 * groups) * len(shown))
        yield Selection(f"per_scene_{name}", name, "Quality per test scene", tables, [panel])


def caption(tables: Tables) -> str:
    several = tables["table"].seed.nunique() > 1
    spread = "means over seeds, lines from the lowest to the highest seed" if several else "one seed"
    left_out = len(tables["order"]) - len(tables["shown"])
    rest = f" The {left_out} scenes between the worst and the best are in the table only." if left_out else ""
    return f"{metric_name(tables['metric'])} of every test scene, the worst first; {spread}.{rest} {_ends(tables)}"


def alt(tables: Tables) -> str:
    return f"Dot plot of {metric_name(tables['metric'])} per test scene and model. {_ends(tables)}"


def draw(tables: Tables, ax: plt.Axes) -> None:
    shown, models = tables["shown"], tables["models"]
    groups = tables["table"].groupby(["model", "framework"], sort=False)
    step = 0.6 / max(1, groups.ngroups - 1) if groups.ngroups > 2 else 0.0
    for i, ((model, framework), rows) in enumerate(groups):
        over = rows[rows.scene.isin(shown)].groupby("scene")["value"].agg(["mean", "min", "max"])
        y = over.index.map(shown.index) + step * (i - (groups.ngroups - 1) / 2)
        place = models.index(model)
        color, marker = shade(framework, place), MARKERS[place % len(MARKERS)]
        ax.hlines(y, over["min"], over["max"], color=color, linewidth=1.1)
        label = f"{model} · {framework}"
        ax.plot(over["mean"], y, marker, color=color, markersize=4.5, mec="white", mew=0.5, label=label)
    ax.set_yticks(range(len(shown)), [s if len(s) <= 24 else f"…{s[-23:]}" for s in shown], fontsize=7)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(f"{metric_name(tables['metric'])} of the scene")


def _ends(tables: Tables) -> str:
    order = tables["order"]
    if len(order) == 1:
        return f"Mean over models and seeds: {order.iloc[0]:.2f} for {order.index[0]}, the only one."
    return (
        f"Mean over models and seeds: {order.iloc[0]:.2f} for {order.index[0]}, the worst of {len(order)}, to "
        f"{order.iloc[-1]:.2f} for {order.index[-1]}."
    )
