"""A list is counted exactly, whatever of it is in memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import SinkError
from fetcher.report import census as counting
from fetcher.report.census import Census, Distinct, HostRows
from fetcher.urls import Target, parse


def target(host: str, path: object = "") -> Target:
    return parse(f"http://{host}/{path}")


@pytest.fixture(params=[3, 100_000])
def census(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Census]:
    monkeypatch.setattr(counting, "HOSTS_IN_MEMORY", request.param)
    census = Census()
    yield census
    census.close()


def test_rows_are_counted_by_host(census: Census) -> None:
    for n in range(100):
        census.add(target(f"h{n % 7}.example", n))
    for n in range(50):
        census.add(target("large.example", n))
    assert (census.rows, census.hosts(), census.half()) == (150, 8, 3)
    assert census.largest(2) == [
        HostRows("large.example", 50, "http://large.example/0"),
        HostRows("h0.example", 15, "http://h0.example/0"),
    ]
    assert (census.rows_of("h6.example"), census.rows_of("nobody")) == (14, 0)


def test_nothing_is_nothing(census: Census) -> None:
    assert (census.rows, census.hosts(), census.half(), census.largest(5), census.sample) == (0, 0, 0, [], [])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([f"h{n}.example" for n in range(12)])), st.sampled_from([1, 4, 100]))
def test_the_counts_are_exact(hosts: list[str], memory: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "HOSTS_IN_MEMORY", memory)
        census = Census()
        try:
            for number, host in enumerate(hosts):
                census.add(target(host, number))
                assert census.hosts() == len(set(hosts[: number + 1])) or number % 3
            expected = sorted(Counter(hosts).items(), key=lambda item: (-item[1], item[0]))
            assert [(host.host, host.rows) for host in census.largest(99)] == expected
        finally:
            census.close()


def test_each_row_has_the_same_chance_to_be_drawn() -> None:
    hits: Counter[str] = Counter()
    for seed in range(60):
        census = Census(seed=seed)
        for n in range(1_000):
            census.add(target(f"h{n // 100}.example", n))
        assert len(census.sample) == counting.SAMPLE_ROWS
        hits.update(drawn.host for drawn in census.sample)
    assert all(400 < number < 800 for number in hits.values()), hits


def test_many_hosts_do_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "HOSTS_IN_MEMORY", 5_000)
    census = Census()
    tracemalloc.start()
    try:
        for n in range(60_000):
            census.add(Target(f"http://h{n}.example/", "http", f"h{n}.example", 80))
        used, _ = tracemalloc.get_traced_memory()
        assert census.hosts() == 60_000
    finally:
        tracemalloc.stop()
        census.close()
    assert used < 8 * 1024 * 1024


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=2_000), st.sampled_from([1, 3, 4_096]))
def test_what_is_different_is_counted(numbers: list[int], segment: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "SEGMENT_DIGESTS", segment)
        distinct = Distinct()
        try:
            for number in numbers:
                distinct.add(f"http://a.example/{number}\udcff")
            assert (distinct.count(), distinct.added) == (len(set(numbers)), len(numbers))
        finally:
            distinct.close()


def test_trouble_with_the_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "SEGMENT_DIGESTS", 1)

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(SinkError, match="cannot count the list: No space left on device"):
        Distinct().add("x")
