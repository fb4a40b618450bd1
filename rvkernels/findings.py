"""What the report says in words and tables. Every number is taken from a study's tables, records or settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path

import numpy as np
import pandas as pd

from rvkernels.checkpoint import read_meta
from rvkernels.compare import BASELINE
from rvkernels.divergence import CONTROL_FACTOR, FIRST, FIRST_BOUND, LONG
from rvkernels.figures import metric_name, scientific
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
    value *= factor
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}", value)


def span(mean: float, low: float, high: float, digits: int = 3, sign: bool = False) -> Cell:
    """Mean (low to high); only the mean when there is no interval."""
    if pd.isna(mean):
        return EMPTY
    text = f"{mean:{'+' * sign}.{digits}f}"
    if not (pd.isna(low) or pd.isna(high)):
        text += f" ({low:.{digits}f} to {high:.{digits}f})"
    return (text.replace("-", "−"), mean)


def ratio_span(mean: float, low: float, high: float) -> Cell:
    """A ratio with its interval; bounds that few seeds push beyond 0.01 or 100 are only said to be there."""
    if pd.isna(mean) or pd.isna(low) or pd.isna(high):
        return span(mean, low, high, digits=2)
    lowest = f"{low:.2f}" if low >= 0.01 else "below 0.01"
    highest = f"{high:.2f}" if high <= 100 else "above 100"
    return (f"{mean:.2f} ({lowest} to {highest})", mean)


def listing(items: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


# --- sentences -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a reader wants to know first: a question, answered in a few words and in sentences with the numbers."""

    question: str
    short: str
    sentence: str


def answers(results: Results) -> list[Answer]:
    """The questions that the study answers."""
    several = [_fastest, _equally_good] if results.several_frameworks else [_best]
    return [answer(results) for answer in (*several, _cost)]


def details(results: Results) -> list[str]:
    """What the answers rest on, in sentences."""
    sentences = [_quality(results, name) for name in results.experiments]
    if results.several_frameworks:
        sentences += [_speed(results), _drift(results), _own_models(results)]
    return [sentence for sentence in sentences if sentence]


def scope(results: Results) -> str:
    """What the study covers."""
    networks = results.runs[results.runs.model != BASELINE]
    models, seeds = networks.model.unique(), networks.seed.unique()
    frameworks = _in_order(results, networks.framework.unique())
    titles = dict.fromkeys(e.description["title"] for e in results.experiments.values())
    counts = (
        (len(networks), "training run"),
        (len(results.experiments), "experiment"),
        (len(models), "model"),
        (len(seeds), "seed"),
    )
    named = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)
    return f"{named}, in {listing(frameworks)}, on {listing(titles)}."


# What has to be equal for times to be those of the frameworks, as rvkernels.compare names it.
CONDITIONS = ("precision", "compilation", "threads", "device", "machine")


def _fastest(results: Results) -> Answer:
    """Whose steps are shortest, how much longer the others' are, and how much of that may be chance."""
    question = "Which framework is fastest?"
    pairs = results.pairs[results.pairs.quantity == "step_median_s"]
    # Both ways round: how many times as long a step takes in `slow` as in `fast`.
    ways = [
        pairs.assign(fast=pairs.b, slow=pairs.a, times=pairs.ratio, low=pairs.ratio_low, high=pairs.ratio_high),
        pairs.assign(
            fast=pairs.a,
            slow=pairs.b,
            times=1 / pairs.ratio,
            low=1 / pairs.ratio_high,
            high=1 / pairs.ratio_low,
        ),
    ]
    both = pd.concat(ways).dropna(subset="times")
    if both.empty:
        return Answer(question, "Not measured", "No model has step times in several frameworks.")
    models = both.groupby(["experiment", "model"], sort=False)
    first = models[["fast", "times"]].apply(lambda rows: rows.groupby("fast").times.min().idxmax())
    wins = first.value_counts()
    # Of those that are first as often, the one that is faster on the whole.
    leader = min(wins[wins == wins.max()].index, key=lambda name: -np.log(both[both.fast == name].times).mean())
    others = both[both.fast == leader]
    times = listing(
        f"{_range(others[others.slow == name].times)} times as long in {name}"
        for name in _in_order(results, others.slow.unique())
    )
    where = f" in {wins[leader]} of {len(first)} models" if len(first) > 1 else ""
    known = others.dropna(subset=["low", "high"])
    beyond = ((known.low > 1) | (known.high < 1)).sum()
    chance = (
        f"{beyond} of {len(known)} comparisons with it are beyond chance (95 % intervals over seeds)."
        if len(known)
        else "With one seed it is not known what of this is chance."
    )
    unequal = results.equal[~results.equal.equal.astype(bool)].what.unique()
    differing = [what for what in CONDITIONS if what in unequal]
    apart = f" The frameworks did not run alike: {listing(differing)} differ." if differing else ""
    return Answer(question, f"{leader}{where}", f"A training step takes {times}. {chance}{apart}")


