"""A list whose pages' links are followed, as a source of rows for the library."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence

from fetcher.config import Config
from fetcher.config.policies import Within
from fetcher.intake import Followed, Row

__all__ = ["follow"]


def follow(
    urls: str | Iterable[Row] | AsyncIterable[Row],
    *,
    css: str | None = None,
    depth: int | None = None,
    within: Within = "host",
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    max_pages: int = 10_000,
    max_pages_per_host: int | None = None,
) -> Followed:
    """Return a source of rows for ``Fetcher.stream``, ``Fetcher.run`` and ``fetch_all``: ``urls``, and what their pages link to.

    The rules are those of the options ``follow``, ``follow_css`` and so on, which a ``Job`` goes by: links of ``a`` and
    ``area`` elements, or of those that match ``css``; at most ``depth`` links away; ``within`` the host, the site or
    the folder of the URL they began at; ``include`` and ``exclude`` are globs over the whole URL, or regular
    expressions behind ``re:``. Each URL is one row, whoever names it; those that are found have ids over 10**9, and say
    where they come from in ``Request.discovery``. Outcomes come as they complete. Raises ``ConfigError``.

    >>> pages = fetch_all(follow("https://docs.python.org/3/", depth=1), concurrency=3)  # doctest: +SKIP
    """
    config = Config.of(
        follow=True,
        follow_css=css,
        depth=depth,
        within=within,
        include=include,
        exclude=exclude,
        max_pages=max_pages,
        max_pages_per_host=max_pages_per_host,
    )
    from fetcher.page.found_links import check_rules  # it parses HTML

    check_rules(config.follow)
    return Followed([urls] if isinstance(urls, str) else urls, config.follow)
