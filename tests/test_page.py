"""The page in a browser: at three widths, light and dark, without a network; and where its numbers come from."""

from __future__ import annotations

import csv
import html.parser
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from rvkernels import charts, registry
from rvkernels.divergence import CONTROL_FACTOR, FIRST, FIRST_BOUND, LONG
from rvkernels.figures import Figure, write
from rvkernels.figures import figures as figures_of
from rvkernels.figures._pictures import Picture, classes_picture
from rvkernels.files import write_json
from rvkernels.record import machine
from rvkernels.report import page_of

FIGURES = ["pareto", "cost", "curves", "divergence", "equivalence", "kernels", "per_class", "quality", "steps", "time"]
WIDTHS = (390, 768, 1440)


@pytest.fixture(scope="module")
def made(make_study, tmp_path_factory):
    """A study with every kind of figure that needs no imagery, and a figure of pictures: its results and the page."""
    folder = tmp_path_factory.mktemp("results") / "made"
    kernels = [
        {"kernel": "tile", "case": case, "threads": threads, "checked": True, "ours_s": 0.00204, "peer": "GDAL",
         "peer_s": 0.00511, "ratio_to_fastest_peer": 2.504, "floor_s": 0.00163, "ratio_to_floor": 0.799}
        for case, threads in itertools.product(("strips", "tiles"), (1, 0))
    ]  # fmt: skip
    write_json(folder.parent / "bench/kernels.json", kernels)
    machine = {"quick": True, "machine": {"cpu": "A processor", "usable_cores": 2}}
    write_json(folder.parent / "bench/machine.json", machine)
    results, _ = make_study(folder, figures=(), bench="quick")
    figures = [figure for name in FIGURES for figure in figures_of(name, results)]
    for figure in figures:
        write(figure, folder / "figures")
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    classes = np.arange(48 * 64).reshape(48, 64) % 2
    colors = np.array([[200, 40, 40], [20, 90, 160]])
    boxes = (((4.0, 6.0, 20.5, 30.0), (0.2, 0.4, 0.9)),)
    pictures = [
        Picture(photo, "a06", photo=True),
        Picture(photo, "found", boxes=boxes, photo=True),
        Picture(classes_picture(classes, colors), "truth"),
    ]
    figures.append(
        Figure(
            kind="maps",
            name="maps_ground",
            section="ground",
            title="Predictions beside the truth",
            caption="A scene.",
            alt="A scene.",
            draw=None,
            table=pd.DataFrame(),
            views=[pictures],
            classes=(["road", "field"], colors),
        )
    )
    for suffix in ("svg", "png", "pdf", "csv"):
        (folder / f"figures/maps_ground.{suffix}").touch()
    page = page_of(results, figures, folder / "figures")
    (folder / "report.html").write_text(page)
    return results, page


# --- where the numbers come from -------------------------------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.])[−+±-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?(?![\w])")
# What the page says of its methods: intervals of 95 %, tests at 5 %, digests of 12 digits, latency of 1 and 32 chips.
METHODS = {95, 90, 5, 12, 1, 32, FIRST, LONG, FIRST_BOUND, CONTROL_FACTOR, 100}
# Seconds as minutes and milliseconds, shares in percent.
UNITS = (lambda x: x, lambda x: x / 60, lambda x: 1000 * x, lambda x: 100 * x, lambda x: 1e6 * x)


class Text(html.parser.HTMLParser):
    """Words of the page's sentences, numbers in them (text, value, source), and cells (text, what it is sorted by)."""

    skipped = frozenset({"style", "script", "svg", "code", "pre", "dialog", "select", "title", "figcaption"})
    empty = frozenset({"meta", "link", "input", "br", "path", "image", "use"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str]] = []
        self.numbers: list[tuple[str, float, str]] = []
        self.words: list[str] = []
        self._within: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in self.empty:
            return
        attributes = dict(attributes)
        self._within.append("glossary" if attributes.get("id") == "glossary" else tag)
        if tag == "data":
            self.numbers.append(("", float(attributes["value"]), attributes["title"]))
        elif "data-value" in attributes:
            value = attributes["data-value"] if attributes.get("class") == "n" else "no number"
            self.cells.append(("", value))
            self._within[-1] = "cell"

    def handle_endtag(self, tag):
        if tag not in self.empty:
            self._within.pop()

    def handle_data(self, data):
        if self.skipped & set(self._within) or "glossary" in self._within:
            return
        if "data" in self._within:
            _, *rest = self.numbers.pop()
            self.numbers.append((data, *rest))
        elif "cell" in self._within:
            text, value = self.cells.pop()
            self.cells.append((text + data, value))
        else:
            self.words.append(data)


