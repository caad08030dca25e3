"""The server of the live page: what it answers to whom, its streams, its buttons, and what it costs where nobody looks."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest

from fetcher.drawing.document import DARK, LIGHT
from fetcher.errors import ConfigError
from fetcher.live.page import POLICY, render
from fetcher.live.server import MAX_STREAMS, Command, LiveServer
from fetcher.live.state import Eta, LiveState, Point, RowCounts

SEEN = LiveState(
    name="run", kind="run", state="running", seconds=1.0, counts=RowCounts(3, 1, 0, 0, 2, False, 10), pages_per_second=1.0,
    bytes_per_second=10.0, codes=[], other_codes=0, point=Point(1.0, 1, 0, 0, 10, 2), eta=Eta(1.0, "so"),
)  # fmt: skip


class Looked:
    """A source that counts how often somebody looked."""

    def __init__(self, name: str = "run") -> None:
        self.marks: list[float] = [0.0]
        self.looks = self.ticks = 0
        self.name = name
        self.ended = False

    async def state(self) -> LiveState:
        self.looks += 1
        return LiveState(**{name: getattr(SEEN, name) for name in SEEN.__struct_fields__} | {
            "name": self.name, "state": "ended" if self.ended else "running"
        })  # fmt: skip

    def points(self) -> Sequence[Point]:
        return [Point(0.0, 0, 0, 0, 0, 0)]

    def tick(self) -> None:
        self.ticks += 1


class Obedient:
    """Buttons that are noted."""

    def __init__(self) -> None:
        self.heard: list[Command] = []

    def obey(self, command: Command) -> str:
        if command.concurrency == "0":
            raise ConfigError("concurrency: 0 is below 1")
        self.heard.append(command)
        return "Done."


class Visitor:
    """A browser's side: a session, and what it was told."""

    def __init__(self, server: LiveServer, session: aiohttp.ClientSession) -> None:
        self.server, self.session = server, session
        self.base = server.url().rsplit("/", 2)[0]

    async def enter(self) -> str:
        async with self.session.get(self.server.url()) as answer:
            assert answer.status == 200
            page = await answer.text()
        return str(re.findall(r'name="fetcher-token" content="([\w-]+)"', page)[0])

    async def get(self, path: str, **headers: str) -> int:
        async with self.session.get(self.base + path, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def do(self, command: Any, *, token: str | None = None, **headers: str) -> tuple[int, str]:
        given = {"Origin": self.base, "Content-Type": "application/json", **headers}
        if token is not None:
            given["Fetcher-Token"] = token
        data = command if isinstance(command, bytes) else json.dumps(command).encode()
        async with self.session.post(self.base + "/do", data=data, headers=given) as answer:
            return answer.status, await answer.text()

    async def events(self, many: int) -> list[tuple[str, Any]]:
        async with self.session.get(self.base + "/events") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            return [await event_of(answer) for _ in range(many)]


async def event_of(answer: aiohttp.ClientResponse) -> tuple[str, Any]:
    async with asyncio.timeout(30):
        lines = [(await answer.content.readline()).decode() for _ in range(3)]
    assert lines[2] == "\n"
    return lines[0].removeprefix("event: ").strip(), json.loads(lines[1].removeprefix("data: "))


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    jar = aiohttp.CookieJar(unsafe=True)  # of an IP address too
    async with (
        LiveServer(Looked(), names=["crawler.example"], control=Obedient()) as server,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        yield Visitor(server, session)


def test_its_colours_are_those_of_the_reports() -> None:
    page = render("token")
    rules = page.partition("<style>")[2].partition("*{")[0]
    for palette in (LIGHT, DARK):
        assert "".join(f"--{name}:{value};" for name, value in palette.items()) in rules
    own = page.partition("<style>")[2].partition("</style>")[0].removeprefix(rules)
    assert not re.search(r"#[0-9a-f]{3,8}\b[;},]", own), "a colour of its own"
    assert set(re.findall(r"var\(--([\w-]+)\)", own)) <= LIGHT.keys() | {"bar"}


async def test_the_token_lets_in_and_gives_a_cookie(visitor: Visitor) -> None:
    async with visitor.session.get(visitor.server.url(), allow_redirects=False) as answer:
        assert answer.status == 200
        headers = answer.headers
    assert headers["Content-Security-Policy"] == POLICY
    assert "default-src 'none'" in POLICY and "frame-ancestors 'none'" in POLICY and "unsafe" not in POLICY
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    assert visitor.server._access.token not in cookie
    assert await visitor.get("/") == 200, "the cookie is enough from now on"
    async with visitor.session.get(visitor.base + "/") as again:
        assert "Set-Cookie" not in again.headers


async def test_without_the_token_or_the_cookie_nothing_is_seen(visitor: Visitor) -> None:
    for path in ("/", "/events", "/wrong/", f"/{visitor.server._access.token[:-1]}/", "/do", "//", "/%00"):
        status = await visitor.get(path)
        assert status == (405 if path == "/do" else 403), path
    await visitor.enter()
    assert await visitor.get("/nothing") == 404
    assert await visitor.get("/events/../") == 200


async def test_another_host_is_refused(visitor: Visitor) -> None:
    port = visitor.server.place.port
    await visitor.enter()
    path = visitor.server.url().removeprefix(visitor.base)
    for name in (f"localhost:{port}", "crawler.example", f"127.0.0.1:{port}"):
        assert await visitor.get(path, Host=name) == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.2", "localhost.evil.example"):
        assert await visitor.get(path, Host=name) == 403
        assert await visitor.get("/events", Host=name) == 403


async def test_a_button_needs_token_cookie_and_origin(visitor: Visitor) -> None:
    pause = {"do": "pause"}
    token = visitor.server._access.token
    assert (await visitor.do(pause, token=token))[0] == 403, "no cookie"
    token = await visitor.enter()
    for given in ({}, {"token": ""}, {"token": token[:-1]}):
        assert (await visitor.do(pause, **given))[0] == 403
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert (await visitor.do(pause, token=token, Origin=origin))[0] == 403
    assert (await visitor.do(pause, token=token, Host="evil.example"))[0] == 403
    control = visitor.server.control
    assert isinstance(control, Obedient)
    assert control.heard == []
    assert await visitor.do(pause, token=token) == (200, "Done.")
    assert control.heard == [Command("pause")]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (b"", "no command"),
        (b"{", "no command"),
        (b'{"do":"dance"}', "no command"),
        (b'{"do":"pause","more":1}', "no command"),
        (b'{"do":"limits","concurrency":[1]}', "no command"),
        (b"[" * 4000, "no command"),
        (b'{"do":"pause","rate":"' + b"x" * 5000 + b'"}', "a small JSON object is wanted"),
        (b'{"do":"limits","concurrency":"0"}', "concurrency: 0 is below 1"),
    ],
)
async def test_what_is_no_command_is_refused_in_words(visitor: Visitor, command: bytes, words: str) -> None:
    token = await visitor.enter()
    status, said = await visitor.do(command, token=token)
    assert status == 400
    assert words in said
    assert (await visitor.do(b'{"do":"pause"}', token=token, **{"Content-Type": "text/plain"}))[0] == 400


