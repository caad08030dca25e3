"""Lists that are on the network: one file, or the sitemaps of a site, each asked for when its turn comes.

No client is imported here: whoever wants such a list gives a ``FetchList``, and perhaps a ``ListStore`` that keeps what
was read. Laws: each row is handed out once, whatever a list does: a sitemap that lists itself, or others without end,
is bounded in depth and number, and each bound that is met is a bad row or an error, never a silence (1, 3). What keeps
a sitemap of an index from being read for now ends the run, but not before all others were read; what will not pass
costs a bad row that names it (2).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from fetcher.errors import FetchError, InvalidURL, RedirectError, SourceError, StatusError
from fetcher.model import Request
from fetcher.sources.lines import READ_BYTES, reason_of, unpacked
from fetcher.sources.rows import BadRow, Row, bad_row
from fetcher.sources.sitemap import MAX_BYTES, NO_NUMBER, Location, Sitemap, bounded, is_html, read_sitemap
from fetcher.urls import identity, join, parse, without_userinfo

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_ROWS",
    "MAX_SITEMAPS",
    "BrokenEntry",
    "DelayedEntry",
    "Entry",
    "FetchList",
    "ListBody",
    "ListStore",
    "NetworkLists",
    "read_network_list",
    "read_site",
    "read_sitemap_file",
]

MAX_DEPTH: Final = 5
"""Levels of indexes and sitemaps."""

MAX_SITEMAPS: Final = 50_000
"""Sitemaps of one INPUT."""

MAX_ROWS: Final = 100_000_000
"""Rows of one INPUT's sitemaps."""

MAX_ROBOTS_BYTES: Final = 1024 * 1024
"""Bytes of a robots.txt that are looked through."""

MAX_SITEMAP_URL: Final = 2_048
"""Characters of a sitemap's own URL (sitemaps.org)."""

_MAY_PASS: Final = frozenset({"robots_unreachable", "host_budget", "too_slow", "dns_not_found"})
"""Codes that another run may not meet, besides those that are worth another try at once."""

_SITE = re.compile(r"(?:https?://)?[^/?#]+/?", re.IGNORECASE)
_SITEMAP_LINE = re.compile(rb"\s*site-?map\s*:\s*(\S+)", re.IGNORECASE)


class ListBody(msgspec.Struct, frozen=True):
    """A list as it came: its ``body``, content codings undone, and the ``url`` it came from in the end.

    ``guarded`` says that it came from a public host, so that what it lists is no business of private ones.
    """

    url: str
    body: bytes
    guarded: bool = False


class FetchList(Protocol):
    """Fetches one list, blocking. Raises ``FetchError``, ``TooLarge`` where it is over ``MAX_BYTES``."""

    def __call__(self, url: str, /, *, robots: bool = True, guarded: bool = False) -> ListBody:
        """Return the list at ``url``. Without ``robots`` the robots.txt of its own origin is not asked whether it may be.

        ``guarded`` is as a ``Request``'s.
        """
        ...


class BrokenEntry(msgspec.Struct, frozen=True):
    """The last entry of a list that cannot be read, or not to its end."""

    message: str


class DelayedEntry(msgspec.Struct, frozen=True):
    """The only entry of a list that could not be had, and perhaps can be later."""

    message: str


L = TypeVar("L", bound=Location)

Entry: TypeAlias = Location | BrokenEntry | DelayedEntry
"""What a list on the network gives. Rows have no number yet."""


class ListStore(Protocol):
    """Keeps what was read. It is asked for the same lists in the same order each time."""

    def document(self, url: str, produce: Callable[[], Iterator[Entry]]) -> Iterator[Entry]:
        """Return the entries of the list at ``url``: what was kept, or what ``produce`` gives, once that is kept.

        Whatever ``produce`` raises is raised, and nothing of it is kept.
        """
        ...


class NetworkLists(msgspec.Struct, frozen=True):
    """How lists on the network are read."""

    fetch: FetchList
    kept: ListStore | None = None

    def document(self, url: str, produce: Callable[[], Iterator[Entry]]) -> Iterator[Entry]:
        """Return the entries of one list."""
        return produce() if self.kept is None else self.kept.document(without_userinfo(url), produce)


def read_network_list(
    url: str, network: NetworkLists, parse_list: Callable[[Iterator[bytes], str], Iterator[Row]]
) -> Iterator[Row]:
    """Yield the rows of the list at ``url``, which ``parse_list`` makes of its unpacked bytes and its name.

    Raises ``SourceError``.
    """
    name = without_userinfo(url)

    def produce() -> Iterator[Entry]:
        answer = _asked(network, url, name)
        if is_html(answer.body):
            raise SourceError(f"{name}: is an HTML page, and no list (without --from it is fetched as a page)")
        blocks = bounded(unpacked(_blocks_of(answer.body), url, believed=False), name, "download it, and give the file")
        found = parse_list(blocks, name)
        yield from _unless_broken(_guarded(found) if answer.guarded else found, name, required=True)

    for entry in network.document(url, produce):
        if isinstance(entry, BrokenEntry):
            raise SourceError(entry.message)
        if isinstance(entry, Request | BadRow):
            yield entry


