"""Each thing the wire can do to an exchange has its one outcome, in time; and no row gets another's answer."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest

from fetcher.model import Failure, Page
from tests.lab.crawl import code_of, crawl, one
from tests.lab.faults import PAGE
from tests.lab.server import Exchange, LabServer

MB = 1 << 20


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3) as lab:
        yield lab


@pytest.fixture(scope="module")
def tls_lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=1, tls=True) as lab:
        yield lab


# What comes, and what it is

CASES: dict[str, str | int] = {
    "/ok": 200,
    "/status/204": 204,
    "/status/404": "http_404",
    "/status/500": "http_500",
    "/status/599": "http_599",
    "/status/600": "http_600",
    "/status/999": "http_999",
    "/status/304": "http_304",
    "/no-location": "http_302",
    "/empty": "empty_reply",
    "/cut-headers": "truncated",
    "/cut-body": "truncated",
    "/cut-body?sent=0": "truncated",
    "/cut-chunked": "truncated",
    "/cut-chunked?inside=1": "truncated",
    "/reset": "connect_reset",
    "/reset-body": "truncated",
    "/malformed": "malformed_response",
    "/bad-status-line": "malformed_response",
    "/bad-status-line?v=ICY+200+OK": "malformed_response",
    "/bad-status-line?v=HTTP/2+200+OK": "malformed_response",
    "/bad-status-line?v=HTTP/1.1+99+Low": "malformed_response",
    "/bad-status-line?v=HTTP/1.1+1000+High": "malformed_response",
    "/bad-status-line?v=HTTP/1.1+200": 200,
    "/bad-header": 200,  # a line that cannot be read is passed over (Chromium; curl refuses it)
    "/bad-header?v=A%00B:+c": "malformed_response",  # but for a NUL (RFC 9110, 5.5)
    "/bad-header?v=X:+%00": "malformed_response",
    "/bad-header?v=:+nameless": 200,
    "/bad-header?v=%e4:+x": 200,
    "/bad-header?v=X+%09:+blanks": 200,
    "/bad-header?v=Content-Length+:+2": "malformed_response",  # it counts, and differs from the other
    "/bad-header?v=X-Latin:+%e4": 200,
    "/bad-length": "malformed_response",
    "/bad-length?kind=negative": "malformed_response",
    "/bad-length?kind=two": "malformed_response",
    "/bad-chunk": "malformed_response",
    "/huge-header": "headers_too_large",
    "/huge-header?size=60000": 200,
    "/many-headers": "headers_too_large",
    "/many-headers?n=100": 200,
    "/101": "malformed_response",
    "/informational": 200,
    "/no-length": 200,
    "/keep-alive-close": 200,
    "/http10": 200,
    "/lf-only": 200,
    "/slow-headers?n=3&gap=0.01": 200,
    "/slow-body?chunks=3&gap=0.01": 200,
    "/gzip": 200,
    "/deflate?raw=1": 200,
    "/stacked": 200,
    "/gzip-cut": "truncated",
    "/gzip-bad-crc": "bad_encoding",
    "/unknown-encoding": 200,
    "/gzip-bomb?mb=30": "too_large",
    "/big?mb=11": "too_large",
    "/big?mb=11&chunked=1": "too_large",
    "/big?mb=9&chunked=1": 200,
}


@pytest.mark.parametrize("target", CASES)
async def test_each_case_has_its_outcome(lab: LabServer, target: str) -> None:
    outcome = await one(lab.url(target))
    assert code_of(outcome) == CASES[target], outcome
    assert outcome.request.id == 1
    if isinstance(outcome, Failure):
        assert outcome.error.message
        assert outcome.attempts == 1
        assert outcome.url == lab.url(target)
    await lab.until(lambda: lab.connections.open == 0)


LINES: dict[str, str | int] = {
    "Transfer-Encoding: gzip": "bad_encoding",  # it lasts to the end (RFC 9112, 6.3, item 4), and is no gzip
    "Transfer-Encoding: compress": "bad_encoding",
    "Transfer-Encoding: gzip\r\nContent-Length: 5": "bad_encoding",  # the length does not count (item 3)
    "Transfer-Encoding: identity": 200,  # no coding at all (RFC 7230, A.2)
    "Transfer-Encoding: , identity ,": 200,
    "Transfer-Encoding: chunked, chunked": "malformed_response",
    "Transfer-Encoding: chunked, gzip": "malformed_response",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip": "malformed_response",
    "Transfer-Encoding: gzip, chunked": "bad_encoding",
    "Transfer-Encoding: identity\r\nContent-Length: 5": 200,
    "Content-Length: 5": 200,
    "Content-Length: +5": "malformed_response",
    "Content-Length: 0x5": "malformed_response",
    "Content-Length: -5": "malformed_response",
    "Content-Length:": 200,  # as if it were not there (Chromium)
    "Content-Length:\r\nContent-Length: 5": 200,
    "Content-Length: 5, 5": 200,  # equal ones are one (RFC 9112, 6.3, item 5)
    "Content-Length: 5, 05": 200,
    "Content-Length: 5, 6": "malformed_response",
    "Content-Length: 5, x": "malformed_response",
    "Content-Length: 5\r\nContent-Length: 6": "malformed_response",
    "Content-Length: 99999999999999999999999": "malformed_response",
    "Content-Length: 5\r\nContent-Length: 5": 200,
    "Content-Encoding: identity": 200,
    "Content-Encoding: gzip": "bad_encoding",
    "Content-Encoding: gzip\r\nContent-Encoding: deflate": "bad_encoding",
    "Content-Encoding: compress": "bad_encoding",
    "Content-Encoding: none\r\nContent-Encoding: utf-8": 200,
    "Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5": 200,
}


@pytest.mark.parametrize("line", LINES)
async def test_a_framing_that_leaves_a_doubt_is_no_answer(lab: LabServer, line: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 200 OK\r\n{line}\r\n\r\nhello")
        exchange.close()

    lab.add("/lines", answer)
    outcome = await one(lab.url("/lines"))
    assert code_of(outcome) == LINES[line], outcome
    if isinstance(outcome, Page):
        assert outcome.bytes == 5


@pytest.mark.parametrize(
    ("codings", "cut", "result"),
    [
        ("gzip", 0, 200),
        ("deflate, x-gzip", 0, 200),
        ("gzip\r\nContent-Encoding: gzip", 0, 200),
        ("gzip", 5, "truncated"),
        ("gzip, gzip", 0, "bad_encoding"),
    ],
)
@pytest.mark.parametrize("keeps", [False, True])
async def test_a_transfer_coding_that_is_not_chunked_lasts_to_the_end_and_is_undone(
    lab: LabServer, codings: str, cut: int, result: int | str, keeps: bool
) -> None:
    plain = b"<title>undone</title>" + b"x" * 100_000
    inner = plain
    if "deflate" in codings:
        inner = zlib.compress(plain)
    elif "Content" in codings:
        inner = gzip.compress(plain)
    coded = gzip.compress(inner)

    async def answer(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {codings}\r\n\r\n")
        await exchange.send(coded[: len(coded) - cut])
        exchange.close()

    lab.add("/transfer", answer)
    outcome = await one(lab.url("/transfer"), keep_messages=keeps)
    assert code_of(outcome) == result, outcome
    if isinstance(outcome, Page):
        assert (outcome.title, outcome.bytes) == ("undone", len(plain))
        if keeps:  # after the transfer coding, and before the content's
            assert outcome.messages[0].body == (inner if "Content" in codings else plain)


async def test_a_body_that_lasts_until_the_end_is_whole_only_if_that_came_in_order(lab: LabServer) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send("HTTP/1.1 200 OK\r\n\r\nhello")
        await exchange.pause(0.05)
        exchange.reset()

    lab.add("/until-reset", answer)
    assert code_of(await one(lab.url("/until-reset"))) == "truncated"
    assert code_of(await one(lab.url("/no-length"))) == 200


# What is no page is not read


async def test_the_status_is_the_news_whatever_the_body_of_an_error_is(lab: LabServer) -> None:
    bodies = {
        "large": "Content-Length: 99999999\r\n\r\n" + "x" * 300_000,
        "miscoded": "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        "cut": "Content-Length: 100\r\n\r\nhello",
    }

    async def answer(exchange: Exchange) -> None:
        await exchange.send("HTTP/1.1 404 Not Found\r\n" + bodies[exchange.text("as")])
        exchange.close()

    lab.add("/bad", answer)
    outcomes = await crawl([lab.url(f"/bad?as={name}") for name in bodies])
    assert [code_of(outcome) for outcome in outcomes] == ["http_404"] * 3
    accepted = await crawl([lab.url(f"/bad?as={name}") for name in bodies], accept="404")
    assert [code_of(outcome) for outcome in accepted] == [
        "too_large",
        "bad_encoding",
        "truncated",
    ]


async def test_the_body_of_an_accepted_status_is_read_to_its_end(lab: LabServer) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply("x" * 200_000, int(exchange.text("s")), headers=[("Location", "/ok")])

    lab.add("/large", answer)
    for status in (302, 404, 503):
        page = await one(lab.url(f"/large?s={status}"), accept=status, max_redirects=0)
        assert (code_of(page), page.bytes) == (status, 200_000)


# Whose fault it is


async def test_a_url_that_kills_its_connection_is_no_fault_of_its_host(lab: LabServer) -> None:
    """The host has answered before: it is not parked for one URL, whose row pays for its own tries."""
    urls = [lab.url("/ok"), lab.url("/reset"), *(lab.url(f"/delay/5/ok?{n}") for n in range(40))]
    outcomes = await crawl(urls, per_host=2, retries=2, backoff=0.01, deadline=30)
    assert [(code_of(outcome), outcome.attempts) for outcome in outcomes[:2]] == [(200, 1), ("connect_reset", 3)]
    assert {code_of(outcome) for outcome in outcomes[2:]} == {200}


async def test_a_host_that_cannot_be_reached_any_more_is_parked() -> None:
    """It has answered before, and its rows pay nothing until its patience is over."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        server.close()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    prefix = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    outcomes = await crawl([f"{prefix}{n}" for n in range(4)], per_host=1, retries=2, backoff=0.01, host_patience=0.1)
    assert [code_of(outcome) for outcome in outcomes] == [200, *["host_budget"] * 3]
    assert [outcome.attempts for outcome in outcomes[1:]] == [0, 0, 0]


