"""What a selected text is converted to: numbers, dates, prices and truth, as people write them on pages.

A text that says something else converts to ``None``; it is counted, and never guessed. ``int`` and ``float`` are the
first number of a text: ``1.234,50 €`` and ``1,234.50 USD`` are both 1234.5, and one separator with three digits behind
it parts thousands (``1,234``), but for the point of a ``float`` (``1.234``). ``date`` gives ISO 8601, a date alone
where no time was given; one that does not name its year, month and day is none.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from fetcher.page.select_rules import ValueType

__all__ = ["convert", "currency_of"]

MAX_CHARACTERS = {"int": 1_000, "float": 1_000, "price": 200, "date": 100, "bool": 100}
"""Of a text that is looked at: a longer one says more than that. The libraries' time grows with its square."""

_NUMBER = re.compile(r"([-+\u2212]?)\s?(\d{1,3}(?:([.,'\u2019\u00a0\u202f ])\d{3})+(?!\d)|\d+)?([.,]\d+)?")
_MINUS = ("-", "\u2212")
_EXPONENT = re.compile(r"[eE][-+]?\d{1,3}")
_TRUE = frozenset({"true", "yes", "on", "1", "y"})
_FALSE = frozenset({"false", "no", "off", "0", "n"})
_TIME = re.compile(r"\d:\d\d")


def convert(text: str, kind: ValueType) -> Any:
    """Return the value that ``text`` says, or ``None``.

    >>> convert("1.234,50 €", "float"), convert("1,234 reviews", "int"), convert("Nov 28, 2026", "date")
    (1234.5, 1234, '2026-11-28')
    """
    text = text.strip()
    if not text or len(text) > MAX_CHARACTERS[kind]:
        return None
    match kind:
        case "int":
            return _int_of(text)
        case "float":
            return _float_of(text)
        case "price":
            return _price_of(text)
        case "date":
            return _date_of(text)
        case "bool":
            word = text.lower()
            return True if word in _TRUE else False if word in _FALSE else None


def currency_of(text: str) -> str | None:
    """Return the currency that a price names, as it stands there (``€``, ``USD``), or ``None``."""
    text = text.strip()
    if len(text) > MAX_CHARACTERS["price"]:
        return None
    currency: str | None = _parsed_price(text).currency
    return currency


def _int_of(text: str) -> int | None:
    found = _first_number(text, thousands=".,")
    if found is None or found[1].strip("0"):
        return None
    return int(found[0])


def _float_of(text: str) -> float | None:
    found = _first_number(text, thousands=",")
    if found is None:
        return None
    whole, decimals, exponent = found
    value = float(f"{whole}.{decimals or 0}{exponent}")
    return value if math.isfinite(value) else None


def _first_number(text: str, *, thousands: str) -> tuple[str, str, str] | None:
    """Return the whole part, the decimals and the exponent of the first number of a text.

    A single group behind one of ``thousands`` is a group of thousands; behind another separator it is decimals.
    """
    for match in _NUMBER.finditer(text):
        sign, whole, separator, decimals = match.groups()
        if not whole and not decimals:
            continue
        whole = whole or "0"
        if separator in (".", ",") and separator not in thousands and whole.count(separator) == 1 and not decimals:
            whole, _, decimals = whole.partition(separator)
        elif decimals and separator is None and decimals[0] in thousands and len(decimals) == 4 and len(whole) <= 3:
            whole, decimals = whole + decimals[1:], ""
        elif decimals and decimals[0] == separator:
            return None  # 1.234.5 is no number
        digits = re.sub(r"\D", "", whole)
        exponent = _EXPONENT.match(text, match.end())
        return (
            f"-{digits}" if sign in _MINUS else digits,
            (decimals or "").lstrip(".,"),
            exponent[0] if exponent else "",
        )
    return None


def _price_of(text: str) -> float | None:
    amount = _parsed_price(text).amount
    return None if amount is None else float(amount)


def _parsed_price(text: str) -> Any:
    from price_parser import Price

    return Price.fromstring(text)


def _date_of(text: str) -> str | None:
    try:
        return _iso(datetime.fromisoformat(text), text)
    except ValueError:
        pass
    try:
        return _iso(parsedate_to_datetime(text), text)
    except (ValueError, TypeError, IndexError, OverflowError):
        pass
    from dateutil.parser import parse

    try:
        # What the text does not say comes from the default: where two differ, it does not say enough.
        first, second = (parse(text, default=datetime(year, 1, day)) for year, day in ((2000, 1), (2001, 2)))  # noqa: DTZ001  (no zone is assumed)
        months = [parse(text, default=datetime(2000, month, 1)).month for month in (1, 2)]  # noqa: DTZ001  (as above)
    except (ValueError, OverflowError, TypeError, AttributeError, RecursionError):
        return None
    return _iso(first, text) if first == second and months[0] == months[1] else None


def _iso(moment: datetime, text: str) -> str:
    """Return a moment as a date alone where its text has no time."""
    if not _TIME.search(text) and (moment.hour, moment.minute, moment.second) == (0, 0, 0):
        return moment.date().isoformat()
    return moment.isoformat()