async def test_without_control_nothing_is_changed(visitor: Visitor) -> None:
    visitor.server.control = None
    token = await visitor.enter()
    status, said = await visitor.do({"do": "stop"}, token=token)
    assert (status, "--live-control" in said) == (403, True)


async def test_a_stream_begins_with_the_history_and_goes_on_with_states(visitor: Visitor) -> None:
    await visitor.enter()
    (first, history), (second, state), (third, _) = await visitor.events(3)
    assert (first, second, third) == ("history", "state", "state")
    assert history == {"points": [[0.0, 0, 0, 0, 0, 0]], "marks": [0.0]}
    assert state["counts"]["input"] == 3
    assert state["hosts"] is None, "what is not known is told as such"


async def test_nothing_is_built_where_nobody_looks(visitor: Visitor) -> None:
    source = visitor.server._source
    assert isinstance(source, Looked)
    await visitor.enter()
    assert source.looks == 0
    await visitor.events(2)
    async with asyncio.timeout(30):
        while visitor.server._viewers:
            await asyncio.sleep(0.02)
    looks, ticks = source.looks, source.ticks
    assert looks >= 1
    async with asyncio.timeout(30):
        while source.ticks < ticks + 2:
            await asyncio.sleep(0.05)
    assert source.looks == looks


async def test_so_many_streams_and_no_more(visitor: Visitor) -> None:
    await visitor.enter()
    answers = [await visitor.session.get(visitor.base + "/events") for _ in range(MAX_STREAMS)]
    try:
        assert [answer.status for answer in answers] == [200] * MAX_STREAMS
        for _ in range(80):  # a hundred tabs
            assert await visitor.get("/events") == 503
        for answer in answers:
            assert (await event_of(answer))[0] == "history"
        answers.pop().close()
        async with asyncio.timeout(30):
            while (answer := await visitor.session.get(visitor.base + "/events")).status == 503:
                answer.close()
                await asyncio.sleep(0.05)
            answers.append(answer)
    finally:
        for answer in answers:
            answer.close()


