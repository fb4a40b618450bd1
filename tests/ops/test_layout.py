"""Every operation has its siblings under the same name, and imports point down only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rvkernels import registry

ROOT = Path(__file__).parents[2]
OPERATIONS = registry.names("ops")
# The reader is a module of its own, since it alone links GDAL.
CPP = {"tile": "cpp/raster/tile", "default": "cpp/ops/{}"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_there_are_operations():
    assert {"confusion", "iou", "nms", "blend"} <= set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_siblings(name):
    stem = CPP.get(name, CPP["default"]).format(name)
    wanted = [f"{stem}.h", f"{stem}.cpp", f"tests/ops/test_{name}.py"]
    assert [path for path in wanted if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_reference_and_cases(name):
    module = registry.load("ops", name)
    assert [member for member in ("op", "cases", "TOLERANCE") if not hasattr(module, member)] == []
    assert module.op.__doc__
    assert len({case for case, _ in module.cases()}) == len(module.cases()) > 0


def test_no_kernel_without_an_operation():
    assert {path.stem for path in (ROOT / "cpp/ops").glob("*.cpp")} <= set(OPERATIONS)


@pytest.mark.parametrize("path", sorted((ROOT / "cpp").rglob("*.*")), ids=lambda p: p.name)
def test_only_modules_know_python(path):
    if not path.name.startswith("module"):
        assert "pybind11" not in path.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "rvkernels/ops").glob("*.py")), ids=lambda p: p.stem)
def test_operations_import_nothing_above_them(path):
    ours = {name for name in imports(path) if name.startswith("rvkernels.")}
    below = ("rvkernels.ops", "rvkernels.registry", "rvkernels._core", "rvkernels._raster")
    assert [name for name in ours if not name.startswith(below)] == []
