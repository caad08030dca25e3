"""What a user may type for a setting, and how it is read: numbers, sizes, rates, headers, proxies, status codes.

Each function takes what a command line, a TOML file or a caller gives and returns the value a policy holds;
what cannot be read raises ``ConfigError`` in words that quote it.
"""

from __future__ import annotations

import base64
import fnmatch
import ipaddress
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from fetcher.buckets import Shard
from fetcher.errors import ConfigError
from fetcher.model import CONTENT_COLUMNS, RECORD_COLUMNS

MOST = 1e15  # of anything that is counted here; beyond it floats miss whole numbers


_PLAIN = re.compile(r"(?:…@|[\w.,:;/%+@~=*-]){1,80}")
MAX_SHOWN = 80  # characters of a value in a message


def refused(value: Any, requirement: str) -> ConfigError:
    """Return the error of a value that is no good, and what must stand there instead."""
    if isinstance(value, bool):
        return ConfigError(requirement, value=str(value).lower())  # as it is written in a file
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    text = str(value) if plain else repr(value)
    return ConfigError(requirement, value=text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…")


def named(name: str, error: Exception) -> ConfigError:
    """Return the error of a value, with the name of its option before it."""
    between = " " if isinstance(error, ConfigError) and error.value is not None else ": "
    return ConfigError(f"{name}{between}{error}")


def nearest(name: Any, known: Collection[str]) -> str:
    """Return what may have been meant, in brackets; ``""`` where nothing is like it."""
    import difflib  # for a misspelt name alone

    close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return f" (did you mean {close[0]}?)" if close else ""


def number_from(low: float, *, whole: bool = False, optional: bool = False) -> Callable[[Any], Any]:
    """Return a reader of numbers of at least ``low``; an ``optional`` one takes ``none`` for no limit."""

    def convert(value: Any) -> Any:
        if optional and value in (None, "none", ""):
            return None
        try:
            if isinstance(value, bool):
                raise ValueError
            number = int(value) if whole and not isinstance(value, float) else float(value)
        except (ValueError, TypeError, OverflowError):
            raise refused(value, f"must be a {'whole ' if whole else ''}number") from None
        if isinstance(number, float) and not math.isfinite(number):
            raise refused(value, "must be a number that is finite")
        if whole and number != int(number):
            raise refused(value, "must be a whole number")
        if not low <= number <= MOST:
            raise refused(value, f"must be at least {low:g}" if number < low else f"must be at most {MOST:g}")
        return int(number) if whole else number

    return convert


def parse_seconds(value: Any, low: float = 0.0) -> float:
    """Read a duration: ``1.5``, ``"90"``, ``"500ms"``, ``"2m"``, ``"1h"``, ``"7d"``. Returns seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|m|h|d)\s*", value)
        if match:
            value = float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}[match[2]]
        elif not re.fullmatch(r"\s*[+-]?[0-9.]+(?:e[+-]?[0-9]+)?\s*", value):
            raise refused(value, "must be a time, such as 30, 500ms or 2m")
    return float(number_from(low)(value))


def parse_size(value: Any) -> int:
    """Read a size: ``1000``, ``"64K"``, ``"10M"``, ``"1GiB"`` (powers of 1024). Returns bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmg]?)(?:i?b)?\s*", value, re.IGNORECASE)
        if not match:
            raise refused(value, "must be a size, such as 500K or 10M")
        value = float(match[1]) * 1024 ** " kmg".index(match[2].lower() or " ")
        value = math.floor(value) if value <= MOST else value
    return int(number_from(1, whole=True)(value))


def parse_rate(value: Any) -> float | None:
    """Read a rate: ``5``, ``"5/s"``, ``"30/m"``, ``"1000/h"``. Returns requests per second."""
    given = value
    if isinstance(value, str) and value not in ("none", ""):
        number, _, unit = value.partition("/")
        seconds = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}.get(unit.strip().lower())
        if seconds is None:
            raise refused(value, "must be a rate, such as 5/s or 100/m")
        value = number_from(0)(number) / seconds
    rate = number_from(0, optional=True)(value)
    if rate == 0:
        raise refused(given, "must be more than 0, for that would fetch nothing")
    return None if rate is None else float(rate)


