"""The parsers' processes: hostile pages and extractors cost their own row, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import ParseError
from fetcher.model import Extractor, Request, Response
from fetcher.page import isolation
from fetcher.page.messages import MAX_MESSAGE_BYTES, MessageBuffer, WorkerReady, encode
from fetcher.page.reader import Reader
from tests.lab import extractors, homebound
from tests.lab.command import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at its children in /proc")

DEADLINE = 60.0
DIVS = b"<div>" * 100_000
ATTRIBUTES = b"<a " + b" ".join(b"a%d=1" % n for n in range(50_000)) + b">"


def respond(body: bytes | str, row: int = 1) -> Response:
    data = body.encode() if isinstance(body, str) else body
    return Response(Request(row, "http://a.example/"), "http://a.example/", 200, (("content-type", "text/html"),), data)


def parsers_of(parent: int | None = None) -> list[int]:
    """Return the processes that ``parent``, or we, have started to parse in, zombies too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            state, owner = stat.rpartition(")")[2].split()[:2]
            if int(owner) == (parent or os.getpid()) and (b"fetcher.page.worker" in line or state == "Z"):
                found.append(int(entry.name))
    return found


async def until(happened: Callable[[], Any], deadline: float = DEADLINE) -> None:
    async with asyncio.timeout(deadline):
        while not happened():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def reading(extract: Extractor | None = extractors.obey, **options: Any) -> AsyncIterator[Reader]:
    """Give a reader, and show that it leaves no process and no open file."""
    if extract is not None:
        options = {"isolate": True} | options
    child = await asyncio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
    await child.communicate()  # some loops open files of their own with the first child
    before = sorted(os.listdir("/proc/self/fd"))
    reader = Reader(Config.of(**options), extract)
    try:
        async with asyncio.timeout(DEADLINE):
            yield reader
    finally:
        await reader.close()
    await reader.close()
    assert parsers_of() == []
    assert sorted(os.listdir("/proc/self/fd")) == before
    gc.collect()  # what was not closed would warn now


async def said(reader: Reader, body: bytes | str, row: int = 1) -> Any:
    """Return the data of a page, or what went wrong."""
    try:
        page = await reader.read_isolated(respond(body, row), waited=0, fetched_at=0)
    except ParseError as error:
        return f"{error.code}: {error.message}"
    return page.data


async def all_said(reader: Reader, bodies: Iterable[bytes | str]) -> list[Any]:
    return await asyncio.gather(*(said(reader, body, row) for row, body in enumerate(bodies, 1)))


# Hostile pages, hostile extractors


@pytest.mark.parametrize("bomb", [DIVS, ATTRIBUTES])
@pytest.mark.parametrize("options", [{}, {"parsers": 1}])
async def test_a_bomb_costs_its_own_row(bomb: bytes, options: dict[str, Any]) -> None:
    async with reading(None, parse_timeout=0.5, select="t=title", **options) as reader:
        pages = [b"<title>%d</title>" % row for row in range(6)]
        results = await all_said(reader, [*pages[:3], bomb, *pages[3:], bomb])
        titles = [{"t": str(row)} for row in range(6)]
        over = "parse_timeout: over 0.5 s"
        assert results == [*titles[:3], over, *titles[3:], over]


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("abort ", "parse_crash: its parser died of SIGABRT"),
        ("die SIGSEGV", "parse_crash: its parser died of SIGSEGV"),
        ("die SIGKILL", "parse_crash: its parser died of SIGKILL"),
        ("die SIGRTMIN", f"parse_crash: its parser died of {signal.SIGRTMIN.name}"),
        ("die SIGINT", None),
        ("die SIGTERM", None),
        ("exit 3", "parse_crash: its parser ended by itself (exit 3)"),
        ("leave 4", "parse_crash: its parser ended by itself (exit 4)"),
        ("close ", "parse_crash: its parser died of SIGKILL"),
        ("loop ", "parse_timeout: over 1 s"),
        ("raise what", "extract_failed: ValueError: what"),
        (
            "raise caf\udce9".encode("utf-8", "replace"),
            "extract_failed: ValueError: caf?",
        ),
        ("fail parse_crash", "parse_crash: by the extractor"),
        ("fail extract_failed", "extract_failed: by the extractor"),
        ("orphan 2", "parse_crash: its parser died of SIGABRT"),
        ("linger ", "lingers"),
        ("tuple ", ["a", ["b", 1]]),
        ("say plain", "plain"),
    ],
)
async def test_an_extractor_costs_its_own_row(body: bytes | str, result: Any) -> None:
    async with reading(parse_timeout=1, parsers=1) as reader:
        assert await all_said(reader, ["say 1", body, "say 2"]) == ["1", result, "2"]


