"""Where a page leads by itself is found as browsers find it, and followed when that is asked for."""

from __future__ import annotations

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.model import Failure, Page, Request, Response
from fetcher.refresh import PRESCANNED_BYTES, refresh_of
from tests.lab.crawl import one
from tests.lab.exchange import Case, Exchange
from tests.lab.server import LabServer

URL = "http://a.example/x/"


def page(body: str, *headers: tuple[str, str]) -> Response:
    return Response(Request(1, URL), URL, 200, headers or (("content-type", "text/html"),), body.encode())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("0; url=/y", "http://a.example/y"),
        ("0;URL='y'", "http://a.example/x/y"),
        ('5, url = "http://b.example/?a=1" trailing', "http://b.example/?a=1"),
        ("0 y", "http://a.example/x/y"),
        ("0.5;/y", "http://a.example/y"),
        ("  3 ;  url=//c.example", "http://c.example/"),
        ("30", None),
        ("", None),
        ("url=/y", None),
        ("0; url=", None),
        ("0; url=javascript:alert(1)", None),
        ("0; url=data:text/html,x", None),
        ("0; url=http://a.example/x/", None),  # it loads itself again
        ("0; url=#top", None),
    ],
)
def test_what_a_refresh_says(content: str, found: str | None) -> None:
    escaped = content.replace('"', "&quot;")
    assert refresh_of(page(f'<title>x</title><META content="{escaped}" http-Equiv=ReFresh>')) == found
    assert refresh_of(page("", ("refresh", content))) == found


@pytest.mark.parametrize(
    "body",
    [
        "<!-- <meta http-equiv=refresh content='0; /y'> -->",
        "<script>'<meta http-equiv=refresh content=\"0; /y\">'</script>",
        "<noscript><meta http-equiv=refresh content='0; /y'></noscript>",
        " " * PRESCANNED_BYTES + "<meta http-equiv=refresh content='0; /y'>",
        "<meta name=refresh content='0; /y'>",
        "<p>refresh</p>",
    ],
)
def test_what_is_no_refresh(body: str) -> None:
    assert refresh_of(page(body)) is None


def test_text_has_none() -> None:
    assert refresh_of(page("<meta http-equiv=refresh content='0; /y'>", ("content-type", "text/plain"))) is None


def html(body: str) -> Case:
    async def reply(exchange: Exchange) -> None:
        await exchange.reply(body)

    return reply


async def test_it_is_told_and_followed_when_asked() -> None:
    async with LabServer(hosts=1) as lab:
        lab.add("/a", html("<meta http-equiv=refresh content='0; url=/b'>a"))
        lab.add("/b", html("<title>there</title>"))
        told = await one(lab.url("/a"))
        assert isinstance(told, Page)
        assert (told.refresh, told.redirects) == (lab.url("/b"), ())
        followed = await one(lab.url("/a"), follow_refresh=True)
        assert isinstance(followed, Page)
        assert (followed.title, followed.redirects, followed.refresh) == ("there", (lab.url("/b"),), None)
        lab.add("/c", html("<meta http-equiv=refresh content='0; url=/d'>"))
        lab.add("/d", html("<meta http-equiv=refresh content='0; url=/c'>"))
        looped = await one(lab.url("/c"), follow_refresh=True, max_redirects=3)
        assert isinstance(looped, Failure)
        assert looped.error.code in ("redirect_limit", "redirect_loop")


@pytest.mark.parametrize(("status", "followed"), [(200, True), (203, True), (299, True), (300, False), (404, False)])
async def test_a_page_that_is_none_leads_nowhere(status: int, followed: bool) -> None:
    async def answer(request: Request) -> Response:
        if request.url.endswith("/y"):
            return Response(request, request.url, 200)
        return Response(request, request.url, status, (("refresh", "0; url=/y"),))

    config = Config.of(robots=False, follow_refresh=True, accept="200-499", retries=0)
    async with Fetcher(config, transport=answer) as fetcher:
        page = await fetcher.fetch("http://a.example/x")
    assert page.redirects == (("http://a.example/y",) if followed else ())
