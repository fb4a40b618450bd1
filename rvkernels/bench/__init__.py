"""Kernels beside the fastest alternatives there are, timed in pairs: a file per kernel with `cases(scene, quick)`.

An alternative, a peer, is a function in peers/<library>.py. Each library runs in a process of its own: several bring a
GDAL, an OpenMP or a pool of threads along. A floor is a peer that does less than the kernel has to: it reads the input,
or writes the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from rvkernels.bench._scene import Scene

__all__ = ["Case", "Inputs", "Peer", "Scene"]

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Peer:
    """An alternative to a kernel.

    name      as the tables show it
    function  "library:function": `function(inputs, threads)` in peers/<library>.py prepares and returns `run`, and
              `run()` does the work once, into buffers that it reuses where the library can, and returns the result
    check     check(ours, theirs) raises AssertionError when the results differ
    differs   where there is no check: why the results differ by design
    rival     False for one that has an easier task, an approximation for example: it is timed and listed, but the ratio
              is to the fastest of the others
    """

    name: str
    function: str
    check: Callable[[Any, Any], None] | None = None
    differs: str | None = None
    rival: bool = True

    def __post_init__(self) -> None:
        library, _, function = self.function.partition(":")
        if not (library.isidentifier() and function.isidentifier()):
            raise ValueError(f"{self.name}: function: expected 'library:function', got {self.function!r}")

    @property
    def library(self) -> str:
        return self.function.partition(":")[0]


@dataclass(frozen=True)
class Case:
    """One input of a kernel and what it is timed against.

    inputs   arrays, which peers get as read-only memory maps, numbers, strings, and lists, tuples and dicts of these
    ours     ours(inputs, threads) prepares and returns `run`, as a peer's function does; threads 0 means all cores
    check    check(inputs, ours) compares the kernel's result with its reference, or with a part of it, and raises
             AssertionError
    floor    what no implementation can undercut
    threads  the numbers of threads to time with

    Raises ValueError when nothing checks the kernel's result, or a peer has neither a check nor a reason.
    """

    kernel: str
    name: str
    inputs: Inputs
    ours: Callable[[Inputs, int], Callable[[], Any]]
    peers: tuple[Peer, ...] = ()
    check: Callable[[Inputs, Any], None] | None = None
    floor: Peer | None = None
    threads: tuple[int, ...] = (1, 0)

    def __post_init__(self) -> None:
        for peer in self.peers:
            if peer.check is None and not peer.differs:
                raise ValueError(f"{self}: {peer.name}: needs a check, or `differs`: why its result is another")
        if self.check is None and all(peer.check is None for peer in self.peers):
            raise ValueError(f"{self}: nothing checks the result")

    @property
    def sides(self) -> tuple[Peer, ...]:
        """The peers, and the floor if there is one."""
        return (*self.peers, *([self.floor] if self.floor else []))

    def __str__(self) -> str:
        return f"{self.kernel}, {self.name}"
