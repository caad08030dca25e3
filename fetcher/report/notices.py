"""What a run says to people on stderr: whole lines, escaped, as text or as JSON.

Law 7: nothing from the web or the list reaches the terminal raw. A notice never fails a run: where stderr is
closed, or its reader has left, it falls silent and the data goes on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fetcher.sinks.escape import printable
from fetcher.terminal import can_draw, is_terminal

__all__ = ["Notices"]

_traceback = logging.Formatter()


class Notices:
    """The notices of one run. ``as_json`` makes each notice an object on a line of its own (all of it ASCII).

    ``redact`` takes the secrets out of a text, whatever is said.
    """

    def __init__(self, *, as_json: bool = False, redact: Callable[[str], str] | None = None) -> None:
        self.as_json = as_json
        self._redact = redact or (lambda text: text)

    @property
    def on_terminal(self) -> bool:
        """Whether stderr is a terminal."""
        return is_terminal(sys.stderr)

    @property
    def can_draw(self) -> bool:
        """Whether a line can be drawn there and written over."""
        return can_draw(sys.stderr) and not self.as_json

    def say(self, text: str, *, level: str = "info", **facts: Any) -> None:
        """Write a line that begins with our name."""
        self._tell(f"fetcher: {text}", text, level=level, facts=facts)

    def show(self, text: str, **facts: Any) -> None:
        """Write lines as they are laid out; ``facts`` are the same for machines."""
        self._tell(text, text.partition("\n")[0], level="info", facts=facts)

    def listen(self, verbose: int, *, quiet: bool = False) -> None:
        """Tell what the package logs: with ``verbose`` 1 of parked hosts and retries, from 2 on of everything.

        What is to be said of a list, of a store or of an extractor is told in any case, unless the run is ``quiet``.
        """
        for name in ("fetcher.sources", "fetcher.store", "fetcher.extract"):
            told = logging.getLogger(name)
            told.propagate = False  # it is told once
            told.addHandler(logging.NullHandler() if quiet else _Handler(self, "warning: "))
        if not verbose:
            return
        logger = logging.getLogger("fetcher")
        logger.addHandler(_Handler(self))
        logger.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
        logging.getLogger("fetcher.retry").setLevel(logging.DEBUG)

    def hear(self, record: logging.LogRecord, prefix: str = "") -> None:
        """Write what was logged."""
        message = f"{prefix}{record.getMessage()}"
        if record.exc_info:
            message = f"{message}\n{_traceback.formatException(record.exc_info)}"
        self._tell(f"fetcher: {message}", message, level=record.levelname.lower(), logger=record.name, facts={})

    def _tell(self, text: str, message: str, *, level: str, facts: dict[str, Any], logger: str = "fetcher") -> None:
        if self.as_json:
            when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            message = self._redact(message)
            entry = {"time": when, "level": level, "logger": logger, "message": message, **facts}
            _write(json.dumps(entry).replace("\x7f", "\\u007f"))
        else:
            _write("\n".join(map(printable, self._redact(text).split("\n"))))


class _Handler(logging.Handler):
    def __init__(self, notices: Notices, prefix: str = "") -> None:
        super().__init__()
        self._notices = notices
        self._prefix = prefix

    def emit(self, record: logging.LogRecord) -> None:
        self._notices.hear(record, self._prefix)


def _write(text: str) -> None:
    # Looked up each time: a live line replaces it, and puts what is said above itself.
    stream = sys.stderr
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        # What stays in the buffer would fail again when the interpreter ends, and change the exit code.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
