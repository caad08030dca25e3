"""Owns a browser's side of the live page without a browser: the address off stderr, the cookie, the stream, the buttons."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.lab.command import Running

DEADLINE = 60.0


def address_of(running: Running) -> str:
    """Return the address of the page of a run, once it is told."""
    running.until_said("/\n")
    found = re.search(r"live: (http://\S+/)$", running.err.decode(), re.MULTILINE)
    assert found, running.err.decode()
    return found[1]


class Looker:
    """Somebody who looks at the page at ``url``; ``host`` is what the Host header says."""

    def __init__(self, url: str, *, host: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.place = (parts.hostname, parts.port)
        self.host = host or parts.netloc
        self.origin = f"http://{self.host}"
        status, page, headers = self.ask("GET", parts.path)
        self.status = status
        self.cookie = (headers.get("Set-Cookie") or "").partition(";")[0]
        found = re.search(r'name="fetcher-token" content="([\w-]+)"', page)
        self.token = found[1] if found else ""

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str, Any]:
        """Send a request and return status, text and headers of the answer."""
        connection = http.client.HTTPConnection(*self.place, timeout=DEADLINE)
        try:
            connection.request(method, path, body, {"Host": self.host, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def do(self, **command: str) -> tuple[int, str]:
        """Press a button."""
        status, text, _ = self.ask(
            "POST",
            "/do",
            json.dumps(command),
            **{
                "Cookie": self.cookie,
                "Origin": self.origin,
                "Fetcher-Token": self.token,
                "Content-Type": "application/json",
            },
        )
        return status, text

    def states(self) -> Iterator[dict[str, Any]]:
        """Yield each state as it comes, up to the end of the stream."""
        connection = http.client.HTTPConnection(*self.place, timeout=DEADLINE)
        try:
            connection.request("GET", "/events", headers={"Host": self.host, "Cookie": self.cookie})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            name = ""
            for line in answer:
                if line.startswith(b"event: "):
                    name = line.decode().removeprefix("event: ").strip()
                elif line.startswith(b"data: ") and name == "state":
                    yield json.loads(line.removeprefix(b"data: "))
        finally:
            connection.close()

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first state of which that holds."""
        for state in self.states():
            if holds(state):
                return state
        raise AssertionError("the stream ended before")
