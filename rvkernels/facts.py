"""What a study found, each number with where it is from; the page, the post and the surprises put it into words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
import pandas as pd

from rvkernels.compare import BASELINE
from rvkernels.divergence import FIRST, LONG
from rvkernels.figures import three_digits
from rvkernels.results import Experiment, Results

# What has to be equal for times to be those of the frameworks, as rvkernels.compare names it.
CONDITIONS = ("precision", "compilation", "threads", "device", "machine")
# How a number is written: as format() has it, or by a function.
Form = Union[str, Callable[[float], str]]


@dataclass(frozen=True)
class Number:
    """A value, and the table, record or setting that it is from."""

    value: float
    source: str

    def text(self, form: Form = three_digits) -> str:
        return form(self.value) if callable(form) else format(self.value, form)


class Numbers:
    """Writes numbers, and notes what was written, its value and its source."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, float, str], None] = {}

    def __call__(self, number: Number, form: Form = three_digits) -> str:
        text = number.text(form)
        self._noted[text, number.value, number.source] = None
        return text

    @property
    def rows(self) -> list[tuple[str, float, str]]:
        """(text, value, source) of every number, once."""
        return list(self._noted)


@dataclass(frozen=True)
class Reach:
    """The least and the largest of several values."""

    low: Number
    high: Number

    @staticmethod
    def of(values: pd.Series, source: str) -> Reach:
        return Reach(Number(values.min(), f"{source}, least"), Number(values.max(), f"{source}, largest"))

    def said(self, say: Callable[[Number, Form], str], form: Form = three_digits) -> str:
        """Both ends; one where they are written alike."""
        low = say(self.low, form)
        return low if self.low.text(form) == self.high.text(form) else low + " to " + say(self.high, form)


@dataclass(frozen=True)
class Quality:
    """How well the best model of an experiment does on the test split.

    value       mean over frameworks and seeds; each: per framework
    base        of the baseline; None without one
    surely      whether the interval of the margin over the baseline is above 0 in every framework
    """

    experiment: Experiment
    classes: Number
    chips: Number | None
    metric: str
    best: str
    value: Number
    each: list[tuple[str, Number]]
    base: Number | None
    surely: bool

    @property
    def better(self) -> bool:
        return self.base is not None and self.value.value > self.base.value


@dataclass(frozen=True)
class Cost:
    """Time (in Facts.training_unit) and MiB that a training of an experiment takes, medians over seeds, and of which
    (model, framework)."""

    experiment: str
    least: Number
    most: Number
    least_of: tuple[str, str]
    most_of: tuple[str, str]
    memory: Reach


@dataclass(frozen=True)
class Speed:
    """Times of steps beside those of the framework that is first for most models.

    wins, models    for how many of the models it is first
    others          per framework how many times as long a step takes, over the models
    beyond, tested  comparisons whose 95 % interval over seeds leaves out 1, of those that have one
    differing       of CONDITIONS, what was not the same in all frameworks
    """

    leader: str
    wins: Number
    models: Number
    others: list[tuple[str, Reach]]
    beyond: Number
    tested: Number
    differing: list[str]


@dataclass(frozen=True)
class Equivalence:
    """Pairs of frameworks whose quality two one-sided tests show to be the same within a margin, of those tested.

    largest     mean difference, of `metric`, and of which experiment, model and pair
    """

    shown: Number
    tested: Number
    margins: list[tuple[Number, str]]
    largest: Number
    metric: str
    experiment: str
    model: str
    pair: tuple[str, str]
    seeds: Reach


@dataclass(frozen=True)
class Drift:
    """How far losses from the same weights and batches drift apart, relative to those of the framework `against`.

    first       the largest over the first `steps`; end: over the median of the last ones
    control     the largest in multiples of the control's, over `control_steps`; None without a control
    """

    against: str
    steps: Number
    first: Number
    end: Number
    within: bool
    control: Number | None
    control_steps: Number | None
    within_control: bool


