"""What a run tells a Prometheus server while it goes on: its counts, under ``/metrics`` of a port or in a file.

The counts are those of ``Stats``, looked at when they are asked for: a row pays for two histograms and nothing else.
There is no label for a host, so the number of series is bounded whatever the list (law 3). Names follow OpenTelemetry's
conventions for HTTP clients where there is one: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self

import msgspec

from fetcher.errors import ConfigError, missing_extra
from fetcher.model import Outcome, Page
from fetcher.stats import Stats

__all__ = ["Metrics", "MetricsPlace", "check_metrics"]

WRITE_SECONDS = 10.0  # between two writings of the file

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
SIZES = tuple(float(4**power) for power in range(5, 14))  # 1 KiB to 64 MiB
LOOPBACK = "127.0.0.1"


class MetricsPlace(msgspec.Struct, frozen=True):
    """Where metrics are told: on a ``port`` of an address of ours, or in the file ``path``."""

    host: str = LOOPBACK
    port: int = 0
    path: str | None = None

    @classmethod
    def of(cls, text: str) -> MetricsPlace:
        """Read ``[HOST:]PORT``, or the path of a file. Raises ``ConfigError`` for a port that is none."""
        host, colon, port = text.rpartition(":")
        if not port.isdecimal() or not port.isascii() or os.sep in host:
            if colon and os.sep not in text and not text.endswith(".prom"):
                raise ConfigError(
                    f"{text!r} is neither [HOST:]PORT nor the path of a file (./NAME for one with a colon)"
                )
            return cls(path=text)
        if int(port) > 65535:
            raise ConfigError(f"{port} is no port: they go from 0 (any that is free) to 65535")
        return cls(host.strip("[]") or LOOPBACK, int(port))


class Metrics:
    """The metrics of one stream. Enter it, and have each outcome pass through ``observed``.

    ``stats`` and ``in_flight`` (the number of requests under way) are asked at each scrape, from another thread.
    ``total`` is about how many rows the list has. Entering raises ``ConfigError`` where the place cannot be used, or
    the extra is not installed.

    >>> async def crawl(fetcher, urls):
    ...     async with fetcher.stream(urls) as outcomes:
    ...         place, busy = MetricsPlace.of("9464"), lambda: len(fetcher.in_flight())
    ...         with Metrics(place, lambda: outcomes.stats, busy) as metrics:
    ...             async for outcome in metrics.observed(outcomes):
    ...                 print(outcome.request.url)
    """

    def __init__(
        self, place: MetricsPlace, stats: Callable[[], Stats], in_flight: Callable[[], int], *, total: int | None = None
    ) -> None:
        self.place = place
        self._stats = stats
        self._in_flight = in_flight
        self._total = total
        self._registry = _prometheus().CollectorRegistry()
        self._registry.register(self)
        self._durations: Any = None
        self._sizes: Any = None
        self._writer: threading.Thread | None = None
        self._ending = threading.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        prometheus = _prometheus()
        self._durations = prometheus.Histogram(
            "http_client_request_duration_seconds",
            "Seconds on the wire for a row, all its tries and redirects together.",
            ["http_response_status_code", "error_type"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._sizes = prometheus.Histogram(
            "http_client_response_body_size_bytes",
            "Size of a page's body once its content coding is undone.",
            buckets=SIZES,
            registry=self._registry,
        )
        for collector in (prometheus.ProcessCollector, prometheus.GCCollector, prometheus.PlatformCollector):
            collector(registry=self._registry)
        if self.place.path is None:
            self._serve()
        else:
            self._write()
            self._writer = threading.Thread(target=self._keep_writing, name="fetcher-metrics", daemon=True)
            self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._writer is not None:
            self._writer.join()
            self._write()
        self._stack.close()

    @property
    def url(self) -> str | None:
        """Where they are served, once entered; ``None`` for a file."""
        if self.place.path is not None:
            return None
        host = f"[{self.place.host}]" if ":" in self.place.host else self.place.host
        return f"http://{host}:{self.place.port}/metrics"

    async def observed(self, outcomes: AsyncIterable[Outcome]) -> AsyncIterator[Outcome]:
        """Yield ``outcomes``, each counted."""
        durations, sizes = self._durations, self._sizes
        async for outcome in outcomes:
            if isinstance(outcome, Page):
                durations.labels(outcome.status, "").observe(outcome.elapsed)
                sizes.observe(outcome.bytes)
            elif outcome.attempts:
                durations.labels(outcome.status or "", outcome.error.code).observe(outcome.elapsed)
            yield outcome

    def collect(self) -> Iterator[Any]:
        """Yield the counts as they are now: what the registry calls at each scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        stats = self._stats()
        ok, failed, skipped, taken = stats.ok, stats.failed, stats.skipped, stats.input
        rows = CounterMetricFamily("fetcher_rows", "Rows of the list that have their outcome.", labels=["outcome"])
        for outcome, many in (("ok", ok), ("failed", failed), ("skipped", skipped)):
            rows.add_metric([outcome], many)
        yield rows
        codes = CounterMetricFamily(
            "fetcher_errors", "Rows that failed or were skipped, by code.", labels=["error_type"]
        )
        for code, many in dict(stats.codes).items():
            codes.add_metric([code], many)
        yield codes
        yield CounterMetricFamily("fetcher_body_bytes", "Bytes of all bodies, their codings undone.", value=stats.bytes)
        yield CounterMetricFamily("fetcher_rows_taken", "Rows that were taken from the list.", value=taken)
        pending = max(0, taken - ok - failed - skipped)
        yield GaugeMetricFamily("fetcher_rows_pending", "Rows taken that have no outcome yet.", value=pending)
        yield GaugeMetricFamily("http_client_active_requests", "Requests under way.", value=self._in_flight())
        if self._total is not None:
            yield GaugeMetricFamily("fetcher_list_rows", "Rows of the list, about.", value=self._total)

    def describe(self) -> list[Any]:
        """Name nothing beforehand: the registry would collect for that."""
        return []

    def _serve(self) -> None:
        place = self.place
        try:
            server, thread = _prometheus().start_http_server(place.port, place.host, self._registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"metrics: cannot listen on {place.host}:{place.port}: {reason}; give another port"
            ) from error
        self.place = MetricsPlace(place.host, server.server_port)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stack.callback(stop)

    def _keep_writing(self) -> None:
        while not self._ending.wait(WRITE_SECONDS):
            with contextlib.suppress(ConfigError):  # the disk may have space again; the last one is told
                self._write()

    def _write(self) -> None:
        path = self.place.path
        assert path is not None
        try:
            _prometheus().write_to_textfile(path, self._registry)
        except OSError as error:
            raise ConfigError(f"metrics: cannot write {path}: {error.strerror}") from error


def check_metrics() -> None:
    """Raise ``ConfigError`` where the extra is not installed."""
    _prometheus()


def _prometheus() -> Any:
    try:
        import prometheus_client
    except ImportError:
        raise ConfigError(f"metrics: {missing_extra('prometheus_client', 'metrics')}") from None
    return prometheus_client
