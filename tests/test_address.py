"""Which addresses may be reached: the tables, the spellings, and real sockets behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import pickle
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import ada_url
import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.transport.address import (
    AddressClass,
    BlockedAddress,
    blocked_address,
    classify,
    embedded_ipv4,
    literal,
    socket_guard,
)
from fetcher.transport.resolver import Resolver
from tests.lab.suites import suite

PUBLIC: frozenset[AddressClass] = frozenset({"public"})
PRIVATE: frozenset[AddressClass] = frozenset({"private"})
EVERY: frozenset[AddressClass] = frozenset({"public", "private", "metadata"})
LINK_LOCAL = ip_network("169.254.0.0/16")
CARRIERS = [ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48")]


def never_asked(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
    raise AssertionError(f"{host} was looked up")


def load(name: str) -> Any:
    return json.loads((suite("internal-addresses") / name).read_text("utf-8"))


# The third-party tables


async def test_no_internal_spelling_is_public() -> None:
    resolver = Resolver(never_asked)
    wrong = []
    for spelling in load("spellings.json")["internal"]:
        try:
            host = ada_url.URL(f"http://{spelling}/").hostname
        except ValueError:
            continue
        address = literal(host)
        if address is not None:
            verdicts = {classify(address)}
        else:
            verdicts = {classify(found["host"]) for found in await resolver.resolve(host, 80, socket.AF_UNSPEC)}
        if not verdicts or "public" in verdicts:
            wrong.append((spelling, host, verdicts))
    await resolver.close()
    assert wrong == []


def test_public_literals_are_public() -> None:
    wrong, seen = [], 0
    for spelling in load("spellings.json")["public"]:
        address = literal(ada_url.URL(f"http://{spelling}/").hostname)
        if address is not None:
            seen += 1
            if classify(address) != "public":
                wrong.append(spelling)
    assert wrong == []
    assert seen > 5


def test_every_denied_network_is_private_in_every_clothing() -> None:
    wrong = []
    for row in load("deny-networks.json"):
        if "net" not in row:
            continue
        network = ip_network(row["net"])
        addresses = [network[0], network[-1]]
        if "embedding" not in row["why"]:  # there, the vectors say, what is inside a whole network decides
            addresses.append(network[network.num_addresses // 2])
        for address in addresses:
            forms = [str(address)]
            if isinstance(address, IPv4Address):
                forms += [f"{front}{address}" for front in ("::", "::ffff:", "::ffff:0:", "64:ff9b::")]
                forms.append(behind_48(address))
            expected: AddressClass = "metadata" if address in LINK_LOCAL else "private"
            wrong += [form for form in forms if classify(form) != expected]
    assert wrong == []


def behind_48(address: IPv4Address) -> str:
    """Return the RFC 6052 form of an IPv4 address behind 64:ff9b:1::/48."""
    number = int(address)
    front = int(IPv6Address("64:ff9b:1::"))
    return str(IPv6Address(front | number >> 16 << 64 | (number & 0xFFFF) << 40))


def test_nat64_vectors() -> None:
    wrong = []
    for row in load("nat64-vectors.json"):
        if "prefix" in row:
            found = embedded_ipv4(int(IPv6Address(row["ip"])), row["prefix"])
            if found != int(IPv4Address(row["embeds"])):
                wrong.append(row)
        if (classify(row["ip"]) != "public") != row.get("deny", True):
            wrong.append(row)
    assert wrong == []


# Classes


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:fffe::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "2001:0:808:808:0:0:5601:5601",
        "2606:4700::5efe:a9fe:a9fe",
    ],
)
def test_metadata_however_embedded(address: str) -> None:
    assert classify(address) == "metadata"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "example.com",
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "8.8.8.8%eth0",
        "[2606:4700::1111]",
        "8.8.8.8 ",
        "1.2.3.4.5",
        "٨.٨.٨.٨",
        "fe80::1%eth0",
        "2606:4700::1%",
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",
        "2002:808:808::1",
        "2001:0:808:808::1",
        "64:ff9b:1:808:8:800::1",
        "64:ff9b:1:a00:0:100:808:808",
        "64:ff9b:1::808:808",
        "64:ff9b:2::808:808",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:192.168.0.1",
        "fd00:ec2::253",
        "fec0::1",
        "ff02::1",
        "3fff::1",
        "4000::1",
        "168.63.129.16",
        "192.88.99.1",
    ],
)
def test_what_is_not_known_to_be_public_is_private(address: str) -> None:
    assert classify(address) == "private"


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2001:4860:4860::8888",
        "2606:4700::1111%2",
        "2606:4700::5efe:8.8.8.8",
        "2001:200::1",
        "9.255.255.255",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "223.255.255.255",
    ],
)
def test_public(address: str) -> None:
    assert classify(address) == "public"


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_never_more_public_than_the_registry_says(address: IPv4Address) -> None:
    verdict = classify(str(address))
    assert verdict != "public" or address.is_global
    assert classify(f"::ffff:{address}") == verdict
    assert classify(f"64:ff9b::{address}") == verdict
    if verdict != "public":
        assert classify(behind_48(address)) in {verdict, "metadata"}  # by another length it may read as metadata
    for front in ("::", "::ffff:0:"):
        assert classify(f"{front}{address}") == ("metadata" if verdict == "metadata" else "private")


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_never_more_public_than_the_registry_says(address: IPv6Address) -> None:
    if classify(str(address)) == "public" and not any(address in network for network in CARRIERS):
        assert address.is_global
        assert not address.is_multicast


@given(st.text(max_size=40))
def test_no_text_breaks_the_judge(text: str) -> None:
    assert classify(text) in EVERY
    found = literal(text)
    assert found is None or literal(found) == found


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("::1", "::1"),
        ("[2606:4700::1111]", "2606:4700::1111"),
        ("example.com", None),
        ("host1", None),
        ("example.c0", None),
        ("[127.0.0.1]", None),
        ("[::1", None),
        ("[]", None),
        ("", None),
    ],
)
def test_literal(host: str, expected: str | None) -> None:
    assert literal(host) == expected


# The guard, without a loop


def info(address: str, port: int = 80) -> tuple[int, int, int, str, tuple[Any, ...]]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


def test_the_guard_makes_a_socket_and_tells_of_it() -> None:
    told: list[str] = []
    with socket_guard(PUBLIC, told.append)(info("8.8.8.8")) as made:
        assert made.family == socket.AF_INET
        assert made.type == socket.SOCK_STREAM
    assert told == ["8.8.8.8"]


@pytest.mark.parametrize("allowed", [PUBLIC, PRIVATE, EVERY])
def test_the_guard_refuses_a_name_whatever_is_allowed(allowed: frozenset[AddressClass]) -> None:
    with pytest.raises(BlockedAddress, match="localhost"):
        socket_guard(allowed)(info("localhost"))


def test_the_guard_leaks_no_socket_when_the_callback_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    plain = socket.socket

    def record(*args: Any, **kwargs: Any) -> socket.socket:
        made.append(plain(*args, **kwargs))
        return made[-1]

    def fail(address: str) -> None:
        raise KeyError(address)

    monkeypatch.setattr("fetcher.transport.address.socket.socket", record)
    with pytest.raises(KeyError):
        socket_guard(PUBLIC, fail)(info("8.8.8.8"))
    assert [one.fileno() for one in made] == [-1]


def test_a_refusal_names_the_address_and_the_way_out_and_pickles() -> None:
    error = BlockedAddress("169.254.169.254", "metadata")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(one, BlockedAddress)
        assert (one.address, one.kind, one.errno) == ("169.254.169.254", "metadata", errno.EACCES)
        assert "169.254.169.254 is a cloud metadata address" in str(one)
        assert "--private-network allow" in str(one)


def test_a_refusal_is_found_wherever_it_hides() -> None:
    refusal = BlockedAddress("10.0.0.1")
    caused = RuntimeError("later")
    caused.__cause__ = refusal
    in_context = RuntimeError("later")
    in_context.__context__ = refusal
    hidden = RuntimeError("later")
    hidden.__context__ = refusal
    hidden.__suppress_context__ = True
    loop = RuntimeError("a")
    loop.__context__ = OSError("b")
    loop.__context__.__context__ = loop
    for error in (refusal, caused, in_context, OSError(None, refusal), ExceptionGroup("two", [ValueError(), caused])):
        assert blocked_address(error) is refusal
    for other in (hidden, loop, OSError(errno.EACCES, "Permission denied"), OSError(f"Multiple exceptions: {caused}")):
        assert blocked_address(other) is None


# The guard in a real connector


class Site:
    """Answers every request with its number, and counts connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


