"""Asks for a page only if it has changed (RFC 9110, 13): with the validators that an earlier run was given.

Law 7: what a server once sent is sent back only where it can be a validator, and to the very URL that it came from:
never to another hop of the chain. A 304 is an answer to whoever asked with a condition, and to nobody else.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import msgspec

from fetcher.model import CONDITIONS, EarlierRun, Exchange, Page, Pairs, Request, Response
from fetcher.request_state import current, known_page, leads_on

__all__ = ["Conditional", "conditions_of"]

MAX_SENT_CHARACTERS = 999  # of a validator: a longer one was cut when it was recorded
# An entity tag (RFC 9110, 8.8.3), or what servers send in place of one. "*" would ask whether there is any page at all.
_TAG = re.compile(r'(?:W/)?"[!#-~]*"|[!#-)+-~][!#-+\--~]*')


class Conditional(msgspec.Struct, frozen=True):
    """The handler of each hop: it adds the conditions, where this hop is the page that ``earlier`` knows."""

    earlier: EarlierRun

    async def __call__(self, request: Request, proceed: Exchange) -> Response:
        """Ask for one hop, and note whether it has not changed."""
        state = current.get()
        state.not_modified = False
        page = known_page(state, self.earlier)
        if (
            page is None
            or page.url != request.url
            or leads_on(state.request, page)
            or not self.earlier.stands_for(page)
        ):
            return await proceed(request)
        given = {name.lower() for name, _ in request.headers}
        conditions = () if given & CONDITIONS else conditions_of(page)
        if not conditions:
            return await proceed(request)
        response = await proceed(msgspec.structs.replace(request, headers=(*request.headers, *conditions)))
        state.not_modified = response.status == 304
        return response


def conditions_of(page: Page) -> Pairs:
    """Return the headers that ask whether a page has changed, none where its server gave nothing to ask with."""
    found = []
    etag, date = page.etag, page.last_modified
    if etag is not None and len(etag) <= MAX_SENT_CHARACTERS and _TAG.fullmatch(etag):
        found.append(("If-None-Match", etag))
    if date is not None and _is_date(date):
        found.append(("If-Modified-Since", date))
    return tuple(found)


def _is_date(text: str) -> bool:
    if len(text) > 64 or not text.isascii() or not text.isprintable():
        return False
    try:
        parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return False
    return True
