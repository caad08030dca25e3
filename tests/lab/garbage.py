"""Owns the look at what the garbage collector alone could free after rows have run: a process of its own.

Run with ``python -m tests.lab.garbage``: a JSON list of ``Kind`` on standard input, a JSON list of ``Found`` on
standard output. Law 1: nothing but what runs is measured: the server is in another process, and the collector is off
meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import aiohttp
import msgspec

from fetcher import Config, Failure, Fetcher

__all__ = ["Found", "Kind"]


class Kind(msgspec.Struct, frozen=True):
    """Rows of one kind: so many, and twice as many. ``options`` are the run's, ``timeouts`` those of aiohttp alone."""

    name: str
    once: list[str]
    twice: list[str]
    options: dict[str, Any]
    timeouts: dict[str, float] = {}


class Found(msgspec.Struct, frozen=True):
    """The codes the rows ended with, and how many objects of each type came in with the second half of the rows.

    Those of ``plain`` are what aiohttp leaves, asked for the same URLs without us.
    """

    name: str
    codes: dict[str, int]
    ours: dict[str, int]
    plain: dict[str, int]


Left: TypeAlias = tuple[Counter[str], Counter[str]]
"""How the rows ended, and by type the objects that nothing refers to any more but they themselves."""


async def fetched(urls: Sequence[str], options: dict[str, Any]) -> Left:
    """Run the rows, and look while the ``Fetcher`` is still open."""
    codes: Counter[str] = Counter()
    gc.collect()
    async with Fetcher(Config.of(**options)) as fetcher, fetcher.stream(urls) as outcomes:
        async for outcome in outcomes:
            codes[outcome.error.code if isinstance(outcome, Failure) else "ok"] += 1
            del outcome
        return codes, await unreachable()


async def asked(urls: Sequence[str], timeouts: dict[str, float]) -> Left:
    """Ask for the URLs with aiohttp alone."""
    codes: Counter[str] = Counter()
    timeout = aiohttp.ClientTimeout(**timeouts)
    gc.collect()
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(url: str) -> None:
            try:
                async with session.get(url, allow_redirects=False) as answer:
                    await answer.read()
                    codes[str(answer.status)] += 1
            except (aiohttp.ClientError, OSError, ValueError) as error:
                codes[type(error).__name__] += 1

        await asyncio.gather(*(ask(url) for url in urls))
        return codes, await unreachable()


async def unreachable() -> Counter[str]:
    """Count by type what the collector finds now."""
    await asyncio.sleep(0.05)  # transports and their sockets are closed a turn later
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = Counter(map(name_of, gc.garbage))
    gc.set_debug(0)
    gc.garbage.clear()
    return found


def name_of(thing: object) -> str:
    """Return the type of an object, and of what runs code whose code it is."""
    code = getattr(thing, "gi_code", None) or getattr(thing, "cr_code", None) or getattr(thing, "f_code", None)
    if isinstance(code, types.CodeType):
        home = code.co_filename.replace("\\", "/").rpartition("/site-packages/")[2]
        ours = "fetcher" if "/fetcher/" in home else home
        return f"{ours}: {code.co_qualname}"
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def growth(once: Counter[str], twice: Counter[str]) -> dict[str, int]:
    """Return what there is more of, by type."""
    return {name: more for name, many in twice.items() if (more := many - once[name]) > 0}


async def look(kind: Kind) -> Found:
    """Run the rows of a kind once and twice, with us and without."""
    await fetched(kind.once, kind.options)  # what is made once in a process is made now
    codes, once = await fetched(kind.once, kind.options)
    more_codes, twice = await fetched(kind.twice, kind.options)
    _, plain_once = await asked(kind.once, kind.timeouts)
    _, plain_twice = await asked(kind.twice, kind.timeouts)
    return Found(kind.name, dict(codes + more_codes), growth(once, twice), growth(plain_once, plain_twice))


def main() -> None:
    """Look at each kind that is asked for."""
    gc.disable()
    kinds = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Kind])
    sys.stdout.buffer.write(msgspec.json.encode([asyncio.run(look(kind)) for kind in kinds]))


if __name__ == "__main__":
    main()
