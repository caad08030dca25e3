"""Connections come about or fail with a code, are kept within bounds, and carry nobody else's answers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trustme

from fetcher.client import Fetcher
from fetcher.config import Config
from tests.lab.crawl import code_of, crawl, one, open_sockets, with_names
from tests.lab.server import Exchange, LabServer, black_hole, refused_port, silent_port


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3) as lab:
        yield lab


@pytest.fixture(scope="module")
def tls_lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=1, tls=True) as lab:
        yield lab


# Connections that do not come about


async def test_ports_that_do_not_answer_have_their_codes(lab: LabServer) -> None:
    with refused_port() as refused, silent_port() as silent, black_hole() as hole:
        urls = {
            f"http://127.0.0.1:{refused}/": "connect_refused",
            f"https://127.0.0.1:{refused}/": "connect_refused",
            f"http://127.0.0.1:{hole}/": "connect_timeout",
            f"https://127.0.0.1:{hole}/": "connect_timeout",
            f"http://127.0.0.1:{silent}/": "read_timeout",
            f"https://127.0.0.1:{silent}/": "tls_timeout",
            f"https://127.0.0.1:{lab.port}/ok": "tls_protocol",
        }
        # A fetcher each: a host that seems dead rests.
        outcomes = [await one(url, connect_timeout=0.3, read_timeout=0.3) for url in urls]
    assert {outcome.request.url: code_of(outcome) for outcome in outcomes} == urls


async def test_certificates_hold_or_do_not(tls_lab: LabServer) -> None:
    expected = {"valid": 200, "wrong_host": "tls_verify", "expired": "tls_verify", "unknown_ca": "tls_verify"}
    urls = [tls_lab.https("/ok", certificate=name) for name in expected]
    trusting = await crawl(urls, ca_bundle=str(tls_lab.ca))
    assert [code_of(outcome) for outcome in trusting] == list(expected.values())
    assert "expired" in trusting[2].error.message  # type: ignore[union-attr]  # the codes say it failed
    assert {code_of(outcome) for outcome in await crawl(urls)} == {"tls_verify"}
    assert {code_of(outcome) for outcome in await crawl(urls, insecure=True)} == {200}


async def test_names_that_do_not_resolve_have_their_codes(lab: LabServer) -> None:
    never = threading.Event()

    def hang() -> str:
        never.wait(60)
        return "127.0.0.1"

    table = {
        "found.test": "127.0.0.1",
        "missing.test": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        "again.test": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        "slow.test": hang,
        "odd.test": UnicodeError("label too long"),
    }
    try:
        outcomes = await with_names(table, [f"http://{name}:{lab.port}/ok" for name in table], connect_timeout=0.3)
    finally:
        never.set()
    codes = [code_of(outcome) for outcome in outcomes]
    assert codes == [200, "dns_not_found", "dns_timeout", "dns_timeout", "dns_not_found"]
    assert [entry.header("host") for entry in lab.log] == [f"found.test:{lab.port}"]


async def test_a_host_of_several_addresses_is_reached_by_the_one_that_answers(lab: LabServer) -> None:
    (outcome,) = await with_names({"two.test": "127.0.0.9 127.0.0.2"}, [f"http://two.test:{lab.port}/ok"])
    assert (code_of(outcome), lab.log[0].host) == (200, "127.0.0.2")


async def test_idle_connections_are_bounded() -> None:
    async with LabServer(hosts=180) as lab:
        urls = [lab.url(f"/ok?{turn}", host) for turn in range(2) for host in range(1, 181)]
        async with (
            Fetcher(Config.of(concurrency=10, retries=0, robots=False)) as fetcher,
            fetcher.stream(urls) as outcomes,
        ):
            async for outcome in outcomes:
                assert code_of(outcome) == 200
                assert lab.connections.open <= 100 + 10 + 10  # what we have closed, the server may not know yet
        assert lab.connections.total > 180
        await lab.until(lambda: lab.connections.open == 0)


async def test_connections_are_kept_and_used_again(lab: LabServer) -> None:
    urls = [lab.url(f"/ok?{n}", n % 3 + 1) for n in range(60)]
    outcomes = await crawl(urls, per_host=2)
    assert {code_of(outcome) for outcome in outcomes} == {200}
    assert lab.connections.total <= 6


async def test_a_kept_connection_that_is_gone_is_no_failure(lab: LabServer) -> None:
    outcomes = await crawl([lab.url(f"/keep-alive-close?{n}") for n in range(5)], per_host=1)
    assert [code_of(outcome) for outcome in outcomes] == [200] * 5
    assert {outcome.attempts for outcome in outcomes} == {1}


async def test_a_server_that_speaks_unasked_shifts_no_answers(lab: LabServer) -> None:
    """What comes on an idle connection is not the answer to the next row's request."""

    async def twice(exchange: Exchange) -> None:
        await exchange.reply("<title>mine</title>")
        await exchange.pause(0.05)
        await exchange.send(exchange.head(200, [("Content-Length", "23")]) + "<title>nobody's</title>")

    lab.add("/twice", twice)
    async with Fetcher(Config.of(retries=0, per_host=1, robots=False)) as fetcher:
        for n in range(3):
            assert (await fetcher.fetch(lab.url("/twice"))).title == "mine"
            await lab.until(lambda: any(idle.should_close for idle in idle_connections(fetcher)))
            assert (await fetcher.fetch(lab.url(f"/ok?title=row{n}"))).title == f"row{n}"


def transport_of(fetcher: Fetcher) -> Any:
    assert fetcher._transport is not None
    return fetcher._transport.make()


def idle_connections(fetcher: Fetcher) -> list[Any]:
    return [
        connection
        for session in transport_of(fetcher)._sessions.values()
        for pool in session.connector._conns.values()
        for connection, _ in pool
    ]


async def test_a_head_is_bounded_as_a_whole(lab: LabServer) -> None:
    async def lines(exchange: Exchange) -> None:
        headers = [(f"X-{n}", "h" * 8_000) for n in range(int(exchange.number("n", 0)))]
        await exchange.reply("x" * 500_000, headers=headers)

    async def interim(exchange: Exchange) -> None:
        for _ in range(int(exchange.number("n", 0))):
            await exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * 100)
        await exchange.reply("x" * 500_000)

    lab.add("/lines", lines)
    lab.add("/interim", interim)
    targets = ["/lines?n=25", "/lines?n=120", "/interim?n=10", "/interim?n=100000"]
    outcomes = await crawl([lab.url(target) for target in targets], per_host=1)
    assert [code_of(outcome) for outcome in outcomes] == [200, "headers_too_large", 200, "headers_too_large"]


async def test_nothing_waits_for_the_farewell_of_a_server_that_hangs() -> None:
    """Over TLS a transport that closes in order would stay for half a minute."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    hung: list[asyncio.StreamWriter] = []
    over = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a TLS transport has it
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await over.wait()
        writer.transport.abort()

    before = open_sockets()
    server = await asyncio.start_server(hang, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    listening = open_sockets()
    outcome = await one(url, insecure=True, read_timeout=0.2)
    assert code_of(outcome) == "read_timeout"
    await asyncio.sleep(0)
    assert len(open_sockets() - listening) == len(hung) == 1  # the server's own
    over.set()
    server.close()
    async with asyncio.timeout(30):
        while open_sockets() != before:
            await asyncio.sleep(0.001)
