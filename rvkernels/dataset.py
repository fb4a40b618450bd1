"""The description of a dataset, config/datasets/NAME.yaml: what it is, where its files are, how they become scenes.

workflow/schemas/dataset.schema.yaml says what every key means.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvkernels import registry, schema

# For classes without a colour of their own: distinct in hue or lightness, in a fixed order.
PALETTE = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#e69f00"),
    *("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#882255", "#44aa99", "#999933", "#ddcc77"),
)


def load(path: str | Path) -> dict:
    """Read and check a description; its keys as in the file, and two more.

    name    the file's name without suffix: the name of the dataset
    folder  the file's folder, absolute: paths of a user's own data are relative to it

    Every class has a `color` and every file has `urls` afterwards. Raises FileNotFoundError or ValueError (one line
    with file and key) for a missing file, an unknown or missing key, an unknown form or a setting its form does not
    have.
    """
    path = Path(path)
    description = schema.validate(_read(path), schema.find("dataset.schema.yaml"), str(path))
    for key, names in (
        ("classes", [n for c in description["classes"] for n in (c["name"], *c["aliases"])]),
        ("classes: value", [c.get("value", i) for i, c in enumerate(description["classes"])]),
        ("files", [f["name"] for f in description["files"]]),
    ):
        twice = [n for i, n in enumerate(names) if n in names[:i]]
        if twice:
            raise ValueError(f"{path}: {key}: {twice[0]!r} is there twice; give each a name of its own")
    try:
        form = registry.load("datasets", description["form"])
    except ValueError as error:
        raise ValueError(f"{path}: form: {error}") from None
    registry.check_parameters(form.scenes, description["layout"], f"{path}: layout")
    curves = description.get("curves")
    if curves is not None and curves not in [f["name"] for f in description["files"]]:
        raise ValueError(f"{path}: curves: {curves!r} is not the name of one of its files")

    for i, entry in enumerate(description["classes"]):
        entry.setdefault("color", PALETTE[i % len(PALETTE)])
    description["name"] = path.stem
    description["folder"] = str(path.resolve().parent)
    return description


def _read(path: Path) -> dict:
    if not path.is_file():
        known = [p.stem for p in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
        raise FileNotFoundError(f"{path}: no such description; {registry.suggest(path.stem, known)}")
    return schema.read(path)


def class_names(description: dict) -> list[str]:
    """Class names in the order of their ids."""
    return [c["name"] for c in description["classes"]]


def colors(description: dict) -> np.ndarray:
    """(classes, 3) uint8: red, green, blue of every class."""
    rgb = [bytes.fromhex(c["color"][1:]) for c in description["classes"]]
    return np.frombuffer(b"".join(rgb), np.uint8).reshape(-1, 3).copy()


def is_vector(labels: str) -> bool:
    """Whether a label file holds shapes (GeoJSON) rather than pixels."""
    return labels.lower().endswith((".geojson", ".json"))
