"""Owns the site of the sweeps: a fast server in a process of its own, whose log outlives whoever is killed.

A path is ``/JOB/KIND/MILLISECONDS/ROW``: how it is answered, after how long, and for which row; ``/lists/JOB`` is a
list. Law 1: the log has a line when a request's head has come, and one before its answer goes, in seconds of the
monotonic clock, which all processes of a machine share. Law 2: the server ends with whoever started it.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from fetcher.spawn import when_owner_ends
from tests.lab.connection import ServerConnection, whole_answer
from tests.lab.ports import bind_hosts, host_address
from tests.sweeps.judge import Row

__all__ = ["Entry", "Site", "serving"]

ROOT = Path(__file__).resolve().parents[2]
HOSTS = 4
ATOMS = 10_500  # tags enough that a page is parsed in a process of its own

SHARES = {"slow": 0.10, "missing": 0.05, "reset": 0.05, "hop": 0.05}
"""What is wrong with how many rows; all others are pages."""

CODES: dict[str, frozenset[str | None]] = {
    "missing": frozenset({"http_404"}),
    "reset": frozenset({"connect_reset", "empty_reply"}),
}
PAGE = frozenset({None})


class Entry(NamedTuple):
    """One line of the log: when, whether a request came (else its answer went), and for which row."""

    t: float
    came: bool
    row: int


@dataclass(frozen=True)
class Site:
    """The running server, by its port and its log."""

    port: int
    log: Path

    def rows(
        self, job: str, count: int, *, seed: int, latency: tuple[int, int], dense: float = 0.0, page: str = "page"
    ) -> list[Row]:
        """Return a list in an order of its own: pages after ``latency`` ms, and the ``SHARES``, slow ones ten times.

        ``dense`` is the share of pages with so many tags that they are parsed in a process of their own. Of the others
        two at a time have the same body, or with ``few`` for ``page`` all of them have one of ``FEW``.
        """
        chance = random.Random(f"{job} {seed}")
        kinds = [kind for kind, share in {**SHARES, "dense": dense}.items() for _ in range(round(share * count))]
        kinds += [page] * (count - len(kinds))
        chance.shuffle(kinds)
        rows = []
        for number, kind in enumerate(kinds, 1):
            wait = chance.randint(*latency) * (10 if kind == "slow" else 1)
            host = host_address(number % HOSTS + 1)
            rows.append(Row(f"http://{host}:{self.port}/{job}/{kind}/{wait}/{number}", CODES.get(kind, PAGE)))
        return rows

    def list_url(self, job: str) -> str:
        """Return where ``JOB/urls.txt`` beside the log is served as a list."""
        return f"http://{host_address(1)}:{self.port}/lists/{job}"

    def end(self) -> int:
        """Return where the log ends now, in bytes."""
        return self.log.stat().st_size

    def entries(self, job: str, since: int = 0) -> list[Entry]:
        """Return what the log says of a job after a place that ``end`` gave."""
        with open(self.log, "rb") as log:
            log.seek(since)
            lines = log.read().splitlines()
        entries = []
        for line in lines:
            moment, arrow, path = line.decode().split(" ")
            if path.startswith(f"/{job}/"):
                entries.append(Entry(float(moment), arrow == ">", int(path.rpartition("/")[2])))
        return entries


@contextmanager
def serving(log: Path) -> Iterator[Site]:
    """Serve, with a new log at that path, until the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.site", str(log)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin, process.stdout:
        yield Site(int(process.stdout.readline()), log)


class Visit(ServerConnection):
    """One connection to the site."""

    def __init__(self, log: int) -> None:
        super().__init__()
        self._log = log

    def asked(self, path: str, head: bytes) -> None:
        match path.split("/"):
            case ["", "lists", job]:
                self.send(whole_answer("200 OK", (LISTS / job / "urls.txt").read_bytes()))
            case ["", _, kind, wait, row] if wait.isdecimal() and row.isdecimal():
                self._note(">", path)
                self.loop.call_later(int(wait) / 1000, self._answer, kind, path)
            case _:
                self.send(whole_answer("404 Not Found", b""))

    def _answer(self, kind: str, path: str) -> None:
        if self.transport.is_closing():
            return
        self._note("<", path)
        if kind == "reset":
            cast(socket.socket, self.transport.get_extra_info("socket")).setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self.transport.abort()
        elif kind == "hop":
            _, job, _, _, row = path.split("/")
            self.send(whole_answer("302 Found", b"", more=f"Location: /{job}/landed/0/{row}\r\n"))
        elif kind == "missing":
            self.send(whole_answer("404 Not Found", b"<title>missing</title>"))
        else:
            number = int(path.rpartition("/")[2])
            self.send(DENSE if kind == "dense" else ordinary(number % FEW if kind == "few" else number // 2))

    def _note(self, arrow: str, path: str) -> None:
        os.write(self._log, f"{time.monotonic():.6f} {arrow} {path}\n".encode())


LISTS = Path()  # the log's folder
LEAD = b"<!doctype html><title>swept</title>"
FEW = 4
DENSE = whole_answer("200 OK", LEAD + b"<b>x</b>" * ATOMS)


def ordinary(number: int) -> bytes:
    """Return a page with a body of its number's own, and with as many images as links, up to three."""
    links = b'<a href="/next">next<img src="/next.png" alt=""></a>' * (number % 4)
    return whole_answer("200 OK", LEAD + links + b"<p>%d " % number + b"lorem ipsum " * 150)


async def serve(log: int) -> None:
    """Serve on all hosts, print the port, and end when standard input does."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    listeners = bind_hosts(HOSTS)
    for listener in listeners:
        await loop.create_server(lambda: Visit(log), sock=listener, backlog=1024)

    def end() -> None:
        loop.call_soon_threadsafe(over.set)

    when_owner_ends(end)
    print(listeners[0].getsockname()[1], flush=True)
    await over.wait()


if __name__ == "__main__":
    LISTS = Path(sys.argv[1]).parent
    asyncio.run(serve(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_TRUNC, 0o644)))
