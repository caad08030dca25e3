"""Bodies that are read in processes of their own, as their owner sees it: the pool of workers, and each of them.

Law 1: one outcome per request: of a process that died or took too long the first unanswered page is the culprit; the
others go to another process. A page that was given out has its answer or comes back, whatever becomes of the process.
Law 3: as many processes as ``size``, each started when it is needed and ended when it is idle. It is ended by its own
id, and nothing of it is left over: no zombie, no open file. One is worn out when it has read ``MAX_PAGES`` or
``MAX_BYTES``, or says that its memory has grown too much, for extractors and their libraries leak. Another is started
then, the only one beyond ``size``, and the worn one serves until that is ready: nobody waits for the change.

(Pebble has pools with a time limit too. Its batches cannot say which page of them was the culprit, it imports the
user's ``__main__`` again in every process, and it pickles what comes back out of them.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from typing import Any

import msgspec

from fetcher.errors import ParseError
from fetcher.model import Response
from fetcher.page.found_links import LinkSearch
from fetcher.page.messages import (
    OUT_OF_MEMORY,
    START_SECONDS,
    STOP_SECONDS,
    Answer,
    MessageBuffer,
    NotPlain,
    ParseFailed,
    WorkerFull,
    WorkerReady,
    WorkerRefused,
    WorkerSettings,
    encode,
    encode_response,
)
from fetcher.page.parse import Reading
from fetcher.spawn import command, environment

__all__ = ["ParserPool"]

RESTART_PAUSE_SECONDS = 5.0  # before another start is tried after one that failed
CLOSE_SECONDS = 5.0  # that all processes have to end
IDLE_SECONDS = 10.0  # without a page, after which a process is ended
MAX_PAGES = 50_000  # that one process reads: a start takes as long as some hundred pages
MAX_BYTES = 4 * 1024**3  # of bodies, the same
MAX_QUEUED_BYTES = 1024 * 1024  # of pages on their way to a process, at which it is given no more
EXIT_GRACE_SECONDS = 0.5  # between the ends of its pipes and its own, either first: a child may hold them open
CATCH_UP_SECONDS = 0.05  # that a loop which was blocked has to read what came meanwhile
MAX_TIMER_SECONDS = 1e8

_decode = msgspec.msgpack.Decoder(Answer).decode


class PendingPage:
    """A response that is to be read, which links are looked for, and the future that waits for what was read."""

    __slots__ = ("answer", "response", "search")

    def __init__(
        self, response: Response, answer: asyncio.Future[Reading | NotPlain], search: LinkSearch | None
    ) -> None:
        self.response = response
        self.answer = answer
        self.search = search

    def fail(self, error: Exception) -> None:
        """Give an error for an answer, where somebody still waits for one."""
        if not self.answer.done():
            self.answer.set_exception(error)


class ParserPool:
    """Up to ``size`` processes of up to ``depth`` pages each; of the loop it is made in."""

    def __init__(self, settings: WorkerSettings, *, size: int, depth: int) -> None:
        self._settings = settings
        self._size = size
        self._depth = depth
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[PendingPage] = deque()
        self._processes: list[ParserProcess] = []
        self._successor: ParserProcess | None = None  # on its way to take the place of one that is worn out
        self._starts: set[asyncio.Task[None]] = set()
        self._refused: ParseError | None = None
        self._refused_until = 0.0
        self._closed = False

    async def read(self, response: Response, search: LinkSearch | None = None) -> Reading | NotPlain:
        """Have a body read. Raises ``ParseError``; leaving early does the others no harm."""
        if self._closed:
            raise RuntimeError("the parsers were closed")
        page = PendingPage(response, self._loop.create_future(), search)
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
                await asyncio.wait(remaining, timeout=CLOSE_SECONDS)
        finally:
            for process in list(self._processes):
                process.abandon()

    def dispatch_waiting(self) -> None:
        """Give out what waits: some process has room."""
        if self._waiting:
            self._dispatch()

    def process_started(self, process: ParserProcess) -> None:
        """Let a process that has just become ready take the place of one that is worn out, if that was its purpose."""
        if process is self._successor:
            self._successor = None
            worn = [other for other in self._processes if other.worn and other.serving]
            for other in worn[:1]:
                other.retire()
            for other in worn[1:2]:
                self.process_worn(other)

    def process_worn(self, process: ParserProcess) -> None:
        """Start a process that is to take the place of this one, unless another's is on its way: it comes next."""
        if self._successor is None and not self._closed and process.serving and self._may_start():
            self._successor = self._start()

    def process_lost(self, process: ParserProcess, reason: ParseError, *, for_good: bool) -> None:
        """Blame the first page of a lost process and take back the others."""
        pages = process.pages
        if process is self._successor:
            self._successor = None
        if pages:
            pages.popleft().fail(reason)
            self._waiting.extendleft(reversed(pages))
            pages.clear()
        elif not process.started:
            self._refused = reason
            self._refused_until = float("inf") if for_good else self._loop.time() + RESTART_PAUSE_SECONDS
        self._dispatch()

    def process_gone(self, process: ParserProcess) -> None:
        """Forget a process."""
        self._processes.remove(process)

    def _dispatch(self) -> None:
        """Give each waiting page to the process with the fewest, and start processes for those that none is free for."""
        while self._waiting and not self._closed:
            if self._waiting[0].answer.done():  # nobody waits for it any more
                self._waiting.popleft()
                continue
            serving = [process for process in self._processes if process.serving]
            starting = sum(not process.started for process in serving)
            idle = sum(process.idle for process in serving)
            if len(self._waiting) > idle + starting and len(serving) < self._size and self._may_start():
                self._start()
                continue
            free = [process for process in serving if process.has_room(self._depth)]
            if not free and not serving and self._refused is not None:
                # One of its own for each: an error notes the row it is about.
                self._waiting.popleft().fail(ParseError(self._refused.code, self._refused.message))
            elif free:
                min(free, key=lambda process: len(process.pages)).give(self._waiting.popleft())
            else:
                return

    def _may_start(self) -> bool:
        return self._refused is None or self._loop.time() >= self._refused_until

    def _start(self) -> ParserProcess:
        self._refused = None
        process = ParserProcess(self, self._settings)
        self._processes.append(process)
        task = self._loop.create_task(process.start())
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)
        return process


