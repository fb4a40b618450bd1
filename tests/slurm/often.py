"""Snakemake that asks after its SLURM jobs every two seconds; arguments are its own.

By itself it waits ten seconds longer each time that no job has ended, and so would the tests.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def two_seconds(executor: RemoteExecutor) -> None:
    await asyncio.sleep(2)


RemoteExecutor.sleep = two_seconds
sys.exit(main())
