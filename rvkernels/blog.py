"""results/<study>/blog/: a post about the study for a Jekyll site, with its figures and every number's source.

    post.md        kramdown with YAML front matter
    numbers.csv    every number of its sentences: text, value, source (those of captions are in the figures' CSV)
    study.yaml     the settings that repeat the study
    <figure>.svg, <figure>.png

Sentences are chosen by what the tables hold (page/post.md.j2), numbers come from the tables, and rules find what
surprised (rvkernels/surprises.py).
"""

from __future__ import annotations

import datetime
import html
import re
import shutil
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from rvkernels import findings, registry
from rvkernels.compare import BASELINE
from rvkernels.divergence import FIRST
from rvkernels.figures import metric_name, scientific
from rvkernels.files import atomic, read_json
from rvkernels.results import Results
from rvkernels.surprises import Numbers, name_of, surprises

TEMPLATE = Path(__file__).with_name("page")
WORDS_PER_MINUTE = 200
# Figures with photographs: as SVG they hold the same pixels and are several times as large.
PHOTOGRAPHS = ("chips", "maps", "failures")
TASKS = {
    "classification": "which class a chip shows",
    "segmentation": "which class every pixel has",
    "detection": "where things are, as boxes",
}


def blog(folder: str | Path, study: dict, datasets: dict[str, str], figures: str | Path, out: str | Path) -> None:
    """Write the folder `out`.

    folder      results/<study>/ with data/, runs/ and tables/
    study       the resolved study configuration
    datasets    experiment -> description file of its dataset
    figures     the folder that `rvkernels.report.report` wrote

    Raises FileNotFoundError or ValueError when a stage's output is missing or unreadable.
    """
    results = Results(folder, study, datasets)
    known = read_json(Path(figures) / "figures.json")
    numbers = Numbers()
    shown: list[dict] = []

    def figure(kind: str, experiment: str | None = None) -> str:
        """The figures that rvkernels/figures/<kind>.py drew (of this experiment) as kramdown; "" when there is none."""
        if kind not in registry.names("figures"):
            raise ValueError(f"post.md.j2: no figure {kind!r}; {registry.suggest(kind, registry.names('figures'))}")
        found = [one for one in known if one["kind"] == kind and one["experiment"] == experiment]
        shown.extend(found)
        return "\n".join(_figure(one, (Path(figures) / f"{one['name']}.txt").read_text().strip()) for one in found)

    text = _post(results, numbers, figure)
    with atomic(out) as temporary:
        temporary.mkdir()
        for one in shown:
            for suffix in ("svg", "png"):
                shutil.copyfile(Path(figures) / f"{one['name']}.{suffix}", temporary / f"{one['name']}.{suffix}")
        (temporary / "post.md").write_text(text)
        (temporary / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False, width=100))
        pd.DataFrame(numbers.rows, columns=["text", "value", "source"]).to_csv(temporary / "numbers.csv", index=False)