def _error_of(answer: ParseFailed) -> Exception:
    if answer.code == OUT_OF_MEMORY:
        return MemoryError(answer.message)
    error = ParseError(answer.code, answer.message)
    error.reading = answer.reading
    return error


class ParserProcess(asyncio.SubprocessProtocol):
    """A process and the pages it was given, oldest first: it answers in that order."""

    def __init__(self, pool: ParserPool, settings: WorkerSettings) -> None:
        self.pages: deque[PendingPage] = deque()
        self.started = False
        self.leaving = False
        self.worn = False
        self._retired = False
        self._pages_read = self._bytes_read = 0
        self._pool = pool
        self._settings = settings
        self._limit = min(settings.limit, MAX_TIMER_SECONDS)
        self._loop = asyncio.get_running_loop()
        self.over = self._loop.create_future()  # done when nothing is left of it
        self._transport: asyncio.SubprocessTransport | None = None
        self._buffer = MessageBuffer()
        self._load = 0
        self._since = self._loop.time()  # when its present page became the first, or it had none any more
        self._timer: asyncio.TimerHandle | None = None
        self._overdue = self._lost = self._silent = self._told_to_end = False

    async def start(self) -> None:
        """Start the process and tell it the settings. The owner hears what goes wrong."""
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
            self._write(encode(self._settings))
            self._restart_clock()

    @property
    def idle(self) -> bool:
        """Whether it could begin with a page at once."""
        return self.started and not self.leaving and not self.pages

    @property
    def serving(self) -> bool:
        """Whether it is given pages, now or when it has started."""
        return not self.leaving and not self._retired

    def has_room(self, depth: int) -> bool:
        """Tell whether it may be given another page: of ``depth`` at most, and not too many bytes."""
        if not self.started or not self.serving:
            return False
        return not self.pages or (len(self.pages) < depth and self._load < MAX_QUEUED_BYTES)

    def give(self, page: PendingPage) -> None:
        """Have it read a page."""
        try:
            frame = encode_response(page.response, page.search)
        except Exception as error:  # noqa: BLE001 - a strange value of the caller's is for the caller to hear of
            page.fail(error)
            return
        self.pages.append(page)
        self._load += len(page.response.body)
        if len(self.pages) == 1:
            self._restart_clock()
        self._write(frame)

    def retire(self) -> None:
        """Have it read the pages that it has, under the clock as ever, and then end."""
        self._retired = True
        if not self.pages:
            self.end()

    def end(self) -> None:
        """End it: at once where it is at work or not yet ready, else by the end of its input."""
        if self._told_to_end:
            return
        idle = self.idle
        self.leaving = self._told_to_end = True
        self._stop_clock()
        if idle:
            self._pipe(0).close()
            self._timer = self._loop.call_later(STOP_SECONDS, self._kill)
        else:
            self._kill()

    def abandon(self) -> None:
        """End it and close what is open, without waiting for anything."""
        self.leaving = self._told_to_end = True
        self._stop_clock()
        self._kill()
        if self._transport is not None:
            self._transport.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - the protocol's: there is one pipe
        """Take in what it says."""
        try:
            answers = [_decode(message) for message in self._buffer.feed(data)]
        except (msgspec.MsgspecError, ValueError) as error:
            self._lose(ParseError("parse_crash", f"its parser sent no valid message ({error})"))
            return
        for answer in answers:
            if not self._lost:
                self._take_answer(answer)
        self._pool.dispatch_waiting()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """See an end coming: without its pipes it is of no use."""
        self.leaving = True
        self._silent = self._silent or fd == 1
        if self._returncode() is None:
            self._loop.call_later(EXIT_GRACE_SECONDS, self._kill)
        elif self._silent:
            self._clean_up()

    def process_exited(self) -> None:
        """Note its end; what it said before may still be on the way."""
        if self._silent:
            self._clean_up()
        else:
            self._loop.call_later(EXIT_GRACE_SECONDS, self._clean_up)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """Note that all of it is closed."""
        self._clean_up()
        self._finish()

    def _take_answer(self, answer: Answer) -> None:
        if isinstance(answer, WorkerReady):
            self.started = True
            self._restart_clock()
            self._pool.process_started(self)
        elif isinstance(answer, WorkerFull):
            self._wear()
        elif isinstance(answer, WorkerRefused):
            where = f"the extractor {self._settings.extract} cannot be loaded in a process of its own"
            self._lose(ParseError("parse_crash", f"{where}: {answer.reason}"), for_good=True)
        elif not self.pages:
            self._lose(ParseError("parse_crash", "its parser sent an answer to nothing"))
        else:
            page = self.pages.popleft()
            self._load -= len(page.response.body)
            self._restart_clock()
            if isinstance(answer, ParseFailed):
                page.fail(_error_of(answer))
            elif not page.answer.done():
                page.answer.set_result(answer)
            self._note_page(len(page.response.body))

    def _note_page(self, size: int) -> None:
        self._pages_read += 1
        self._bytes_read += size
        if self._retired:
            if not self.pages:
                self.end()
        elif self.worn or self._pages_read >= MAX_PAGES or self._bytes_read >= MAX_BYTES:
            self._wear()

    def _wear(self) -> None:
        """Ask for another in its place; where that did not start, once more with the next page."""
        self.worn = True
        self._pool.process_worn(self)

    def _restart_clock(self) -> None:
        self._since = self._loop.time()
        self._overdue = False
        if not self.leaving and (self._timer is None or self._timer.when() > self._due()):
            self._check_time()

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> float:
        return self._since + (self._limit if self.pages else IDLE_SECONDS if self.started else START_SECONDS)

    def _check_time(self) -> None:
        """Act when its time is up, else look again then: one timer, seldom moved, so that a page costs none."""
        self._stop_clock()
        due = self._due()
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._check_time)
        elif not self._overdue:
            # Some loops look at the clock before they look at what came while they were blocked.
            self._overdue = True
            self._timer = self._loop.call_later(CATCH_UP_SECONDS, self._check_time)
        elif self.pages:
            self._lose(ParseError("parse_timeout", f"over {self._settings.limit:g} s"))
        elif self.started:
            self.end()
        else:
            self._lose(ParseError("parse_crash", f"its parser took over {START_SECONDS:g} s to start"))

    def _lose(self, reason: ParseError, *, for_good: bool = False) -> None:
        """Expect no more of it, and tell the owner why, once."""
        if self._lost:
            return
        self._lost = self.leaving = True
        self._stop_clock()
        self._kill()
        self._pool.process_lost(self, reason, for_good=for_good)

    def _clean_up(self) -> None:
        if self.pages or not self._told_to_end:
            self._lose(self._why_it_ended())
        self._stop_clock()
        if self._transport is not None:
            self._transport.close()

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
            self._pool.process_gone(self)

    def _why_it_ended(self) -> ParseError:
        code = self._returncode()
        if code is None or code >= 0:
            return ParseError("parse_crash", f"its parser ended by itself (exit {code})")
        if hasattr(signal, "SIGALRM") and code == -signal.SIGALRM:  # its own limit, where ours came too late
            return ParseError("parse_timeout", f"over {self._settings.limit:g} s")
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
