"""Redirects, followed by us hop by hop, and which headers a hop may carry.

Each hop is an exchange like any other, through pacing and the guard. Law 4: the first host's slot is back before the
second's is asked for; a hop that must wait longer than a second leaves its task, and goes on from where it stood.
Law 8: where each site has one process that asks it, a row whose next hop is to another's site leaves this one, as a
value.

Law 7: a ``Location`` is parsed before it is believed, and secrets stay with their origin. A header given for a host
goes to that host alone, at every port unless one is named, and not from https down to http. Of the headers meant for
the listed URL only ``User-Agent`` and ``Accept*`` follow a redirect to another origin, and its conditions
(``If-None-Match``) none at all. Userinfo in a listed URL is Basic credentials for its origin; in a ``Location`` it is
dropped.

Where the same header is given twice the narrower one wins: for all < for a host < in the URL < for the row.
Cookies add up instead, and one that was set on the way takes the place of those of its name.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec

from fetcher.config import Config, Header, Identity
from fetcher.errors import ConfigError, FetchError, InvalidURL, RedirectError
from fetcher.model import CONDITIONS, REDIRECT_STATUSES, Exchange, Pairs, Request, Response
from fetcher.refresh import refresh_of
from fetcher.request_state import Handover, RequestState, current
from fetcher.urls import Target, host_key, join, parse

if TYPE_CHECKING:
    from fetcher.middleware.cookies import ChainJar, CookieFiles

__all__ = ["RedirectChain", "Redirects", "Secrets", "may_follow"]

MAX_SAME_REQUESTS = 3  # for one URL with the same Cookie, in one chain: some pages redirect to themselves once


def may_follow(name: str) -> bool:
    """Tell whether a header goes along to another origin: of what a user sets only ``User-Agent`` and ``Accept*``."""
    name = name.lower()
    return name == "user-agent" or name.startswith("accept")


class Secrets:
    """All headers beyond the session's own, decided for each exchange."""

    def __init__(self, identity: Identity) -> None:
        self._everywhere: Pairs = tuple((h.name, h.value) for h in identity.headers if h.host is None)
        self._bound: dict[str, list[Header]] = {}
        for header in identity.headers:
            if header.host is not None:
                self._bound.setdefault(_key_of(header.host), []).append(header)
        self._files: CookieFiles | None = None
        if identity.cookie_files:
            from fetcher.middleware.cookies import CookieFiles  # most runs have none

            self._files = CookieFiles(identity.cookie_files)
        self._none = not (self._everywhere or self._bound or self._files)

    def bound_to(self, request: Request, target: Target) -> bool:
        """Whether a row at ``target`` carries what is meant for its host alone, or for the row."""
        return (
            target.user is not None
            or target.password is not None
            or any(not may_follow(name) for name, _ in request.headers)
            or any(header.port in (None, target.port) for header in self._bound.get(target.host, ()))
            or (self._files is not None and self._files.has_any(target.host))
        )

    def headers(self, request: Request, first: Target, hop: Target, jar: ChainJar | None = None) -> Pairs:
        """Return the headers for an exchange with ``hop`` in the chain that the row began at ``first``."""
        named = first.user is not None or first.password is not None
        if self._none and jar is None and not request.headers and not named:
            return ()
        same = hop.origin == first.origin
        found = [pair for pair in self._everywhere if same or may_follow(pair[0])]
        if first.scheme == "http" or hop.scheme == "https":
            found += [
                (header.name, header.value)
                for header in self._bound.get(hop.host, ())
                if header.port is None or header.port == hop.port
            ]
        if same and named:
            token = unquote_to_bytes(first.user or "") + b":" + unquote_to_bytes(first.password or "")
            found.append(("Authorization", f"Basic {base64.b64encode(token).decode()}"))
        found += [
            pair
            for pair in request.headers
            if (same or may_follow(pair[0])) and (hop.wire == first.wire or pair[0].lower() not in CONDITIONS)
        ]
        kept = {name.lower(): (name, value) for name, value in found if name.lower() != "cookie"}
        cookies = self._cookies([value for name, value in found if name.lower() == "cookie"], hop, jar)
        return (*kept.values(), ("Cookie", cookies)) if cookies else tuple(kept.values())

    def _cookies(self, given: list[str], hop: Target, jar: ChainJar | None) -> str:
        """Join the cookies that were given, those of the files and those of the chain."""
        if self._files is not None:
            given += [cookie.text for cookie in self._files.cookies(hop)]
        met = jar.cookies(hop) if jar is not None else []
        if met:
            names = {cookie.name for cookie in met}
            pieces = [piece.strip() for text in given for piece in text.split(";")]
            given = [piece for piece in pieces if piece and piece.partition("=")[0] not in names]
        return "; ".join([*given, *(cookie.text for cookie in met)])


