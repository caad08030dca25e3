"""Which statuses are pages: the others become a ``StatusError`` with the server's wish to wait."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from fetcher.config import Accept
from fetcher.errors import StatusError
from fetcher.model import CONDITIONS, Exchange, Middleware, Request, Response, kept_headers
from fetcher.request_state import current

__all__ = ["accept", "retry_after", "wished_wait"]

MAX_WAIT_SECONDS = 1e12
MIN_DATE_SECONDS = 1e9  # since 1970: from here on a number is a date and no duration


def accept(
    statuses: Accept, clock: Callable[[], float] = time.time, *, keep_headers: Collection[str] = ()
) -> Middleware:
    """Build the handler that lets through ``statuses`` and raises ``StatusError`` for the rest.

    What ``keep_headers`` names of an answer that is refused goes with the error.
    """
    pages = frozenset(status for status in range(1_000) if status in statuses)

    async def handle(request: Request, proceed: Exchange) -> Response:
        response = await proceed(request)
        status = response.status
        if status in pages or status in statuses or (status == 304 and _has_asked(request)):
            return response
        error = StatusError(status, _phrase(status), wished_wait(response, clock()))
        if keep_headers:
            error.headers = kept_headers(response.headers, keep_headers)
        raise error

    return handle


def _has_asked(request: Request) -> bool:
    """Whether a 304 is the answer to a condition: of the row, or of an earlier run's page."""
    if any(name.lower() in CONDITIONS for name, _ in request.headers):
        return True
    state = current.get(None)
    return state is not None and state.not_modified


def _phrase(status: int) -> str:
    try:
        return f"the server answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"the server answered {status}"


def retry_after(value: str, now: float) -> float | None:
    """Read a ``Retry-After`` (RFC 9110, 10.2.3): seconds from ``now`` (epoch seconds), ``None`` if malformed.

    Takes delay-seconds and the three date forms of RFC 9110, 5.6.7; a date that is past means 0, and nothing is
    longer than ``MAX_WAIT_SECONDS``.
    """
    text = value.strip(" \t")
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text), MAX_WAIT_SECONDS)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - now)


def wished_wait(response: Response, now: float) -> float | None:
    """Return the seconds a host wishes us to wait (``now`` in epoch seconds), or ``None`` where it says nothing.

    ``Retry-After`` goes first; then, on a 429 and 503, the RateLimit fields of the IETF's drafts and the older
    ``X-RateLimit-…``, where nothing remains. A reset that is a date in epoch seconds is one.
    """
    wish = response.header("retry-after")
    seconds = retry_after(wish, now) if wish is not None else None
    if seconds is not None or response.status not in (429, 503):
        return seconds
    remaining, reset = _rate_limit(response.header("ratelimit") or "")
    for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-"):
        if remaining is None:
            remaining = _number(response.header(f"{prefix}remaining"))
        if reset is None:
            reset = _number(response.header(f"{prefix}reset"))
    if reset is None or (remaining is None and response.status != 429) or (remaining is not None and remaining > 0):
        return None
    if reset >= MIN_DATE_SECONDS * 1000:
        reset /= 1000  # milliseconds
    return min(max(0.0, reset - now) if reset >= MIN_DATE_SECONDS else reset, MAX_WAIT_SECONDS)


def _rate_limit(value: str) -> tuple[float | None, float | None]:
    """Read ``remaining=0, reset=30`` and ``"default";r=0;t=30``; of several policies the one with the least left."""
    found: list[tuple[float, float]] = []
    parts = [value] if re.search(r"remaining\s*=", value) else value.split(",")
    for part in parts:
        remaining = re.search(r"\b(?:r|remaining)\s*=\s*([0-9]+)", part)
        reset = re.search(r"\b(?:t|reset)\s*=\s*([0-9]+)", part)
        if remaining and reset:
            found.append((float(remaining[1]), float(reset[1])))
    if not found:
        return None, None
    least = min(remaining for remaining, _ in found)
    return least, max(reset for remaining, reset in found if remaining == least)


def _number(value: str | None) -> float | None:
    match = re.fullmatch(r"\s*([0-9]{1,15})(?:\.[0-9]*)?\s*", value or "")
    return float(match[1]) if match else None
