"""Every exception of the package, and which of them are worth another try.

Law 2: three kinds of trouble, three fates. A ``FetchError`` costs one URL and becomes a value; a ``SourceError``,
``SinkError``, ``LedgerError``, ``ConfigError`` or ``ResourceError`` ends the run; anything else is a bug and
propagates.

::

    FetcherError
    ├── ConfigError(ValueError)   a setting is wrong: names the key and the nearest valid one
    │   └── CallableError         a function of the caller's has the wrong shape; a TypeError too
    ├── SourceError               a list cannot be read: names the file and the line
    ├── SinkError                 an output cannot be written: names the path
    ├── LedgerError               a job's ledger cannot be read or written: names the path
    │   └── JobLocked             another run is working on the job: names its process
    ├── ResourceError             the system has no memory or descriptor left for us: nothing is lost
    └── FetchError                one URL failed: ``.code``, ``.url`` and ``.retryable``
        ├── InvalidURL            invalid_url
        ├── Skipped               robots_denied · robots_unreachable · page_denied · address_blocked · duplicate · host_budget
        ├── FetchTimeout          read_timeout · too_slow · total_timeout
        ├── DNSError              dns_not_found · dns_timeout
        │   └── DNSTimeout        dns_timeout
        ├── ConnectError          connect_refused · connect_timeout · connect_reset
        │   └── ConnectTimeout    connect_timeout
        ├── TLSError              tls_verify · tls_protocol · tls_timeout
        │   └── TLSTimeout        tls_timeout
        ├── ProtocolError         empty_reply · truncated · bad_encoding · malformed_response · headers_too_large
        ├── StatusError           http_NNN; ``.status`` and ``.retry_after``
        ├── RedirectError         redirect_loop · redirect_limit · bad_redirect
        ├── TooLarge              too_large
        └── ParseError            parse_timeout · parse_crash · extract_failed

``DNSTimeout``, ``ConnectTimeout`` and ``TLSTimeout`` are ``FetchTimeout`` too: ``except FetchTimeout`` catches every
timeout of a fetch.

The codes are public: they stand in every record, keep their name, and are never reused.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Self

__all__ = [
    "DISTRIBUTION",
    "RETRYABLE",
    "CallableError",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "DNSError",
    "DNSTimeout",
    "FetchError",
    "FetchTimeout",
    "FetcherError",
    "InvalidURL",
    "JobLocked",
    "LedgerError",
    "ParseError",
    "ProtocolError",
    "RedirectError",
    "ResourceError",
    "SinkError",
    "Skipped",
    "SourceError",
    "StatusError",
    "TLSError",
    "TLSTimeout",
    "TooLarge",
    "missing_extra",
]

DISTRIBUTION = "fetcher-crawl"
"""What pip calls the package: the index has another one called ``fetcher``."""


def missing_extra(library: str, extra: str) -> str:
    """Return what to say where a ``library`` is missing: the command that installs it with an ``extra`` of ours."""
    return f"{library} is not installed: pip install '{DISTRIBUTION}[{extra}]'"


log = logging.getLogger("fetcher.failures")

RETRYABLE = frozenset({
    "dns_timeout",
    "connect_refused", "connect_timeout", "connect_reset",
    "tls_timeout",
    "read_timeout", "total_timeout",
    "empty_reply", "truncated",
    "http_408", "http_425", "http_429", "http_500", "http_502", "http_503", "http_504",
    "http_520", "http_521", "http_522", "http_523", "http_524", "http_527", "http_529", "http_530",
})  # fmt: skip
"""The codes that may go away by themselves. All others give the same answer when asked again."""


class FetcherError(Exception):
    """The root of everything the package raises on purpose."""


class ConfigError(FetcherError, ValueError):
    """A setting is unknown, malformed or contradicts another; nothing was started.

    Its message begins with the option that it is about, and a colon. ``value`` is what was given, as far as it may be
    shown, where the message says what must stand in its place: then that stands between the two.
    """

    def __init__(self, message: str = "", *, value: str | None = None) -> None:
        super().__init__(message)
        self.value = value

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.value is None else f"{self.value}: {text}"


class CallableError(ConfigError, TypeError):
    """A middleware, an extractor or the like cannot be called as it will be, or returned what nobody can use.

    The message names it and says what shape it must have.
    """


class SourceError(FetcherError):
    """An input list cannot be read. The message names the file and, where there is one, the line."""


class SinkError(FetcherError):
    """An output cannot be written. The message names the path."""


class LedgerError(FetcherError):
    """The ledger of a job cannot be read or written. The message names the path and says what to do."""


class JobLocked(LedgerError):
    """Another run that is alive is working on the job. The message names its process."""


class ResourceError(FetcherError):
    """The system has no memory or file descriptor left for us, and that has not changed for a while.

    It costs no row: a job goes on with those that are left.
    """


class FetchError(FetcherError):
    """One URL failed, for the reason ``code``.

    The fields live in ``args`` and ``__dict__``, so that every error survives pickling unchanged; the text is
    formatted when asked for. ``message`` may quote the web: whoever prints it escapes it.

    ``codes`` are those of a class and of the classes that have it as their first base. ``url`` is the URL the error is
    about, without userinfo: the hop that failed, where there were redirects. It is ``None`` where there is no valid
    URL. ``final`` says that the tries it was worth have been made.
    """

    codes: ClassVar[frozenset[str]] = frozenset()
    url: str | None = None
    final = False

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)

    @property
    def code(self) -> str:
        """The stable name of what happened, such as ``connect_refused``."""
        return str(self.args[0])

    @property
    def message(self) -> str:
        """What happened in words, for people."""
        return str(self.args[1])

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later (see ``RETRYABLE``)."""
        return self.code in RETRYABLE

    def copy(self) -> Self:
        """Return an error that says the same, to be raised for another row."""
        made = type(self)(*self.args)
        made.url, made.final = self.url, self.final
        return made

    def about(self, url: str | None) -> Self:
        """Note the ``url`` the error is about, unless that is known, and return the error.

        A request that a middleware makes of its own fails at its own URL, not at the row's.
        """
        if self.url is None and url:
            self.url = url
        return self

    def detach(self) -> Self:
        """Give up the traceback, the cause and the context, and return the error: from now on it is a value.

        Law 3: tracebacks refer to frames, and those to responses and to errors, in cycles that only the garbage
        collector frees. So the causes lose theirs too: aiohttp's are in cycles of their own. What is only a context may
        be an error that the caller is handling. The logger ``fetcher.failures`` tells everything first, at DEBUG.
        """
        if self.__traceback__ is not None and log.isEnabledFor(logging.DEBUG):
            log.debug("%s failed", self.url or "a row", exc_info=self)
        error: BaseException | None = self
        while error is not None:
            cause = error.__cause__
            error.__traceback__ = error.__cause__ = error.__context__ = None
            error = cause
        return self

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class InvalidURL(FetchError):
    """The row is no http(s) URL by the WHATWG URL Standard."""

    codes = frozenset({"invalid_url"})

    def __init__(self, code: str = "invalid_url", message: str = "") -> None:
        super().__init__(code, message)


