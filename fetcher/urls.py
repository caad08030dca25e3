"""URLs by the WHATWG URL Standard: parse, join, origin, host key, registrable domain.

Law 7: what a redirect or a list says is parsed before it is believed. What is asked for is the standard's
serialisation, as browsers send it: dot segments are resolved, also as ``%2e``, and what must not stand in a path or a
query is percent-encoded; escapes that are there stay as they are. robots.txt, duplicates and the address rule are
judged by the same text.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any, NoReturn

import ada_url
import msgspec

from fetcher.errors import InvalidURL

__all__ = [
    "BaseURL", "Target", "erase_userinfo", "hide_userinfo", "host_key", "identity", "join", "lacks_scheme", "parse",
    "registrable_domain", "resolve", "suffixes_digest", "userinfo_of", "with_scheme", "without_userinfo",
]  # fmt: skip

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 65_536
MAX_FOLDERS = 64  # above the base, that are remembered
MAX_PAGES = 1_024  # that references of one page lead to, that are remembered
MAX_REMEMBERED = 512  # characters of a URL
MAX_USERINFO = 20  # behind each other; a text with more than that loses every "@"

# What serialises to itself: an authority, a path of which no segment may be a dot segment, and a query.
_PLAIN = re.compile(
    r"(https?://(?!https?//)[a-z0-9.\-]+(?::[0-9]{1,5})?)"
    r"((?:/(?!\.|%2[eE])[!$-.0-;=@-\[\]_a-z|~]*)*(?:\?[!$-&(-;=?-~]*)?)"
)
# A relative reference that is appended as it stands to the folder that its first group names, where the second has no
# dot segment.
_PLAIN_REFERENCE = re.compile(
    r"(/(?!/)|(?:\.\./)*+)([!$-\-0-9;=@-\[\]_a-z|~][!$-9;=@-\[\]_a-z|~]*+)(?:\?[!$-&(-;=?-~]*+)?(?:#[!#-;=?-_a-~]*+)?"
)
_PLAIN_ABSOLUTE = re.compile(rf"{_PLAIN.pattern[:-1]}(?:#[!#-;=?-_a-~]*+)?)")
_PLAIN_FRAGMENT = re.compile(r"(?:#[!#-;=?-_a-~]*+)?")
# The standard's serialisation of an http(s) URL. Its userinfo has no bare ':', '@' or '/' left in it.
_SERIAL = re.compile(r"(https?)://(?:([^:@/]*)(?::([^@/]*))?@)?(\[[^\]]*\]|[^:/]*)(?::([0-9]+))?(/[^#]*)(?:#.*)?")
_EDGES = "".join(map(chr, range(0x21)))  # C0 controls and the space: the standard strips them
_REMOVED = {ord(c): None for c in "\t\n\r"}  # and drops these wherever they stand
_PORT_OR_END = re.compile(r"[0-9]{1,5}(?=[/\\?#]|$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_SCHEME_FOR_HOST = re.compile(r"[^\w\[]*(?:https?|ftp)[^\w\]]*")
_NO_HOST = frozenset(
    {"about:", "callto:", "data:", "file:", "http:", "https:", "javascript:", "mailto:", "sms:", "tel:"}
)

_BEGINNING = r"(?:https?:[/\\]*|[a-z][a-z0-9+.\-]*:[/\\]{2,}|[/\\]{2,})"
_USERINFO = re.compile(rf"((?>[\x00- ]*{_BEGINNING}?))[^/\\?#]*@", re.IGNORECASE)
# A password with a slash in it: what stands before it is a host to the standard, and no port follows.
_TORN_USERINFO = re.compile(rf"((?>[\x00- ]*{_BEGINNING}?))[^/\\?#@\[\]]*:(?![0-9]*(?:[/\\?#]|$))[^@]*@", re.IGNORECASE)
_LINE_ENDS = re.compile(r"([\r\n]+)")
_WITHIN_TEXT = re.compile(r"([/\\]{2})(?:[^/\\?#\s]*@|[^/\\?#@\[\]\s]*:(?![0-9]*(?:[/\\?#\s\"'),;]|$))[^@\s]{0,300}@)")


class Target(msgspec.Struct, frozen=True):
    """A parsed URL: ``wire`` is what is asked for, without fragment and userinfo.

    ``host`` is the host key: the lower-case ASCII name or the IP literal (IPv6 in brackets), no final dot.
    ``user`` and ``password`` are percent-encoded, as the standard serialises them; they are not shown.
    """

    wire: str
    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Target({self.wire!r}{', with credentials' if self.user or self.password else ''})"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454)."""
        return (self.scheme, self.host, self.port)


