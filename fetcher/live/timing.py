"""What a coroutine costs by itself: the CPU of its own steps, and not of what else the loop does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

__all__ = ["TimedAwaitable"]

T = TypeVar("T")


class TimedAwaitable(Generic[T]):
    """Awaits ``inner``, and hands the seconds of CPU of each of its steps to ``spent``."""

    def __init__(self, inner: Awaitable[T], spent: Callable[[float], None]) -> None:
        self._inner = inner
        self._spent = spent

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._inner.__await__()
        step: Callable[[], Any] = lambda: next(steps)  # noqa: E731  (it is another for each step)
        while True:
            began = time.thread_time()
            try:
                waits = step()
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self._spent(time.thread_time() - began)
            try:
                value = yield waits
            except BaseException as error:  # noqa: BLE001  (it is the inner one's to handle)
                step = _throwing(steps, error)
            else:
                step = _sending(steps, value)


def _throwing(steps: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: steps.throw(error)


def _sending(steps: Generator[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: steps.send(value) if value is not None else next(steps)
