"""Tiny datasets in the layouts of their publishers."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rvkernels import dataset
from rvkernels.fetch import fetch
from rvkernels.labels import Features, load_features
from rvkernels.scene import Scene


class Workplace:
    """A folder with a description, a mirror and a download cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mirror, self.downloads = folder, folder / "mirror", folder / "downloads"
        self.mirror.mkdir()

    @staticmethod
    def picture(array: np.ndarray, kind: str) -> bytes:
        """An array (rows, cols, 3) uint8 as the bytes of a JPEG, PNG or TIFF."""
        out = io.BytesIO()
        Image.fromarray(array).save(out, kind)
        return out.getvalue()

    def noise(self, size: tuple[int, int], kind: str) -> bytes:
        """A picture of this many rows and columns, always the same."""
        return self.picture(np.random.default_rng(1).integers(0, 255, (*size, 3), np.uint8), kind)

    def archive(self, name: str, members: dict[str, bytes | str]) -> None:
        with zipfile.ZipFile(self.mirror / name, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)

    def describe(self, **keys: object) -> Path:
        path = self.folder / "tiny.yaml"
        path.write_text(
            yaml.safe_dump(
                {"title": "Tiny", "bands": ["red", "green", "blue"], "licence": "none", **keys}, sort_keys=False
            )
        )
        return path

    def features(self, **keys: object) -> tuple[list[Scene], list[Features]]:
        """Scenes of a dataset with these keys in its description, and what their label files hold."""
        path = self.describe(**keys)
        scenes = fetch(path, self.downloads, self.mirror, self.folder / "scenes.jsonl")
        classes = dataset.load(path)["classes"]
        return scenes, [load_features(scene, classes) for scene in scenes]


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    return Workplace(tmp_path)
