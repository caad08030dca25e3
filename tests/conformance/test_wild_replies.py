"""40 raw replies that users of other tools met, each read as browsers and curl do, by a whole fetcher.

Third-party situations, rebuilt: see ``wild/SOURCE.txt`` in the suites. The server's log says what was asked for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.model import Failure, Outcome, Page
from tests.lab.suites import suite

DEADLINE = 60.0
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 22\r\n\r\n<title>hi</title>hello"
NOT_THERE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@cache
def cases() -> dict[str, dict[str, Any]]:
    listed = json.loads((suite("wild") / "replies.json").read_text(encoding="utf-8"))
    return {case["name"]: case for case in listed}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        try:
            found = list(cases())
        except pytest.skip.Exception:
            found = ["the suite"]
        metafunc.parametrize("name", found)


class WildServer:
    """Answers with the reply of one case, and does afterwards what the case says."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self.url
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer_all(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        case = self.case
        number = 0
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ")[1]
            number += 1
            self.asked.append(path)
            self.heads.append(head)
            if case["then"] == "reset-at-second" and number > 1:
                writer.transport.abort()
                return
            if case["then"] == "408-at-second" and number > 1:
                writer.write(TOO_LATE)
                return
            if case["then"].endswith("-at-second"):
                await asyncio.sleep(0.2)
            wild = path not in ("/plain", "/robots.txt")
            writer.write(self._reply(path, head))
            await writer.drain()
            if not wild:
                continue
            if case["then"] == "close":
                return
            if case["then"] == "hang":
                await asyncio.sleep(DEADLINE)
            if case["then"] == "late":
                await asyncio.sleep(0.1)
                writer.write(case["late"].encode("latin-1"))

    def _reply(self, path: str, head: str) -> bytes:
        case = self.case
        if path == "/robots.txt":
            return NOT_THERE
        if path == "/plain" or path.startswith("/seen/"):
            return PLAIN
        until = case.get("until_header")
        later = until in head if until else self.asked.count(path) > 1
        reply = case["second"] if later and "second" in case else case["reply"]
        return str(reply).replace("<SELF>", self.url + path).encode("latin-1")


async def fetched(base: str, paths: list[str], *, concurrency: int = 100) -> list[Outcome]:
    config = Config.of(backoff=0.1, concurrency=concurrency)
    async with (
        asyncio.timeout(DEADLINE),
        Fetcher(config) as fetcher,
        fetcher.stream([base + path for path in paths], ordered=True) as outcomes,
    ):
        return [outcome async for outcome in outcomes]


def flaws(outcome: Outcome, want: dict[str, Any], base: str) -> list[str]:
    """Say what is not as it is wanted."""
    told: dict[str, Any] = {
        "error": outcome.error.code if isinstance(outcome, Failure) else None,
        "status": outcome.status,
        "final": (outcome.url or "").removeprefix(base),
    }
    if isinstance(outcome, Page):
        told |= {"title": outcome.title, "length": outcome.length, "charset": outcome.charset}
    return [
        f"{key} is {told.get(key)!r}, not {value!r} ({outcome})"
        for key, value in want.items()
        if key in ("error", "status", "final", "title", "length", "charset") and told.get(key) != value
    ]


async def test_a_wild_reply(name: str) -> None:
    case = cases()[name]
    want = case["want"]
    server = WildServer(case)
    async with server.listening() as base:
        began = time.monotonic()
        asks = want.get("asks") or case.get("asks")
        if isinstance(asks, list):
            outcomes = await fetched(base, [listed for listed, _ in asks])
            assert sorted(set(server.asked) - {"/robots.txt"}) == sorted(asked for _, asked in asks)
        else:
            paths = [f"/wild/{n}" for n in range(case.get("rows", 1))]
            if "next_want" in case:
                # One by one, on one connection, with time for what comes late.
                async with Fetcher(Config.of(backoff=0.1)) as fetcher:
                    first = await fetcher.fetch(base + paths[0])
                    outcomes = [first, await fetcher.fetch(base + "/plain")]
                assert flaws(outcomes[1], case["next_want"], base) == []
                outcomes = outcomes[:1]
            else:
                outcomes = await fetched(base, paths)
        took = time.monotonic() - began
        if case.get("or_error") and isinstance(outcomes[0], Failure):
            want = {"error": case["or_error"]}
        for outcome in outcomes:
            assert flaws(outcome, want, base) == []
        if isinstance(asks, str):
            assert server.asked[-1] == asks
        assert took < want.get("within", DEADLINE)
