#!/usr/bin/env bash
# Builds rvkernels into the environment that snakemake has just made. It runs in the working directory, the checkout.
set -euo pipefail
python -m pip install --no-build-isolation --no-deps .