def _in_order(results: Results, names: Iterable[str]) -> list[str]:
    return sorted(names, key=results.study["frameworks"].index)


def _range(values: pd.Series) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"


def _equally_good(results: Results) -> Answer:
    question = "Are they equally good?"
    done = results.pairs[results.pairs.equivalent.notna()]
    if done.empty:
        return Answer(question, "Not tested", f"{_equivalence(results)}")
    largest = done.loc[done["mean"].abs().idxmax()]
    low, high = done["count"].min(), done["count"].max()
    seeds = f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
    return Answer(
        question,
        f"Shown for {done.equivalent.sum()} of {len(done)} pairs",
        f"{_equivalence(results)} The largest mean difference is {abs(largest['mean']):.3f} "
        f"{metric_name(largest.quantity)} ({largest.model}, {largest.a} against {largest.b}), over {seeds} seeds.",
    )


def _cost(results: Results) -> Answer:
    """Training times and memory from least to most, and on which machine."""
    networks = results.runs[results.runs.model != BASELINE]
    groups = networks.groupby(["experiment", "model", "framework"])
    minutes, memory = groups.train_epoch_s.median() / 60, groups.peak_rss_mb.median()
    least, most = minutes.idxmin(), minutes.idxmax()
    machines = {results.record(row)["machine"]["cpu"]: results.record(row)["machine"] for _, row in networks.iterrows()}
    where = listing(f"{cpu} with {m['usable_cores']} cores" for cpu, m in machines.items())
    total = number(networks.train_epoch_s.sum(), 1 / 60)[0]
    ends = _ends(minutes)
    named = f" ({_named(least)} to {_named(most)})" if least != most else ""
    return Answer(
        "What does it cost?",
        f"{ends} minutes a training",
        f"A training takes {ends} minutes{named} and {_ends(memory)} MiB of memory at its peak (medians over seeds). "
        f"All runs together trained for {total} minutes on {where}.",
    )


def _ends(values: pd.Series) -> str:
    low, high = number(values.min())[0], number(values.max())[0]
    return low if low == high else f"{low} to {high}"


def _named(key: tuple[str, str, str]) -> str:
    experiment, model, framework = key
    return f"{model} on {experiment} in {framework}"


def _best(results: Results) -> Answer:
    """The best model of every experiment beside its baseline."""
    found, beaten = [], 0
    for name in results.experiments:
        runs = results.runs_of(name, baseline=True)
        metric = runs.primary.iloc[0]
        means = runs.groupby("model")[metric].mean()
        best, base = means.drop(BASELINE), means[BASELINE]
        beaten += best.max() > base
        found.append(
            f"{best.idxmax()} reaches {metric_name(metric)} {best.max():.3f} on the test split of {name}, a logistic "
            f"regression on colours {base:.3f}"
        )
    short = f"Better than the baseline in {beaten} of {len(found)} experiments"
    if len(found) == 1:
        short = f"{metric_name(metric)} {best.max():.3f}"
    return Answer("How good is it?", short, f"{'; '.join(found)}.")


def _quality(results: Results, name: str) -> str:
    """The best model in every framework, and the baseline."""
    runs = results.runs_of(name, baseline=True)
    metric, experiment = runs.primary.iloc[0], results.experiments[name]
    networks = runs[runs.model != BASELINE]
    best = networks.groupby("model")[metric].mean().idxmax()
    means = networks[networks.model == best].groupby("framework", sort=False)[metric].mean()
    reached = listing(f"{value:.3f} in {framework}" for framework, value in means.items())
    base = runs[runs.model == BASELINE][metric].mean()
    return (
        f"{experiment.description['title']}, {experiment.task}: {best} reaches {metric_name(metric)} {reached} on the "
        f"test split, a logistic regression {base:.3f}."
    )


def _equivalence(results: Results) -> str:
    tests = results.pairs[results.pairs.margin.notna()]
    done = tests[tests.equivalent.notna()]
    if done.empty:
        return "Whether the frameworks are equivalent in quality is not tested: that takes two seeds or more."
    margins = done.drop_duplicates("quantity")
    named = listing(f"±{row.margin:g} {metric_name(row.quantity)}" for row in margins.itertuples())
    return (
        f"Equivalence of quality within {named} is shown for {done.equivalent.sum()} of {len(done)} pairs of "
        "frameworks (two one-sided t tests at 5 %, paired by seed)."
    )