class Skipped(FetchError):
    """A rule of ours kept the request from being made, or from being made again, or the page from being kept.

    ``reading`` is what had been read of a page by then; it is taken out where the failure becomes an outcome.
    """

    codes = frozenset({
        "robots_denied", "robots_unreachable", "page_denied", "address_blocked", "duplicate", "host_budget",
    })  # fmt: skip
    reading: Any = None


class FetchTimeout(FetchError):
    """Time ran out: between two reads, with the body still coming, before any answer, or before a connection."""

    codes = frozenset({"read_timeout", "too_slow", "total_timeout"})


class DNSError(FetchError):
    """The host's name did not resolve."""

    codes = frozenset({"dns_not_found", "dns_timeout"})


class DNSTimeout(DNSError, FetchTimeout):
    """No name server answered in time."""

    codes = frozenset({"dns_timeout"})

    def __init__(self, code: str = "dns_timeout", message: str = "") -> None:
        super().__init__(code, message)


class ConnectError(FetchError):
    """No connection, or it broke before anything was answered."""

    codes = frozenset({"connect_refused", "connect_timeout", "connect_reset"})


class ConnectTimeout(ConnectError, FetchTimeout):
    """The host did not take the connection in time."""

    codes = frozenset({"connect_timeout"})

    def __init__(self, code: str = "connect_timeout", message: str = "") -> None:
        super().__init__(code, message)


class TLSError(FetchError):
    """The handshake failed, or the certificate did not hold."""

    codes = frozenset({"tls_verify", "tls_protocol", "tls_timeout"})


class TLSTimeout(TLSError, FetchTimeout):
    """The handshake did not end in time."""

    codes = frozenset({"tls_timeout"})

    def __init__(self, code: str = "tls_timeout", message: str = "") -> None:
        super().__init__(code, message)


class ProtocolError(FetchError):
    """The answer is no whole HTTP message."""

    codes = frozenset({"empty_reply", "truncated", "bad_encoding", "malformed_response", "headers_too_large"})


class StatusError(FetchError):
    """A whole answer, with a status that was not to be accepted.

    ``retry_after`` is the server's wish in seconds (RFC 9110, 10.2.3), or ``None``; ``headers`` are those that were to
    be kept.
    """

    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, status: int, message: str = "", retry_after: float | None = None) -> None:
        FetcherError.__init__(self, status, message, retry_after)

    @property
    def status(self) -> int:
        """The status code of the final answer."""
        return int(self.args[0])

    @property
    def code(self) -> str:
        """``http_`` and the three digits."""
        return f"http_{self.args[0]}"

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asked for, if it did."""
        value: float | None = self.args[2]
        return value


class RedirectError(FetchError):
    """The chain of redirects has no usable end."""

    codes = frozenset({"redirect_loop", "redirect_limit", "bad_redirect"})


class TooLarge(FetchError):
    """The decoded body is over ``max_size``."""

    codes = frozenset({"too_large"})

    def __init__(self, code: str = "too_large", message: str = "") -> None:
        super().__init__(code, message)


class ParseError(FetchError):
    """The body came, and what was to be read out of it did not.

    ``reading`` is what had been read of it by then; it is taken out where the failure becomes an outcome.
    """

    codes = frozenset({"parse_timeout", "parse_crash", "extract_failed"})
    reading: Any = None
