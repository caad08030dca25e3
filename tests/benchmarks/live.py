"""What the live page costs a run: the CPU of its own handlers with one page open, and that of the whole run without it.

``python -m tests.benchmarks.live [ROWS] [ROUNDS]``: the built-in site without latency in a process of its own, fetched
into a JSON Lines file by one process, with nobody looking, with one page open, and without the page at all, in turn.
Asked is that the handlers take at most one percent of the CPU of the run; what whole runs take in relation is told.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from fetcher import Fetcher, open_sink
from fetcher.demo import Site, SiteProcess
from fetcher.live.run import RunSource
from fetcher.live.server import LiveServer
from tests.benchmarks.figures import Figure, at_most

ROWS, ROUNDS = 20_000, 3
READER = """
import http.client, sys
from urllib.parse import urlsplit
parts = urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(parts.hostname, parts.port)
connection.request("GET", parts.path)
answer = connection.getresponse()
cookie = answer.getheader("Set-Cookie").partition(";")[0]
answer.read()
connection.request("GET", "/events", headers={"Cookie": cookie})
answer = connection.getresponse()
states = 0
for line in answer:
    states += line.startswith(b"event: state")
print(states)
"""


async def fetched(urls: list[str], folder: Path, page: str) -> tuple[float, float, float, int]:
    """Return the CPU and the wall time of a run, the CPU of the page's handlers, and how many states were seen."""
    cpu, began, spent, states = time.process_time(), time.monotonic(), 0.0, 0
    source = RunSource("bench", total=len(urls))
    server = LiveServer(source) if page != "none" else None
    reader = None
    if server is not None:
        await server.__aenter__()
        if page == "open":
            reader = subprocess.Popen([sys.executable, "-c", READER, server.url()], stdout=subprocess.PIPE)
    sink = open_sink(str(folder / f"{page}.jsonl"), fresh=True)
    async with sink, Fetcher(robots=False, concurrency=100, per_host=20) as fetcher, fetcher.stream(urls) as outcomes:
        source.begin(fetcher, outcomes.stats)
        async for outcome in outcomes:
            await sink.write(outcome)
            if server is not None:
                source.saw(outcome)
        source.leave()
    took = time.process_time() - cpu, time.monotonic() - began
    if server is not None:
        source.end(None)
        await server.__aexit__(None, None, None)
        spent = server.cpu_seconds
    if reader is not None:
        out, _ = await asyncio.to_thread(reader.communicate)
        states = int(out)
    return *took, spent, states


def main(rows: int, rounds: int) -> int:
    """Measure, print, and say whether it is as asked."""
    cpus: dict[str, list[float]] = {"none": [], "nobody": [], "open": []}
    shares: list[float] = []
    figures: list[Figure] = []
    with (
        SiteProcess(Site(hosts=10, pages=300, latency=(0, 0), failures=False)) as site,
        tempfile.TemporaryDirectory() as name,
    ):
        urls = site.urls()
        urls = [f"{urls[row % len(urls)]}?n={row}" for row in range(rows)]
        for _ in range(rounds):
            for page, taken in cpus.items():
                cpu, wall, spent, states = asyncio.run(fetched(urls, Path(name), page))
                taken.append(cpu)
                if page == "open":
                    shares.append(spent / cpu)
                    figures.append(Figure(f"a run of {rows} rows: seconds, states seen {states}", wall, " s"))
    figures.append(
        Figure("CPU of the page's handlers, one page open, of the run's", median(shares) * 100, " %", at_most(1))
    )
    for page, words in (("nobody", "with the page and nobody there"), ("open", "with a page open")):
        figures.append(
            Figure(f"CPU of a run {words}, over one without", median(cpus[page]) / median(cpus["none"]), " ×")
        )
    print("\n".join(map(str, figures)))
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    sys.exit(main(*(given + [ROWS, ROUNDS][len(given) :])))
