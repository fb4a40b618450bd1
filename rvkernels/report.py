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

from rvkernels import findings, registry
from rvkernels.figures import Figure, write
from rvkernels.files import atomic
from rvkernels.progress import Progress
from rvkernels.results import Results

PAGE = Path(__file__).with_name("page")
# The order of figures on the page; a figure file that is not named here comes last.
ORDER = (
    *("quality", "cost", "equivalence", "divergence", "steps"),
    *("chips", "curves", "maps", "per_class", "confusion", "kernels"),
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
    machines = {yaml.safe_dump(r["machine"]): r["machine"] for r in map(results.record, _runs(results))}
    several = results.several_frameworks
    page = environment.get_template("report.html.j2").render(
        study=results.study,
        experiments=results.experiments,
        answers=findings.answers(results),
        results=findings.results_table(results),
        pairs=findings.pairs_table(results) if several else None,
        divergence=findings.divergence_table(results) if several else None,
        times=findings.times_table(results),
        fairness=findings.fairness(results) if several else [],
        kernels=None if results.kernels.empty else findings.kernels_table(results),
        software=findings.software_table(results),
        figures=[(f, _svg(folder / f"{f.name}.svg", f)) for f in figures],
        machines=list(machines.values()),
        settings=yaml.safe_dump(results.study, sort_keys=False, width=100),
        style=(PAGE / "report.css").read_text(),
        script=(PAGE / "report.js").read_text(),
        published={n: e.description.get("published", []) for n, e in results.experiments.items()},
    )
    with atomic(out) as temporary:
        temporary.write_text(page)


def _runs(results: Results) -> list[pd.Series]:
    return [row for _, row in results.runs.iterrows()]


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
