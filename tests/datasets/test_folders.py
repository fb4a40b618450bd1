"""One folder per class, in the archive and with the split files of EuroSAT and AiTLAS."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rvkernels.fetch import fetch
from rvkernels.scene import read_scenes

CLASSES = ["Forest", "River"]


def pictures(workplace) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    return {
        f"Root/{c}/{c}_{i}.jpg": workplace.picture(rng.integers(0, 255, (8, 8, 3), np.uint8), "JPEG")
        for c in CLASSES
        for i in (1, 2, 3)
    }


def describe(workplace, members=None, lists=None, **layout):
    workplace.archive("tiny.zip", members or pictures(workplace))
    texts = {s: f"Forest/Forest_{i}.jpg,Forest\nRiver/River_{i}.jpg,River\n" for i, s in ((1, "train"), (2, "val"))}
    texts.update(lists or {})
    for name, text in texts.items():
        (workplace.mirror / f"{name}.csv").write_text(text)
    return workplace.describe(
        tasks=["classification"],
        form="folders",
        files=[{"name": "tiny.zip"}, *({"name": f"{name}.csv"} for name in texts)],
        layout={"archive": "tiny.zip", "root": "Root", "split": {n: f"{n}.csv" for n in texts}, **layout},
        classes=[{"name": c} for c in CLASSES],
    )


def run(workplace, path):
    return fetch(path, workplace.downloads, workplace.mirror, workplace.folder / "scenes.jsonl")


def test_scenes(workplace):
    run(workplace, describe(workplace))
    scenes = read_scenes(workplace.folder / "scenes.jsonl")
    assert list(scenes) == [f"{c}_{i}" for c in CLASSES for i in (1, 2, 3)]
    forest = scenes["Forest_2"]
    assert (forest.class_name, forest.split, forest.rows, forest.cols, forest.bands) == ("Forest", "val", 8, 8, 3)
    assert forest.dtype == "uint8"
    assert scenes["River_1"].split == "train"
    assert scenes["River_3"].split is None


def test_same_names_in_two_classes_get_ids_of_their_own(workplace):
    members = {re.sub(r"[A-Z][a-z]+_(\d)", r"\1", name): data for name, data in pictures(workplace).items()}
    lists = {"train": "Forest/1.jpg,Forest\n", "val": "River/1.jpg,River\n"}
    scenes = run(workplace, describe(workplace, members, lists))
    assert [s.id for s in scenes] == [f"{c}_{i}" for c in CLASSES for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {**m, "Root/Rivers/a.jpg": b"x"}, r"in no folder of a class; .*Did you mean 'River'\?"),
        (lambda m: {k: v for k, v in m.items() if "River" not in k}, r"class 'River' has no picture"),
        (lambda m: {**m, "Root/River/b.jpg": b"not a picture"}, r"River/b\.jpg"),
    ],
)
def test_mistakes_in_the_archive(workplace, change, message):
    with pytest.raises(ValueError, match=message) as error:
        run(workplace, describe(workplace, change(pictures(workplace))))
    assert "\n" not in str(error.value)
    assert not (workplace.folder / "scenes.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lists": {"test": "Forest/Forest_9.jpg,Forest\n"}}, r"test\.csv: line 1: Forest/Forest_9\.jpg is not in"),
        (
            {"lists": {"test": "Forest/Forest_3.jpg,River\n"}},
            r"line 1: .* is labelled River, but lies in folder",
        ),
        ({"lists": {"test": "Forest/Forest_3.jpg\n"}}, r"test\.csv: line 1: expected path,label"),
        ({"lists": {"test": "Forest/Forest_1.jpg,Forest\n"}}, r"Forest_1\.jpg is in two splits, train and test"),
        ({"archive": "tyni.zip"}, r"layout: no file 'tyni\.zip'; .*Did you mean 'tiny\.zip'\?"),
        ({"split": {"train": "trian.csv"}}, r"no file 'trian\.csv'; .*Did you mean 'train\.csv'\?"),
        ({"archive": None}, r"give either archive or folder"),
    ],
)
def test_mistakes(workplace, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        run(workplace, describe(workplace, **changes))
    assert "\n" not in str(error.value)


def test_a_folder_beside_the_description(workplace):
    for name, data in pictures(workplace).items():
        path = workplace.folder / "my pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    path = workplace.describe(
        tasks=["classification"],
        form="folders",
        layout={"folder": "my pictures", "root": "Root"},
        classes=[{"name": c} for c in CLASSES],
    )
    assert len(run(workplace, path)) == 6


def test_optional_files_may_be_missing(workplace, caplog):
    path = describe(workplace)
    text = path.read_text().replace("files:\n", "files:\n- {name: curves.csv, optional: true}\n")
    path.write_text(text)
    with caplog.at_level("WARNING", "rvkernels"):
        assert len(run(workplace, path)) == 6
    assert "curves.csv: cannot be fetched: not in the mirror" in caplog.text
    path.write_text(text.replace("optional: true", "optional: false"))
    with pytest.raises(FileNotFoundError, match=r"are to be got by hand .*put curves\.csv into"):
        run(workplace, path)
