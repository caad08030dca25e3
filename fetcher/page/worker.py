"""A worker: a process that reads pages one after the other, until its input ends.

Law 3: it says so when its memory has grown by ``MAX_GROWTH`` since the first page: what an extractor, or a library that
it imports, forgets to let go of comes back when another worker takes its place.

It ends with its owner, however that one ends, at the latest after twice the time one page may take. What an
extractor prints goes to standard error, never between the answers. Signals are left to the owner.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pkgutil
import signal
import struct
import sys
from typing import BinaryIO

import msgspec

from fetcher.errors import ParseError
from fetcher.model import Extractor
from fetcher.page.messages import (
    MAX_MESSAGE_BYTES,
    OUT_OF_MEMORY,
    START_SECONDS,
    STOP_SECONDS,
    Answer,
    NotPlain,
    ParseFailed,
    ParseTask,
    WorkerFull,
    WorkerReady,
    WorkerRefused,
    WorkerSettings,
    encode,
    is_plain,
    response_of,
)
from fetcher.page.parse import Reading, read_body

__all__ = ["serve"]

PIPE_BYTES = 1024 * 1024  # that a pipe may hold, where that can be told
MAX_TIMER_SECONDS = 1e8
MAX_GROWTH = 512 * 1024 * 1024  # of memory: a page of the largest size takes less, and gives it back


def serve(incoming: BinaryIO, outgoing: int) -> None:
    """Read the settings and then page after page from ``incoming``, and write an answer each to ``outgoing``."""
    message = _receive(incoming)
    if message is None:
        return
    settings = msgspec.msgpack.decode(message, type=WorkerSettings)
    _end_after(2 * START_SECONDS)
    try:
        extract = _prepare(settings)
    except Exception as error:  # noqa: BLE001 - whatever a module of the user's may raise
        _send(outgoing, encode(WorkerRefused(_encodable(f"{type(error).__name__}: {error}"))))
        return
    _end_after(0)
    _send(outgoing, encode(WorkerReady()))
    decoder = msgspec.msgpack.Decoder(ParseTask)
    limit: float | None = None
    while (message := _receive(incoming)) is not None:
        task = decoder.decode(message)
        del message
        _end_after(2 * settings.limit)
        answer = _answer(task, settings, extract)
        _end_after(0)
        _send(outgoing, answer)
        del task, answer
        if limit is None:
            limit = _memory() + MAX_GROWTH
        elif _has_grown_over(limit):
            limit = math.inf  # said once
            _send(outgoing, encode(WorkerFull()))


def _has_grown_over(limit: float) -> bool:
    """Tell whether this process has more than ``limit`` bytes of memory, first by the most it ever had: that costs least."""
    return _peak_memory() > limit and _memory() > limit


def _memory() -> int:
    """Return the bytes of memory that this process has; the most it ever had where that alone is known."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak_memory()


def _peak_memory() -> int:
    """Return the most bytes of memory that this process ever had; 0 where that is not known (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _prepare(settings: WorkerSettings) -> Extractor | None:
    """Take on the owner's folder and path, and import the extractor."""
    with contextlib.suppress(OSError):
        os.chdir(os.fsdecode(settings.folder))
    sys.path[:] = map(os.fsdecode, settings.path)
    if settings.extract is None:
        return None
    try:
        extract: Extractor = pkgutil.resolve_name(settings.extract)
    except SystemExit as error:
        raise RuntimeError(f"its module ends the program ({error})") from error
    return extract


def _answer(task: ParseTask, settings: WorkerSettings, extract: Extractor | None) -> bytearray:
    try:
        reading = read_body(
            response_of(task),
            select=settings.select,
            extract=extract,
            preview=settings.preview,
            columns=settings.columns,
            content=settings.content,
            search=task.search,
        )
    except ParseError as error:
        return encode(ParseFailed(_encodable(error.code), _encodable(error.message), error.reading))
    except MemoryError:
        return encode(ParseFailed(OUT_OF_MEMORY, "a process that parses pages"))
    try:
        if extract is None or is_plain(reading.data, exact=settings.exact):
            return _bounded(reading)
        reason = f"it returned a {type(reading.data).__qualname__}, or something with more than plain data in it"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    return _bounded(NotPlain(msgspec.structs.replace(reading, data=None), _encodable(reason)))


def _bounded(answer: Answer) -> bytearray:
    frame = encode(answer)
    if len(frame) > MAX_MESSAGE_BYTES:
        reason = f"what was read out of it is over {MAX_MESSAGE_BYTES // 1024**2} MB"
        known = (
            msgspec.structs.replace(answer, data=None, preview=None, content={})
            if isinstance(answer, Reading)
            else None
        )
        return encode(ParseFailed("extract_failed", reason, known))
    return frame


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _receive(incoming: BinaryIO) -> bytes | None:
    head = incoming.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("!I", head)
    message = incoming.read(length)
    return message if len(message) == length else None


def _send(outgoing: int, frame: bytearray) -> None:
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(outgoing, rest) :]


def _end_after(seconds: float) -> None:
    """Have the kernel end us after ``seconds``, whatever hangs then; 0 calls it off."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, min(seconds, MAX_TIMER_SECONDS))


def _take_pipes() -> tuple[BinaryIO, int]:
    """Take standard input and output for ourselves: who prints later does so on standard error."""
    null = os.open(os.devnull, os.O_RDWR)  # where standard error is closed, this takes its place
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(null, 0)
    os.dup2(2, 1)
    if null > 2:
        os.close(null)
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux, and where the owner gave us a pipe
        import fcntl

        fcntl.fcntl(incoming, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return open(incoming, "rb", buffering=PIPE_BYTES), outgoing


def _ignore_signals() -> None:
    """Leave signals to our owner, keep the kernel's timer ours, and dump no core of a hostile page."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a crash must not take with it what was printed before


def _main() -> None:
    _ignore_signals()
    incoming, outgoing = _take_pipes()
    with contextlib.suppress(BrokenPipeError), incoming:  # our owner is gone
        serve(incoming, outgoing)
    _end_after(STOP_SECONDS)  # a thread of the extractor's may not let us end


if __name__ == "__main__":
    _main()
