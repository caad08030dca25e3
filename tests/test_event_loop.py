"""The loop that commands run on; each in a process of its own, for the collector's thresholds are the process's."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.lab.command import ROOT

SCRIPT = """
import asyncio, gc, sys
if sys.argv[1:] == ["plain"]:
    sys.modules["uvloop"] = sys.modules["winloop"] = None
from fetcher import event_loop

async def main():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

print(event_loop.run(main()), gc.get_threshold()[0] > 10_000, gc.get_freeze_count() > 0)
"""


def said(*words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], cwd=ROOT, timeout=60, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not find_spec("uvloop"), reason="the extra 'speed' is not installed")
def test_it_is_the_fastest_that_is_installed_and_the_collector_looks_rarely() -> None:
    assert said() == ["uvloop", "True", "True"]


def test_without_one_it_is_the_interpreters_own() -> None:
    assert said("plain") == ["asyncio", "True", "True"]
