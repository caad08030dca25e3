"""The URLs that a page's own columns are made of: absolute, and bounded together.

Law 3: memory is bounded. A base of 60 KB and a million references of one letter are 60 GB: what is over
``MAX_CHARACTERS`` in one page is left out.
"""

from __future__ import annotations

from functools import lru_cache

from fetcher.page.url_attributes import PageURLs
from fetcher.urls import MAX_URL, BaseURL, registrable_domain

__all__ = ["BoundedURLs"]

MAX_CHARACTERS = 16 * 1024 * 1024  # of all that is made of one page
MAX_DATA_CHARACTERS = 64  # of a data: URL that are kept


class BoundedURLs:
    """Resolves the references of one page as long as there is room, and tells which lead to its own site.

    ``left`` is the number of characters that may still be made of the page, ``own`` the root of its origin.
    """

    def __init__(self, urls: PageURLs, url: str) -> None:
        self.urls = urls
        self.left = MAX_CHARACTERS
        scheme, _, rest = url.partition("://")
        self._authority = rest.partition("/")[0]
        self.own = f"{scheme}://{self._authority}/"
        self._internal: dict[str, bool] = {}

    @property
    def base(self) -> BaseURL:
        """What the references are relative to."""
        return self.urls.base

    def resolve(self, reference: str) -> str | None:
        """Return a reference as an absolute URL, a ``data:`` URL cut short; ``None`` for what is none, or has no room."""
        if reference[:5].lower() == "data:":
            return shortened(reference)
        url = self.base.resolve(reference)
        if url is None or len(url) > MAX_URL or self.left < 0:
            return None
        self.left -= len(url)
        return url

    def is_internal(self, url: str) -> bool:
        """Tell whether an absolute URL is of the registrable domain of the page."""
        if url.startswith(self.own):
            return True
        scheme, _, rest = url.partition("://")
        if scheme not in ("http", "https"):
            return False
        authority = rest.partition("/")[0]
        known = self._internal.get(authority)
        if known is None:
            known = self._internal[authority] = _site_of(authority) == _site_of(self._authority)
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
