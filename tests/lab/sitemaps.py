"""Owns sitemaps for tests: their text, and a site of the lab that serves them and can change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.lab.exchange import Exchange
from tests.lab.server import LabServer

NAMESPACE = "http://www.sitemaps.org/schemas/sitemap/0.9"
BILLION_LAUGHS = (
    '<?xml version="1.0"?>\n<!DOCTYPE lolz [\n<!ENTITY a "lol">\n'
    + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">\n' for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    + "]>\n<urlset><url><loc>http://127.0.0.1/&j;</loc></url></urlset>"
)


def urlset(urls: Iterable[str], **fields: str) -> str:
    """Return a sitemap of these pages, each with the same ``fields``."""
    more = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    rows = "".join(f"<url><loc>{url}</loc>{more}</url>\n" for url in urls)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{NAMESPACE}">\n{rows}</urlset>\n'


def index(urls: Iterable[str]) -> str:
    """Return an index of these sitemaps."""
    rows = "".join(f"<sitemap><loc>{url}</loc></sitemap>\n" for url in urls)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<sitemapindex xmlns="{NAMESPACE}">\n{rows}</sitemapindex>\n'


class SitemapSite:
    """Pages of one host of a lab by their paths, which a test may change while it runs; all below ``/ok`` are pages."""

    def __init__(self, lab: LabServer, host: int = 1) -> None:
        self.lab = lab
        self.host = host
        self.files: dict[str, bytes | Callable[[], bytes] | int] = {}

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return self.lab.url(path, self.host)

    def pages(self, *names: object) -> list[str]:
        """Return pages by these names."""
        return [self.url(f"/ok?n={name}") for name in names]

    def put(self, path: str, body: str | bytes | Callable[[], bytes] | int, kind: str = "application/xml") -> None:
        """Serve ``body``, what a function returns, or a status at ``path``."""
        self.files[path] = body.encode() if isinstance(body, str) else body

        async def answer(exchange: Exchange) -> None:
            found = self.files[path]
            if isinstance(found, int):
                await exchange.reply(b"", found)
            else:
                await exchange.reply(found() if callable(found) else found, kind=kind)

        self.lab.add(path, answer, self.host)

    def asked(self, path: str) -> int:
        """Return how often a path was asked for since the log was cleared."""
        return sum(entry.path == path for entry in self.lab.log)
