"""The tables of the report. Every number is taken from a study's tables, records or settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path

import pandas as pd

from rvkernels import registry
from rvkernels.checkpoint import read_meta
from rvkernels.compare import BASELINE
from rvkernels.divergence import CONTROL_FACTOR, FIRST, FIRST_BOUND, LONG
from rvkernels.facts import networks
from rvkernels.figures import metric_name, scientific, three_digits
from rvkernels.interval import ratio_bound
from rvkernels.results import Results

Cell = tuple[str, object]  # text, and what it is sorted by
EMPTY: Cell = ("", "")


@dataclass(frozen=True)
class Table:
    """A table of the page.

    heads    (title, unit) of every column; the first column's cells are heads of their rows
    quiet    rows that are set back
    numeric  columns of numbers
    facets   columns that it can be filtered by: (title, column, its values)
    """

    label: str
    caption: str
    heads: list[tuple[str, str]]
    rows: list[list[Cell]]
    quiet: frozenset[int]
    numeric: frozenset[int]
    facets: list[tuple[str, int, list[str]]]

    @property
    def id(self) -> str:
        return re.sub(r"\W+", "-", self.label.lower())


def table(
    label: str,
    caption: str,
    heads: dict[str, tuple[str, str]],
    rows: list[dict[str, Cell]],
    facets: Sequence[str] = (),
) -> Table:
    """Rows as dicts of cells by column; a column without any text is left out, and so are other keys than heads.

    `facets` names columns to filter by; those with one value only are no choice.
    """
    kept = [name for name in heads if any(row.get(name, EMPTY)[0] for row in rows)]
    values = {name: list(dict.fromkeys(row[name][0] for row in rows)) for name in facets}
    return Table(
        label,
        caption,
        [heads[name] for name in kept],
        [[row.get(name, EMPTY) for name in kept] for row in rows],
        quiet=frozenset(i for i, row in enumerate(rows) if "quiet" in row),
        numeric=frozenset(
            i for i, name in enumerate(kept) if any(isinstance(row.get(name, EMPTY)[1], Number) for row in rows)
        ),
        facets=[(heads[name][0], kept.index(name), found) for name, found in values.items() if len(found) > 1],
    )


def words(text: str) -> Cell:
    """A cell that is sorted by its text."""
    return (text, text)


def number(value: float, factor: float = 1.0) -> Cell:
    """Three digits, and thousands separated; empty for NaN."""
    if pd.isna(value):
        return EMPTY
    return (three_digits(value * factor), value * factor)


def span(mean: float, low: float, high: float, digits: int = 3, sign: bool = False) -> Cell:
    """Mean (low to high); only the mean when there is no interval."""
    if pd.isna(mean):
        return EMPTY
    text = f"{mean:{'+' * sign}.{digits}f}"
    if not (pd.isna(low) or pd.isna(high)):
        text += f" ({low:.{digits}f} to {high:.{digits}f})"
    return (text.replace("-", "−"), mean)


def ratio_span(mean: float, low: float, high: float) -> Cell:
    """A ratio with its interval."""
    if pd.isna(mean) or pd.isna(low) or pd.isna(high):
        return span(mean, low, high, digits=2)
    return (f"{mean:.2f} ({ratio_bound(low, '.2f')} to {ratio_bound(high, '.2f')})", mean)


def listing(items: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


# --- tables ----------------------------------------------------------------------------------------------------------


def results_table(results: Results) -> Table:
    """A row per experiment, model and framework, and one for the baseline of each experiment.

    The margin over the baseline is left to margins.csv when several frameworks have about the same.
    """
    unit_name, unit = results.training_unit
    rows, several = [], results.several_frameworks
    for name in results.experiments:
        runs = results.runs_of(name, baseline=True)
        for (model, framework), these in runs.groupby(["model", "framework"], sort=False):
            metric = these.primary.iloc[0]
            quality = _one(results.summary, name, model, framework, quantity=metric)
            margin = _one(results.margins, name, model, framework, metric=metric)
            value = span(quality["mean"], quality.low, quality.high)
            median = these.median(numeric_only=True)
            row = {
                "experiment": words(name),
                "task": words(results.experiments[name].task),
                "dataset": words(results.experiments[name].description["name"]),
                "model": words(model),
                "framework": words(framework),
                "seeds": number(len(these)),
                "quality": (f"{metric_name(metric)} {value[0]}", value[1]),
                "margin": EMPTY
                if margin is None or several
                else span(margin["mean"], margin.low, margin.high, sign=True),
                "training": number(median.get("train_epoch_s"), 1 / unit),
                "target": _target(_one(results.targets, name, model, framework)),
                "chips": number(median.get("chips_per_s")),
                "latency": number(median.get("latency_1_median_s"), 1000),
                "windows": number(median.get("predict_chips_per_s")),
                "memory": number(median.get("peak_rss_mb")),
                "device": number(median.get("peak_device_mb")),
            }
            rows.append({**row, "quiet": EMPTY} if model == BASELINE else row)
    count, valid = len(networks(results)), bool(results.runs.validated.all())
    checked = (
        "Every run passed its check: the saved weights, loaded anew, give the metric that training logged."
        if valid
        else "Some runs did not pass their check; see tables/runs.csv."
    )
    return table(
        "Results table",
        f"{count} training run{'' if count == 1 else 's'}. Quality is measured on the test split by the same code for "
        f"every row; costs are medians over seeds. {_targets_named(results)} {checked}",
        {
            "experiment": ("experiment", ""),
            "task": ("task", ""),
            "dataset": ("dataset", ""),
            "model": ("model", ""),
            "framework": ("framework", ""),
            "quality": ("quality", "mean and 95 % interval"),
            "margin": ("over the baseline", "mean and 95 % interval"),
            "training": ("training time", unit_name),
            "target": ("time to target", "s of training"),
            "chips": ("throughput", "chips/s, training"),
            "latency": ("latency", "ms, one chip"),
            "windows": ("prediction", "windows/s"),
            "memory": ("peak memory", "MiB"),
            "device": ("on the device", "MiB"),
            "seeds": ("seeds", ""),
        },
        rows,
        facets=("task", "dataset", "model", "framework"),
    )


def _one(rows: pd.DataFrame, experiment: str, model: str, framework: str, **more: str) -> pd.Series | None:
    keys = {"experiment": experiment, "model": model, "framework": framework, **more}
    for column, value in keys.items():
        rows = rows[rows[column] == value]
    return None if rows.empty else rows.iloc[0]


def _target(row: pd.Series | None) -> Cell:
    if row is None:
        return EMPTY
    text, value = number(row.median_s)
    never = f"{row.runs - row.reached} of {row.runs} runs never reach it"
    if row.reached == row.runs:
        return (text, value)
    return (f"{text}; {never}", value) if text else (never, float("inf"))


def _targets_named(results: Results) -> str:
    named = [
        f"{metric_name(e.settings['train']['metric'])} {e.settings['target']:g} for {name}"
        for name, e in results.experiments.items()
        if e.settings["target"] is not None
    ]
    if not named:
        return "The study names no target quality."
    none = [name for name, e in results.experiments.items() if e.settings["target"] is None]
    rest = f" The study names none for {listing(none)}." if none else ""
    return f"Time to target is the median until validation reaches {listing(named)}, in whole epochs of training.{rest}"


def pairs_table(results: Results) -> Table:
    """A row per model and pair of frameworks: the difference in quality, equivalence in words, ratios of costs."""
    rows = []
    for (experiment, model, a, b), these in results.pairs.groupby(["experiment", "model", "a", "b"], sort=False):
        by_name = these.set_index("quantity")
        metric = results.runs[(results.runs.experiment == experiment) & (results.runs.model == model)].primary.iloc[0]
        row = {"what": words(f"{experiment} · {model}"), "pair": words(f"{a} vs {b}")}
        if metric in by_name.index:
            difference = by_name.loc[metric]
            text, value = span(difference["mean"], difference.low, difference.high, digits=4, sign=True)
            row["difference"] = (f"{metric_name(metric)} {text}", value)
            row["equivalent"] = words(verdict(difference))
        for name in ("train_epoch_s", "step_median_s", "latency_1_median_s", "peak_rss_mb"):
            if name in by_name.index:
                ratio = by_name.loc[name]
                row[name] = ratio_span(ratio.ratio, ratio.ratio_low, ratio.ratio_high)
        rows.append(row)
    return table(
        "Pairs of frameworks",
        "Differences are paired by seed, with 95 % t intervals; ratios are of geometric means, with intervals on the "
        "logarithmic scale, and above 1 where the framework named first costs more. Equivalent means that two "
        "one-sided t tests at 5 % place the mean difference within the margin, which the study names; p is the larger "
        "of both, and is not corrected for several pairs. Not shown does not mean different.",
        {
            "what": ("experiment · model", ""),
            "pair": ("frameworks", ""),
            "difference": ("difference in quality", "mean and 95 % interval"),
            "equivalent": ("equivalence", ""),
            "train_epoch_s": ("training time", "ratio"),
            "step_median_s": ("step", "ratio"),
            "latency_1_median_s": ("latency", "ratio, one chip"),
            "peak_rss_mb": ("peak memory", "ratio"),
        },
        rows,
    )


def verdict(pair: pd.Series) -> str:
    """The test of equivalence of a row of frameworks.csv in words."""
    if pd.isna(pair.margin):
        return "no margin named"
    if pd.isna(pair.equivalent):
        return f"not tested: {pair['count']} seed{'' if pair['count'] == 1 else 's'}"
    p = max(pair.p_lower, pair.p_upper)
    probability = f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
    return f"{'equivalent' if pair.equivalent else 'not shown'} within ±{pair.margin:g} ({probability})"


def divergence_table(results: Results) -> Table:
    """The largest divergence of every framework over its seeds, and the control's."""
    rows = []
    found = results.divergence
    for (experiment, model, framework, control), these in found.groupby(
        ["experiment", "model", "framework", "control"], sort=False
    ):
        threads = f"{these.threads.iloc[0]:.0f} thread{'' if these.threads.iloc[0] == 1 else 's'}"
        row = {
            "what": words(f"{experiment} · {model}"),
            "framework": words(f"{framework}, {threads} (control)" if control else framework),
            "seeds": number(len(these)),
            "first": (scientific(these.first_20.max()), these.first_20.max()),
            "long": (scientific(these.first_200.max()), these.first_200.max()),
            "end": (scientific(these.end.max()), these.end.max()),
            "times": EMPTY if control else number(these.times_control.max()),
        }
        rows.append({**row, "quiet": EMPTY} if control else row)
    return table(
        "Divergence of the losses",
        "Relative difference of the loss of a step to that of the study's first framework, which began with the same "
        "weights and saw the same batches; the largest over seeds. The control is the first framework itself with "
        f"another number of threads, and with that another order of summation; where it ran with one seed only, "
        f"multiples of it are of that seed. Bounds: {FIRST_BOUND:g} in the first {FIRST} steps, and {CONTROL_FACTOR:g} "
        f"times the control over {LONG}; shorter runs count as far as they go.",
        {
            "what": ("experiment · model", ""),
            "framework": ("framework", ""),
            "seeds": ("seeds", ""),
            "first": (f"first {FIRST} steps", "largest"),
            "long": (f"first {LONG} steps", "largest"),
            "end": ("at the end", f"median of {FIRST} steps"),
            "times": ("of the control's", f"times, {LONG} steps"),
        },
        rows,
    )


