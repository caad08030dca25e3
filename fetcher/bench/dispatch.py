"""Hands a round to a process of its own, and brings back what it measured.

Laws: the process is ended with whoever waits for it, by its own handle; what it complains of is quoted, never shown
raw by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from typing import IO

import msgspec

from fetcher.bench.worker import Done, Message, Result, Spec
from fetcher.errors import ConfigError, FetcherError
from fetcher.spawn import command, environment

__all__ = ["dispatch"]

_STOP = 5.0
_LINE = 1 << 30  # bytes of the longest answer: that of some five million rows


async def dispatch(spec: Spec, tell: Callable[[int], None]) -> Result:
    """Run a round and return its result; ``tell`` is told how many rows are done, now and then.

    Cancelling ends the process. Raises ``ConfigError`` and ``FetcherError`` as the process did, and
    ``FetcherError``, which quotes it, when it ended without a result.
    """
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            *command("fetcher.bench.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            env=environment(),
            limit=_LINE,
        )
        try:
            result = await _listen(process, spec, tell)
            code = await process.wait()
        finally:
            await _end(process)
        if result is None:
            raise FetcherError(f"a round ended by itself (exit {code}){_quoted(complaints)}")
        return result


async def _listen(process: asyncio.subprocess.Process, spec: Spec, tell: Callable[[int], None]) -> Result | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended: what it left is looked at below
        process.stdin.write(msgspec.json.encode(spec) + b"\n")
        await process.stdin.drain()
    async for line in process.stdout:
        if not line.endswith(b"\n"):
            break  # it died over it
        message = msgspec.json.decode(line, type=Message)
        if isinstance(message, Done):
            tell(message.rows)
        elif isinstance(message, Result):
            return message
        else:
            raise (ConfigError if message.usage else FetcherError)(message.text)
    return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """See the process to its end: it goes when its input ends, and by force where it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _STOP)
    except TimeoutError:
        process.kill()
        await process.wait()


def _quoted(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    said = complaints.read(100_000).decode(errors="replace").strip()
    return f": {said}" if said else ""
