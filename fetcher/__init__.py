"""fetcher: I have a list of URLs; get them all, fast, politely, surviving anything, and give me the data.

``fetch`` and ``fetch_all`` are the blocking one-liners; ``Fetcher`` is the client. The names are loaded when
they are first used, so that ``import fetcher`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fetcher.client import Fetcher as Fetcher
    from fetcher.client import fetch as fetch
    from fetcher.client import fetch_all as fetch_all
    from fetcher.config import Config as Config
    from fetcher.errors import ConfigError as ConfigError
    from fetcher.errors import FetcherError as FetcherError
    from fetcher.errors import FetchError as FetchError
    from fetcher.errors import JobLocked as JobLocked
    from fetcher.errors import LedgerError as LedgerError
    from fetcher.errors import SinkError as SinkError
    from fetcher.errors import Skipped as Skipped
    from fetcher.errors import SourceError as SourceError
    from fetcher.errors import StatusError as StatusError
    from fetcher.found.source import follow as follow
    from fetcher.job.job import Job as Job
    from fetcher.model import Exchange as Exchange
    from fetcher.model import Extractor as Extractor
    from fetcher.model import Failure as Failure
    from fetcher.model import Middleware as Middleware
    from fetcher.model import Outcome as Outcome
    from fetcher.model import Page as Page
    from fetcher.model import Request as Request
    from fetcher.model import Response as Response
    from fetcher.model import RetryDetails as RetryDetails
    from fetcher.model import Sink as Sink
    from fetcher.model import records as records
    from fetcher.page.parse import parse as parse
    from fetcher.request_state import InFlight as InFlight
    from fetcher.sinks import open_sink as open_sink
    from fetcher.sources import read as read
    from fetcher.stats import Stats as Stats

__version__ = "0.1.0"

_HOMES = {
    "fetcher.stats": ("Stats",),
    "fetcher.client": ("Fetcher", "fetch", "fetch_all"),
    "fetcher.config": ("Config",),
    "fetcher.errors": (
        "ConfigError",
        "FetchError",
        "FetcherError",
        "JobLocked",
        "LedgerError",
        "SinkError",
        "Skipped",
        "SourceError",
        "StatusError",
    ),
    "fetcher.request_state": ("InFlight",),
    "fetcher.found.source": ("follow",),
    "fetcher.job.job": ("Job",),
    "fetcher.model": (
        "Exchange",
        "Extractor",
        "Failure",
        "Middleware",
        "Outcome",
        "Page",
        "Request",
        "Response",
        "RetryDetails",
        "Sink",
        "records",
    ),
    "fetcher.page.parse": ("parse",),
    "fetcher.sinks": ("open_sink",),
    "fetcher.sources": ("read",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604  (names made by __getattr__; the table above is their order)
    "__version__",
    *_HOME,
]


if not TYPE_CHECKING:  # who knows the names above shall see that another is a mistake

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module 'fetcher' has no attribute {name!r}")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
