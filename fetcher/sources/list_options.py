"""How a list is read: the options, each in the one form in which it is compared and used."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from encodings.aliases import aliases
from typing import Any, Self

import msgspec

from fetcher.errors import ConfigError

__all__ = ["DEFAULT_OPTIONS", "UTF_8", "ListOptions", "parse_carry", "parse_delimiter", "parse_encoding"]

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
