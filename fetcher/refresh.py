"""Where a page sends its reader by itself: the ``Refresh`` header and ``<meta http-equiv="refresh">``.

HTML Standard, "shared declarative refresh steps". Law 7: of a body only the first 4 KB are looked at, as they come, and
what is found there is a URL only once it has been parsed as one.
"""

from __future__ import annotations

import re

from fetcher.errors import InvalidURL
from fetcher.model import Response, first_values
from fetcher.urls import join, parse

__all__ = ["refresh_of"]

PRESCANNED_BYTES = 4_096

# A time, and behind it a URL, which may be quoted.
_CONTENT = re.compile(
    r"\s*(?:[0-9]+[0-9.]*|\.[0-9.]*)\s*(?:[;,]\s*|\s)(?:[;,\s]*)(?:url\s*=\s*)?(.*)", re.IGNORECASE | re.DOTALL
)
_UNSEEN = re.compile(
    rb"<!--.*?(?:-->|$)|<(script|style|noscript|template|textarea|title)\b.*?(?:</\1|$)", re.IGNORECASE | re.DOTALL
)
_META = re.compile(rb"<meta[\s/]([^>]*)>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"([^\s=/>\"']+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")


def refresh_of(response: Response) -> str | None:
    """Return the http(s) URL that a page leads to by itself, or ``None``: a page that only loads itself again is one."""
    said = first_values(response.headers).get("refresh")
    if said is None:
        body = response.body
        # Of most pages this is all that is done: to write 4 KB in small letters takes twenty times as long.
        # "equiv" is written so, as "Equiv" or as "EQUIV".
        if body.find(b"quiv", 0, PRESCANNED_BYTES) < 0 and body.find(b"QUIV", 0, PRESCANNED_BYTES) < 0:
            return None
        head = body[:PRESCANNED_BYTES]
        if b"refresh" not in head.lower():
            return None
        said = _meta_of(response, head)
    found = _CONTENT.match(said) if said is not None else None
    if found is None:
        return None
    text = found[1]
    if text[:1] in ("'", '"'):
        text = text[1:].partition(text[0])[0]
    if not text.strip():
        return None
    try:
        wire = parse(join(response.url, text)).wire
    except InvalidURL:
        return None
    return None if wire == response.url.partition("#")[0] else wire


def _meta_of(response: Response, head: bytes) -> str | None:
    """Return what the first ``<meta http-equiv="refresh">`` of an HTML page says."""
    kind = (response.header("content-type") or "text/html").lower()
    if "html" not in kind:
        return None
    for meta in _META.finditer(_UNSEEN.sub(b" ", head)):
        attributes = {
            name.lower(): first or second or third for name, first, second, third in _ATTRIBUTE.findall(meta[1])
        }
        if attributes.get(b"http-equiv", b"").strip().lower() == b"refresh":
            text: str = attributes.get(b"content", b"").decode("utf-8", "replace")
            return text.replace("&amp;", "&").replace("&#39;", "'").replace("&quot;", '"')
    return None
