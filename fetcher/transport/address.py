"""Owns which addresses may be reached, judged on the very address a socket is about to connect to.

Law 7: the web's bytes are never trusted, not as an address. A name, a redirect or an odd spelling says nothing;
what counts is the number handed to ``connect``. The tables are our own, for ``ipaddress.is_global`` calls NAT64,
6to4, multicast and ``::127.0.0.1`` global. What cannot be read or is not known to be public is private.

Law 9: judging is synchronous and pure; the one thing made here is the socket itself.
"""

from __future__ import annotations

import errno
import functools
import re
import socket
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network
from typing import Any, Literal, TypeAlias

__all__ = [
    "AddrInfo",
    "AddressClass",
    "BlockedAddress",
    "blocked_address",
    "classify",
    "embedded_ipv4",
    "literal",
    "socket_guard",
]

AddressClass = Literal["public", "private", "metadata"]

AddrInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, type, protocol, canonical name and socket address, as ``socket.getaddrinfo`` gives them."""

_Table: TypeAlias = tuple[tuple[int, int], ...]


def _table(*networks: str) -> _Table:
    """Return the networks as pairs of number and mask."""
    parsed = [ip_network(network) for network in networks]
    return tuple((int(network.network_address), int(network.netmask)) for network in parsed)


_METADATA_V4 = _table("169.254.0.0/16")
_METADATA_V6 = _table("fd00:ec2::254/128")

_PRIVATE_V4 = _table(
    "0.0.0.0/8",  # this network (RFC 791); 0.0.0.0 connects to the machine itself
    "10.0.0.0/8",  # private use (RFC 1918)
    "100.64.0.0/10",  # shared by carriers (RFC 6598)
    "127.0.0.0/8",  # loopback (RFC 1122)
    "168.63.129.16/32",  # a public number at which each Azure machine finds its own platform
    "169.254.0.0/16",  # link-local (RFC 3927)
    "172.16.0.0/12",  # private use (RFC 1918)
    "192.0.0.0/24",  # protocol assignments (RFC 6890)
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.88.99.0/24",  # 6to4 relays, withdrawn (RFC 7526)
    "192.168.0.0/16",  # private use (RFC 1918)
    "198.18.0.0/15",  # benchmarks (RFC 2544)
    "198.51.100.0/24",  # documentation (RFC 5737)
    "203.0.113.0/24",  # documentation (RFC 5737)
    "224.0.0.0/4",  # multicast (RFC 5771)
    "240.0.0.0/4",  # reserved, broadcast (RFC 1112)
)

_GLOBAL_V6 = _table("2000::/3")  # all that was ever given out for hosts of the Internet (RFC 4291)
_PRIVATE_V6 = _table(  # the exceptions in it
    "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID (RFC 2928)
    "2001:db8::/32",  # documentation (RFC 3849)
    "2002::/16",  # 6to4 (RFC 3056)
    "3fff::/20",  # documentation (RFC 9637)
)

_CARRIERS = _table("::ffff:0:0/96", "64:ff9b::/96")  # through these a host does reach the public Internet over IPv4
_DEPRECATED = _table("::/96", "::ffff:0:0:0/96")  # IPv4-compatible (RFC 4291) and IPv4-translated (RFC 2765)
_LOCAL_NAT64 = _table("64:ff9b:1::/48")  # RFC 8215
_SIX_TO_FOUR = _table("2002::/16")
_TEREDO = _table("2001::/32")
_WORD = 0xFFFFFFFF
_UNUSED_48 = (0xFF << 56) | ((1 << 40) - 1)
"""The bits an RFC 6052 address behind a /48 leaves zero: the octet at bit 64, and all from bit 88."""


def _within(number: int, table: _Table) -> bool:
    return any(number & mask == network for network, mask in table)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv6Address(address) if ":" in address else IPv4Address(address)
    except AddressValueError:
        return None


def embedded_ipv4(number: int, prefix: int) -> int:
    """Return the IPv4 address that stands behind the first ``prefix`` bits of an IPv6 address, both as numbers.

    ``prefix`` is one of 32, 40, 48, 56, 64 and 96; the octet at bit 64 is skipped (RFC 6052, 2.2).
    """
    if prefix == 96:
        return number & _WORD
    joined = (number >> 64 << 56) | (number & ((1 << 56) - 1))
    return joined >> (88 - prefix) & _WORD


def _embedded_in(number: int) -> Iterator[int]:
    """Yield each IPv4 address that somebody on the way may read out of an IPv6 address."""
    if _within(number, _CARRIERS) or _within(number, _DEPRECATED):
        yield number & _WORD
    elif _within(number, _LOCAL_NAT64):
        for prefix in (48, 56, 64, 96):
            yield embedded_ipv4(number, prefix)
    elif _within(number, _SIX_TO_FOUR):
        yield number >> 80 & _WORD
    elif _within(number, _TEREDO):
        yield number >> 64 & _WORD  # the server (RFC 4380, 4)
        yield ~number & _WORD  # the client, its bits turned
    elif number >> 32 & 0xFDFFFFFF == 0x5EFE:  # ISATAP (RFC 5214, 6.1)
        yield number & _WORD


def _judge_v4(number: int) -> AddressClass:
    if _within(number, _METADATA_V4):
        return "metadata"
    return "private" if _within(number, _PRIVATE_V4) else "public"


def _judge_v6(number: int) -> AddressClass:
    if _within(number, _METADATA_V6):
        return "metadata"
    inside = {_judge_v4(found) for found in _embedded_in(number)}
    if "metadata" in inside:
        return "metadata"
    if _within(number, _CARRIERS):
        public = "private" not in inside
    elif _within(number, _LOCAL_NAT64):
        # Only its own length is believed: a translator ignores the unused bits, so that with them set the
        # same address would be read as another one by another length.
        public = not number & _UNUSED_48 and _judge_v4(embedded_ipv4(number, 48)) == "public"
    else:
        public = "private" not in inside and _within(number, _GLOBAL_V6) and not _within(number, _PRIVATE_V6)
    return "public" if public else "private"


@functools.lru_cache(maxsize=16_384)
def classify(address: str) -> AddressClass:
    """Return who can be behind the text of an IP address, such as ``10.0.0.1`` or ``fe80::1%eth0``.

    ``metadata`` is where clouds hand out credentials: 169.254.0.0/16 and fd00:ec2::254. An address that embeds
    an IPv4 address is no more public than that one. What is no IP address is ``private``.

    >>> classify("93.184.216.34"), classify("::ffff:10.0.0.1"), classify("64:ff9b::a9fe:a9fe")
    ('public', 'private', 'metadata')
    """
    parsed = _parse(address)
    if parsed is None:
        return "private"
    return _judge_v4(int(parsed)) if isinstance(parsed, IPv4Address) else _judge_v6(int(parsed))


def literal(host: str) -> str | None:
    """Return the IP address a URL's host spells, without brackets and in canonical text, or ``None`` for a name.

    The host is one that a WHATWG parser has been over, so that ``0x7f.1`` is ``127.0.0.1`` already.
    """
    # By the WHATWG URL Standard a host whose last label is a number is an IPv4 address; names pass at no cost.
    if not host or (host[-1] not in "]0123456789" and ":" not in host):
        return None
    return _canonical(host)


@functools.lru_cache(maxsize=4_096)
def _canonical(host: str) -> str | None:
    inner = host[1:-1] if host[0] == "[" and host[-1] == "]" and ":" in host else host
    parsed = _parse(inner)
    return None if parsed is None else str(parsed)


_WORDS: dict[AddressClass, str] = {"public": "public", "private": "private", "metadata": "cloud metadata"}
_REFUSAL = "which may not be reached (--private-network allow permits it)"


class BlockedAddress(OSError):  # noqa: N818 - named by what it says, like every error of the package
    """The policy refuses the address a socket was to connect to; nothing was sent.

    ``address`` is its text, ``kind`` its class. An ``OSError``, for that is what a connector passes over to the
    host's next address.
    """

    def __init__(self, address: str, kind: AddressClass = "private") -> None:
        super().__init__(errno.EACCES, f"{address} is a {_WORDS[kind]} address, {_REFUSAL}")
        self.address = address
        self.kind: AddressClass = kind

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[type[BlockedAddress], tuple[str, AddressClass]]:
        return type(self), (self.address, self.kind)


def socket_guard(
    allowed: frozenset[AddressClass], on_socket: Callable[[str], None] | None = None
) -> Callable[[AddrInfo], socket.socket]:
    """Return a socket factory for ``aiohttp.TCPConnector`` that judges where each socket is about to connect.

    The factory raises ``BlockedAddress`` for a class that is not in ``allowed``; the connector then tries the
    host's next address. ``on_socket`` is told the address of each socket that was made. Whatever is no IP
    address is refused even where ``private`` is allowed, for ``connect`` would look the name up once more.
    """

    def make(info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, target = info
        address = str(target[0])
        verdict = classify(address)
        if verdict not in allowed or (verdict != "public" and _parse(address) is None):
            raise BlockedAddress(address, verdict)
        made = socket.socket(family=family, type=kind, proto=protocol)
        if on_socket is not None:
            try:
                on_socket(address)
            except BaseException:
                made.close()
                raise
        return made

    return make


_ONE = rf"(\S+) is a ({'|'.join(_WORDS.values())}) address, {re.escape(_REFUSAL)}"
_SEVERAL = re.compile(rf"Multiple exceptions: {_ONE}(?:, {_ONE})*")


def blocked_address(error: BaseException) -> BlockedAddress | None:
    """Return the refusal behind an error of the connector, or ``None`` where something else went wrong.

    A host of several addresses counts as refused when each of them was; where one was tried and failed, that
    failure is the news. Looks through causes, contexts, ``os_error``, groups and arguments.
    """
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        found = pending.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, BlockedAddress):
            return found
        # aiohappyeyeballs makes one OSError of several, of which nothing but the text is left.
        if isinstance(found, OSError) and (match := _SEVERAL.fullmatch(str(found.strerror or found))):
            return BlockedAddress(match[1], next(kind for kind, words in _WORDS.items() if words == match[2]))
        pending += _behind(found)
    return None


def _behind(error: BaseException) -> Iterator[BaseException]:
    yield from (item for item in error.args if isinstance(item, BaseException))
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions
    linked = error.__cause__ if error.__suppress_context__ else error.__cause__ or error.__context__
    for item in (linked, getattr(error, "os_error", None)):
        if isinstance(item, BaseException):
            yield item