def parse(listed: str, default_scheme: str = "https") -> Target:
    """Parse one URL of a list or of a ``Location``.

    A URL without a scheme gets ``default_scheme``; ``auto`` is https here, which is asked first. Raises ``InvalidURL``
    with the reason in words.
    """
    match = _PLAIN.fullmatch(listed)
    if match is not None and len(listed) <= MAX_URL:
        prefix, tail = match.groups()
        scheme, host, port, serial = _authority(prefix)
        wire = serial + tail if tail[:1] == "/" else f"{serial}/{tail}"
        # Most URLs are listed as they are sent: a row that waits need not hold both.
        return Target(listed if wire == listed and type(listed) is str else wire, scheme, host, port)
    return _parse_slowly(_complete(listed, default_scheme))


@lru_cache(maxsize=65_536)
def _authority(prefix: str) -> tuple[str, str, int, str]:
    """Parse ``http://host:port`` into scheme, host key, port and serialised prefix."""
    target = _parse_slowly(prefix)
    return target.scheme, target.host, target.port, target.wire[:-1]


def _complete(listed: str, default_scheme: str) -> str:
    """Return the text the standard would begin with, once it has its scheme. Raises ``InvalidURL``."""
    text = listed.strip(_EDGES)
    if "\n" in text or "\r" in text or "\t" in text:
        text = text.translate(_REMOVED)
    if not text:
        raise InvalidURL(message="empty")
    if len(text) > MAX_URL:
        raise InvalidURL(message=f"{len(text)} characters long, over {MAX_URL}")
    return with_scheme(text, default_scheme)


def _parse_slowly(text: str) -> Target:
    try:
        serial = _SERIAL.fullmatch(ada_url.normalize_url(text))
    except (ValueError, UnicodeError):
        _refuse(text)
    if serial is None:
        scheme = text.partition(":")[0][:40]
        if f"{scheme}:" not in _NO_HOST and "@" in re.split(r"[/\\?#]", text, maxsplit=1)[0]:  # NAME:PASSWORD@HOST
            raise InvalidURL(message="a user name and no scheme before it: write https:// in front")
        raise InvalidURL(message=f"the scheme {scheme!r} is not http or https")
    scheme, user, password, name, port, tail = serial.groups()
    host = name.rstrip(".")
    if not host:
        raise InvalidURL(message="no host")
    _refuse_second_scheme(host, tail)
    authority = f"{name}:{port}" if port else name
    number = int(port) if port else DEFAULT_PORTS[scheme]
    return Target(f"{scheme}://{authority}{tail}", scheme, host, number, user or None, password or None)


