"""Cookies by RFC 6265: a jar for one row's chain of redirects, and one read from a cookies.txt.

Law 7: a cookie goes back to whom its attributes name, never to a whole public suffix, and what a server sends
is no cookie until it has been looked at. Law 3: a jar holds a bounded number of cookies of bounded size.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from fetcher.errors import ConfigError, InvalidURL
from fetcher.model import Pairs
from fetcher.urls import Target, host_key, registrable_domain

__all__ = ["ChainJar", "Cookie", "CookieFiles", "cookie_date"]

MAX_COOKIES = 300  # in the jar of one chain
MAX_COOKIE_BYTES = 4_096  # name and value together (RFC 6265, 6.1)

_DATE_TOKENS = re.compile(r"[^\t\x20-\x2f;-@\[-`{-~]+")
_TIME_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])")
_DAY = re.compile(r"([0-9]{1,2})(?![0-9])")
_YEAR = re.compile(r"([0-9]{2,4})(?![0-9])")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")  # what no Cookie header can carry


class Cookie(msgspec.Struct, frozen=True):
    """One cookie: ``domain`` has no leading dot, ``host_only`` keeps it from the names below, ``text`` is sent.

    ``age`` counts the cookies of its jar that are older.
    """

    domain: str
    host_only: bool
    path: str
    secure: bool
    name: str
    text: str
    age: int = 0

    def fits(self, target: Target, path: str) -> bool:
        """Whether the cookie goes to ``target`` (5.4); the caller has looked at the domain."""
        if self.secure and target.scheme != "https":
            return False
        if self.host_only and self.domain != target.host:
            return False
        return path == self.path or (
            path.startswith(self.path) and (self.path[-1:] == "/" or path[len(self.path)] == "/")
        )


class _Jar:
    """Cookies by domain. In a header the longer paths come first (5.4), then the older cookies."""

    def __init__(self) -> None:
        self._domains: dict[str, dict[tuple[str, str], Cookie]] = {}
        self._count = 0

    def cookies(self, target: Target) -> list[Cookie]:
        """Return the cookies that go to ``target``."""
        path = _path_of(target)
        fit = [
            cookie
            for domain in _domains_of(target.host)
            for cookie in self._domains.get(domain, {}).values()
            if cookie.fits(target, path)
        ]
        fit.sort(key=lambda cookie: (-len(cookie.path), cookie.age))
        return fit

    def has_any(self, host: str) -> bool:
        """Whether a cookie goes to the host, be it to some of its paths, or by https alone."""
        return any(
            not cookie.host_only or domain == host
            for domain in _domains_of(host)
            for cookie in self._domains.get(domain, {}).values()
        )

    def header(self, target: Target) -> str | None:
        """Return the ``Cookie`` header for ``target``, or ``None``."""
        return "; ".join(cookie.text for cookie in self.cookies(target)) or None

    def _put(self, cookie: Cookie) -> None:
        cookies = self._domains.setdefault(cookie.domain, {})
        old = cookies.get((cookie.path, cookie.name))
        self._count += 1
        age = self._count if old is None else old.age  # one that is set anew keeps its age (5.3, step 11)
        cookies[cookie.path, cookie.name] = msgspec.structs.replace(cookie, age=age)


class ChainJar(_Jar):
    """The cookies that one row meets in its chain of redirects; they end with it."""

    @property
    def kept(self) -> list[Cookie]:
        """All of them, the oldest first."""
        return sorted(
            (c for cookies in self._domains.values() for c in cookies.values()), key=lambda cookie: cookie.age
        )

    @classmethod
    def of(cls, cookies: Iterable[Cookie]) -> Self:
        """Return a jar of what another one ``kept``."""
        jar = cls()
        for cookie in cookies:
            jar._put(cookie)
        return jar

    def take(self, target: Target, headers: Pairs) -> bool:
        """Keep what the answer of ``target`` sets; say whether it set anything."""
        values = [value for name, value in headers if name == "set-cookie"]
        for value in values:
            self._set(target, value)
        return bool(values)

    def _set(self, target: Target, text: str) -> None:
        """Read one ``Set-Cookie`` (5.2, 5.3). What makes no sense is ignored, as browsers do."""
        pair, *rest = text.split(";")
        name, equals, value = (part.strip(" \t") for part in pair.partition("="))
        if not equals:
            name, value = "", name  # a cookie without a name (RFC 6265bis, 5.6)
        if not (name or value) or _UNFIT.search(pair) or len(pair.encode()) > MAX_COOKIE_BYTES:
            return
        if not name and value.lower().startswith(("__secure-", "__host-")):
            return
        attributes = {key.strip().lower(): value.strip() for key, _, value in (part.partition("=") for part in rest)}
        secure = "secure" in attributes
        domain = _domain_set_by(target.host, attributes.get("domain", "").removeprefix("."))
        if domain is None or (secure and target.scheme != "https"):
            return
        path = attributes.get("path", "")
        if not path.startswith("/"):
            path = _path_of(target).rpartition("/")[0] or "/"
        if _is_over(attributes):
            self._domains.get(domain[0], {}).pop((path, name), None)
        elif sum(map(len, self._domains.values())) < MAX_COOKIES:
            self._put(Cookie(*domain, path, secure, name, f"{name}={value}" if name else value))


class CookieFiles(_Jar):
    """The cookies of cookies.txt files in the Netscape format, as curl, wget and browsers write them."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        super().__init__()
        for path in paths:
            for cookie in _read(path):
                self._put(cookie)