TIMES = {
    "import_s": ("import", "s", 1.0),
    "build_s": ("build", "s", 1.0),
    "first_step_s": ("first step", "s", 1.0),
    "step_median_s": ("step", "ms, median", 1000.0),
    "step_cpu_median_s": ("CPU time of a step", "ms, median", 1000.0),
    "passes_share": ("forward and backward of a step", "%", 100.0),
    "train_epoch_s": ("all training", "s", 1.0),
    "wait_s": ("of it waiting for data", "s", 1.0),
    "data_wait_share": ("waiting for data", "%", 100.0),
    "val_epoch_s": ("all validation", "s", 1.0),
    "predict_total_s": ("prediction of the test split", "s", 1.0),
    "latency_1_median_s": ("predict 1 chip", "ms, median", 1000.0),
    "latency_32_median_s": ("predict 32 chips", "ms, median", 1000.0),
}


def times_table(results: Results) -> Table:
    """Where the time goes, set-up and compilation apart."""
    rows = []
    for name in results.experiments:
        for (model, framework), these in results.runs_of(name).groupby(["model", "framework"], sort=False):
            median = these.median(numeric_only=True)
            cells = {column: number(median.get(column), factor) for column, (_, _, factor) in TIMES.items()}
            rows.append({"what": words(f"{name} · {model}"), "framework": words(framework), **cells})
    return table(
        "Where the time goes",
        "Medians over seeds. Import of the framework, building of the network and the first step, in which compilation "
        "shows, come once and are in no time of a step; the first steps after a start are left out of all medians. "
        "The share of the forward and backward pass in a step is timed after the training, by calls without the update "
        "in turns with whole steps.",
        {
            "what": ("experiment · model", ""),
            "framework": ("framework", ""),
            **{column: (title, unit) for column, (title, unit, _) in TIMES.items()},
        },
        rows,
    )


