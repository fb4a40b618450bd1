import os

import pytest


@pytest.fixture
def conda(tmp_path):
    """PATH with a `conda` that answers what snakemake asks it before a dry run; it makes no environment."""
    script = tmp_path / "bin/conda"
    script.parent.mkdir()
    script.write_text(
        """#!/bin/sh
case "$1" in
  --version) echo conda 25.1.0 ;;
  info) echo '{"conda_prefix": "/nowhere", "platform": "linux-64"}' ;;
  config) echo '{"get": {"channel_priority": "strict"}}' ;;
  *) exit 1 ;;
esac
"""
    )
    script.chmod(0o755)
    return f"{script.parent}{os.pathsep}{os.environ['PATH']}"
