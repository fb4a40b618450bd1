"""results/<study>/report.html: one self-contained page, and every figure as SVG, PNG and CSV.

The page holds no number that is not in a table, a record or the study's settings.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import jinja2
import pandas as pd
import yaml
from PIL import Image

from rvkernels import dataset, registry
from rvkernels.figures import NAMES, Figure, write
from rvkernels.files import atomic
from rvkernels.progress import Progress
from rvkernels.results import Results

PAGE = Path(__file__).with_name("page")
# The order of figures on the page; a figure file that is not named here comes last.
ORDER = ("quality", "cost", "chips", "curves", "maps", "per_class", "confusion")
# Units of the columns of the results table, in its order.
COLUMNS = (
    ("experiment", "experiment", ""),
    ("model", "model", ""),
    ("framework", "framework", ""),
    ("runs", "seeds", ""),
    ("quality", "quality on the test split", "mean and 95 % interval over seeds"),
    ("margin", "over the baseline", "mean and 95 % interval over seeds"),
    ("train_minutes", "training", "minutes"),
    ("chips_per_s", "training", "chips/s"),
    ("predict_chips_per_s", "prediction", "windows/s"),
    ("peak_rss_mb", "peak memory", "MiB"),
)


def report(folder: str | Path, study: dict, datasets: dict[str, str], figures: str | Path, out: str | Path) -> None:
    """Write the figures into the folder `figures` and the page to `out`.

    folder      results/<study>/ with data/, runs/ and tables/
    study       the resolved study configuration
    datasets    experiment -> description file of its dataset

    Raises FileNotFoundError or ValueError when a stage's output is missing or unreadable.
    """
    results = Results(folder, study, datasets)
    names = sorted(registry.names("figures"), key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))
    made: list[Figure] = []
    with atomic(figures) as temporary, Progress(len(names), "figures", "files") as progress:
        temporary.mkdir()
        for name in names:
            for figure in registry.load("figures", name).figures(results):
                write(figure, temporary)
                made.append(figure)
            progress.add(1, name)
    _write_page(results, made, Path(figures), Path(out))


def _write_page(results: Results, figures: list[Figure], folder: Path, out: Path) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    machines = {yaml.safe_dump(r["machine"]): r["machine"] for r in _records(results)}
    software = {yaml.safe_dump(r["software"]): r["software"] for r in _records(results)}
    page = environment.get_template("report.html.j2").render(
        study=results.study,
        experiments=results.experiments,
        answers=_answers(results),
        columns=COLUMNS,
        rows=_rows(results),
        figures=[(f, _svg(folder / f"{f.name}.svg", f)) for f in figures],
        machines=list(machines.values()),
        software=list(software.values()),
        settings=yaml.safe_dump(results.study, sort_keys=False, width=100),
        style=(PAGE / "report.css").read_text(),
        script=(PAGE / "report.js").read_text(),
        published={n: e.description.get("published", []) for n, e in results.experiments.items()},
        class_names={n: dataset.class_names(e.description) for n, e in results.experiments.items()},
        all_valid=bool(results.runs.validated.all()),
        run_count=int((results.runs.model != "baseline").sum()),
    )
    with atomic(out) as temporary:
        temporary.write_text(page)


def _records(results: Results) -> list[dict]:
    return [results.record(row) for _, row in results.runs.iterrows()]


def _cell(results: Results, keys: pd.Series, quantity: str) -> pd.Series | None:
    table = results.summary
    found = table[
        (table.experiment == keys.experiment)
        & (table.model == keys.model)
        & (table.framework == keys.framework)
        & (table.quantity == quantity)
    ]
    return None if found.empty else found.iloc[0]


def _span(mean: float, low: float, high: float, digits: int = 3) -> str:
    text = f"{mean:.{digits}f}"
    return text if pd.isna(low) or pd.isna(high) else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def _rows(results: Results) -> list[dict]:
    """A row of the results table per experiment, model and framework, as text with a number to sort by."""
    rows = []
    for name in results.experiments:
        runs = results.runs_of(name, baseline=True)
        for (model, framework), these in runs.groupby(["model", "framework"], sort=False):
            first = these.iloc[0]
            quality = _cell(results, first, first.primary)
            row = {
                "experiment": (name, name),
                "model": (model, model),
                "framework": (framework, framework),
                "runs": (str(len(these)), len(these)),
                "quality": (
                    f"{NAMES.get(first.primary, first.primary)} {_span(quality['mean'], quality.low, quality.high)}",
                    quality["mean"],
                ),
                "margin": ("", ""),
                "baseline": model == "baseline",
            }
            margins = results.margins
            margin = margins[
                (margins.experiment == name)
                & (margins.model == model)
                & (margins.framework == framework)
                & (margins.metric == first.primary)
            ]
            if not margin.empty:
                m = margin.iloc[0]
                row["margin"] = ("+" * bool(m["mean"] > 0) + _span(m["mean"], m.low, m.high), m["mean"])
            minutes = these.train_epoch_s.median() / 60 if "train_epoch_s" in these else float("nan")
            row["train_minutes"] = _number(minutes)
            for column in ("chips_per_s", "predict_chips_per_s", "peak_rss_mb"):
                row[column] = _number(these[column].median())
            rows.append(row)
    return rows


def _number(value: float) -> tuple[str, object]:
    if pd.isna(value):
        return ("", "")
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}", value)


def _answers(results: Results) -> list[str]:
    """One sentence per experiment: the best model, its quality and what it is worth over the baseline."""
    sentences = []
    for name, experiment in results.experiments.items():
        runs = results.runs_of(name, baseline=True)
        metric = runs.primary.iloc[0]
        means = runs.groupby(["model", "framework"])[metric].mean()
        networks = means.drop(index="baseline", level="model")
        (model, framework), best = networks.idxmax(), networks.max()
        base = float(means.loc["baseline"].iloc[0])
        sentences.append(
            f"{experiment.description['title']}, {experiment.task}: {model} in {framework} reaches "
            f"{NAMES.get(metric, metric)} {best:.3f} on the test split, a logistic regression {base:.3f}."
        )
    return sentences


def _svg(path: Path, figure: Figure) -> str:
    """The figure for the page: inline SVG, or a JPEG when it holds photographs, which an SVG stores without loss."""
    text = path.read_text()
    if "<image" in text:
        photograph = io.BytesIO()
        with Image.open(path.with_suffix(".png")) as picture:
            picture.convert("RGB").save(photograph, "JPEG", quality=88, subsampling=0, optimize=True)
        data = base64.b64encode(photograph.getvalue()).decode()
        return f'<img src="data:image/jpeg;base64,{data}" alt="{_escape(figure.alt)}">'
    text = text[text.index("<svg") :]
    # Ids are unique within a figure only; a page holds many.
    prefix = re.sub(r"\W", "_", figure.name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="|href="|url\()#', rf"\1#{prefix}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{_escape(figure.alt)}"', 1)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
