"""Pictures of the same places for the page: each an SVG of its own, so that all are zoomed by moving their viewBox."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from rvkernels.figures._pictures import Picture
from rvkernels.svg import data_url


@dataclass(frozen=True)
class View:
    """Pictures of one place: pairs of a title and an <svg> element."""

    title: str
    panels: list[tuple[str, str]]


def view(pictures: list[Picture], prefix: str) -> View:
    """A place's pictures; `prefix` makes their ids unique on the page. The first one's title names the place."""
    place = pictures[0].title.split(",")[0]
    ids: dict[int, str] = {}
    return View(place, [(_line(p.title), _svg(p, place, ids, f"{prefix}-{i}")) for i, p in enumerate(pictures)])


def _svg(picture: Picture, place: str, ids: dict[int, str], name: str) -> str:
    rows, cols = picture.image.shape[:2]
    known = ids.setdefault(id(picture.image), name)
    if known == name:
        how = "" if picture.photo else ' style="image-rendering: pixelated"'
        url = data_url(Image.fromarray(picture.image), lossless=not picture.photo)
        shown = f'<image id="{name}" href="{url}" width="{cols}" height="{rows}"{how}/>'
    else:  # the same photograph with other boxes
        shown = f'<use href="#{known}"/>'
    label = html.escape(f"{place}: {_line(picture.title)}")
    return f'<svg viewBox="0 0 {cols} {rows}" role="img" aria-label="{label}">{shown}{_outlines(picture)}</svg>'


def _line(title: str) -> str:
    return title.replace("\n", " · ")


def _outlines(picture: Picture) -> str:
    """Boxes as one path per colour."""
    paths: dict[str, list[str]] = {}
    for box, color in picture.boxes:
        y0, x0, y1, x1 = np.round(np.asarray(box, float), 1)
        paths.setdefault(to_hex(color), []).append(f"M{x0:g} {y0:g}H{x1:g}V{y1:g}H{x0:g}Z")
    return "".join(
        f'<path d="{"".join(parts)}" fill="none" stroke="{color}" stroke-width="1.6"/>'
        for color, parts in paths.items()
    )
