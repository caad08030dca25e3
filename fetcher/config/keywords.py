"""The options as keywords: which names there are and what each may be, for editors and type checkers.

``OPTIONS`` in ``config.py`` is what reads them; a test holds the two tables against each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from fetcher.buckets import Shard
from fetcher.config.options import ClientCertificate, Header
from fetcher.config.policies import ContentPart, HostPolicy, PrivateNetwork, TextFormat, TextMethod, TLSProfile, Within

__all__ = ["ConfigOptions", "LimitOptions"]

Amount: TypeAlias = float | str
"""A number, or the text a user would type: seconds (``"500ms"``, ``"2m"``), or requests per second (``"30/m"``)."""

Size: TypeAlias = int | str
"""Bytes, or a text such as ``"10M"``."""

Statuses: TypeAlias = int | str | Sequence[int | str]
"""Status codes: ``404``, ``"2xx,404"``, ``["200-299", 404]``."""

Texts: TypeAlias = str | Sequence[str]
"""One text, or a list of them."""

FileName: TypeAlias = str | os.PathLike[str]


class LimitOptions(TypedDict, total=False):
    """What ``Fetcher.set_limits`` takes: options of a ``Config`` that can be changed while a stream runs."""

    concurrency: int
    rate: Amount | None
    hosts: Mapping[str, Mapping[str, Any]] | tuple[tuple[str, HostPolicy], ...]


class ConfigOptions(TypedDict, total=False):
    """What ``Config.of`` takes, and so do ``Fetcher``, ``fetch`` and ``fetch_all``: the command line's names with ``_``.

    ``keep_body`` keeps each page's body in ``Page.body``: in memory, as long as the page is. ``keep_messages`` keeps
    what was on the wire in ``messages``, for a web archive. ``columns`` and ``explode`` are for outputs.
    ``parse=False`` leaves ``title``, ``links`` and the robots ``meta`` out: without these a page is parsed only where
    something is taken out of it. ``with_`` is ``with`` elsewhere, which is a word of Python's own:
    ``with_="meta,links"``. ``select`` may also be a mapping, of names to selectors:
    ``{"price": ".price", "images[]": "img@src"}``.
    """

    concurrency: int
    per_host: int
    delay: Amount
    rate: Amount | None
    per_site: int | None
    per_address: int | None
    max_crawl_delay: Amount
    max_redirects: int
    max_size: Size
    truncate: bool
    memory: Size
    lookahead: int
    limit: int | None
    time_limit: Amount | None
    timeout: Amount
    connect_timeout: Amount
    read_timeout: Amount
    retries: int
    backoff: Amount
    max_backoff: Amount
    max_retry_after: Amount
    host_patience: Amount
    accept: Statuses
    retry_on: Statuses | None
    private_network: PrivateNetwork
    user_agent: str
    header: str | Header | Sequence[str | Header]
    user: Texts
    cookie: Texts
    cookie_file: Texts
    insecure: bool
    ca_bundle: FileName | None
    cert: str | ClientCertificate | Sequence[str | ClientCertificate]
    key: FileName | None
    tls: TLSProfile
    proxy: str | None
    http_proxy: str | None
    https_proxy: str | None
    no_proxy: Texts
    isolate: bool
    parsers: int | Literal["auto"] | None
    parse_timeout: Amount
    hosts: Mapping[str, Mapping[str, Any]] | tuple[tuple[str, HostPolicy], ...]
    robots: bool
    default_scheme: Literal["auto", "https", "http"]
    select: Texts | Mapping[str, str]
    select_from: FileName
    table: str | None
    skip_when: Texts
    explode: str | None
    with_: ContentPart | str | Sequence[ContentPart]
    text: TextMethod | None
    text_format: TextFormat
    preview: int
    columns: Texts
    keep_headers: Texts
    keep_body: bool
    keep_messages: bool
    parse: bool
    dedupe: bool
    shard: str | Shard | None
    follow: bool
    follow_css: str | None
    depth: int | None
    within: Within
    include: Texts
    exclude: Texts
    max_pages: int
    max_pages_per_host: int | None
    follow_refresh: bool
    head: bool
    max_failed: int | str | None
