"""The links and the images of a page, as lists of records: the columns ``link_list`` and ``image_list``.

Law 3: memory is bounded by what was made of the page, whatever it names: a list ends where there is no more room.
Law 7: what runs (``javascript:``) or is no address (``data:``) is no link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selectolax.lexbor import LexborNode

from fetcher.page.inner_text import PARTING, TEXT, inner_text, only_text
from fetcher.page.page_urls import BoundedURLs, shortened
from fetcher.urls import MAX_URL

__all__ = ["read_images", "read_links"]

MAX_TEXT_NODES = 1_000  # of a link that its text is made of: links may be nested, and each would say all within again
MAX_SRCSET_CHARACTERS = 65_536
RECORD_CHARACTERS = 64  # that the names of a record count as

_UNKNOWN: Any = object()
_NO_LINKS = ("javascript:", "data:", "vbscript:", "about:")
_LAZY = ("data-src", "data-lazy-src", "data-original", "data-lazy")  # where scripts keep the true address


def read_links(anchors: Sequence[LexborNode], urls: BoundedURLs) -> list[dict[str, Any]]:
    """Return a record for each link that leads somewhere, in their order.

    ``url`` is absolute, ``text`` is what a person sees of it, ``rel`` as written or ``None``; ``internal`` says that it
    leads to the registrable domain of the page. In XML, ``link`` elements are links too.
    """
    links: list[dict[str, Any]] = []
    known: dict[str, tuple[str, bool] | None] = {}
    resolve, is_internal, own = urls.base.resolve, urls.is_internal, urls.own
    left = urls.left
    for anchor in anchors:
        attributes = anchor.attributes
        reference = attributes.get("href")
        if reference is None:
            reference = inner_text(anchor) if anchor.tag == "link" else ""
        target = known.get(reference, _UNKNOWN)
        if target is _UNKNOWN:  # a page links to most of what it links to more than once
            url = resolve(reference)
            if url is None or len(url) > MAX_URL:
                target = None
            elif url.startswith(own):
                target = url, True
            else:
                target = None if url.startswith(_NO_LINKS) else (url, is_internal(url))
            known[reference] = target
        if target is None:
            continue
        url, internal = target
        child = anchor.first_child
        text: str | None = None
        if child is None:
            text = ""
        elif child.next is None:
            tag = child.tag_id
            if tag == TEXT:  # most links
                text = " ".join((child.text_content or "").split())
            elif tag not in PARTING:
                text = only_text(child)
        if text is None:
            text = inner_text(anchor, max_nodes=MAX_TEXT_NODES)
        left -= len(url) + len(text) + RECORD_CHARACTERS
        if left < 0:
            break
        links.append({"url": url, "text": text, "rel": attributes.get("rel"), "internal": internal})
    urls.left = left
    return links


def read_images(images: Sequence[LexborNode], urls: BoundedURLs) -> list[dict[str, Any]]:
    """Return a record for each ``img``, in their order.

    ``url`` is absolute; a ``data:`` URL is cut to its beginning, and where a script is to put another address in its
    place (``data-src``), that one is taken. ``alt`` is as written or ``None``, ``srcset`` the absolute candidates, each
    with its descriptor, ``width`` and ``height`` whole numbers or ``None``.
    """
    found: list[dict[str, Any]] = []
    for image in images:
        if urls.left < 0:
            break
        attributes = image.attributes
        source = attributes.get("src") or ""
        if not source.strip() or source[:5].lower() == "data:":
            source = next((value for name in _LAZY if (value := attributes.get(name))), source)
        candidates = attributes.get("srcset") or attributes.get("data-srcset") or ""
        srcset = _candidates(candidates, urls) if candidates else []
        url = urls.resolve(source) if source.strip() else None
        if url is None and not srcset:
            continue
        alt = attributes.get("alt")
        urls.left -= len(alt or "") + RECORD_CHARACTERS
        found.append({
            "url": url, "alt": alt, "srcset": srcset,
            "width": _pixels(attributes.get("width")), "height": _pixels(attributes.get("height")),
        })  # fmt: skip
    return found


def _candidates(written: str, urls: BoundedURLs) -> list[str]:
    listed: list[str] = []
    for candidate in urls.urls.candidates(written[:MAX_SRCSET_CHARACTERS]):
        short = shortened(candidate) if candidate.startswith("data:") else candidate
        urls.left -= len(short)
        if urls.left < 0:
            break
        listed.append(short)
    return listed


def _pixels(written: str | None) -> int | None:
    digits = (written or "").strip().removesuffix("px")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