@contextlib.asynccontextmanager
async def site(host: str = "127.0.0.1") -> AsyncIterator[Site]:
    one = Site()
    server = await asyncio.start_server(one.serve, host, 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


@pytest.fixture
async def server() -> AsyncIterator[Site]:
    async with site() as one:
        yield one


def at(*addresses: str) -> Callable[[str, int, int], list[tuple[Any, ...]]]:
    return lambda host, port, family: [info(address, port) for address in addresses]


@contextlib.asynccontextmanager
async def session(
    allowed: frozenset[AddressClass], *addresses: str, told: list[str] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    resolver = Resolver(at(*addresses) if addresses else never_asked)
    guard = socket_guard(allowed, told.append if told is not None else None)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=0, socket_factory=guard)
    async with aiohttp.ClientSession(connector=connector) as made:
        yield made
    await resolver.close()


async def refusal_of(client: aiohttp.ClientSession, url: str) -> BlockedAddress | None:
    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        await client.get(url)
    return blocked_address(caught.value)


async def test_a_name_that_leads_home_is_refused(server: Site) -> None:
    told: list[str] = []
    async with session(PUBLIC, "127.0.0.1", told=told) as client:
        refusal = await refusal_of(client, f"http://public.test:{server.port}/")
    assert refusal is not None
    assert refusal.address == "127.0.0.1"
    assert (server.connections, told) == (0, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "[::]", "0.0.0.0"])
