"""Asks by HEAD (RFC 9110, 9.3.2), and once more by GET where a server refuses that.

Law 8: the second request is an exchange like any other: it goes through robots.txt, the gate and the host's pace.
Law 1: a refusal of HEAD is no answer: 404 and 403 count only once GET has said the same.
"""

from __future__ import annotations

import msgspec

from fetcher.errors import FetchError
from fetcher.model import Exchange, Request, Response, Stage
from fetcher.request_state import current

__all__ = ["REFUSED_STATUSES", "ask_by_head"]

REFUSED_STATUSES = frozenset({400, 403, 404, 405, 406, 410, 501})
"""Statuses that servers are known to give to HEAD alone: GET decides."""

REFUSED_CODES = frozenset({"empty_reply", "connect_reset"})
"""Errors that mean the same, once the request was sent."""


async def ask_by_head(request: Request, proceed: Exchange) -> Response:
    """Make the exchange by HEAD, and by GET where that is refused; a row that comes back goes on by GET.

    Each hop of a chain of redirects is asked by HEAD first.
    """
    state = current.get()
    if state.by_get != request.url:
        try:
            response = await proceed(msgspec.structs.replace(request, method="HEAD"))
        except FetchError as error:
            if error.code not in REFUSED_CODES or state.stage not in (Stage.WAITING, Stage.READING):
                raise
        else:
            if response.status not in REFUSED_STATUSES:
                return response
        state.by_get = request.url
        state.free()
    return await proceed(request)
