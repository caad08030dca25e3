"""Owns what the engine itself costs per request: the flow, the handlers, the reader and a sink around a transport that
answers at once.

Run it with ``python -m tests.benchmarks.engine [ROWS]``; it exits with 1 when everything together costs more than
``MOST`` on the best round. The rounds are interleaved and the best of each is taken: what disturbs one only adds to it.
Microseconds are those of one machine, so there is also a bare loop that does the least of the same work, and what
everything costs is printed as a multiple of it: that can be compared between machines, and between their good hours.

``--instructions`` counts instructions instead, by valgrind. They are the same at every load, so a change of a
hundredth shows, as a microsecond does not: one machine took 59 to 79 µs for the same code within a quarter of an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

import msgspec
from selectolax.lexbor import LexborHTMLParser

from fetcher import Config, Fetcher
from fetcher.errors import StatusError
from fetcher.event_loop import fastest_loop, keep_freed_memory
from fetcher.model import Exchange, Request, Response
from fetcher.sinks.jsonl import JSONLSink

MOST = 57.0  # microseconds
BARE = "a bare loop"
ROWS = 20_000
ROUNDS = 5
HOSTS = 200
COUNTED_ROWS = (500, 1_500)  # the difference is that of the rows alone, without the start
BODY = b"<!doctype html><html lang=en><title>A page</title><p>Some words and <a href='/next'>a link</a>.</p></html>"
HEADERS = (("content-type", "text/html; charset=utf-8"), ("content-length", str(len(BODY))))
NO_TEXT = (("content-type", "application/octet-stream"),)


class Discard:
    """A sink that takes everything and does nothing."""

    async def __aenter__(self) -> Discard:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def write(self, outcome: Any) -> None:
        pass


async def answer(request: Request) -> Response:
    """Answer with a body that is no text: there is nothing to read."""
    return Response(request, request.url, 200, NO_TEXT, b"", 0)


async def answer_with_page(request: Request) -> Response:
    """Answer with a small page, to be decoded, parsed and looked through."""
    return Response(request, request.url, 200, HEADERS, BODY, len(BODY))


def answer_again(once: Exchange) -> Exchange:
    """Return a transport that fails every row's first try with a 500."""
    tried: set[int] = set()

    async def answered(request: Request) -> Response:
        if request.id in tried:
            return await once(request)
        tried.add(request.id)
        raise StatusError(500)

    return answered


async def run(
    rows: int, *, sequentially: bool = False, retried: bool = False, sink: bool = False, page: bool = False
) -> float:
    """Return the CPU seconds that ``rows`` rows take."""
    config = Config.of(concurrency=100, per_host=10, backoff=0, robots=False)
    transport = answer_with_page if page else answer
    urls = [f"http://host-{number % HOSTS}.example/{number}" for number in range(rows)]
    async with Fetcher(config, transport=answer_again(transport) if retried else transport) as fetcher:
        began = process_time()
        stats = await fetcher.run(
            urls, JSONLSink(os.devnull, fresh=True) if sink else Discard(), sequentially=sequentially
        )
        took = process_time() - began
    assert stats.ok == rows
    return took


async def bare(rows: int) -> float:
    """Return the CPU seconds of a loop without any of ours: slots, a queue, another try, the parser, a line of JSON."""
    ask = answer_again(answer_with_page)
    slots = asyncio.BoundedSemaphore(100)
    queue: asyncio.Queue[Response] = asyncio.Queue(100)
    encode = msgspec.json.Encoder().encode

    async def fetch(request: Request) -> None:
        try:
            response = await ask(request)
        except StatusError:
            response = await ask(request)
        finally:
            slots.release()
        await queue.put(response)

    async def consume() -> None:
        for _ in range(rows):
            response = await queue.get()
            tree = LexborHTMLParser(response.body)
            title, links = tree.css_first("title"), tree.css("a[href]")
            lines.write(encode({"url": response.url, "title": title and title.text(), "links": len(links)}) + b"\n")

    requests = [Request(number, f"http://host-{number % HOSTS}.example/{number}") for number in range(rows)]
    with open(os.devnull, "wb") as lines:
        began = process_time()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consume())
            for request in requests:
                await slots.acquire()
                tasks.create_task(fetch(request))
        return process_time() - began


CASES: dict[str, Callable[[int], Awaitable[float]]] = {
    "sequential": lambda rows: run(rows, sequentially=True),
    "concurrent": lambda rows: run(rows),
    "concurrent, each row retried once": lambda rows: run(rows, retried=True),
    "concurrent, jsonl sink": lambda rows: run(rows, sink=True),
    "concurrent, a small page parsed": lambda rows: run(rows, page=True),
    "concurrent, jsonl sink and page": lambda rows: run(rows, sink=True, page=True),
    "everything, each row retried once": lambda rows: run(rows, retried=True, sink=True, page=True),
}
"""What is measured; the retry handler, redirects, accept and pacing stand around every row of all of them."""


def best_of(rows: int, rounds: int) -> dict[str, float]:
    """Return the least microseconds a row of the bare loop and of each case, after a round that only warms up."""
    cases = {BARE: bare, **CASES}
    best = dict.fromkeys(cases, float("inf"))
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        for number in range(rounds + 1):
            for name, case in cases.items():
                gc.collect()
                took = runner.run(_awaited(case(rows if number else rows // 10)))
                if number:
                    best[name] = min(best[name], took / rows * 1e6)
    return best


async def _awaited(work: Awaitable[float]) -> float:
    return await work


def instructions_of(name: str) -> float:
    """Return the instructions that a row of a case takes, as valgrind's callgrind counts them."""
    few, many = (_counted(name, rows) for rows in COUNTED_ROWS)
    return (many - few) / (COUNTED_ROWS[1] - COUNTED_ROWS[0])


def _counted(name: str, rows: int) -> int:
    run_once = [sys.executable, "-m", "tests.benchmarks.engine", "--case", name, str(rows)]
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", *run_once],
        env={**os.environ, "PYTHONHASHSEED": "0"},  # else they vary by the order of sets
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def main() -> int:
    """Measure, print the table, and say by the exit code whether the target is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.engine")
    parser.add_argument("rows", type=int, nargs="?", default=ROWS)
    parser.add_argument("--instructions", action="store_true", help="count instructions a row, by valgrind")
    parser.add_argument("--case", choices=CASES, help="run this case once, and print nothing")
    asked = parser.parse_args()
    if asked.instructions:
        for name in CASES:
            print(f"{name:<36} {instructions_of(name):9,.0f} instructions a row")
        return 0
    gc.freeze()  # as the command line does
    gc.set_threshold(50_000, 20, 50)
    keep_freed_memory()
    factory = fastest_loop()
    if asked.case:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_awaited(CASES[asked.case](asked.rows)))
        return 0
    best = best_of(asked.rows, ROUNDS)
    print(f"{asked.rows:,} rows on {HOSTS} hosts, best of {ROUNDS}, {factory.__module__ if factory else 'asyncio'}")
    for name, micros in best.items():
        print(f"{name:<36} {micros:7.1f} µs")
    *_, everything = best.values()
    verdict = "ok" if everything <= MOST else "too slow"
    print(
        f"everything: {everything:.1f} µs (at most {MOST:g}): {verdict}; {everything / best[BARE]:.2f} × the bare loop"
    )
    return verdict != "ok"


if __name__ == "__main__":
    sys.exit(main())