def value_of(text: str) -> tuple[float, float]:
    """A number as it is written, and half a unit of its last digit, a little more for what was rounded to even."""
    digits = text.replace(",", "").replace("−", "-").strip("+±")
    mantissa, _, exponent = digits.partition(" × 10")
    power = int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
    return float(mantissa) * 10.0**power, 0.5001 * 10.0 ** (power - len(mantissa.partition(".")[2]))


def is_among(text: str, known: np.ndarray) -> bool:
    """Whether one of the numbers, in one of the units and with either sign, is written so."""
    value, near = value_of(text)
    return any(np.abs(np.abs(unit(known)) - abs(value)).min() <= near for unit in UNITS)


def test_every_number_in_a_table_is_one_of_a_table_or_record(made):
    """To nine digits: of a table's cells or of a median, mean or extreme of a group of them."""
    results, page = made
    known = set(numbers_in([results.kernels.to_dict("records"), results.study]))
    known |= set(numbers_in([json.loads(path.read_text()) for path in results.folder.rglob("record.json")]))
    known |= set(numbers_in([experiment.description for experiment in results.experiments.values()]))
    for path in results.folder.glob("tables/*.csv"):
        known |= set(summaries(pd.read_csv(path)))
    values = np.array(sorted(x for x in known if np.isfinite(x)))
    cells = [(text, float(value)) for text, value in Text(page).cells if re.fullmatch(r"-?[\d.]+(e-?\d+)?", value)]
    assert len(cells) > 60
    for text, value in cells:
        near = min(np.abs(unit(values) - value).min() for unit in UNITS)
        assert near <= 1e-9 * max(1.0, abs(value)), f"{text!r} ({value}) is in no table, record or setting"
        # What is read is what is sorted by, with the digits that are shown, in one of the units.
        shown = NUMBER.findall(text.replace("AP50", ""))
        assert any(is_among(number, np.array([value])) for number in shown), f"{text!r} shows another than {value}"


