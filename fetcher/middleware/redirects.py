"""Redirects, followed by us hop by hop: each hop is an exchange like any other, through pacing and the guard.

Law 4: the first host's slot is back before the second's is asked for; a hop that must wait longer than a
second leaves its task, and goes on from where it stood. Law 7: a ``Location`` is parsed before it is
believed, and secrets stay with their origin.
"""

from __future__ import annotations

import msgspec

from fetcher.config import Config
from fetcher.errors import FetchError, InvalidURL, RedirectError
from fetcher.middleware.headers import ChainJar, Secrets
from fetcher.model import REDIRECT_STATUSES, Exchange, Request, Response
from fetcher.request_state import RequestState, current
from fetcher.urls import Target, join, parse

__all__ = ["Redirects"]


class RedirectChain:
    """Where a row stands between two hops, so that it can go on from there after a wait."""

    __slots__ = ("asked", "first", "jar", "seen", "target")

    def __init__(self, first: Target, asked: str) -> None:
        self.first = self.target = first
        self.asked = asked
        self.seen: set[tuple[str, str | None]] = set()
        self.jar: ChainJar | None = None


class Redirects:
    """The handler: 301, 302, 303, 307 and 308 with a ``Location``, up to ``max_redirects`` hops (RFC 9110, 15.4)."""

    def __init__(self, config: Config) -> None:
        self._most = config.limits.max_redirects
        self._default_scheme = config.default_scheme
        self._secrets = Secrets(config.identity)

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Follow the chain from the listed URL, or from where the row left off."""
        state = current.get()
        chain: RedirectChain | None = state.chain
        if chain is None or chain.asked != request.url:
            first = state.first if request.url == state.request.url else parse(request.url, self._default_scheme)
            if state.redirects or state.target is not first:
                state.start_over(first)
            state.chain = chain = None
        else:
            first = chain.first  # not the row's own where a middleware asks for another URL
            state.follow(chain.target, redirects=state.redirects)
        try:
            while True:
                target = state.target
                headers = self._secrets.headers(request, first, target, chain.jar if chain is not None else None)
                hop = Request(request.id, target.wire, headers)
                response = await proceed(hop)
                if response.status not in REDIRECT_STATUSES or self._most == 0 or response.header("location") is None:
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
                    chain.seen.add((target.wire, None))
                self._step(response, state, chain)
                state.free()
        except FetchError:
            state.chain = None  # whoever asks again, a middleware too, starts from the first URL
            raise

    def _step(self, response: Response, state: RequestState, chain: RedirectChain) -> None:
        """Move the state to the next hop. Raises ``RedirectError``."""
        locations = {value for name, value in response.headers if name == "location"}
        if len(locations) > 1:
            raise RedirectError("bad_redirect", "two different Location headers")
        if len(state.redirects) >= self._most:
            raise RedirectError("redirect_limit", f"more than {self._most} redirects (max-redirects)")
        jar = chain.jar or ChainJar()
        if jar.take(state.target, response.headers):
            chain.jar = jar
        location = _as_browsers_read(locations.pop())
        try:
            target = parse(join(state.target.wire, location))
        except InvalidURL as error:
            raise RedirectError("bad_redirect", f"Location {location[:200]!r}: {error.message}") from None
        mark = (target.wire, chain.jar.header(target) if chain.jar is not None else None)
        if mark in chain.seen:
            raise RedirectError(
                "redirect_loop", f"{target.wire} redirects to itself after {len(state.redirects) + 1} hops"
            )
        chain.seen.add(mark)
        chain.target = target
        state.follow(target)


def _as_browsers_read(location: str) -> str:
    """Undo the surrogates of a Location that is no UTF-8: browsers take its bytes as Latin-1."""
    try:
        location.encode("utf-8")
    except UnicodeEncodeError:
        return location.encode("utf-8", "surrogateescape").decode("latin-1")
    return location
