"""The records of bench-train in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rvkernels.bench_train import Measurement
from rvkernels.files import atomic, read_json

RESAMPLES = 2000
# How far first losses may lie apart, relative to them: they are of the same weights and the same batch.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


def bench_table(records: str | Path, measurements: Sequence[Measurement], out: str | Path) -> None:
    """Write one row per experiment, model, batch size and framework.

    records       the folder of the records
    measurements  those that belong to the study
    out           CSV: loss (of the first step), build_s, first_step_s (medians over rounds), step_q1_s, step_median_s,
                  step_q3_s, step_cpu_median_s (over all steps of all rounds), chips_per_s, peak_rss_mb and
                  peak_device_mb (largest), and ratio: step_median_s over that of the fastest framework, with ratio_low
                  and ratio_high, its 95 % interval (see `ratio_interval`)

    Raises FileNotFoundError for a missing record, and ValueError when a record did not pass its check or first losses
    differ by more than TOLERANCE: then not all did the same work. Those of a user's own model, whose weights every
    framework makes itself, are compared within a framework only.
    """
    rows = []
    for key in dict.fromkeys((m.experiment, m.model, m.batch) for m in measurements):
        mine = [m for m in measurements if (m.experiment, m.model, m.batch) == key]
        found: dict[str, list[dict]] = {}
        for m in sorted(mine, key=lambda m: m.round):
            found.setdefault(m.framework, []).append(_read(m.path(records)))
        _check_losses(key, found)
        steps = {name: np.array([r["times_s"]["step"] for r in rounds]) for name, rounds in found.items()}
        fastest = min(steps, key=lambda name: float(np.median(steps[name])))
        rows += [_row(key, name, found[name], steps[name], steps[fastest]) for name in found]
    with atomic(out) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def ratio_interval(steps: np.ndarray, against: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of median(steps) / median(against), both (rounds, steps) seconds: (low, high).

    Rounds are drawn with replacement, the same rounds for both, since what disturbs a round disturbs both; the limits
    are the 2.5th and 97.5th percentile of RESAMPLES draws. NaN for one round, which says nothing about the spread.
    """
    if len(steps) == 1:
        return float("nan"), float("nan")
    drawn = np.random.Generator(np.random.PCG64(0)).integers(0, len(steps), (RESAMPLES, len(steps)))
    ratios = [np.median(steps[rounds]) / np.median(against[rounds]) for rounds in drawn]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such record; run `rvk bench-train` first")
    record = read_json(path)
    if not record["validated"]:
        raise ValueError(f"{path}: the check of this record failed; run `rvk bench-train` again")
    return record


def _check_losses(key: tuple[str, str, int], found: Mapping[str, list[dict]]) -> None:
    losses = [(name, r["result"]["loss"]) for name, rounds in found.items() for r in rounds]
    first = next(iter(found.values()))[0]
    limit = TOLERANCE[first["settings"]["precision"]]
    alike = [losses] if first["weight_identical"] else [[one for one in losses if one[0] == name] for name in found]
    for some in alike:
        values = [value for _, value in some]
        if max(values) - min(values) > limit * max(map(abs, values)):
            said = ", ".join(f"{name} {value:.6g}" for name, value in some)
            raise ValueError(
                f"bench-train: {key[0]}, {key[1]}, batch {key[2]}: first losses differ by more than {limit:g} "
                f"({said}): not all did the same work"
            )


def _row(
    key: tuple[str, str, int], name: str, rounds: Sequence[dict], steps: np.ndarray, fastest: np.ndarray
) -> dict[str, Any]:
    first = rounds[0]
    q1, median, q3 = np.percentile(steps, [25, 50, 75])
    low, high = ratio_interval(steps, fastest)
    held = [r["peak_device_mb"] for r in rounds if "peak_device_mb" in r]

    def middle(time: str) -> float:
        return float(np.median([r["times_s"][time] for r in rounds]))

    return {
        "experiment": key[0],
        "dataset": first["dataset"],
        "task": first["task"],
        "model": key[1],
        "batch": key[2],
        "framework": name,
        "device": first["device"],
        "threads": first["threads"],
        "rounds": len(rounds),
        "steps": steps.size,
        "loss": first["result"]["loss"],
        "build_s": middle("build"),
        "first_step_s": middle("first_step"),
        "step_q1_s": q1,
        "step_median_s": median,
        "step_q3_s": q3,
        "step_cpu_median_s": middle("step_cpu"),
        "chips_per_s": key[2] / median,
        "peak_rss_mb": max(r["peak_rss_mb"] for r in rounds),
        "peak_device_mb": max(held) if held else None,
        "ratio": median / float(np.median(fastest)),
        "ratio_low": low,
        "ratio_high": high,
    }
