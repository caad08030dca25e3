"""Where a bench runs, and with what: the part of a report that makes two of them comparable."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from fetcher import __version__
from fetcher.bench.results import Machine

__all__ = ["this_machine"]


def this_machine(loop: str) -> Machine:
    """Describe this machine; ``loop`` is the module of the event loop the rounds ran on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        fetcher=__version__,
        aiohttp=_version("aiohttp"),
        loop=f"{loop} {_version(loop)}".strip() if loop not in ("", "asyncio") else "asyncio",
        cpus=cpus or 1,
        date=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