async def test_a_literal_is_refused_without_a_look_up(server: Site, host: str) -> None:
    async with session(PUBLIC) as client:
        refusal = await refusal_of(client, f"http://{host}:{server.port}/")
    assert refusal is not None
    assert refusal.kind == "private"
    assert server.connections == 0


async def test_localhost_is_refused_by_name(server: Site) -> None:
    async with session(PUBLIC) as client:
        assert await refusal_of(client, f"http://a.localhost:{server.port}/") is not None
    assert server.connections == 0


async def test_https_is_judged_before_the_handshake(server: Site) -> None:
    async with session(PUBLIC, "127.0.0.1") as client:
        assert await refusal_of(client, f"https://public.test:{server.port}/") is not None
    assert server.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.0.0.1",),
        ("10.0.0.1", "192.168.0.1"),
        ("127.0.0.1", "::1"),
        ("fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2", "127.0.0.1"),
        ("169.254.169.254", "fd00:ec2::254"),
    ],
)
async def test_a_host_of_several_refused_addresses_is_refused(addresses: tuple[str, ...]) -> None:
    told: list[str] = []
    async with session(PUBLIC, *addresses, told=told) as client:
        refusal = await refusal_of(client, "http://public.test:9/")
    assert refusal is not None
    assert refusal.address in addresses
    assert refusal.kind == classify(refusal.address)
    assert told == []


@pytest.mark.parametrize(
    "addresses",
    [
        ("169.254.169.254", "127.0.0.1"),
        ("127.0.0.1", "169.254.169.254"),
        ("fd00:ec2::254", "169.254.169.254", "8.8.8.8", "127.0.0.1"),
    ],
)
async def test_of_several_addresses_only_the_allowed_is_used(server: Site, addresses: tuple[str, ...]) -> None:
    told: list[str] = []
    async with session(PRIVATE, *addresses, told=told) as client:
        async with client.get(f"http://mixed.test:{server.port}/") as answer:
            assert await answer.text() == "ok"
    assert told == ["127.0.0.1"]


async def test_where_one_address_was_tried_its_failure_is_the_news() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with session(PRIVATE, "fd00:ec2::254", "127.0.0.1") as client:
            assert await refusal_of(client, f"http://mixed.test:{closed.getsockname()[1]}/") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "home.test", "localhost"])
async def test_an_allowed_address_is_reached_over_one_connection(server: Site, host: str) -> None:
    told: list[str] = []
    async with session(PRIVATE, "127.0.0.1", told=told) as client:
        for _ in range(3):
            async with client.get(f"http://{host}:{server.port}/") as answer:
                assert await answer.text() == "ok"
    assert told == ["127.0.0.1"]
    assert (server.connections, server.requests) == (1, 3)


async def test_ipv6_is_reached_and_refused() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no ::1")
    async with site("::1") as server:
        url = f"http://[::1]:{server.port}/"
        async with session(PUBLIC) as client:
            assert await refusal_of(client, url) is not None
        assert server.connections == 0
        async with session(PRIVATE) as client, client.get(url) as answer:
            assert await answer.text() == "ok"
        async with session(PRIVATE) as client, client.get(f"http://localhost:{server.port}/") as answer:
            assert await answer.text() == "ok"
