"""What the built-in site puts on the wire, rendered, encoded and compressed before the first request comes."""

from __future__ import annotations

import functools
import gzip
import struct
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from fetcher.bench.blueprint import BUSY, GONE, MOVED, PARTNER, Site, brewing, document_at, redirect_of
from fetcher.bench.scenarios import RETRY_AFTER, Temper, pace
from fetcher.bench.shop import notice, stock

__all__ = ["Answer", "Answers", "accepted_codings"]

_TROUBLE = notice("Spilled", "Somebody is fetching a cloth. Please ask again.")


class Answer(msgspec.Struct, frozen=True):
    """A response made in advance: the body as it is and, where there is one, in a content coding.

    ``seconds`` is how long it brews. Of a ``reset`` nothing is sent: the connection is cut then.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    coding: str | None = None
    packed: bytes = b""
    reset: bool = False

    def for_client(self, accept_encoding: str) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body for a client with this Accept-Encoding."""
        if self.coding is None or self.coding not in accepted_codings(accept_encoding):
            return self.headers, self.body
        return {**self.headers, "Content-Encoding": self.coding}, self.packed


class Answers:
    """Every answer of the host ``number``; ``neighbour`` is the address and port of the one its partner page is on."""

    def __init__(self, site: Site, neighbour: tuple[str, int], number: int = 0) -> None:
        self._site = site
        self._pace = pace(site.scenario, number)
        self._temper = Temper(site.scenario, site.seed, number)
        self._kept = _shared(site)
        self._redirects = {path: answer for path in (MOVED, PARTNER) if (answer := _redirect(site, path, neighbour))}
        self._busy = False

    def choose(self, path: str, round_: str = "", now: float = 0.0) -> Answer:
        """Return the answer to a request for ``path`` that came at ``now`` (monotonic seconds).

        Asking changes what comes next, of ``BUSY`` and where the scenario says so; a new ``round_`` begins afresh.
        """
        answer = self._page(path)
        trouble = self._temper.meet(path, round_, now)
        if trouble is not None:
            return _refusal(trouble, answer.seconds * self._pace)
        if self._pace != 1:
            return msgspec.structs.replace(answer, seconds=answer.seconds * self._pace)
        return answer

    def _page(self, path: str) -> Answer:
        path = path.partition("?")[0]
        if path == BUSY and self._site.failures:
            self._busy = not self._busy
            return self._kept["busy"] if self._busy else self._kept[BUSY]
        answer = self._kept.get(path) or self._redirects.get(path)
        if answer is not None:
            return answer
        seconds = brewing(self._site, path)
        if path.startswith("/img/") and path.endswith(".png"):
            return Answer(200, {"Content-Type": "image/png"}, _pixel(), seconds)
        return msgspec.structs.replace(self._kept[GONE], seconds=seconds)


@functools.lru_cache(maxsize=1024)
def accepted_codings(accept_encoding: str) -> frozenset[str]:
    """Read an Accept-Encoding: the codings of a weight above zero (RFC 9110, 12.5.3; ``*`` is not looked at)."""
    found = set()
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        if weight.replace(" ", "").removeprefix("q=").rstrip("0.") or not weight:
            found.add(coding.strip().lower())
    return frozenset(found)


@functools.lru_cache(maxsize=1)
def _shared(site: Site) -> Mapping[str, Answer]:
    """Make what is the same on every host, once for all of them."""
    answers = {path: _answer(site, path) for path in (*stock(site.pages, site.seed), GONE, BUSY)}
    answers["busy"] = _answer(site, BUSY, busy=True)
    if site.robots is not None:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        answers["/robots.txt"] = Answer(200, headers, site.robots.encode(), brewing(site, "/robots.txt"))
    return MappingProxyType(answers)


def _answer(site: Site, path: str, *, busy: bool = False) -> Answer:
    status, document = document_at(site, path, busy=busy)
    headers = {"Content-Type": document.content_type}
    if status == 503:
        headers["Retry-After"] = "1"
    body, seconds = document.body, brewing(site, path)
    pack = _packers().get(document.coding) if site.compress and document.coding else None
    if pack is None:
        return Answer(status, headers, body, seconds)
    return Answer(status, {**headers, "Vary": "Accept-Encoding"}, body, seconds, document.coding, pack(body))


def _refusal(status: int, seconds: float) -> Answer:
    """Make the answer of a host in trouble: 429 comes at once, an error as late as the page would, 0 is a reset."""
    headers = {"Content-Type": _TROUBLE.content_type}
    if status == 429:
        return Answer(status, {**headers, "Retry-After": str(RETRY_AFTER)}, _TROUBLE.body, 0.0)
    return Answer(status, headers, _TROUBLE.body, seconds, reset=not status)


def _redirect(site: Site, path: str, neighbour: tuple[str, int]) -> Answer | None:
    hop = redirect_of(site, path)
    if hop is None:
        return None
    origin = f"http://{neighbour[0]}:{neighbour[1]}" if hop.elsewhere else ""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Location": origin + hop.path}
    return Answer(hop.status, headers, b"We have moved.\n", brewing(site, path))


@functools.cache
def _packers() -> dict[str, Callable[[bytes], bytes]]:
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": lambda body: gzip.compress(body, 6, mtime=0)}
    try:
        import brotli  # optional: without it those pages are sent as they are
    except ImportError:
        return packers
    packers["br"] = lambda body: bytes(brotli.compress(body, quality=5))
    return packers


@functools.cache
def _pixel() -> bytes:
    """Draw a PNG of one brown pixel (RFC 2083)."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\x4b\x36\x21")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
