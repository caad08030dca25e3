"""What the built-in site is: its settings, its addresses, its list of URLs, and what a crawl of it must report.

Everything here is a plain function of the settings, so the process that serves the site and the one that fetches from
it agree without exchanging anything else.
"""

from __future__ import annotations

import functools
import hashlib
import random
import socket
from typing import NamedTuple

import msgspec

from fetcher.demo.scenarios import Scenario, latency_factor
from fetcher.demo.shop import ShopPage, notice_page, shop_pages
from fetcher.errors import ConfigError

__all__ = [
    "BUSY",
    "GONE",
    "MOVED",
    "PARTNER",
    "ExpectedPage",
    "Site",
    "SiteRedirect",
    "addresses",
    "expected",
    "has_many_loopbacks",
    "latency_of",
    "page_at",
    "redirect_of",
    "urls",
]

GONE = "/coffee/discontinued"
"""The path that does not exist: 404."""
BUSY = "/workshops"
"""The path that answers 503 with Retry-After: 1 to each host's first, third, fifth … request, and else its page."""
MOVED = "/old-shop"
"""The path that redirects to another page of its host (301)."""
PARTNER = "/partner"
"""The path that redirects to a page of the next host (302)."""

_NOT_FOUND = notice_page("Not on the shelf", "We looked twice. Perhaps it was a limited edition.")
_UNAVAILABLE = notice_page("All hands are brewing", "Please come back in a second.")
_WORKSHOPS = notice_page("Workshops", "Setting type and pulling shots, every second Saturday.")
_FAILURES_WITHIN_ROWS = 40

MAX_HOSTS = 1_000
MAX_PAGES = 10_000
MAX_LATENCY_SECONDS = 3_600


class Site(msgspec.Struct, frozen=True):
    """The settings of a built-in site. The defaults are those of ``fetcher serve``.

    Each of the ``hosts`` has the same ``pages``. ``latency`` is the range, in seconds, from which a page's latency is
    drawn by ``seed``. With ``workers`` a host serves that many requests at once, and the others queue. ``robots`` is
    the text of every host's robots.txt (``None``: 404). With ``failures`` the list holds a 404, a 503 that recovers
    and two redirects. ``scenario`` is how some of the hosts or pages behave beyond that. ``port`` 0 lets the system
    choose. Each request adds a JSON line to the file ``log``, which is emptied first. Raises ``ConfigError``.
    """

    hosts: int = 10
    pages: int = 300
    seed: int = 1
    latency: tuple[float, float] = (0.02, 0.06)
    workers: int | None = None
    robots: str | None = None
    failures: bool = True
    compress: bool = True
    port: int = 0
    log: str | None = None
    scenario: Scenario = "latency"

    def __post_init__(self) -> None:
        low, high = self.latency
        if not 0 <= low <= high <= MAX_LATENCY_SECONDS:
            raise ConfigError(f"latency: {low:g} to {high:g} s is no range from 0 to {MAX_LATENCY_SECONDS} s")
        if not 1 <= self.hosts <= MAX_HOSTS:
            raise ConfigError(f"hosts: {self.hosts} is not from 1 to {MAX_HOSTS}")
        if not 1 <= self.pages <= MAX_PAGES:
            raise ConfigError(f"pages: {self.pages} is not from 1 to {MAX_PAGES} (a list can be longer than the shop)")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers: {self.workers} is below 1")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: {self.port} is not from 0 to 65535")


class ExpectedPage(NamedTuple):
    """What a crawl that follows redirects and retries must report; ``length`` in characters."""

    status: int
    length: int | None
    title: str | None
    links: int


class SiteRedirect(NamedTuple):
    """A redirect: its status, the path it leads to, and whether that is on the next host."""

    status: int
    path: str
    to_next_host: bool


@functools.cache
def has_many_loopbacks() -> bool:
    """Return whether the machine has all of 127.0.0.0/8 (Linux), and not 127.0.0.1 alone (macOS)."""
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

    Without ``n`` it is every page once, each on one host, and the failures, all of them among the first forty. A
    longer list repeats the pages on other hosts, then with the query ``?visit=2`` and so on.
    """
    origins = [f"http://{host}:{number}" for host, number in addresses(site.hosts, port)]
    paths = list(shop_pages(site.pages, site.seed))
    rng = random.Random(f"list {site.seed}")  # noqa: S311 - the order must come out the same again
    rng.shuffle(paths)
    failing = [GONE, BUSY, MOVED, PARTNER] if site.failures else []
    size = len(paths) + len(failing) if n is None else n
    listed: list[str] = []
    for lap in range(-(-size // len(paths))):
        query = f"?visit={lap // site.hosts + 1}" if lap >= site.hosts else ""
        lap_urls = [f"{origins[(place + lap) % site.hosts]}{path}{query}" for place, path in enumerate(paths)]
        rng.shuffle(lap_urls)
        listed += lap_urls
        if lap == 0:
            for path in failing:
                early = rng.randrange(min(_FAILURES_WITHIN_ROWS - len(failing), len(paths) + 1))
                listed.insert(early, rng.choice(origins) + path)
    return listed[:size]


def latency_of(site: Site, path: str, host: int = 0) -> float:
    """Return the latency of a path on the ``host`` of that number in seconds, drawn from the site's seed.

    A query changes nothing, and the host only where the scenario has slow ones.
    """
    low, high = site.latency
    draw = hashlib.blake2b(f"{site.seed} {_bare(path)}".encode(), digest_size=8).digest()
    return latency_factor(site.scenario, host) * (low + (high - low) * int.from_bytes(draw, "big") / 2**64)


def redirect_of(site: Site, path: str) -> SiteRedirect | None:
    """Return where a path redirects to, if it does."""
    if not site.failures:
        return None
    paths = list(shop_pages(site.pages, site.seed))
    redirects = {
        MOVED: SiteRedirect(301, paths[len(paths) // 2], to_next_host=False),
        PARTNER: SiteRedirect(302, paths[-1], to_next_host=True),
    }
    return redirects.get(_bare(path))


def page_at(site: Site, path: str, *, busy: bool = False) -> tuple[int, ShopPage]:
    """Return the status and the page of a path that does not redirect."""
    path = _bare(path)
    if path == BUSY and site.failures:
        return (503, _UNAVAILABLE) if busy else (200, _WORKSHOPS)
    page = shop_pages(site.pages, site.seed).get(path)
    return (404, _NOT_FOUND) if page is None else (200, page)


def expected(site: Site, path: str) -> ExpectedPage:
    """Return what a crawl must report of a path, robots.txt and images excluded.

    Redirects are followed, and ``BUSY`` has recovered. For a 404 it describes the body of the error page.
    """
    if redirect := redirect_of(site, path):
        path = redirect.path
    status, page = page_at(site, path)
    return ExpectedPage(status, len(page.text), page.title, page.links)


def _bare(path: str) -> str:
    return path.partition("#")[0].partition("?")[0]
