"""What an input names (a URL, stdin, or a file and its format), and how it is read: its options.

A file that exists wins over a bare domain, and a name that ends like a list is a missing file rather
than a host: ``urls.txt`` mistyped must not become a request. Each option has the one form in which it is compared and
used.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Sequence
from encodings.aliases import aliases
from ipaddress import AddressValueError, IPv4Address
from itertools import islice
from pathlib import PurePath
from typing import Any, Self

import msgspec

from fetcher.compression import SUFFIXES
from fetcher.errors import ConfigError, SourceError
from fetcher.store import is_store_url
from fetcher.urls import without_userinfo

__all__ = [
    "DEFAULT_OPTIONS",
    "FILES",
    "FORMATS",
    "UTF_8",
    "ListOptions",
    "format_of",
    "is_url_argument",
    "is_url_list",
    "meant_file",
    "parse_carry",
    "parse_delimiter",
    "parse_encoding",
]

MAX_NAMES = 10_000  # of a folder that are looked at

FORMATS = ("txt", "csv", "tsv", "jsonl", "parquet", "sqlite", "sitemap")
"""The formats of a list."""

FILES = frozenset({"parquet", "sqlite"})
"""Formats whose index stands elsewhere than at the beginning: they are read from files alone."""

_SUFFIXES = {
    ".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".sqlite": "sqlite",
}  # fmt: skip
_COMPRESSED = tuple(SUFFIXES)
_NO_LISTS = frozenset({
    ".json", ".xlsx", ".xls", ".ods", ".xml", ".html", ".htm", ".pdf", ".warc", ".arrow", ".feather",
})  # fmt: skip
_STEPS = {
    ".json": "'jq -c .[]' makes jsonl of an array",
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".xml": "a sitemap or feed is read with --from sitemap",
    ".html": "the links of a page on the web are followed with --follow",
    ".htm": "the links of a page on the web are followed with --follow",
    ".warc": "the pages of an archive are read with 'fetcher extract'",
}
"""What may help where a file is no list, by its suffix."""
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HOST = re.compile(r"(?P<name>[\w-]+(?:\.[\w-]+)*\.?|\[[0-9a-f:.]+\])(?P<port>:\d{1,5})?", re.IGNORECASE)

UTF_8 = "UTF-8"
"""How messages call what a list is in where nothing says otherwise."""

_DELIMITER_NAMES = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}

_FREQUENT = (
    "cp1252",
    "windows_1252",
    "latin1",
    "utf_8",
    "utf_16",
    "mac_roman",
    "shift_jis",
    "gb18030",
    "big5",
    "euc_kr",
)


def is_url_argument(text: str) -> bool:
    """Tell whether an input is itself a row: a http(s) URL, or a bare host where no such file exists.

    A bare host has a dot or is ``localhost``, has no whitespace, and may have a port, a path and a query.
    """
    text = text.strip()
    if _HTTP.match(text):
        return True
    if not text or text == "-" or any(map(str.isspace, text)) or os.path.lexists(text):
        return False
    authority = re.split(r"[/?#]", text, maxsplit=1)[0]
    suffix = PurePath(text).suffix.lower()
    if suffix in _SUFFIXES or suffix in _COMPRESSED or (authority == text and suffix in _NO_LISTS):
        return False
    host = _HOST.fullmatch(authority)
    return host is not None and _is_host(host["name"])


def meant_file(text: str) -> str | None:
    """Return the list that was perhaps meant by a name that no file has: one beside it that differs by one character.

    A bare host is a row, so ``shop.tx`` would be asked for on the network where ``shop.txt`` lies here.
    """
    if not text or text == "-" or _SCHEME.match(text) or os.path.lexists(text):
        return None
    folder, name = os.path.split(text)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, MAX_NAMES)]
    except (OSError, ValueError):
        return None
    near = [each for each in sorted(names) if _is_list_name(each) and _is_near(name.lower(), each.lower())]
    return os.path.join(folder, near[0]) if near else None


def _is_list_name(name: str) -> bool:
    path = PurePath(name.lower())
    return (PurePath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix) in _SUFFIXES


def _is_near(one: str, other: str) -> bool:
    """Whether two names differ by a character that is missing, another, or in the other's place."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rests = one[same:], other[same:]
    return (
        rests[0][1:] == rests[1]  # one character less
        or rests[1][1:] == rests[0]
        or rests[0][1:] == rests[1][1:]
        or (rests[0][:2] == rests[1][:2][::-1] and rests[0][2:] == rests[1][2:])
    )


def is_url_list(text: str, format: str | None) -> bool:  # noqa: A002 - the public name of the option
    """Tell whether an input is a list on the network: a URL, where a ``format`` is given. Without one it is a row.

    Raises ``SourceError`` for a format that cannot be read over the network, or that is none.
    """
    if format is None or not is_url_argument(text):
        return False
    if format_of(text, format) in FILES:
        raise SourceError(
            f"{without_userinfo(text)}: a {format} list is not read over the network: download it, and give the file"
        )
    return True


