"""One parser's process as its owner sees it: started, given pages, timed, ended.

Laws: whatever becomes of it, each page it was given has its answer or goes back to the owner, who is told once; it is
ended by its own id, and nothing of it is left over: no zombie, no open file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from typing import Any, Protocol

import msgspec

from fetcher.errors import ParseError
from fetcher.model import Response
from fetcher.page.parse import Reading
from fetcher.page.wire import Answer, Frames, NotPlain, Ready, Refusal, Terms, Trouble, encode, encode_response
from fetcher.page.worker import START, STOP
from fetcher.spawn import command, environment

__all__ = ["AHEAD", "IDLE", "Owner", "ParserProcess", "Pending"]

IDLE = 10.0  # seconds without a page after which a process is ended
AHEAD = 1024 * 1024  # bytes of pages on their way to a process at which it is given no more
_LAST_WORDS = 0.5  # seconds between the ends of its pipes and its own, either first: a child may hold them open
_GLANCE = 0.05  # seconds a loop that was blocked has to read what came meanwhile
_LONGEST = 1e8  # seconds

_decode = msgspec.msgpack.Decoder(Answer).decode


class Pending:
    """A response that is to be read, and the future that waits for it."""

    __slots__ = ("answer", "response")

    def __init__(self, response: Response, answer: asyncio.Future[Reading | NotPlain]) -> None:
        self.response = response
        self.answer = answer

    def fail(self, error: Exception) -> None:
        """Give an error for an answer, where somebody still waits for one."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Owner(Protocol):
    """Who is told what becomes of a process."""

    def freed(self) -> None:
        """Give out what waits: some process has room."""

    def lost(self, process: ParserProcess, reason: ParseError, *, for_good: bool) -> None:
        """Take back the pages of a process that answers no more; ``for_good``: nor would any other."""

    def buried(self, process: ParserProcess) -> None:
        """Forget a process of which nothing is left."""


