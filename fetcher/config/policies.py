"""The policies a ``Config`` is made of, each a frozen value with the polite defaults."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from fetcher import __version__
from fetcher.config.options import ClientCertificate, Header, bypasses
from fetcher.model import CONTENT_COLUMNS
from fetcher.urls import without_userinfo

__all__ = [
    "Accept",
    "AddressPolicy",
    "Content",
    "ContentPart",
    "Follow",
    "HostPolicy",
    "Identity",
    "Limits",
    "Parsing",
    "PrivateNetwork",
    "ProxyPolicy",
    "RetryPolicy",
    "TLSPolicy",
    "TLSProfile",
    "TextFormat",
    "TextMethod",
    "Timeouts",
    "Within",
    "product_token",
]

MIB = 1024 * 1024
_COMPATIBLE = re.compile(r"\(compatible;\s*([A-Za-z_-]+)")
_TOKEN = re.compile(r"[A-Za-z_-]+")

PrivateNetwork = Literal["allow", "listed", "deny"]
TLSProfile = Literal["default", "compatible"]
ContentPart = Literal["meta", "jsonld", "microdata", "rdfa", "links", "images", "text", "lang"]
TextMethod = Literal["body", "fast", "best"]
TextFormat = Literal["plain", "markdown"]
Within = Literal["host", "site", "prefix"]


class Limits(msgspec.Struct, frozen=True):
    """What one run may use at once. Sizes in bytes, times in seconds, ``rate`` in requests per second.

    ``per_site`` counts the hosts of one registrable domain together, ``per_address`` those behind one address.
    """

    concurrency: int = 100
    per_host: int = 6
    delay: float = 0.0
    rate: float | None = None
    per_site: int | None = None
    per_address: int | None = None
    max_crawl_delay: float = 30.0
    max_redirects: int = 10
    max_size: int = 10 * MIB
    truncate: bool = False
    memory: int = 256 * MIB
    lookahead: int = 10_000
    rows: int | None = None
    time: float | None = None

    @property
    def window(self) -> int:
        """Rows admitted whose outcome has not been read: ten times the concurrency, at least 1,000."""
        return max(1_000, 10 * self.concurrency)


class HostPolicy(msgspec.Struct, frozen=True):
    """What holds for one host or domain instead of what holds for all; ``None`` is no exception."""

    per_host: int | None = None
    delay: float | None = None
    max_crawl_delay: float | None = None
    max_retry_after: float | None = None
    host_patience: float | None = None


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds for one exchange with waits excluded, to connect (DNS and TLS in it), between two reads."""

    total: float = 30.0
    connect: float = 10.0
    read: float = 15.0


