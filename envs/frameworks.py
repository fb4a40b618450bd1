"""Installs rvkernels and frameworks: envs/<name>.yaml holds all that is asked for about a framework.

    .venv/bin/python envs/frameworks.py [STUDY.yaml | FRAMEWORK | bench]...

A framework whose file names the Python of base.yaml goes into .venv, with the others. One that names another Python
gets an environment of its own, .venv-<name>, and so does `bench`, the libraries that the kernels are compared with. pip
installs the `pip:` list of the file; the rest of it is for conda.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import yaml

from find_python import PythonMissingError, find

ROOT = Path(__file__).resolve().parents[1]
ENVS = ROOT / "envs"
VENV = ROOT / ".venv"
# No framework: what is in its environment never meets rvkernels in a process.
PEERS = "bench"


class SetupError(Exception):
    """What is wrong, in one line."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def read(name: str) -> tuple[str, list[str]]:
    """(Python version, list for pip) of envs/<name>.yaml.

    Raises SetupError when there is no such file.
    """
    path = ENVS / f"{name}.yaml"
    if not path.is_file():
        raise SetupError(f"no envs/{name}.yaml; there are {', '.join(sorted(p.stem for p in ENVS.glob('*.yaml')))}")
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    (python,) = (d.split("=")[-1] for d in dependencies if isinstance(d, str) and d.split("=")[0].strip() == "python")
    pip = [requirement for d in dependencies if isinstance(d, dict) for requirement in d["pip"]]
    return python, pip


@functools.cache  # the workflow asks for every job
def shares_base(name: str) -> bool:
    """Whether a framework has the Python of base.yaml, and so the rvkernels that is built for it."""
    return name != PEERS and read(name)[0] == read("base")[0]


def home(name: str) -> Path:
    """The environment that a framework, or the peers, go into."""
    return VENV if shares_base(name) else VENV.with_name(f"{VENV.name}-{name}")


def pip(environment: Path, *arguments: str) -> None:
    """Run .venv's pip for an environment.

    Raises SetupError; what pip said stands above.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", environment / "bin/python"]
    done = subprocess.run([*command, *arguments], check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stdout, end="", file=sys.stderr)
        raise SetupError(f"pip {arguments[0]} failed for {environment.name}; see above")


def base_pins(*names: str) -> list[str]:
    """The lines of base.txt for these packages."""
    return [line for line in (ENVS / "base.txt").read_text().splitlines() if line.partition("==")[0] in names]


def ready(stamp: Path, state: str) -> bool:
    return stamp.is_file() and stamp.read_text() == state


def install(name: str) -> None:
    """Install a framework, or the peers, into the environment, unless what its file asks for is there.

    Raises SetupError, and PythonMissingError when the machine has no Python of the version that the file names.
    """
    python, requirements = read(name)
    environment = home(name)
    gdal = subprocess.run(["gdal-config", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    stamp, state = environment / f".{name}", f"{(ENVS / f'{name}.yaml').read_text()}GDAL {gdal}\n"
    if ready(stamp, state):
        return
    start = time.monotonic()
    pins: list[str] = []
    steps = 1 if environment == VENV else 2 if name == PEERS else 3
    if environment == VENV:
        pins = ["--constraint", "envs/base.txt"]
    elif not runs(environment):
        same = python == read("base")[0]
        interpreter = Path(sys.executable) if same else find(python, ROOT / f".python{python}")
        say(f"{name} 1/{steps}: {environment.name} with {interpreter}")
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", "--without-pip", environment], check=True)
    if steps == 3:
        # The bindings are compiled against the framework's NumPy, with base's setuptools: its own may be too old.
        say(f"{name} 2/{steps}: GDAL's Python bindings for libgdal {gdal}")
        numpy = [r for r in requirements if r.startswith("numpy==")]
        pip(environment, "install", "--quiet", *numpy, *base_pins("setuptools", "wheel"))
        pip(environment, "install", "--quiet", "--no-build-isolation", f"gdal[numpy]=={gdal}.*")
    say(f"{name} {steps}/{steps}: {requirements[0]} and what it needs, into {environment.name}")
    pip(environment, "install", "--quiet", *pins, *requirements)
    pip(environment, "check")
    stamp.write_text(state)
    say(f"{name}: {time.monotonic() - start:.0f} s")


def runs(environment: Path) -> bool:
    python = environment / "bin/python"
    return python.exists() and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def sources() -> str:
    """A digest of what rvkernels is built from."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["rvkernels"]["sources"]
    digest = hashlib.sha256()
    for path in sorted(p for pattern in patterns for p in ROOT.glob(pattern)):
        digest.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def build(environment: Path) -> None:
    """Build and install rvkernels into an environment unless these sources are there."""
    stamp, state = environment / ".rvkernels", sources()
    if not ready(stamp, state):
        say(f"building rvkernels (C++ kernels and the GDAL reader) into {environment.name}")
        pip(environment, "install", "--quiet", "--no-build-isolation", "--no-deps", ".")
        stamp.write_text(state)


def asked(arguments: list[str]) -> list[str]:
    """What `arguments` name, and the frameworks of the studies among them, and the peers if a study wants these.

    Raises ValueError or FileNotFoundError, one line, for a wrong study.
    """
    from rvkernels.study import Study, load  # built just before

    names = []
    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            study = Study.resolve(load(argument), datasets=ROOT / "config/datasets")
            names += [*study.frameworks, *([PEERS] if study.config["bench"] else [])]
        else:
            names.append(argument)
    return list(dict.fromkeys(names))


def main(arguments: list[str]) -> int:
    """Returns 0, or 1 after one line about what is wrong."""
    name = ""
    try:
        build(VENV)
        for name in asked(arguments):
            install(name)
            if name != PEERS:
                build(home(name))
    except PythonMissingError as error:
        say(f"error: {name}: {error}. Install one, or take {name} out of `frameworks:` in the study")
        return 1
    except (SetupError, ValueError, FileNotFoundError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
