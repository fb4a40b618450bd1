"""The kernels compile for machines that are not x86-64, where a cross compiler is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CPP = Path(__file__).parents[2] / "cpp"
COMPILER = "aarch64-linux-gnu-g++"
SOURCES = [*CPP.glob("ops/*.cpp"), *(path for path in CPP.glob("*.cpp") if not path.name.startswith("module"))]
SOURCES += [CPP / "raster" / f"{name}.cpp" for name in ("lzw", "pixels", "predictor", "resample")]  # without GDAL


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no {COMPILER} (Debian: g++-aarch64-linux-gnu)")
@pytest.mark.parametrize("path", sorted(SOURCES), ids=lambda p: str(p.relative_to(CPP).with_suffix("")))
def test_aarch64(path):
    flags = ["-std=c++17", "-O1", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{CPP}"]
    done = subprocess.run([COMPILER, *flags, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
