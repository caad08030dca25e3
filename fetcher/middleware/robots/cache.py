"""What is known of each origin's robots.txt, bounded by origins and by bytes.

Law 3: of too many those are forgotten that were asked for longest ago. A platform gives all its sites the same
file: such rules are read once, and kept once, however many origins have them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import TypeAlias
from weakref import WeakValueDictionary

import msgspec

from fetcher.errors import FetchError
from fetcher.middleware.robots.fetch import RobotsFetch
from fetcher.middleware.robots.parse import parse_robots
from fetcher.middleware.robots.rules import EVERYTHING, Rules
from fetcher.request_state import SchemeTrial

__all__ = ["Known", "RobotsCache"]

MAX_ORIGINS = 10_000
MAX_RULES_BYTES = 48 * 1024 * 1024  # for all that is remembered
ORIGIN_BYTES = 700  # that an origin takes besides its rules, about
MIN_THREAD_BYTES = 32_768  # a larger file is read in a thread, so that the loop turns meanwhile

Origin: TypeAlias = tuple[str, str, int]


class Known(msgspec.Struct):
    """What is known of one origin's file until ``until`` (monotonic seconds).

    ``rules`` or the ``error`` that its rows end with; with a ``state`` neither is known yet: it goes on then.
    ``of_hop``: the error holds for rows that came by a redirect, and says nothing of others. With a ``trial`` it says
    that the host does not speak the scheme that the trial is of, and holds for that alone.
    """

    source: str
    until: float
    rules: Rules | None = None
    error: FetchError | None = None
    failures: int = 0
    delay: float = 0.0
    state: RobotsFetch | None = None
    of_hop: bool = False
    trial: SchemeTrial | None = None


class RobotsCache:
    """What is known by origin; ``size`` is about the bytes that it takes. ``token`` is our name in the files.

    Where it is not ``crowded`` nothing will soon be forgotten, and who was asked for last says nothing.
    """

    def __init__(self, token: str) -> None:
        self.size = 0
        self.crowded = False
        self._token = token
        self._known: OrderedDict[Origin, Known] = OrderedDict()
        self.get = self._known.get  # what is known of an origin, and be it that its time is over
        self._alike: WeakValueDictionary[bytes, Rules] = WeakValueDictionary()
        self._origins: dict[Rules, int] = {}  # how many have them

    def __len__(self) -> int:
        return len(self._known)

    def touch(self, origin: Origin) -> None:
        """Note that an origin was asked for."""
        self._known.move_to_end(origin)

    def keep(self, origin: Origin, known: Known) -> None:
        """Remember it in the place of what was known, and forget what was asked for longest ago."""
        old = self._known.pop(origin, None)
        self._known[origin] = known
        self._count(known)
        if old is not None:
            self._discount(old)
        while len(self._known) > MAX_ORIGINS or (self.size > MAX_RULES_BYTES and len(self._known) > 1):
            self._discount(self._known.popitem(last=False)[1])
        self.crowded = len(self._known) > MAX_ORIGINS // 2 or self.size > MAX_RULES_BYTES // 2

    async def read(self, body: bytes, *, truncated: bool) -> Rules:
        """Return the rules for us in a robots.txt, those of another origin where its file is the same."""
        digest = hashlib.blake2b(body, digest_size=16, person=b"cut" if truncated else b"").digest()
        rules = self._alike.get(digest)
        if rules is None:
            if len(body) > MIN_THREAD_BYTES:
                rules = await asyncio.to_thread(parse_robots, body, self._token, truncated=truncated)
            else:
                rules = parse_robots(body, self._token, truncated=truncated)
            rules = self._alike.setdefault(digest, rules)
        return rules

    def _count(self, known: Known) -> None:
        self.size += ORIGIN_BYTES
        if (rules := known.rules) is not None and rules is not EVERYTHING:
            others = self._origins.get(rules, 0)
            self._origins[rules] = others + 1
            if not others:
                self.size += rules.size

    def _discount(self, known: Known) -> None:
        self.size -= ORIGIN_BYTES
        if (rules := known.rules) is not None and rules is not EVERYTHING:
            others = self._origins.pop(rules) - 1
            if others:
                self._origins[rules] = others
            else:
                self.size -= rules.size
