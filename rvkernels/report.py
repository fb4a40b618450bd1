"""results/<study>/report.html: one self-contained page, and every figure in the formats of rvkernels.figures.

The page holds no number that is not in a table, a record or the study's settings.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup
from matplotlib.colors import to_hex

from rvkernels import charts, findings, registry
from rvkernels.divergence import CONTROL_FACTOR, FIRST_BOUND
from rvkernels.facts import Form, Number, facts
from rvkernels.figures import Figure, metric_name, scientific, three_digits, write
from rvkernels.figures import figures as figures_of
from rvkernels.files import atomic, write_json
from rvkernels.pool import pool
from rvkernels.progress import Progress
from rvkernels.results import Results
from rvkernels.svg import inline_svg
from rvkernels.views import View, view

PAGE = Path(__file__).with_name("page")
# The order of figures on the page; a figure file that is not named here comes last in its section.
ORDER = (
    *("pareto", "quality", "cost", "equivalence", "divergence", "time", "steps"),
    *("maps", "curves", "per_class", "precision_recall", "confusion"),
    *("per_scene", "failures", "balance", "chips", "duplicates", "kernels"),
)
# Sections of figures beside those of the experiments.
SECTIONS = ("Results", "Frameworks", "Divergence", "Time", "Kernels")


@dataclass(frozen=True)
class Shown:
    """A figure as the page has it: as it was drawn, with what makes it interactive, or as pictures of places."""

    figure: Figure
    section: str
    svg: str
    interactive: tuple[str, str] | None
    views: list[View]
    colors: list[tuple[str, str]]


def report(
    folder: str | Path,
    study: dict,
    datasets: dict[str, str],
    figures: str | Path,
    out: str | Path,
    *,
    threads: int = 1,
) -> None:
    """Write the figures into the folder `figures` and the page to `out`.

    folder      results/<study>/ with data/, runs/ and tables/
    study       the resolved study configuration
    datasets    experiment -> description file of its dataset
    threads     processes that draw figures side by side; 0: one per usable core

    Raises FileNotFoundError or ValueError when a stage's output is missing or unreadable.
    """
    source = (Path(folder), study, datasets)
    results = Results(*source)
    names = sorted(registry.names("figures"), key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
    workers = min(threads or len(os.sched_getaffinity(0)), len(names))
    bundle = threading.Thread(target=charts.library)  # takes seconds and needs nothing of the study
    bundle.start()
    with atomic(figures) as temporary, Progress(len(names), "figures", "files") as progress:
        temporary.mkdir()
        made = {}
        for name, drawn in _drawn(results, source, names, temporary, workers):
            made[name] = drawn
            progress.add(1, name)
        everything = [figure for name in names for figure in made[name]]
        write_json(temporary / "figures.json", [figure.words() for figure in everything])
    bundle.join()
    page = page_of(results, everything, Path(figures))
    with atomic(Path(out)) as temporary:
        temporary.write_text(page)


def _drawn(
    results: Results, source: tuple, names: list[str], folder: Path, workers: int
) -> Iterator[tuple[str, list[Figure]]]:
    """The figures of every file of rvkernels/figures/, written into `folder`, as they get ready."""
    if workers < 2:
        for name in names:
            yield name, _draw(results, name, folder)
        return
    with pool(workers, _open, source) as drawing:  # Matplotlib draws in one thread
        jobs = {drawing.submit(_draw_there, name, folder): name for name in names}
        for job in as_completed(jobs):
            yield jobs[job], job.result()


def _draw(results: Results, name: str, folder: Path) -> list[Figure]:
    made = []
    for figure in figures_of(name, results):
        write(figure, folder)
        made.append(dataclasses.replace(figure, draw=None))
    return made


def _open(*source: object) -> None:
    """Let this process draw: open the study once."""
    global _results
    _results = Results(*source)


def _draw_there(name: str, folder: Path) -> list[Figure]:
    return _draw(_results, name, folder)


def page_of(results: Results, made: list[Figure], folder: Path) -> str:
    """The page, with the figures whose files stand in `folder`."""
    figures = [_shown(results, figure, folder) for figure in made]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    records = [results.record(row) for _, row in results.runs.iterrows()]
    several = results.several_frameworks
    settings = yaml.safe_dump(results.study, sort_keys=False, width=100)
    found = facts(results)
    parts = {
        "pairs": findings.pairs_table(results) if several else None,
        "fairness": findings.fairness(results, found.equal) if several else [],
        "kernels": None if results.kernels.empty else findings.kernels_table(results),
        "more": any(shown.section == "More" for shown in figures),
    }
    return environment.get_template("report.html.j2").render(
        study=results.study,
        experiments=results.experiments,
        contents=_contents(results, parts),
        facts=found,
        several=several,
        say=_say,
        listing=findings.listing,
        metric_name=metric_name,
        scientific=scientific,
        FIRST_BOUND=FIRST_BOUND,
        CONTROL_FACTOR=CONTROL_FACTOR,
        results=findings.results_table(results),
        divergence=findings.divergence_table(results) if several else None,
        times=findings.times_table(results),
        software=findings.software_table(results),
        leaks={name: findings.leaks_table(results, name) for name in results.experiments},
        published={name: findings.published_table(results, name) for name in results.experiments},
        all_runs=findings.runs_table(results),
        data=findings.data_table(results),
        machines=list({yaml.safe_dump(r["machine"]): r["machine"] for r in records}.values()),
        command=findings.command(results),
        one=_one_run(results),
        settings=settings,
        settings_link="data:text/yaml;charset=utf-8," + urllib.parse.quote(settings),
        figures=figures,
        glossary=yaml.safe_load((PAGE / "glossary.yaml").read_text()),
        style=(PAGE / "report.css").read_text(),
        theme=(PAGE / "theme.js").read_text(),
        script="\n".join((PAGE / name).read_text() for name in ("page.js", "tables.js", "charts.js", "viewer.js")),
        library=charts.library() if any(shown.interactive for shown in figures) else "",
        **parts,
    )


def _shown(results: Results, figure: Figure, folder: Path) -> Shown:
    section = figure.section if figure.section in {*SECTIONS, *results.experiments} else "More"
    views = [view(pictures, f"{figure.name}-{i}") for i, pictures in enumerate(figure.views)]
    svg = "" if views else inline_svg(folder / f"{figure.name}.svg", name=figure.name, alt=figure.alt)
    colors = [(name, to_hex(color / 255)) for name, color in zip(*figure.classes)] if figure.classes else []
    return Shown(figure, section, svg, charts.interactive(figure), views, colors)


def _contents(results: Results, parts: dict) -> list[tuple[str, str]]:
    """Ids and titles of the sections that there are."""
    everything = [
        ("results", "Results", True),
        ("frameworks", "Between frameworks", parts["pairs"]),
        ("time", "Time", True),
        ("kernels", "Kernels", parts["kernels"]),
        *((f"experiment-{name}", name.capitalize(), True) for name in results.experiments),
        ("more", "More figures", parts["more"]),
        ("fairness", "Fairness", parts["fairness"]),
        ("repeat", "Repeat it", True),
        ("glossary", "Glossary", True),
    ]
    return [(name, title) for name, title, there in everything if there]


def _say(number: Number, form: Form = three_digits) -> Markup:
    """A number of a sentence, with its exact value and, for who points at it, its source."""
    html = Markup('<data value="{}" title="{}">{}</data>')
    return html.format(float(number.value), number.source, number.text(form))


def _one_run(results: Results) -> dict[str, str | Number]:
    """The first run, as an example of how one is repeated."""
    run = results.runs_of(next(iter(results.experiments))).iloc[0]
    return {
        "what": f"{run.model} on {run.experiment} in {run.framework}, seed {run.seed}",
        "metric": metric_name(run.primary),
        "value": Number(run[run.primary], f"eval.json: {run.primary} of {Path(run.record).parent.as_posix()}"),
        "target": findings.target(results, run),
        "command": findings.command(results, run),
    }