async def test_another_site_cannot_use_up_the_streams(visitor: Visitor) -> None:
    await visitor.enter()
    assert await visitor.get("/events", **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert await visitor.get("/events", **{"Sec-Fetch-Site": "same-site"}) == 403


async def test_a_browser_that_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are told on time."""
    monkeypatch.setattr("fetcher.live.server.WRITE_SECONDS", 0.5)
    source = Looked(name="x" * 4_000_000)
    jar = aiohttp.CookieJar(unsafe=True)
    async with LiveServer(source) as server, aiohttp.ClientSession(cookie_jar=jar) as session:
        reader = Visitor(server, session)
        await reader.enter()
        cookie = f"{server._cookie}={server._access.cookie}"
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        with deaf:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, ("127.0.0.1", server.place.port))
            await loop.sock_sendall(
                deaf, f"GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
            )
            async with asyncio.timeout(30):
                while not server._viewers:
                    await asyncio.sleep(0.02)
                while server._viewers:
                    await asyncio.sleep(0.05)


async def test_who_looks_gets_the_last_state_before_the_server_goes() -> None:
    source = Looked()
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        async with LiveServer(source) as server:
            visitor = Visitor(server, session)
            await visitor.enter()
            answer = await session.get(visitor.base + "/events")
            assert (await event_of(answer))[0] == "history"
            source.ended = True
        told = [await event_of(answer)]
        while told[-1][1]["state"] != "ended":
            told.append(await event_of(answer))
        assert await answer.content.read() == b""
        with pytest.raises(aiohttp.ClientConnectionError):
            await visitor.get("/")


async def test_a_server_that_ends_waits_for_nobody_who_is_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.live.server.DELIVER_SECONDS", 0.3)
    source = Looked(name="x" * 4_000_000)
    async with asyncio.timeout(20):
        async with LiveServer(source) as server:
            cookie = f"{server._cookie}={server._access.cookie}"
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(deaf, ("127.0.0.1", server.place.port))
                await loop.sock_sendall(
                    deaf, f"GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode()
                )
                while not server._viewers:
                    await asyncio.sleep(0.02)
                await server.__aexit__(None, None, None)


async def test_a_port_in_use_is_said_in_words() -> None:
    async with LiveServer(Looked()) as server:
        with pytest.raises(ConfigError, match="cannot listen"):
            async with LiveServer(Looked(), server.place):
                pass