class ParserProcess(asyncio.SubprocessProtocol):
    """A process and the pages it was given, oldest first: it answers in that order."""

    def __init__(self, owner: Owner, terms: Terms) -> None:
        self.pages: deque[Pending] = deque()
        self.started = False
        self.leaving = False
        self._owner = owner
        self._terms = terms
        self._limit = min(terms.limit, _LONGEST)
        self._loop = asyncio.get_running_loop()
        self.over = self._loop.create_future()  # done when nothing is left of it
        self._transport: asyncio.SubprocessTransport | None = None
        self._frames = Frames()
        self._load = 0
        self._since = self._loop.time()  # when its present page became the first, or it had none any more
        self._timer: asyncio.TimerHandle | None = None
        self._overdue = self._lost = self._silent = self._dismissed = False

    async def start(self) -> None:
        """Start the process and tell it the terms. The owner hears what goes wrong."""
        try:
            self._transport, _ = await self._loop.subprocess_exec(
                lambda: self,
                *command("fetcher.page.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=None,
                env=environment(),
                start_new_session=True,  # Ctrl-C and Ctrl-Z at a terminal are for the owner alone
            )
        except (OSError, TypeError, ValueError, RuntimeError) as error:  # no files left, no interpreter, no watcher
            self._lose(ParseError("parse_crash", f"no process can be started to parse in: {error}"))
        finally:
            if self._transport is None:
                self._finish()
        if self._transport is not None:
            if self.leaving:
                self._kill()
            self._write(encode(self._terms))
            self._restart_clock()

    @property
    def idle(self) -> bool:
        """Whether it could begin with a page at once."""
        return self.started and not self.leaving and not self.pages

    def has_room(self, depth: int) -> bool:
        """Tell whether it may be given another page: of ``depth`` at most, and not too many bytes."""
        if not self.started or self.leaving:
            return False
        return not self.pages or (len(self.pages) < depth and self._load < AHEAD)

    def give(self, page: Pending) -> None:
        """Have it read a page."""
        try:
            frame = encode_response(page.response)
        except Exception as error:  # noqa: BLE001 - a strange value of the caller's is for the caller to hear of
            page.fail(error)
            return
        self.pages.append(page)
        self._load += len(page.response.body)
        if len(self.pages) == 1:
            self._restart_clock()
        self._write(frame)

    def end(self) -> None:
        """End it: at once where it is at work or not yet ready, else by the end of its input."""
        if self._dismissed:
            return
        idle = self.idle
        self.leaving = self._dismissed = True
        self._stop_clock()
        if idle:
            self._pipe(0).close()
            self._timer = self._loop.call_later(STOP, self._kill)
        else:
            self._kill()

    def abandon(self) -> None:
        """End it and close what is open, without waiting for anything."""
        self.leaving = self._dismissed = True
        self._stop_clock()
        self._kill()
        if self._transport is not None:
            self._transport.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - the protocol's: there is one pipe
        """Take in what it says."""
        try:
            answers = [_decode(message) for message in self._frames.feed(data)]
        except (msgspec.MsgspecError, ValueError) as error:
            self._lose(ParseError("parse_crash", f"its parser talked nonsense ({error})"))
            return
        for answer in answers:
            if not self._lost:
                self._hear(answer)
        self._owner.freed()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """See an end coming: without its pipes it is of no use."""
        self.leaving = True
        self._silent = self._silent or fd == 1
        if self._returncode() is None:
            self._loop.call_later(_LAST_WORDS, self._kill)
        elif self._silent:
            self._bury()

    def process_exited(self) -> None:
        """Note its end; what it said before may still be on the way."""
        if self._silent:
            self._bury()
        else:
            self._loop.call_later(_LAST_WORDS, self._bury)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """Note that all of it is closed."""
        self._bury()
        self._finish()

    def _hear(self, answer: Answer) -> None:
        if isinstance(answer, Ready):
            self.started = True
            self._restart_clock()
        elif isinstance(answer, Refusal):
            where = f"the extractor {self._terms.extract} cannot be loaded in a process of its own"
            self._lose(ParseError("parse_crash", f"{where}: {answer.reason}"), for_good=True)
        elif not self.pages:
            self._lose(ParseError("parse_crash", "its parser talked unasked"))
        else:
            page = self.pages.popleft()
            self._load -= len(page.response.body)
            self._restart_clock()
            if isinstance(answer, Trouble):
                page.fail(ParseError(answer.code, answer.message))
            elif not page.answer.done():
                page.answer.set_result(answer)

    def _restart_clock(self) -> None:
        self._since = self._loop.time()
        self._overdue = False
        if not self.leaving and (self._timer is None or self._timer.when() > self._due()):
            self._look()

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> float:
        return self._since + (self._limit if self.pages else IDLE if self.started else START)

    def _look(self) -> None:
        """Act when its time is up, else look again then: one timer, seldom moved, so that a page costs none."""
        self._stop_clock()
        due = self._due()
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
        elif not self._overdue:
            # Some loops look at the clock before they look at what came while they were blocked.
            self._overdue = True
            self._timer = self._loop.call_later(_GLANCE, self._look)
        elif self.pages:
            self._lose(ParseError("parse_timeout", f"over {self._terms.limit:g} s"))
        elif self.started:
            self.end()
        else:
            self._lose(ParseError("parse_crash", f"its parser took over {START:g} s to start"))

    def _lose(self, reason: ParseError, *, for_good: bool = False) -> None:
        """Expect no more of it, and tell the owner why, once."""
        if self._lost:
            return
        self._lost = self.leaving = True
        self._stop_clock()
        self._kill()
        self._owner.lost(self, reason, for_good=for_good)

    def _bury(self) -> None:
        if self.pages or not self._dismissed:
            self._lose(self._cause_of_death())
        self._stop_clock()
        if self._transport is not None:
            self._transport.close()

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
            self._owner.buried(self)

    def _cause_of_death(self) -> ParseError:
        code = self._returncode()
        if code is None or code >= 0:
            return ParseError("parse_crash", f"its parser ended by itself (exit {code})")
        if hasattr(signal, "SIGALRM") and code == -signal.SIGALRM:  # its own limit, where ours came too late
            return ParseError("parse_timeout", f"over {self._terms.limit:g} s")
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal
            name = f"signal {-code}"
        return ParseError("parse_crash", f"its parser died of {name}")

    def _returncode(self) -> int | None:
        return None if self._transport is None else self._transport.get_returncode()

    def _pipe(self, fd: int) -> Any:
        assert self._transport is not None
        return self._transport.get_pipe_transport(fd)

    def _write(self, frame: bytearray) -> None:
        pipe = self._pipe(0)
        if not pipe.is_closing():  # its end is on the way to us
            pipe.write(frame)

    def _kill(self) -> None:
        transport = self._transport
        if transport is None or transport.get_returncode() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(signal, "SIGKILL"):
                # Not by the transport, which would look whether it has ended, and so take from the loop what of.
                os.kill(transport.get_pid(), signal.SIGKILL)
            else:
                transport.kill()
