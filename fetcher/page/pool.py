"""The parsers: which page goes to which process, how many there are, and what becomes of a dead one's pages.

Law 1: one outcome per request: of a process that died or took too long the first unanswered page is the culprit; the
others go to another process. Law 3: as many processes as ``size`` and no more, each started when it is needed and ended
when it is idle.

(Pebble has pools with a time limit too. Its batches cannot say which page of them was the culprit, it imports the
user's ``__main__`` again in every process, and it pickles what comes back out of them.)
"""

from __future__ import annotations

import asyncio
from collections import deque

from fetcher.errors import ParseError
from fetcher.model import Response
from fetcher.page.parse import Reading
from fetcher.page.process import ParserProcess, Pending
from fetcher.page.wire import NotPlain, Terms

__all__ = ["Pool"]

PAUSE = 5.0  # seconds before another start is tried after one that failed
_CLOSE = 5.0  # seconds that all processes have to end


class Pool:
    """Up to ``size`` processes of up to ``depth`` pages each; of the loop it is made in."""

    def __init__(self, terms: Terms, *, size: int, depth: int) -> None:
        self._terms = terms
        self._size = size
        self._depth = depth
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Pending] = deque()
        self._processes: list[ParserProcess] = []
        self._starts: set[asyncio.Task[None]] = set()
        self._refused: ParseError | None = None
        self._refused_until = 0.0
        self._closed = False

    async def read(self, response: Response) -> Reading | NotPlain:
        """Have a body read. Raises ``ParseError``; leaving early does the others no harm."""
        if self._closed:
            raise RuntimeError("the parsers were closed")
        page = Pending(response, self._loop.create_future())
        self._waiting.append(page)
        self._dispatch()
        return await page.answer

    async def close(self) -> None:
        """End all processes; who still waits has a ``RuntimeError``."""
        self._closed = True
        for page in [*self._waiting, *(page for process in self._processes for page in process.pages)]:
            page.fail(RuntimeError("the parsers were closed"))
        self._waiting.clear()
        try:
            for process in list(self._processes):
                process.end()
            remaining = [*self._starts, *(process.over for process in self._processes)]
            if remaining:
                await asyncio.wait(remaining, timeout=_CLOSE)
        finally:
            for process in list(self._processes):
                process.abandon()

    def freed(self) -> None:
        """Give out what waits (see ``Owner``)."""
        if self._waiting:
            self._dispatch()

    def lost(self, process: ParserProcess, reason: ParseError, *, for_good: bool) -> None:
        """Blame the first page of a lost process and take back the others (see ``Owner``)."""
        pages = process.pages
        if pages:
            pages.popleft().fail(reason)
            self._waiting.extendleft(reversed(pages))
            pages.clear()
        elif not process.started:
            self._refused = reason
            self._refused_until = float("inf") if for_good else self._loop.time() + PAUSE
        self._dispatch()

    def buried(self, process: ParserProcess) -> None:
        """Forget a process (see ``Owner``)."""
        self._processes.remove(process)

    def _dispatch(self) -> None:
        """Give each waiting page to the process with the fewest, and start processes for those that none is free for."""
        while self._waiting and not self._closed:
            if self._waiting[0].answer.done():  # nobody waits for it any more
                self._waiting.popleft()
                continue
            serving = [process for process in self._processes if not process.leaving]
            starting = sum(not process.started for process in serving)
            idle = sum(process.idle for process in serving)
            if len(self._waiting) > idle + starting and len(serving) < self._size and self._may_start():
                self._start()
                continue
            free = [process for process in serving if process.has_room(self._depth)]
            if not free and not serving and self._refused is not None:
                self._waiting.popleft().fail(self._refused)
            elif free:
                min(free, key=lambda process: len(process.pages)).give(self._waiting.popleft())
            else:
                return

    def _may_start(self) -> bool:
        return self._refused is None or self._loop.time() >= self._refused_until

    def _start(self) -> None:
        self._refused = None
        process = ParserProcess(self, self._terms)
        self._processes.append(process)
        task = self._loop.create_task(process.start())
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)