def _is_host(name: str) -> bool:
    """Tell a host from a word: a literal address, ``localhost``, or labels the last of which is no number."""
    if name.lower() == "localhost" or name[0] == "[":
        return True
    labels = name.removesuffix(".").split(".")
    if not labels[-1].isdigit():
        return len(labels) > 1
    try:
        IPv4Address(name)
    except AddressValueError:
        return False
    return True


def format_of(path: str, format: str | None) -> str:  # noqa: A002 - the public name of the option
    """Return the format of the list ``path``: ``format``, or else by suffix, that of a compression taken off.

    No suffix or an unknown one is ``txt``. Raises ``SourceError`` for an unknown ``format`` and for a file
    that is clearly no list, or a URL of another scheme.
    """
    if not path:
        raise SourceError("'': no such file")
    if format is not None:
        if format not in FORMATS:
            raise SourceError(f"{format!r} is no format of a list: there are {', '.join(FORMATS)}")
        return format
    if _SCHEME.match(path) and not is_store_url(path) and not os.path.lexists(path):
        raise SourceError(
            f"{without_userinfo(path)}: only http:// and https:// URLs can be fetched, and lists read from s3://, gs:// and az://"
        )
    file = PurePath(path.lower())
    suffix = PurePath(file.stem).suffix if file.suffix in _COMPRESSED else file.suffix
    if suffix in _NO_LISTS:
        texts = ", ".join(known for known, kind in _SUFFIXES.items() if kind not in FILES)
        known = f"{texts} (each also {' or '.join(_COMPRESSED)}), {', '.join(f'.{kind}' for kind in sorted(FILES))}"
        step = f"; {_STEPS[suffix]}" if suffix in _STEPS else ""
        raise SourceError(f"{path}: a {suffix} file is no list of URLs that can be read: there are {known}{step}")
    return _SUFFIXES.get(suffix, "txt")


class ListOptions(msgspec.Struct, frozen=True):
    """How the lists of a run are read; each is for the formats that know of it.

    ``format`` is one of ``FORMATS``, else the suffix says it. ``url_column`` is the column or key with the URL, else
    ``url`` or what people call it. ``delimiter`` stands between the cells of a ``csv``, else its header line decides.
    ``encoding`` is Python's name of it, else a byte order mark says it, or it is UTF-8. ``carry`` are the columns that
    become a row's fields, else all.
    """

    format: str | None = None
    url_column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    carry: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        *,
        format: str | None = None,  # noqa: A002 - the name of the option
        url_column: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        carry: str | Sequence[str] | None = None,
    ) -> Self:
        """Read the options as people write them. Raises ``ConfigError`` for one that is of no use."""
        given = {"delimiter": delimiter, "encoding": encoding, "carry": carry}
        read: dict[str, Any] = {}
        for name, value in given.items():
            try:
                read[name] = None if value is None else _PARSERS[name](value)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
        listed = read.pop("carry")
        return cls(format, url_column, carry=None if listed is None else tuple(listed), **read)


DEFAULT_OPTIONS = ListOptions()
"""Of lists that say themselves how they are read."""


def parse_delimiter(value: Any) -> str:
    r"""Read a delimiter: one character, or ``tab`` or ``\t``. Raises ``ConfigError``.

    >>> parse_delimiter("tab"), parse_delimiter(";")
    ('\t', ';')
    """
    if isinstance(value, str):
        delimiter = _DELIMITER_NAMES.get(value.lower(), value)
        if len(delimiter) == 1 and delimiter not in '"\r\n\0\ufeff' and not delimiter.isalnum():
            return delimiter
    raise ConfigError(f"{value!r} is no delimiter: one character such as ';', or 'tab'")


def parse_encoding(value: Any) -> str | None:
    """Return Python's own name of an encoding, ``None`` for UTF-8, which is the default. Raises ``ConfigError``.

    >>> parse_encoding("Windows-1252"), parse_encoding("utf8")
    ('cp1252', None)
    """
    try:
        name = codecs.lookup(value).name
        b"a".decode(name, "ignore")  # refuses what encodes no text, such as hex
        codecs.getincrementaldecoder(name)
    except (LookupError, TypeError, ValueError, UnicodeError):
        import difflib  # for a misspelt name alone

        name = str(value).lower().replace("-", "_")
        close = difflib.get_close_matches(name, _FREQUENT, n=1) or difflib.get_close_matches(name, sorted(aliases), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "such as cp1252, which Windows and Excel write"
        raise ConfigError(f"{value!r} is no encoding of text ({hint})") from None
    return None if name in ("utf-8", "utf-8-sig") else name


def parse_carry(value: Any) -> list[str]:
    """Read names of columns, one text parted by commas (a name with a comma is quoted) or several texts, each a name.

    No name at all means that no column is carried. Raises ``ConfigError``.

    >>> parse_carry('name, "city, street"'), parse_carry("")
    (['name', 'city, street'], [])
    """
    if isinstance(value, str):
        import csv  # most lists carry none

        names = next(csv.reader([value.replace("\n", ",")], skipinitialspace=True), [])
    elif isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        names = list(value)
    else:
        raise ConfigError("this is neither a text nor a list of texts")
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "delimiter": parse_delimiter,
    "encoding": parse_encoding,
    "carry": parse_carry,
}
