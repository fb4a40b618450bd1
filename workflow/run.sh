#!/usr/bin/env bash
# Runs snakemake on this project, first clearing the lock that a killed snakemake leaves in the working directory.
# All arguments go to snakemake.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
directory="$PWD"
previous=""
for argument in "$@"; do
  case "$previous" in --directory | -d) directory="$argument" ;; esac
  case "$argument" in --directory=*) directory="${argument#*=}" ;; esac
  previous="$argument"
done
mkdir -p "$directory/.snakemake"

# A lock is stale when nobody runs: no other run.sh (it would hold this file lock, which the kernel gives back when its
# holder dies) and no snakemake whose working directory is this one.
exec 9>"$directory/.snakemake/run.lock"
if ! flock -n 9; then
  echo "run: error: another run works in $directory; wait for it or stop it" >&2
  exit 1
fi
if compgen -G "$directory/.snakemake/locks/*" >/dev/null; then
  here="$(cd "$directory" && pwd -P)"
  for process in /proc/[0-9]*; do
    if [ "$(readlink "$process/cwd" 2>/dev/null)" = "$here" ] &&
      tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -qE '(bin/|-m )snakemake( |$)'; then
      echo "run: error: snakemake (process ${process#/proc/}) works in $directory; wait for it or stop it" >&2
      exit 1
    fi
  done
  echo "run: an earlier run was killed; clearing its lock"
  snakemake --snakefile "$root/workflow/Snakefile" "$@" --unlock --quiet all 9>&-
fi
# The lock belongs to this script alone: a job that outlives it must not keep it.
snakemake --snakefile "$root/workflow/Snakefile" "$@" 9>&-
