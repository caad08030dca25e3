"""The attributes of HTML that hold URLs, made absolute as a browser does (HTML Standard, "document base URL")."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser

from fetcher.urls import resolve

__all__ = ["PageURLs"]

_ONE = frozenset({
    "action", "background", "cite", "data", "formaction", "href", "longdesc", "manifest", "poster", "src", "xlink:href",
})  # fmt: skip
_SETS = frozenset({"srcset", "imagesrcset"})
_CANDIDATE = re.compile(
    r"[\s,]*(?P<url>[^\s,]\S*[^\s,]|[^\s,])(?P<descriptor>(?:\s+[^,\s()]+(?:\([^)]*\))?)*)\s*(?:,|$)"
)
_NO_BASE = ("data:", "javascript:")


class PageURLs:
    """Resolves what a page's attributes say; the base is looked for once, when it is first needed."""

    def __init__(self, tree: LexborHTMLParser | None, url: str) -> None:
        self._tree = tree
        self._url = url
        self._base: str | None = None

    @property
    def base(self) -> str:
        """The URL that the page's references are relative to: its first ``base[href]``, else its own."""
        if self._base is None:
            self._base = self._url
            found = self._tree.css_first("base[href]") if self._tree is not None and self._url else None
            if found is not None:
                base = resolve(self._url, found.attrs["href"] or "")
                if base is not None and not base.startswith(_NO_BASE):
                    self._base = base
        return self._base

    def absolute(self, attribute: str, value: str) -> str:
        """Return the ``value`` of an attribute with its URLs absolute; what is no URL stays as it is written."""
        name = attribute.lower()
        if not self._url:
            return value
        if name in _ONE:
            return resolve(self.base, value) or value
        if name == "ping":
            return " ".join(resolve(self.base, url) or url for url in value.split())
        return ", ".join(self._candidates(value)) if name in _SETS else value

    def _candidates(self, value: str) -> Iterator[str]:
        """Yield the image candidates of a ``srcset`` (HTML Standard, 4.8.4.2.2), each with its descriptor."""
        for match in _CANDIDATE.finditer(value):
            descriptor = " ".join(match["descriptor"].split())
            url = resolve(self.base, match["url"]) or match["url"]
            yield f"{url} {descriptor}" if descriptor else url
