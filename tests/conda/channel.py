"""A conda channel in a folder, made of what is installed on this machine.

    python tests/conda/channel.py FOLDER [ENVIRONMENT.yaml]...

writes FOLDER/conda-forge with the packages that the environments ask conda for, and what these need. Prints, one line
each, what of them is real and what is stood in for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import conda_package_handling.api as conda_packages
import rattler.index
import yaml
from packaging.requirements import Requirement

# conda's name -> that of the distribution that is installed here.
DISTRIBUTIONS = {"matplotlib-base": "matplotlib", "gdal": "GDAL"}
# What the machine has outside of this interpreter's packages: an empty package lets the build find it there.
OF_THE_MACHINE = {"cxx-compiler": "the machine's C++ compiler"}
# Its bindings are packaged, its library and headers are the machine's, and so the version is not the one asked for.
GDAL = "the machine's libgdal {} in its place, with its headers; only Python's bindings are in the package"


def names(environments: Sequence[Path]) -> dict[str, str]:
    """conda's packages that the environments name, each with the version they ask for, or ""."""
    found = {}
    for path in environments:
        for dependency in yaml.safe_load(path.read_text())["dependencies"]:
            if isinstance(dependency, str):
                name, _, version = dependency.partition("=")
                found[name.strip()] = version.strip("= ")
    return found


def write(folder: Path, environments: Sequence[Path]) -> list[str]:
    """Write the channel. Returns what is to be said about it, one line per kind of package.

    Raises LookupError, one line, when this machine has not what an environment asks for.
    """
    asked = names(environments)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if asked["python"] != python or "deb_system" in sysconfig.get_scheme_names():
        raise LookupError(
            f"the environments ask for a plain Python {asked['python']}; this is {python} of {sys.base_prefix}"
        )
    channel, waiting, real = folder / "conda-forge", [*asked], {}
    with tempfile.TemporaryDirectory(dir=folder) as part:
        while waiting:
            name = waiting.pop()
            if name in real:
                continue
            root, needs = Path(part) / name, []
            if name == "python":
                _python(root)
                real[name] = platform.python_version()
                _pack(root, channel, name, real[name], [], None)
                continue
            if name in OF_THE_MACHINE:
                real[name] = ""
                _pack(root, channel, name, "0", [], {})
                continue
            distribution = metadata.distribution(DISTRIBUTIONS.get(name, name))
            needs = list(_needs(distribution))
            waiting += needs
            real[name] = distribution.version
            _distribution(root, distribution)
            version = asked[name] if name == "gdal" else distribution.version
            _pack(root, channel, name, version, needs, _programs(distribution))
    asyncio.run(rattler.index.index_fs(channel))
    gdal = real.pop("gdal")
    stand_ins = [name for name in real if name in OF_THE_MACHINE]
    packages = sorted(f"{name} {version}" for name, version in real.items() if name not in ("python", *stand_ins))
    return [
        f"real: Python {real['python']} of {sys.base_prefix}, with its shared library there",
        f"real, from the packages beside this interpreter: {', '.join(packages)}",
        f"stood in for: gdal {asked['gdal']}: {GDAL.format(gdal)}",
        *(f"stood in for: {name}: {OF_THE_MACHINE[name]}" for name in stand_ins),
    ]


def _needs(distribution: metadata.Distribution) -> Iterator[str]:
    """conda's names of what a distribution needs. The channel has one version of each: these that are installed."""
    names = {d.lower(): name for name, d in DISTRIBUTIONS.items()}
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            yield names.get(name, name)


def _python(root: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, ignored = Path(sys.base_prefix), ("__pycache__", "test", "idlelib", "ensurepip", "site-packages", "*.a")
    shutil.copytree(
        base / "lib" / version, root / "lib" / version, symlinks=True, ignore=shutil.ignore_patterns(*ignored)
    )
    shutil.copytree(base / "include" / version, root / "include" / version)
    (root / "bin").mkdir()
    shutil.copy2(base / "bin" / version, root / "bin" / version)
    for link in ("python", "python3"):
        (root / "bin" / link).symlink_to(version)


def _distribution(root: Path, distribution: metadata.Distribution) -> None:
    """The files of an installed distribution, laid out as in a package of conda for any Python."""
    site = Path(distribution.locate_file("")).resolve()
    programs = _programs(distribution)
    for file in distribution.files or []:
        source = Path(distribution.locate_file(file)).resolve()
        if file.suffix == ".pyc" or not source.is_file():
            continue
        if source.is_relative_to(site):
            target = root / "site-packages" / source.relative_to(site)
        elif source.parent.name != "bin":
            target = root / source.relative_to(sys.prefix)
        elif source.name in programs:  # conda writes these itself
            continue
        else:
            target = root / "python-scripts" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _programs(distribution: metadata.Distribution) -> dict[str, str]:
    """{program: module:function} of a distribution's entry points."""
    return {e.name: e.value for e in distribution.entry_points if e.group == "console_scripts"}


def _pack(
    root: Path, channel: Path, name: str, version: str, needs: list[str], programs: dict[str, str] | None
) -> None:
    """A package of the files below `root`, which are removed.

    programs    of a package whose `site-packages` go to those of the environment's Python; compiled modules may be
                among them, as the channel is for this machine alone. None: the files go where they are below `root`
    """
    subdir = "linux-64" if programs is None else "noarch"
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "subdir": subdir, "depends": needs}
    files = sorted(p for p in root.rglob("*") if p.is_symlink() or p.is_file())
    paths = [
        {
            "_path": path.relative_to(root).as_posix(),
            "path_type": "softlink" if path.is_symlink() else "hardlink",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_in_bytes": path.stat().st_size,
        }
        for path in files
    ]
    info = root / "info"
    info.mkdir(parents=True)
    if programs is not None:
        index.update(noarch="python", depends=["python", *needs])
        entry_points = [f"{program} = {function}" for program, function in programs.items()]
        link = {"noarch": {"type": "python", "entry_points": entry_points}, "package_metadata_version": 1}
        (info / "link.json").write_text(json.dumps(link))
    (info / "paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
    (info / "index.json").write_text(json.dumps(index))
    folder = channel / subdir
    folder.mkdir(parents=True, exist_ok=True)
    every = [path.relative_to(root).as_posix() for path in [*files, *info.iterdir()]]
    conda_packages.create(str(root), every, f"{name}-{version}-0.conda", str(folder), compression_level=1)
    shutil.rmtree(root)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    print("\n".join(write(where, [Path(a) for a in sys.argv[2:]])))
