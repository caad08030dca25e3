"""How names become addresses: the memory, the sharing, the threads and the end of them."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest

from fetcher.transport.resolver import Resolver, system_lookup

T = TypeVar("T")
ANY = socket.AF_UNSPEC
PATIENCE = 10.0  # seconds, for what takes milliseconds


class Clock:
    """Time that stands still until told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Names:
    """A look-up that keeps count, answers from a table, and can be held up."""

    def __init__(self, **table: Any) -> None:
        self.table = table
        self.asked: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int, family: int) -> list[tuple[Any, ...]]:
        with self._lock:
            self.asked.append(host)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.release()
        self.go_on.wait(PATIENCE)
        with self._lock:
            self.at_once -= 1
        found = self.table.get(host, ["127.0.0.1"])
        if isinstance(found, BaseException):
            raise found
        return [row(item) if isinstance(item, str) else item for item in found]

    async def has_begun(self, times: int = 1) -> None:
        """Wait until so many look-ups more are on their way."""
        for _ in range(times):
            assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE)


def row(address: str, scope: int = 0) -> tuple[Any, ...]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 0, 0, scope))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 0))


@pytest.fixture
async def made() -> AsyncIterator[Callable[..., Resolver]]:
    """Make resolvers that are closed after the test, with every thread of theirs ended."""
    before = set(threading.enumerate())
    resolvers: list[tuple[Resolver, Names]] = []

    def make(lookup: Names, **settings: Any) -> Resolver:
        resolvers.append((Resolver(lookup, **settings), lookup))
        return resolvers[-1][0]

    yield make
    for resolver, names in resolvers:
        names.go_on.set()
        await resolver.close()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("resolver-"):
            thread.join(PATIENCE)
            assert not thread.is_alive()


