"""The URLs that a page's own columns are made of: absolute, and bounded together.

Law 3: memory is bounded. A base of 60 KB and a million references of one letter are 60 GB: what is over
``MAX_CHARACTERS`` in one page is left out.
"""

from __future__ import annotations

from functools import lru_cache

from fetcher.page.url_attributes import PageURLs
from fetcher.urls import MAX_URL, registrable_domain

__all__ = ["BoundedURLs"]

MAX_CHARACTERS = 16 * 1024 * 1024  # of all that is made of one page
MAX_DATA_CHARACTERS = 64  # of a data: URL that are kept


class BoundedURLs:
    """Resolves the references of one page as long as there is room, and tells which lead to its own site."""

    def __init__(self, urls: PageURLs, url: str) -> None:
        self.urls = urls
        self._url = url
        self._left = MAX_CHARACTERS
        self._internal: dict[str, bool] = {}
        self._site: str | None = None

    @property
    def full(self) -> bool:
        """Whether there is no more room."""
        return self._left < 0

    def take(self, characters: int) -> None:
        """Note that so many more characters were made of the page."""
        self._left -= characters

    def resolve(self, reference: str) -> str | None:
        """Return a reference as an absolute URL, a ``data:`` URL cut short; ``None`` for what is none, or has no room."""
        if reference[:5].lower() == "data:":
            return shortened(reference)
        if self._left < 0:
            return None
        url = self.urls.base.resolve(reference)
        if url is None or len(url) > MAX_URL:
            return None
        self._left -= len(url)
        return url

    def is_internal(self, url: str) -> bool:
        """Tell whether an absolute URL is of the registrable domain of the page."""
        scheme, _, rest = url.partition("://")
        if scheme not in ("http", "https"):
            return False
        authority = rest.partition("/")[0]
        known = self._internal.get(authority)
        if known is None:
            if self._site is None:
                self._site = _site_of(self._url.partition("://")[2].partition("/")[0])
            known = self._internal[authority] = _site_of(authority) == self._site
        return known


def shortened(url: str) -> str:
    """Return a ``data:`` URL as far as its comma, and ``…`` for what follows: an image in base64 is no reference."""
    head, comma, _ = url[:MAX_DATA_CHARACTERS].partition(",")
    return f"{head}{comma}…"


@lru_cache(maxsize=4_096)
def _site_of(authority: str) -> str:
    """Return the registrable domain of a serialised authority."""
    host = authority.partition("?")[0].partition("#")[0].rpartition("@")[2]
    name, _, port = host.rpartition(":")
    host = (name if (name and port.isdigit()) or not port else host).rstrip(".")
    return registrable_domain(host)