def _post(results: Results, numbers: Numbers, figure: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["text_cell"] = markdown
    found = surprises(results)
    for surprise in found:
        numbers.rows += surprise.numbers.rows
    facts = _facts(results, numbers)
    body = environment.get_template("post.md.j2").render(
        figure=figure,
        text=markdown,
        listing=findings.listing,
        metric_name=metric_name,
        name_of=name_of,
        surprises=found,
        several=results.several_frameworks,
        command=findings.command(results),
        study=results.study,
        **facts,
    )
    body = re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
    front = yaml.safe_dump(_front(results, facts, body), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{body}"


def _front(results: Results, facts: dict, body: str) -> dict:
    """What the site needs to list the post."""
    tasks = dict.fromkeys(e.task for e in results.experiments.values())
    networks = [results.record(row) for _, row in _networks(results).iterrows()]
    started = [record["started"] for record in networks if "started" in record]
    words = len(re.findall(r"\w+", body))
    front = {
        "published": True,
        "title": results.study["title"] or results.study["study"],
        "excerpt": facts["excerpt"],
        "tags": ["remote sensing", "deep learning", "reproducibility", *tasks, *facts["framework_names"]],
        "difficulty": "intermediate",
        "date": datetime.date.fromisoformat(max(started)[:10]) if started else None,
        "authors": ["the rvkernels authors"],
        "reading_time": max(1, round(words / WORDS_PER_MINUTE)),
        "layout": "post",
    }
    return {key: value for key, value in front.items() if value is not None}


def markdown(text: str) -> str:
    """Text in which kramdown sees nothing but text."""
    return re.sub(r"([\\`*_\[\]{}|<>$])", r"\\\1", text)


def _figure(one: dict, caption: str) -> str:
    """Picture and caption with kramdown's attribute lists; the PNG has twice the pixels."""
    suffix = "png" if one["kind"] in PHOTOGRAPHS else "svg"
    alt = markdown(one["alt"].replace("\n", " "))
    title = html.escape(one["title"], quote=True)
    return (
        f'![{alt}]({one["name"]}.{suffix}){{: width="700" title="{title}" }}\n{{: .figure #figure-{one["name"]} }}\n\n'
        f"{markdown(caption)} ([SVG]({one['name']}.svg), [PNG]({one['name']}.png))\n{{: .caption }}\n"
    )


def _networks(results: Results) -> pd.DataFrame:
    return results.runs[results.runs.model != BASELINE]


# --- facts -----------------------------------------------------------------------------------------------------------


def _facts(results: Results, n: Numbers) -> dict[str, Any]:
    """What the template speaks of; numbers as they are said."""
    runs = _networks(results)
    frameworks = [f for f in results.study["frameworks"] if f in set(runs.framework)]
    seeds = runs.seed.nunique()
    minutes = runs.train_epoch_s.sum() / 60
    total = f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}"
    records = [results.record(row) for _, row in runs.iterrows()]
    machines = [record["machine"] for record in records]
    held = results.equal.groupby("what", sort=False).equal.all().astype(bool)
    machine = {m["cpu"]: m for m in machines}
    facts = {
        "framework_names": [name_of(f) for f in frameworks],
        "experiments": [_experiment(results, n, name) for name in results.experiments],
        "runs": n(str(len(runs)), len(runs), "tables/runs.csv: networks"),
        "seeds": n(str(seeds), seeds, "tables/runs.csv: seeds"),
        "one_seed": seeds == 1,
        "minutes": n(total, minutes, "tables/runs.csv: sum of train_epoch_s / 60"),
        "machines": [
            f"{cpu} with {n(str(m['usable_cores']), m['usable_cores'], 'record.json: machine')} cores"
            for cpu, m in machine.items()
        ],
        "gpus": sorted({g["name"] for m in machines for g in m.get("gpus", [])}),
        "validated": bool(results.runs.validated.all()),
        "commits": sorted({r["software"]["commit"] for r in records if "commit" in r["software"]}),
        "own_models": list(runs.model[~runs.weight_identical.fillna(True).astype(bool)].unique()),
        "table": _table(results),
        "costs": _costs(results, n),
        "speed": _speed(results, n),
        "equivalence": _equivalence(results, n),
        "drift": _drift(results, n),
        "equal": list(held.index[held]),
        "unequal": list(held.index[~held]),
        "example": findings.command(results, results.runs_of(next(iter(results.experiments))).iloc[0]),
    }
    return {**facts, "excerpt": _excerpt(results, facts)}


def _experiment(results: Results, n: Numbers, name: str) -> dict[str, Any]:
    """One experiment: what is looked for in which data, and how well the best model finds it."""
    experiment = results.experiments[name]
    runs = results.runs_of(name, baseline=True)
    metric = runs.primary.iloc[0]
    means = runs.groupby("model")[metric].mean()
    base = means.pop(BASELINE) if BASELINE in means else float("nan")
    best, where = means.idxmax(), f"tables/runs.csv: mean {metric} on {name} over frameworks and seeds"
    each = runs[runs.model == best].groupby("framework", sort=False)[metric].mean()
    trained = results.record(runs.iloc[0])["result"].get("train_chips")
    margins = results.margins[
        (results.margins.experiment == name) & (results.margins.metric == metric) & (results.margins.model == best)
    ]
    holds = margins.drop_duplicates("framework").holds
    classes = len(experiment.classes)
    return {
        "name": name,
        "task": experiment.task,
        "asks": TASKS[experiment.task],
        "title": experiment.description["title"],
        "classes": n(str(classes), classes, f"dataset of {name}: classes"),
        "chips": None if trained is None else n(f"{trained:,}", trained, f"record.json: train_chips of {name}"),
        "models": experiment.models,
        "metric": metric_name(metric),
        "best": best,
        "value": n(f"{means[best]:.3f}", means[best], f"{where}, {best}"),
        "each": [(name_of(f), n(f"{v:.3f}", v, f"tables/summary.csv: mean {metric}, {best} on {name} in {f}"))
                 for f, v in each.items()],
        "base": None if pd.isna(base) else n(f"{base:.3f}", base, f"tables/runs.csv: {metric} on {name}, baseline"),
        "better": bool(means[best] > base),
        "surely": bool(len(holds) and holds.notna().all() and holds.astype(bool).all()),
        "licence": experiment.description.get("licence", ""),
        "citation": experiment.description.get("citation", ""),
        "published": experiment.description.get("published", []),
    }  # fmt: skip


def _table(results: Results) -> dict[str, list]:
    """The main numbers of every model and framework, as texts."""
    heads = ["experiment", "model", "framework", "quality", "training, min", "step, ms", "peak memory, MiB"]
    rows = []
    for name in results.experiments:
        runs = results.runs_of(name, baseline=True)
        metric = runs.primary.iloc[0]
        for (model, framework), these in runs.groupby(["model", "framework"], sort=False):
            summary = results.summary
            one = summary[
                (summary.experiment == name) & (summary.model == model) & (summary.framework == framework)
                & (summary.quantity == metric)
            ].iloc[0]  # fmt: skip
            median = these.median(numeric_only=True)
            rows.append(
                [
                    name,
                    model,
                    name_of(framework) if model != BASELINE else "logistic regression",
                    f"{metric_name(metric)} {findings.span(one['mean'], one.low, one.high)[0]}",
                    findings.number(median.get("train_epoch_s"), 1 / 60)[0],
                    findings.number(median.get("step_median_s"), 1000)[0],
                    findings.number(median.get("peak_rss_mb"))[0],
                ]
            )
    return {"heads": heads, "rows": rows}


def _costs(results: Results, n: Numbers) -> list[dict[str, str]]:
    """Per experiment the cheapest and the dearest training."""
    costs = []
    for name in results.experiments:
        minutes = results.runs_of(name).groupby(["model", "framework"]).train_epoch_s.median() / 60
        least, most = minutes.idxmin(), minutes.idxmax()
        where = f"tables/runs.csv: train_epoch_s / 60 on {name}, median over seeds"
        costs.append(
            {
                "name": name,
                "least": n(f"{minutes[least]:.1f}", minutes[least], f"{where}, {least}"),
                "most": n(f"{minutes[most]:.1f}", minutes[most], f"{where}, {most}"),
                "least_of": f"{least[0]} in {name_of(least[1])}",
                "most_of": f"{most[0]} in {name_of(most[1])}",
                "same": least == most,
            }
        )
    return costs


def _speed(results: Results, n: Numbers) -> list[dict[str, Any]]:
    """How long a step takes against the study's first framework, and for how many models that is beyond chance."""
    pairs = results.pairs
    pairs = pairs[(pairs.quantity == "step_median_s") & (pairs.b == results.study["frameworks"][0])]
    speed = []
    for framework, rows in pairs.dropna(subset=["ratio"]).groupby("a", sort=False):
        low, high = rows.ratio.min(), rows.ratio.max()
        where = f"tables/frameworks.csv: ratio of step_median_s, {framework} / {rows.b.iloc[0]}"
        tested = rows.dropna(subset=["ratio_low", "ratio_high"])
        beyond = int(((tested.ratio_low > 1) | (tested.ratio_high < 1)).sum())
        speed.append(
            {
                "framework": name_of(framework),
                "first": name_of(rows.b.iloc[0]),
                "low": n(f"{low:.2f}", low, f"{where}, least"),
                "high": n(f"{high:.2f}", high, f"{where}, largest"),
                "one": f"{low:.2f}" == f"{high:.2f}",
                "tested": n(str(len(tested)), len(tested), f"{where}, models with an interval"),
                "beyond": n(str(beyond), beyond, f"{where}, intervals that leave out 1"),
                "known": len(tested) > 0,
            }
        )
    return speed


def _equivalence(results: Results, n: Numbers) -> dict[str, str] | None:
    """How many pairs of frameworks are shown to be as good; None when nothing could be tested."""
    done = results.pairs[results.pairs.equivalent.notna()]
    if done.empty:
        return None
    largest = done.loc[done["mean"].abs().idxmax()]
    margins = done.drop_duplicates("quantity")
    where = "tables/frameworks.csv: equivalent"
    return {
        "shown": n(str(int(done.equivalent.sum())), int(done.equivalent.sum()), where),
        "tested": n(str(len(done)), len(done), where),
        "all": bool(done.equivalent.all()),
        "margins": findings.listing(
            f"±{n(f'{r.margin:g}', r.margin, 'tables/frameworks.csv: margin')} {metric_name(r.quantity)}"
            for r in margins.itertuples()
        ),
        "largest": n(f"{abs(largest['mean']):.3f}", abs(largest["mean"]), "tables/frameworks.csv: largest mean"),
        "of": f"{metric_name(largest.quantity)} of {largest.model} on {largest.experiment}, "
        f"{name_of(largest.a)} against {name_of(largest.b)}",
    }


def _drift(results: Results, n: Numbers) -> dict[str, str] | None:
    """How far losses drift apart; None when frameworks do not start from the same weights."""
    apart = results.divergence[~results.divergence.control.astype(bool)]
    if apart.empty:
        return None
    first, end, steps = apart.first_20.max(), apart.end.max(), min(FIRST, apart.steps.max())
    return {
        "first": n(scientific(first), first, "tables/divergence.csv: largest first_20"),
        "end": n(f"{100 * end:.2g}", 100 * end, "tables/divergence.csv: largest end, in percent"),
        "steps": n(str(steps), steps, "tables/divergence.csv: steps of the first 20"),
    }


def _excerpt(results: Results, facts: dict) -> str:
    """One sentence or two for the list of posts."""
    titles = findings.listing(dict.fromkeys(e["title"] for e in facts["experiments"]))
    if not results.several_frameworks:
        best = facts["experiments"][0]
        than = f", a logistic regression {best['base']}" if best["base"] else ""
        return f"{best['best']} on {titles}: {best['metric']} {best['value']}{than}, and how to repeat it."
    quality = facts["equivalence"]
    said = (
        f"{quality['shown']} of {quality['tested']} pairs are shown to be as good as each other"
        if quality
        else "one seed each"
    )
    slowest = max(facts["speed"], key=lambda s: float(s["high"]), default=None)
    cost = f", and a step takes up to {slowest['high']} times as long as in {slowest['first']}" if slowest else ""
    names = findings.listing(facts["framework_names"])
    return f"The same networks and batches in {names}, on {titles}: {said}{cost}."
