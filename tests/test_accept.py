"""Which statuses are pages, and what the others say about waiting."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import Accept, Config
from fetcher.errors import StatusError
from fetcher.middleware.accept import MAX_WAIT_SECONDS, accept, retry_after, wished_wait
from fetcher.model import Request, Response

NOW = 1_559_559_600.0  # Mon, 03 Jun 2019 11:00:00 GMT
REQUEST = Request(1, "http://a.example/")


async def answered(status: int, statuses: Accept | None = None, **headers: str) -> Response:
    response = Response(REQUEST, REQUEST.url, status, tuple((k.replace("_", "-"), v) for k, v in headers.items()))

    async def proceed(request: Request) -> Response:
        assert request is REQUEST
        return response

    found = await accept(statuses or Accept(), lambda: NOW)(REQUEST, proceed)
    assert found is response
    return found


@pytest.mark.parametrize("status", [200, 204, 206, 299])
async def test_the_usual_pages_pass(status: int) -> None:
    assert (await answered(status)).status == status


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (304, "the server answered 304 Not Modified"),
        (404, "the server answered 404 Not Found"),
        (418, "the server answered 418 I'm a Teapot"),
        (503, "the server answered 503 Service Unavailable"),
        (999, "the server answered 999"),
        (100, "the server answered 100 Continue"),
    ],
)
async def test_the_others_are_status_errors(status: int, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        await answered(status)
    error = caught.value
    assert (error.status, error.code, error.message, error.retry_after) == (status, f"http_{status}", message, None)


@pytest.mark.parametrize(("name", "passes"), [("If-None-Match", True), ("if-modified-since", True), ("Accept", False)])
async def test_a_304_is_the_answer_to_whoever_asked_for_it(name: str, passes: bool) -> None:
    async def proceed(request: Request) -> Response:
        return Response(request, request.url, 304)

    handle, request = accept(Accept(), lambda: NOW), Request(1, "http://a.example/", ((name, "x"), ("Via", "y")))
    if passes:
        assert (await handle(request, proceed)).status == 304
    else:
        with pytest.raises(StatusError):
            await handle(request, proceed)


async def test_what_is_accepted_is_for_the_user_to_say() -> None:
    statuses = Config.of(accept="404,5xx").accept
    assert (await answered(404, statuses)).status == 404
    assert (await answered(503, statuses)).status == 503
    every = Config.of(accept="100-299,999").accept
    assert [(await answered(status, every)).status for status in (100, 299, 999)] == [100, 299, 999]
    with pytest.raises(StatusError, match="http_998"):
        await answered(998, every)
    with pytest.raises(StatusError, match="http_200"):
        await answered(200, statuses)


async def test_the_wish_to_wait_is_read() -> None:
    with pytest.raises(StatusError) as caught:
        await answered(429, retry_after="Mon, 03 Jun 2019 11:00:30 GMT")
    assert caught.value.retry_after == 30.0
    with pytest.raises(StatusError) as caught:
        await answered(429, retry_after="soon")
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("000120", 120.0),
        (" 7\t", 7.0),
        ("9" * 13, MAX_WAIT_SECONDS),
        ("9" * 6_000, MAX_WAIT_SECONDS),
        ("Mon, 03 Jun 2019 12:00:00 GMT", 3600.0),
        ("Monday, 03-Jun-19 12:00:00 GMT", 3600.0),
        ("Mon Jun  3 12:00:00 2019", 3600.0),
        ("Mon, 03 Jun 2019 14:00:00 +0200", 3600.0),
        ("Mon, 03 Jun 2019 12:00:00 -0000", 3600.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("120, 60", None),
        ("120s", None),
        ("²", None),
        ("٣", None),
        ("1\n2", None),
        ("2019-06-03T12:00:00Z", None),
        ("Mon, 03 Jun 2019 25:00:00 GMT", None),
        ("Mon, 03 Jun 99999 12:00:00 GMT", None),
        ("Mon, 03 Jun 2019 12:00:00 +9999", None),
        ("Mon, 32 Jun 2019 12:00:00 GMT", None),
    ],
)
def test_what_retry_after_says(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


PIECES = st.sampled_from(
    ["Mon,", " ", "03", "Jun", "2019", "11:30:12", "GMT", "-", "+9999", "EST", "9" * 12, "\x00", ":", "\t", "²", "é"]
)


@given(st.text() | st.lists(PIECES, max_size=9).map(" ".join) | st.lists(PIECES, max_size=9).map("".join))
def test_nothing_a_server_says_breaks_it(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7", "RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, 7.0),
        ({"Retry-After": "soon", "RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, 9.0),
        ({"RateLimit": "limit=100, remaining=0, reset=30"}, 30.0),
        ({"RateLimit": '"burst";r=0;t=5, "daily";r=90;t=3600'}, 5.0),
        ({"RateLimit": '"a";r=0;t=5, "b";r=0;t=60'}, 60.0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "4"}, 4.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1559559612"}, 12.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1559559612000"}, 12.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1559550000"}, 0.0),
        ({"X-RateLimit-Reset": "3.5"}, 3.0),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "30"}, None),
        ({"RateLimit": "limit=100, remaining=7, reset=30"}, None),
        ({"RateLimit": ";;;", "X-RateLimit-Reset": "tomorrow"}, None),
        ({"RateLimit": "remaining=0"}, None),
        ({"RateLimit": '"a";r=0, "b";t=9'}, None),
        ({"RateLimit": '"a";r=0, "b";r=3;t=9'}, None),
        ({"RateLimit": "reset=30", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "8"}, 8.0),
        ({"RateLimit-Remaining": "0", "X-RateLimit-Remaining": "5", "X-Rate-Limit-Reset": "6"}, 6.0),
        ({"X-RateLimit-Reset": "999999999"}, 999_999_999.0),
        ({"X-RateLimit-Reset": "1000000000"}, 0.0),
        ({}, None),
    ],
)
def test_what_a_host_wishes_is_read_from_what_there_is(headers: dict[str, str], wait: float | None) -> None:
    pairs = tuple((name.lower(), value) for name, value in headers.items())
    assert wished_wait(Response(Request(1, "u"), "u", 429, pairs), 1559559600.0) == wait


def test_rate_limits_are_of_no_interest_where_nothing_is_limited() -> None:
    pairs = (("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30"))
    assert wished_wait(Response(Request(1, "u"), "u", 404, pairs), 0.0) is None
    assert wished_wait(Response(Request(1, "u"), "u", 503, pairs), 0.0) == 30.0
    assert wished_wait(Response(Request(1, "u"), "u", 503, pairs[1:]), 0.0) is None
