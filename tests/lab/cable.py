"""Owns a cable that can be pulled: two network namespaces, the town at its far end and whoever asks for it at this one.

Law 1: nothing is left and nothing outside is touched: a namespace has no name, and ends with the processes in it, and
the cable with them. Law 2: this process must be in a namespace of its own, by ``apart``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from tests.lab.town import Town, living_in

__all__ = ["END", "Cable", "How", "address_of", "apart", "impossible", "laid"]

ROOT = Path(__file__).resolve().parents[2]
NEAR, END = "10.0.0.1", "10.0.0.2"  # of the cable

How: TypeAlias = Literal["here", "there", "dropped"]
"""Which end is pulled: ours, so that there is no route at once; the other, so that the neighbour is soon missed; or the
other, with nothing to be seen of it here: what is sent is lost."""


def _unshared() -> list[str]:
    return ["unshare", *(["--map-root-user"] if os.geteuid() else []), "--net"]


@cache
def impossible() -> str | None:
    """Say why there can be no namespaces here, or ``None``."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"network namespaces need {tool}, which is not installed"
    tried = subprocess.run(
        [*_unshared(), "ip", "link", "add", "near", "type", "veth", "peer", "name", "far"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return f"network namespaces are not permitted: {tried.stderr.strip()}" if tried.returncode else None


def apart(module: str, *words: str) -> list[str]:
    """Return the words that run one of our modules in a network namespace of its own."""
    return [*_unshared(), sys.executable, "-m", module, *words]


def address_of(number: int) -> str:
    """Return the address of a host at the far end, from 0 on."""
    return f"10.1.{number // 250}.{number % 250 + 1}"


class Cable:
    """The cable to a town, plugged in, or pulled in the way that ``how`` says while ``missing``."""

    def __init__(self, far: int) -> None:
        self._there = ["nsenter", f"--target={far}", "--net"]
        self.how: How = "here"
        self.missing = False
        _ip("link", "set", "lo", "up")
        _ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(far))
        _ip("address", "add", f"{NEAR}/30", "dev", "near")
        _ip("address", "add", f"{END}/30", "dev", "far", before=self._there)
        _ip("route", "add", "local", "10.1.0.0/16", "dev", "lo", before=self._there)
        _ip("link", "set", "far", "up", before=self._there)
        _ip("link", "set", "near", "up")
        self._lead()

    def pull(self, how: How) -> None:
        """Cut the connection."""
        self.how = how
        self.missing = True
        if how == "here":
            _ip("link", "set", "near", "down")
        else:
            if how == "dropped":
                _ip("neighbour", "replace", END, "lladdr", "02:00:00:00:00:02", "dev", "near", "nud", "permanent")
            _ip("link", "set", "far", "down", before=self._there)

    def plug(self) -> None:
        """Mend it, as what keeps a machine's network up does: its route comes back as well."""
        if self.how == "here":
            _ip("link", "set", "near", "up")
            self._lead()
        else:
            if self.how == "dropped":
                _ip("neighbour", "del", END, "dev", "near")
            _ip("link", "set", "far", "up", before=self._there)
        self.missing = False

    def _lead(self) -> None:
        _ip("route", "replace", "default", "via", END)


def _ip(*words: str, before: list[str] | None = None) -> None:
    subprocess.run([*(before or []), "ip", *words], check=True, timeout=30)


@contextmanager
def laid() -> Iterator[tuple[Town, Cable]]:
    """Found a town and lay a cable to it, in a process that runs ``apart``."""
    with living_in([*_unshared(), "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]) as town:
        yield town, Cable(town.process.pid)
