"""Statuses and exceptions, mocked: which are tried again, how often, and whose fault they are.

Nothing of the wire takes part in these: no timeout, limit, connection or coding of aiohttp's.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import ssl
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
import yarl
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.model import Outcome, Page, Request
from tests.lab.crawl import code_of, crawl, one

URL = "http://a.example/page"
KEY = ConnectionKey("a.example", 80, False, True, None, None, None, None)
INFO = aiohttp.RequestInfo(yarl.URL(URL), "GET", CIMultiDictProxy(CIMultiDict()), yarl.URL(URL))
QUICK: dict[str, Any] = {"retries": 2, "backoff": 0.001, "max_backoff": 0.001, "host_patience": 0.05}


def asked(mocked: Any, url: str = URL) -> int:
    """Return how often a URL was asked for."""
    return len(mocked.requests.get(("GET", yarl.URL(url)), ()))


def answers(mocked: Any, *statuses: int | Exception, url: str = URL, **options: Any) -> None:
    """Answer a URL with each of these in turn."""
    for status in statuses:
        if isinstance(status, Exception):
            mocked.get(url, exception=status)
        else:
            mocked.get(url, status=status, content_type="text/html", **options)


# Statuses


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(mocked: Any, status: int) -> None:
    answers(mocked, status, status, 200, body="<title>at last</title>")
    page = await one(URL, **QUICK)
    assert isinstance(page, Page)
    assert (page.title, page.attempts, asked(mocked)) == ("at last", 3, 3)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
async def test_tries_come_to_an_end(mocked: Any, status: int) -> None:
    answers(mocked, *[status] * 10)
    outcome = await one(URL, **QUICK)
    assert (code_of(outcome), outcome.attempts, asked(mocked)) == (f"http_{status}", 3, 3)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 405, 410, 418, 451, 501, 505, 599])
async def test_what_stays_is_asked_once(mocked: Any, status: int) -> None:
    answers(mocked, status, 200)
    outcome = await one(URL, **QUICK)
    assert (code_of(outcome), outcome.attempts, asked(mocked)) == (f"http_{status}", 1, 1)


async def test_what_is_accepted_is_a_page(mocked: Any) -> None:
    answers(mocked, 404, 503, body="<title>gone</title>", headers={"Retry-After": "100"})
    outcomes = await crawl([URL, URL], accept="404,5xx", **QUICK)
    assert [(code_of(outcome), outcome.title) for outcome in outcomes] == [(404, "gone"), (503, "gone")]


async def test_no_retries_means_none(mocked: Any) -> None:
    answers(mocked, 500, 200)
    assert code_of(await one(URL, retries=0)) == "http_500"
    assert asked(mocked) == 1


# Whose fault it is


@pytest.mark.parametrize("status", [429, 503])
async def test_a_throttling_host_is_parked_and_the_row_pays_nothing(mocked: Any, status: int) -> None:
    answers(mocked, status, status, headers={"Retry-After": "0"})
    answers(mocked, 200)
    page = await one(URL, **QUICK | {"retries": 0})
    assert (code_of(page), page.attempts, asked(mocked)) == (200, 1, 3)


async def test_a_parked_host_waits_and_the_others_do_not(mocked: Any) -> None:
    other = "http://b.example/"
    answers(mocked, 429, headers={"Retry-After": "1"})
    answers(mocked, 200, 200)
    answers(mocked, 200, url=other)
    async with asyncio.timeout(30), Fetcher(Config.of(retries=0, per_host=1, robots=False)) as fetcher:
        async with fetcher.stream([URL, URL, other]) as outcomes:
            found: list[Outcome] = [outcome async for outcome in outcomes]
    assert found[0].request.url == other
    assert {code_of(outcome) for outcome in found} == {200}
    assert max(outcome.waited for outcome in found[1:]) >= 0.9  # of the row that was refused


async def test_a_wish_that_is_too_long_ends_the_host(mocked: Any) -> None:
    answers(mocked, 429, headers={"Retry-After": "301"})
    answers(mocked, *[200] * 9)
    outcomes = await crawl([URL] * 5, per_host=1)
    assert [code_of(outcome) for outcome in outcomes] == ["host_budget"] * 5
    assert asked(mocked) == 1


async def test_a_host_that_only_refuses_is_given_up(mocked: Any) -> None:
    answers(mocked, *[429] * 500)
    outcomes = await crawl([URL] * 3, **QUICK | {"host_patience": 60})
    assert {code_of(outcome) for outcome in outcomes} == {"host_budget"}
    assert {outcome.attempts for outcome in outcomes} == {0}
    assert 20 <= asked(mocked) <= 20 * 3


async def test_a_refused_connect_is_the_rows_until_the_host_has_answered(mocked: Any) -> None:
    refused = aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
    answers(mocked, *[refused] * 3)
    outcome = await one(URL, **QUICK)
    assert (code_of(outcome), outcome.attempts, asked(mocked)) == ("connect_refused", 3, 3)
    answers(mocked, 200, *[refused] * 10, 200)
    outcomes = await crawl([URL, URL], per_host=1, **QUICK | {"host_patience": 60, "retries": 1})
    assert [(code_of(outcome), outcome.attempts) for outcome in outcomes] == [(200, 1), (200, 1)]


# Exceptions


def tree() -> Sequence[tuple[Exception, str, bool]]:
    return (
        (aiohttp.ServerDisconnectedError(), "empty_reply", True),
        (aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"), "connect_reset", True),
        (aiohttp.ClientPayloadError("Response payload is not completed"), "truncated", True),
        (aiohttp.ConnectionTimeoutError("slow"), "connect_timeout", True),
        (aiohttp.SocketTimeoutError("slow"), "read_timeout", True),
        (TimeoutError(), "connect_timeout", True),
        (aiohttp.ClientConnectorDNSError(KEY, OSError(None, "no such name")), "dns_not_found", False),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "bad record")), "tls_protocol", False),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError("expired")), "tls_verify", False),
        (aiohttp.ClientResponseError(INFO, (), status=400, message="no HTTP"), "malformed_response", False),
        (aiohttp.InvalidURL("http://?"), "invalid_url", False),
        (aiohttp.TooManyRedirects(INFO, ()), "redirect_limit", False),
    )


@pytest.mark.parametrize(("error", "code", "again"), tree(), ids=lambda value: type(value).__name__)
async def test_each_exception_has_its_code_and_its_number_of_tries(
    mocked: Any, error: Exception, code: str, again: bool
) -> None:
    answers(mocked, *[error] * 9)
    outcome = await one(URL, **QUICK)
    tries = 3 if again else 1
    assert (code_of(outcome), outcome.attempts, asked(mocked)) == (code, tries, tries)


async def test_what_passes_after_an_exception_is_a_page(mocked: Any) -> None:
    answers(mocked, aiohttp.ServerDisconnectedError(), TimeoutError(), 200, body="<p>three")
    page = await one(URL, **QUICK)
    assert isinstance(page, Page)
    assert (page.length, page.attempts) == (len("<p>three"), 3)


async def test_what_is_no_error_of_the_wire_ends_the_run(mocked: Any) -> None:
    answers(mocked, ZeroDivisionError("a bug"), 200)
    with pytest.raises(ZeroDivisionError):
        await crawl([URL, URL])


# What comes through


async def test_mocked_answers_come_through_whole(mocked: Any) -> None:
    body = "<title>large</title>" + "x" * 300_000
    answers(mocked, 200, body=body, headers={"X-Seen": "1"})
    answers(
        mocked, 200, url="https://a.example/", body=gzip.compress(body.encode()), headers={"Content-Encoding": "gzip"}
    )
    seen = []
    config = Config.of(header="X-Ours: 1", robots=False)
    async with Fetcher(config, extract=lambda response: seen.append(response.header("x-seen"))) as fetcher:
        plain, coded = await fetcher.fetch(URL), await fetcher.fetch("https://a.example/")
    assert [(page.title, page.length, page.content_type) for page in (plain, coded)] == [
        ("large", len(body), "text/html")
    ] * 2
    assert seen == ["1", None]
    (call,) = mocked.requests["GET", yarl.URL(URL)]
    assert call.kwargs["headers"]["X-Ours"] == "1"
    assert call.kwargs["allow_redirects"] is False


async def test_mocked_redirects_are_followed_by_us(mocked: Any) -> None:
    answers(mocked, 302, headers={"Location": "http://b.example/next"})
    answers(mocked, 200, url="http://b.example/next")
    page = await one(Request(1, URL, headers=(("X-Row", "s3cret"),)))
    assert (code_of(page), page.redirects) == (200, ("http://b.example/next",))
    (call,) = mocked.requests["GET", yarl.URL("http://b.example/next")]
    assert "X-Row" not in call.kwargs["headers"]