def read_site(url: str, network: NetworkLists) -> Iterator[Row]:
    """Yield the rows of the sitemap at ``url``, or of those of a site where it has no path. Raises ``SourceError``.

    robots.txt says where the sitemaps of a site are; else they are looked for at ``/sitemap.xml``.
    """
    walk = _Walk(network)
    if _SITE.fullmatch(url):
        yield from walk.rows([_Listed(Sitemap(f"{url.removesuffix('/')}/robots.txt"), 0, required=True)])
    else:
        yield from walk.rows([_Listed(Sitemap(url), 1, required=True)])


def read_sitemap_file(blocks: Iterator[bytes], name: str, network: NetworkLists | None) -> Iterator[Row]:
    """Yield the rows of a sitemap on this machine, and of those on the network that it lists. Raises ``SourceError``."""
    listed: list[Sitemap] = []
    for location in read_sitemap(blocks, name=name, base=None):
        if isinstance(location, Sitemap):
            listed.append(location)
        else:
            yield location
    if not listed:
        return
    if network is None:
        raise SourceError(
            f"{name}: lists sitemaps that are on the network: 'fetcher crawl' and Fetcher.read fetch them"
        )
    walk = _Walk(network)
    children: list[_Listed] = []
    yield from walk.take(listed, _Listed(Sitemap(name), 1), children)
    yield from walk.rows(children)


class _Listed(NamedTuple):
    """A sitemap to be read: how deep it is, who lists it (digests), and whether there is nothing without it."""

    sitemap: Sitemap
    depth: int
    above: tuple[bytes, ...] = ()
    required: bool = False


class _Walk:
    """Reads the sitemaps of one INPUT, depth first; those that could not be had, once more when all others were."""

    def __init__(self, network: NetworkLists) -> None:
        self._network = network
        self._seen: set[bytes] = set()
        self._error: SourceError | None = None
        self._count = 0

    def rows(self, first: list[_Listed]) -> Iterator[Row]:
        """Yield all rows. Raises ``SourceError``."""
        stack = first[::-1]
        late: deque[_Listed] = deque()
        while stack or late:
            last = not stack
            listed = late.popleft() if last else stack.pop()
            asked: list[SourceError] = []
            found: list[Sitemap] = []
            for entry in self._document(listed, asked):
                if isinstance(entry, Sitemap):
                    found.append(entry)
                elif isinstance(entry, DelayedEntry):
                    if not (last and asked):
                        late.append(listed)
                    elif self._error is None:
                        self._error = asked[0]
                elif isinstance(entry, BrokenEntry):
                    if listed.required:
                        raise SourceError(entry.message)
                    yield bad_row(NO_NUMBER, without_userinfo(listed.sitemap.url), entry.message)
                else:
                    self._count += 1
                    if self._count > MAX_ROWS:
                        raise SourceError(f"{listed.sitemap.url}: with it there are over {MAX_ROWS:,} URLs")
                    yield entry
            children: list[_Listed] = []
            yield from self.take(found, listed, children)
            stack.extend(reversed(children))
        if self._error is not None:
            raise self._error

    def take(self, found: list[Sitemap], above: _Listed, children: list[_Listed]) -> Iterator[BadRow]:
        """Put into ``children`` what of ``found`` is to be read; yield a bad row for what cannot be."""
        digests = (*above.above, _digest(above.sitemap.url))
        for at, sitemap in enumerate(found):
            digest = _digest(sitemap.url)
            shown = without_userinfo(sitemap.url)
            if digest in digests:
                yield bad_row(NO_NUMBER, shown, f"{shown}: lists itself, by {without_userinfo(above.sitemap.url)}")
            elif above.depth >= MAX_DEPTH:
                yield bad_row(NO_NUMBER, shown, f"{shown}: is nested over {MAX_DEPTH} sitemaps deep, and not read")
            elif digest not in self._seen:  # listed twice, it is read once
                if len(self._seen) >= MAX_SITEMAPS:
                    rest = f"{shown}: this and {len(found) - at - 1:,} more of its index are left out"
                    yield bad_row(NO_NUMBER, shown, f"{rest}: over {MAX_SITEMAPS:,} sitemaps")
                    return
                self._seen.add(digest)
                alone = above.depth == 0 and len(found) == 1
                children.append(_Listed(sitemap, above.depth + 1, digests, required=alone))

    def _document(self, listed: _Listed, asked: list[SourceError]) -> Iterator[Entry]:
        ask = self._ask_site if listed.depth == 0 else self._ask
        return self._network.document(listed.sitemap.url, partial(ask, listed, asked))

    def _ask(self, listed: _Listed, asked: list[SourceError]) -> Iterator[Entry]:
        """Fetch a sitemap and yield what it lists; ``asked`` is told why it could not be had for now."""
        sitemap = listed.sitemap
        name = without_userinfo(sitemap.url)
        try:
            if len(sitemap.url) > MAX_SITEMAP_URL:
                raise InvalidURL(message=f"the URL of a sitemap has {len(sitemap.url):,} characters")
            answer = self._network.fetch(sitemap.url, robots=sitemap.robots, guarded=sitemap.guarded)
        except FetchError as error:
            message = f"{name}: {error.detach()}"
            if sitemap.guessed:
                message += " (the site's robots.txt names no sitemap either)"
            if listed.required:
                raise SourceError(message) from None
            if error.retryable or error.code in _MAY_PASS:
                asked.append(SourceError(message))
                yield DelayedEntry(message)
            else:
                yield BrokenEntry(message)
            return
        blocks = unpacked(_blocks_of(answer.body), name, believed=False)
        locations = read_sitemap(blocks, name=name, base=answer.url)
        if answer.guarded:
            locations = _guarded(locations)
        for entry in _unless_broken(locations, name, required=listed.required):
            if isinstance(entry, Sitemap) and not sitemap.robots and _origin(entry.url) == _origin(sitemap.url):
                yield msgspec.structs.replace(entry, robots=False)
            else:
                yield entry

    def _ask_site(self, listed: _Listed, asked: list[SourceError]) -> Iterator[Entry]:  # noqa: ARG002  (as ``_ask``)
        """Ask robots.txt where the sitemaps of a site are."""
        url = listed.sitemap.url
        name = without_userinfo(url)
        named: list[str] = []
        guarded = True
        try:
            answer = self._network.fetch(url)
            base, named, guarded = answer.url, _named_in(answer.body), answer.guarded
        except (StatusError, RedirectError) as error:
            if isinstance(error, StatusError) and (error.status >= 500 or error.status == 429):
                raise SourceError(f"{name}: {error}") from None
            base = error.detach().url or url
        except FetchError as error:
            raise SourceError(f"{name}: {error.detach()}") from None
        for location in named:
            try:
                found = join(base, location)
            except InvalidURL as error:
                yield bad_row(NO_NUMBER, location, f"{name}: names the sitemap {location[:200]!r}: {error.message}")
            else:
                yield Sitemap(found, robots=_origin(found) != _origin(base), guarded=guarded)
        if not named:
            # A site that the user names may be private; one that it redirects to, only where robots.txt could be.
            yield Sitemap(join(base, "/sitemap.xml"), guessed=True, guarded=guarded and _host(base) != _host(url))