@pytest.mark.parametrize(
    ("body", "of"),
    [
        ("set ", "set"),
        ("object ", "list"),
        ("huge ", "Overflow"),
        ("surrogate ", "Unicode"),
        ("cycle ", "Recursion"),
        ("key ", "dict"),
    ],
)
async def test_data_that_is_not_plain_is_refused_where_it_has_to_cross(body: str, of: str) -> None:
    async with reading(parsers=1) as reader:
        ours, after = await all_said(reader, [body, "say 2"])
        assert ours.startswith("extract_failed: what it returns must be plain data")
        assert of in ours
        assert after == "2"


async def test_what_talks_nonsense_is_ended() -> None:
    async with reading(parsers=1) as reader:
        first, wrong, last = await all_said(reader, ["nonsense ", "wrong ", "say 2"])
        assert first.startswith("parse_crash: its parser sent no valid message (a message of ")
        assert wrong.startswith("parse_crash: its parser sent no valid message (Expected")
        assert last == "2"


async def test_what_is_printed_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    async with reading(parsers=1) as reader:
        assert await all_said(reader, ["print ink", "abort ", "say 2"]) == [
            "ink",
            "parse_crash: its parser died of SIGABRT",
            "2",
        ]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("ink\n") == 2  # Python's own, and that of a child


# Many pages


@pytest.mark.parametrize("parsers", [1, 2, 3])
async def test_of_many_pages_the_culprits_alone_fail(parsers: int) -> None:
    chance = random.Random(parsers)
    bodies = [f"say {row}" for row in range(300)]
    for row, deed in zip(
        chance.sample(range(300), 12), ["abort ", "raise x", "exit 1", "die SIGSEGV"] * 3, strict=True
    ):
        bodies[row] = deed
    async with reading(parsers=parsers) as reader:
        results = await all_said(reader, bodies)
        assert len(parsers_of()) <= parsers
    for row, (body, result) in enumerate(zip(bodies, results, strict=True)):
        assert result == str(row) if body.startswith("say") else result.startswith(("parse_crash", "extract_failed"))


async def test_a_pages_time_begins_when_those_before_it_are_done() -> None:
    async with reading(parsers=1, parse_timeout=1) as reader:
        assert await all_said(reader, ["pause 0.15"] * 12) == ["0.15"] * 12


async def test_pages_go_to_no_more_processes_than_asked_for() -> None:
    async with reading(extractors.pid, parsers=2) as reader:
        seen: set[int] = set()
        while len(seen) < 2:  # the first may have read all before the second was up
            seen |= set(await all_said(reader, [""] * 100))
        for _ in range(10):
            assert set(await all_said(reader, [""] * 100)) <= seen
        assert set(parsers_of()) == seen


async def test_a_page_alone_starts_one_process() -> None:
    async with reading(extractors.pid, parsers=4) as reader:
        assert len({await said(reader, "") for _ in range(10)}) == 1
        assert len(parsers_of()) == 1


@pytest.mark.parametrize("parsers", [1, 3])
async def test_large_messages_go_both_ways_at_once(parsers: int) -> None:
    async with reading(parsers=parsers, parse_timeout=20) as reader:
        bodies = ["list 3000" + " " * 2_000_000, "text 3000000", "say " + "x" * 10_000_000] * 8
        results = await all_said(reader, bodies)
        assert [len(result) for result in results] == [3000, 3_000_000, 10_000_000] * 8


async def test_an_answer_is_bounded() -> None:
    async with reading(parsers=1) as reader:
        most, over = await all_said(reader, [f"text {MAX_MESSAGE_BYTES - 1000}", f"text {MAX_MESSAGE_BYTES}"])
        assert len(most) == MAX_MESSAGE_BYTES - 1000
        assert over == "extract_failed: what was read out of it is over 64 MB"


async def test_leaving_early_does_the_others_no_harm() -> None:
    chance = random.Random(1)
    async with reading(parsers=2, parse_timeout=2) as reader:
        await said(reader, "say warm")
        tasks = []
        for row in range(200):
            body = "abort " if row % 50 == 7 else f"say {row}"
            tasks.append(asyncio.ensure_future(said(reader, body, row)))
            if chance.random() < 0.2:
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                tasks[chance.randrange(len(tasks))].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for row, result in enumerate(results):
            if not isinstance(result, asyncio.CancelledError):
                assert result == ("parse_crash: its parser died of SIGABRT" if row % 50 == 7 else str(row))
        assert any(isinstance(result, asyncio.CancelledError) for result in results)
        assert await said(reader, "say more") == "more"


