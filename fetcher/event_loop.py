"""How a coroutine is run to its end: by a command of ours, and for a caller that does not await.

``run`` takes the fastest loop that is installed, has the collector look rarely, and freed memory stay. A library does
not decide this for its host: only commands, and the processes that they measure with, call it. ``run_blocking`` is for
all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

__all__ = ["fastest_loop", "freed_memory_stays", "keep_freed_memory", "run", "run_blocking"]

T = TypeVar("T")

LOOK_SECONDS = 0.1  # between two looks whether a waiting caller was cancelled by a signal
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the options of glibc's ``mallopt``, malloc.h
LONG_RUN_SECONDS = 1.0  # what ends sooner has no use for it: it takes 10 ms, most of them to import ctypes
KEPT_BYTES = 64 * 1024 * 1024  # as much freed memory as stays with the process, at the heap's end
HEAP_BLOCK_BYTES = 32 * 1024 * 1024  # blocks up to this size come from the heap: glibc takes no larger number

freed_memory_stays = False
"""Whether what is freed stays with the process, to be taken again without a page fault."""


def run(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that ``start`` makes to its end, and return its result."""
    main: Coroutine[Any, Any, T] | None = None
    gc.freeze()  # what is loaded stays: no collection needs to look at it again
    gc.set_threshold(50_000, 20, 50)  # rows come and go by reference count; cycles are rare
    try:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.get_loop().call_later(LONG_RUN_SECONDS, keep_freed_memory)
            main = start()  # as late as can be: one that a Ctrl-C keeps from its begin would be told as never awaited
            return runner.run(main)
    finally:
        if main is not None:
            main.close()


def keep_freed_memory() -> None:
    """Have glibc give the system nothing back of what is freed, so that the next page's tree is made where the last was.

    Else each tree costs its memory again, page fault by page fault. Where there is no glibc, or a Python without
    ``ctypes``, nothing is done.
    """
    global freed_memory_stays  # noqa: PLW0603 - a setting of the process, as the allocator's own
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):  # musl has no such function
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        kept = mallopt(M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES)
        freed_memory_stays = bool(kept)


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Find the fastest loop that is installed (the extra ``speed``); ``None`` is asyncio's own."""
    with contextlib.suppress(ImportError):
        if sys.platform == "win32":
            from winloop import new_event_loop
        else:
            from uvloop import new_event_loop
        factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
        return factory
    return None


def run_blocking(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that ``main`` makes to its end, and return its result or raise what it raises.

    Where a loop is running already, in a notebook's cell or in an ``async`` function, it has a thread and a loop of its
    own: a loop cannot be entered twice. Context variables are as the caller has set them. The caller's loop stands
    still meanwhile; Ctrl-C cancels the coroutine, waits for it to close what it has open, and is raised here. A second
    one does not wait.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    return ThreadedRun(main).result()


class ThreadedRun(Generic[T]):
    """A coroutine that runs in a thread and a loop of its own, while the caller waits for it."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._main = main
        self._ended = threading.Event()
        self._cancelled = False
        self._task: asyncio.Task[T] | None = None
        self._result: list[T] = []
        self._error: BaseException | None = None

    def result(self) -> T:
        """Run it and return what it returns."""
        caller = asyncio.current_task()
        already = caller.cancelling() if caller is not None else 0
        context = contextvars.copy_context()
        # Daemonic: after a second Ctrl-C nothing waits for it, and nor should the interpreter's end.
        thread = threading.Thread(target=context.run, args=(self._run,), name="fetcher", daemon=True)
        try:
            thread.start()
            while not self._ended.wait(LOOK_SECONDS):
                # The handler that asyncio.run sets for SIGINT raises nothing the first time: it cancels the main task.
                if caller is not None and caller.cancelling() > already:
                    raise asyncio.CancelledError
        except BaseException:
            self._cancel()
            if thread.ident is not None:  # else there was none to be had
                self._ended.wait()
            self._error = None
            raise
        thread.join()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback refers to this frame
        return self._result.pop()

    def _run(self) -> None:
        try:
            self._result.append(asyncio.run(self._noted()))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised to the caller
            self._error = error
        finally:
            self._ended.set()

    async def _noted(self) -> T:
        self._task = asyncio.current_task()
        if self._cancelled:  # before there was a task to cancel
            raise asyncio.CancelledError
        return await self._main()

    def _cancel(self) -> None:
        self._cancelled = True
        task = self._task
        if task is not None:
            with contextlib.suppress(RuntimeError):  # its loop has just been closed
                task.get_loop().call_soon_threadsafe(task.cancel)
