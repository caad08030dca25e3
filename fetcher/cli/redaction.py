"""What this process was told to keep to itself, and how it is kept out of all that it says.

Law 7: a message, a log line or a traceback may quote whatever it likes, so what goes to stderr passes through
``redact``. One process runs one command: its secrets are kept here for as long as it lives.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote
from urllib.request import getproxies_environment

from fetcher.urls import hide_userinfo, userinfo_of

__all__ = ["HIDDEN", "SECRET_NAME", "keep", "redact"]

HIDDEN = "***"
MIN_SECRET_CHARACTERS = 6  # a shorter one would be found in words that have nothing to do with it
SECRET_NAME = re.compile(
    r"auth|cookie|token|secret|passw|pwd|key|session|credential|signature|jwt|bearer", re.IGNORECASE
)
"""What a header that holds a secret may be called."""

PROXIES = ("proxy", "http_proxy", "https_proxy")
_HOST = re.compile(r"@\S+\s+")

_kept: set[str] = set()


def keep(settings: Mapping[str, Any], inputs: Sequence[str] = ()) -> None:
    """Note the secrets of these settings and of the URLs among ``inputs``, in every form they may be said in."""
    proxies = getproxies_environment()
    for secret in _secrets(settings, [*inputs, *proxies.values()]):
        plain = unquote(secret)
        for text in {secret, plain, *(quote(one, safe=safe) for one in (secret, plain) for safe in ("", "/"))}:
            encoded = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
            for form in (text, encoded.rstrip("=")):
                if len(form) >= MIN_SECRET_CHARACTERS:
                    _kept.add(form)


def redact(text: str) -> str:
    """Return ``text`` without the secrets that are kept, and without user names and passwords in URLs."""
    text = hide_userinfo(text, HIDDEN)
    for secret in sorted(_kept, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def _secrets(settings: Mapping[str, Any], urls: Iterable[str]) -> Iterator[str]:
    for text in _texts(settings.get("user")):
        yield from _credentials(_HOST.sub("", text, count=1))
    for text in _texts(settings.get("cookie")):
        if "=" in text:
            pairs = _HOST.sub("", text, count=1)
            yield pairs
            yield from (pair.partition("=")[2].strip() for pair in pairs.split(";"))
    for text in _texts(settings.get("header")):
        name, _, value = _HOST.sub("", text, count=1).partition(":")
        if text.startswith("@") or SECRET_NAME.search(name):
            yield value.strip()
            yield value.rpartition(" ")[2].strip()
    for text in [*urls, *(text for key in PROXIES for text in _texts(settings.get(key)))]:
        yield from _credentials(userinfo_of(text.strip()))


def _credentials(text: str) -> Iterator[str]:
    """Yield a user name with its password, and the password. A name alone may be any word."""
    yield text
    yield text.partition(":")[2]


def _texts(value: Any) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    return [text for text in listed if isinstance(text, str)] if isinstance(listed, list | tuple) else []
