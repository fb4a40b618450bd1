"""Tiny datasets in the layouts of their publishers."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image


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

    def archive(self, name: str, members: dict[str, bytes]) -> None:
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


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    return Workplace(tmp_path)
