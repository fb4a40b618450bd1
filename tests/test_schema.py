import pytest
import yaml

from rvkernels.schema import validate

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "chip": {
            "type": "object",
            "default": {},
            "additionalProperties": False,
            "properties": {"size": {"type": "integer", "minimum": 1, "default": 256, "description": "pixels"}},
        },
        "parts": {"type": "object", "additionalProperties": {"$ref": "#/$defs/part"}},
    },
    "$defs": {"part": {"type": "object", "properties": {"weight": {"type": "number", "default": 1.5}}}},
}


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(SCHEMA))
    return path


def test_fills_defaults_at_every_level_and_leaves_the_input_alone(schema):
    given = {"name": "x", "parts": {"a": {}}}
    assert validate(given, schema, "f") == {"name": "x", "chip": {"size": 256}, "parts": {"a": {"weight": 1.5}}}
    assert given == {"name": "x", "parts": {"a": {}}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "x", "chips": {}}, "f: unknown key 'chips'; there are chip, name, parts. Did you mean 'chip'?"),
        ({"name": "x", "chip": {"sise": 3}}, "f: chip: unknown key 'sise'; there are size. Did you mean 'size'?"),
        ({"name": "x", "chip": {"size": 0}}, "f: chip: size: 0 is less than the minimum of 1 (pixels)"),
        ({}, "f: 'name' is a required property"),
    ],
)
def test_says_what_is_wrong_on_one_line(schema, given, message):
    with pytest.raises(ValueError, match="f: ") as error:
        validate(given, schema, "f")
    assert str(error.value) == message
