"""Redirects are followed hop by hop, and no secret reaches another origin: by the server's log."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.model import Exchange as Proceed
from fetcher.model import Failure, Outcome, Page, Request, Response
from tests.lab.crawl import code_of, crawl, one
from tests.lab.server import Exchange, LabServer, LogEntry


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=3, second_port=True, tls=True) as lab:
        yield lab


@pytest.fixture
def origins(shared: LabServer) -> Iterator[dict[str, str]]:
    """The origins by a letter for the host, ``2`` for its other port, ``s`` for TLS."""
    shared.clear()
    yield {
        "A": shared.url("", 1), "A2": shared.url("", 1, shared.other_port), "As": shared.https("", 1),
        "B": shared.url("", 2), "B2": shared.url("", 2, shared.other_port), "Bs": shared.https("", 2),
        "C": shared.url("", 3), "Cs": shared.https("", 3),
    }  # fmt: skip


def chain(origins: dict[str, str], way: str, status: int = 302) -> str:
    """Return the URL at the first origin that leads over the others to the last one's ``/echo``.

    The first origin sets a cookie.
    """
    first, *others = way.split()
    url = ""
    for name in reversed(others):
        url = f"{origins[name]}/redirect?status={status}&to={quote(url, safe='')}" if url else f"{origins[name]}/echo"
    cookie = quote("chain=chain-s3cret; Path=/", safe="")
    return f"{origins[first]}/set-cookie-then?status={status}&cookie={cookie}&to={quote(url, safe='')}"


WAYS = [
    "A A", "A B", "A A2", "A As", "A Bs", "A B2",
    "A B A", "A A2 A", "A As A", "A Bs A", "A B C", "A B A C", "A B B A", "A A B A", "A C B A As", "A As Bs B A",
    "As As", "As A", "As Bs", "As B", "As A As", "As Bs As", "As A2 As", "As B Bs As", "As Cs C A",
    "B A", "B A B", "Bs As A", "Cs A As",
]  # fmt: skip

USER = base64.b64encode(b"ann:user-s3cret").decode()
INFO = base64.b64encode(b"bob:info-s3cret").decode()


def authority(url: str) -> str:
    return url.partition("//")[2]


@pytest.mark.parametrize("number", range(len(WAYS)), ids=WAYS)
async def test_no_secret_reaches_another_origin(
    shared: LabServer, origins: dict[str, str], number: int, tmp_path: Path
) -> None:
    way = WAYS[number].split()
    first, home = way[0], "As" if "As" in way[0] else "A"
    jar = tmp_path / "cookies.txt"
    jar.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tfile\tfile-s3cret\n")
    url = chain(origins, WAYS[number], (301, 302, 303, 307, 308)[number % 5])
    given = url.replace("//", "//bob:info-s3cret@", 1) if number % 2 else url
    row = Request(1, given, headers=(("X-Row", "row-s3cret"), ("Accept-Language", "eo")))
    outcome = await one(
        row,
        ca_bundle=str(shared.ca),
        header=["X-Api-Key: key-s3cret", f"@{authority(origins[home])} X-Bound: bound-s3cret"],
        user=[f"@{authority(origins[home])} ann:user-s3cret"],
        cookie=[f"@{authority(origins[home])} given=given-s3cret"],
        cookie_file=[str(jar)],
    )
    assert code_of(outcome) == 200, outcome
    seen = [(name_of(entry, origins), entry) for entry in shared.log]
    assert [name for name, _ in seen] == way
    home_is_safe = not first.endswith("s") or home.endswith("s")
    for name, entry in seen:
        at_first, at_home = name == first, name == home and home_is_safe
        named = at_first and bool(number % 2)
        expected = {
            "key-s3cret": at_first,
            "row-s3cret": at_first,
            "bound-s3cret": at_home,
            "given-s3cret": at_home,
            "file-s3cret": name[0] == "A",  # a cookie knows no port
            "chain-s3cret": name[0] == first[0] and entry is not seen[0][1],
            INFO: named,
            USER: at_home and not named,  # of two the one in the URL is sent
        }
        said = str(entry.headers)
        assert {secret: secret in said for secret in expected} == expected, (name, entry.head)
        assert entry.header("accept-language") == "eo"
        assert "s3cret" not in entry.target.replace("chain-s3cret", "")
        assert entry.header("referer") is None


def name_of(entry: LogEntry, origins: dict[str, str]) -> str:
    """Return the origin at which a request came in."""
    scheme = "https" if entry.tls else "http"
    url = f"{scheme}://{entry.host}:{entry.port}"
    return next(name for name, origin in origins.items() if origin == url)


async def test_userinfo_in_a_location_is_dropped(lab: LabServer) -> None:
    to = lab.url("/echo", 2).replace("//", "//eve:pw@")
    page = await one(lab.url(f"/redirect?to={quote(to)}"))
    assert code_of(page) == 200
    assert lab.log[1].header("authorization") is None
    assert (page.url, page.redirects) == (lab.url("/echo", 2), (lab.url("/echo", 2),))


async def test_an_origin_named_again_in_another_spelling_is_the_same(lab: LabServer) -> None:
    page = await one(lab.url(f"/redirect?to=HTTP://0x7F.1:{lab.port}/echo"), header="X-Api-Key: key-s3cret")
    assert code_of(page) == 200
    assert lab.log[1].header("x-api-key") == "key-s3cret"


async def test_headers_that_cannot_be_sent_are_not(lab: LabServer) -> None:
    """A server's cookie is the web's: its bytes do not end the run."""
    for value in ("a=%ff%fe; Path=/", "a=b%01c; Path=/", "a=b; Domain=%ff", "a=%c3%a4", "=b", "a", "; ;=;"):
        page = await one(lab.url(f"/set-cookie-then?to=/echo&cookie={value}"))
        assert code_of(page) in (200, "malformed_response"), value


# How far, and where to


async def test_hops_are_counted(lab: LabServer) -> None:
    pages = await crawl([lab.url("/hops/10?hosts=3"), lab.url("/hops/11")])
    assert [code_of(page) for page in pages] == [200, "redirect_limit"]
    assert [len(page.redirects) for page in pages] == [10, 10]
    assert pages[0].redirects[-1] == pages[0].url == lab.url("/ok?hosts=3", 2)
    assert pages[0].request.url == lab.url("/hops/10?hosts=3")
    few = await crawl([lab.url("/hops/2"), lab.url("/hops/3")], max_redirects=2)
    assert [code_of(page) for page in few] == [200, "redirect_limit"]


async def test_without_redirects_the_status_is_the_answer(lab: LabServer) -> None:
    assert code_of(await one(lab.url("/redirect"), max_redirects=0)) == "http_302"
    page = await one(lab.url("/redirect"), max_redirects=0, accept="302")
    assert (code_of(page), page.redirects) == (302, ())
    assert lab.requests("/ok") == []


LOCATIONS: dict[str, tuple[str | int, str]] = {
    # The Location's bytes, percent-encoded: what becomes of it, and what the server is asked then.
    "/echo": (200, "/echo"),
    "echo": (200, "/at/echo"),
    "../echo": (200, "/echo"),
    "?q=1": ("redirect_loop", ""),
    "/echo%23fragment": (200, "/echo"),
    "%20%20/echo%20": (200, "/echo"),
    "/echo/a%20b": (200, "/echo/a%20b"),
    "/echo/%c3%a4": (200, "/echo/%C3%A4"),
    "/echo/%e4%f6": (200, "/echo/%E4%F6"),  # Latin-1, as it is
    "/echo/%e2%82%ac%e4?%ff": (200, "/echo/%E2%82%AC%E4?%FF"),
    "/echo%09/tab": (200, "/echo/tab"),
    "%5cecho": (200, "/echo"),
    "/echo?%22%3c%3e|": (200, "/echo?%22%3C%3E|"),
    "": ("http_302", ""),  # an empty one is none (Chromium, curl)
    "%20%09": ("http_302", ""),
    "http://[::1": ("bad_redirect", ""),
    "http://": ("bad_redirect", ""),
    "http:///": ("bad_redirect", ""),
    "http://a%20b/": ("bad_redirect", ""),
    "http://x:99999/": ("bad_redirect", ""),
    "javascript:alert(1)": ("bad_redirect", ""),
    "ftp://127.0.0.1/": ("bad_redirect", ""),
    "file:///etc/passwd": ("bad_redirect", ""),
    "data:text/html,x": ("bad_redirect", ""),
    "localhost:80/": ("bad_redirect", ""),
    "mailto:a@b": ("bad_redirect", ""),
}


@pytest.mark.parametrize("location", LOCATIONS)
async def test_a_location_is_read_as_browsers_do(lab: LabServer, location: str) -> None:
    code, target = LOCATIONS[location]

    async def move(exchange: Exchange) -> None:
        to = "?q=1" if exchange.query == "q=1" else exchange.query
        await exchange.send(
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + unquote_to_bytes(to) + b"\r\n\r\n"
        )

    lab.add("/at/it", move)
    lab.add("/at/echo", "here")
    outcome = await one(lab.url(f"/at/it?{location}"))
    assert code_of(outcome) == code, outcome
    if target:
        assert lab.log[-1].target == target
        assert outcome.redirects == (lab.url(target),)
    else:
        assert isinstance(outcome, Failure)
        assert "\n" not in outcome.error.message


async def test_redirects_without_a_sense_have_their_codes(lab: LabServer) -> None:
    expected: dict[str, str | int] = {
        "/two-locations": "bad_redirect",
        "/no-location": "http_302",
        "/loop": "redirect_loop",
        "/loop2/a": "redirect_loop",
        "/cookie-gate": 200,
        "/redirect?status=300": "http_300",
        "/redirect?status=304": "http_304",
        "/redirect?status=305": "http_305",
        "/redirect?status=399": "http_399",
    }
    expected |= {f"/redirect?status={status}": 200 for status in (301, 302, 303, 307, 308)}
    outcomes = await crawl([lab.url(target) for target in expected])
    assert [code_of(outcome) for outcome in outcomes] == list(expected.values())
    assert len(lab.requests("/loop")) == 3  # some pages redirect to themselves once
    assert len(lab.requests("/loop2")) == 6
    assert len(lab.requests("/cookie-gate")) == 2


async def test_the_same_location_twice_is_one(lab: LabServer) -> None:
    async def twice(exchange: Exchange) -> None:
        await exchange.reply("", 302, headers=[("Location", "/ok"), ("Location", "/ok")])

    lab.add("/twice", twice)
    assert code_of(await one(lab.url("/twice"))) == 200


async def test_a_chain_that_sets_a_cookie_at_each_hop_ends_at_the_limit(lab: LabServer) -> None:
    async def count(exchange: Exchange) -> None:
        turn = int((exchange.entry.header("cookie") or "n=0").partition("=")[2])
        await exchange.reply("", 302, headers=[("Location", "/count"), ("Set-Cookie", f"n={turn + 1}")])

    lab.add("/count", count)
    assert code_of(await one(lab.url("/count"))) == "redirect_limit"
    assert [entry.header("cookie") for entry in lab.log] == [None, *(f"n={n}" for n in range(1, 11))]


async def test_the_cookies_of_a_chain_end_with_it(lab: LabServer) -> None:
    gate = lab.url("/cookie-gate")
    outcomes = await crawl([gate, gate, lab.url("/echo")], per_host=1)
    assert [code_of(outcome) for outcome in outcomes] == [200, 200, 200]
    assert sorted(entry.header("cookie") or "" for entry in lab.log) == ["", "", "", "gate=open", "gate=open"]


# The body of a redirect is nobody's


async def test_a_redirect_is_followed_whatever_its_body_is(lab: LabServer) -> None:
    bodies = {
        "large": "Content-Length: 99999999\r\n\r\n" + "x" * 300_000,
        "miscoded": "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        "cut": "Content-Length: 100\r\n\r\nhello",
        "endless": "Transfer-Encoding: chunked\r\n\r\n" + "1000\r\n" + "x" * 4096 + "\r\n",
    }

    async def move(exchange: Exchange) -> None:
        name = exchange.text("as")
        await exchange.send("HTTP/1.1 302 Found\r\nLocation: /ok\r\n" + bodies[name])
        while name == "endless":
            await exchange.send("1000\r\n" + "x" * 4096 + "\r\n")
        exchange.close()

    lab.add("/move", move)
    outcomes = await crawl([lab.url(f"/move?as={name}") for name in bodies])
    assert [code_of(outcome) for outcome in outcomes] == [200] * 4


async def test_a_hop_on_the_same_host_uses_the_same_connection(lab: LabServer) -> None:
    assert code_of(await one(lab.url("/hops/5"))) == 200
    assert lab.connections.total == 1


# Waiting between hops


async def test_chains_between_busy_hosts_wait_for_nothing_they_hold(lab: LabServer) -> None:
    urls = [lab.url(f"/redirect?to={quote(lab.url(f'/delay/5/ok?{n}', 2 - n % 2))}", n % 2 + 1) for n in range(40)]
    for options in ({"per_host": 1}, {"concurrency": 1}, {"concurrency": 2, "per_host": 1}):
        outcomes = await crawl(urls, middleware=(), **options)  # type: ignore[arg-type]  # they are options
        assert {code_of(outcome) for outcome in outcomes} == {200}
        assert lab.peak() <= options.get("concurrency", 2)
        assert max(lab.peak(1), lab.peak(2)) == 1
        lab.clear()


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_hop_to_a_parked_host_goes_on_from_the_hop(lab: LabServer, ordered: bool) -> None:
    lab.add("/throttled", lambda exchange: exchange.become("/retry-after/k?after=2"), host=2)
    to = quote(lab.url("/retry-after/k?after=2", 2), safe="")
    urls = [lab.url("/throttled", 2), lab.url(f"/delay/300/set-cookie-then?to={to}&cookie=a=b", 1)]
    async with asyncio.timeout(60), Fetcher(Config.of(retries=0, robots=False)) as fetcher:
        async with fetcher.stream(urls, ordered=ordered) as outcomes:
            found: dict[int, Outcome] = {outcome.request.id: outcome async for outcome in outcomes}
    assert [code_of(found[n]) for n in (1, 2)] == [200, 200]
    assert len(lab.requests("/delay")) == 1
    assert [entry.note for entry in lab.log] == [""] * len(lab.log)
    assert found[2].waited >= 1
    assert found[2].redirects == (lab.url("/retry-after/k?after=2", 2),)


async def test_a_retry_starts_again_from_the_first_url(lab: LabServer) -> None:
    to = lab.url("/flaky/a?fail=1&status=500", 2)
    page = await one(lab.url(f"/set-cookie-then?to={quote(to, safe='')}"), retries=1, backoff=0.01)
    assert (code_of(page), page.attempts) == (200, 2)
    assert [entry.path for entry in lab.log] == ["/set-cookie-then", "/flaky/a"] * 2
    assert [entry.header("cookie") for entry in lab.log] == [None] * 4


# Around it


async def test_a_middleware_that_asks_elsewhere_keeps_the_rows_secrets_from_there(lab: LabServer) -> None:
    """The chain goes on, after a wait, with the origin it began at, which is not the row's own."""
    lab.add("/throttled", lambda exchange: exchange.become("/retry-after/k?after=2"), host=3)
    elsewhere = lab.url(f"/delay/300/redirect?to={quote(lab.url('/echo', 3), safe='')}", 2)

    async def login(request: Request, proceed: Proceed) -> Response:
        if request.id == 1:
            return await proceed(request)
        return await proceed(Request(request.id, elsewhere, headers=(("X-Token", "t-s3cret"),)))

    rows = [Request(1, lab.url("/throttled", 3)), Request(2, lab.url("/ok", 3), headers=(("X-Row", "row-s3cret"),))]
    async with asyncio.timeout(60), Fetcher(Config.of(retries=0, robots=False), middleware=[login]) as fetcher:
        async with fetcher.stream(rows) as outcomes:
            codes = {outcome.request.id: code_of(outcome) async for outcome in outcomes}
    assert codes == {1: 200, 2: 200}
    assert [entry.header("x-token") for entry in lab.requests("/delay")] == ["t-s3cret"]
    (echo,) = lab.requests("/echo")
    assert "s3cret" not in echo.head


async def test_a_middleware_that_asks_again_begins_at_the_first_url(lab: LabServer) -> None:
    async def stubborn(request: Request, proceed: Proceed) -> Response:
        try:
            return await proceed(request)
        except FetchError:
            return await proceed(request)

    to = quote(lab.url("/flaky/b?fail=1&as=/cut-body", 2), safe="")
    page = await one(lab.url(f"/redirect?to={to}"), middleware=[stubborn])
    assert isinstance(page, Page)
    assert [entry.path for entry in lab.log] == ["/redirect", "/flaky/b"] * 2
    assert page.redirects == (lab.url("/flaky/b?fail=1&as=/cut-body", 2),)


async def test_what_is_known_of_a_chain_that_failed_is_told(lab: LabServer) -> None:
    to = lab.url("/status/503", 2)
    options: dict[str, Any] = {"retries": 0}
    outcome = await one(lab.url(f"/redirect?to={quote(to)}"), **options)
    assert isinstance(outcome, Failure)
    assert (outcome.url, outcome.status, outcome.redirects, outcome.attempts) == (to, 503, (to,), 1)
