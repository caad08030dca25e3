"""Owns extractors that other processes can import, most of them no good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from fetcher.errors import ParseError
from fetcher.model import Extractor, Response
from fetcher.page.parse import parse


def titled(response: Response) -> dict[str, Any]:
    """Return plain data."""
    return {"title": (parse(response).title or "").upper(), "bytes": len(response.body), "of": response.request.fields}


def echo(response: Response) -> list[str | None]:
    """Return what the request and the head said."""
    request = response.request
    head = "none" if response.header("x-odd") is None else ascii(response.header("x-odd"))
    return [ascii(request.url), str(request.id), ascii(dict(request.fields or {})), head, str(request.tag)]


def path_bytes(_: Response) -> list[Any]:
    """Return where it runs."""
    return [os.getpid(), os.getsid(0), os.getcwdb(), [os.fsencode(entry) for entry in sys.path]]


def pid(_: Response) -> int:
    """Return the process it runs in."""
    return os.getpid()


_leaked: list[bytes] = []


def leak(response: Response) -> list[int]:
    """Forget to let go of as many MB as the body says, and return the process it runs in and what it has by now."""
    _leaked.append(os.urandom(1024) * int(response.body) * 1024)
    return [os.getpid(), sum(map(len, _leaked)) // 1024**2]


def obey(response: Response) -> Any:
    """Do what the body says."""
    word, _, rest = response.body.decode().partition(" ")
    return _DEEDS[word](rest)


class MethodExtractors:
    """Has extractors that are not functions of a module."""

    @classmethod
    def of(cls, response: Response) -> str:
        return f"{cls.__name__} {len(response.body)}"

    @staticmethod
    def size(response: Response) -> int:
        return len(response.body)

    def own(self, response: Response) -> int:
        return len(response.body)

    def __call__(self, response: Response) -> int:
        return len(response.body)


nameless: Extractor = lambda response: len(response.body)  # noqa: E731 - it is to have no name
called = MethodExtractors()


def _raise(text: str) -> None:
    raise ValueError(text)


def _fail(code: str) -> None:
    raise ParseError(code, "by the extractor")


def _starve(_: str) -> None:
    raise MemoryError


def _loop(_: str) -> None:
    while True:
        pass


def _print(text: str) -> str:
    print(text)
    subprocess.run(["echo", text], check=True)
    sys.stdin.read()
    return text


def _die(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def _nonsense(_: str) -> None:
    for fd in range(3, 32):
        try:
            os.write(fd, b"\xff" * 64)
        except OSError:
            continue
    time.sleep(60)


def _wrong(_: str) -> None:
    """Send a whole message of another shape."""
    for fd in range(3, 32):
        try:
            os.write(fd, b"\0\0\0\x01\x07")
        except OSError:
            continue
    time.sleep(60)


def _close(_: str) -> None:
    os.closerange(0, 64)
    time.sleep(60)


def _orphan(seconds: str) -> None:
    """Leave a child with our files behind."""
    if os.fork() == 0:
        time.sleep(float(seconds))
        os._exit(0)
    os.abort()


def _linger(_: str) -> str:
    """Leave a thread behind that never ends."""
    threading.Thread(target=lambda: time.sleep(3600)).start()
    return "lingers"


def _cycle(_: str) -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def _pause(seconds: str) -> str:
    time.sleep(float(seconds))
    return seconds


_DEEDS: dict[str, Callable[[str], Any]] = {
    "abort": lambda _: os.abort(),
    "exit": lambda code: os._exit(int(code)),
    "leave": lambda code: sys.exit(int(code)),
    "die": _die,
    "starve": _starve,
    "loop": _loop,
    "print": _print,
    "raise": _raise,
    "fail": _fail,
    "nonsense": _nonsense,
    "wrong": _wrong,
    "close": _close,
    "orphan": _orphan,
    "linger": _linger,
    "pause": _pause,
    "say": lambda text: text,
    "list": lambda n: ["x" * 1000] * int(n),
    "text": lambda n: "x" * int(n),
    "tuple": lambda _: ("a", ("b", 1)),
    "set": lambda _: {"a", "b"},
    "object": lambda _: [object()],
    "huge": lambda _: 2**70,
    "surrogate": lambda _: "\udcff",
    "cycle": _cycle,
    "key": lambda _: {("a", "b"): 1},
}