def numbers_in(value: object) -> list[float]:
    """Every number of nested lists and dicts."""
    if isinstance(value, dict):
        return [x for item in value.values() for x in numbers_in(item)]
    if isinstance(value, (list, tuple)):
        return [x for item in value for x in numbers_in(item)]
    return [float(value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def summaries(table: pd.DataFrame) -> np.ndarray:
    """Its numbers, and what is made of those of the same experiment, model and framework."""
    numeric = table.select_dtypes("number")
    keys = [k for k in ("experiment", "model", "framework") if k in table]
    parts = [numeric.to_numpy(float).ravel(), [len(table)]]
    groups = table.groupby(keys)[[c for c in numeric if c not in keys]] if keys else numeric
    parts += [np.ravel(getattr(groups, how)().to_numpy(float)) for how in ("median", "mean", "max", "min", "count")]
    every = np.concatenate(parts)
    return every[np.isfinite(every)]


def test_every_number_of_a_sentence_has_a_source_and_is_what_the_source_says(made):
    page = made[1]
    where = "tables/frameworks.csv: ratio of step_median_s"
    median = "on ground, median over seeds"
    expected = {  # made by tests/conftest.py
        "tables/runs.csv: networks": 4,
        "tables/study.json: experiments": 1,
        "tables/runs.csv: models": 1,
        "tables/runs.csv: seeds": 2,
        f"{where}, caffe2 / torch, least": 2.0,
        f"{where}: intervals with torch that leave out 1": 1,
        f"{where}: intervals with torch": 1,
        "tables/frameworks.csv: equivalent": 1,
        "tables/frameworks.csv: equivalent or not": 1,
        "tables/frameworks.csv: margin": 0.02,
        "tables/frameworks.csv: largest mean difference of quality": (0.002 + 0.004) / 2,
        "tables/frameworks.csv: count of seeds tested, least": 2,
        f"tables/runs.csv: train_epoch_s in seconds {median}, unet in caffe2": 1.0 + 2.0,
        f"tables/runs.csv: peak_rss_mb {median}, least": 100.0,
        "tables/runs.csv: sum of train_epoch_s / 60": 4 * (1.0 + 2.0) / 60,
        "record.json: usable_cores": machine()["usable_cores"],
        "tables/summary.csv: mean miou, unet on ground in torch": 0.75,
        "tables/summary.csv: mean miou, unet on ground in caffe2": 0.753,
        "tables/runs.csv: miou on ground, baseline": 0.5,
        "tables/divergence.csv: steps of first_20": 20,
        "tables/divergence.csv: largest first_20": 1e-5,
        "tables/divergence.csv: steps of first_200": 200,
        "tables/divergence.csv: largest times_control": 1.5,
        "eval.json: miou of ground/unet/torch/0": 0.7,
    }
    numbers = Text(page).numbers
    assert {source: value for _, value, source in numbers} == pytest.approx(expected, rel=1e-6)
    for text, value, source in numbers:
        written, near = value_of(text)
        assert abs(written - value) <= near, (text, value, source)


def test_no_number_of_a_sentence_is_without_a_source(made):
    """But those of methods, settings, the data's description, versions, and the machine's memory."""
    results, page = made
    records = [json.loads(path.read_text()) for path in results.folder.rglob("record.json")]
    about = results.experiments["ground"]
    told = METHODS | {*numbers_in(results.study), *numbers_in(about.description), len(about.classes), 2, 4}
    told |= {*numbers_in(about.leaks), sum(about.leaks["chips"].values()), 64}  # bits of a hash
    told |= {round(machine()["memory_mb"] / 1024), machine()["cores"], machine()["usable_cores"]}
    text = " ".join(" ".join(Text(page).words).split())
    for version in sorted({str(v) for record in records for v in record.get("software", {}).values()}, key=len)[::-1]:
        text = text.replace(version, "")
    text = text.replace(machine()["cpu"], "").replace("SHA-256", "")
    assert [number for number in NUMBER.findall(text) if value_of(number)[0] not in told] == []


def test_every_number_of_a_caption_is_in_the_figures_own_table(made):
    results, page = made
    captions = re.findall(r'<figure id="figure-(\w+)">.*?<figcaption>([^<]*) <span class="files"', page, re.S)
    noticed = 0
    assert len(captions) > 9
    for name, caption in ((name, html.unescape(caption)) for name, caption in captions):
        path = results.folder / f"figures/{name}.csv"
        said = [n for n in NUMBER.findall(caption) if value_of(n)[0] not in METHODS]
        if not said or not path.stat().st_size:
            continue
        table = pd.read_csv(path)
        assert [n for n in said if not is_among(n, in_words(table))] == [], (name, caption)
        other = table.assign(**{c: 1.37 * table[c] + 0.0123 for c in table.select_dtypes("number")})
        noticed += any(not is_among(n, in_words(other)) for n in said if len(n) > 3)
    assert noticed >= 4, "a caption of other numbers would not be noticed"


def in_words(table: pd.DataFrame) -> np.ndarray:
    """What a caption makes of a table: its numbers, sums, ratios of neighbours, and counts of what it says."""
    numeric = table.select_dtypes("number")
    counts = [count for column in table for count in table[column].value_counts()]
    parts = [summaries(table), numeric.sum().to_numpy(float), numeric.median().to_numpy(float), counts]
    if "epoch" in table:
        best = table.groupby(["quantity", "model", "framework", "seed"])["value"].max()
        parts.append(best.groupby(["quantity", "model", "framework"]).mean())
    if {"p95", "median"} <= set(table):
        parts.append(table.p95 / table["median"])
    if "forward and backward" in table:
        parts.append((table["forward and backward"] + table["update"]) / numeric.sum(axis=1))
    return np.concatenate([np.asarray(part, float) for part in parts])


def test_links_lead_somewhere(made):
    results, page = made
    page = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    ids = set(re.findall(r'\bid="([^"]+)"', page))
    links = re.findall(r'<a [^>]*href="([^"]+)"', page)
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    used = {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)}
    assert used <= ids, used - ids
    files = [link for link in links if not link.startswith(("#", "data:"))]
    assert len(files) > 20
    assert [file for file in files if not (results.folder / file).is_file()] == []


def test_the_settings_of_the_page_are_the_studys(made):
    results, page = made
    shown = re.search(r'<pre id="settings"[^>]*>(.*?)</pre>', page, re.S)
    assert yaml.safe_load(html.unescape(shown[1])) == results.study


def test_interactive_figures_have_the_rows_of_the_files_beside_them(made):
    results, page = made
    rows = re.findall(
        r'<figure id="figure-(\w+)">.*?(?:<script type="text/csv" class="rows">(.*?)</script>|</figure>)', page, re.S
    )
    found = {name: text for name, text in rows if text}
    assert set(found) >= {"pareto", "cost", "curves_ground", "divergence_ground", "steps", "kernels"}
    for name, text in found.items():
        written = (results.folder / f"figures/{name}.csv").read_text()
        assert list(csv.reader(text.splitlines())) == list(csv.reader(written.splitlines())), name


def test_of_a_long_training_a_page_carries_the_first_steps_and_some_of_the_others():
    steps = np.arange(1, 10_001)
    table = pd.DataFrame(
        {"model": "unet", "framework": "torch", "step": steps, "loss": 1.0 / steps, "relative_difference": 0.0}
    )
    rows = registry.load("charts", "divergence").rows(table)
    assert rows.step.tolist()[:LONG] == list(range(1, LONG + 1))
    assert 350 < len(rows) - LONG <= 400
    titles = [chart.title for chart in registry.load("charts", "divergence").charts(table)]
    assert titles == ["unet: training loss (after step 200 one of 25)"]


def test_charts_tell_the_time_of_a_training_in_the_unit_of_their_table(made):
    folder = made[0].folder / "figures"
    cost, pareto = pd.read_csv(folder / "cost.csv"), pd.read_csv(folder / "pareto.csv")
    titles = [chart.title for chart in registry.load("charts", "cost").charts(cost)]
    assert titles[0] == f"training, {cost.unit[0]}"
    drawn = json.dumps([chart.layers for chart in registry.load("charts", "pareto").charts(pareto)])
    assert f'"training, {cost.unit[0]}"' in drawn
    assert "{unit}" not in drawn + " ".join(titles)


def test_every_file_of_charts_is_one_of_figures():
    assert set(registry.names("charts")) <= set(registry.names("figures"))
    assert "</script" not in charts.library()


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(browser, made):
    """A function that opens the page; afterwards, that nothing was asked for and nothing complained of is checked."""
    complaints, contexts = [], []

    def open_page(width: int = 1440, scheme: str = "light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        context.set_default_timeout(300_000)  # milliseconds, also where other work takes the cores
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: complaints.append(r.url) if r.url.split(":")[0] not in ("file", "data") else None)
        page.goto((made[0].folder / "report.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def start_charts(page) -> None:
    """As reading the page from top to bottom does."""
    for figure in page.query_selector_all("figure:has(script.specs)"):
        figure.scroll_into_view_if_needed()
        drawn = "(f) => f.querySelectorAll('canvas').length === JSON.parse(f.querySelector('.specs').textContent)"
        page.wait_for_function(f"{drawn}.charts.length", arg=figure)


def test_the_first_column_leaves_room_for_the_others(opened):
    page = opened(width=390)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    widths = page.evaluate("[...document.querySelectorAll('tbody tr > :first-child')].map((c) => c.offsetWidth)")
    assert len(widths) > 10
    assert max(widths) < 390 / 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_whole_and_accessible(opened, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = opened(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    start_charts(page)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["target"] for n in v["nodes"][:3]]) for v in serious] == []


def test_without_scripts_every_figure_is_there(opened):
    page = opened(java_script_enabled=False)
    plots = page.locator(".plot svg")
    assert plots.count() == page.locator("main figure:has(.plot)").count() > 5
    assert all(plots.nth(i).is_visible() for i in range(plots.count()))
    assert not page.locator(".tools").first.is_visible()


def test_print_shows_drawn_figures_and_what_is_folded(opened):
    page = opened()
    start_charts(page)
    assert not page.locator("#figure-steps .plot").is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#figure-steps .plot").is_visible()
    assert not page.locator("#figure-steps .live").is_visible()
    assert page.locator("#settings").is_visible()
    assert not page.locator("nav").is_visible()


def test_a_theme_is_chosen_and_remembered(opened):
    page = opened(scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.locator(".theme select").select_option("dark")
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark


def test_a_page_that_may_keep_nothing_has_a_theme(opened, made):
    """In a frame where the browser refuses to keep a choice, as in Snakemake's report."""
    (made[0].folder / "frame.html").write_text('<iframe sandbox="allow-scripts" src="report.html"></iframe>')
    page = opened(scheme="light")
    page.goto((made[0].folder / "frame.html").as_uri())
    frame = page.frames[1]
    assert frame.evaluate("theme.kept((storage) => storage.length)") is None  # an empty one has the length 0
    paper = "getComputedStyle(document.body).backgroundColor"
    light = frame.evaluate(paper)
    frame.locator(".theme select").select_option("dark")
    assert frame.evaluate(paper) != light
    assert frame.evaluate("charts.options().tooltip.theme") == "dark"


def test_the_table_is_sorted_and_filtered(opened):
    page = opened()
    rows = page.locator("#table-results-table tbody tr")
    head = page.locator("#table-results-table thead th", has_text="training time")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    column = head.evaluate("(th) => th.cellIndex")
    values = page.evaluate(
        f"[...document.querySelectorAll('#table-results-table tbody tr')].map((r) => r.cells[{column}].dataset.value)"
    )
    numbers = [float(v) for v in values if v]
    assert numbers == sorted(numbers)
    tools = page.locator('.tools[data-table="table-results-table"]')
    tools.get_by_label("framework").select_option("caffe2")
    assert [row.is_visible() for row in rows.all()].count(True) == 1
    assert tools.locator("output").inner_text() == "1 of 3 rows"
    tools.get_by_label("framework").select_option("")
    tools.get_by_label("Filter").fill("unet TORCH")
    assert [row.is_visible() for row in rows.all()].count(True) == 1


@pytest.mark.parametrize(("figure", "name"), [("steps", "caffe2"), ("kernels", "all cores")])
def test_what_has_a_colour_is_hidden_in_a_chart(opened, figure, name):
    page = opened()
    start_charts(page)
    figure = page.locator(f"#figure-{figure}")
    canvas = figure.locator("canvas").first
    before = canvas.evaluate("(c) => c.toDataURL()")
    button = figure.get_by_role("button", name=name, exact=True)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.wait_for_function("([c, before]) => c.toDataURL() !== before", arg=[canvas.element_handle(), before])


def test_a_chart_rings_what_the_table_says_is_in_front(opened, made):
    table = pd.read_csv(made[0].folder / "figures/pareto.csv")
    assert set(table.front) == {True, False}
    page = opened()
    start_charts(page)
    rows = page.evaluate(
        """() => {
          const { views } = charts.started.get(document.getElementById("figure-pareto"));
          const shown = views[0].getState({ data: () => true }).data;
          return Object.values(shown).map((set) => set.length ?? 0);
        }"""
    )
    first = table[(table.experiment == table.experiment[0]) & (table.cost == table.cost[0])]
    assert {len(first), first.front.sum()} <= set(rows)


def test_pictures_of_a_place_are_zoomed_together(opened):
    page = opened()
    page.get_by_role("button", name="Enlarge a06").click()
    boxes = "[...document.querySelectorAll('dialog svg')].map((s) => s.getAttribute('viewBox'))"
    assert page.evaluate(boxes) == ["0 0 64 48"] * 3
    page.keyboard.press("+")
    zoomed = page.evaluate(boxes)
    assert len(set(zoomed)) == 1
    assert float(zoomed[0].split()[2]) == pytest.approx(0.7 * 64)
    page.keyboard.press("ArrowRight")
    moved = page.evaluate(boxes)
    assert float(moved[2].split()[0]) == pytest.approx(0.15 * 64 + 0.07 * 64)
    page.keyboard.press("0")
    assert page.evaluate(boxes)[0] == "0 0 64 48"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


@pytest.mark.slow
def test_a_report_of_a_hundred_runs_stays_light(make_study, tmp_path):
    """What takes time to make and to open: bytes, shapes that are drawn, and rows that charts carry."""
    results, page = make_study(tmp_path, seeds=50, figures=[name for name in FIGURES if name != "kernels"])
    assert len(results.runs_of("ground")) == 100
    rows = re.findall(r'<script type="text/csv" class="rows">(.*?)</script>', page, re.S)
    assert len(page) - len(charts.library()) < 1_500_000
    assert page.count("<path") + page.count("<use") < 4000
    assert sum(text.count("\n") for text in rows) < 4000
