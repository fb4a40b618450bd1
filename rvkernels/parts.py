"""One stage as several jobs: each does its part, and a last one gathers what they leave.

The results are those of a single job, bit for bit. So every job plans the whole stage, which reads no pixel, and takes
its share of that plan; random numbers belong to what they are drawn for and not to the job; whatever depends on more
than one part (a limit on chips, blended windows, suppression of boxes, measures) is decided as a single job decides it:
from the same numbers in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Part:
        """The part of a text such as "3/8". Raises ValueError when it is none."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"part: expected a number and how many there are, such as 3/8, got {text!r}")
        return Part(int(found[1]), int(found[2]))

    def bounds(self, things: int) -> tuple[int, int]:
        """First and last, not included, of the things that are this part's: of nearly equal numbers, in order."""
        return things * (self.number - 1) // self.count, things * self.number // self.count


WHOLE = Part(1, 1)


def check_complete(parts: Iterable[tuple[str | Path, Part]]) -> None:
    """Raise ValueError, naming the file, unless these (file, part) are every part of one whole, in order."""
    parts = list(parts)
    if not parts:
        raise ValueError("parts: there is nothing to gather")
    for number, (path, part) in enumerate(parts, 1):
        wanted = Part(number, len(parts))
        if part != wanted:
            raise ValueError(
                f"{path}: is part {part.number}/{part.count}, expected {wanted.number}/{wanted.count}; "
                "give every part of one stage, in order"
            )