async def test_closing_ends_what_is_under_way() -> None:
    async with reading(parsers=1) as reader:
        await said(reader, "say warm")
        tasks = [asyncio.ensure_future(said(reader, "loop ")) for _ in range(40)]
        await asyncio.sleep(0)
        await reader.close()
        assert [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [
            "the parsers were closed"
        ] * 40
        assert await said(reader, "say again") == "again"


async def test_a_run_stopped_at_once_waits_for_no_page() -> None:
    async def transport(request: Request) -> Response:
        return Response(request, request.url, 200, body=b"loop ")

    config = Config.of(robots=False, isolate=True, parsers=1, parse_timeout=600)
    async with asyncio.timeout(DEADLINE), Fetcher(config, transport=transport, extract=extractors.obey) as fetcher:
        async with fetcher.stream(["http://127.0.0.1/"]) as outcomes:
            rest = asyncio.ensure_future(anext(outcomes, None))
            await until(lambda: any(row.stage == "parsing" for row in fetcher.in_flight()))
            fetcher.stop(0)
            assert await rest is None
            assert outcomes.stats.pending == 1


async def test_closing_while_a_process_starts_leaves_none() -> None:
    async with reading(parsers=2) as reader:
        tasks = [asyncio.ensure_future(said(reader, "say 1")) for _ in range(3)]
        await asyncio.sleep(0)
        await reader.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert parsers_of() == []


async def test_idle_processes_are_ended_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "IDLE_SECONDS", 0.2)
    async with reading(extractors.pid, parsers=2) as reader:
        before = set(await all_said(reader, [""] * 20))
        await until(lambda: not parsers_of())
        assert before.isdisjoint(await all_said(reader, [""] * 20))


# Processes that are worn out


async def test_an_extractor_that_leaks_costs_no_more_memory_than_a_bound_and_no_row() -> None:
    async with reading(extractors.leak, parsers=1) as reader:
        said_by = []
        for row in range(1, 201):  # one after the other: 4 GB in all
            said_by.append(await said(reader, b"20", row))
        most = max(leaked for _, leaked in said_by)
        processes = [pid for pid, _ in said_by]
        assert len(set(processes)) >= 3
        assert most < 2048
        await until(lambda: len(parsers_of()) == 1)


@pytest.mark.parametrize("parsers", [1, 3])
async def test_a_process_is_changed_for_another_after_so_many_pages_and_loses_none(
    parsers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "MAX_PAGES", 7)
    most = 0
    async with reading(extractors.pid, parsers=parsers) as reader:
        pids: list[int] = []
        for _ in range(20):
            found = await all_said(reader, [b"x"] * 100)
            most = max(most, len(parsers_of()))
            assert all(type(pid) is int for pid in found)
            pids += found
        assert len(set(pids)) > parsers
        assert most <= parsers + 2  # its successor, and one that is about to end
        await until(lambda: len(parsers_of()) <= parsers + 1)


async def test_a_process_is_changed_for_another_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "MAX_BYTES", 1_000_000)
    async with reading(extractors.pid, parsers=1) as reader:
        first = await said(reader, b"x" * 600_000)
        assert await said(reader, b"x" * 300_000) == first
        assert await said(reader, b"x" * 300_000) == first  # and is worn out
        assert await said(reader, b"x") == first  # it serves until another is ready: nobody waits
        await until(lambda: len(parsers_of()) == 1 and first not in parsers_of())
        assert await said(reader, b"x") != first


async def test_a_process_that_is_worn_out_is_still_under_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "MAX_PAGES", 1)
    async with reading(parsers=1, parse_timeout=1) as reader:
        bodies = ["say 1", "loop ", "say 2", "die SIGKILL", "say 3"]
        over, died = "parse_timeout: over 1 s", "parse_crash: its parser died of SIGKILL"
        assert await all_said(reader, bodies) == ["1", over, "2", died, "3"]


async def test_without_another_to_take_its_place_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "MAX_PAGES", 2)
    async with reading(extractors.pid, parsers=1) as reader:
        first = await said(reader, b"x")
        monkeypatch.setattr(isolation, "command", lambda _: ["/no/such/interpreter"])
        assert await all_said(reader, [b"x"] * 40) == [first] * 40


async def test_a_process_ended_from_outside_while_idle_costs_no_row() -> None:
    async with reading(extractors.pid, parsers=1) as reader:
        victim = await said(reader, "")
        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in parsers_of())
        assert await said(reader, "") != victim


async def test_it_does_not_heed_signals() -> None:
    async with reading(extractors.pid, parsers=1) as reader:
        pid = await said(reader, "")
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert await said(reader, "") == pid


# Clocks


LOOPS = ["asyncio", "uvloop"]


