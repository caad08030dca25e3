"""Sends odd replies, whole and cut at each byte, in segments of 1, 7 and all bytes, and judges what is made of them.

Run it with ``python -m tests.sweeps.replies [--sample N] [--seed S]``; it exits with 1 where a verdict depends on how
TCP cut the bytes, a page is another row's, or an exchange takes longer than its timeouts. Behind each odd reply a plain
page is asked of the same host: whatever the connection still holds must not become its page.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import FetchError
from tests.lab.odd_replies import Reply, odd_replies, plain_reply

__all__ = ["Case", "Verdicts", "cases", "judge"]

SEGMENTS = (1, 7, 1 << 20)
HOSTS = 40  # each with one connection at a time
TIMEOUT = 5.0
TIME_OUTS = frozenset({"total_timeout", "read_timeout", "too_slow"})
ARRIVAL_SECONDS = 0.005  # until what was sent has come, and all that follows an answer is seen on its idle connection


class Case(NamedTuple):
    """One reply, and after how many of its bytes the connection ends; ``None``: it is kept."""

    name: str
    cut: int | None


def cases() -> Iterator[Case]:
    """Yield each reply whole, and cut at each byte."""
    for name, make in odd_replies().items():
        yield Case(name, None)
        for cut in range(len(make("/0-0"))):
            yield Case(name, cut)


class Verdicts:
    """What was made of each case in each kind of segments, and what is wrong with it."""

    def __init__(self) -> None:
        self.by_case: dict[Case, dict[int, str]] = {}
        self.wrong: list[str] = []
        self.slow: dict[str, Case] = {}
        self.codes: Counter[str] = Counter()
        self.exchanges = 0

    def split(self) -> list[str]:
        """Return the cases whose verdict depends on the segments."""
        return [f"{case}: {found}" for case, found in self.by_case.items() if len(set(found.values())) > 1]

    def starved(self) -> list[Case]:
        """Return the cases that ran out of time in some kind of segments alone: the machine may have stood still."""
        slow = set(self.slow.values())
        return [
            case
            for case, found in self.by_case.items()
            if case in slow or (len(set(found.values())) > 1 and not TIME_OUTS.isdisjoint(found.values()))
        ]

    @property
    def held(self) -> bool:
        """Whether all is as it should be."""
        return not (self.wrong or self.slow or self.split())


class OddServer:
    """Answers ``/odd/CASE-SEGMENT`` with the case's bytes, and any other path with a plain page."""

    def __init__(self, listed: Sequence[Case]) -> None:
        self.listed = listed
        self._makers = odd_replies()
        self._sent: dict[str, asyncio.Event] = {}

    def sent(self, path: str) -> asyncio.Event:
        """Return what is set when all that there is of an answer was sent."""
        return self._sent.setdefault(path, asyncio.Event())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the connection ends."""
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
                if not path.startswith("/odd/"):
                    writer.write(plain_reply(path))
                    continue
                number, _, segment = path.removeprefix("/odd/").partition("-")
                case = self.listed[int(number)]
                reply = self._makers[case.name](path)
                if case.cut is not None:
                    reply = reply[: case.cut]
                size = SEGMENTS[int(segment)]
                try:
                    for at in range(0, len(reply), size):
                        if writer.transport.is_closing():
                            return
                        writer.write(reply[at : at + size])
                        await asyncio.sleep(0)  # one turn of the loop is enough: the client has its own
                    if case.cut is not None or b"Connection: close" in reply:
                        return
                finally:
                    self.sent(path).set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def judge(listed: Sequence[Case]) -> Verdicts:
    """Return what is made of each case. Those that ran out of time are judged once more, and what is found then counts."""
    verdicts = await _judge(listed)
    if starved := verdicts.starved():
        print(f"{len(starved)} ran out of time in some kind of segments alone, and are judged once more")
        again = await _judge(starved)
        verdicts.by_case.update(again.by_case)
        verdicts.wrong += again.wrong
        verdicts.slow = again.slow
    return verdicts


async def _judge(listed: Sequence[Case]) -> Verdicts:
    """Fetch each case in each kind of segments, and behind it a plain page of the same host."""
    verdicts = Verdicts()
    server = OddServer(listed)
    servers = [await asyncio.start_server(server.serve, f"127.0.0.{host}", 0) for host in range(1, HOSTS + 1)]
    origins = ["http://{}:{}".format(*each.sockets[0].getsockname()) for each in servers]
    work: Iterator[tuple[int, int]] = iter(list(itertools.product(range(len(listed)), range(len(SEGMENTS)))))
    options: dict[str, Any] = {
        "retries": 0,
        "robots": False,
        "timeout": TIMEOUT,
        "read_timeout": TIMEOUT,
        "max_redirects": 0,
    }
    config = Config.of(per_host=1, concurrency=HOSTS, host_patience=3600, **options)
    async with Fetcher(config) as fetcher:
        await asyncio.gather(*(_work(fetcher, origin, work, server, verdicts) for origin in origins))
    for each in servers:
        each.close()
    return verdicts


async def _work(
    fetcher: Fetcher, origin: str, work: Iterable[tuple[int, int]], server: OddServer, verdicts: Verdicts
) -> None:
    for number, segment in work:
        case = server.listed[number]
        path = f"/odd/{number}-{segment}"  # as long whatever the segments are: the cut is at the same byte
        what = f"{case} in segments of {SEGMENTS[segment]}"
        verdict = await _fetch(fetcher, origin + path, what, case, verdicts)
        await server.sent(path).wait()
        await asyncio.sleep(ARRIVAL_SECONDS)
        verdicts.by_case.setdefault(case, {})[segment] = verdict
        verdicts.codes[verdict] += 1
        plain = f"/plain/{number}-{segment}"
        behind = f"the page behind {what}"
        verdict = await _fetch(fetcher, origin + plain, behind, case, verdicts)
        if verdict in TIME_OUTS:
            verdicts.slow[behind] = case
        elif verdict != "200":
            verdicts.wrong.append(f"{behind} is {verdict}")


async def _fetch(fetcher: Fetcher, url: str, what: str, case: Case, verdicts: Verdicts) -> str:
    path = "/" + url.split("/", 3)[3]
    began = time.monotonic()
    verdicts.exchanges += 1
    try:
        page = await fetcher.fetch(url)
    except FetchError as error:
        verdict = error.code
    else:
        verdict = str(page.status)
        # A body that lasts until the end of the connection may be cut, and nobody can tell.
        whole = Reply(path).page.decode()
        if page.title != path and not (page.bytes < len(whole) and whole.startswith(f"<title>{page.title or ''}")):
            verdicts.wrong.append(f"{what}: the title is {page.title!r}, {page.bytes} bytes")
    if time.monotonic() - began > TIMEOUT + 1:
        verdicts.slow[what] = case
    return verdict


def main() -> int:
    """Judge all cases, or a sample of them, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.sweeps.replies")
    parser.add_argument("--sample", type=int, help="so many cases of all")
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    listed = list(cases())
    if words.sample is not None:
        listed = random.Random(words.seed).sample(listed, words.sample)
    began = time.monotonic()
    verdicts = asyncio.run(judge(listed))
    split = verdicts.split()
    print(
        f"{len({case.name for case in listed})} replies, {len(listed)} cases, {verdicts.exchanges} exchanges in "
        f"{time.monotonic() - began:.0f} s: {len(split)} verdicts depend on the segments, {len(verdicts.wrong)} wrong "
        f"pages, {len(verdicts.slow)} over the timeouts"
    )
    print("  ".join(f"{code} {count}" for code, count in verdicts.codes.most_common()))
    for line in [*split, *verdicts.wrong, *verdicts.slow][:50]:
        print(f"  {line}")
    return not verdicts.held


if __name__ == "__main__":
    sys.exit(main())