async def soon(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await answer


async def addresses(resolver: Resolver, host: str, family: socket.AddressFamily = ANY) -> list[str]:
    return [found["host"] for found in await soon(resolver.resolve(host, 80, family))]


async def turns(count: int = 5) -> None:
    """Let the loop run what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


# Answers


async def test_keeps_the_systems_order_and_says_what_aiohttp_reads(made: Callable[..., Resolver]) -> None:
    resolver = made(Names(a=["127.0.0.3", "::1", "127.0.0.2"]))
    found = await resolver.resolve("a", 8080, ANY)
    assert [(one["host"], one["family"]) for one in found] == [
        ("127.0.0.3", socket.AF_INET),
        ("::1", socket.AF_INET6),
        ("127.0.0.2", socket.AF_INET),
    ]
    assert {(one["hostname"], one["port"], one["proto"]) for one in found} == {("a", 8080, socket.IPPROTO_TCP)}
    assert {one["flags"] for one in found} == {socket.AI_NUMERICHOST | socket.AI_NUMERICSERV}


async def test_an_answer_is_the_callers_own(made: Callable[..., Resolver]) -> None:
    resolver = made(Names())
    (await resolver.resolve("a", 1, ANY))[0]["host"] = "changed"
    found = await resolver.resolve("a", 2, ANY)
    assert [(one["host"], one["port"]) for one in found] == [("127.0.0.1", 2)]


async def test_gives_the_family_asked_for_and_remembers_them_apart(made: Callable[..., Resolver]) -> None:
    names = Names(a=["127.0.0.1", "::1"])
    resolver = made(names)
    assert await addresses(resolver, "a", socket.AF_INET) == ["127.0.0.1"]
    assert await addresses(resolver, "a", socket.AF_INET6) == ["::1"]
    assert names.asked == ["a", "a"]


async def test_a_link_local_address_keeps_its_scope(made: Callable[..., Resolver]) -> None:
    resolver = made(Names(a=[row("fe80::1", scope=3), row("fe80::2%eth0", scope=2)]))
    assert await addresses(resolver, "a") == ["fe80::1%3", "fe80::2%eth0"]


async def test_keeps_eight_distinct_addresses_of_each_family(made: Callable[..., Resolver]) -> None:
    listed = ["127.0.0.1", *(f"127.0.{n // 250}.{n % 250 + 1}" for n in range(4_000)), *(f"::{n:x}" for n in range(20))]
    found = await addresses(made(Names(a=listed)), "a")
    assert found == [f"127.0.0.{n}" for n in range(1, 9)] + [f"::{n:x}" for n in range(8)]


@pytest.mark.parametrize("listed", [[], [(99, 1, 6, "", ("x",))], [(socket.AF_INET6, 1, 6, "", (b"bytes", 0))]])
async def test_no_usable_address_is_an_error(made: Callable[..., Resolver], listed: list[Any]) -> None:
    with pytest.raises(socket.gaierror) as caught:
        await addresses(made(Names(a=listed)), "a")
    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "a.b.Localhost."])
async def test_localhost_is_never_looked_up(made: Callable[..., Resolver], host: str) -> None:
    names = Names()
    resolver = made(names)
    for _ in range(2):
        found = await addresses(resolver, host)
        assert found[0] == "127.0.0.1"
        assert set(found) <= {"127.0.0.1", "::1"}
        assert await addresses(resolver, host, socket.AF_INET) == ["127.0.0.1"]
    assert names.asked == []


@pytest.mark.parametrize("host", ["localhost.test", "notlocalhost", "localhost..", "localhost6"])
async def test_other_names_are_looked_up(made: Callable[..., Resolver], host: str) -> None:
    names = Names()
    await addresses(made(names), host)
    assert names.asked == [host]


# The memory


async def test_an_address_is_remembered_for_its_time(made: Callable[..., Resolver]) -> None:
    names, clock = Names(), Clock()
    resolver = made(names, clock=clock)
    await addresses(resolver, "a")
    clock.now += 299.9
    await addresses(resolver, "a")
    assert names.asked == ["a"]
    clock.now += 0.2
    await addresses(resolver, "a")
    await addresses(resolver, "a")
    assert names.asked == ["a", "a"]


async def test_an_error_is_remembered_for_its_time_and_raised_anew(made: Callable[..., Resolver]) -> None:
    names, clock = Names(a=socket.gaierror(socket.EAI_NONAME, "Name or service not known")), Clock()
    resolver = made(names, clock=clock)
    raised = []
    for _ in range(20):
        with pytest.raises(socket.gaierror) as caught:
            await addresses(resolver, "a")
        raised.append(caught.value)
    assert names.asked == ["a"]
    assert {(one.errno, one.strerror) for one in raised} == {(socket.EAI_NONAME, "Name or service not known")}
    assert len({id(one) for one in raised}) == 20
    assert len({depth(one) for one in raised[1:]}) == 1
    clock.now += 5.1
    names.table["a"] = ["127.0.0.9"]
    assert await addresses(resolver, "a") == ["127.0.0.9"]


async def test_what_may_be_gone_the_next_time_is_remembered_for_a_moment(made: Callable[..., Resolver]) -> None:
    names, clock = Names(a=socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")), Clock()
    resolver = made(names, clock=clock)
    for _ in range(20):
        with pytest.raises(socket.gaierror):
            await addresses(resolver, "a")
    assert names.asked == ["a"]
    clock.now += 0.25  # the least that a row waits before another try
    names.table["a"] = ["127.0.0.9"]
    assert await addresses(resolver, "a") == ["127.0.0.9"]


def depth(error: BaseException) -> int:
    trace, count = error.__traceback__, 0
    while trace is not None:
        trace, count = trace.tb_next, count + 1
    return count


@pytest.mark.parametrize("trouble", [OSError(errno.EMFILE, "Too many open files"), KeyError("a bug")])
async def test_trouble_of_our_own_is_raised_and_not_remembered(
    made: Callable[..., Resolver], trouble: Exception
) -> None:
    names = Names(a=trouble)
    resolver = made(names)
    for _ in range(2):
        with pytest.raises(type(trouble), match=str(trouble.args[-1])):
            await addresses(resolver, "a")
    names.table["a"] = ["127.0.0.9"]
    assert await addresses(resolver, "a") == ["127.0.0.9"]


async def test_the_name_used_longest_ago_is_forgotten(made: Callable[..., Resolver]) -> None:
    names = Names()
    resolver = made(names, names=2)
    for host in "abaca":
        await addresses(resolver, host)
    assert names.asked == ["a", "b", "c"]
    await addresses(resolver, "b")
    assert names.asked == ["a", "b", "c", "b"]


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", "x." * 200])
async def test_a_text_that_can_be_no_name_is_not_found(host: str) -> None:
    resolver = Resolver(system_lookup)
    with pytest.raises(socket.gaierror) as caught:
        await addresses(resolver, host)
    assert caught.value.errno == socket.EAI_NONAME
    await resolver.close()


async def test_the_system_answers_for_an_address() -> None:
    resolver = Resolver()
    assert await addresses(resolver, "127.0.0.1") == ["127.0.0.1"]
    await resolver.close()


# Many at once


async def test_waiters_share_one_look_up_and_one_giving_up_hurts_no_other(made: Callable[..., Resolver]) -> None:
    names = Names()
    names.go_on.clear()
    resolver = made(names)
    waiters = [asyncio.create_task(addresses(resolver, "a")) for _ in range(5)]
    await names.has_begun()
    waiters[0].cancel()
    await turns()
    assert waiters[0].cancelled()
    names.go_on.set()
    assert await soon(asyncio.gather(*waiters[1:])) == [["127.0.0.1"]] * 4
    assert names.asked == ["a"]


async def test_waiters_share_an_error_and_each_gets_its_own(made: Callable[..., Resolver]) -> None:
    names = Names(a=socket.gaierror(socket.EAI_AGAIN, "Temporary failure"))
    resolver = made(names)
    errors = await soon(asyncio.gather(*(resolver.resolve("a", 80, ANY) for _ in range(3)), return_exceptions=True))
    assert [type(error) for error in errors] == [socket.gaierror] * 3
    assert len({id(error) for error in errors}) == 3
    assert names.asked == ["a"]


async def test_a_look_up_nobody_waits_for_is_not_begun(made: Callable[..., Resolver]) -> None:
    names = Names()
    names.go_on.clear()
    resolver = made(names, threads=1)
    first = asyncio.create_task(addresses(resolver, "first"))
    await names.has_begun()
    given_up = [asyncio.create_task(addresses(resolver, "given-up")) for _ in range(2)]
    wanted = asyncio.create_task(addresses(resolver, "wanted"))
    await turns()
    for task in given_up:
        task.cancel()
    await turns()
    names.go_on.set()
    await soon(asyncio.gather(first, wanted))
    assert names.asked == ["first", "wanted"]
    await addresses(resolver, "given-up")
    assert names.asked == ["first", "wanted", "given-up"]


async def test_a_look_up_begun_is_joined_by_who_comes_later(made: Callable[..., Resolver]) -> None:
    names = Names()
    names.go_on.clear()
    resolver = made(names)
    gone = asyncio.create_task(addresses(resolver, "a"))
    await names.has_begun()
    gone.cancel()
    await turns()
    later = asyncio.create_task(addresses(resolver, "a"))
    await turns()
    names.go_on.set()
    assert await soon(later) == ["127.0.0.1"]
    assert names.asked == ["a"]


async def test_the_threads_are_bounded(made: Callable[..., Resolver]) -> None:
    names = Names()
    names.go_on.clear()
    resolver = made(names, threads=3)
    waiters = [asyncio.create_task(addresses(resolver, f"n{n}")) for n in range(30)]
    await names.has_begun(3)
    names.go_on.set()
    await soon(asyncio.gather(*waiters))
    assert len(names.asked) == 30
    assert names.most_at_once == 3


async def test_names_whose_server_never_answers_do_not_hold_the_others_up() -> None:
    """Each holds its thread for half a minute; the good names would wait as long."""
    end = threading.Event()

    def lookup(host: str, port: int, family: int) -> list[Any]:
        if host.startswith("silent"):
            end.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    resolver = Resolver(lookup, threads=4)
    silent = [asyncio.ensure_future(resolver.resolve(f"silent{n}.example")) for n in range(40)]
    try:
        async with asyncio.timeout(25):  # some seconds, and never without a thread that is not held
            found = await asyncio.gather(*(resolver.resolve(f"good{n}.example") for n in range(40)))
        assert len(found) == 40
        assert not any(one.done() for one in silent)
        assert 40 <= len(resolver._threads) <= 512  # those that are held; the others may have ended by now
    finally:
        end.set()
        await asyncio.gather(*silent)
        await resolver.close()
    assert len(resolver._threads) == 0


async def test_one_thread_serves_one_name_after_the_other(made: Callable[..., Resolver]) -> None:
    resolver = made(Names())
    before = set(threading.enumerate())  # of which some may end meanwhile
    for n in range(20):
        await addresses(resolver, f"n{n}")
    assert len(set(threading.enumerate()) - before) == 1


async def test_without_any_thread_the_name_may_be_tried_again(
    made: Callable[..., Resolver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = Names()
    resolver = made(names)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(socket.gaierror, match="can't start new thread") as caught:
            await addresses(resolver, "a")
    assert caught.value.errno == socket.EAI_AGAIN
    names.go_on.clear()
    first = asyncio.create_task(addresses(resolver, "a"))
    await names.has_begun()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        second = asyncio.create_task(addresses(resolver, "b"))
        await turns()
    names.go_on.set()
    await soon(asyncio.gather(first, second))
    assert names.asked == ["a", "b"]


# The end


async def test_close_ends_idle_threads_at_once() -> None:
    before = set(threading.enumerate())
    resolver = Resolver(Names())
    await soon(asyncio.gather(*(resolver.resolve(f"n{n}", 80, ANY) for n in range(100))))
    assert set(threading.enumerate()) - before
    await resolver.close()
    ended = time.monotonic() + PATIENCE  # the last thread may still be on its way out of a look-up
    while set(threading.enumerate()) - before and time.monotonic() < ended:
        await asyncio.sleep(0)
    assert not set(threading.enumerate()) - before
    await resolver.close()


async def test_close_waits_for_no_look_up_and_answers_who_waits(made: Callable[..., Resolver]) -> None:
    names = Names()
    names.go_on.clear()
    resolver = made(names, threads=1)
    waiters = [asyncio.create_task(resolver.resolve(host, 80, ANY)) for host in ("stuck", "stuck", "queued")]
    await names.has_begun()
    await soon(resolver.close())
    errors = await soon(asyncio.gather(*waiters, return_exceptions=True))
    assert [getattr(error, "errno", error) for error in errors] == [errno.ECANCELED] * 3
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    names.go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("resolver-"):
            await asyncio.to_thread(thread.join, PATIENCE)
    await turns()
    assert complaints == []
    with pytest.raises(OSError, match="closed"):
        await resolver.resolve("stuck", 80, ANY)
    assert names.asked == ["stuck"]


def test_a_loop_that_ended_earlier_than_a_look_up_is_left_alone() -> None:
    names = Names()
    names.go_on.clear()
    resolver = Resolver(names)

    async def give_up() -> None:
        task = asyncio.create_task(resolver.resolve("a", 80, ANY))
        await names.has_begun()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(give_up())
    names.go_on.set()
    asyncio.run(resolver.close())
    for thread in threading.enumerate():
        if thread.name.startswith("resolver-"):
            thread.join(PATIENCE)
            assert not thread.is_alive()


STUCK = """
import asyncio, threading
from fetcher.transport.resolver import Resolver

begun = threading.Event()

def lookup(host, port, family):
    begun.set()
    threading.Event().wait()

async def main():
    resolver = Resolver(lookup)
    task = asyncio.create_task(resolver.resolve("a.test", 80))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await resolver.close()

asyncio.run(main())
print("ended")
"""


def test_a_stuck_look_up_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=6 * PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


# Behind aiohttp


async def test_a_connector_reaches_what_the_resolver_says(made: Callable[..., Resolver]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    names = Names(missing=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connector = aiohttp.TCPConnector(resolver=made(names), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        for _ in range(3):
            async with session.get(f"http://site.test:{port}/") as response:
                assert await response.text() == "ok"
        with pytest.raises(aiohttp.ClientConnectorDNSError) as caught:
            await session.get(f"http://missing:{port}/")
    assert isinstance(caught.value.os_error, socket.gaierror)
    assert names.asked == ["site.test", "missing"]
    server.close()
