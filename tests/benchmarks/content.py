"""Owns what the columns that are read out of pages cost: CPU a page of the whole engine but the network, into jsonl.

Run it with ``python -m tests.benchmarks.content [FOLDER] [--pages N]``; FOLDER has HTML files, Debian's python3-doc by
default. The rounds are interleaved and the best of each is taken: what disturbs one only adds to it. It exits with 1
where a column costs more than is asked. A second parser (``fast``, ``best``, ``microdata``, ``rdfa``) is measured
alone, in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any

from fetcher import Config, Fetcher
from fetcher.event_loop import fastest_loop
from fetcher.model import Request, Response
from fetcher.page.parse import parse, read_body
from fetcher.page.reader import looks_dangerous
from fetcher.sinks.jsonl import JSONLSink
from fetcher.sinks.layout import Layout
from tests.benchmarks.figures import Asked, Figure, at_most

FOLDER = "/usr/share/doc/python3/html"
PAGES = 400
ROUNDS = 5
HEADERS = (("content-type", "text/html; charset=utf-8"),)

ALONE = "jsonl alone"
COLUMNS: dict[str, tuple[dict[str, Any], Asked | None]] = {
    ALONE: ({}, None),
    "two fields": ({"select": ["h=h1", "canonical=link[rel=canonical]@href"]}, at_most(1.10)),
    "meta": ({"with_": "meta"}, at_most(1.10)),
    "lang": ({"with_": "lang"}, at_most(1.02)),
    "jsonld": ({"with_": "jsonld"}, None),
    "links": ({"with_": "links"}, at_most(1.6)),
    "images": ({"with_": "images"}, None),
    "text body": ({"text": "body"}, at_most(1.5)),
    "all of these": ({"with_": "meta,lang,jsonld,links,images,text"}, None),
}
SECOND_PARSERS: dict[str, dict[str, Any]] = {
    "text fast": {"text": "fast"},
    "text best": {"text": "best"},
    "microdata": {"with_": "microdata"},
    "rdfa": {"with_": "rdfa"},
}


def bodies(folder: str, pages: int) -> list[bytes]:
    """Return the bodies of so many HTML files, the same at each call."""
    paths = sorted(Path(folder).rglob("*.html"))
    random.Random(1).shuffle(paths)
    read = (path.read_bytes() for path in paths)
    return list(islice((body for body in read if not looks_dangerous(body)), pages))


async def crawl(pages: list[bytes], options: dict[str, Any]) -> float:
    """Return the CPU seconds of a crawl of these pages into jsonl, but for the network's."""

    async def answer(request: Request) -> Response:
        body = pages[request.id - 1]
        return Response(request, request.url, 200, HEADERS, body, len(body))

    config = Config.of(concurrency=100, per_host=10, robots=False, parse_timeout=60, **options)
    urls = [f"http://host-{number % 40}.example/library/{number}.html" for number in range(len(pages))]
    async with Fetcher(config, transport=answer) as fetcher:
        sink = JSONLSink(os.devnull, Layout.of(config), fresh=True)
        began = process_time()
        stats = await fetcher.run(urls, sink)
    assert stats.ok == len(pages)
    return process_time() - began


def _response(body: bytes) -> Response:
    request = Request(1, "http://h.example/")
    return Response(request, request.url, 200, HEADERS, body)


def second_parser(pages: list[bytes], options: dict[str, Any]) -> float:
    """Return the CPU seconds a page that a library which parses it again takes, here."""
    content = Config.of(**options).content
    read_body(_response(pages[0]), select=None, extract=None, content=content)  # imports it
    began = process_time()
    for body in pages:
        read_body(_response(body), select=None, extract=None, content=content)
    return (process_time() - began) / len(pages)


def best_of(pages: list[bytes], rounds: int) -> dict[str, float]:
    """Return the least CPU seconds of each crawl."""
    best: dict[str, float] = {}
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        for _ in range(rounds):
            for name, (options, _) in COLUMNS.items():
                gc.collect()
                took = runner.run(crawl(pages, options))
                best[name] = min(took, best.get(name, took))
    return best


def main() -> int:
    """Measure, print the table, and say by the exit code whether all is as asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.content", description="What columns cost.")
    parser.add_argument("folder", nargs="?", default=FOLDER)
    parser.add_argument("--pages", type=int, default=PAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    wanted = parser.parse_args()
    gc.freeze()  # as the command line does
    gc.set_threshold(50_000, 20, 50)
    pages = bodies(wanted.folder, wanted.pages)
    links = sum(parse(_response(body)).count_links() for body in pages)
    size = sum(map(len, pages)) / len(pages) / 1000
    print(f"{len(pages)} pages of {wanted.folder}: {size:.0f} kB and {links / len(pages):.0f} links each")
    best = best_of(pages, wanted.rounds)
    alone = best[ALONE]
    figures = []
    for name, seconds in best.items():
        figures.append(Figure(name, seconds / len(pages) * 1e6, " µs a page"))
        if name != ALONE:
            figures.append(Figure(f"{name} over {ALONE}", seconds / alone, " ×", COLUMNS[name][1]))
    figures.append(Figure("a link", (best["links"] - alone) / links * 1e6, " µs"))
    few = pages[: max(1, len(pages) // 10)]
    for name, options in SECOND_PARSERS.items():
        figures.append(Figure(f"{name}, by itself", second_parser(few, options) * 1e6, " µs a page"))
    print(*figures, sep="\n")
    return not all(figure.holds for figure in figures)


if __name__ == "__main__":
    sys.exit(main())
