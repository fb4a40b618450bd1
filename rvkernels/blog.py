"""results/<study>/blog/: a post about the study for a Jekyll site, with its figures and every number's source.

    post.md        kramdown with YAML front matter
    numbers.csv    every number of its sentences: text, value, source (those of captions are in the figures' CSV)
    study.yaml     the settings that repeat the study
    <figure>.svg, <figure>.png    of photographs the PNG alone

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
from rvkernels.facts import Facts, Numbers, facts, networks
from rvkernels.figures import metric_name, scientific
from rvkernels.files import atomic, read_json
from rvkernels.frameworks import title
from rvkernels.results import Results
from rvkernels.surprises import surprises

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
            for suffix in _suffixes(one):
                shutil.copyfile(Path(figures) / f"{one['name']}.{suffix}", temporary / f"{one['name']}.{suffix}")
        (temporary / "post.md").write_text(text)
        (temporary / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False, width=100))
        pd.DataFrame(numbers.rows, columns=["text", "value", "source"]).to_csv(temporary / "numbers.csv", index=False)


def _post(results: Results, numbers: Numbers, figure: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"text_cell": markdown, "framework_name": title}
    found = facts(results)
    body = environment.get_template("post.md.j2").render(
        facts=found,
        n=numbers,
        figure=figure,
        text=markdown,
        listing=findings.listing,
        metric_name=metric_name,
        scientific=scientific,
        title=title,
        asks=TASKS,
        surprises=[(surprise.expected, surprise.say(numbers)) for surprise in surprises(results)],
        several=results.several_frameworks,
        table=_table(results),
        command=findings.command(results),
        example=findings.command(results, results.runs_of(next(iter(results.experiments))).iloc[0]),
    )
    body = re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
    front = yaml.safe_dump(_front(results, found, numbers, body), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n{body}"


def _front(results: Results, found: Facts, numbers: Numbers, body: str) -> dict:
    """What the site needs to list the post."""
    tasks = dict.fromkeys(e.task for e in results.experiments.values())
    records = [results.record(row) for _, row in networks(results).iterrows()]
    started = [record["started"] for record in records if "started" in record]
    words = len(re.findall(r"\w+", body))
    front = {
        "published": True,
        "title": results.study["title"] or results.study["study"],
        "excerpt": _excerpt(results, found, numbers),
        "tags": ["remote sensing", "deep learning", "reproducibility", *tasks, *map(title, found.frameworks)],
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


def _suffixes(one: dict) -> tuple[str, ...]:
    """The files of a figure, the one that is shown first."""
    return ("png",) if one["kind"] in PHOTOGRAPHS else ("svg", "png")


def _figure(one: dict, caption: str) -> str:
    """Picture and caption with kramdown's attribute lists; the PNG has twice the pixels."""
    name, suffixes = one["name"], _suffixes(one)
    alt = markdown(one["alt"].replace("\n", " "))
    title = html.escape(one["title"], quote=True)
    links = ", ".join(f"[{suffix.upper()}]({name}.{suffix})" for suffix in suffixes)
    return (
        f'![{alt}]({name}.{suffixes[0]}){{: width="700" title="{title}" }}\n{{: .figure #figure-{name} }}\n\n'
        f"{markdown(caption)} ({links})\n{{: .caption }}\n"
    )


def _table(results: Results) -> dict[str, list]:
    """The main numbers of every model and framework, as texts."""
    unit, seconds = results.training_unit
    heads = ["experiment", "model", "framework", "quality", f"training, {unit}", "step, ms", "peak memory, MiB"]
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
                    title(framework) if model != BASELINE else "logistic regression",
                    f"{metric_name(metric)} {findings.span(one['mean'], one.low, one.high)[0]}",
                    findings.number(median.get("train_epoch_s"), 1 / seconds)[0],
                    findings.number(median.get("step_median_s"), 1000)[0],
                    findings.number(median.get("peak_rss_mb"))[0],
                ]
            )
    return {"heads": heads, "rows": rows}


def _excerpt(results: Results, found: Facts, n: Numbers) -> str:
    """One sentence or two for the list of posts."""
    if not results.several_frameworks:
        reached = [
            f"{q.best} reaches {metric_name(q.metric)} {n(q.value, '.3f')} on {q.experiment.description['title']}"
            + (f" (a logistic regression {n(q.base, '.3f')})" if q.base else "")
            for q in found.qualities
        ]
        return f"{'; '.join(reached)}; and how to repeat it."
    titles = findings.listing(dict.fromkeys(q.experiment.description["title"] for q in found.qualities))
    quality, speed = found.equivalence, found.speed
    said = (
        f"{n(quality.shown)} of {n(quality.tested)} pairs are shown to be equally good within the study's margins"
        if quality
        else "whether they are equally good is not tested"
    )
    slowest = max((times.high for _, times in speed.others), key=lambda times: times.value) if speed else None
    cost = f", and a step takes up to {n(slowest, '.2f')} times as long as in {title(speed.leader)}" if slowest else ""
    names = findings.listing(map(title, found.frameworks))
    return f"The same networks and batches in {names}, on {titles}: {said}{cost}."
