"""Parts that wait to be put into a store, and the thread that does it.

Law 3: as many as ``MAX_WAITING`` wait, then whoever brings one waits. Law 2: what goes wrong is raised by the next
call.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable

from fetcher.errors import FetcherError, SinkError
from fetcher.sinks.job_output import LedgerOutput
from fetcher.sinks.store_parts import PartMark

__all__ = ["UploadingOutput", "Uploads"]

MAX_WAITING = 4
"""Parts that wait to be put, besides the one under way."""


class Uploads:
    """Parts that wait to be put, in the order in which they were closed, and the thread that does it."""

    def __init__(self, put: Callable[[PartMark], None]) -> None:
        self._put = put
        self._waiting: deque[PartMark] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self, parts: Iterable[PartMark]) -> None:
        """Put these first."""
        with self._changed:
            self._waiting.extend(parts)
        self._run_thread()

    def add(self, part: PartMark) -> None:
        """Let a part be put, once there is room. Raises what went wrong."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < MAX_WAITING or self._error or self._stopped)
            self._raise()
            self._waiting.append(part)
            self._changed.notify_all()
        self._run_thread()

    def finish(self) -> None:
        """Wait until nothing waits. Raises what went wrong."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._error or self._stopped)
            self._raise()

    def check(self) -> None:
        """Raise what went wrong."""
        with self._changed:
            self._raise()

    def stop(self) -> None:
        """End as soon as the part under way is done with."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run_thread(self) -> None:
        if self._thread is None and self._waiting:
            self._thread = threading.Thread(target=self._run, name="fetcher-store", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                part = self._waiting[0]
            try:
                self._put(part)
            except BaseException as error:  # noqa: BLE001  # whoever writes must hear of it, whatever it is
                with self._changed:
                    self._error = _as_ours(error, part)
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()


def _as_ours(error: BaseException, part: PartMark) -> BaseException:
    if isinstance(error, OSError) and not isinstance(error, FetcherError):
        return SinkError(f"part {part.number}: cannot be put: {error.strerror or error}")
    return error


class UploadingOutput(LedgerOutput):
    """An output of a job whose parts are put elsewhere, while it goes on."""

    in_store = True

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.uploads = Uploads(self._put)

    def check_place(self) -> None:
        """Raise what went wrong with putting parts."""
        self.uploads.check()

    def finish(self, *, complete: bool) -> None:
        """Wait until all parts are there. Raises ``SinkError``."""
        self.uploads.finish()
        if complete:
            self._tidy()

    @abstractmethod
    def _tidy(self) -> None:
        """Remove what is no part any more, once all are there."""

    @abstractmethod
    def _put(self, part: PartMark) -> None:
        """Put a part."""