def parse_statuses(value: Any) -> tuple[tuple[int, int], ...]:
    """Read status codes from 100 to 999: ``"200-299,304"``, ``"2xx"``, ``404`` or a sequence of these."""
    if isinstance(value, list | tuple):
        if not value:
            raise refused(value, "must be a status code at least, such as 200-299")
        return tuple(pair for item in value for pair in parse_statuses(item))
    ranges = []
    for part in str(value).split(","):
        text = part.strip().lower()
        if match := re.fullmatch(r"([1-9])xx", text):
            low, high = int(match[1]) * 100, int(match[1]) * 100 + 99
        elif match := re.fullmatch(r"([0-9]{3})(?:-([0-9]{3}))?", text):
            low, high = int(match[1]), int(match[2] or match[1])
        else:
            raise refused(part.strip(), "must be a status code, range or class, such as 200-299,304 or 2xx")
        if not 100 <= low <= high <= 999:
            raise refused(part.strip(), "must be a range of status codes, from 100 to 999, the lower one first")
        ranges.append((low, high))
    return tuple(ranges)


_TARGET = re.compile(r"@(\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]+)(?::([0-9]{1,5}))?\s+(.*)", re.DOTALL)
_NAMED = re.compile(r"@(?:\[[0-9A-Fa-f:.]*\]|[^\s:@/\[\]]*)(?::[0-9]{1,5})?")  # anything else may be a secret
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def texts(value: Any) -> list[str]:
    """Return a list of texts from one or several."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(text, str) for text in listed):
        raise ConfigError("must be a text or a list of texts", value=_shape(value))
    return list(listed)


def parse_names(value: Any) -> tuple[str, ...]:
    """Read names: a text with commas between them, or a list; each once, in their order.

    >>> parse_names("id, url,id")
    ('id', 'url')
    """
    listed = [name.strip() for text in texts(value) for name in text.split(",")]
    return tuple(dict.fromkeys(filter(None, listed)))


def url_pattern(text: str) -> str:
    """Return the regular expression of a glob over a whole URL, or of what follows ``re:``.

    >>> bool(re.fullmatch(url_pattern("https://*.example/p/*"), "https://a.example/p/1?x"))
    True
    """
    if not text.startswith("re:"):
        return fnmatch.translate(text)
    expression = text.removeprefix("re:")
    anywhere = f"(?:.*?)(?:{expression})(?:.*)"
    try:
        re.compile(expression)
        re.compile(anywhere)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{expression!r} is no regular expression ({error})") from None
    return anywhere


def parse_patterns(value: Any) -> tuple[str, ...]:
    """Read patterns of URLs, as ``url_pattern`` has them, and return them as they are written."""
    patterns = tuple(filter(None, texts(value)))
    for pattern in patterns:
        url_pattern(pattern)
    return patterns


def parse_columns(value: Any) -> tuple[str, ...]:
    """Read the names of a record's columns."""
    return _known_names(value, RECORD_COLUMNS, "there is no such column")


def parse_content(value: Any) -> tuple[str, ...]:
    """Read the names of parts of a page (the names of ``CONTENT_COLUMNS``): a text with commas between them, or a list."""
    return _known_names(value, CONTENT_COLUMNS, "there is no such part of a page")


def _known_names(value: Any, known: Collection[str], refusal: str) -> tuple[str, ...]:
    names = parse_names(value)
    for name in names:
        if name not in known:
            raise refused(name, f"{refusal}{nearest(name, known)}; there are {', '.join(known)}")
    return names


def parse_select(value: Any) -> tuple[str, ...]:
    """Read rules ``NAME=CSS[@ATTR]``: one, several, or a mapping of names to what stands behind the ``=``."""
    if not isinstance(value, Mapping):
        return tuple(texts(value))
    for name, rule in value.items():
        if not isinstance(name, str) or "=" in name:
            raise ConfigError(f"{name!r} is no name of a field")
        if not isinstance(rule, str):
            raise ConfigError(f"{name}: {rule!r} is no selector (such as '.price' or 'img@src')")
    return tuple(f"{name}={rule}" for name, rule in value.items())


