"""Writes what the documentation takes from the workflow itself and from the results that are kept.

    .venv/bin/python workflow/docs.py [--check]

config/README.md gets a table of every key of workflow/schemas/ and one of the datasets, README.md the graph of the
rules that Snakemake draws, and results/published/README.md ours beside published results, each between two marks;
results/published/published.csv is written whole. With --check nothing is written, and the exit status is 1 when
something is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from rvkernels import published

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = {
    "Keys of a study": "config",
    "Keys of a dataset's description": "dataset",
    "Keys of a table of what jobs ask a cluster for": "cluster",
}


def keys() -> str:
    """Tables of every key, in Markdown."""
    parts = []
    for title, name in SCHEMAS.items():
        schema = yaml.safe_load((ROOT / f"workflow/schemas/{name}.schema.yaml").read_text())
        parts.append(f"## {title}")
        seen: dict[str, str] = {}
        for where, choice, rows in _tables(schema, schema, "", ""):
            if where:
                parts.append(f"### `{where}`" + (f" with `{choice}`" if choice else ""))
            table = "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows])
            same = seen.setdefault(table, where)
            parts.append(table if same == where else f"As `{same}`.")
    return "\n\n".join(parts)


def _tables(node: dict, schema: dict, where: str, choice: str) -> Iterator[tuple[str, str, list[str]]]:
    """(path, choice that it goes with, rows) of an object and of those below it."""
    node = _resolved(node, schema)
    properties = {key: _resolved(below, schema) for key, below in node.get("properties", {}).items()}
    rows = [_row(key, below, node.get("required", [])) for key, below in properties.items() if "description" in below]
    if rows:
        yield where, choice, rows
    for key, below in properties.items():
        yield from _tables(below, schema, f"{where}.{key}".lstrip("."), choice)
    for part, name in (("additionalProperties", "NAME"), ("items", "[]")):
        if isinstance(node.get(part), dict):
            yield from _tables(node[part], schema, f"{where}.{name}".lstrip("."), choice)
    for rule in node.get("allOf", []):
        given = rule.get("if", {}).get("properties", {})
        said = ", ".join(f"{key}: {value['const']}" for key, value in given.items())
        yield from _tables(rule.get("then", rule), schema, where, said)


def _resolved(node: dict, schema: dict) -> dict:
    defined = schema["$defs"][node["$ref"].removeprefix("#/$defs/")] if "$ref" in node else {}
    return {**defined, **node}


def _row(key: str, node: dict, required: list[str]) -> str:
    kind = node.get("enum") or node.get("type") or [way["type"] for way in node["oneOf"]]
    value = " or ".join(_word(word) for word in (kind if isinstance(kind, list) else [kind]))
    default = "*required*" if key in required else f"`{_word(node['default'])}`" if "default" in node else ""
    meaning = " ".join(node["description"].split()).replace("|", "\\|")
    return f"| `{key}` | {value} | {default} | {meaning} |"


def _word(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def rulegraph() -> str:
    """The rules of the default study and what each needs, as a Mermaid block."""
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "workflow/Snakefile", "--cores", "1"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--configfile", ROOT / "config/config.yaml", "--rulegraph", "mermaid-js"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"docs: error: snakemake --rulegraph failed:\n{done.stderr}")
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", done.stdout))
    edges = sorted((names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", done.stdout))
    return "\n".join(["```mermaid", "flowchart TB", *(f"  {a} --> {b}" for a, b in edges), "```"])


def datasets() -> str:
    """A table of config/datasets/, in Markdown."""
    rows = []
    for path in sorted((ROOT / "config/datasets").glob("*.yaml")):
        about = yaml.safe_load(path.read_text())
        needed = [entry for entry in about.get("files", []) if not entry.get("optional")]
        how = "drawn" if not needed else "fetched" if all(entry.get("urls") for entry in needed) else "by hand"
        number = len(about["classes"])
        what = f"{', '.join(about['tasks'])}; {number} class{'es' if number > 1 else ''}"
        rows.append(f"| `{path.stem}` | {about['title']} | {what} | `{about['form']}` | {how} | {about['licence']} |")
    head = ["| description | dataset | for | form | files | licence |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join(head + rows)


def beside_published() -> str:
    """Tables of results/published/README.md."""
    return published.as_markdown(ROOT / "results/published", _rows())


def published_csv() -> str:
    """The whole of results/published/published.csv."""
    return published.as_csv(_rows())


def _rows() -> list[dict[str, str]]:
    return published.rows(ROOT / "results/published", ROOT / "config/datasets")


# Part -> its file, and what makes it. A part of a page stands between two marks; a CSV file is one part.
PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "keys": ("config/README.md", keys),
    "datasets": ("config/README.md", datasets),
    "rulegraph": ("README.md", rulegraph),
    "published": ("results/published/README.md", beside_published),
    "published_csv": ("results/published/published.csv", published_csv),
}


def renew(part: str, *, check: bool) -> bool:
    """Write a part of the documentation anew, unless `check`. Returns whether it was out of date."""
    file, make = PARTS[part]
    path = ROOT / file
    if path.suffix == ".csv":
        text = path.read_text() if path.is_file() else ""
        new = make()
    else:
        text = path.read_text()
        new = _between_marks(text, part, file, make())
    if new != text and not check:
        path.write_text(new)
    return new != text


def _between_marks(text: str, part: str, file: str, made: str) -> str:
    """`text` of a page with `made` between the marks of the part."""
    begin, end = f"<!-- {part}: written by `make docs` -->\n", f"\n<!-- end of {part} -->"
    if text.count(begin) != 1 or end not in text.partition(begin)[2]:
        sys.exit(f"docs: error: {file} needs the line {begin.strip()} once, and {end.strip()} after it")
    before, _, rest = text.partition(begin)
    return before + begin + made + end + rest.partition(end)[2]


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("docs.py", description=__doc__, formatter_class=form)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    old = [part for part in PARTS if renew(part, check=check)]
    for part in old:
        print(f"docs: {PARTS[part][0]}: {part} {'is out of date; `make docs` writes it anew' if check else 'written'}")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
