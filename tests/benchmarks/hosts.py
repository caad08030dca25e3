"""Owns the hosts that politeness is measured on: a server in a process of its own, told before each run what they bear.

Every address of 127.0.0.0/8 is a host, all of them at one port. A request is answered when its latency is over; one
that is refused, at once. Law 1: the log has when each request came and when its answer went, in seconds of the
monotonic clock. Law 2: the server ends with whoever started it.
"""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from fetcher.event_loop import fastest_loop
from tests.lab.connection import ServerConnection, whole_answer

__all__ = ["Entry", "Refusing", "Scene", "Street", "street"]

ROOT = Path(__file__).resolve().parents[2]
PHRASES = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}
PAGES = 64  # different ones
WORDS = "coffee roast origin washed natural kettle grinder filter bloom ratio crema harvest altitude parcel".split()


class Refusing(msgspec.Struct, frozen=True):
    """A host that refuses with ``status``: what is above ``ceiling`` at once, or one request after each ``every``.

    With ``wish`` (the value of Retry-After; ``date:SECONDS`` is that date) goes ``rest``: the seconds from then on in
    which a request would be early, and is refused too.
    """

    host: str
    status: int
    ceiling: int | None = None
    every: int | None = None
    wish: str | None = None
    rest: float = 0.0


class Scene(msgspec.Struct, frozen=True):
    """What all hosts do until there is another scene: ``latency`` in seconds (lowest, highest), one a path.

    ``robots`` is the text of every robots.txt, without which there is none; a ``{host}`` in it is the host's own.
    """

    latency: tuple[float, float]
    robots: str | None = None
    pages: Literal["small", "large"] = "small"
    refusing: Refusing | None = None


class Entry(NamedTuple):
    """A request: when it came and its answer went, to which host, and until when that answer asks to be left alone."""

    came: float
    went: float
    host: str
    path: str
    status: int
    until: float


class Street:
    """The running server."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._says, self._hears = process.stdin, process.stdout
        self.port = int(self._hears.readline())

    def play(self, scene: Scene) -> None:
        """Begin a scene: the log is empty, and whatever hosts had learnt is forgotten."""
        self._ask(msgspec.json.encode(scene))

    def log(self) -> list[Entry]:
        """Return what was asked since the scene began and has been answered, in the order of arrival."""
        return sorted(msgspec.json.decode(self._ask(b"log"), type=list[Entry]))

    def _ask(self, line: bytes) -> bytes:
        self._says.write(line + b"\n")
        self._says.flush()
        return self._hears.readline()


@contextmanager
def street() -> Iterator[Street]:
    """Run the hosts until the block is left."""
    words = [sys.executable, "-m", "tests.benchmarks.hosts"]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        with process.stdin:
            yield Street(process)


class Play:
    """A scene as it goes: the log, and how the host that refuses is doing."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.log: list[Entry] = []
        self.pages = SMALL if scene.pages == "small" else LARGE
        self.at_once = 0
        self._served = 0
        self._rests_until = 0.0

    def refusal(self, host: str, now: float) -> tuple[bytes, float] | None:
        """Return the refusal of a request that came just now and until when it asks to be left alone, if it is one."""
        refusing = self.scene.refusing
        if refusing is None or host != refusing.host:
            return None
        if refusing.ceiling is not None:
            return (_answer(refusing.status, b"too many"), 0.0) if self.at_once >= refusing.ceiling else None
        self._served += 1
        if now >= self._rests_until and (refusing.every is None or self._served <= refusing.every):
            return None
        self._served = 0
        wish, rest = refusing.wish, refusing.rest
        if wish is not None and wish.startswith("date:"):
            date = math.ceil(time.time() + float(wish[5:]))
            wish, rest = formatdate(date, usegmt=True), max(0.0, date - time.time())
        self._rests_until = until = now + rest
        lines = "" if wish is None else f"Retry-After: {wish}\r\n"
        return _answer(refusing.status, b"too many", more=lines), until

    def robots_of(self, host: str) -> bytes:
        """Return the answer to who asks a host for its robots.txt."""
        text = self.scene.robots
        return _answer(404, b"") if text is None else _answer(200, text.replace("{host}", host).encode(), "text/plain")

    def latency_of(self, path: str) -> float:
        """Return the seconds a path takes, always the same."""
        low, high = self.scene.latency
        return low + (high - low) * zlib.crc32(path.encode()) / 2**32


class Conversation(ServerConnection):
    """One connection to a host of the scene."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._at_work: Play | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._host = str(transport.get_extra_info("sockname")[0])

    def connection_lost(self, _: Exception | None) -> None:
        self._end()

    def asked(self, path: str, head: bytes) -> None:
        play, now = self._stage.play, time.monotonic()
        refusal = play.refusal(self._host, now)
        if refusal is not None:
            assert play.scene.refusing is not None
            self.send(refusal[0])
            play.log.append(Entry(now, time.monotonic(), self._host, path, play.scene.refusing.status, refusal[1]))
            return
        if play.scene.refusing is not None and play.scene.refusing.host == self._host:
            self._at_work = play
            play.at_once += 1
        self.loop.call_later(play.latency_of(path), self._answer, play, path, now)

    def _answer(self, play: Play, path: str, came: float) -> None:
        self._end()
        if self.transport.is_closing():
            return
        status = 200
        if path != "/robots.txt":
            self.send(play.pages[zlib.crc32(path.encode()) % PAGES])
        else:
            status = 404 if play.scene.robots is None else 200
            self.send(play.robots_of(self._host))
        play.log.append(Entry(came, time.monotonic(), self._host, path, status, 0.0))

    def _end(self) -> None:
        if self._at_work is not None:
            self._at_work.at_once -= 1
            self._at_work = None


class Stage:
    """Where the current scene is played."""

    def __init__(self) -> None:
        self.play = Play(Scene((0.0, 0.0)))


def _answer(status: int, body: bytes, kind: str = "text/html; charset=utf-8", more: str = "") -> bytes:
    return whole_answer(f"{status} {PHRASES[status]}", body, kind=kind, more=more)


def _page(size: int, chance: random.Random) -> bytes:
    """Write a page of about ``size`` bytes, with the tags, links and words that an article has."""
    parts = ["<!doctype html><html lang=en><head><meta charset=utf-8><title>An article</title></head><body><main>"]
    length = 0
    while length < size:
        words = " ".join(chance.choices(WORDS, k=chance.randint(20, 60)))
        link = f'<a class="more" href="/articles/{chance.randrange(10**6)}">{chance.choice(WORDS)}</a>'
        parts.append(f'<section class="s"><h2>{chance.choice(WORDS)}</h2><p>{words} {link} <em>{words[:20]}</em>.</p>')
        parts.append("</section>\n")
        length += len(parts[-2]) + len(parts[-1])
    return "".join([*parts, "</main></body></html>"]).encode()


SMALL = [_answer(200, _page(1_500, random.Random(number))) for number in range(PAGES)]
LARGE = [_answer(200, _page(20_000 + 40_000 * number // PAGES, random.Random(number))) for number in range(PAGES)]


async def serve() -> None:
    """Serve on all hosts, print the port, and do what is said until standard input ends."""
    loop, stage = asyncio.get_running_loop(), Stage()
    server = await loop.create_server(lambda: Conversation(stage), "0.0.0.0", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    said = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    while line := (await said.readline()).rstrip():
        if line == b"log":
            print(msgspec.json.encode(stage.play.log).decode(), flush=True)
        else:
            stage.play = Play(msgspec.json.decode(line, type=Scene))
            print(flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(serve())
