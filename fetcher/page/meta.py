"""What a page says of itself in its head, as one mapping: the column ``meta``; and its language, the column ``lang``.

Law 3: memory is bounded: at most ``MAX_ELEMENTS`` are looked at, and the URLs made of them have a bound together.
Law 7: what is no language, no date and no URL is not made into one: a language is left out, the others stay as they are
written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selectolax.lexbor import LexborNode

from fetcher.page.convert import convert
from fetcher.page.inner_text import inner_text
from fetcher.page.page_urls import BoundedURLs

__all__ = ["language_of", "read_meta"]

MAX_ELEMENTS = 2_000
MAX_HEADINGS = 100
MAX_HEADING_NODES = 1_000  # of each: they may be nested
MAX_LANGUAGE_CHARACTERS = 64
MAX_ROBOTS_CHARACTERS = 1_000

Attributes = Mapping[str, str | None]

_LANGUAGE = re.compile(r"[a-z]{1,8}(?:[-_][a-z0-9]{1,8})*", re.IGNORECASE)  # RFC 5646, and what POSIX makes of it

# The name of a meta element, in lower case, and what it says; of two for one thing the earlier in this table counts.
_AUTHOR = ("author", "article:author", "dc.creator", "dcterms.creator", "byl", "parsely-author", "sailthru.author")
_PUBLISHED = (
    "article:published_time", "datepublished", "og:published_time", "date", "pubdate", "publishdate", "publish-date",
    "publication_date", "dc.date", "dc.date.issued", "dcterms.issued", "dcterms.created", "dcterms.date", "parsely-pub-date",
    "sailthru.date", "citation_publication_date",
)  # fmt: skip
_MODIFIED = (
    "article:modified_time", "datemodified", "og:updated_time", "last-modified", "lastmod", "dcterms.modified",
    "dc.date.modified",
)  # fmt: skip
_DESCRIPTION = ("description", "dc.description", "dcterms.description")
_FIRST_OF = {
    name: (field, rank)
    for field, names in (
        ("description", _DESCRIPTION), ("author", _AUTHOR), ("published", _PUBLISHED), ("modified", _MODIFIED),
    )
    for rank, name in enumerate(names)
}  # fmt: skip
_GROUPS = frozenset({"og", "twitter", "article", "book", "fb", "music", "product", "profile", "video"})
"""Open Graph's own prefix, its types', and those that stand beside them."""
_URLS = frozenset({"url", "image", "video", "audio", "secure_url", "player", "stream"})  # the last word of a property
_FEEDS = frozenset({"application/rss+xml", "application/atom+xml", "application/feed+json"})
_ICONS = frozenset({"icon", "apple-touch-icon", "apple-touch-icon-precomposed", "mask-icon"})


def read_meta(elements: Sequence[LexborNode], headings: Sequence[LexborNode], urls: BoundedURLs) -> dict[str, Any]:
    """Return what the ``meta`` and ``link`` elements of a page say; what it does not say is left out.

    ``language`` is added by the caller. ``description``, ``canonical``, ``robots``, ``author``, ``published`` and
    ``modified`` (ISO 8601 where they convert) are texts, ``og``, ``twitter``, ``article`` and the other ``_GROUPS``
    mappings of a property's rest to its text, or to a list of several; ``h1``, ``feeds``, ``icons`` and ``keywords``
    lists, ``hreflang`` a mapping of languages to URLs. URLs are absolute.
    """
    found: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for element in elements[:MAX_ELEMENTS]:
        attributes = element.attributes
        if element.tag == "link":
            _read_link(attributes, found, urls)
        else:
            _read_meta_element(attributes, found, ranks, urls)
    for field in ("published", "modified"):
        if field in found:
            found[field] = convert(found[field], "date") or found[field]
    texts = [inner_text(heading, max_nodes=MAX_HEADING_NODES) for heading in headings[:MAX_HEADINGS]]
    if texts := list(filter(None, texts)):
        found["h1"] = texts
    return found


def _read_meta_element(attributes: Attributes, found: dict[str, Any], ranks: dict[str, int], urls: BoundedURLs) -> None:
    name = attributes.get("name") or attributes.get("property") or attributes.get("itemprop")
    content = attributes.get("content")
    if not name or not content:
        return
    name = name.strip().lower()
    content = " ".join(content.split())
    if not content:
        return
    prefix, colon, rest = name.partition(":")
    if colon and rest and prefix in _GROUPS:
        if rest.rpartition(":")[2] in _URLS:
            content = urls.resolve(content) or content
        _add(found.setdefault(prefix, {}), rest, content)
    if name in _FIRST_OF:
        field, rank = _FIRST_OF[name]
        if rank < ranks.get(field, len(_FIRST_OF)):
            found[field], ranks[field] = content, rank
    elif name == "robots":
        said = found.get("robots")
        found["robots"] = (content if said is None else f"{said}, {content}")[:MAX_ROBOTS_CHARACTERS]
    elif name == "keywords":
        found.setdefault("keywords", []).extend(filter(None, map(str.strip, content.split(","))))


def _read_link(attributes: Attributes, found: dict[str, Any], urls: BoundedURLs) -> None:
    relations = (attributes.get("rel") or "").lower().split()
    href = attributes.get("href")
    if not href or not relations:
        return
    if "canonical" in relations:
        if "canonical" not in found and (url := urls.resolve(href)):
            found["canonical"] = url
    elif "alternate" in relations:
        language = attributes.get("hreflang")
        if (attributes.get("type") or "").partition(";")[0].strip().lower() in _FEEDS:
            if url := urls.resolve(href):
                found.setdefault("feeds", []).append(url)
        elif language and _is_language(language.strip()) and (url := urls.resolve(href)):
            found.setdefault("hreflang", {}).setdefault(language.strip(), url)
    elif not _ICONS.isdisjoint(relations) and (url := urls.resolve(href)):
        found.setdefault("icons", []).append(url)


def _add(group: dict[str, Any], name: str, text: str) -> None:
    before = group.get(name)
    if before is None:
        group[name] = text
    elif isinstance(before, list):
        before.append(text)
    else:
        group[name] = [before, text]


def language_of(*said: str | None) -> str | None:
    """Return the first of what is said that is a language (``de``, ``pt-BR``), without others behind it, or ``None``.

    >>> language_of(None, "", "en_GB, fr")
    'en-GB'
    """
    for text in said:
        first = (text or "").partition(",")[0].strip()
        if _is_language(first):
            return first.replace("_", "-")
    return None


def _is_language(text: str) -> bool:
    return len(text) <= MAX_LANGUAGE_CHARACTERS and _LANGUAGE.fullmatch(text) is not None