class Accept(msgspec.Struct, frozen=True):
    """Which status codes are pages: inclusive ranges."""

    ranges: tuple[tuple[int, int], ...] = ((200, 299),)

    def __contains__(self, status: int) -> bool:
        return any(low <= status <= high for low, high in self.ranges)


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often a row is tried again, and how long a host may keep us waiting.

    Backoff is exponential with jitter: after the nth failed attempt a random time between half of ``backoff``
    and ``backoff`` times 2 to the power of n - 1, at most ``max_backoff``. A ``Retry-After`` above
    ``max_retry_after``, or ``host_patience`` seconds without one success, ends a host's rows as ``host_budget``.
    ``retry_on`` are the statuses that are tried again, by default those of ``FetchError.retryable``.
    """

    retries: int = 2
    backoff: float = 0.5
    max_backoff: float = 30.0
    max_retry_after: float = 300.0
    host_patience: float = 60.0
    retry_on: Accept | None = None


class AddressPolicy(msgspec.Struct, frozen=True):
    """Which private addresses may be reached: all, those the list itself names, or none."""

    private_network: PrivateNetwork = "listed"


def product_token(user_agent: str) -> str:
    """Return the token a robots.txt names us by (2.2.1): ``fetcher`` of ``fetcher/1.0 (+…)``, or ``""``.

    Of ``Mozilla/5.0 (compatible; SomeBot/1.0)`` it is ``SomeBot``; no other product stands for somebody else.
    """
    text = user_agent.lstrip()
    if text[:8].lower() == "mozilla/" and (compatible := _COMPATIBLE.search(text)) is not None:
        return compatible[1]
    match = _TOKEN.match(text)
    return match[0] if match is not None else ""


class Identity(msgspec.Struct, frozen=True):
    """Who we say we are, and the secrets that go to one host each.

    ``headers`` without a host go to every listed URL; those with one, and the cookies of ``cookie_files``
    (Netscape format), to their own host alone.
    """

    user_agent: str = f"fetcher/{__version__} (+Python package fetcher-crawl)"
    headers: tuple[Header, ...] = ()
    cookie_files: tuple[str, ...] = ()

    @property
    def product_token(self) -> str:
        """The name that robots.txt files and pages know us by, of the User-Agent that is sent to all."""
        given = [each.value for each in self.headers if each.host is None and each.name.lower() == "user-agent"]
        return product_token(given[-1] if given else self.user_agent)


class ProxyPolicy(msgspec.Struct, frozen=True):
    """Which proxy stands before a host: ``every`` for all, else one for each scheme; ``bypass`` hosts need none.

    A bypass is a host or domain suffix (``example.com`` covers its subdomains), with a port where wanted, a
    network (``10.0.0.0/8``), or ``*``.
    """

    every: str | None = None
    http: str | None = None
    https: str | None = None
    bypass: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = {
            name: without_userinfo(value) if isinstance(value, str) else value
            for name, value in msgspec.structs.asdict(self).items()
        }
        return f"ProxyPolicy({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __bool__(self) -> bool:
        return bool(self.every or self.http or self.https)

    def before(self, scheme: str, host: str, port: int) -> str | None:
        """Return the proxy for an origin, or ``None`` to go there directly."""
        proxy = self.every or (self.https if scheme == "https" else self.http)
        if proxy is None or any(bypasses(rule, host, port) for rule in self.bypass):
            return None
        return proxy


class TLSPolicy(msgspec.Struct, frozen=True):
    """Whether certificates are verified, and against which authorities (a PEM file, else the system's).

    ``profile`` is ``default`` (OpenSSL's), or ``compatible``: as wide as browsers' for old servers, TLS 1.2 at least.
    ``certificates`` are our own, each for one host, with their key in the file ``key``, or else in their own.
    """

    verify: bool = True
    ca_bundle: str | None = None
    profile: TLSProfile = "default"
    certificates: tuple[ClientCertificate, ...] = ()
    key: str | None = None


class Parsing(msgspec.Struct, frozen=True):
    """Where bodies are parsed: here, or in processes of their own with a time limit in seconds.

    Large and suspicious pages always go to a process of their own; ``isolate`` sends the extractor there too, and
    ``parsers`` moves all parsing out to that many processes.
    """

    isolate: bool = False
    parsers: int | None = None
    timeout: float = 5.0


class Content(msgspec.Struct, frozen=True):
    """What is read out of every page into columns of its own, beside what is selected.

    ``parts`` are named once each. ``text`` is how its text is found, which asks for that part too: all that a person
    sees (``body``), or the main content alone, by a fast library or by the best.
    """

    parts: tuple[ContentPart, ...] = ()
    text: TextMethod | None = None
    text_format: TextFormat = "plain"

    @property
    def asked(self) -> tuple[str, ...]:
        """The parts that are asked for, in the order of their columns."""
        return tuple(part for part in CONTENT_COLUMNS if part in self.parts or (part == "text" and self.text))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a record that it fills, in their order."""
        return tuple(CONTENT_COLUMNS[part] for part in self.asked)

    @property
    def method(self) -> TextMethod | None:
        """How the text is found; ``None`` where none is asked for."""
        return self.text or ("body" if "text" in self.parts else None)

    @property
    def parses_again(self) -> bool:
        """Whether a library is asked for that parses each page once more, which takes longer than all else."""
        return self.method in ("fast", "best") or "microdata" in self.parts or "rdfa" in self.parts


class Follow(msgspec.Struct, frozen=True):
    """Which links of pages become rows: those of ``a`` and ``area``, or of what ``css`` matches.

    ``depth`` is how many links a row may be away from the list, ``None`` for as many as there are. ``within`` says
    where they may lead: to the ``host`` of the list's row, to its ``site`` (the registrable domain), or to what lies
    below the folder of its URL (``prefix``). ``include`` and ``exclude`` are globs for the whole URL, or regular
    expressions behind ``re:``: one of the first must match where there are any, and none of the second. ``max_pages``
    is how many rows there may be with those of the list, and ``max_pages_per_host`` the same of one host; rows of the
    list are fetched whatever these say.
    """

    links: bool = False
    css: str | None = None
    depth: int | None = None
    within: Within = "host"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_pages: int = 10_000
    max_pages_per_host: int | None = None

    @property
    def asked(self) -> bool:
        """Whether any links are followed."""
        return self.links or self.css is not None
