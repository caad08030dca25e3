"""What the tests share: a heap that is quick to look through, an order, and a mocked aiohttp that fits the one installed."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. No test is judged by that.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_collection() -> None:
    """Let the tests be read without the garbage collector, which would look through all of them again and again."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what is loaded and collected out of every collection to come: a million objects that stay."""
    gc.collect()
    gc.freeze()
    gc.enable()


# Those with the longest single tests: fifteen seconds to a minute where six workers share two cores.
LONG = (
    "test_collector.py", "test_typed.py", "test_request_bound.py", "test_mutations.py", "test_sweep_replies.py",
    "test_faults.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each of several workers begin with a long test: for one that begins last, all the others wait.

    A worker is given as many tests in a row as any other.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if workers < 2:
        return
    files: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.path.name].append(item)
    rest = iter([item for item in items if item.path.name not in LONG])
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        size = (len(items) - len(ordered)) // (workers - worker)
        first = [item for name in LONG[worker::workers] for item in files[name]]
        ordered += [*first, *islice(rest, max(0, size - len(first)))]
    items[:] = [*ordered, *rest]


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let aioresponses 0.7.9 answer in place of aiohttp 3.14 and later.

    It does not know of ``stream_writer`` (https://github.com/pnuckowski/aioresponses/issues/289), and its reader
    of bodies pauses a connection that is not there at 128 KiB.
    """
    import aiohttp
    import aioresponses
    from aiohttp.client_proto import ResponseHandler

    class MockedResponse(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"stream_writer": Mock(output_size=0), **options})

    def stream_reader(loop: Any = None) -> aiohttp.StreamReader:
        return aiohttp.StreamReader(ResponseHandler(loop=loop), limit=1 << 30, loop=loop)

    monkeypatch.setattr("aioresponses.core.ClientResponse", MockedResponse)
    monkeypatch.setattr("aioresponses.core.stream_reader_factory", stream_reader)
    with aioresponses.aioresponses() as mocks:
        yield mocks