def _key_of(host: str) -> str:
    try:
        return host_key(host)
    except InvalidURL:
        raise ConfigError(f"{host!r}, which a header is for, is no host") from None


class RedirectChain:
    """Where a row stands between two hops, so that it can go on from there after a wait."""

    __slots__ = ("asked", "first", "jar", "seen", "target")

    def __init__(self, first: Target, asked: str) -> None:
        self.first = self.target = first
        self.asked = asked
        self.seen: Counter[tuple[str, str | None]] = Counter()  # how often a URL was asked for, by its Cookie
        self.jar: ChainJar | None = None


class Redirects:
    """The handler: 301, 302, 303, 307 and 308 with a ``Location``, up to ``max_redirects`` hops (RFC 9110, 15.4).

    With ``follow_refresh`` a page that leads on by itself is one more hop. ``secrets`` decides what each hop carries.
    ``home`` says whether a host is ours to ask; where it is ``None`` all are. It raises ``Handover`` for one that is
    not.
    """

    def __init__(self, config: Config, *, home: Callable[[str], bool] | None = None) -> None:
        self._home = home
        self._most = config.limits.max_redirects
        self._default_scheme = config.default_scheme
        self._refresh = config.follow_refresh
        self.secrets = Secrets(config.identity)

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Follow the chain from the listed URL, or from where the row left off."""
        state = current.get()
        chain: RedirectChain | None = state.chain
        if chain is None or chain.asked != request.url:
            first = state.first if request.url == state.request.url else parse(request.url, self._default_scheme)
            if state.redirects or state.target is not first or state.messages is not None:
                state.start_over(first)
            state.chain = chain = None
        else:
            first = chain.first  # not the row's own where a middleware asks for another URL
            state.follow(chain.target, redirects=state.redirects)
        try:
            while True:
                target = state.target
                if self._home is not None and not self._home(target.host):
                    raise Handover
                headers = self.secrets.headers(request, first, target, chain.jar if chain is not None else None)
                hop = Request(request.id, target.wire, headers)
                response = await proceed(hop)
                location = self._next_of(response)
                if location is None:
                    state.chain = None
                    return msgspec.structs.replace(
                        response,
                        request=request,
                        redirects=state.redirects,
                        elapsed=state.elapsed,
                        attempts=state.attempts + 1,
                    )
                if chain is None:
                    chain = RedirectChain(target, request.url)
                    state.chain = chain
                    chain.seen[target.wire, None] = 1
                self._step(response, location, state, chain)
                state.free()
        except FetchError:
            state.chain = None  # whoever asks again, a middleware too, starts from the first URL
            raise

    def _next_of(self, response: Response) -> str | None:
        """Return where an answer leads, or ``None`` where it is the end. Raises ``RedirectError``."""
        if self._most == 0:
            return None
        if response.status in REDIRECT_STATUSES:
            locations = {value for name, value in response.headers if name == "location" and value}
            if len(locations) > 1:
                raise RedirectError("bad_redirect", "two different Location headers")
            if locations:
                return _escaped(locations.pop())
        return refresh_of(response) if self._refresh and 200 <= response.status < 300 else None

    def _step(self, response: Response, location: str, state: RequestState, chain: RedirectChain) -> None:
        """Move the state to the next hop. Raises ``RedirectError``."""
        if len(state.redirects) >= self._most:
            raise RedirectError("redirect_limit", f"more than {self._most} redirects (max-redirects)")
        from fetcher.middleware.cookies import ChainJar  # a site without redirects needs none

        jar = chain.jar or ChainJar()
        if jar.take(state.target, response.headers):
            chain.jar = jar
        try:
            target = parse(join(state.target.wire, location))
        except InvalidURL as error:
            raise RedirectError("bad_redirect", f"Location {location[:200]!r}: {error.message}") from None
        mark = (target.wire, chain.jar.header(target) if chain.jar is not None else None)
        if chain.seen[mark] >= MAX_SAME_REQUESTS:
            raise RedirectError(
                "redirect_loop", f"{target.wire} redirects to itself after {len(state.redirects) + 1} hops"
            )
        chain.seen[mark] += 1
        chain.target = target
        state.follow(target)


def _escaped(location: str) -> str:
    """Percent-encode the bytes of a Location that are no ASCII, as they are: it says nothing of its encoding."""
    if location.isascii():
        return location
    raw = location.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in raw)
