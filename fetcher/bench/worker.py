"""One round of a bench, in a process of its own: a list fetched in one mode, every row timed.

Laws: both modes run through the same handlers, reader and sink, and are timed by the same outermost middleware;
what a round costs is counted from its first row on, start-up excluded. A ``Spec`` is one line of JSON on standard
input, each line of standard output a ``Done``, and the last a ``Result`` or a ``Trouble``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from fetcher import event_loop
from fetcher.bench.results import Sample
from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import ConfigError, FetcherError
from fetcher.files import write_all
from fetcher.model import Exchange, Outcome, Page, Request, Response
from fetcher.sinks.jsonl import JSONLSink
from fetcher.spawn import when_owner_ends
from fetcher.urls import parse

__all__ = ["Done", "Message", "Result", "Row", "Spec", "Trouble", "run"]

TELL_EVERY = 0.1  # seconds
_PAGE = b"<!doctype html><meta charset=utf-8><title>Rehearsal</title><p><a href='/'>Once more</a>"


class Row(msgspec.Struct, frozen=True):
    """A row of the list; ``headers`` are sent with it."""

    id: int
    url: str
    headers: tuple[tuple[str, str], ...] = ()


class Spec(msgspec.Struct, frozen=True):
    """What a round is to do."""

    config: Config
    sequential: bool
    rows: list[Row]


class Done(msgspec.Struct, frozen=True, tag="done"):
    """So many rows have their outcome."""

    rows: int


class Result(msgspec.Struct, frozen=True, tag="result"):
    """What a round has measured: see ``results.Round``. ``loop`` names the event loop it ran on."""

    wall: float
    cpu: float
    peak_memory: int | None
    loop: str
    samples: list[Sample]


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """Why a round could not be run; ``usage`` says that a setting is wrong."""

    text: str
    usage: bool


Message: TypeAlias = Done | Result | Trouble


class Stopwatch:
    """The outermost middleware: when each row was taken up first, and when it was left last."""

    def __init__(self) -> None:
        self.begun: dict[int, float] = {}
        self.left: dict[int, float] = {}

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Time the row; one that comes back after a long wait keeps its first beginning."""
        self.begun.setdefault(request.id, time.perf_counter())
        try:
            return await proceed(request)
        finally:
            self.left[request.id] = time.perf_counter()


async def run(spec: Spec, tell: Callable[[int], None]) -> Result:
    """Fetch all rows and return what it took; ``tell`` is told of the rows done, now and then."""
    await _rehearse(spec)
    watch = Stopwatch()
    rows = [Request(row.id, row.url, row.headers) for row in spec.rows]
    came: list[tuple[int, float, str | None, int | None, int | None, int]] = []
    async with Fetcher(spec.config, middleware=[watch]) as fetcher:
        cpu, began = time.process_time(), time.perf_counter()
        tell_at = began + TELL_EVERY
        async with (
            JSONLSink(os.devnull, fresh=True) as sink,
            fetcher.stream(rows, sequentially=spec.sequential) as outcomes,
        ):
            async for outcome in outcomes:
                await sink.write(outcome)
                came.append(_noted(outcome))
                if time.perf_counter() >= tell_at:
                    tell(len(came))
                    tell_at = time.perf_counter() + TELL_EVERY
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    hosts = {row.id: parse(row.url, spec.config.default_scheme).host for row in spec.rows}
    samples = [
        Sample(
            row,
            hosts[row],
            watch.begun.get(row, began) - began,
            watch.left.get(row, began) - began,
            latency,
            code,
            status,
            length,
            size,
        )
        for row, latency, code, status, length, size in sorted(came)
    ]
    return Result(wall, cpu, peak_memory(), loop, samples)


def _noted(outcome: Outcome) -> tuple[int, float, str | None, int | None, int | None, int]:
    """Keep of an outcome what a sample is made of, and let the rest go."""
    if isinstance(outcome, Page):
        return outcome.request.id, outcome.elapsed, None, outcome.status, outcome.length, outcome.bytes
    return outcome.request.id, outcome.elapsed, outcome.error.code, outcome.status, None, outcome.bytes or 0


async def _rehearse(spec: Spec) -> None:
    """Fetch three pages of our own, so that what is loaded when first used is loaded before the round."""

    async def stage(request: Request) -> Response:
        return Response(request, request.url, 200, (("content-type", "text/html"),), _PAGE, len(_PAGE))

    rows = [f"http://127.0.0.1/{number}" for number in range(3)]
    async with Fetcher(spec.config, transport=stage) as fetcher:
        await fetcher.run(rows, JSONLSink(os.devnull, fresh=True), sequentially=spec.sequential)


def peak_memory() -> int | None:
    """Return the most memory this process has held, in bytes, or ``None`` where the system does not tell.

    Linux hands ``ru_maxrss`` on to whoever a process starts (getrusage(2) is silent about it), so that a small
    round would show the memory of its large owner: its own high-water mark is asked for first.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main() -> None:
    # A terminal's Ctrl-C reaches us too; how to end on it is for the owner to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=Spec)
    when_owner_ends(lambda: os._exit(1))
    try:  # on the command line's own loop: a round is to cost what a crawl costs
        message: Message = event_loop.run(run(spec, lambda rows: _say(Done(rows))))
    except FetcherError as error:
        message = Trouble(str(error), isinstance(error, ConfigError))
    _say(message)


def _say(message: Message) -> None:
    # Not by sys.stdout: under PYTHONUNBUFFERED it writes once, and what a pipe does not take of a long line is lost.
    write_all(1, msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    _main()
