"""The links and the images of a page, as lists of records: the columns ``link_list`` and ``image_list``.

Law 3: memory is bounded by what was made of the page, whatever it names: a list ends where there is no more room.
Law 7: what runs (``javascript:``) or is no address (``data:``) is no link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selectolax.lexbor import LexborNode

from fetcher.page.inner_text import PARTING, TEXT, inner_text
from fetcher.page.page_urls import BoundedURLs, shortened
from fetcher.urls import MAX_URL

__all__ = ["read_images", "read_links"]

MAX_TEXT_NODES = 1_000  # of a link that its text is made of: links may be nested, and each would say all within again
MAX_SRCSET_CHARACTERS = 65_536
RECORD_CHARACTERS = 64  # that the names of a record count as

_AROUND = range(8)  # elements, one within the other, around a text
_UNKNOWN: Any = object()
_NO_LINKS = ("javascript:", "data:", "vbscript:", "about:")
_LAZY = ("data-src", "data-lazy-src", "data-original", "data-lazy")  # where scripts keep the true address


def read_links(anchors: Sequence[LexborNode], urls: BoundedURLs) -> list[dict[str, Any]]:
    """Return a record for each link that leads somewhere, in their order.

    ``url`` is absolute, ``text`` is what a person sees of it, ``rel`` as written or ``None``; ``internal`` says that it
    leads to the registrable domain of the page. In XML, ``link`` elements are links too.
    """
    links: list[dict[str, Any]] = []
    known: dict[str, tuple[str, bool, int] | None] = {}
    left, resolve = urls.left, urls.base.resolve
    for anchor in anchors:
        attributes = anchor.attributes
        reference = attributes.get("href")
        if reference is None:
            reference = inner_text(anchor) if anchor.tag == "link" else ""
        target = known.get(reference, _UNKNOWN)
        if target is _UNKNOWN:  # a page links to most of what it links to more than once
            target = known[reference] = _target_of(resolve(reference), urls)
        if target is None:
            continue
        url, internal, size = target
        # Most links are a text, or an element or two around one, and so are read here, without a call.
        text: str | None = None
        node = anchor.first_child
        for _ in _AROUND:
            if node is None:
                text = ""
                break
            if node.next is not None:
                break
            tag = node.tag_id
            if tag == TEXT:
                text = node.text_content or ""
                if " " in text or not text.isprintable():  # all other white space is not printable
                    text = " ".join(text.split())
                break
            if tag in PARTING:
                break
            node = node.first_child
        if text is None:
            text = inner_text(anchor, max_nodes=MAX_TEXT_NODES)
        left -= size + len(text)
        if left < 0:
            break
        links.append({"url": url, "text": text, "rel": attributes.get("rel"), "internal": internal})
    urls.left = left
    return links


def _target_of(url: str | None, urls: BoundedURLs) -> tuple[str, bool, int] | None:
    """Return an absolute URL, whether it is internal, and the room for its record; ``None`` for what is no link."""
    if url is None or len(url) > MAX_URL:
        return None
    internal = url.startswith(urls.own)
    if not internal:
        if url.startswith(_NO_LINKS):
            return None
        internal = urls.is_internal(url)
    return url, internal, len(url) + RECORD_CHARACTERS


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