@dataclass(frozen=True)
class Facts:
    """All that is said of a study. Frameworks are in its order; None: not measured.

    minutes     of all trainings together; training_unit is what the time of one is told in
    machines    processors with the cores that were used
    commits     of the code that made the runs, and whether it had further changes
    equal       what is the same in all frameworks for every model and seed; unequal: what is not
    own_models  models whose frameworks make their own initial weights
    pretrained  (model and experiment, file) of networks that start from the weights of a file
    beating     how many experiments' best models are better than the baseline
    """

    runs: Number
    experiments: Number
    models: Number
    seeds: Number
    frameworks: list[str]
    minutes: Number
    training_unit: str
    machines: list[tuple[str, Number]]
    gpus: list[str]
    commits: dict[str, bool]
    validated: bool
    qualities: list[Quality]
    costs: list[Cost]
    speed: Speed | None
    equivalence: Equivalence | None
    drift: Drift | None
    equal: list[str]
    unequal: list[str]
    own_models: list[str]
    pretrained: list[tuple[str, str]]
    beating: Number

    @property
    def cheapest(self) -> Cost:
        return min(self.costs, key=lambda cost: cost.least.value)

    @property
    def dearest(self) -> Cost:
        return max(self.costs, key=lambda cost: cost.most.value)

    @property
    def memory(self) -> Reach:
        low = min((cost.memory.low for cost in self.costs), key=lambda number: number.value)
        return Reach(low, max((cost.memory.high for cost in self.costs), key=lambda number: number.value))


def networks(results: Results) -> pd.DataFrame:
    """Rows of runs.csv without the baselines'."""
    return results.runs[results.runs.model != BASELINE]


def facts(results: Results) -> Facts:
    """What the study's tables and records say."""
    runs = networks(results)
    records = [results.record(row) for _, row in runs.iterrows()]
    machines = {record["machine"]["cpu"]: record["machine"] for record in records}
    commits: dict[str, bool] = {}
    for software in (record["software"] for record in records):
        if "commit" in software:
            commits[software["commit"]] = commits.get(software["commit"], False) or software["dirty"]
    equal = results.equal.groupby("what", sort=False).equal.all().astype(bool)
    own = ~runs.weight_identical.fillna(True).astype(bool)
    qualities = [_quality(results, experiment) for experiment in results.experiments.values()]
    return Facts(
        runs=Number(len(runs), "tables/runs.csv: networks"),
        experiments=Number(len(results.experiments), "tables/study.json: experiments"),
        models=Number(runs.model.nunique(), "tables/runs.csv: models"),
        seeds=Number(runs.seed.nunique(), "tables/runs.csv: seeds"),
        frameworks=[f for f in results.study["frameworks"] if f in set(runs.framework)],
        minutes=Number(runs.train_epoch_s.sum() / 60, "tables/runs.csv: sum of train_epoch_s / 60"),
        training_unit=results.training_unit[0],
        machines=[(cpu, Number(m["usable_cores"], "record.json: usable_cores")) for cpu, m in machines.items()],
        gpus=sorted({gpu["name"] for machine in machines.values() for gpu in machine.get("gpus", [])}),
        commits=commits,
        validated=bool(results.runs.validated.all()),
        qualities=qualities,
        costs=[_cost(results, name) for name in results.experiments],
        speed=_speed(results),
        equivalence=_equivalence(results),
        drift=_drift(results),
        equal=list(equal.index[equal]),
        unequal=list(equal.index[~equal]),
        own_models=list(runs.model[own].unique()),
        pretrained=[
            (f"{model} on {name}", Path(entry["file"]).name)
            for name, experiment in results.experiments.items()
            for model, entry in experiment.settings.get("pretrained", {}).items()
        ],
        beating=Number(
            sum(q.better for q in qualities), "tables/runs.csv: experiments with a model above the baseline"
        ),
    )


def _quality(results: Results, experiment: Experiment) -> Quality:
    name = experiment.name
    runs = results.runs_of(name, baseline=True)
    metric = runs.primary.iloc[0]
    means = runs.groupby("model")[metric].mean()
    base = means.pop(BASELINE) if BASELINE in means else float("nan")
    best = means.idxmax()
    each = runs[runs.model == best].groupby("framework", sort=False)[metric].mean()
    chips = results.record(runs.iloc[0])["result"].get("train_chips")
    margins = results.margins
    margins = margins[(margins.experiment == name) & (margins.metric == metric) & (margins.model == best)]
    holds = margins.drop_duplicates("framework").holds
    return Quality(
        experiment=experiment,
        classes=Number(len(experiment.classes), f"dataset of {name}: classes"),
        chips=None if chips is None else Number(chips, f"record.json: train_chips of {name}"),
        metric=metric,
        best=best,
        value=Number(means[best], f"tables/runs.csv: mean {metric} on {name} over frameworks and seeds, {best}"),
        each=[
            (framework, Number(value, f"tables/summary.csv: mean {metric}, {best} on {name} in {framework}"))
            for framework, value in each.items()
        ],
        base=None if pd.isna(base) else Number(base, f"tables/runs.csv: {metric} on {name}, baseline"),
        surely=bool(len(holds) and holds.notna().all() and holds.astype(bool).all()),
    )