# What is sent


@pytest.mark.parametrize(
    "target",
    [
        "/echo", "/echo?", "/echo/?", "/echo/a?b?", "/echo?a=b?c=d?", "/echo/%7e|'/[]?q=[]|{}^`", "//echo/a//b",
        "/echo?x=%zz&y=%e4%f6", "/echo;p=1,2:3@4!$&()*+=~", "/echo/%2F%2e%2E/%", "/echo?a=%20+b", "/echo/..;/x",
        "/echo/%c3%a9", "/echo?q=%22%3C%3E",
    ],
)  # fmt: skip
async def test_the_wire_carries_the_listed_bytes(lab: LabServer, target: str) -> None:
    await one(lab.url(target))
    assert lab.log[0].target == target
    await one(f"http://127.0.0.1:{lab.port}{target}#fragment")
    assert lab.log[1].target == target


@pytest.mark.parametrize(
    ("target", "wire"),
    [
        ("/echo/%7e|{}^`/../x/./y?q=[]|'", "/echo/x/y?q=[]|%27"),
        ("/echo/.", "/echo/"),
        ("/x/%2E%2e/echo", "/echo"),
        ('/echo/<">?<">', "/echo/%3C%22%3E?%3C%22%3E"),
        ("/echo/ö?ö", "/echo/%C3%B6?%C3%B6"),
    ],
)
async def test_the_wire_carries_the_standards_serialisation(lab: LabServer, target: str, wire: str) -> None:
    outcome = await one(lab.url(target))
    assert [entry.target for entry in lab.log] == [wire]
    assert outcome.url == lab.url(wire)


async def test_our_own_headers_are_said_once_and_may_be_replaced(lab: LabServer) -> None:
    await one(lab.url("/echo"), user_agent="lab/1")
    await one(lab.url("/echo"), header=["Accept: text/plain", "User-Agent: mine", "X-Twice: 1"])
    names = [name.lower() for name, _ in lab.log[1].headers]
    assert sorted(names) == sorted(set(names))
    assert set(names) == {"host", "user-agent", "accept", "accept-encoding", "x-twice"}
    assert lab.log[0].header("user-agent") == "lab/1"
    assert (lab.log[1].header("user-agent"), lab.log[1].header("accept")) == ("mine", "text/plain")
    assert "gzip" in (lab.log[1].header("accept-encoding") or "")


async def test_page_is_what_the_lab_sent(lab: LabServer) -> None:
    page = await one(lab.url("/informational"))
    assert isinstance(page, Page)
    assert (page.title, page.bytes, page.url) == ("lab", len(PAGE), lab.url("/informational"))
