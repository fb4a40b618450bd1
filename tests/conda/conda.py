"""The part of the command `conda` that Snakemake calls: a stand-in, with channels in the folder RVK_CHANNELS.

Only the command and `activate` are stood in for. rattler, the library under pixi, solves and links as for users, and
pip installs the `pip:` lists from the machine's package index.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

VERSION = "25.1.0"
ACTIVATE = """\
# Sourced with the folder of an environment.
export CONDA_PREFIX="$1" PATH="$1/bin:$PATH" CONDA_DEFAULT_ENV="$1" CONDA_SHLVL=1
"""


def install(home: Path) -> Path:
    """Make `home` the folder that the command says it is installed in. Returns what PATH needs."""
    binaries = home / "bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text(ACTIVATE)
    (binaries / "conda").write_text(
        f'#!/bin/sh\nexport RVK_CONDA_HOME="{home}"\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n'
    )
    (binaries / "conda").chmod(0o755)
    return binaries


def create(file: Path, prefix: Path) -> None:
    """Make the environment that `file` describes."""
    environment = yaml.safe_load(file.read_text())
    dependencies = environment["dependencies"]
    channels = [name for name in environment["channels"] if name != "nodefaults"]
    asyncio.run(link([d for d in dependencies if isinstance(d, str)], channels, prefix))
    requirements = [r for d in dependencies if isinstance(d, dict) for r in d["pip"]]
    if requirements:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
            listed.write("\n".join(requirements))
            listed.flush()
            command = [prefix / "bin/python", "-m", "pip", "install", "--requirement", listed.name]
            subprocess.run(command, check=True, cwd=file.parent)


async def link(specs: Sequence[str], channels: Sequence[str], prefix: Path) -> None:
    from rattler import Channel, Gateway, VirtualPackage, install, solve

    folder = Path(os.environ["RVK_CHANNELS"]).resolve()
    found = await solve(
        sources=[Channel((folder / name).as_uri()) for name in channels],
        specs=specs,
        gateway=Gateway(cache_dir=folder / "cache"),
        platforms=["linux-64", "noarch"],
        virtual_packages=VirtualPackage.detect(),
    )
    await install(found, prefix, cache_dir=folder / "cache", show_progress=False)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("conda", description=__doc__)
    parser.add_argument("--version", action="version", version=f"conda {VERSION}")
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("info").add_argument("--json", action="store_true")
    config = commands.add_parser("config")
    config.add_argument("--get", choices=["channel_priority"])
    config.add_argument("--json", action="store_true")
    clean = commands.add_parser("clean")
    for option in ("--yes", "-y", "--tarballs"):
        clean.add_argument(option, action="store_true")
    made = commands.add_parser("env").add_subparsers(required=True).add_parser("create")
    for option in ("--quiet", "--no-default-packages"):
        made.add_argument(option, action="store_true")
    made.add_argument("--file", type=Path, required=True)
    made.add_argument("--prefix", type=Path, required=True)
    a = parser.parse_args(arguments)
    if a.command == "info":
        home = Path(os.environ["RVK_CONDA_HOME"])
        print(json.dumps({"conda_prefix": str(home), "platform": "linux-64", "conda_version": VERSION}))
    elif a.command == "config":
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif a.command == "env":
        create(a.file, a.prefix)


if __name__ == "__main__":
    main(sys.argv[1:])
