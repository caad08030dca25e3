"""From a response and what was read out of it to the page, or to the failure to read it.

Law 1: one outcome per request. What is known of a response that cannot be read stands in its failure.
"""

from __future__ import annotations

import msgspec
from xxhash import xxh3_128_hexdigest

from fetcher.charset import replace_surrogates
from fetcher.model import Failure, Page, Pairs, Response
from fetcher.page.parse import Reading
from fetcher.refresh import refresh_of

__all__ = ["add_reading", "body_digest", "page_of", "validators_of"]

MAX_VALIDATOR_CHARACTERS = 1_000


def add_reading(failure: Failure, response: Response, reading: Reading, *, headers: Pairs = ()) -> Failure:
    """Return a failure to read a response with what is known of that: its record lacks nothing but the data."""
    return msgspec.structs.replace(
        failure,
        url=response.url,
        status=response.status,
        bytes=len(response.body),
        redirects=response.redirects,
        length=reading.length,
        content_type=reading.content_type,
        charset=reading.charset,
        title=reading.title,
        links=reading.links,
        truncated=response.truncated,
        robots=reading.robots,
        refresh=refresh_of(response),
        headers=headers,
    )


def page_of(
    response: Response,
    reading: Reading,
    *,
    waited: float,
    fetched_at: float,
    headers: Pairs = (),
    keep_body: bool = False,
    with_digest: bool = True,
) -> Page:
    """Make the page of a response and of what was read out of it.

    ``waited`` is in seconds, ``fetched_at`` in seconds since the epoch, ``headers`` are those to keep.
    """
    etag, last_modified = validators_of(response)
    return Page(
        request=response.request,
        url=response.url,
        status=response.status,
        length=reading.length,
        bytes=len(response.body),
        content_type=reading.content_type,
        charset=reading.charset,
        title=reading.title,
        links=reading.links,
        data=reading.data,
        redirects=response.redirects,
        elapsed=response.elapsed,
        waited=waited,
        attempts=response.attempts,
        fetched_at=fetched_at,
        truncated=response.truncated,
        robots=reading.robots,
        refresh=refresh_of(response),
        preview=reading.preview,
        content=reading.content,
        found=reading.found,
        unconverted=reading.unconverted,
        unread=reading.unread,
        headers=headers,
        body=response.body if keep_body else None,
        etag=etag,
        last_modified=last_modified,
        digest=body_digest(response.body) if with_digest else None,
    )


def validators_of(response: Response) -> tuple[str | None, str | None]:
    """Return the ``ETag`` and the ``Last-Modified`` of a response as sent (RFC 9110, 8.8), not all of a very long one."""
    etag = last_modified = None
    for name, value in response.headers:
        if name == "etag":
            etag = _shown(value)
        elif name == "last-modified":
            last_modified = _shown(value)
    return etag, last_modified


def body_digest(body: bytes) -> str:
    """Return what tells a body from another: XXH3 of 128 bits, made for speed and not against who means to deceive."""
    return f"xxh3:{xxh3_128_hexdigest(body)}"


def _shown(value: str) -> str:
    return replace_surrogates(value[:MAX_VALIDATOR_CHARACTERS])
