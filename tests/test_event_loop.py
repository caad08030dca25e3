"""The loop that commands run on; each in a process of its own, for the collector's thresholds are the process's."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from importlib.util import find_spec

import pytest

from fetcher import event_loop
from tests.lab.command import ROOT

SCRIPT = """
import asyncio, gc, sys
if sys.argv[1:] == ["plain"]:
    sys.modules["uvloop"] = sys.modules["winloop"] = None
from fetcher import event_loop

async def main():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

print(event_loop.run(main), gc.get_threshold()[0] > 10_000, gc.get_freeze_count() > 0)
"""


def said(*words: str, script: str = SCRIPT) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, timeout=60, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not find_spec("uvloop"), reason="the extra 'speed' is not installed")
def test_it_is_the_fastest_that_is_installed_and_the_collector_looks_rarely() -> None:
    assert said() == ["uvloop", "True", "True"]


def test_without_one_it_is_the_interpreters_own() -> None:
    assert said("plain") == ["asyncio", "True", "True"]


INTERRUPTED = """
import asyncio, gc, sys
from fetcher import event_loop

def interrupted(*_, **__):
    raise KeyboardInterrupt

async def main():
    print("began")

place, name = sys.argv[1].rsplit(".", 1)
setattr(eval(place), name, interrupted)
try:
    event_loop.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("place", ["gc.freeze", "gc.set_threshold", "event_loop.fastest_loop", "asyncio.Runner.run"])
def test_what_an_interrupt_keeps_from_its_begin_is_not_told_of(place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, place], cwd=ROOT, timeout=60, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


PARSE = """
import asyncio, resource, sys, weakref
from fetcher import event_loop
from fetcher.model import Request, Response
from fetcher.page.parse import parse

BODY = b"<title>t</title>" + b"<p class=c>a <a href=/b>c</a></p>" * 2_000

event_loop.LONG_RUN_SECONDS = 0.0

def parsed():
    document = parse(Response(Request(0, "http://h/"), "http://h/", 200, body=BODY))
    document.count_links()
    return weakref.ref(document)

before = parsed()
kept = before() is not None

async def main():
    while not event_loop.freed_memory_stays:
        await asyncio.sleep(0.01)
    faults = 0
    for page in range(30):
        if page == 10:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        # As much as may stay, in blocks so large that glibc would ask the system for each.
        blocks = [b"." * (5_000_000 + number) for number in range(10)]
        last = parsed()
        del blocks
    return before() is None and last() is None, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) // 20

print(event_loop.freed_memory_stays, kept, *event_loop.run(main), event_loop.freed_memory_stays)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep what is freed")
def test_a_tree_is_made_where_the_last_one_was() -> None:
    stayed_before, kept, freed, faults, stays = said(script=PARSE)
    assert (stayed_before, kept, freed, stays) == ("False", "True", "True", "True")
    assert int(faults) < 20  # a page; it takes about 300 where the memory goes back to the system


def test_where_another_library_allocates_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "freed_memory_stays", False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    event_loop.keep_freed_memory()
    assert not event_loop.freed_memory_stays


def test_a_python_without_ctypes_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "freed_memory_stays", False)
    monkeypatch.setitem(sys.modules, "ctypes", None)
    event_loop.keep_freed_memory()
    assert not event_loop.freed_memory_stays
