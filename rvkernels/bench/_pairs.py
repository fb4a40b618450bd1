"""How a kernel and its peers are timed: the results checked first, then rounds in which every side has its turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from rvkernels import timing
from rvkernels.bench import Case, Peer
from rvkernels.bench._processes import PeerError, Processes
from rvkernels.bench._server import decode, encode, line, timed
from rvkernels.progress import LOG

MOST_CALLS = 50
# Before a turn where several threads work: those of the last that wait for work by spinning have then gone to sleep.
PAUSE_SECONDS = 0.002
# A side that is quicker starts each turn with a call that does not count: the others had the caches.
WARM_SECONDS = 0.02


class Effort(NamedTuple):
    """How long is timed.

    rounds   at most
    turn     seconds of a side in a round, but at least one call
    limit    seconds of a side, after which it takes part in no further round
    far      a rival so many times slower than the fastest takes part in no further round than the first
    timeout  seconds that a peer may take for one request
    """

    rounds: int
    turn: float
    limit: float
    far: float
    timeout: float


FULL = Effort(rounds=9, turn=0.1, limit=3.0, far=4.0, timeout=300.0)
QUICK = Effort(rounds=5, turn=0.005, limit=0.07, far=2.0, timeout=20.0)

Side = Optional[Peer]  # None: the kernel
Clock = Callable[[int, int], "list[float]"]  # seconds of (calls, after others that do not count)


class CheckError(Exception):
    """Which result is wrong, in one line."""


def measure(case: Case, threads: int, processes: Processes, effort: Effort) -> dict[str, Any]:
    """The record of a case with one number of threads.

    checked                whether all checks passed, and there was one; if not, nothing is timed, and `failed` says why
    ours_s, floor_s        seconds: the median over rounds of the medians of rounds
    peer, peer_s           the fastest peer among the rivals
    ratio_to_fastest_peer  peer_s / ours_s: how many times as fast as that the kernel is
    ratio_to_floor         floor_s / ours_s: 1 where the kernel is as fast as can be
    n                      number of the kernel's rounds
    peers                  {peer, peer_s, checked, note} of each; the note says why there is no time, or no check
    """
    record: dict[str, Any] = {"kernel": case.kernel, "case": case.name, "threads": threads, "checked": False}
    record.update(dict.fromkeys(("failed", "ours_s", "peer", "peer_s", "ratio_to_fastest_peer")))
    record.update(floor=case.floor.name if case.floor else None, floor_s=None, ratio_to_floor=None, n=0)
    lost: dict[Side, str] = {}
    seconds: dict[Side, float] = {}
    with tempfile.TemporaryDirectory(prefix="rvk-bench-") as work:
        try:
            clocks = check_sides(case, threads, processes, Path(work), lost)
            record["checked"] = True
            seconds, record["n"] = _take_turns(clocks, case, threads, effort, lost)
        except CheckError as error:
            record["failed"] = str(error)
    processes.forget()
    for peer, reason in lost.items():
        if reason not in processes.told:
            LOG.info("%s, %s threads: %s is left out: %s", case, threads or "all", peer.name, reason)
    record["peers"] = [
        {
            "peer": peer.name,
            "peer_s": seconds.get(peer),
            "checked": peer in seconds and peer.check is not None,
            "note": lost.get(peer, peer.differs),
        }
        for peer in case.peers
    ]
    if not seconds:
        return record
    ours = record["ours_s"] = seconds[None]
    rivals = [peer for peer in case.peers if peer.rival and peer in seconds]
    if rivals:
        fastest = min(rivals, key=seconds.__getitem__)
        record.update(peer=fastest.name, peer_s=seconds[fastest], ratio_to_fastest_peer=seconds[fastest] / ours)
    if case.floor is not None and case.floor in seconds:
        record.update(floor_s=seconds[case.floor], ratio_to_floor=seconds[case.floor] / ours)
    return record


def check_sides(case: Case, threads: int, processes: Processes, work: Path, lost: dict[Side, str]) -> dict[Side, Clock]:
    """A clock of every side that is there; `lost` gets why another is not.

    Raises CheckError when a result is wrong, or nothing checked the kernel's.
    """
    # Both sides read the same pages of the same files.
    encoded = encode(dict(case.inputs), work, "inputs")
    inputs = decode(encoded)
    # All work at once: nothing is timed yet.
    asked = {}
    for i, peer in enumerate(case.sides):
        folder = work / str(i)
        folder.mkdir()
        process = processes.get(peer.library, threads)
        asked[peer] = (
            process,
            process.send(
                "prepare",
                function=peer.function.partition(":")[2],
                inputs=encoded,
                threads=threads,
                folder=str(folder) if peer.check else None,
            ),
        )
    try:
        run = case.ours(inputs, threads)
        result = run()
        if case.check is not None:
            case.check(inputs, result)
    except Exception as error:
        raise CheckError(f"ours: {_said(error)}") from error
    clocks: dict[Side, Clock] = {None: lambda calls, warm: timed(run, calls, warm)}
    checks = int(case.check is not None)
    for peer, (process, number) in asked.items():
        try:
            theirs = decode(process.answer(number)["result"])
        except PeerError as error:
            lost[peer] = str(error)
            continue
        if peer.check is not None:
            try:
                peer.check(result, theirs)
            except Exception as error:
                raise CheckError(f"{peer.name}: {_said(error)}") from error
            checks += 1

        def clock(calls: int, warm: int, process=process, number=number) -> list[float]:
            return process.ask("time", run=number, calls=calls, warm=warm)["seconds"]

        clocks[peer] = clock
    if not checks:
        raise CheckError("no peer is there whose result could check ours")
    return clocks


def _said(error: Exception) -> str:
    """A failed check in one line; of an error that no check meant to raise, the log gets the traceback."""
    if isinstance(error, AssertionError):
        return " ".join(str(error).split())[:300] or "the results differ"
    LOG.error("this is no failed assertion:", exc_info=error)
    return line(error)


def _take_turns(
    clocks: Mapping[Side, Clock], case: Case, threads: int, effort: Effort, lost: dict[Side, str]
) -> tuple[dict[Side, float], int]:
    """(median seconds of each side, number of rounds); `lost` gets why a peer fell out on the way."""
    rounds: dict[Side, list[float]] = {}
    spent = dict.fromkeys(clocks, 0.0)

    def turn(side: Side, calls: int, warm: int) -> None:
        if threads != 1:
            time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        try:
            rounds.setdefault(side, []).append(float(np.median(clocks[side](calls, warm))))
        except PeerError as error:
            lost[side] = str(error)
            del rounds[side]
        spent[side] += time.perf_counter() - began

    for side in clocks:
        turn(side, 1, 0)
    first = {side: seconds for side, (seconds,) in rounds.items()}
    rivals = {peer: first[peer] for peer in case.peers if peer.rival and peer in first}
    close = [side for side in first if side not in rivals or rivals[side] <= effort.far * min(rivals.values())]
    for number in range(effort.rounds):
        for side in timing.turned(close, number):
            if side in rounds and spent[side] < effort.limit:
                calls = min(max(int(effort.turn / first[side]), 1), MOST_CALLS)
                turn(side, calls, int(first[side] < WARM_SECONDS))
    # The first turn only told how long a call takes, unless there was no other.
    return {side: float(np.median(all_[1:] or all_)) for side, all_ in rounds.items()}, len(rounds[None]) - 1