def kernels_table(results: Results) -> Table:
    """A row per kernel, case and number of threads."""
    about = results.kernels_machine
    rows = []
    for row in results.kernels.itertuples():
        floor = EMPTY if pd.isna(row.ratio_to_floor) else (f"{row.ratio_to_floor:.0%}", row.ratio_to_floor)
        times = (EMPTY if pd.isna(s) else (seconds(s), s) for s in (row.ours_s, row.peer_s, row.floor_s))
        rows.append(
            {
                "kernel": words(row.kernel),
                "case": words(row.case),
                "threads": words("all" if row.threads == 0 else str(row.threads)),
                **dict(zip(("ours", "peer_s", "floor_s"), times)),
                "peer": words("none" if pd.isna(row.peer) else row.peer),
                "ratio": EMPTY if pd.isna(row.ratio_to_fastest_peer) else number(row.ratio_to_fastest_peer),
                "floor": floor,
            }
        )
    inputs = "Small inputs (rvk bench --quick)" if about["quick"] else "Full inputs (rvk bench)"
    return table(
        "Times of the kernels",
        f"{inputs} on {about['machine']['cpu']} with {about['machine']['usable_cores']} cores. Medians of rounds in "
        "which the kernel and its peers took turns, after their results were compared. The ratio says how many times "
        "as fast as the fastest peer the kernel is; the share of the floor, how near it comes to what no "
        "implementation can undercut.",
        {
            "kernel": ("kernel", ""),
            "case": ("case", ""),
            "threads": ("threads", ""),
            "ours": ("kernel's time", "median"),
            "peer": ("fastest peer", ""),
            "peer_s": ("its time", "median"),
            "ratio": ("ratio", "peer / kernel"),
            "floor_s": ("floor", "median"),
            "floor": ("share of the floor", "floor / kernel"),
        },
        rows,
    )


