"""The links and the images of a page, as lists of records: the columns ``link_list`` and ``image_list``.

Law 3: memory is bounded by what was made of the page, whatever it names: a list ends where there is no more room.
Law 7: what runs (``javascript:``) or is no address (``data:``) is no link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selectolax.lexbor import LexborNode

from fetcher.page.inner_text import inner_text, is_inline
from fetcher.page.page_urls import BoundedURLs, shortened

__all__ = ["read_images", "read_links"]

MAX_TEXT_NODES = 1_000  # of a link that its text is made of: links may be nested, and each would say all within again
MAX_DEPTH = 8  # of elements around nothing but the text of a link
MAX_SRCSET_CHARACTERS = 65_536
RECORD_CHARACTERS = 64  # that the names of a record count as

_NO_LINKS = ("javascript:", "data:", "vbscript:", "about:")
_LAZY = ("data-src", "data-lazy-src", "data-original", "data-lazy")  # where scripts keep the true address
_TEXT = 2  # LXB_TAG__TEXT


def read_links(anchors: Sequence[LexborNode], urls: BoundedURLs) -> list[dict[str, Any]]:
    """Return a record for each link that leads somewhere, in their order.

    ``url`` is absolute, ``text`` is what a person sees of it, ``rel`` as written or ``None``; ``internal`` says that it
    leads to the registrable domain of the page. In XML, ``link`` elements are links too.
    """
    links: list[dict[str, Any]] = []
    resolve, is_internal = urls.resolve, urls.is_internal
    for anchor in anchors:
        attributes = anchor.attributes
        reference = attributes.get("href")
        if reference is None:
            reference = inner_text(anchor) if anchor.tag == "link" else ""
        url = resolve(reference)
        if url is None or url.startswith(_NO_LINKS):
            if urls.full:
                break
            continue
        text = _text_of(anchor)
        urls.take(len(text) + RECORD_CHARACTERS)
        links.append({"url": url, "text": text, "rel": attributes.get("rel"), "internal": is_internal(url)})
    return links


def _text_of(anchor: LexborNode) -> str:
    """Return the text of a link: most have nothing but a text in them, or an element or two around one."""
    node = anchor.first_child
    for _ in range(MAX_DEPTH):
        if node is None:
            return ""
        if node.next is not None:
            break
        if node.tag_id == _TEXT:
            return " ".join((node.text_content or "").split())
        if not is_inline(node):
            break
        node = node.first_child
    return inner_text(anchor, max_nodes=MAX_TEXT_NODES)


def read_images(images: Sequence[LexborNode], urls: BoundedURLs) -> list[dict[str, Any]]:
    """Return a record for each ``img``, in their order.

    ``url`` is absolute; a ``data:`` URL is cut to its beginning, and where a script is to put another address in its
    place (``data-src``), that one is taken. ``alt`` is as written or ``None``, ``srcset`` the absolute candidates, each
    with its descriptor, ``width`` and ``height`` whole numbers or ``None``.
    """
    found: list[dict[str, Any]] = []
    for image in images:
        if urls.full:
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
        urls.take(len(alt or "") + RECORD_CHARACTERS)
        found.append({
            "url": url, "alt": alt, "srcset": srcset,
            "width": _pixels(attributes.get("width")), "height": _pixels(attributes.get("height")),
        })  # fmt: skip
    return found


def _candidates(written: str, urls: BoundedURLs) -> list[str]:
    listed: list[str] = []
    for candidate in urls.urls.candidates(written[:MAX_SRCSET_CHARACTERS]):
        short = shortened(candidate) if candidate.startswith("data:") else candidate
        urls.take(len(short))
        if urls.full:
            break
        listed.append(short)
    return listed


def _pixels(written: str | None) -> int | None:
    digits = (written or "").strip().removesuffix("px")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
