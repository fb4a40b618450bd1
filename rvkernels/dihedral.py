"""The eight ways to look at a square: as it is, mirrored, and both of these turned. For test-time augmentation.

View k of an image: where bit 2 of k is set rows become columns, then where bit 0 is set the rows run backwards, and
where bit 1 is set the columns. Views 0 to 3 keep rows and columns; 0 to 7 are all symmetries of the square.
"""

from __future__ import annotations

import numpy as np

COUNTS = (1, 4, 8)  # of views that are a group: those of a view of an image are those of the image


def look(images: np.ndarray, view: int, *, first: int = 1) -> np.ndarray:
    """View `view` of images whose rows are axis `first` and columns the next: no copy."""
    if view & 4:
        images = images.swapaxes(first, first + 1)
    return _backwards(images, view, first)


def undo(maps: np.ndarray, view: int, *, first: int = 1) -> np.ndarray:
    """`maps` of view `view` as maps of the image: the inverse of `look`; no copy."""
    maps = _backwards(maps, view, first)
    return maps.swapaxes(first, first + 1) if view & 4 else maps


def undo_boxes(boxes: np.ndarray, view: int, shape: tuple[int, int]) -> np.ndarray:
    """Boxes (k, 4) (ymin, xmin, ymax, xmax) in pixels of view `view` of an image of `shape`, in pixels of the image."""
    top, left, bottom, right = boxes.T
    rows, cols = shape[::-1] if view & 4 else shape
    if view & 1:
        top, bottom = rows - bottom, rows - top
    if view & 2:
        left, right = cols - right, cols - left
    turned = (left, top, right, bottom) if view & 4 else (top, left, bottom, right)
    return np.stack(turned, axis=1).astype(boxes.dtype, copy=False)


def _backwards(images: np.ndarray, view: int, first: int) -> np.ndarray:
    axes = [first + axis for axis in (0, 1) if view & 1 << axis]
    return np.flip(images, axes) if axes else images