def _shape(value: Any) -> str:
    """Return what a message may quote of a value that perhaps holds secrets: all but its texts."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shape, value))}]"
    return "'…'" if isinstance(value, str | bytes) else "{…}" if isinstance(value, Mapping) else repr(value)


def _targeted(text: str) -> tuple[str | None, int | None, str]:
    """Split ``@HOST[:PORT] rest`` into its parts; without ``@`` the host is ``None``."""
    if not text.startswith("@"):
        return None, None, text
    match = _TARGET.fullmatch(text)
    if not match:
        first = text.split(" ", maxsplit=1)[0]
        shown = first if _NAMED.fullmatch(first) else "@…"
        raise refused(shown, "must be followed by a value, such as '@example.com Name: value'")
    port = int(match[2]) if match[2] else None
    if port is not None and not 0 < port < 65_536:
        raise ConfigError(f"{match[2]} is no port")
    return match[1].lower(), port, match[3]


def _header(text: str, host: str | None = None) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not _TOKEN.fullmatch(name):
        first = text.replace(":", " ").split()[:1] or [""]
        secret = host is not None or first[0].lower() in SECRET_HEADERS
        shown = f"{first[0] if first[0].lower() in SECRET_HEADERS else ''}…" if secret else text
        raise refused(shown, f"must be 'Name: value'{f', which is for {host}' if host is not None else ''}")
    if any((ord(c) < 32 and c != "\t") or ord(c) == 127 for c in value):
        raise ConfigError(f"the value of {name} has a control character")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ConfigError(f"the value of {name} is not text in UTF-8")
    return name, value


class Header(msgspec.Struct, frozen=True):
    """A request header: for every listed URL, or for one host alone.

    Without ``port`` it goes to every port of the host. A secret (Authorization, Cookie) names its host. The value of
    one that is for a host is not shown.
    """

    name: str
    value: str
    host: str | None = None
    port: int | None = None

    def __repr__(self) -> str:
        secret = self.host is not None or self.name.lower() in SECRET_HEADERS
        return f"Header({self.name!r}, {'***' if secret else self.value!r}, host={self.host!r}, port={self.port!r})"


class ClientCertificate(msgspec.Struct, frozen=True):
    """A certificate of ours in a PEM file, for one host; without ``port`` for every port of it."""

    file: str
    host: str
    port: int | None = None


def parse_certificates(value: Any) -> tuple[ClientCertificate, ...]:
    """Read ``@HOST[:PORT] FILE`` lines, or take ``ClientCertificate`` values as they are."""
    found = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, ClientCertificate):
            found.append(item)
            continue
        (text,) = texts(item)
        host, port, rest = _targeted(text)
        if host is None:
            raise ConfigError("a certificate is an identity and must name its host: '@HOST FILE'")
        found.append(ClientCertificate(rest.strip(), host, port))
    return tuple(found)


def parse_headers(value: Any) -> tuple[Header, ...]:
    """Read ``Name: value`` and ``@HOST[:PORT] Name: value`` lines, or take ``Header`` values as they are."""
    found = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, Header):
            _header(f"{item.name}: {item.value}", item.host)
            header = item
        elif isinstance(item, str):
            host, port, rest = _targeted(item)
            header = Header(*_header(rest, host), host, port)
        else:
            raise ConfigError("must be 'Name: value'", value=_shape(item))
        if header.host is None and header.name.lower() in SECRET_HEADERS:
            raise ConfigError(f"{header.name} is a secret and must name its host: '@HOST {header.name}: …'")
        found.append(header)
    return tuple(found)


def parse_users(value: Any) -> tuple[Header, ...]:
    """Read ``@HOST[:PORT] USER:PASSWORD`` lines into Basic credentials (RFC 7617, UTF-8)."""
    found = []
    for item in texts(value):
        host, port, rest = _targeted(item)
        if host is None:
            raise ConfigError("a password must name its host: '@HOST USER:PASSWORD'")
        if ":" not in rest:
            raise ConfigError(f"the credentials for {host} are not USER:PASSWORD")
        token = base64.b64encode(rest.encode()).decode()
        found.append(Header("Authorization", f"Basic {token}", host, port))
    return tuple(found)


def parse_cookies(value: Any) -> tuple[Header, ...]:
    """Read ``@HOST[:PORT] name=value; …`` lines into Cookie headers."""
    found = []
    for item in texts(value):
        host, port, rest = _targeted(item)
        if host is None:
            raise ConfigError("a cookie must name its host: '@HOST name=value' (or give a cookies.txt)")
        if "=" not in rest:
            raise ConfigError(f"the cookie for {host} is not 'name=value'")
        found.append(Header(*_header(f"Cookie: {rest}"), host, port))
    return tuple(found)


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return a reader that takes one of ``choices``."""

    def convert(value: Any) -> str:
        if value not in choices:
            raise refused(value, f"must be one of {', '.join(choices)}{nearest(value, choices)}")
        return str(value)

    return convert


