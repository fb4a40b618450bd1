"""Descriptions: the ones we ship load, and every mistake in one is an error of one line with file and key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from rvkernels import dataset

SHIPPED = sorted((Path(__file__).parents[1] / "config" / "datasets").glob("*.yaml"))

MINIMAL = {
    "title": "Mine",
    "tasks": ["segmentation"],
    "form": "geojson",
    "layout": {"images": "images/{name}.tif", "labels": "labels/{name}.geojson"},
    "classes": [{"name": "field"}, {"name": "wood", "color": "#102030", "aliases": ["forest"]}],
    "bands": ["red", "green", "blue"],
    "licence": "mine",
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**MINIMAL, **changes}.items() if v is not None}))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_descriptions_load(path):
    description = dataset.load(path)
    assert description["name"] == path.stem
    assert len(dataset.colors(description)) == len(dataset.class_names(description))
    assert len(np.unique(dataset.colors(description), axis=0)) == len(description["classes"])


def test_defaults(tmp_path):
    description = dataset.load(write(tmp_path))
    assert description["files"] == []
    assert description["folder"] == str(tmp_path.resolve())
    assert dataset.class_names(description) == ["field", "wood"]
    assert dataset.colors(description)[1].tolist() == [0x10, 0x20, 0x30]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licens": "x"}, r"unknown key 'licens'.*Did you mean 'licence'\?"),
        ({"files": [{"name": "a", "url": "http://a"}]}, r"files: 0: unknown key 'url'.*Did you mean 'urls'\?"),
        ({"files": [{"name": "a/b"}]}, r"files: 0: name: 'a/b' does not match"),
        ({"files": [{"name": "a", "sha256": "12"}]}, r"files: 0: sha256: '12' does not match"),
        ({"files": [{"name": "a"}, {"name": "a"}]}, r"files: 'a' is there twice"),
        ({"classes": None}, r"'classes' is a required property"),
        ({"classes": []}, r"classes: "),
        ({"classes": [{"name": "wood"}, {"name": "x", "aliases": ["wood"]}]}, r"classes: 'wood' is there twice"),
        ({"classes": [{"name": "wood"}, {"name": "x", "value": 0}]}, r"classes: value: 0 is there twice"),
        ({"classes": [{"name": "wood", "color": "green"}]}, r"classes: 0: color: 'green' does not match"),
        ({"classes": [{"name": "road", "line_width": 0}]}, r"classes: 0: line_width: 0 is less than or equal"),
        ({"tasks": ["segmentations"]}, r"tasks: 0: 'segmentations' is not one of"),
        ({"form": "geojsn"}, r"form: no 'geojsn' in rvkernels/datasets/; .*Did you mean 'geojson'\?"),
        ({"layout": {"image": "x"}}, r"layout: unknown setting 'image'.*Did you mean 'images'\?"),
        ({"curves": "curves.csv"}, r"curves: 'curves.csv' is not the name of one of its files"),
        ({"split": {"by": "tile"}}, r"split: by: 'tile' is not one of"),
        ({"published": [{"what": "x", "metric": "miou", "value": 79, "source": "y"}]}, r"published: 0: value: 79 is"),
    ],
)
def test_mistakes(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        dataset.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_missing_file_suggests_its_neighbour(tmp_path):
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mina\.yaml: no such description; .*Did you mean 'mine'\?"):
        dataset.load(tmp_path / "mina.yaml")


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", ""])
def test_not_a_mapping(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml: (not YAML|expected keys and values)") as error:
        dataset.load(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)
