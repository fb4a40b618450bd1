"""What the documentation takes from the workflow; `make lint` checks that the graph of the rules is that of today."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def docs():
    """workflow/docs.py, imported anew."""
    spec = importlib.util.spec_from_file_location("docs", ROOT / "workflow/docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(docs, monkeypatch, tmp_path):
    """docs, for a copy of what it reads and writes."""
    shutil.copytree(ROOT / "workflow/schemas", tmp_path / "workflow/schemas")
    (tmp_path / "config").mkdir()
    shutil.copy(ROOT / "config/README.md", tmp_path / "config")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    return docs


def test_the_tables_of_keys_are_those_of_the_schemas(docs):
    assert not docs.renew("keys", check=True), "config/README.md is out of date; `make docs` writes it anew"


@pytest.mark.parametrize("part", ["published", "published_csv"])
def test_what_is_said_of_published_results_is_in_their_tables(docs, part):
    assert not docs.renew(part, check=True), "results/published/ is out of date; `make docs` writes it anew"


def test_a_number_that_was_typed_is_noticed_and_written_over(docs, monkeypatch, tmp_path):
    shutil.copytree(ROOT / "results/published", tmp_path / "results/published")
    shutil.copytree(ROOT / "config/datasets", tmp_path / "config/datasets")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    for part, name in (("published", "README.md"), ("published_csv", "published.csv")):
        path = tmp_path / "results/published" / name
        true = path.read_text()
        path.write_text(true.replace("0.9857", "0.9999"))
        assert path.read_text() != true
        assert docs.renew(part, check=True)
        assert docs.renew(part, check=False)
        assert path.read_text() == true


def test_another_key_or_default_is_noticed_and_written(copy):
    path = copy.ROOT / "workflow/schemas/config.schema.yaml"
    schema = yaml.safe_load(path.read_text())
    schema["properties"]["threads"]["default"] = 77
    schema["$defs"]["model_unet"]["properties"]["leaves"] = {"type": "integer", "default": 3, "description": "a | b"}
    path.write_text(yaml.safe_dump(schema))
    readme = copy.ROOT / "config/README.md"
    before = readme.read_text()
    assert copy.renew("keys", check=True)
    assert readme.read_text() == before
    assert copy.renew("keys", check=False)
    after = readme.read_text()
    assert "| `threads` | integer | `77` |" in after
    unet = after.partition("### `experiments.NAME.models.unet`")[2].partition("###")[0]
    assert "| `leaves` | integer | `3` | a \\| b |" in unet
    assert not copy.renew("keys", check=True)


def test_a_page_without_its_marks_is_told(copy):
    (copy.ROOT / "config/README.md").write_text("nothing")
    with pytest.raises(SystemExit, match=r"config/README\.md needs the line <!-- keys: written by"):
        copy.renew("keys", check=True)