def _asked(network: NetworkLists, url: str, name: str) -> ListBody:
    try:
        return network.fetch(url)
    except FetchError as error:
        raise SourceError(f"{name}: {error.detach()}") from None


def _unless_broken(found: Iterator[Location], name: str, *, required: bool) -> Iterator[Entry]:
    """Yield what was found; at an error ``BrokenEntry``, or where it is ``required`` and nothing was, raise ``SourceError``."""
    some = False
    try:
        for location in found:
            some = True
            yield location
    except (SourceError, OSError) as error:
        message = str(error) if isinstance(error, SourceError) else f"{name}: {reason_of(error)}"
        if required and not some:
            raise SourceError(message) from None
        yield BrokenEntry(message)


def _guarded(found: Iterator[L]) -> Iterator[L]:
    """Mark what a public host lists."""
    for location in found:
        if isinstance(location, BadRow):
            yield location
        else:
            yield msgspec.structs.replace(location, guarded=True)


def _named_in(robots: bytes) -> list[str]:
    """Return the sitemaps that a robots.txt names (RFC 9309, 2.2.4, and sitemaps.org)."""
    lines = robots[:MAX_ROBOTS_BYTES].removeprefix(b"\xef\xbb\xbf").splitlines()
    found = (match[1].decode(errors="replace") for line in lines if (match := _SITEMAP_LINE.match(line)))
    return list(dict.fromkeys(url for url in found if not url.startswith("#")))


def _blocks_of(body: bytes) -> Iterator[bytes]:
    return (body[start : start + READ_BYTES] for start in range(0, len(body), READ_BYTES))


def _digest(url: str) -> bytes:
    with contextlib.suppress(InvalidURL):
        url = identity(url)
    return hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _origin(url: str) -> tuple[str, str, int] | None:
    try:
        return parse(url).origin
    except InvalidURL:
        return None


def _host(url: str) -> str:
    """Return the host of a URL, or of a bare domain."""
    try:
        return parse(url).host
    except InvalidURL:
        return ""