def _read(path: str) -> Iterator[Cookie]:
    """Read one file: domain, subdomains too, path, secure, expiry, name, value, with tabs between."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        raise ConfigError(f"cookie: cannot read {path}: {reason}") from None
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("#HttpOnly_")
        if not text.strip() or text.startswith("#"):
            continue
        fields = text.split("\t")
        fields += [""] if len(fields) == 6 else []  # editors strip the tab before an empty value
        expires = _number(fields[4]) if len(fields) == 7 else None
        if expires is None or _UNFIT.search(text):
            raise ConfigError(f"cookie: cannot read {path}: line {number} is not of a cookies.txt (Netscape format)")
        domain, below, where, secure, _, name, value = fields
        if 0 < expires < time.time():
            continue
        try:
            key = host_key(domain.removeprefix("."))
        except InvalidURL:
            continue  # browsers keep cookies for their extensions as well
        text = f"{name}={value}" if name else value
        yield Cookie(key, below.upper() != "TRUE", where or "/", secure.upper() == "TRUE", name, text)


def _number(text: str) -> float | None:
    try:
        return float(text or 0)
    except ValueError:
        return None


def _path_of(target: Target) -> str:
    wire = target.wire
    return wire[wire.index("/", len(target.scheme) + 3) :].partition("?")[0]


def _domains_of(host: str) -> Iterator[str]:
    """Yield the host itself and each domain above it. What is so above an address is no host key, and has no cookie."""
    yield host
    while "." in host:
        host = host.partition(".")[2]
        yield host


def _domain_set_by(host: str, attribute: str) -> tuple[str, bool] | None:
    """Return the domain of a cookie and whether it is for that host alone; ``None`` if ``host`` may not set it (5.3)."""
    if not attribute:
        return host, True
    try:
        domain = host_key(attribute)
    except InvalidURL:
        return None
    # Domain=co.uk would be sent to all of it: the public suffix list knows.
    below = f"x.{domain}"
    if registrable_domain(below) == below:
        return (host, True) if domain == host else None
    return (domain, False) if domain in _domains_of(host) else None


def _is_over(attributes: dict[str, str]) -> bool:
    """Whether the cookie is to be deleted: ``Max-Age`` is stronger than ``Expires`` (5.3, step 3)."""
    age = attributes.get("max-age", "")
    if re.fullmatch(r"-?[0-9]+", age):
        return age.startswith("-") or not age.strip("0")
    when = cookie_date(attributes.get("expires", ""))
    return when is not None and when <= datetime.now(UTC)


def cookie_date(text: str) -> datetime | None:
    """Read a date as browsers read a cookie's (5.1.1): its parts in any order, always in UTC. ``None`` where it is none."""
    time_of_day: tuple[int, ...] | None = None
    day = month = year = None
    for token in _DATE_TOKENS.findall(text):
        if time_of_day is None and (match := _TIME_OF_DAY.match(token)):
            time_of_day = tuple(map(int, match.groups()))
        elif day is None and (match := _DAY.match(token)):
            day = int(match[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and (match := _YEAR.match(token)):
            year = int(match[1])
    if time_of_day is None or day is None or month is None or year is None:
        return None
    year += 1900 if 70 <= year <= 99 else 2000 if year <= 69 else 0
    try:
        hour, minute, second = time_of_day
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC) if year >= 1601 else None
    except ValueError:
        return None
