"""The attributes of HTML that hold URLs, made absolute as a browser does (HTML Standard, "document base URL")."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from selectolax.lexbor import LexborNode

from fetcher.urls import BaseURL, resolve

__all__ = ["PageURLs", "holds_urls"]

_ONE = frozenset({
    "action", "background", "cite", "data", "formaction", "href", "longdesc", "manifest", "poster", "src", "xlink:href",
})  # fmt: skip
_SETS = frozenset({"srcset", "imagesrcset"})
# A candidate of a srcset: a URL, and behind it what is no comma, or a comma in brackets. Neither is looked at twice.
_CANDIDATE_URL = re.compile(r"[\s,]*+(\S++)")
_DESCRIPTOR = re.compile(r"[^,(]*+(?:\([^)]*+\)?[^,(]*+)*+")
_NO_BASE = ("data:", "javascript:")


def holds_urls(attribute: str) -> bool:
    """Tell whether an attribute of this name holds a URL, or several."""
    return (name := attribute.lower()) in _ONE or name in _SETS or name == "ping"


class PageURLs:
    """Resolves what a page's attributes say; the base is looked for once, when it is first needed.

    ``find_base`` gives its ``base[href]``, ``None`` where it has none.
    """

    def __init__(self, url: str, find_base: Callable[[], LexborNode | None]) -> None:
        self._find_base = find_base
        self._url = url
        self._base: BaseURL | None = None

    @property
    def base(self) -> BaseURL:
        """What the page's references are relative to: its first ``base[href]``, else its own URL."""
        if self._base is None:
            url = self._url
            found = self._find_base() if url else None
            if found is not None:
                base = resolve(self._url, found.attrs["href"] or "")
                if base is not None and not base.startswith(_NO_BASE):
                    url = base
            self._base = BaseURL(url)
        return self._base

    def absolute(self, attribute: str, value: str) -> str:
        """Return the ``value`` of an attribute with its URLs absolute; what is no URL stays as it is written."""
        name = attribute.lower()
        if not self._url:
            return value
        if name in _ONE:
            return self.base.resolve(value) or value
        if name == "ping":
            return " ".join(self.base.resolve(url) or url for url in value.split())
        return ", ".join(self.candidates(value)) if name in _SETS else value

    def candidates(self, value: str) -> Iterator[str]:
        """Yield the image candidates of a ``srcset`` (HTML Standard, 4.8.4.2.2), each with its descriptor."""
        place = 0
        while (match := _CANDIDATE_URL.match(value, place)) is not None:
            written = match[1].rstrip(",")
            place = match.end()
            descriptor = ""
            if written == match[1] and (behind := _DESCRIPTOR.match(value, place)) is not None:
                place = behind.end()
                descriptor = " ".join(behind[0].split())
            if written:
                url = self.base.resolve(written) or written
                yield f"{url} {descriptor}" if descriptor else url
