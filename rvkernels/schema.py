"""JSON schemas in YAML files, with errors on one line that name the key and suggest the nearest one."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import jsonschema
import yaml

from rvkernels import registry

# Inside the package in an installed wheel; beside it in a checkout.
FOLDERS = (Path(__file__).parent / "schemas", Path(__file__).parents[1] / "workflow" / "schemas")


def find(name: str) -> Path:
    """The schema file `name` of workflow/schemas/, wherever this package is installed."""
    for folder in FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is neither in {' nor in '.join(map(str, FOLDERS))}; install rvkernels again")


def read(path: str | Path) -> dict:
    """The keys and values of a YAML file. Raises ValueError, one line naming the file, when it holds something else."""
    try:
        value = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected keys and values, got {type(value).__name__}")
    return value


def validate(value: dict, schema_file: str | Path, where: str) -> dict:
    """A copy of `value` with the schema's defaults filled in at every level.

    Raises ValueError of one line: `where`, the key, what was expected and what came.
    """
    schema = _load(str(schema_file))
    value = copy.deepcopy(value)
    _fill(value, schema, schema)
    errors = sorted(_validator(schema).iter_errors(value), key=lambda e: (len(e.path), list(map(str, e.path))))
    if errors:
        raise ValueError(f"{where}: {_line(errors[0])}")
    return value


def _line(error: jsonschema.ValidationError) -> str:
    key = ": ".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        unknown = next(k for k in error.instance if k not in known)
        return f"{key + ': ' if key else ''}unknown key {unknown!r}; {registry.suggest(str(unknown), known)}"
    if error.validator in ("anyOf", "oneOf") and error.context:
        # The branch that came furthest is the one that was meant.
        return _line(max(error.context, key=lambda e: len(e.absolute_path)))
    text = " ".join(error.message.split())
    return f"{key + ': ' if key else ''}{text}" + (
        f" ({error.schema['description']})" if "description" in error.schema else ""
    )


@functools.cache
def _load(path: str) -> dict:
    schema = yaml.safe_load(Path(path).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def _validator(schema: dict) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema)


def _resolve(node: dict, root: dict) -> dict:
    while "$ref" in node:
        target: dict = root
        for part in node["$ref"].lstrip("#/").split("/"):
            target = target[part]
        node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
    return node


def _fill(value: object, node: dict, root: dict) -> None:
    node = _resolve(node, root)
    if isinstance(value, dict):
        for key, below in node.get("properties", {}).items():
            below = _resolve(below, root)
            if key not in value and "default" in below:
                value[key] = copy.deepcopy(below["default"])
            if key in value:
                _fill(value[key], below, root)
        if isinstance(node.get("additionalProperties"), dict):
            for key in value:
                if key not in node.get("properties", {}):
                    _fill(value[key], node["additionalProperties"], root)
    elif isinstance(value, list) and isinstance(node.get("items"), dict):
        for item in value:
            _fill(item, node["items"], root)
