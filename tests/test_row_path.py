"""The trace of calls, and the figures of a row's way that are made of it."""

from __future__ import annotations

import threading
from importlib.util import find_spec

import pytest

from fetcher.config import Config
from fetcher.urls import parse
from tests.benchmarks.row_path import COUNTED, RECORD, Crawled, crawl
from tests.lab.call_trace import Call, changes_of_file, folded, recorded_calls, rows_of

A, B = Call("fetcher/a.py", "A.act", 3, 0), Call("fetcher/sub/b.py", "act", 9, 1)
IDLE = {
    "fetcher.stored", "fetcher.store.store", "fetcher.sinks.store_parts", "fetcher.found.rows", "fetcher.job.since",
    "fetcher.sinks.csv_format", "fetcher.sinks.body_folder", "fetcher.sinks.batch_sink", "fetcher.middleware.cookies",
    "fetcher.middleware.conditional", "fetcher.report.metrics", "fetcher.report.progress", "fetcher.topics",
    "fetcher.page.select", "fetcher.live.run", "fetcher.parallel.parent", "fetcher.extraction",
    "fetcher.found.source", "fetcher.found.store", "fetcher.hosts.remote", "fetcher.hosts.standing", "fetcher.job.restore",
    "fetcher.job.stored_lists", "fetcher.page.changes", "fetcher.page.denial", "fetcher.sinks.child_tables",
    "fetcher.sinks.explode", "fetcher.sinks.writer_thread", "fetcher.sources.columns", "fetcher.transport.recording",
}  # fmt: skip
"""What a plain crawl has no use for: each costs its part of the start."""


@pytest.fixture(scope="module")
def crawled() -> Crawled:
    return crawl()


def test_calls_of_the_package_are_recorded_with_their_depth() -> None:
    with recorded_calls() as calls:
        "a,b".split(",")
        parse("http://host/")
        thread = threading.Thread(target=parse, args=("http://other/",))
        thread.start()
        thread.join()
    parse("http://host/")
    assert (calls[0].file, calls[0].function, calls[0].depth) == ("fetcher/urls.py", "parse", 0)
    assert [call.function for call in calls].count("parse") == 1


def test_other_threads_are_recorded_where_they_are_asked_for() -> None:
    with recorded_calls(threads=True) as calls:
        thread = threading.Thread(target=parse, args=("http://host/",))
        thread.start()
        thread.join()
        Config.of(retries=1)
    assert [call.function for call in calls if call.function in ("parse", "Config.of")] == ["parse", "Config.of"]


def test_rows_changes_and_folds() -> None:
    assert rows_of([B, A, B, B, A, A, B], "A.act") == [[A, B, B], [A]]
    assert changes_of_file([A, B, B, A, A]) == 2
    assert folded([A, B, B, A]) == ["fetcher.a:A.act", "  fetcher.sub.b:act × 2", "fetcher.a:A.act"]


def test_the_way_of_a_row_is_found(crawled: Crawled) -> None:
    assert len(crawled.rows) == COUNTED
    assert all(row[0].function == RECORD for row in crawled.rows)
    assert {"fetcher.pipeline", "fetcher.transport.session"} <= set(crawled.modules)
    files, functions, changes, calls, _ = (figure.value for figure in crawled.figures())
    assert 10 < files < functions < calls
    assert files - 1 <= changes < calls


def test_a_plain_crawl_imports_nothing_that_it_does_not_use(crawled: Crawled) -> None:
    assert IDLE & set(crawled.modules) == set()
    assert all(name.startswith("fetcher.") and find_spec(name) is not None for name in IDLE)  # they exist


def test_the_way_is_no_longer_than_is_asked(crawled: Crawled) -> None:
    """Who adds to it on purpose raises its limit in ``tests/benchmarks/row_path.py``, and says there what for."""
    assert [str(figure) for figure in crawled.figures() if not figure.holds] == []
