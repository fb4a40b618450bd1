"""A figure's SVG file made part of an HTML page."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

from PIL import Image

QUALITY = 88  # of photographs: a PNG of one is ten times as large
SMALL = 20_000  # characters of a picture that stays as it is


def inline_svg(path: Path, *, name: str, alt: str) -> str:
    """The <svg> element of a file that matplotlib wrote, for a page that holds many.

    name    makes its ids unique on the page
    alt     what a screen reader says in its place
    """
    text = path.read_text()
    text = text[text.index("<svg") :]
    # Of use to a file of its own only; its style would hold for the whole page.
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"\s*<defs>\s*<style.*?</defs>", "", text, count=1, flags=re.S)
    prefix = re.sub(r"\W", "_", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="|href="|url\()#', rf"\1#{prefix}-", text)
    text = re.sub(r'"data:image/png;base64,([^"]+)"', _smaller, text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def _smaller(found: re.Match) -> str:
    """A large picture as WebP, which keeps what is transparent."""
    if len(found[1]) < SMALL:
        return found[0]
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        return f'"{data_url(picture, lossless=False)}"'


def data_url(picture: Image.Image, *, lossless: bool) -> str:
    """A picture as WebP in a URL."""
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=lossless, quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
