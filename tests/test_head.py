"""Rows asked by HEAD: no body is read, a refusal is asked once more by GET, and a server's faults cost nobody else."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import ConfigError
from fetcher.frontier.spill import from_stored, to_stored
from fetcher.middleware.head import REFUSED_STATUSES
from fetcher.model import Failure, Page, Request, Response
from fetcher.request_state import RequestState
from fetcher.sinks import open_sink
from fetcher.urls import parse
from tests.lab.command import run
from tests.lab.crawl import code_of, crawl, one
from tests.lab.exchange import Case, Exchange
from tests.lab.server import LabServer

HEAD_ANSWER = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=2) as server:
        yield server


def asked(lab: LabServer) -> list[tuple[str, str]]:
    return [(entry.method, entry.target) for entry in lab.log]


def by_method(head: int, get: int = 200, **more: Any) -> Case:
    async def reply(exchange: Exchange) -> None:
        await exchange.reply("<title>t</title>", head if exchange.entry.method == "HEAD" else get, **more)

    return reply


async def test_a_page_by_head_is_its_headers(lab: LabServer) -> None:
    lab.add("/p", by_method(200, headers=[("X-Robots-Tag", "noai"), ("Server", "lab")]))
    page = await one(lab.url("/p"), head=True, keep_headers="content-length,server")
    assert isinstance(page, Page)
    assert asked(lab) == [("HEAD", "/p")]
    assert (page.status, page.bytes, page.length, page.title, page.links) == (200, 0, None, None, None)
    assert (page.content_type, page.charset, page.robots, page.truncated) == ("text/html", "utf-8", "noai", False)
    assert dict(page.headers) == {"content-length": "16", "server": "lab"}


@pytest.mark.parametrize("status", sorted(REFUSED_STATUSES))
async def test_where_head_is_refused_get_decides(lab: LabServer, status: int) -> None:
    lab.add("/served", by_method(status))
    lab.add("/refused", by_method(status, 410))
    page = await one(lab.url("/served"), head=True)
    assert (code_of(page), page.attempts) == (200, 1)
    assert isinstance(page, Page)
    assert (page.bytes, page.length, page.title, page.links) == (0, None, None, None)  # however it was asked
    failure = await one(lab.url("/refused"), head=True)
    assert (code_of(failure), failure.attempts, failure.bytes) == ("http_410", 1, 0)
    assert asked(lab) == [(method, path) for path in ("/served", "/refused") for method in ("HEAD", "GET")]


@pytest.mark.parametrize("status", [401, 402, 409, 500, 503])
async def test_another_status_counts_as_it_is(lab: LabServer, status: int) -> None:
    lab.add("/p", by_method(status))
    assert code_of(await one(lab.url("/p"), head=True)) == f"http_{status}"
    assert asked(lab) == [("HEAD", "/p")]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_server_that_hangs_up_on_head_is_asked_by_get(lab: LabServer, how: str) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.entry.method == "HEAD":
            getattr(exchange, how)()
            return
        await exchange.reply("there")

    lab.add("/p", answer)
    page = await one(lab.url("/p"), head=True)
    assert (code_of(page), page.attempts) == (200, 1)
    assert asked(lab) == [("HEAD", "/p"), ("GET", "/p")]


async def test_nothing_is_asked_twice_of_a_port_that_is_shut(lab: LabServer) -> None:
    tried: list[str] = []

    async def transport(request: Request) -> Response:
        tried.append(request.method)
        return Response(request, request.url, 200)

    assert code_of(await one("http://127.0.0.1:9/", head=True)) == "connect_refused"
    assert code_of(await one("http://127.0.0.1:9/", head=True, transport=transport)) == 200
    assert tried == ["HEAD"]  # a transport of the caller's is told the method


async def test_each_hop_is_asked_by_head_and_robots_by_get(lab: LabServer) -> None:
    async def to(exchange: Exchange) -> None:
        await exchange.reply("moved", 302, headers=[("Location", "/b")])

    lab.add("/a", to)
    lab.add("/b", by_method(405))
    page = await one(lab.url("/a"), head=True, robots=True)
    assert (code_of(page), page.redirects) == (200, (lab.url("/b"),))
    assert asked(lab) == [("GET", "/robots.txt"), ("HEAD", "/a"), ("HEAD", "/b"), ("GET", "/b")]


async def test_the_second_question_keeps_the_delay(lab: LabServer) -> None:
    lab.add("/p", by_method(405))
    lab.add("/slow", by_method(404))
    page = await one(lab.url("/p"), head=True, delay=0.6)
    assert code_of(page) == 200
    first, second = lab.log
    assert second.t - first.t >= 0.3  # a busy server notes late that the first has come
    lab.clear()
    page = await one(lab.url("/slow"), head=True, delay=1.2)  # it leaves its task to wait, and goes on by GET
    assert (code_of(page), page.attempts) == (200, 1)
    assert [entry.method for entry in lab.log] == ["HEAD", "GET"]


async def test_a_retry_begins_where_it_stood(lab: LabServer) -> None:
    count = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal count
        count += 1
        await exchange.reply("x", (405, 500, 200)[count - 1])

    lab.add("/p", answer)
    page = await one(lab.url("/p"), head=True, retries=1, backoff=0)
    assert (code_of(page), page.attempts) == (200, 2)
    assert [method for method, _ in asked(lab)] == ["HEAD", "GET", "GET"]


def test_what_is_asked_by_get_is_kept_on_disk() -> None:
    state = RequestState(Request(1, "http://a.example/"), parse("http://a.example/"))
    state.attempts, state.by_get = 1, "http://a.example/"
    kept = to_stored(state)
    assert kept is not None
    assert from_stored(kept).by_get == state.by_get


# Connections


@pytest.mark.parametrize("later", [False, True])
async def test_a_body_that_follows_a_head_is_nobodys_answer(lab: LabServer, later: bool) -> None:
    async def answer(exchange: Exchange) -> None:
        body = (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Of: the body\r\n\r\n" if exchange.entry.path == "/a" else "body"
        )
        await exchange.send(HEAD_ANSWER if later else HEAD_ANSWER + body)
        if later:
            await asyncio.sleep(0.1)
            await exchange.send(body)
        exchange.entry.status = 200

    for path in ("/plain", "/a"):
        lab.add(path, answer)
    lab.add("/next", by_method(200, headers=[("X-Of", "the next")]))
    urls = [lab.url(path) for path in ("/plain", "/next", "/a", "/next")]
    pages = await crawl(urls, head=True, keep_headers="x-of", per_host=1, delay="300ms" if later else 0)
    assert [code_of(page) for page in pages] == [200] * 4
    assert [dict(page.headers) for page in pages] == [{}, {"x-of": "the next"}] * 2
    connections = [entry.connection for entry in lab.log]
    assert connections[1] != connections[0]
    assert connections[3] != connections[2]


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 99999999999", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "X: none",
     "Content-Length: 9\r\nContent-Encoding: gzip", "Content-Length : 7\r\nbroken line"],
)  # fmt: skip
async def test_whatever_a_head_says_of_its_body_none_is_waited_for(lab: LabServer, framing: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")

    lab.add("/p", answer)
    page = await asyncio.wait_for(one(lab.url("/p"), head=True), 20)
    assert (code_of(page), page.bytes) == (200, 0)


async def test_a_connection_is_kept_between_heads(lab: LabServer) -> None:
    lab.add("/p", by_method(200))
    lab.add("/q", by_method(405))
    pages = await crawl([lab.url(path) for path in "/p /q /p".split()], head=True, per_host=1)
    assert [code_of(page) for page in pages] == [200] * 3
    assert {entry.connection for entry in lab.log} == {1}


async def test_a_large_page_by_get_is_let_go(lab: LabServer) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(b"x" * 3_000_000, 405 if exchange.entry.method == "HEAD" else 200)

    lab.add("/p", answer)
    page = await one(lab.url("/p"), head=True, max_size="1M")
    assert isinstance(page, Page)
    assert (page.bytes, page.truncated) == (0, False)


async def test_an_archive_has_both_questions(lab: LabServer) -> None:
    lab.add("/p", by_method(405, 404))
    failure = await one(lab.url("/p"), head=True, keep_messages=True)
    assert isinstance(failure, Failure)
    assert [message.request.split()[0] for message in failure.messages] == [b"HEAD", b"GET"]
    assert [message.body for message in failure.messages] == [b"", b"<title>t</title>"]


async def test_a_head_stands_in_an_archive_as_it_came(lab: LabServer, tmp_path: Path) -> None:
    pytest.importorskip("fastwarc")
    lab.add("/p", by_method(200))
    async with Fetcher(head=True, robots=False, keep_messages=True) as fetcher:
        await fetcher.run([lab.url("/p")], open_sink(tmp_path / "a.warc.gz"))
    archive = gzip.decompress((tmp_path / "a.warc.gz").read_bytes())
    assert b"HEAD /p HTTP/1.1\r\n" in archive
    assert b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 16\r\n\r\n\r\n\r\n" in archive


# What does not go with it


@pytest.mark.parametrize(
    ("option", "value"),
    [("select", "h=h1"), ("table", "table"), ("skip_when", "noai"), ("preview", 5), ("keep_body", True)],
)
def test_what_reads_pages_is_refused(option: str, value: Any) -> None:
    shown = "body" if option == "keep_body" else option.replace("_", "-")
    with pytest.raises(ConfigError, match=f"{shown}: reads a page's body, .* leave out {shown} or head"):
        Fetcher(Config.of(head=True, **{option: value}))
    with pytest.raises(ConfigError, match="extract: reads"):
        Fetcher(head=True, extract=lambda response: response.status)


def test_as_text_a_page_by_head_is_its_status(tmp_path: Path) -> None:
    with LabServer.in_thread() as lab:
        ended = run("crawl", lab.url("/ok"), lab.url("/status/404"), "--head", "--no-robots", folder=tmp_path)
        assert sorted(ended.lines) == [
            f"{lab.url('/ok')} -> 200 (text/html)",
            f"{lab.url('/status/404')} !! http_404: the server answered 404 Not Found",
        ]
        assert sorted((entry.method, entry.target) for entry in lab.log) == [
            ("GET", "/status/404"), ("HEAD", "/ok"), ("HEAD", "/status/404"),
        ]  # fmt: skip


def test_on_the_command_line_too(tmp_path: Path) -> None:
    for more in (["--select", "h=h1"], ["--body", "inline"], ["--extract", "json:dumps"]):
        ended = run("crawl", "http://127.0.0.1:9/", "--head", *more, folder=tmp_path)
        assert ended.code == 2
        assert "reads a page's body, and by HEAD there is none" in ended.said
