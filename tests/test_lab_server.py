"""The lab keeps its laws: true stats, several hosts and ports, TLS good and bad, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import AsyncIterator

import pytest

from tests.lab.ask import ask, connect, request
from tests.lab.cases import ok_page
from tests.lab.server import Exchange, LabServer, black_hole, refused_port, silent_port


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(second_port=True) as lab:
        yield lab


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Return the body of the next answer on a connection that goes on."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
    return await reader.readexactly(int(size.split(b":")[1]))


async def test_an_entry_holds_the_request_as_it_came(lab: LabServer) -> None:
    answer = await ask(lab.url("/echo?a=%FF&b", host=2), "X-Twice: 1", "x-TWICE:  2 ")
    (entry,) = lab.log
    assert (entry.method, entry.target, entry.path) == ("GET", "/echo?a=%FF&b", "/echo")
    assert (entry.host, entry.port, entry.connection, entry.tls) == ("127.0.0.2", lab.port, 1, False)
    assert entry.headers[1:3] == [("X-Twice", "1"), ("x-TWICE", "2")]
    assert entry.header("host") == f"127.0.0.2:{lab.port}"
    assert (entry.in_flight, entry.in_flight_total, entry.status, entry.note) == (1, 1, 200, "")
    assert entry.t_end is not None
    assert entry.t <= entry.t_end
    assert answer.body.decode() == entry.head
    assert entry.head.startswith("GET /echo?a=%FF&b HTTP/1.1\r\nHost: ")


async def test_hosts_share_a_port_and_have_a_second_one(lab: LabServer) -> None:
    for host in (1, 2, 3):
        for port in (lab.port, lab.other_port):
            assert (await ask(lab.url("/ok", host, port))).status == 200
    assert len({(entry.host, entry.port) for entry in lab.log}) == 6
    assert lab.port != lab.other_port


async def test_requests_follow_each_other_on_a_connection_and_may_be_sent_ahead(lab: LabServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    for n in range(3):
        writer.write(request(lab.url(f"/ok?title=t{n}")))
        assert f"<title>t{n}</title>".encode() in await read_answer(reader)
    post = b"POST /echo HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n%b"
    writer.write(
        post % (b"Content-Length: 5", b"first") + post % (b"Transfer-Encoding: chunked", b"2\r\nse\r\n0\r\n\r\n")
    )
    writer.write(b"\r\nGET http://elsewhere/ok?size=0 HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
    assert (await read_answer(reader)).endswith(b"\r\n\r\nfirst")
    assert (await read_answer(reader)).endswith(b"\r\n\r\nse")
    assert await read_answer(reader) == ok_page(0).encode()
    assert {entry.connection for entry in lab.log} == {1}
    assert lab.log[-1].target == "http://elsewhere/ok?size=0"
    assert lab.connections.open == lab.connections.total == 1
    writer.close()
    await writer.wait_closed()
    await lab.until(lambda: lab.connections.open == 0)


async def test_what_is_in_flight_is_counted_per_host_and_overall(lab: LabServer) -> None:
    gate = asyncio.Event()

    async def held(exchange: Exchange) -> None:
        await gate.wait()
        await exchange.reply("held")

    lab.add("/held", held)
    asked = [asyncio.create_task(ask(lab.url("/held", host))) for host in (1, 1, 1, 2, 2)]
    await lab.until(lambda: len(lab.log) == 5)
    assert all(entry.t_end is None for entry in lab.log)
    gate.set()
    assert [answer.body for answer in await asyncio.gather(*asked)] == [b"held"] * 5
    assert (lab.peak(1), lab.peak(2), lab.peak(3), lab.peak()) == (3, 2, 0, 5)
    assert sorted(entry.in_flight_total for entry in lab.log) == [1, 2, 3, 4, 5]
    assert sorted(entry.connection for entry in lab.log) == [1, 2, 3, 4, 5]
    counts = lab.connections
    assert (counts.total, counts.peak) == (5, 5)
    assert (counts.per_host["127.0.0.2"].total, counts.per_host["127.0.0.2"].peak) == (2, 2)
    for _ in range(5):
        await ask(lab.url("/ok"))
    assert {entry.in_flight_total for entry in lab.requests("/ok")} == {1}


async def test_a_client_that_leaves_is_in_flight_no_longer(lab: LabServer) -> None:
    with await connect(lab.url("/")) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, request(lab.url("/delay/60000/ok")))
        await lab.until(lambda: len(lab.log) == 1)
        assert lab.log[0].t_end is None
    assert (await ask(lab.url("/ok"))).status == 200
    assert lab.log[1].in_flight == 1
    assert lab.log[0].t_end is not None


async def test_a_connection_counts_without_a_request(lab: LabServer) -> None:
    with await connect(lab.url("/")), await connect(lab.url("/", host=2)):
        await lab.until(lambda: lab.connections.open == 2)
        counts = json.loads((await ask(lab.url("/connection-count"))).body)
        assert counts == {"connection": 3, "open": 3, "total": 3}
    await lab.until(lambda: lab.connections.open == 0)
    assert lab.connections.per_host["127.0.0.2"].total == 1
    lab.clear()
    assert (lab.log, lab.connections.total, lab.connections.peak) == ([], 0, 0)


async def test_requests_are_found_by_path_and_pages_can_be_added(lab: LabServer) -> None:
    lab.add("/robots.txt", "User-agent: *\nDisallow: /x\n", host=2)
    assert (await ask(lab.url("/robots.txt", 1))).status == 404
    assert (await ask(lab.url("/robots.txt", 2))).body == b"User-agent: *\nDisallow: /x\n"
    assert (await ask(lab.url("/no/such/case"))).status == 404
    assert (await ask(lab.url("/status/418/below"))).status == 418
    assert (await ask(lab.url("/statusx"))).status == 404
    assert [entry.status for entry in lab.requests("/status")] == [418]
    assert (await ask(lab.url("/ok"), method="HEAD")).body == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\x16\x03\x01",
        b"POST /echo HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_client_that_speaks_no_http_is_told_so(lab: LabServer, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(sent)
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_nothing_is_left_when_the_lab_closes() -> None:
    async with LabServer(tls=True) as lab:
        tasks = [asyncio.create_task(ask(lab.url(path))) for path in ("/silent", "/drip", "/big?mb=1000")]
        await lab.until(lambda: len(lab.log) == 3)
        idle = await connect(lab.url("/"))
        mute = await connect(lab.https("/"))
        await lab.until(lambda: lab.connections.open == 5)
        ca = lab.ca
    assert lab.connections.open == 0
    assert all(entry.t_end is not None for entry in lab.log)
    assert not ca.exists()
    for task in tasks:
        await task
    for sock in (idle, mute):
        with sock:
            assert await asyncio.get_running_loop().sock_recv(sock, 10) == b""
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(ConnectionRefusedError):
        await connect(lab.url("/"))


async def test_a_bug_in_a_case_is_raised_at_the_end() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with LabServer() as lab:
            assert (await ask(lab.url("/ok?size=large"))).raw == b""
    assert caught.group_contains(ValueError, match="large")


async def test_an_exchange_ends_when_patience_does() -> None:
    async with LabServer(patience=0.01) as lab:
        assert (await ask(lab.url("/silent"))).raw == b""


async def test_tls_holds_or_fails_as_it_was_asked_to() -> None:
    async with LabServer(tls=True) as lab:
        trusting = ssl.create_default_context(cafile=lab.ca)
        reasons = {}
        for name, port in lab.tls_ports.items():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.2", port, ssl=trusting)
            except ssl.SSLCertVerificationError as error:
                reasons[name] = error.verify_message
                continue
            assert lab.https("/ok", 2, name) == f"https://127.0.0.2:{port}/ok"
            writer.write(request(lab.https("/ok", 2, name), "Connection: close"))
            assert (await reader.read()).endswith(ok_page().encode())
            writer.close()
            await writer.wait_closed()
        assert set(reasons) == {"wrong_host", "expired", "unknown_ca"}
        assert "expired" in reasons["expired"]
        assert "mismatch" in reasons["wrong_host"]
        assert [(entry.tls, entry.host, entry.path) for entry in lab.log] == [(True, "127.0.0.2", "/ok")]
        assert lab.connections.total == 4
    with pytest.raises(RuntimeError):
        _ = LabServer().ca


def test_a_lab_in_a_thread_serves_blocking_clients() -> None:
    before = set(threading.enumerate())
    with LabServer.in_thread(hosts=2) as lab:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(lab.url("/hops/3?hosts=2"), timeout=30) as answer:
            assert answer.read().decode() == ok_page()
        assert [entry.host[-1] for entry in lab.log] == ["1", "2", "1", "2"]
        assert lab.site.stats.wait(lambda: lab.connections.open == 0, timeout=30)
    assert not set(threading.enumerate()) - before
    with pytest.raises(ExceptionGroup), LabServer.in_thread() as lab, pytest.raises(OSError):
        opener.open(lab.url("/status/none"), timeout=30)


async def test_a_refused_port_refuses() -> None:
    with refused_port(2) as port, pytest.raises(ConnectionRefusedError):
        await connect(f"http://127.0.0.2:{port}/")


async def test_a_silent_port_accepts_and_says_nothing() -> None:
    with silent_port() as port, await connect(f"http://127.0.0.1:{port}/") as sock:
        await asyncio.get_running_loop().sock_sendall(sock, b"anybody?")
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_connecting_to_a_black_hole_hangs() -> None:
    with black_hole() as port:
        for _ in range(3):
            with socket.socket() as sock:
                sock.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    sock.connect(("127.0.0.1", port))
