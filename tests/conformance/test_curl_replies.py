"""573 replies that curl's own tests play, each read to one outcome; where curl sees it otherwise, it stands here why.

Third-party data: see ``curl-replies/SOURCE.txt`` in the suites. Nothing is looked up and nobody but the test's own
server is asked: redirects are not followed, and every status is a page.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.middleware.accept import retry_after
from fetcher.model import Failure, Outcome, Page
from fetcher.transport.session import Transport
from fetcher.urls import parse
from tests.lab.crawl import names, open_sockets
from tests.lab.suites import suite

DEADLINE = 120.0
EXPECTED_OUTPUT = "datacheck"  # not a reply
NO_BYTES = {498}  # its reply is made by curl's test itself

HTTP_09 = "an answer without a head is HTTP/0.9, which browsers have given up too"
OF_HEAD = "it was to a HEAD: to a GET the body is missing, or no body"
LF_CHUNKS = "chunks whose lines end in a bare LF"
GZIP_AS_TRANSFER = (
    "a Transfer-Encoding other than chunked, which no browser undoes and nobody had asked for (RFC 9110, 10.1.4)"
)
CHUNKED_TWICE = "chunked must not be applied more than once (RFC 9112, 6.1)"
LONG_LINE = "a header line over 64 KB"
CUT_HEAD = "the head has no end"
SWITCHED = "101 to a plain GET"
NO_REPLY = "the reply is empty, curl was not to wait for it"

WE_FAIL: dict[int, tuple[str, str]] = {
    66: ("malformed_response", HTTP_09), 306: ("malformed_response", HTTP_09), 1164: ("malformed_response", HTTP_09),
    1266: ("malformed_response", HTTP_09),
    514: ("truncated", OF_HEAD), 1032: ("truncated", OF_HEAD), 1484: ("malformed_response", OF_HEAD),
    1116: ("malformed_response", LF_CHUNKS),
    1124: ("bad_encoding", GZIP_AS_TRANSFER),
    1170: ("bad_encoding", GZIP_AS_TRANSFER),
    1482: ("malformed_response", CHUNKED_TWICE),
    1556: ("headers_too_large", LONG_LINE),
    1598: ("truncated", CUT_HEAD), 2304: ("truncated", CUT_HEAD),
    2302: ("malformed_response", SWITCHED), 2700: ("malformed_response", SWITCHED),
    2708: ("malformed_response", SWITCHED), 2710: ("malformed_response", SWITCHED),
    2712: ("malformed_response", SWITCHED), 2720: ("malformed_response", SWITCHED),
    3102: ("empty_reply", NO_REPLY),
}  # fmt: skip
"""Where curl exits 0 and we have a failure: the code, and the reason."""

READ: dict[int, tuple[int, str]] = {
    328: (38, "``none`` is no registered content coding, and passed over (WHATWG Fetch; curl's own ``none``)"),
    770: (6, "``6,06,6``, and once more: equal lengths are one (RFC 9112, 6.3, item 5)"),
    1456: (6, "more bytes than the length said: the message ends where it said (RFC 9112, 6.3, item 6)"),
    1494: (19, "``identity, identity`` beside a length: ``identity`` is no coding (RFC 7230, A.2)"),
    3034: (0, "a redirect whose head is cut behind its whole Location (Chromium and curl follow it)"),
    3202: (6, "as 1456"),
}
"""What is read as curl reads it, though it is not as the standard has it: the bytes of the body, and the reason."""

FAIL = "curl was told to --fail on the status"
RESUME = "curl wanted to resume a download"
TUNNEL = "curl asked for a tunnel, or had another proxy, host or protocol to go to"
FOLLOW = "curl looks at the Location, we do when we follow it"
LIMIT = "curl was given a lower limit"
OWN_SIDE = "curl's own file, upload, callback or key failed"
NO_COLON = "curl refuses a head with a line that has no colon, browsers pass over the line (Chromium)"
TRAILER = "a NUL in a trailer, which nobody reads"

CURL_FAILS: dict[int, str] = {
    **dict.fromkeys((24, 152, 162, 752, 1188), FAIL),
    **dict.fromkeys((38, 256, 1042), RESUME),
    **dict.fromkeys((94, 302, 440, 718, 728, 1142, 1244, 1922, 2010), TUNNEL),
    **dict.fromkeys((580, 772), FOLLOW),
    **dict.fromkeys((274, 1618, 1714), LIMIT),
    **dict.fromkeys((1072, 1460, 2084, 3036, 5008, 5010, 5020), OWN_SIDE),
    398: NO_COLON,
    2106: TRAILER,
}
"""Where curl does not exit 0 and we have a page: the reason."""


@cache
def cases() -> list[dict[str, Any]]:
    path = suite("curl-replies") / "http-replies.json"
    return [case for case in json.loads(path.read_text(encoding="utf-8")) if case["id"] not in NO_BYTES]


def replies() -> dict[str, bytes]:
    """Return every reply of every case by the path at which it is asked for."""
    return {
        f"/{case['id']}/{name}": base64.b64decode(reply["b64"])
        for case in cases()
        for name, reply in case["reply"].items()
        if name != EXPECTED_OUTPUT
    }


def first_reply(case: dict[str, Any]) -> str:
    """Return the path of the reply that decides how curl's test ends, as far as one does."""
    names = [name for name in case["reply"] if name != EXPECTED_OUTPUT]
    return f"/{case['id']}/{'data' if 'data' in names else names[0]}"