def seconds(value: float) -> str:
    """With three digits, in the unit that suits."""
    scale, unit = next(((s, u) for s, u in ((1e6, "µs"), (1e3, "ms")) if value * s < 999.5), (1, "s"))
    return f"{value * scale:.3g} {unit}"


# --- fairness --------------------------------------------------------------------------------------------------------


def fairness(results: Results, same: list[str]) -> list[str]:
    """What is equal between the frameworks (`same`) and what is not, as looked up in checkpoints and records."""
    sentences = []
    if same:
        sentences.append(
            "Equal in all frameworks, for every model and seed, as the digests and settings in the checkpoints and the "
            f"records say: {listing(same)}."
        )
    for row in results.equal[~results.equal.equal.astype(bool)].itertuples():
        note = "; the comparison is not weight-identical" if row.what == "initial weights" else ""
        sentences.append(f"Not equal for {row.experiment} · {row.model}: {row.what} ({row.values}){note}.")
    versions = _by_framework(results, results.study["frameworks"])
    differing = [key for key, values in versions.items() if len(values) > 1 and len(set(values.values())) > 1]
    if differing:
        sentences.append(f"Software that differs between the frameworks' environments: {listing(differing)}.")
    own: dict[str, list[str]] = {}
    for key, values in versions.items():
        if len(values) == 1:
            framework, value = next(iter(values.items()))
            own.setdefault(framework, []).append(f"{key} {value}")
    if own:
        alone = listing(f"{framework} ({'; '.join(notes)})" for framework, notes in own.items())
        sentences.append(f"Recorded by one framework alone: {alone}.")
    sentences.append(
        "Frameworks ran one per process. Each sums in its own order, so that losses agree to rounding at first and "
        "drift apart then."
    )
    return sentences


