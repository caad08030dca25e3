"""Which failures are taken up once more: by code, by class, or all."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from fetcher.errors import (
    ConfigError,
    ConnectError,
    DNSError,
    FetchError,
    FetchTimeout,
    InvalidURL,
    ParseError,
    ProtocolError,
    RedirectError,
    Skipped,
    TLSError,
    TooLarge,
)

__all__ = ["CLASSES", "choose_codes"]

CLASSES: dict[str, type[FetchError]] = {
    "dns": DNSError,
    "connect": ConnectError,
    "tls": TLSError,
    "timeout": FetchTimeout,
    "protocol": ProtocolError,
    "redirect": RedirectError,
    "parse": ParseError,
}
"""The classes of codes that have a name, but for ``http`` (all statuses), ``4xx`` and its like, and ``failed``."""

_ALWAYS = frozenset({"robots_unreachable", "host_budget"})  # skipped, but by what may have passed
_STATUSES = re.compile(r"[1-9]xx")
_STATUS = re.compile(r"(?:http_)?([1-9][0-9]{2})")
_KINDS: tuple[type[FetchError], ...] = (*CLASSES.values(), InvalidURL, Skipped, TooLarge)
_CODES = frozenset(code for kind in _KINDS for code in kind.codes)


def choose_codes(names: Collection[str]) -> Callable[[str], bool] | None:
    """Return what says of a code whether it is among ``names``, or ``None`` where there are none.

    Raises ``ConfigError`` for a name that is neither a code nor a class.
    """
    chosen: set[str] = set()
    prefixes: set[str] = set()
    everything = False
    for name in (name.strip().lower() for name in names):
        if name in CLASSES:
            chosen |= CLASSES[name].codes
        elif name == "http":
            prefixes.add("http_")
        elif _STATUSES.fullmatch(name):
            prefixes.add(f"http_{name[0]}")
        elif status := _STATUS.fullmatch(name):
            chosen.add(f"http_{status[1]}")
        elif name == "failed":
            everything = True
        elif name in _CODES:
            chosen.add(name)
        else:
            raise ConfigError(
                f"{name!r} is neither a code nor a class: there are failed, http, 4xx, 5xx, {', '.join(CLASSES)}, "
                "a status such as 503, and the codes in the README"
            )
    if not chosen and not prefixes and not everything:
        return None

    def choose(code: str) -> bool:
        if code in chosen or (prefixes and code.startswith(tuple(prefixes))):
            return True
        return everything and code != "ok" and (code not in Skipped.codes or code in _ALWAYS)

    return choose
