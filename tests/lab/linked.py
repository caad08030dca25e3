"""Owns a site of pages that link to each other, made by a function or read from a folder, and a log of what was asked.

It runs in a thread of the process that starts it, so that its log outlives a fetcher that is killed.
"""

from __future__ import annotations

import asyncio
import mimetypes
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from html import escape
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import unquote, urldefrag, urljoin

from selectolax.lexbor import LexborHTMLParser

from tests.lab.connection import ServerConnection, whole_answer
from tests.lab.ports import bind_hosts, host_address

__all__ = ["LinkedPage", "LinkedSite", "breadth_first", "folder", "page"]


class LinkedPage(NamedTuple):
    """What is sent: a body, its type, a status, and further headers."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


Pages = Callable[[str], LinkedPage | None]


def page(*links: str, head: str = "", more: str = "") -> LinkedPage:
    """Return a page with these links."""
    anchors = "".join(f'<a href="{escape(link)}">x</a>\n' for link in links)
    return LinkedPage(f"<!doctype html><head><title>p</title>{head}</head><body>{anchors}{more}".encode())


def folder(root: Path) -> Pages:
    """Return what answers with the files below a folder."""

    def answer(path: str) -> LinkedPage | None:
        file = root / unquote(path.partition("?")[0]).lstrip("/")
        if not file.is_file():
            return None
        return LinkedPage(file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream")

    return answer


def breadth_first(root: Path, start: str = "/index.html") -> set[str]:
    """Return the paths that are reached from one of them, by a walk over the files of a folder."""
    seen, todo = {start}, deque([start])
    while todo:
        path = todo.popleft()
        file = root / path[1:]
        if not file.is_file() or file.suffix != ".html":
            continue
        tree = LexborHTMLParser(file.read_bytes())
        for node in tree.css("a[href],area[href]"):
            rel = (node.attributes.get("rel") or "").lower().split()
            url = urldefrag(urljoin(f"http://docs{path}", (node.attributes.get("href") or "").strip()))[0]
            if url.startswith("http://docs/") and "nofollow" not in rel and url[11:] not in seen:
                seen.add(url[11:])
                todo.append(url[11:])
    return seen


class LinkedSite:
    """The site, for a ``with`` block: ``pages`` is called with each path (and query), in the order they are asked for.

    ``latency`` is seconds before an answer. ``log`` has each path that was asked for.
    """

    def __init__(self, pages: Pages | dict[str, LinkedPage], *, latency: float = 0.0, hosts: int = 2) -> None:
        self.pages: Pages = pages.get if isinstance(pages, dict) else pages
        self.latency = latency
        self.log: list[str] = []
        self.etags = False
        self._hosts = hosts
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._ready.result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    def url(self, path: str = "/", host: int = 1) -> str:
        """Return the URL of a path on one of the hosts."""
        return f"http://{host_address(host)}:{self.port}{path}"

    def asked(self) -> Counter[str]:
        """Return how often each path was asked for since the last time."""
        log, self.log = self.log, []
        return Counter(log)

    def until_asked(self, times: int) -> None:
        """Wait until so many requests have come."""
        end = time.monotonic() + 60
        while len(self.log) < times:
            assert time.monotonic() < end, f"{len(self.log)} requests came"
            time.sleep(0.005)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        listeners = bind_hosts(self._hosts)
        servers = [await self._loop.create_server(lambda: Visit(self), sock=each, backlog=512) for each in listeners]
        self._ready.set_result(listeners[0].getsockname()[1])
        await self._over.wait()
        for server in servers:
            server.close()


class Visit(ServerConnection):
    """One connection to the site."""

    def __init__(self, site: LinkedSite) -> None:
        super().__init__()
        self._site = site

    def asked(self, path: str, head: bytes) -> None:
        self._site.log.append(path)
        self.loop.call_later(self._site.latency, self._answer, path, head)

    def _answer(self, path: str, head: bytes) -> None:
        if self.transport.is_closing():
            return
        answer = self._site.pages(path) or LinkedPage(b"missing", "text/plain", 404)
        headers: Iterable[tuple[str, str]] = answer.headers
        if self._site.etags and answer.status == 200:
            tag = f'"{hash(answer.body) & 0xFFFFFFFF:x}"'
            headers = (*headers, ("ETag", tag))
            if tag.encode() in head:
                answer = LinkedPage(b"", answer.kind, 304)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.send(whole_answer(f"{answer.status} X", answer.body, kind=answer.kind, more=lines))
