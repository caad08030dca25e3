"""One round of a bench, in a process of its own: a list fetched in one mode, every row timed.

Laws: both modes run through the same handlers, reader and sink, and are timed by the same outermost middleware. The
cost of a round is counted from its first row on, without the start of the process. A ``RoundSpec`` is one line of JSON
on standard input. Each line of standard output is a ``RoundProgress``, and the last one a ``RoundResult`` or a
``RoundError``.
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

__all__ = ["Message", "RoundError", "RoundProgress", "RoundResult", "RoundSpec", "Row", "run"]

PROGRESS_INTERVAL_SECONDS = 0.1
_WARM_UP_PAGE = b"<!doctype html><meta charset=utf-8><title>Rehearsal</title><p><a href='/'>Once more</a>"


class Row(msgspec.Struct, frozen=True):
    """A row of the list; ``headers`` are sent with it."""

    id: int
    url: str
    headers: tuple[tuple[str, str], ...] = ()


class RoundSpec(msgspec.Struct, frozen=True):
    """What a round has to do."""

    config: Config
    sequential: bool
    rows: list[Row]


class RoundProgress(msgspec.Struct, frozen=True, tag="done"):
    """How many rows have their outcome."""

    rows: int


class RoundResult(msgspec.Struct, frozen=True, tag="result"):
    """What a round has measured: see ``results.Round``. ``loop`` is the module of its event loop."""

    wall: float
    cpu: float
    peak_memory: int | None
    loop: str
    samples: list[Sample]


class RoundError(msgspec.Struct, frozen=True, tag="trouble"):
    """Why a round could not be run; ``usage`` says that a setting is wrong."""

    text: str
    usage: bool


Message: TypeAlias = RoundProgress | RoundResult | RoundError


class RowTimer:
    """The outermost middleware: when each row first started, and when it last ended."""

    def __init__(self) -> None:
        self.started: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Time the row; one that comes back after a long wait keeps its first start."""
        self.started.setdefault(request.id, time.perf_counter())
        try:
            return await proceed(request)
        finally:
            self.ended[request.id] = time.perf_counter()


async def run(spec: RoundSpec, tell: Callable[[int], None]) -> RoundResult:
    """Fetch all rows and return what it took; ``tell`` gets the number of rows done, about ten times a second."""
    await _warm_up(spec)
    timer = RowTimer()
    rows = [Request(row.id, row.url, row.headers) for row in spec.rows]
    outcomes_seen: list[tuple[int, float, str | None, int | None, int | None, int]] = []
    async with Fetcher(spec.config, middleware=[timer]) as fetcher:
        cpu, began = time.process_time(), time.perf_counter()
        tell_at = began + PROGRESS_INTERVAL_SECONDS
        async with (
            JSONLSink(os.devnull, fresh=True) as sink,
            fetcher.stream(rows, sequentially=spec.sequential) as outcomes,
        ):
            async for outcome in outcomes:
                await sink.write(outcome)
                outcomes_seen.append(_facts_of(outcome))
                if time.perf_counter() >= tell_at:
                    tell(len(outcomes_seen))
                    tell_at = time.perf_counter() + PROGRESS_INTERVAL_SECONDS
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    hosts = {row.id: parse(row.url, spec.config.default_scheme).host for row in spec.rows}
    samples = [
        Sample(
            row,
            hosts[row],
            timer.started.get(row, began) - began,
            timer.ended.get(row, began) - began,
            latency,
            code,
            status,
            length,
            size,
        )
        for row, latency, code, status, length, size in sorted(outcomes_seen)
    ]
    return RoundResult(wall, cpu, peak_memory(), loop, samples)


def _facts_of(outcome: Outcome) -> tuple[int, float, str | None, int | None, int | None, int]:
    """Return what a sample needs of an outcome, so that the rest can be freed."""
    if isinstance(outcome, Page):
        return outcome.request.id, outcome.elapsed, None, outcome.status, outcome.length, outcome.bytes
    return outcome.request.id, outcome.elapsed, outcome.error.code, outcome.status, None, outcome.bytes or 0


async def _warm_up(spec: RoundSpec) -> None:
    """Fetch three pages without a network, so that what is imported on first use is imported before the round."""

    async def reply(request: Request) -> Response:
        return Response(request, request.url, 200, (("content-type", "text/html"),), _WARM_UP_PAGE, len(_WARM_UP_PAGE))

    rows = [f"http://127.0.0.1/{number}" for number in range(3)]
    async with Fetcher(spec.config, transport=reply) as fetcher:
        await fetcher.run(rows, JSONLSink(os.devnull, fresh=True), sequentially=spec.sequential)


def peak_memory() -> int | None:
    """Return the most memory this process has held, in bytes, or ``None`` where the system does not tell.

    On Linux a process inherits ``ru_maxrss`` from the process that started it (getrusage(2) does not say so), and a
    small round would show the memory of its large owner. So the kernel's own high-water mark is read first.
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
    # Ctrl-C in a terminal reaches this process too; its owner decides how to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=RoundSpec)
    when_owner_ends(lambda: os._exit(1))
    try:  # on the command line's own loop, so that a round costs what a crawl costs
        message: Message = event_loop.run(lambda: run(spec, lambda rows: _send(RoundProgress(rows))))
    except FetcherError as error:
        message = RoundError(str(error), isinstance(error, ConfigError))
    _send(message)


def _send(message: Message) -> None:
    # Not by sys.stdout: under PYTHONUNBUFFERED it calls write once, and loses what the pipe did not take.
    write_all(1, msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    _main()
