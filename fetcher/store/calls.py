"""Calls of a store: each blocks, and is tried again after an error that may pass.

Law 2: an error that may pass is tried again with backoff for ``PATIENCE`` seconds, any other is one line of ours; what
is no error of a store is a bug, and passed on. Law 7: no text of the library's is in that line.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from fetcher.errors import FetcherError, missing_extra
from fetcher.store import EXTRAS, LIBRARIES, parse_address
from fetcher.store.trouble import code_of, is_conflict, is_missing, is_of_store, is_transient, reason_of

__all__ = ["ObjectExistsError", "StoreCalls"]

log = logging.getLogger("fetcher.store")

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds for which a call is tried again."""

MAX_WAIT_SECONDS = 10.0


class ObjectExistsError(Exception):
    """An object that was to be made is there."""


class StoreCalls:
    """The prefix, or the object, at ``url``. ``error`` makes the exception of a message, which names the URL.

    ``writing`` says for what: the messages differ. ``close`` ends what waits for a store that does not answer.
    """

    def __init__(
        self, url: str, error: Callable[[str], FetcherError], *, writing: bool = False, patience: float | None = None
    ) -> None:
        self.address = parse_address(url, error)
        self.patience = PATIENCE if patience is None else patience
        self._error = error
        self._writing = writing
        self._files: Any = None
        self._opening = threading.Lock()
        self._closed = threading.Event()

    @property
    def scheme(self) -> str:
        """Which kind of store it is."""
        return self.address.scheme

    def check_installed(self) -> None:
        """Raise where the library is missing."""
        for library in ("fsspec", LIBRARIES[self.scheme]):
            if importlib.util.find_spec(library) is None:
                raise self._error(f"{self.address}: {missing_extra(library, EXTRAS[self.scheme])}")

    def close(self) -> None:
        """Give up what is being tried again."""
        self._closed.set()

    def _tried(self, name: str, act: Callable[[Any, str], T], *, patient: bool = True) -> T:
        """Call, again after an error that may pass; raise what it means."""
        from fetcher.store.retrying import call

        path = self.address.under(name).path if name else self.address.path
        try:
            return call(
                lambda: act(self._opened(), path),
                is_transient,
                patience=self.patience if patient else 0.0,
                longest=MAX_WAIT_SECONDS,
                closed=self._closed,
                told=lambda error: log.warning(
                    "%s: %s: it is tried again for %.0f s",
                    self.address,
                    reason_of(error, self.address.bucket, writing=self._writing),
                    self.patience,
                ),
            )
        except FetcherError:
            raise
        except Exception as error:
            if not is_of_store(error):
                raise
            if is_conflict(error):
                raise ObjectExistsError(self._shown(name)) from None
            if is_missing(error) and code_of(error) != "NoSuchBucket":
                raise FileNotFoundError(self._shown(name)) from None
            # The library's own error is not a cause: it may hold the request, and with it what signs it.
            raise self._error(self._explained(name, error)) from None

    def _explained(self, name: str, error: Exception) -> str:
        text = f"{self._shown(name)}: {reason_of(error, self.address.bucket, writing=self._writing)}"
        return f"{text}; what is done is kept: then run the same command again" if self._writing else text

    def _shown(self, name: str) -> str:
        return str(self.address.under(name) if name else self.address)

    def _opened(self) -> Any:
        with self._opening:
            if self._files is None:
                self.check_installed()
                self._files = _filesystem(self.scheme)
            return self._files


def _filesystem(scheme: str) -> Any:
    import fsspec

    more: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if scheme == "s3":
        # We try again ourselves, and know for how long.
        more["config_kwargs"] = {
            "retries": {"mode": "standard", "max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 30,
        }
    files = fsspec.filesystem("gcs" if scheme == "gs" else "abfs" if scheme == "az" else scheme, **more)
    if scheme == "s3":
        files.retries = 1
    return files
