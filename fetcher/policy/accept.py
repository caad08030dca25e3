"""Which statuses are pages: the others become a ``StatusError`` with the server's wish to wait."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from fetcher.config import Accept
from fetcher.errors import StatusError
from fetcher.model import Exchange, Middleware, Request, Response

__all__ = ["accept", "retry_after"]

FOREVER = 1e12  # seconds


def accept(statuses: Accept, clock: Callable[[], float] = time.time) -> Middleware:
    """Build the handler that lets through ``statuses`` and raises ``StatusError`` for the rest."""

    async def handle(request: Request, proceed: Exchange) -> Response:
        response = await proceed(request)
        status = response.status
        if status in statuses:
            return response
        wish = response.header("retry-after")
        raise StatusError(status, _phrase(status), retry_after(wish, clock()) if wish is not None else None)

    return handle


def _phrase(status: int) -> str:
    try:
        return f"the server answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"the server answered {status}"


def retry_after(value: str, now: float) -> float | None:
    """Read a ``Retry-After`` (RFC 9110, 10.2.3): seconds from ``now`` (epoch seconds), ``None`` if malformed.

    Takes delay-seconds and the three date forms of RFC 9110, 5.6.7; a date that is past means 0, and nothing is
    longer than ``FOREVER``.
    """
    text = value.strip(" \t")
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text), FOREVER)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - now)
