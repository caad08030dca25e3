"""What a page says to robots of itself: ``X-Robots-Tag`` headers and ``<meta name="robots">``, told and not judged."""

from __future__ import annotations

from collections.abc import Sequence

from selectolax.lexbor import LexborNode

from fetcher.model import Response

__all__ = ["METAS", "directives_of"]

METAS = "meta[name=robots i]"
"""The selector of the elements."""

LONGEST = 1_000  # characters that are told
MOST = 16  # elements that are looked at


def directives_of(response: Response, head: Sequence[LexborNode]) -> str | None:
    """Return all that is said, joined by commas (``noindex, nofollow``), or ``None`` for nothing.

    ``head`` has the ``METAS`` of the page's head, perhaps with other elements between them. A header may name the
    robot it is for (``otherbot: noindex``); that stands as it is.
    """
    said = [value for name, value in response.headers if name == "x-robots-tag"]
    metas = [node for node in head if node.tag == "meta"][:MOST]
    said += [node.attributes.get("content") or "" for node in metas]
    if not said:
        return None
    return ", ".join(filter(None, (" ".join(text.split()) for text in said)))[:LONGEST] or None
