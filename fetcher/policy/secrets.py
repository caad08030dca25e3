"""Which headers a hop may carry. Law 7: secrets stay with their origin.

A header given for a host goes to that host and port alone, and not from https down to http. Of the headers
meant for the listed URL only ``User-Agent`` and ``Accept*`` follow a redirect to another origin. Userinfo in
a listed URL is Basic credentials for its origin; in a ``Location`` it is dropped.
"""

from __future__ import annotations

import base64
import http.cookiejar
from collections.abc import Iterable
from email.message import Message
from urllib.parse import unquote
from urllib.request import Request as JarRequest

from fetcher.config import Identity
from fetcher.errors import ConfigError
from fetcher.model import Pairs, Request
from fetcher.urls import DEFAULT_PORTS, Target, registrable_domain

__all__ = ["ChainJar", "Secrets"]


class ChainJar:
    """The cookies that one row meets in its chain of redirects; they end with it (RFC 6265)."""

    def __init__(self) -> None:
        self._jar = http.cookiejar.CookieJar()

    def take(self, target: Target, headers: Pairs) -> bool:
        """Keep what the answer sets; say whether it set anything."""
        values = [value for name, value in headers if name == "set-cookie"]
        if values:
            self._jar.extract_cookies(_Answer(values), _jar_request(target))  # type: ignore[arg-type]  # duck-typed: only info() is read
            for cookie in list(self._jar):
                # Domain=co.uk would be sent to all of it: the public suffix list knows, the jar does not.
                bare = cookie.domain.lstrip(".")
                if (
                    cookie.domain_specified
                    and bare != target.host
                    and registrable_domain(bare) != registrable_domain(target.host)
                ):
                    self._jar.clear(cookie.domain, cookie.path, cookie.name)
        return bool(values)

    def header(self, target: Target) -> str | None:
        """Return the ``Cookie`` header for a hop, or ``None``."""
        request = _jar_request(target)
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie")


class _Answer:
    def __init__(self, cookies: list[str]) -> None:
        self._message = Message()
        for cookie in cookies:
            self._message["Set-Cookie"] = cookie

    def info(self) -> object:
        return self._message


def _jar_request(target: Target) -> JarRequest:
    return JarRequest(target.wire)  # noqa: S310  (never opened: the jar reads host, path and scheme off it)


class Secrets:
    """All headers beyond the session's own, decided for each exchange."""

    def __init__(self, identity: Identity) -> None:
        self._everywhere: Pairs = tuple((h.name, h.value) for h in identity.headers if h.host is None)
        self._bound = tuple(h for h in identity.headers if h.host is not None)
        self._files = _cookie_files(identity.cookie_files)
        self._none = not (self._everywhere or self._bound or self._files)

    def headers(self, request: Request, first: Target, hop: Target, jar: ChainJar | None = None) -> Pairs:
        """Return the headers for an exchange with ``hop`` in the chain that the row began at ``first``."""
        if self._none and jar is None and not request.headers and first.user is None and first.password is None:
            return ()
        same = hop.origin == first.origin
        downgrade = first.scheme == "https" and hop.scheme == "http"
        found = [pair for pair in (*self._everywhere, *request.headers) if same or _follows(pair[0])]
        if same and (first.user is not None or first.password is not None):
            token = f"{unquote(first.user or '')}:{unquote(first.password or '')}".encode()
            found.append(("Authorization", f"Basic {base64.b64encode(token).decode()}"))
        cookies = [value for name, value in found if name.lower() == "cookie"]
        found = [pair for pair in found if pair[0].lower() != "cookie"]
        if not downgrade:
            for header in self._bound:
                if header.host == hop.host and (header.port or DEFAULT_PORTS[hop.scheme]) == hop.port:
                    if header.name.lower() == "cookie":
                        cookies.append(header.value)
                    else:
                        found.append((header.name, header.value))
        for source in (self._files, jar):
            line = source.header(hop) if source is not None else None
            if line:
                cookies.append(line)
        if cookies:
            found.append(("Cookie", "; ".join(cookies)))
        return _last_wins(found)


def _follows(name: str) -> bool:
    lower = name.lower()
    return lower == "user-agent" or lower.startswith("accept")


def _last_wins(pairs: Iterable[tuple[str, str]]) -> Pairs:
    kept = {name.lower(): (name, value) for name, value in pairs}
    return tuple(kept.values())


class _FileJar(ChainJar):
    def __init__(self, jar: http.cookiejar.CookieJar) -> None:
        self._jar = jar


def _cookie_files(paths: tuple[str, ...]) -> ChainJar | None:
    if not paths:
        return None
    jar = http.cookiejar.MozillaCookieJar()
    for path in paths:
        try:
            jar.load(path, ignore_discard=True)
        except (OSError, http.cookiejar.LoadError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a cookies.txt in the Netscape format"
            raise ConfigError(f"cookie: cannot read {path}: {reason}") from None
    return _FileJar(jar)
