#!/usr/bin/env bash
# Builds the package with a sanitizer of CMakePresets.json and runs the kernels' tests, or another command, with it.
#
#   tests/sanitize/run.sh asan|tsan [COMMAND...]
set -euo pipefail
cd "$(dirname "$0")/../.."
preset="$1" && shift
# These compile for other machines, without the sanitizer.
skip=(--ignore=tests/ops/test_portable.py)
site="build/$preset/site"
printf 'sanitize: building with %s\n' "$preset"
# --target does not look at what is there, so what is gone from the sources must go first.
rm -rf "$site"
.venv/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --target "$site" \
  -Cbuild-dir="build/$preset" -Ccmake.args="--preset=$preset" .
runtime() { "${CXX:-g++}" -print-file-name="$1"; }
export PYTHONPATH="$PWD/$site"
# An instrumented module in a Python that is not: the run time comes first, and with it the C++ library it watches.
# Leaks are not looked for, since Python keeps what it made until the end. TSan cannot place its shadow memory under
# the address layouts of newer kernels, hence setarch. A report ends the process, so that a test fails.
case "$preset" in
  asan) export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 && wrap=() && preload=libasan.so ;;
  tsan)
    export TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/tests/sanitize/tsan.txt"
    wrap=(setarch "$(uname -m)" -R) && preload=libtsan.so
    ;;
esac
# Which threads meet does not depend on the instruction set.
[ "$preset" = asan ] || skip+=(--ignore=tests/ops/test_dispatch.py)
[ $# -gt 0 ] || set -- .venv/bin/pytest -q -n auto --maxprocesses 4 "${skip[@]}" tests/ops
exec "${wrap[@]}" env LD_PRELOAD="$(runtime "$preload") $(runtime libstdc++.so.6)" "$@"