def _cost(results: Results, name: str) -> Cost:
    runs = results.runs_of(name).groupby(["model", "framework"])
    unit, seconds = results.training_unit
    times, where = runs.train_epoch_s.median() / seconds, f"tables/runs.csv: train_epoch_s in {unit} on {name}"
    least, most = times.idxmin(), times.idxmax()
    return Cost(
        experiment=name,
        least=Number(times[least], f"{where}, median over seeds, {least[0]} in {least[1]}"),
        most=Number(times[most], f"{where}, median over seeds, {most[0]} in {most[1]}"),
        least_of=least,
        most_of=most,
        memory=Reach.of(runs.peak_rss_mb.median(), f"tables/runs.csv: peak_rss_mb on {name}, median over seeds"),
    )


def _speed(results: Results) -> Speed | None:
    pairs = results.pairs[results.pairs.quantity == "step_median_s"]
    # Both ways round: how many times as long a step takes in `slow` as in `fast`.
    turned = {"times": 1 / pairs.ratio, "low": 1 / pairs.ratio_high, "high": 1 / pairs.ratio_low}
    both = pd.concat(
        [
            pairs.assign(fast=pairs.b, slow=pairs.a, times=pairs.ratio, low=pairs.ratio_low, high=pairs.ratio_high),
            pairs.assign(fast=pairs.a, slow=pairs.b, **turned),
        ]
    ).dropna(subset="times")
    if both.empty:
        return None
    models = both.groupby(["experiment", "model"], sort=False)
    first = models[["fast", "times"]].apply(lambda rows: rows.groupby("fast").times.min().idxmax())
    wins = first.value_counts()
    # Of those that are first as often, the one that is faster on the whole.
    leader = min(wins[wins == wins.max()].index, key=lambda name: -np.log(both[both.fast == name].times).mean())
    others = both[both.fast == leader]
    known = others.dropna(subset=["low", "high"])
    beyond = ((known.low > 1) | (known.high < 1)).sum()
    slow = sorted(others.slow.unique(), key=results.study["frameworks"].index)
    unequal = set(results.equal[~results.equal.equal.astype(bool)].what)
    where = "tables/frameworks.csv: ratio of step_median_s"
    return Speed(
        leader=leader,
        wins=Number(wins[leader], f"{where}: models for which {leader} is first"),
        models=Number(len(first), f"{where}: models"),
        others=[(name, Reach.of(others[others.slow == name].times, f"{where}, {name} / {leader}")) for name in slow],
        beyond=Number(beyond, f"{where}: intervals with {leader} that leave out 1"),
        tested=Number(len(known), f"{where}: intervals with {leader}"),
        differing=[what for what in CONDITIONS if what in unequal],
    )


def _equivalence(results: Results) -> Equivalence | None:
    done = results.pairs[results.pairs.equivalent.notna()]
    if done.empty:
        return None
    largest = done.loc[done["mean"].abs().idxmax()]
    return Equivalence(
        shown=Number(done.equivalent.sum(), "tables/frameworks.csv: equivalent"),
        tested=Number(len(done), "tables/frameworks.csv: equivalent or not"),
        margins=[
            (Number(row.margin, "tables/frameworks.csv: margin"), row.quantity)
            for row in done.drop_duplicates("quantity").itertuples()
        ],
        largest=Number(abs(largest["mean"]), "tables/frameworks.csv: largest mean difference of quality"),
        metric=largest.quantity,
        experiment=largest.experiment,
        model=largest.model,
        pair=(largest.a, largest.b),
        seeds=Reach.of(done["count"], "tables/frameworks.csv: count of seeds tested"),
    )


def _drift(results: Results) -> Drift | None:
    apart = results.divergence[~results.divergence.control.astype(bool)]
    if apart.empty:
        return None
    where = "tables/divergence.csv"
    measured = apart[apart.times_control.notna()]
    control = None if measured.empty else Number(measured.times_control.max(), f"{where}: largest times_control")
    steps = None if measured.empty else Number(min(LONG, measured.steps.max()), f"{where}: steps of first_200")
    return Drift(
        against=apart.against.iloc[0],
        steps=Number(min(FIRST, apart.steps.max()), f"{where}: steps of first_20"),
        first=Number(apart.first_20.max(), f"{where}: largest first_20"),
        end=Number(apart.end.max(), f"{where}: largest end"),
        within=bool(apart.within_first_20.all()),
        control=control,
        control_steps=steps,
        within_control=bool(measured.within_control.all()),
    )