def flag(value: Any) -> bool:
    """Check that ``value`` is a boolean."""
    if isinstance(value, bool):
        return value
    raise refused(value, "must be true or false")


def optional_text(value: Any) -> str | None:
    """Return the text, or ``None`` where it is empty."""
    if value is None or value == "":
        return None
    if not isinstance(value, str | os.PathLike):
        raise refused(value, "must be a text")
    return os.fspath(value)


def parse_user_agent(value: Any) -> str:
    """Check that ``value`` can stand behind ``User-Agent:``."""
    text = optional_text(value)
    if text is None or not text.strip():
        raise ConfigError("an empty User-Agent says nothing: leave the option out for the default")
    return _header(f"User-Agent: {text}")[1]


_PROXY = re.compile(r"https?://(?:[^\s/?#]*@)?(?:\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE)


def parse_proxy(value: Any) -> str | None:
    """Check a proxy URL: ``http://[user:password@]host:port`` (or https)."""
    text = optional_text(value)
    if text is None:
        return None
    if "://" not in text:
        text = f"http://{text}"
    match = _PROXY.fullmatch(text)
    if not match or (match[1] and not 0 < int(match[1]) < 65_536):
        shown = re.sub(r"(?<=//).*@", "…@", text, flags=re.DOTALL)  # no password in a message
        hint = ": socks needs an HTTP proxy in front of it" if text.lower().startswith("socks") else ""
        raise refused(shown, f"must be an http:// or https:// proxy URL{hint}")
    return text.rstrip("/")


def split_proxy(url: str) -> tuple[str, str | None]:
    """Return a proxy's URL without its userinfo, and that as the value of an ``Authorization`` header (RFC 7617, UTF-8)."""
    scheme, _, rest = url.partition("://")
    userinfo, at, place = rest.rpartition("@")
    if not at:
        return url, None
    user, _, password = userinfo.partition(":")
    token = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
    return f"{scheme}://{place}", f"Basic {token}"


def parse_bypass(value: Any) -> tuple[str, ...]:
    """Read hosts that need no proxy: several texts, or one with commas or spaces between."""
    return tuple(part for item in texts(value) for part in item.replace(",", " ").split())


def bypasses(rule: str, host: str, port: int) -> bool:
    """Whether ``rule`` covers a host: a name with all below it, either with a port, a network, or ``*``."""
    rule, host = rule.lower(), host.strip("[]")
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        pass
    name, colon, number = rule.rpartition(":")
    if colon and number.isdigit():
        if int(number) != port:
            return False
        rule = name
    rule = rule.strip("[]").removeprefix("*").lstrip(".")
    return host == rule or host.endswith(f".{rule}")


def parse_shard(value: Any) -> Shard | None:
    """Read one share of a list, ``I/N``, counted from 1.

    >>> parse_shard("1/4")
    Shard(number=1, of=4)
    """
    if value in (None, "", "none"):
        return None
    if isinstance(value, Shard):
        return value
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise refused(value, "must be a share of a list: I/N is share I of N, such as 1/4")
    number, of = map(int, match.groups())
    if not of:
        raise refused(value, "must be of one share at least (1/1)")
    if not 1 <= number <= of:
        raise refused(value, f"must be from 1/{of} to {of}/{of}: the shares count from 1")
    return Shard(number, of)


def parse_max_failed(value: Any) -> str | None:
    """Check ``N`` or ``N%``; it is kept as text, for a percentage needs the total."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if whole else optional_text(value)
    if text is not None and not re.fullmatch(r"[0-9]+|[0-9]+(\.[0-9]+)?%", text):
        raise refused(value, "must be a number or a percentage, such as 10 or 5%")
    return text


def optional_seconds(value: Any) -> float | None:
    """Read a duration above zero, or ``none`` for no limit."""
    return None if value in (None, "", "none") else positive_seconds(value)


def positive_seconds(value: Any) -> float:
    """Read a duration as ``parse_seconds`` does, above zero."""
    seconds = parse_seconds(value)
    if seconds <= 0:
        raise refused(value, "must be more than 0 seconds")
    return seconds
