"""The schemas of a study and of a dataset's description against the code that takes their settings."""

import inspect
from pathlib import Path

import jsonschema
import pytest
import yaml

from rvkernels import chip, hard_negatives, predict, registry, schedule, split, train
from rvkernels.frameworks import LOSSES, OPTIMIZERS
from rvkernels.ops import augment
from rvkernels.tasks import detection

SCHEMAS = Path(__file__).parents[1] / "workflow/schemas"
ALL = {path.name.partition(".")[0]: yaml.safe_load(path.read_text()) for path in SCHEMAS.iterdir()}
CONFIG, DATASET = ALL["config"], ALL["dataset"]
EXPERIMENT = CONFIG["properties"]["experiments"]["additionalProperties"]["properties"]
NEEDED = object()  # in the place of a default
KEYWORDS = {
    "additionalProperties", "allOf", "default", "description", "enum", "exclusiveMinimum", "format", "items", "maximum",
    "minItems", "minLength", "minProperties", "minimum", "pattern", "properties", "propertyNames", "$ref", "required",
    "type", "uniqueItems",
}  # fmt: skip


def defaults(node):
    return {key: below.get("default", NEEDED) for key, below in node["properties"].items()}


def taken(function, *ignored):
    """What a function takes by keyword, tuples as YAML has them."""
    found = {k: v for k, v in registry.parameters(function).items() if k not in ignored}
    found = {k: [*v] if isinstance(v, tuple) else v for k, v in found.items()}
    return {k: NEEDED if v is inspect.Parameter.empty else v for k, v in found.items()}


def test_chip():
    assert defaults(EXPERIMENT["chip"]) == chip.DEFAULTS


def test_train():
    from_schema = defaults(EXPERIMENT["train"])
    assert from_schema.keys() == taken(train.complete_settings).keys()
    assert train.complete_settings(**from_schema) == train.complete_settings()


def test_hard_negatives():
    assert defaults(EXPERIMENT["train"]["properties"]["hard_negatives"]) == taken(hard_negatives.complete_settings)


def test_predict():
    from_schema = defaults(EXPERIMENT["predict"])
    assert from_schema.pop("size") is NEEDED  # that of the chips
    assert from_schema == {k: v for k, v in taken(predict.complete_settings).items() if k != "size"}


@pytest.mark.parametrize("by", split.KEYS)
def test_split(by):
    assert {"by", *CONFIG["$defs"][f"split_{by}"]["properties"]} == set(split.KEYS[by])
    assert by in EXPERIMENT["split"]["properties"]["by"]["enum"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    assert defaults(CONFIG["$defs"][f"optimizer_{name}"]) == OPTIMIZERS[name]


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    assert defaults(CONFIG["$defs"][f"loss_{name}"]) == LOSSES[name]


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_schedules(name):
    assert defaults(CONFIG["$defs"][f"schedule_{name}"]) == taken(schedule.SCHEDULES[name])


def test_augmentation_knows_every_key_and_is_off_by_default():
    off = defaults(CONFIG["$defs"]["augment"])
    assert augment.check_settings(off) == {}
    with pytest.raises(ValueError, match="there are") as error:
        augment.check_settings({"other": 1})
    assert f"there are {', '.join(sorted(off))}." in str(error.value)


def test_assignment():
    assert defaults(CONFIG["$defs"]["assign"]) == taken(detection.targets)


@pytest.mark.parametrize("name", registry.names("models"))
def test_models(name):
    assert defaults(CONFIG["$defs"][f"model_{name}"]) == taken(registry.load("models", name).graph)
    assert EXPERIMENT["models"]["properties"][name]["allOf"] == [{"$ref": f"#/$defs/model_{name}"}]


@pytest.mark.parametrize("form", registry.names("datasets"))
def test_layouts(form):
    ignored = ("task", "threads")
    assert defaults(DATASET["$defs"][f"layout_{form}"]) == taken(registry.load("datasets", form).scenes, *ignored)


def keys(node, path=""):
    """(path, key's schema) of every key below."""
    for key, below in node.get("properties", {}).items():
        yield f"{path}{key}", below
        yield from keys(below, f"{path}{key}.")
    for part in ("additionalProperties", "items"):
        if isinstance(node.get(part), dict):
            yield from keys(node[part], f"{path}*.")
    for name, below in node.get("$defs", {}).items():
        yield from keys(below, f"{path}$defs.{name}.")


@pytest.mark.parametrize("name", ALL)
def test_every_key_is_described_and_a_default_fits_its_key(name):
    schema = ALL[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    found = dict(keys(schema))
    assert len(found) >= len(schema["properties"]) > 2
    for path, node in found.items():
        assert node.get("description") or "$ref" in node, path
        if "default" in node:
            complete = {**node, "$defs": schema.get("$defs", {})}
            jsonschema.Draft202012Validator(complete).validate(node["default"])
        assert node.keys() <= KEYWORDS, f"{path}: a description with a comma needs quotes"