@asynccontextmanager
async def player(pieces: int) -> AsyncIterator[int]:
    """Serve the replies, each in so many pieces, and then the end of the connection."""
    known = replies()
    playing: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            size = len(known[path]) // pieces + 1
            for start in range(0, len(known[path]), size):
                writer.write(known[path][start : start + size])
                await writer.drain()
                if pieces > 1:
                    await asyncio.sleep(0.001)
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError):
            return
        finally:
            writer.transport.abort()
            playing.discard(task)

    server = await asyncio.start_server(play, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*playing)  # each ends with its client


async def fetch_each(pieces: int) -> dict[str, Outcome]:
    """Fetch every reply once, each of a host of its own; return the outcomes by path.

    Some of them ask to be left alone for minutes, or for a century: that is obeyed, whatever is a page.
    """
    config = Config.of(retries=0, max_redirects=0, accept="100-599", concurrency=20, robots=False)
    hosts = {f"reply-{number}.test": path for number, path in enumerate(replies())}
    transport = Transport(config, resolver=names(dict.fromkeys(hosts, "127.0.0.1")))
    found: dict[str, Outcome] = {}
    try:
        async with (
            asyncio.timeout(DEADLINE),
            player(pieces) as port,
            Fetcher(config, transport=transport) as fetcher,
            fetcher.stream([f"http://{host}:{port}{path}" for host, path in hosts.items()]) as outcomes,
        ):
            async for outcome in outcomes:
                path = hosts[parse(outcome.request.url).host]
                assert path not in found
                found[path] = outcome
            assert outcomes.stats.pending == 0
    finally:
        await transport.close()
    return found


@pytest.mark.parametrize("pieces", [1, 3])
async def test_every_reply_has_one_outcome_and_leaves_nothing(pieces: int) -> None:
    before = open_sockets()
    found = await fetch_each(pieces)
    assert set(found) == set(replies())
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await asyncio.sleep(0)
    assert open_sockets() == before
    for path, outcome in found.items():
        if isinstance(outcome, Failure):
            assert outcome.error.code in type(outcome.error).codes, path
            assert outcome.error.message, path


async def test_where_curl_sees_it_otherwise_there_is_a_reason() -> None:
    found = await fetch_each(1)
    we_fail: dict[int, str] = {}
    curl_fails: set[int] = set()
    for case in cases():
        outcome, number = found[first_reply(case)], case["id"]
        if number in READ:
            assert isinstance(outcome, Page), outcome
            assert (case["curl_exit"], outcome.bytes) == ("0", READ[number][0])
        elif case["curl_exit"] == "0" and isinstance(outcome, Failure):
            we_fail[number] = outcome.error.code
        elif case["curl_exit"] != "0" and isinstance(outcome, Page):
            curl_fails.add(number)
    assert we_fail == {number: code for number, (code, _) in WE_FAIL.items()}
    assert curl_fails == set(CURL_FAILS)


# Dates

RFC_9110 = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (?:[A-Z][a-z]{2}) \d{4} \d\d:\d\d:\d\d GMT"
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT"
    r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}"
)
"""The three forms of RFC 9110, 5.6.7. curl reads many more."""

LEAP_SECOND = "Wed, 31 Dec 2008 23:59:60 GMT"


def test_dates_of_the_standards_forms_are_read_as_curl_does() -> None:
    dates = json.loads((suite("curl-replies") / "http-dates.json").read_text(encoding="utf-8"))
    known = 0
    for date in dates:
        text, epoch = date["input"], date["epoch"]
        wait = retry_after(text, 0.0)
        assert wait is None or wait >= 0, text
        if RFC_9110.fullmatch(text) and epoch >= 0 and text != LEAP_SECOND:
            known += 1
            assert wait == epoch, text
    assert known >= 5