def on(kind: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` on a loop of this kind."""
    if kind == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())
    else:
        asyncio.run(work())


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_that_was_blocked_reads_before_it_judges(kind: str) -> None:
    async def work() -> None:
        async with reading(parse_timeout=0.5, parsers=1) as reader:
            await said(reader, "say warm")
            page = asyncio.ensure_future(said(reader, "pause 0.1"))
            await asyncio.sleep(0.01)
            time.sleep(1)
            assert await page == "0.1"
            page = asyncio.ensure_future(said(reader, "loop "))
            await asyncio.sleep(0.01)
            time.sleep(2)  # the process has ended itself
            assert await page == "parse_timeout: over 0.5 s"

    on(kind, work)


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("in_thread", [False, True])
def test_any_loop_in_any_thread_will_do(kind: str, in_thread: bool) -> None:
    async def work() -> None:
        async with reading(parse_timeout=0.5, parsers=2) as reader:
            bodies = ["say 1", "abort ", "loop ", "text 100000", *["say 2"] * 40]
            one, crashed, late, text, *rest = await all_said(reader, bodies)
            assert (one, len(text), rest) == ("1", 100_000, ["2"] * 40)
            assert (crashed, late) == ("parse_crash: its parser died of SIGABRT", "parse_timeout: over 0.5 s")

    if not in_thread:
        on(kind, work)
        return
    bugs: list[BaseException] = []

    def run() -> None:
        try:
            on(kind, work)
        except BaseException as error:
            bugs.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert bugs == []


# Starts that fail


async def test_an_extractor_that_cannot_be_loaded_there_fails_every_page_and_is_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[isolation.ParserProcess] = []
    start = isolation.ParserProcess.start

    async def counted(process: isolation.ParserProcess) -> None:
        starts.append(process)
        await start(process)

    monkeypatch.setattr(isolation.ParserProcess, "start", counted)
    async with reading(homebound.extract, parsers=1) as reader:
        reason = (
            "parse_crash: the extractor tests.lab.homebound:extract cannot be loaded in a process of its own: "
            "RuntimeError: not here"
        )
        assert await all_said(reader, [""] * 40) == [reason] * 40
        assert await all_said(reader, [""] * 40) == [reason] * 40
        assert len(starts) == 1


STARTS = {"SLEEPS": "exec sleep 60", "SHOUTS": "yes; exec sleep 60"}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("/nowhere/python", "no process can be started to parse in: [Errno 2]"),
        ("", "no process can be started to parse in: "),
        ("/bin/false", "its parser ended by itself (exit 1)"),
        ("SLEEPS", "its parser took over 2 s to start"),
        ("SHOUTS", "its parser sent no valid message"),
    ],
)
async def test_a_process_that_does_not_start_fails_who_waits_and_is_tried_again_later(
    program: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program in STARTS:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{STARTS[program]}")
        script.chmod(0o755)
        program = str(script)
    async with reading(parsers=2) as reader:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", program)
            broken.setattr(isolation, "START_SECONDS", 2.0)
            for result in await all_said(reader, ["say 1"] * 5):
                assert result.startswith(f"parse_crash: {reason}")
            assert (await said(reader, "say 2")).startswith("parse_crash: ")
        pool = reader._pool
        assert pool is not None
        await until(lambda: not pool._processes and not pool._starts)  # another may have been started, and end later
        pool._refused_until = 0.0
        assert await all_said(reader, ["say 1"] * 5) == ["1"] * 5


# The owner's end


OWNER = """
import asyncio, os, sys
from fetcher.config import Config
from fetcher.model import Request, Response
from fetcher.page.reader import Reader
from tests.lab import extractors

def respond(body):
    return Response(Request(1, "u"), "u", 200, (("content-type", "text/html"),), body)

async def main():
    reader = Reader(Config.of(isolate=True, parsers=4, parse_timeout=1), extractors.obey)
    read = lambda body: reader.read_isolated(respond(body), waited=0, fetched_at=0)
    await asyncio.gather(*(read(b"pause 0.3") for _ in range(4)))
    tasks = [asyncio.ensure_future(read(body)) for body in (b"loop ", b"text 60000000", b"linger ")]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    os.write(1, b"ready\\n")
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_processes_do_not_outlive_their_owner(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == b"ready\n"
            parsers = parsers_of(owner.pid)
            assert len(parsers) > 1
        finally:
            owner.send_signal(number)

    def alive(pid: int) -> bool:
        try:
            return b"fetcher.page.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    await until(lambda: not any(map(alive, parsers)))


# MessageBuffer


def test_messages_are_cut_out_of_any_pieces() -> None:
    stream = b"".join(bytes(encode(WorkerReady())) for _ in range(5))
    whole = bytes(encode(WorkerReady()))[4:]
    for size in (1, 3, 7, len(stream)):
        frames = MessageBuffer()
        found = [message for at in range(0, len(stream), size) for message in frames.feed(stream[at : at + size])]
        assert found == [whole] * 5


def test_a_message_too_large_is_refused_by_its_length() -> None:
    with pytest.raises(ValueError, match="a message of 4294967295 bytes"):
        list(MessageBuffer().feed(b"\xff" * 8))
