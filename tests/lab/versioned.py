"""Owns a site whose pages have versions: each answers a condition with 304 as long as its version is the one asked for."""

from __future__ import annotations

from collections import Counter

from tests.lab.exchange import Exchange

BODY_BYTES = 20_000


class VersionedSite:
    """A case for ``lab.add``: the page ``?n=NAME`` in its version of ``versions``, or 404 where that is ``None``.

    ``by`` says which validators there are: ``etag``, ``date``, ``both`` or ``none``. ``sent`` are bytes of bodies,
    ``told`` counts the answers.
    """

    def __init__(self, *names: str, by: str = "etag") -> None:
        self.versions: dict[str, int | None] = dict.fromkeys(names, 1)
        self.by = by
        self.sent = 0
        self.told: Counter[int] = Counter()
        self.conditions: list[tuple[str, str]] = []

    async def __call__(self, exchange: Exchange) -> None:
        name = exchange.text("n")
        version = self.versions.get(name)
        headers = []
        asked = {key.lower(): value for key, value in exchange.entry.headers}
        self.conditions += [(key, asked[key]) for key in ("if-none-match", "if-modified-since") if key in asked]
        etag, date = f'"{name}-{version}"', f"Sun, {version or 0:02d} Nov 2026 08:00:00 GMT"
        if self.by in ("etag", "both"):
            headers.append(("ETag", etag))
        if self.by in ("date", "both"):
            headers.append(("Last-Modified", date))
        if version is None:
            status, body = 404, b"gone"
        elif asked.get("if-none-match") == etag or asked.get("if-modified-since") == date:
            status, body = 304, b""
        else:
            status, body = 200, self.page(name).encode()
        self.told[status] += 1
        self.sent += len(body)
        await exchange.reply(body, status, headers=headers)

    def page(self, name: str) -> str:
        """Return a page: the price is its version, and a counter in it changes with each answer where it says so."""
        return (
            f"<!doctype html><title>{name} v{self.versions[name]}</title><h1>{name}</h1>"
            f"<b class=p>{self.versions[name]}.50</b><i>x</i><i>{name}</i><p>{'text ' * (BODY_BYTES // 5)}<a href='/x'>x</a><img src='/i.png'>"
        )
