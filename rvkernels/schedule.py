"""Learning-rate schedules: the rate is a pure function of the step, so a resumed run needs no schedule state.

A schedule is a function of (step, steps, ...settings): `step` counts from 0, `steps` is the length of the whole
training. `warmup` is the share of all steps at the start in which the rate rises.
"""

from __future__ import annotations

import math
from typing import Callable

from rvkernels.registry import check_parameters, suggest


def _ramp(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up: 1/k, 2/k, ... 1 over the first k = round(warmup * steps) steps, then 1."""
    rise = round(warmup * steps)
    return (step + 1) / rise if step < rise else 1.0


def constant(step: int, steps: int, *, lr: float, warmup: float = 0.0) -> float:
    """`lr` after the warm-up."""
    return lr * _ramp(step, steps, warmup)


def cosine(step: int, steps: int, *, lr: float, warmup: float = 0.0, end: float = 0.0) -> float:
    """From `lr` after the warm-up down half a cosine to `end` * lr, which the step after the last would have."""
    rise = round(warmup * steps)
    if step < rise:
        return lr * _ramp(step, steps, warmup)
    share = (step - rise) / max(1, steps - rise)
    return lr * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * share)))


def step_down(
    step: int, steps: int, *, lr: float, warmup: float = 0.0, at: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1
) -> float:
    """`lr` times `factor` for every milestone passed; `at` gives them as shares of all steps."""
    passed = sum(step >= round(share * steps) for share in at)
    return lr * factor**passed * _ramp(step, steps, warmup)


def one_cycle(
    step: int, steps: int, *, lr: float, warmup: float = 0.3, start: float = 0.04, end: float = 4e-6
) -> float:
    """Half a cosine from `start` * lr up to `lr` in the warm-up, then half a cosine down to `end` * lr at the last.

    The two-phase form of Smith and Topin (2019), "Super-convergence", with the end points PyTorch uses by default.
    """
    rise = max(0.0, warmup * steps - 1)
    if step < rise:
        low, share = start, step / rise
    else:
        low, share = end, (steps - 1 - step) / max(1.0, steps - 1 - rise)
    return lr * (low + (1 - low) * 0.5 * (1 - math.cos(math.pi * share)))


SCHEDULES = {"constant": constant, "cosine": cosine, "step": step_down, "one_cycle": one_cycle}


def check_schedule(settings: dict, where: str = "schedule") -> None:
    """Raise ValueError naming `where` and the key when `settings` is no schedule: {"name": ..., "lr": ..., ...}."""
    name = settings.get("name")
    if name not in SCHEDULES:
        raise ValueError(f"{where}: no schedule {name!r}; {suggest(str(name), SCHEDULES)}")
    rest = {k: v for k, v in settings.items() if k != "name"}
    check_parameters(SCHEDULES[name], rest, where)
    if "lr" not in rest:
        raise ValueError(f"{where}: 'lr' is missing; give the peak learning rate")
    for key, value in rest.items():
        numbers = value if isinstance(value, (list, tuple)) else (value,)
        if (key == "at") != isinstance(value, (list, tuple)) or not all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and v >= 0 for v in numbers
        ):
            kind = "a list of shares" if key == "at" else "a number that is not negative"
            raise ValueError(f"{where}: {key} is {value!r}, expected {kind}")
    if rest["lr"] <= 0:
        raise ValueError(f"{where}: lr is {rest['lr']!r}, expected a positive number")
    if not 0 <= rest.get("warmup", 0) < 1:
        raise ValueError(f"{where}: warmup is {rest['warmup']!r}, expected a share of all steps in [0, 1)")


def make_schedule(settings: dict, steps: int) -> Callable[[int], float]:
    """The learning rate as a function of the step, for a training of `steps` steps."""
    check_schedule(settings)
    function = SCHEDULES[settings["name"]]
    rest = {k: v for k, v in settings.items() if k != "name"}
    return lambda step: function(step, steps, **rest)