def _refuse(text: str) -> NoReturn:
    """Raise ``InvalidURL`` for what the standard fails, saying what it can be in an http(s) URL."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidURL(message="not a URL: not all of it is text in UTF-8") from None
    raise InvalidURL(message="not a URL: its host or port is none") from None


def _refuse_second_scheme(host: str, tail: str) -> None:
    """Raise ``InvalidURL`` for ``http://http://x`` and ``http//x``: to the standard, their host is ``http``.

    So it is to it in ``"http://x`` and ``http;//x``, quotes and the like in a host being none of its errors.
    """
    if tail.startswith("//") and _SCHEME_FOR_HOST.fullmatch(host):
        raise InvalidURL(message=f"not a URL: {host!r} stands where its host belongs (a scheme twice, or misspelt?)")


def with_scheme(text: str, default_scheme: str) -> str:
    """Put ``default_scheme`` before a bare domain; ``localhost:8000`` is a host and a port, no scheme.

    For ``auto`` that is https: what is asked first. Raises ``InvalidURL`` for a path alone: the standard would make its
    first segment the host.
    """
    if default_scheme == "auto":
        default_scheme = "https"
    if text[:1] in ("/", "\\", "?", "#"):
        if text[1:2] not in ("/", "\\"):
            raise InvalidURL(message="no host: a relative reference")
        return f"{default_scheme}:{text}"
    scheme = _SCHEME.match(text)
    if scheme is None or (_PORT_OR_END.match(text, scheme.end()) and scheme[0].lower() not in _NO_HOST):
        return f"{default_scheme}://{text}" if text else text
    return text


def lacks_scheme(listed: str) -> bool:
    """Say whether a URL of a list names no scheme, so that ``default_scheme`` decides.

    >>> [lacks_scheme(url) for url in ("example.com/a", "localhost:8000", "//example.com", "HTTP://example.com")]
    [True, True, True, False]
    """
    if listed.startswith(("https://", "http://")):
        return False
    text = listed.strip(_EDGES).translate(_REMOVED)
    try:
        return with_scheme(text, "https") != text
    except InvalidURL:
        return False


def join(base: str, location: str) -> str:
    """Resolve a reference against a base URL, without its fragment. Raises ``InvalidURL``.

    The answer has the scheme http or https: ``localhost:8000`` is a host in a list, in a ``Location`` it is not.
    """
    try:
        url = str(ada_url.join_url(base, location))
    except (ValueError, UnicodeError):
        raise InvalidURL(message="not a URL") from None
    if not url.startswith(("http://", "https://")):
        raise InvalidURL(message=f"the scheme {url.partition(':')[0][:40]!r} is not http or https")
    return url.partition("#")[0]


def resolve(base: str, reference: str) -> str | None:
    """Resolve what an attribute of a page says against a base URL, as the WHATWG does; ``None`` where that is no URL.

    Any scheme will do, and a fragment stays.
    """
    try:
        return str(ada_url.join_url(base, reference))
    except (ValueError, UnicodeError):
        return None


class BaseURL:
    """A base that many references are resolved against, each as ``resolve`` does: what is plain needs no parser.

    >>> BaseURL("https://example.com/a/b").resolve("../c#d")
    'https://example.com/c#d'
    """

    def __init__(self, url: str) -> None:
        self.url = url
        match = _PLAIN.fullmatch(url.partition("#")[0])
        self._origin = ""
        if match is not None:
            with contextlib.suppress(InvalidURL):
                self._origin = _authority(match[1])[3]
        path = match[2] if match is not None else ""
        self._page = f"{self._origin}{path}" if path[:1] == "/" else f"{self._origin}/{path}"
        self._folders: dict[str, str] = {}
        self._pages: dict[str, str] = {}
        if self._origin:
            self._folders = {"/": f"{self._origin}/", "": self._page.partition("?")[0].rpartition("/")[0] + "/"}

    def resolve(self, reference: str) -> str | None:
        """Return the absolute URL, or ``None`` for what is none."""
        if not self._origin:
            return resolve(self.url, reference)
        page, mark, _ = reference.partition("#")
        if mark and (known := self._pages.get(page)) is not None:  # as most: a page has many places to link to
            fragment = reference[len(page) :]
            return known + fragment if _PLAIN_FRAGMENT.fullmatch(fragment) else resolve(self.url, reference)
        if not page:
            return self._page + reference if _PLAIN_FRAGMENT.fullmatch(reference) else resolve(self.url, reference)
        match = _PLAIN_REFERENCE.fullmatch(reference)
        if match is None:
            return self._resolve_absolute(reference)
        above, path = match.groups()
        if "/." in path or "%2" in path:
            return resolve(self.url, reference)
        folder = self._folders.get(above)
        if folder is None:
            if len(self._folders) > MAX_FOLDERS:
                return resolve(self.url, reference)
            folder = self._folders[above] = self._folder_above(above.count("../"))
        if mark and len(self._pages) < MAX_PAGES and len(page) <= MAX_REMEMBERED:
            self._pages[page] = folder + page[match.end(1) :]
        return folder + reference[match.end(1) :]

    def _folder_above(self, count: int) -> str:
        path = self._folders[""][len(self._origin) :]
        while count and path != "/":
            path = path[:-1].rpartition("/")[0] + "/"
            count -= 1
        return self._origin + path

    def _resolve_absolute(self, reference: str) -> str | None:
        known = _absolute(reference) if len(reference) <= MAX_REMEMBERED else None
        return resolve(self.url, reference) if known is None else known


@lru_cache(maxsize=8_192)  # what stands on every page of a site
def _absolute(reference: str) -> str | None:
    """Return the serialisation of a plain absolute URL, whatever the base is; ``None`` for all others."""
    match = _PLAIN_ABSOLUTE.fullmatch(reference)
    if match is None:
        return None
    prefix, tail = match.groups()
    try:
        serial = _authority(prefix)[3]
    except InvalidURL:
        return None
    return serial + tail if tail[:1] == "/" else f"{serial}/{tail}"


def without_userinfo(listed: str) -> str:
    """Return a URL of a list as it may be shown: without its user name and password, whether it is valid or not.

    >>> without_userinfo("https://name:password@example.com/a@b")
    'https://example.com/a@b'
    """
    if "@" not in listed:
        return listed
    scheme = listed.partition(":")[0].strip(_EDGES).lower()
    if f"{scheme}:" in _NO_HOST and not scheme.startswith("http"):
        return listed
    text = plain = listed.translate(_REMOVED)
    for _ in range(MAX_USERINFO):
        match = _USERINFO.match(text) or _TORN_USERINFO.match(text)
        if match is None:
            break
        text = match[1] + text[match.end() :]
    else:
        text = text.replace("@", "")
    return text if text is not plain else listed


def userinfo_of(listed: str) -> str:
    """Return what ``without_userinfo`` takes out first, without the ``@``.

    >>> userinfo_of("https://name:password@example.com/a@b")
    'name:password'
    """
    text = listed.translate(_REMOVED)
    match = _USERINFO.match(text) or _TORN_USERINFO.match(text)
    return "" if match is None else text[match.end(1) : match.end() - 1]


def hide_userinfo(text: str, shown: str) -> str:
    """Return any text with ``shown`` in place of each user name and password that stands in a URL."""
    return _WITHIN_TEXT.sub(rf"\1{shown}@" if shown else r"\1", text) if "@" in text else text


def erase_userinfo(text: str) -> str:
    """Return what may be shown of a row, be it a URL or whatever is there instead. Twice is as once.

    A line with a carriage return within may be two URLs.
    """
    for _ in range(MAX_USERINFO):
        shorter = hide_userinfo("".join(map(without_userinfo, _LINE_ENDS.split(text))), "") if "@" in text else text
        if shorter == text:
            return text
        text = shorter
    return text.replace("@", "")


def identity(listed: str, default_scheme: str = "https") -> str:
    """Return what two equal URLs share: the standard's serialisation without the fragment."""
    text = _complete(listed, default_scheme)
    try:
        return str(ada_url.normalize_url(text)).partition("#")[0]
    except (ValueError, UnicodeError):
        _refuse(text)


def host_key(text: str) -> str:
    """Return the host key of a host as people write it (``Example.COM``, ``müller.de``, ``[::1]``).

    Raises ``InvalidURL`` where it is no host, or more than one.
    """
    if any(mark in text for mark in "/\\?#@") or ":" in text.rpartition("]")[2]:
        raise InvalidURL(message="not a host")
    return _parse_slowly(f"http://{text}").host


def registrable_domain(host: str) -> str:
    """Return the registrable domain of a host key; an address or a public suffix stands for itself."""
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        return host
    return str(_suffixes().privatesuffix(host) or host)


@cache
def _suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList  # 60 ms: only where it is asked for

    return PublicSuffixList()


@cache
def suffixes_digest() -> str:
    """Return what tells one public suffix list from another: 16 hexadecimal digits of its rules, comments left out."""
    from publicsuffixlist import PSLFILE

    with open(PSLFILE, "rb") as file:
        rules = sorted({line.split()[0] for line in file if line.strip() and not line.startswith(b"//")})
    return blake2b(b"\n".join(rules), digest_size=8).hexdigest()
