"""`rvk bench`: every kernel's cases against its peers, as a table while it runs and as JSON at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvkernels import registry
from rvkernels.bench import Case, Scene
from rvkernels.bench._pairs import FULL, QUICK, measure
from rvkernels.bench._processes import FOLDER, Processes
from rvkernels.files import write_json
from rvkernels.progress import LOG
from rvkernels.record import environment, machine, software, utc_now

COLUMNS = "{:<12} {:<44} {:>7} {:>10}   {:<28} {:>10} {:>8} {:>9}"


def bench(
    *,
    out: str | Path,
    only: Sequence[str] = (),
    quick: bool = False,
    scene: str | Path | None = None,
    cache: str | Path = "downloads/bench",
    threads: Sequence[int] = (1, 0),
) -> list[dict[str, Any]]:
    """Time kernels against their peers, print a table, and return the records, see rvkernels.bench._pairs.measure.

    out      folder that gets kernels.json, the records, and machine.json: when, where and with what software
    only     kernels; none means all there are
    quick    smaller inputs and fewer rounds: less than a minute in all
    scene    folder of a scene to use instead of the drawn one, with the files that Scene names
    cache    folder that keeps the drawn scene
    threads  numbers of threads, 0 for all cores; a case for one thread only takes part with 1

    Raises ValueError for an unknown kernel or a number of threads below 0, and FileNotFoundError for a scene without
    its files. A result that is wrong raises nothing: its record has "checked" false.
    """
    known = registry.names("bench")
    for name in only:
        if name not in known:
            raise ValueError(f"--only: no kernel {name!r}; {registry.suggest(name, known)}")
    for number in threads:
        if number < 0:
            raise ValueError(f"--threads: expected 0 (all cores) or positive numbers, got {number}")
    place = Scene(quick=quick, cache=cache, folder=scene)
    names = [name for name in known if name in only or not only]
    # Small inputs fit into memory all at once, and so the peers' libraries load side by side.
    groups = [names] if quick else [[name] for name in names]
    effort = QUICK if quick else FULL
    started, began = utc_now(), time.perf_counter()
    records: list[dict[str, Any]] = []
    print(COLUMNS.format("kernel", "case", "threads", "ours", "fastest peer", "its time", "ratio", "of floor"))
    with Processes(timeout=effort.timeout, folder=FOLDER) as processes:
        for group in groups:
            cases = [case for name in group for case in registry.load("bench", name).cases(place, quick)]
            plan = [(case, number) for case in cases for number in dict.fromkeys(threads) if _takes(case, number)]
            processes.start((peer.library, number) for case, number in plan for peer in case.sides)
            for case, number in plan:
                records.append(measure(case, number, processes, effort))
                print(_row(records[-1]), flush=True)
            del cases, plan
        machine_record = {
            "started": started,
            "quick": quick,
            "seconds": round(time.perf_counter() - began, 1),
            "machine": machine(),
            "software": {**software(), **processes.versions()},
            "environment": environment(),
            "missing": processes.failures(),
        }
    write_json(Path(out) / "kernels.json", records)
    write_json(Path(out) / "machine.json", machine_record)
    LOG.info("%d timings in %.0f s, in %s", len(records), machine_record["seconds"], Path(out) / "kernels.json")
    return records


def _takes(case: Case, threads: int) -> bool:
    return (1 if threads == 1 else 0) in case.threads


def _row(record: dict[str, Any]) -> str:
    ratio, floor = record["ratio_to_fastest_peer"], record["ratio_to_floor"]
    return COLUMNS.format(
        record["kernel"],
        record["case"],
        record["threads"] or "all",
        _time(record["ours_s"]),
        record["failed"] or record["peer"] or "none",
        _time(record["peer_s"]),
        "" if ratio is None else f"{ratio:.2f}x",
        "" if floor is None else f"{100 * floor:.0f} %",
    ).rstrip()


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    scale, unit = next(((s, u) for s, u in ((1e6, "us"), (1e3, "ms")) if seconds * s < 1000), (1, "s"))
    return f"{seconds * scale:.3g} {unit}"
