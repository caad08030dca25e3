"""What a page says to robots of itself: ``X-Robots-Tag`` headers and ``<meta name="robots">``, told and not judged."""

from __future__ import annotations

from selectolax.lexbor import LexborHTMLParser

from fetcher.model import Response

__all__ = ["directives_of"]

LONGEST = 1_000  # characters that are told
METAS = 16  # elements that are looked at


def directives_of(response: Response, tree: LexborHTMLParser | None) -> str | None:
    """Return all that is said, joined by commas (``noindex, nofollow``), or ``None`` for nothing.

    A header may name the robot it is for (``otherbot: noindex``); that stands as it is.
    """
    said = [value for name, value in response.headers if name == "x-robots-tag"]
    head = tree.head if tree is not None else None
    if head is not None:
        said += [node.attributes.get("content") or "" for node in head.css('meta[name="robots" i]')[:METAS]]
    if not said:
        return None
    return ", ".join(filter(None, (" ".join(text.split()) for text in said)))[:LONGEST] or None
