"""Text for people: ``URL -> LENGTH`` (by HEAD ``URL -> STATUS``) or ``URL !! CODE: message``, and what was selected on lines of its own.

Law 7: whatever comes from the web or the list is escaped: one outcome's text steers no terminal and forges no line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from fetcher.errors import Skipped
from fetcher.model import Outcome, Page
from fetcher.sinks.layout import to_json
from fetcher.sinks.stream import StreamSink
from fetcher.terminal import has_colour, paint, printable

__all__ = ["TextSink"]

INDENT = "    "
_INDENT = INDENT.encode()


class TextSink(StreamSink):
    """Write each outcome as a line, its preview and selected values indented below it.

    What went wrong is in colour where standard output is a terminal that has them.
    """

    @cached_property
    def _coloured(self) -> bool:
        return self.output.path == "-" and has_colour(sys.stdout)

    def encode(self, outcome: Outcome) -> bytes:
        """Return the lines of one outcome in UTF-8."""
        url = printable(outcome.request.url.lstrip(" "))  # an indented line would pass for the record's above
        if not isinstance(outcome, Page):
            error = outcome.error
            said = printable(f"{error.code}: {error.message}" if error.message else error.code)
            if self._coloured:
                return f"{url} {paint(f'!! {said}', 'yellow' if isinstance(error, Skipped) else 'red')}\n".encode()
            return f"{url} !! {said}\n".encode()
        if self.layout.head:
            return f"{url} -> {outcome.status}{_kind(outcome)}\n".encode()
        if self._coloured:
            return "".join([f"{url} {paint(f'-> {_size(outcome)}', 'green')}\n", *_below(outcome)]).encode()
        if outcome.preview is None and outcome.data is None and outcome.length is not None:
            return f"{url} -> {outcome.length}\n".encode()
        return "".join([f"{url} -> {_size(outcome)}\n", *_below(outcome)]).encode()

    def split(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Yield each line together with the indented ones below it."""
        record: list[bytes] = []
        for line in lines:
            if record and not line.startswith(_INDENT):
                yield b"".join(record)
                record = []
            record.append(line)
        if record:
            yield b"".join(record)


def _size(page: Page) -> str:
    if page.length is not None:
        return str(page.length)
    return f"{page.bytes} bytes{_kind(page)}"


def _kind(page: Page) -> str:
    return f" ({printable(page.content_type)})" if page.content_type else ""


def _below(page: Page) -> Iterator[str]:
    if page.preview and (preview := _on_one_line(page.preview)):
        yield f"{INDENT}{preview}\n"
    if page.data is not None:
        selected = page.data if isinstance(page.data, Mapping) else {"data": page.data}
        for name, value in selected.items():
            yield f"{INDENT}{_on_one_line(name)}: {_on_one_line(value)}\n"


def _on_one_line(value: Any) -> str:
    text = value if isinstance(value, str) else to_json(value).decode()
    return printable(" ".join(text.split()))
