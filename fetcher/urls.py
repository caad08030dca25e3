"""URLs by the WHATWG URL Standard: parse, join, origin, host key, registrable domain.

Law 7: what a redirect or a list says is parsed before it is believed. The wire gets the listed bytes where
they are wire-safe; everything else gets the standard's serialisation.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

import ada_url
import msgspec

from fetcher.errors import InvalidURL

__all__ = ["Target", "join", "parse", "registrable_domain", "with_scheme"]

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 65_536

# An authority that lower-cases and serialises to itself, then a path and query of printable ASCII: no
# fragment, no backslash (a slash to the standard), no space.
_PLAIN = re.compile(r"(https?://[a-z0-9.\-]+(?::[0-9]{1,5})?)([/?][!-\"$-\[\]-~]*)?")
_SPLIT = re.compile(r"[A-Za-z]+:[/\\]*[^/\\?#]*(.*)", re.DOTALL)
_WIRE_SAFE = re.compile(r"[/?][!-\"$-\[\]-~]*")
_PORT_OR_END = re.compile(r"[0-9]{1,5}(?=[/?#]|$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


class Target(msgspec.Struct, frozen=True):
    """A parsed URL: ``wire`` is what is asked for, without fragment and userinfo.

    ``host`` is the host key: the lower-case ASCII name or the IP literal (IPv6 in brackets), no final dot.
    """

    wire: str
    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454)."""
        return (self.scheme, self.host, self.port)


def parse(listed: str, default_scheme: str = "https") -> Target:
    """Parse one URL of a list or of a ``Location``.

    A URL without a scheme gets ``default_scheme``. Raises ``InvalidURL`` with the reason in words.
    """
    match = _PLAIN.fullmatch(listed)
    if match is not None and len(listed) <= MAX_URL:
        prefix, tail = match.groups()
        scheme, host, port, serial = _authority(prefix)
        return Target(
            serial + (tail or "/") if tail is None or tail[0] == "/" else f"{serial}/{tail}", scheme, host, port
        )
    return _parse_slowly(with_scheme(listed.strip(), default_scheme))


@lru_cache(maxsize=65_536)
def _authority(prefix: str) -> tuple[str, str, int, str]:
    """Parse ``http://host:port`` into scheme, host key, port and serialised prefix."""
    url = _ada(prefix)
    return url.protocol[:-1], url.hostname.rstrip("."), _port(url), f"{url.protocol}//{url.host}"


def _ada(text: str) -> ada_url.URL:
    try:
        url = ada_url.URL(text)
    except (ValueError, UnicodeError):
        raise InvalidURL(message="not a URL") from None
    if url.protocol not in ("http:", "https:"):
        raise InvalidURL(message=f"the scheme {url.protocol[:-1]!r} is not http or https")
    if not url.hostname.rstrip("."):
        raise InvalidURL(message="no host")
    return url


def _port(url: ada_url.URL) -> int:
    return int(url.port) if url.port else DEFAULT_PORTS[url.protocol[:-1]]


def _parse_slowly(text: str) -> Target:
    if not text:
        raise InvalidURL(message="empty")
    if len(text) > MAX_URL:
        raise InvalidURL(message=f"{len(text)} characters long, over {MAX_URL}")
    url = _ada(text)
    scheme = url.protocol[:-1]
    split = _SPLIT.fullmatch(text)
    tail = split[1].partition("#")[0] if split else ""
    if not _WIRE_SAFE.fullmatch(tail):
        tail = url.pathname + url.search
    elif tail[0] == "?":
        tail = f"/{tail}"
    user, password = url.username or None, url.password or None
    return Target(f"{scheme}://{url.host}{tail}", scheme, url.hostname.rstrip("."), _port(url), user, password)


def with_scheme(text: str, default_scheme: str) -> str:
    """Put ``default_scheme`` before a bare domain; ``localhost:8000`` is a host and a port, no scheme."""
    if text.startswith("//"):
        return f"{default_scheme}:{text}"
    scheme = _SCHEME.match(text)
    if scheme is None or (_PORT_OR_END.match(text, scheme.end()) and scheme[0].lower() not in ("tel:", "sms:")):
        return f"{default_scheme}://{text}" if text else text
    return text


def join(base: str, location: str) -> str:
    """Resolve a reference against a base URL, without its fragment. Raises ``InvalidURL``."""
    try:
        return str(ada_url.join_url(base, location)).partition("#")[0]
    except (ValueError, UnicodeError):
        raise InvalidURL(message="not a URL") from None


def identity(listed: str, default_scheme: str = "https") -> str:
    """Return what two equal URLs share: the standard's serialisation without the fragment."""
    try:
        return str(ada_url.normalize_url(with_scheme(listed.strip(), default_scheme))).partition("#")[0]
    except (ValueError, UnicodeError):
        raise InvalidURL(message="not a URL") from None


def registrable_domain(host: str) -> str:
    """Return the registrable domain of a host key; an address or a public suffix stands for itself."""
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        return host
    return str(_suffixes().privatesuffix(host) or host)


@cache
def _suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList  # 60 ms: only where it is asked for

    return PublicSuffixList()
