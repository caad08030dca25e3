"""Whether a page forbids its own use: the words of ``--skip-when``, among those that it says to robots."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["denied_by"]

_WITH_VALUE = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
_NONE = frozenset({"noindex", "nofollow"})


def denied_by(said: str, words: Collection[str], token: str) -> str | None:
    """Return the first of ``words`` that a page says to us, or ``None``.

    ``said`` are directives with commas between them. Those behind the name of a robot (``otherbot: noindex``) are for
    that one, which is us where it is the product ``token`` of our User-Agent. ``none`` says noindex and nofollow.

    >>> denied_by("max-snippet:5, noai", {"noai"}, "us"), denied_by("them: noai, noindex", {"noindex"}, "us")
    ('noai', None)
    """
    for_us = True
    for part in said.lower().split(","):
        directive = part.strip()
        name, colon, rest = directive.partition(":")
        if colon and name.strip() not in _WITH_VALUE:
            for_us = name.strip() in (token.lower(), "*")
            directive = rest.strip()
        if for_us and (directive in words or (directive == "none" and not _NONE.isdisjoint(words))):
            return directive
    return None