def _by_framework(results: Results, frameworks: Iterable[str]) -> dict[str, dict[str, str]]:
    """Software key -> framework -> version, over all records."""
    found: dict[str, dict[str, list[str]]] = {}
    for framework in frameworks:
        for _, run in results.runs[results.runs.framework == framework].iterrows():
            for key, value in results.record(run)["software"].items():
                known = found.setdefault(key, {}).setdefault(framework, [])
                if str(value) not in known:
                    known.append(str(value))
    return {key: {f: "; ".join(values) for f, values in by.items()} for key, by in found.items()}


def software_table(results: Results) -> Table:
    """Versions, a column per framework."""
    frameworks = list(dict.fromkeys([*results.study["frameworks"], *results.runs.framework]))
    versions = _by_framework(results, frameworks)
    return table(
        "Software of the runs",
        "Software of the runs",
        {"what": ("what", ""), **{f: (f, "") for f in frameworks}},
        [{"what": words(key), **{f: words(v) for f, v in values.items()}} for key, values in versions.items()],
    )


# --- repeating -------------------------------------------------------------------------------------------------------


def target(results: Results, row: pd.Series) -> str:
    """The file of a run that holds its number, as the workflow names it."""
    return f"results/{results.study['study']}/runs/{Path(row.record).parent.as_posix()}/eval.json"


def command(results: Results, row: pd.Series | None = None) -> str:
    """What repeats the study, or one run of it, in a checkout that has the settings as study.yaml."""
    arguments = "" if row is None else f" ARGS={target(results, row)}"
    return f"make study CONFIG=study.yaml{arguments}"


def runs_table(results: Results) -> Table:
    """A row per run: its number, and what tells whether a repetition is the same."""
    unit_name, unit = results.training_unit
    rows = []
    for name in results.experiments:
        for _, run in results.runs_of(name, baseline=True).iterrows():
            metric, record = run.primary, results.record(run)
            row = {
                "run": words(Path(run.record).parent.as_posix()),
                "quality": (f"{metric_name(metric)} {run[metric]:.4f}", run[metric]),
                "steps": number(run.get("steps")),
                "training": number(run.get("train_epoch_s"), 1 / unit),
                "started": words(str(record.get("started", ""))),
                "checked": words("passed" if run.validated else "failed"),
                "command": words(command(results, run)),
            }
            if run.model != BASELINE:
                identity = read_meta(results.run_folder(run) / "best.npz")["identity"]
                row |= {"weights": words(identity["weights"][:12]), "chips": words(identity["chips"][:12])}
            rows.append(row)
    return table(
        "All runs",
        "The quality of every run with four digits, and the command that repeats it. Digests (SHA-256, 12 digits) "
        "are of the initial weights and of the chips; a repetition with the same digests began from the same.",
        {
            "run": ("run", "experiment/model/framework/seed"),
            "quality": ("quality", "test split"),
            "steps": ("steps", ""),
            "training": ("training", unit_name),
            "weights": ("initial weights", "digest"),
            "chips": ("chips", "digest"),
            "checked": ("check", ""),
            "started": ("started", "UTC"),
            "command": ("command", ""),
        },
        rows,
    )


