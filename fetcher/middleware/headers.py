"""Which headers a hop may carry. Law 7: secrets stay with their origin.

A header given for a host goes to that host alone, at every port unless one is named, and not from https down to http.
Of the headers meant for the listed URL only ``User-Agent`` and ``Accept*`` follow a redirect to another origin, and its
conditions (``If-None-Match``) none at all. Userinfo in a listed URL is Basic credentials for its origin; in a
``Location`` it is dropped.

Where the same header is given twice the narrower one wins: for all < for a host < in the URL < for the row.
Cookies add up instead, and one that was set on the way takes the place of those of its name.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from fetcher.config import Header, Identity
from fetcher.errors import ConfigError, InvalidURL
from fetcher.model import CONDITIONS, Pairs, Request
from fetcher.urls import Target, host_key

if TYPE_CHECKING:
    from fetcher.middleware.cookies import ChainJar, CookieFiles

__all__ = ["Secrets", "may_follow"]


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
