"""What the built-in site is: its settings, its addresses, its list of URLs, and what a crawl of it must report.

Everything here is a plain function of the settings, so the process that serves the site and the one that
fetches from it agree without a word between them.
"""

from __future__ import annotations

import functools
import hashlib
import random
import socket
from typing import NamedTuple

import msgspec

from fetcher.bench.scenarios import Scenario, pace
from fetcher.bench.shop import Document, notice, stock
from fetcher.errors import ConfigError

__all__ = [
    "BUSY",
    "GONE",
    "MOVED",
    "PARTNER",
    "Expected",
    "Hop",
    "Site",
    "addresses",
    "brewing",
    "document_at",
    "expected",
    "has_many_loopbacks",
    "redirect_of",
    "urls",
]

GONE = "/coffee/discontinued"
"""The path that is not there: 404."""
BUSY = "/workshops"
"""The path that answers 503 with Retry-After: 1 to each host's first, third, fifth … request, else its page."""
MOVED = "/old-shop"
"""The path that redirects to another page of its host (301)."""
PARTNER = "/partner"
"""The path that redirects to a page of the next host (302)."""

_NOT_FOUND = notice("Not on the shelf", "We looked twice. Perhaps it was a limited edition.")
_SORRY = notice("All hands are brewing", "Please come back in a second.")
_WORKSHOPS = notice("Workshops", "Setting type and pulling shots, every second Saturday.")
_EARLY = 40


class Site(msgspec.Struct, frozen=True):
    """The settings of a built-in site. ``Site()`` is the bench's.

    ``pages`` are the same on each of the ``hosts``. ``latency`` is the range of the seconds a page takes to
    brew, drawn by ``seed``. With ``baristas`` a host serves that many requests at once and the others queue.
    ``robots`` is the text of every host's robots.txt (``None``: 404). With ``failures`` the list holds a 404,
    a 503 that recovers and two redirects. ``scenario`` is how some of its hosts or pages behave beyond that.
    ``port`` 0 lets the system choose. Each request adds a JSON line to the file ``log``, which is written anew.
    Raises ``ConfigError``.
    """

    hosts: int = 10
    pages: int = 300
    seed: int = 1
    latency: tuple[float, float] = (0.02, 0.06)
    baristas: int | None = None
    robots: str | None = None
    failures: bool = True
    compress: bool = True
    port: int = 0
    log: str | None = None
    scenario: Scenario = "latency"

    def __post_init__(self) -> None:
        low, high = self.latency
        if not 0 <= low <= high <= 3600:
            raise ConfigError(f"latency: {low:g} to {high:g} s is no range from 0 to 3600 s")
        if not 1 <= self.hosts <= 1_000:
            raise ConfigError(f"hosts: {self.hosts} is not from 1 to 1000")
        if not 1 <= self.pages <= 10_000:
            raise ConfigError(f"pages: {self.pages} is not from 1 to 10000 (a list can be longer than the shop)")
        if self.baristas is not None and self.baristas < 1:
            raise ConfigError(f"baristas: {self.baristas} is below 1")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: {self.port} is not from 0 to 65535")


class Expected(NamedTuple):
    """What a crawl that follows redirects and tries again reports; ``length`` in characters."""

    status: int
    length: int | None
    title: str | None
    links: int


class Hop(NamedTuple):
    """A redirect: its status, the path it leads to, and whether that is on the next host."""

    status: int
    path: str
    elsewhere: bool


@functools.cache
def has_many_loopbacks() -> bool:
    """Return whether the machine answers on all of 127.0.0.0/8 (Linux), and not on 127.0.0.1 alone (macOS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.2", 0))
        except OSError:
            return False
    return True


def addresses(hosts: int, port: int, *, many: bool | None = None) -> list[tuple[str, int]]:
    """Return address and port of each host: 127.0.0.1, 127.0.0.2 … on one port.

    Without ``many`` loopback addresses (by default, what the machine has) it is 127.0.0.1 on the ports from
    ``port`` on.
    """
    if has_many_loopbacks() if many is None else many:
        return [(f"127.0.{number // 254}.{number % 254 + 1}", port) for number in range(hosts)]
    return [("127.0.0.1", port + number) for number in range(hosts)]


def urls(site: Site, port: int, n: int | None = None) -> list[str]:
    """List ``n`` URLs of the site listening on ``port``: the first n of one seeded order over all hosts.

    Without ``n`` it is every page once, each on one host, and the failures, all of them among the first
    forty. A longer list goes round the shop again: the same pages on other hosts, then as ``?visit=2``.
    """
    origins = [f"http://{host}:{number}" for host, number in addresses(site.hosts, port)]
    paths = list(stock(site.pages, site.seed))
    rng = random.Random(f"list {site.seed}")  # noqa: S311 - the order must come out the same again
    rng.shuffle(paths)
    failing = [GONE, BUSY, MOVED, PARTNER] if site.failures else []
    size = len(paths) + len(failing) if n is None else n
    listed: list[str] = []
    for turn in range(-(-size // len(paths))):
        lap = f"?visit={turn // site.hosts + 1}" if turn >= site.hosts else ""
        round_ = [f"{origins[(place + turn) % site.hosts]}{path}{lap}" for place, path in enumerate(paths)]
        rng.shuffle(round_)
        listed += round_
        if turn == 0:
            for path in failing:
                listed.insert(rng.randrange(min(_EARLY - len(failing), len(paths) + 1)), rng.choice(origins) + path)
    return listed[:size]


def brewing(site: Site, path: str, host: int = 0) -> float:
    """Return the seconds the path takes to brew on the ``host`` of that number, drawn from the site's seed.

    A query changes nothing, and the host only where the scenario has slow ones.
    """
    low, high = site.latency
    draw = hashlib.blake2b(f"{site.seed} {_bare(path)}".encode(), digest_size=8).digest()
    return pace(site.scenario, host) * (low + (high - low) * int.from_bytes(draw, "big") / 2**64)


def redirect_of(site: Site, path: str) -> Hop | None:
    """Return where a path redirects to, if it does."""
    if not site.failures:
        return None
    paths = list(stock(site.pages, site.seed))
    hops = {MOVED: Hop(301, paths[len(paths) // 2], elsewhere=False), PARTNER: Hop(302, paths[-1], elsewhere=True)}
    return hops.get(_bare(path))


def document_at(site: Site, path: str, *, busy: bool = False) -> tuple[int, Document]:
    """Return the status and the document of a path that does not redirect."""
    path = _bare(path)
    if path == BUSY and site.failures:
        return (503, _SORRY) if busy else (200, _WORKSHOPS)
    document = stock(site.pages, site.seed).get(path)
    return (404, _NOT_FOUND) if document is None else (200, document)


def expected(site: Site, path: str) -> Expected:
    """Return what a crawl must report of a path, robots.txt and images excluded.

    Redirects are followed and ``BUSY`` has recovered; of a 404, it is what its body holds.
    """
    if hop := redirect_of(site, path):
        path = hop.path
    status, document = document_at(site, path)
    return Expected(status, len(document.text), document.title, document.links)


def _bare(path: str) -> str:
    return path.partition("#")[0].partition("?")[0]
