"""Owns how a test sees which functions of the package run: each call in its order, with its depth.

Law 1: only functions whose code is in the package are seen; a coroutine that is resumed counts as called again, as
``sys.setprofile`` has it. Law 2: the way of a row is what is called from one record to the next.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import fetcher

__all__ = ["Call", "changes_of_file", "folded", "recorded_calls", "rows_of"]

PACKAGE = Path(str(fetcher.__file__)).parent
INSIDE = f"{PACKAGE}{os.sep}"


class Call(NamedTuple):
    """One call: the file below the project, the qualified function, its line, and how many of ours it is in."""

    file: str
    function: str
    line: int
    depth: int

    def __str__(self) -> str:
        return f"{self.file.removesuffix('.py').replace('/', '.')}:{self.function}"


@contextmanager
def recorded_calls(*, threads: bool = False) -> Iterator[list[Call]]:
    """Record the calls made in this thread until the block is left, and in ``threads`` that begin meanwhile."""
    calls: list[Call] = []
    files: dict[CodeType, str] = {}

    def record(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(INSIDE):
            if code not in files:
                files[code] = Path(code.co_filename).relative_to(PACKAGE.parent).as_posix()
            calls.append(Call(files[code], code.co_qualname, code.co_firstlineno, _depth(frame)))

    if threads:
        threading.setprofile(record)
    sys.setprofile(record)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _depth(frame: FrameType) -> int:
    depth = 0
    above = frame.f_back
    while above is not None:
        depth += above.f_code.co_filename.startswith(INSIDE)
        above = above.f_back
    return depth


def rows_of(calls: Sequence[Call], record: str) -> list[Sequence[Call]]:
    """Cut the calls into the ways of rows: each begins where the function named ``record`` was called."""
    cuts = [number for number, call in enumerate(calls) if call.function == record]
    return [calls[begin:end] for begin, end in pairwise(cuts)]


def changes_of_file(calls: Sequence[Call]) -> int:
    """Count the calls that are in another file than the call before."""
    return sum(call.file != before.file for before, call in pairwise(calls))


def folded(calls: Sequence[Call]) -> list[str]:
    """Return a line a call, indented by its depth; equal lines that follow each other are one, with their number."""
    lines: list[tuple[str, int]] = []
    for call in calls:
        line = f"{'  ' * call.depth}{call}"
        if lines and lines[-1][0] == line:
            lines[-1] = line, lines[-1][1] + 1
        else:
            lines.append((line, 1))
    return [line if number == 1 else f"{line} × {number}" for line, number in lines]
