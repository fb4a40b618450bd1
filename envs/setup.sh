#!/usr/bin/env bash
# Sets up .venv (Debian's libgdal, the pinned packages of base.txt, rvkernels itself), then frameworks.
#
#   envs/setup.sh [STUDY.yaml | FRAMEWORK | bench]...
#
# sets up the frameworks of a study, or those named, or what the kernels are compared with. Safe to run again: what is there is left, a second run takes a second.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'setup: %s\n' "$*"; }
exec 9<envs/setup.sh
flock -n 9 || { say "waiting for another set-up of this checkout" && flock 9; }
python="${PYTHON:-python3}"

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
  "$python" - <<'EOF' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    sys.exit(f"setup: error: Python {sys.version.split()[0]} found, 3.11 or 3.12 needed; name one with PYTHON=python3.11")
EOF
fi

missing=()
command -v gdal-config >/dev/null || missing+=(libgdal-dev)
command -v g++ >/dev/null || missing+=(g++)
echo '#include <libdeflate.h>' | g++ -E -x c++ - >/dev/null 2>&1 || missing+=(libdeflate-dev)
"$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[ -e "$header" ] || missing+=(python3-dev)
if [ ${#missing[@]} -gt 0 ]; then
  command="apt-get install -y --no-install-recommends ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    say "error: not found: ${missing[*]} (Debian's names). Install them with your system's package manager and run again"
    exit 1
  elif [ "$(id -u)" = 0 ]; then
    sudo=()
  elif sudo -n true 2>/dev/null; then
    sudo=(sudo)
  else
    say "error: not found: ${missing[*]}. Type: sudo apt-get update && sudo $command"
    exit 1
  fi
  say "installing ${missing[*]} with apt-get"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" $command >/dev/null
fi

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
  say "creating .venv with $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

gdal="$(gdal-config --version)"
state="$(cat envs/base.txt; echo "GDAL $gdal")"
if [ "$state" != "$(cat .venv/.base 2>/dev/null)" ]; then
  say "base 1/2: GDAL's Python bindings for libgdal $gdal"
  pip install --quiet $(grep -E '^(numpy|setuptools|wheel)==' envs/base.txt)
  # The bindings are compiled against this NumPy and this libgdal, so without build isolation and at libgdal's version.
  pip install --quiet --no-build-isolation "gdal[numpy]==$gdal.*"
  .venv/bin/python -c 'from osgeo import gdal_array' || {
    say "error: GDAL's bindings lack NumPy support; remove .venv and run again"
    exit 1
  }
  say "base 2/2: Snakemake, pandas, Matplotlib and the rest"
  pip install --quiet -r envs/base.txt
  printf '%s' "$state" >.venv/.base
fi
exec .venv/bin/python envs/frameworks.py "$@"
