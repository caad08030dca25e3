"""A kept connection's fault is not the row's: its request goes out once more, on a new connection, and costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import FetchError

DEADLINE = 60.0
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n%b\r\nok"
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Answer = Callable[[int, int, asyncio.StreamWriter], Awaitable[bool]]
"""The connection's number, the request's on it, where to write; says whether the connection is kept."""


class Connections:
    """What a server saw: the requests of each connection, and when its client let go of it."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.closed = 0
        self.url = ""

    @property
    def asked(self) -> int:
        return sum(self.requests)


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[Connections]:
    seen = Connections()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(seen.requests)
        seen.requests.append(0)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                seen.requests[number] += 1
                if not await answer(number + 1, seen.requests[number], writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            seen.closed += 1
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        async with asyncio.timeout(DEADLINE):
            yield seen
    finally:
        server.close()


def config(**options: Any) -> Config:
    return Config.of(**{"robots": False, "retries": 0, "per_host": 1, **options})


async def page(writer: asyncio.StreamWriter, *headers: bytes) -> bool:
    writer.write(PAGE % b"".join(header + b"\r\n" for header in headers))
    return True


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


async def dropped(writer: asyncio.StreamWriter) -> bool:
    writer.transport.abort()
    return False


async def too_late(writer: asyncio.StreamWriter) -> bool:
    writer.write(TOO_LATE)
    return False


async def ended(writer: asyncio.StreamWriter) -> bool:
    return False


@pytest.mark.parametrize("end", [dropped, too_late, ended])
async def test_what_a_kept_connection_lost_is_asked_for_once_more(
    end: Callable[[asyncio.StreamWriter], Awaitable[bool]],
) -> None:
    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        return await (page(writer) if request == 1 else end(writer))

    async with answering(answer) as seen, Fetcher(config()) as fetcher:
        pages = [await fetcher.fetch(seen.url) for _ in range(3)]
        assert [(found.status, found.attempts) for found in pages] == [(200, 1)] * 3
        assert seen.requests == [2, 2, 1]
        host = fetcher.gate.scheduler.get("127.0.0.1", 0.0)
        assert host.requests == seen.asked
        assert (host.breaker.failures, host.breaker.charges, host.counts) == (0, 0, None)


@pytest.mark.parametrize("end", [dropped, too_late, ended])
async def test_it_is_once(end: Callable[[asyncio.StreamWriter], Awaitable[bool]]) -> None:
    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        return await (page(writer) if connection == 1 and request == 1 else end(writer))

    async with answering(answer) as seen, Fetcher(config()) as fetcher:
        await fetcher.fetch(seen.url)
        with pytest.raises(FetchError):
            await fetcher.fetch(seen.url)
        assert seen.requests == [2, 1]


@pytest.mark.parametrize("end", [dropped, too_late])
async def test_a_new_connections_fault_is_the_rows(end: Callable[[asyncio.StreamWriter], Awaitable[bool]]) -> None:
    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        return await end(writer)

    async with answering(answer) as seen, Fetcher(config()) as fetcher:
        with pytest.raises(FetchError):
            await fetcher.fetch(seen.url)
        assert seen.requests == [1]


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        if request == 1:
            return await page(writer)
        writer.write(b"HTTP/1.1 2")
        return False

    async with answering(answer) as seen, Fetcher(config()) as fetcher:
        await fetcher.fetch(seen.url)
        with pytest.raises(FetchError, match="truncated"):
            await fetcher.fetch(seen.url)
        assert seen.requests == [2]


async def test_the_new_connection_is_none_of_those_that_are_kept() -> None:
    """They may be as dead as the first one."""
    together = asyncio.Barrier(3)

    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        if connection <= 3 and request == 1:
            await together.wait()  # so that there are three
            return await page(writer)
        return await (dropped(writer) if connection <= 3 else page(writer))

    async with answering(answer) as seen, Fetcher(config(per_host=3)) as fetcher:
        fetcher.gate.scheduler.get("127.0.0.1", 0.0).answered(int(seen.url.split(":")[2].strip("/")))
        await asyncio.gather(*(fetcher.fetch(seen.url) for _ in range(3)))
        assert (await fetcher.fetch(seen.url)).status == 200
        assert seen.requests == [2, 1, 1, 1] or sorted(seen.requests) == [1, 1, 1, 2]


async def test_bytes_on_an_idle_connection_close_it_then() -> None:
    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        await page(writer)
        await asyncio.sleep(0.05)
        writer.write(PAGE % b"")
        return True

    async with answering(answer) as seen, Fetcher(config()) as fetcher:
        await fetcher.fetch(seen.url)
        await until(lambda: seen.closed == 1)
        assert (await fetcher.fetch(seen.url)).attempts == 1
        assert seen.requests == [1, 1]


@pytest.mark.parametrize(("said", "connections"), [(b"timeout=1", 2), (b"max=5, timeout=300", 1), (b"timeout=x", 1)])
async def test_the_servers_own_time_is_kept(said: bytes, connections: int) -> None:
    """A second before it is over, for the server counts from when it sent its answer."""

    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        return await page(writer, b"Keep-Alive: " + said)

    async with answering(answer) as seen, Fetcher(config()) as fetcher:
        for _ in range(2):
            await fetcher.fetch(seen.url)
        assert len(seen.requests) == connections


async def test_a_body_that_nobody_wants_is_waited_for_a_second_at_most() -> None:
    async def answer(connection: int, request: int, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n")
        return True

    async with answering(answer) as seen, Fetcher(config(read_timeout=50, timeout=50)) as fetcher:
        with pytest.raises(FetchError) as caught:
            await fetcher.fetch(seen.url)
        assert caught.value.code == "http_404"
        await until(lambda: seen.closed == 1)
