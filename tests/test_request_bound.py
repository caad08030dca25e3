"""A row makes a bounded number of requests, whatever its hosts do and whoever is at fault; and every run ends.

The server's log is the judge: each URL carries the number of its row, over redirects too.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.model import Failure, Outcome
from fetcher.request_state import MAX_RETURNS

DEADLINE = 120.0
ROWS = 12  # of a world
MOST_AT_SECOND_PORT = 3
WORLDS = 40  # at once: most of their time is waiting
EXAMPLES = 5  # of so many worlds: more than 2,000 rows
RETRIES, REDIRECTS = 2, 3
MOST = (RETRIES + 1 + MAX_RETURNS) * (REDIRECTS + 1)
"""The requests of a row; each may be sent once more on a new connection."""

PAGE = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok"
ANSWERS = {
    "a page": (PAGE, True),
    "a page, and the end": (PAGE, False),
    "not now": ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", True),
    "an error": ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", True),
    "wait, forbidden": ("HTTP/1.1 403 Forbidden\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", True),
    "too late": ("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", False),
    "nothing": ("", False),
    "half a head": ("HTTP/1.1 200 OK\r\nContent-", False),
    "half a body": ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", False),
    "no HTTP": ("SSH-2.0-OpenSSH_9.9\r\n", False),
    "a hop": ("", True),
    "a hop to the other port": ("", True),
    "a hop to nobody": ("", True),
}


class FaultyHosts:
    """Servers on some hosts that do, for each URL and each time it is asked for, what is drawn for it.

    A second port of each host answers a few requests, and is refused from then on.
    """

    def __init__(self, seed: int, kinds: list[str]) -> None:
        self.seed = seed
        self.kinds = kinds
        self.asked: Counter[str] = Counter()
        self.requests: Counter[int] = Counter()
        self.origins: list[str] = []
        self.others: dict[str, str] = {}

    @asynccontextmanager
    async def listening(self, hosts: int) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
            for number in range(1, hosts + 1):
                host = f"127.0.9.{number}"
                origin, beside = (self._listen(host, most, tasks, stack) for most in (None, MOST_AT_SECOND_PORT))
                self.origins.append(origin)
                self.others[origin] = beside
            yield

    def _listen(self, host: str, most: int | None, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> str:
        """Answer at a port of its own, up to ``most`` connections: from then on it is refused."""
        listener = socket.create_server((host, 0))
        listener.setblocking(False)

        async def accept() -> None:
            count = 0
            with listener:
                while count != most:
                    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                    count += 1
                    task = tasks.create_task(self._serve(connection))
                    stack.callback(task.cancel)

        stack.callback(tasks.create_task(accept()).cancel)
        return f"http://{host}:{listener.getsockname()[1]}"

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
        self.asked[path] += 1
        self.requests[int(path.split("/")[1])] += 1
        draw = random.Random(f"{self.seed} {path} {self.asked[path]}")
        kind = draw.choice(self.kinds)
        if kind == "not now" and self.asked[path] > 2:
            kind = "a page"  # else its host is asked once a second in the end
        reply, kept = ANSWERS[kind]
        if kind.startswith("a hop"):
            origin = draw.choice(self.origins)
            if kind == "a hop to the other port":
                origin = self.others[origin]
            elif kind == "a hop to nobody":
                origin = "http://127.0.9.99:1"
            location = f"{origin}{path}/{draw.randrange(3)}"
            reply = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        writer.write(reply.encode())
        return kept


async def run(seed: int, kinds: list[str], hosts: int) -> tuple[list[Outcome], FaultyHosts]:
    faulty = FaultyHosts(seed, kinds)
    config = Config.of(
        robots=False, retries=RETRIES, max_redirects=REDIRECTS, backoff=0.005, max_backoff=0.01, host_patience=1,
        timeout=5, concurrency=20,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE), faulty.listening(hosts), Fetcher(config) as fetcher:
        urls = [f"{faulty.origins[row % hosts]}/{row}" for row in range(ROWS)]
        async with fetcher.stream(urls) as outcomes:
            return [outcome async for outcome in outcomes], faulty


worlds = st.tuples(
    st.integers(0, 10_000), st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=6), st.integers(1, 4)
)


@given(st.lists(worlds, min_size=WORLDS, max_size=WORLDS))
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
def test_no_row_makes_more_requests_than_the_bound(drawn: list[tuple[int, list[str], int]]) -> None:
    async def all_at_once() -> list[tuple[list[Outcome], FaultyHosts]]:
        return await asyncio.gather(*(run(*world) for world in drawn))

    for outcomes, faulty in asyncio.run(all_at_once()):
        assert len(outcomes) == ROWS
        assert all(isinstance(outcome.error, FetchError) for outcome in outcomes if isinstance(outcome, Failure))
        assert max(faulty.requests.values()) <= 2 * MOST


async def test_a_hop_that_cannot_be_connected_does_not_go_on_for_ever() -> None:
    """Its first hop answers each time and forgives its host, which is charged for the second."""
    dead: list[asyncio.Server] = []
    asked: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            asked[path] += 1
            if path == "/known":
                writer.write(PAGE.encode())
                dead[0].close()
            else:
                writer.write(f"HTTP/1.1 302 Found\r\nLocation: {beside}/gone\r\nContent-Length: 0\r\n\r\n".encode())
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.9.1", 0)
    dead.append(await asyncio.start_server(serve, "127.0.9.1", 0))
    origin, beside = (f"http://127.0.9.1:{each.sockets[0].getsockname()[1]}" for each in (server, dead[0]))
    config = Config.of(robots=False, retries=1, backoff=0.02, max_backoff=0.02, per_host=1)
    async with asyncio.timeout(DEADLINE), Fetcher(config) as fetcher:
        async with fetcher.stream([f"{beside}/known", f"{origin}/row"], ordered=True) as outcomes:
            found = [outcome async for outcome in outcomes]
    server.close()
    known, row = found
    assert known.status == 200
    assert isinstance(row, Failure)
    assert row.error.code in ("connect_refused", "host_budget")
    assert asked["/row"] <= MAX_RETURNS + 1
