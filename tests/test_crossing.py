"""What crosses between the parent and a worker: rows as they stand, outcomes whole, and nothing that is no message."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import msgspec
import pytest

from fetcher import errors
from fetcher.config import Config
from fetcher.errors import FetchError, StatusError
from fetcher.middleware.cookies import ChainJar
from fetcher.middleware.redirects import RedirectChain
from fetcher.model import Failure, FoundLinks, Message, Page, Request
from fetcher.parallel.channel import open_channel
from fetcher.parallel.messages import (
    CrawlSettings,
    KnownPage,
    NoMoreRows,
    OutcomeBatch,
    RowBatch,
    decode_from_parent,
    decode_from_worker,
    encode,
    row_of,
    value_of,
)
from fetcher.request_state import RequestState, Transfer
from fetcher.urls import parse

REQUEST = Request(7, "https://a.example/ö?", (("X-Team", "crawl"),), {"sku": "1", "price": 2.5})
WHOLE = Page(
    REQUEST, "https://b.example/", 200, 5, 6, "text/html", "utf-8", "t\u202e", 3, {"h": ["1"]}, ("u",), 1.5, 0.5, 2, 9.5,
    truncated=True, robots="noindex", refresh="https://c.example/", preview="t", content={"meta": {"a": [1]}, "text": None},
    unconverted=("h",), headers=(("etag", "x"),), body=b"\xff\0", body_path="ab/c", etag="x", last_modified="y",
    digest="xxh3:0", change="changed", checked_at=2.5, found=FoundLinks("https://d.example/", 1, outside=False, guarded=True),
    messages=(Message("https://a.example/", 1.5, b"GET", b"HTTP", b"\xff", "::1", "length"),),
)  # fmt: skip


def crossed(*outcomes: Page | Failure) -> list[Page | Failure]:
    pages = [each for each in outcomes if isinstance(each, Page)]
    failures = [each for each in outcomes if isinstance(each, Failure)]
    message = decode_from_worker(bytes(encode(OutcomeBatch(3, pages, failures, [], 1))))
    assert isinstance(message, OutcomeBatch)
    return [*message.pages, *message.failures]


@pytest.mark.parametrize("folder", ["/tmp/a", "/tmp/\udcff"])
def test_what_a_worker_begins_with_crosses_whole(folder: str) -> None:
    config = Config.of(
        user=["@a.example me:secret"], header=["Accept: x", "@a.example:80 X: y"], cookie=["@a.example a=b"],
        hosts={"b.example": {"per-host": 2, "delay": 1.5}}, accept="2xx,404", rate="5/s", proxy="http://p.example:80",
        select=["h=h1", "p[]=.price:price"], follow=True, exclude=["re:a|b"], skip_when=["noai"], with_="meta,links",
    )  # fmt: skip
    settings = CrawlSettings(
        config, 1, 2, 50, 2.5, "shop:price", ("shop:sign",), 2, [b"/\xff", b""], b"/\xff", f"{folder}/marker",
        frozenset({3, 4}), True, {"a.example": 1.5}, {"b.example": 2.0}, 30,
    )  # fmt: skip
    assert decode_from_parent(bytes(encode(settings))) == settings


def test_a_page_crosses_whole() -> None:
    assert set(Page.__struct_fields__) == {name for name in Page.__struct_fields__ if getattr(WHOLE, name) is not None}
    assert crossed(WHOLE) == [WHOLE]


@pytest.mark.parametrize(
    "changed",
    [
        {"title": "\ud800"},
        {"data": {"n": 10**40}},
        {"headers": (("x", "\udcff"),)},
        {"content": {"jsonld": [-(2**70)]}},
    ],
)
def test_what_msgpack_cannot_carry_crosses_too(changed: dict[str, Any]) -> None:
    page = msgspec.structs.replace(WHOLE, **changed)
    assert crossed(page) == [page]


def each_error() -> list[FetchError]:
    made: list[FetchError] = [StatusError(503, "Service", 12.5), StatusError(404)]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FetchError)]
    for kind in kinds:
        if not issubclass(kind, StatusError):
            made += [kind(code, "why") for code in sorted(kind.codes)]
    return made


@pytest.mark.parametrize("error", each_error(), ids=lambda error: f"{type(error).__name__}-{error.code}")
def test_every_error_crosses(error: FetchError) -> None:
    error.about("https://a.example/")
    error.final = True
    if isinstance(error, StatusError):
        error.headers = (("x", "1"),)
    (back,) = crossed(Failure(REQUEST, error, "https://b.example/", 503, attempts=2))
    assert isinstance(back, Failure)
    assert (type(back.error), back.error.args, back.error.url, back.error.final) == (
        type(error), error.args, error.url, True,
    )  # fmt: skip
    if isinstance(error, StatusError):
        assert isinstance(back.error, StatusError)
        assert back.error.headers == error.headers


@pytest.mark.parametrize("name", ["ConfigError", "SinkError", "log", "DISTRIBUTION", "nothing"])
def test_what_is_no_error_of_a_row_is_refused(name: str) -> None:
    said = [
        "outcomes",
        1,
        [],
        [{"request": {"id": 1, "url": "u"}, "error": [name, ["a", "b"], None, False, []]}],
        [],
        0,
    ]
    batch = b"m" + msgspec.msgpack.encode(said)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        decode_from_worker(batch)


@pytest.mark.parametrize("batch", [b"m", b"m\xc1", b"j{", b"x", b"m" + msgspec.msgpack.encode(["rows", []])])
def test_what_is_no_message_of_a_worker_is_refused(batch: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_from_worker(batch)


def same(state: RequestState, *, fields: bool = False, known: KnownPage | None = None) -> RequestState:
    message = decode_from_parent(bytes(encode(RowBatch([value_of(state, 42, fields=fields, known=known)]))))
    assert isinstance(message, RowBatch)
    return row_of(message.rows[0])


def test_a_new_row_crosses_as_it_is() -> None:
    state = RequestState(Request(7, "https://a.example/x"), parse("https://a.example/x"), 3)
    back = same(state)
    assert (back.request.id, back.request.url, back.request.tag, back.order) == (7, "https://a.example/x", 42, 42)
    assert (back.first, back.target, back.chain) == (state.first, state.first, None)


def test_what_the_caller_put_on_a_row_stays_with_the_parent() -> None:
    request = Request(7, "https://a.example/x", fields={"huge": object()}, tag=object())
    value = value_of(RequestState(request, parse(request.url), 3), 42)
    assert value.progress is None
    back = row_of(value, request)
    assert back.request is request


def test_a_row_with_all_it_can_have_crosses() -> None:
    request = Request(7, "http://me:secret@a.example/", (("Authorization", "x"),), {"sku": "1"}, guarded=True)
    state = RequestState(
        request, parse(request.url), 3, attempts=1, returns=2, asked_to_wait=True, elapsed=1.5,
        began=time.monotonic() - 10.0, redirects=("http://b.example/",), reached="public",
        transfer=Transfer(status=302, received=9),
    )  # fmt: skip
    state.by_get, state.by_http = "http://a.example/", True
    state.messages = [Message("https://a.example/", 1.5, b"GET")]
    chain = RedirectChain(state.first, request.url)
    chain.target = state.target = parse("http://b.example/next")
    chain.seen["http://a.example/", None] = 1
    chain.seen["http://b.example/next", "s=1"] = 2
    chain.jar = ChainJar()
    assert chain.jar.take(parse("http://b.example/"), (("set-cookie", "s=1; Path=/"), ("set-cookie", "t=2")))
    state.chain = chain
    back = same(state, fields=True)
    for name in (
        "first", "target", "attempts", "returns", "asked_to_wait", "elapsed", "redirects", "reached", "by_get", "by_http",
        "messages",
    ):  # fmt: skip
        assert getattr(back, name) == getattr(state, name), name
    assert (back.request.headers, back.request.fields, back.request.guarded) == (
        request.headers, request.fields, True,
    )  # fmt: skip
    assert (back.first.user, back.first.password) == ("me", "secret")
    assert back.began == pytest.approx(state.began, abs=0.5)
    assert back.transfer is not None
    assert (back.transfer.status, back.transfer.received) == (302, 9)
    assert (back.chain.first, back.chain.target, back.chain.asked) == (chain.first, chain.target, chain.asked)
    assert back.chain.seen == chain.seen
    assert back.chain.jar.header(chain.target) == chain.jar.header(chain.target) == "s=1; t=2"
    assert "secret" not in repr(back)


def test_a_row_with_a_lone_surrogate_crosses() -> None:
    state = RequestState(Request(7, "http://a.example/", fields={"sku": "\ud800"}), parse("http://a.example/"), 3)
    back = same(state, fields=True)
    assert (back.request.fields, back.first) == ({"sku": "\ud800"}, state.first)


async def test_batches_cross_the_seam_and_it_has_an_end() -> None:
    ours, theirs = socket.socketpair()
    one, other = await open_channel(ours, most=100), await open_channel(theirs, most=100)
    await one.send(b"first")
    await one.send(encode(NoMoreRows()))
    assert await other.receive() == b"first"
    assert decode_from_parent(await other.receive() or b"") == NoMoreRows()
    await one.send(bytes(101))
    with pytest.raises(ValueError, match="a batch of 101 bytes"):
        await other.receive()
    one.close()
    one.close()
    with pytest.raises(ConnectionError):
        await one.send(b"late")
    other.close()
    await asyncio.sleep(0)


async def test_who_is_behind_makes_the_other_wait() -> None:
    ours, theirs = socket.socketpair()
    one, other = await open_channel(ours, most=1 << 30), await open_channel(theirs, most=1 << 30)
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            for _ in range(1000):  # no more, for whatever does not wait fills the memory
                await one.send(bytes(1 << 20))
                sent += 1
    assert sent < 32
    assert len(await other.receive() or b"") == 1 << 20
    other.close()
    one.close()