def _speed(results: Results) -> str:
    """How much longer a step takes than in the first framework, over the models."""
    first = results.study["frameworks"][0]
    rows = results.pairs[(results.pairs.quantity == "step_median_s") & (results.pairs.b == first)]
    if rows.empty:
        return ""
    times = []
    for framework, ratios in rows.groupby("a", sort=False).ratio:
        low, high = f"{ratios.min():.2f}", f"{ratios.max():.2f}"
        times.append(f"{low if low == high else f'{low} to {high}'} times as long in {framework}")
    return f"Compared with {first}, a training step takes {listing(times)}."


def _drift(results: Results) -> str:
    apart = results.divergence[~results.divergence.control.astype(bool)]
    if apart.empty:
        return ""
    first = min(FIRST, apart.steps.max())
    text = (
        f"From the same weights and batches, the losses of the first {first} steps differ by at most "
        f"{scientific(apart.first_20.max())} between frameworks, relative to {apart.against.iloc[0]}, which is "
        f"{_bound(apart.within_first_20)} of {FIRST_BOUND:g}."
    )
    measured = apart[apart.times_control.notna()]
    if measured.empty:
        return text
    return (
        f"{text} Over {min(LONG, measured.steps.max())} steps they drift apart by at most "
        f"{measured.times_control.max():.2g} times what another order of summation does in one framework with the same "
        f"seed, which is {_bound(measured.within_control)} of {CONTROL_FACTOR:g} times."
    )


def _own_models(results: Results) -> str:
    own = results.runs[~results.runs.weight_identical.fillna(True)].model.unique()
    if not len(own):
        return ""
    return f"The comparison is not weight-identical for {listing(own)}: each framework makes its own initial weights."


def _bound(held: pd.Series) -> str:
    return "within the bound" if held.all() else "beyond the bound"


# --- tables ----------------------------------------------------------------------------------------------------------


def results_table(results: Results) -> Table:
    """A row per experiment, model and framework, and one for the baseline of each experiment.

    The margin over the baseline is left to margins.csv when several frameworks have about the same.
    """
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
                "minutes": number(median.get("train_epoch_s"), 1 / 60),
                "target": _target(_one(results.targets, name, model, framework)),
                "chips": number(median.get("chips_per_s")),
                "latency": number(median.get("latency_1_median_s"), 1000),
                "windows": number(median.get("predict_chips_per_s")),
                "memory": number(median.get("peak_rss_mb")),
                "device": number(median.get("peak_device_mb")),
            }
            rows.append({**row, "quiet": EMPTY} if model == BASELINE else row)
    networks = results.runs[results.runs.model != BASELINE]
    count, valid = len(networks), bool(results.runs.validated.all())
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
            "minutes": ("training time", "minutes"),
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
        return f"not tested: {pair['count']} seed"
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


def fairness(results: Results) -> list[str]:
    """What is equal between the frameworks and what is not, as looked up in checkpoints and records."""
    equal = results.equal.groupby("what", sort=False).equal.all()
    same = [what for what, held in equal.items() if held]
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
    rows = []
    for name in results.experiments:
        for _, run in results.runs_of(name, baseline=True).iterrows():
            metric, record = run.primary, results.record(run)
            row = {
                "run": words(Path(run.record).parent.as_posix()),
                "quality": (f"{metric_name(metric)} {run[metric]:.4f}", run[metric]),
                "steps": number(run.get("steps")),
                "minutes": number(run.get("train_epoch_s"), 1 / 60),
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
            "minutes": ("training", "minutes"),
            "weights": ("initial weights", "digest"),
            "chips": ("chips", "digest"),
            "checked": ("check", ""),
            "started": ("started", "UTC"),
            "command": ("command", ""),
        },
        rows,
    )


def data_table(results: Results) -> Table:
    """A row per file of every dataset with its checksum; a dataset that is drawn has none."""
    rows = []
    for title, description in {e.description["title"]: e.description for e in results.experiments.values()}.items():
        files = description["files"] or [{"name": "none: drawn from a seed by rvkernels"}]
        for file in files:
            kind = next((k for k in ("sha256", "content_sha256", "md5") if k in file), None)
            rows.append(
                {
                    "dataset": words(title),
                    "file": words(file["name"]),
                    "bytes": number(file.get("size", float("nan"))),
                    "kind": words({"content_sha256": "SHA-256 of the contents"}.get(kind, (kind or "").upper())),
                    "checksum": words(file.get(kind, "")),
                }
            )
    return table(
        "Data files",
        "Every file is checked against its checksum before anything reads it.",
        {
            "dataset": ("dataset", ""),
            "file": ("file", ""),
            "bytes": ("size", "bytes"),
            "kind": ("checksum", "kind"),
            "checksum": ("checksum", ""),
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
                "what": words(f"{row.model} in {row.framework}"),
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