def data_table(results: Results) -> Table:
    """A row per file of every dataset with its checksum; one that is drawn, or the user's own, has none."""
    rows = []
    for title, description in {e.description["title"]: e.description for e in results.experiments.values()}.items():
        drawn = hasattr(registry.load("datasets", description["form"]), "draw")
        files = description["files"] or [
            {
                "name": "none: drawn from a seed by rvkernels"
                if drawn
                else "none: files that the description's layout names"
            }
        ]
        for file in files:
            kind = next((k for k in ("sha256", "content_sha256", "md5") if k in file), None)
            rows.append(
                {
                    "dataset": words(title),
                    "file": words(file["name"]),
                    "kind": words({"content_sha256": "SHA-256 of the contents"}.get(kind, (kind or "").upper())),
                    "checksum": words(file.get(kind, "")),
                }
            )
    return table(
        "Data files",
        "A file with a checksum is checked against it before anything reads it.",
        {
            "dataset": ("dataset", ""),
            "file": ("file", ""),
            "kind": ("checksum", "kind"),
            "checksum": ("checksum", ""),
        },
        rows,
    )


def leaks_table(results: Results, name: str) -> Table:
    """Of each pair of splits, how many chips look like one of the other."""
    found = results.experiments[name].leaks
    alike, chips = found["duplicates"], sum(found["chips"].values())
    rows = [
        {
            "split": words(pair["split"]),
            "against": words(pair["against"]),
            "of": number(pair["of"]),
            "exact": number(pair["exact"]),
            "near": number(pair["near"]),
        }
        for pair in alike["pairs"]
    ]
    ground = "No chips of two splits show the same ground"
    if found["overlap"]:
        ground = f"This study lets splits share ground, and its test says nothing of other places: {found['overlap']}"
    return table(
        f"Between splits: {name}",
        f"{ground}; {found['georeferenced']} of {chips} were compared by place, "
        "the others within their scene. Chips can look alike without it, such as open water, or be one picture under "
        "two names: counted are those with the very pixels of a chip of the other split, and further ones whose 64-bit "
        f"difference hash differs from one of its in at most {alike['bits']} bits, with a correlation of at least "
        f"{alike['correlation']:g}.",
        {
            "split": ("chips of", ""),
            "against": ("in", ""),
            "of": ("chips", ""),
            "exact": ("the same", "chips"),
            "near": ("nearly the same", "chips"),
        },
        rows,
    )


def published_table(results: Results, name: str) -> Table | None:
    """Published results beside every model and framework of the study; None without any."""
    experiment = results.experiments[name]
    published = experiment.description.get("published", [])
    if not published:
        return None
    rows = [
        {
            "what": words(p["what"]),
            "metric": words(metric_name(p["metric"])),
            "value": (f"{p['value']:g}", p["value"]),
            "source": words(p["source"]),
        }
        for p in published
    ]
    metric = results.runs_of(name).primary.iloc[0]
    own = results.summary[(results.summary.experiment == name) & (results.summary.quantity == metric)]
    for row in own.itertuples():
        rows.append(
            {
                "what": words("baseline" if row.model == BASELINE else f"{row.model} in {row.framework}"),
                "metric": words(metric_name(metric)),
                "value": span(row.mean, row.low, row.high),
                "source": words("this study"),
            }
        )
    return table(
        f"Published results: {name}",
        "For orientation, beside ours: protocols differ, see each source.",
        {"what": ("what", ""), "metric": ("metric", ""), "value": ("value", ""), "source": ("source", "")},
        rows,
    )
