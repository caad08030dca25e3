"""Rows on disk: they come back as they were and in order, and the file is nobody's and gone with its process."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import SinkError
from fetcher.frontier.spill import CHUNK, Frozen, Spill, freeze, thaw
from fetcher.model import Request
from fetcher.request_state import RequestState
from fetcher.urls import parse

DERIVED = {"target", "since", "stage", "promised", "deferrable", "watch", "release", "chain", "cut_at", "depart"}
"""What a row that waits has no own of: its place, its task, its connection; a cut is for robots.txt, which is no row."""


def row(number: int, url: str = "", **columns: Any) -> RequestState:
    url = url or f"http://a.example/{number}"
    return RequestState(Request(number, url, **columns), parse(url), number)


def frozen(number: int) -> Frozen:
    kept = freeze(row(number))
    assert kept is not None
    return kept


def shown(state: RequestState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in RequestState.__slots__ if name not in DERIVED}


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    spill = Spill(str(tmp_path))
    yield spill
    spill.close()


# Rows


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["a.example", "http://u:p%20@b.example:81/x?y#z", "https://ö.example/ä b", "http://[::1]:9/"]),
    st.none() | st.dictionaries(st.text(), JSON, max_size=3),
    st.lists(st.tuples(st.text(), st.text()), max_size=2).map(tuple),
    st.sampled_from([0, 1, 2**40]),
)
def test_a_row_comes_back_as_it_was(url: str, fields: Any, headers: Any, order: int) -> None:
    state = RequestState(Request(7, url, headers, fields), parse(url), order)
    kept = freeze(state)
    spill = Spill()
    try:
        if kept is None:  # what msgpack has no word for stays in memory
            assert _odd(fields) or _odd([text for pair in headers for text in pair])
            return
        spool = spill.spool()
        spill.append(spool, [kept])
        (back,) = spill.take(spool, 1)
    finally:
        spill.close()
    assert shown(back) == shown(state)
    assert back.target is back.first
    assert _kinds(back.request.fields) == _kinds(fields)


def _odd(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_odd(key) or _odd(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_odd, value))
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    return type(value) is int and not -(2**63) <= value < 2**64


def _kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _kinds(item) for key, item in value.items()}
    return [_kinds(item) for item in value] if isinstance(value, list) else type(value)


def test_what_a_row_has_been_through_comes_back() -> None:
    state = row(3)
    state.attempts, state.elapsed, state.began, state.ended = 2, 1.5, 1234.25, 1240.0
    state.status, state.length, state.redirects, state.connection = 503, 17, ("http://b.example/",), "b"
    kept = freeze(state)
    assert kept is not None
    assert shown(thaw(kept)) == shown(state)


def test_every_slot_of_a_flight_is_kept_or_needs_not_be() -> None:
    state = row(1)
    changed = {name: object() for name in RequestState.__slots__ if name not in DERIVED | {"request", "first", "order"}}
    for name, value in changed.items():
        setattr(state, name, value)
    kept = freeze(state)
    assert kept is not None
    back = thaw(kept)
    assert {name: getattr(back, name) for name in changed} == changed


@pytest.mark.parametrize(
    "columns",
    [
        {"tag": object()},
        {"fields": {"when": object()}},
        {"fields": {"pair": (1, 2)}},
        {"fields": {1: "x"}},
        {"fields": {"big": 2**64}},
        {"fields": {"half": "\ud800"}},
        {"fields": {"bytes": b"x"}},
        {"headers": [("a", "b")]},
        {"headers": (("a", b"b"),)},
    ],
)
def test_what_is_the_callers_own_stays_in_memory(columns: dict[str, Any]) -> None:
    assert freeze(row(1, **columns)) is None


def test_a_row_in_a_chain_of_redirects_stays_in_memory() -> None:
    state = row(1)
    state.chain = object()
    assert freeze(state) is None
    state.chain, state.target = None, parse("http://b.example/")
    assert freeze(state) is None


# Queues


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("apt"), st.sampled_from([1, 3, CHUNK, 2 * CHUNK + 5])), max_size=25))
def test_a_queue_keeps_its_order(steps: list[tuple[str, int]]) -> None:
    spill = Spill()
    spool, other = spill.spool(), spill.spool()
    spill.append(other, [frozen(0)])
    expected: list[int] = []
    fresh = iter(range(1, 10**6))
    try:
        for what, rows in steps:
            if what == "t":
                taken = [state.order for state in spill.take(spool, rows)]
                assert min(1, len(expected)) <= len(taken) <= max(2 * rows, CHUNK)
                assert taken == expected[: len(taken)]
                del expected[: len(taken)]
            else:
                numbers = [next(fresh) for _ in range(rows)]
                expected = expected + numbers if what == "a" else numbers + expected
                (spill.append if what == "a" else spill.prepend)(spool, list(map(frozen, numbers)))
            assert spool.count == len(expected)
        assert [state.order for state in spill.take(spool, 10**6)] == expected
        assert [state.order for state in spill.take(other, 9)] == [0]
    finally:
        spill.close()


def test_rows_on_the_shelf_keep_their_times(spill: Spill) -> None:
    place = spill.shelve([frozen(1), frozen(2)], [5.0, 7.5])
    assert [(due, state.order) for due, state in spill.unshelve(place)] == [(5.0, 1), (7.5, 2)]


def test_what_was_taken_makes_place_for_others(spill: Spill) -> None:
    spool = spill.spool()
    rows = [frozen(number) for number in range(20 * CHUNK)]
    pages = []
    for _ in range(6):
        spill.append(spool, rows)
        assert len(spill.take(spool, len(rows))) == len(rows)
        pages.append(spill._open().execute("pragma page_count").fetchone()[0])
    assert pages[-1] <= pages[0] + 1
    assert spill.written == 6 * len(rows)


# The file


def test_the_file_has_no_name(tmp_path: Path, spill: Spill) -> None:
    assert os.listdir(tmp_path) == []
    spill.append(spill.spool(), [frozen(1)])
    assert os.listdir(tmp_path) == []
    links = [os.readlink(f"/proc/self/fd/{number}") for number in _descriptors()]
    assert any(link.startswith(str(tmp_path)) and link.endswith("(deleted)") for link in links)
    spill.close()
    spill.close()


def _descriptors() -> list[str]:
    here = []
    for number in os.listdir("/proc/self/fd"):
        try:
            os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        here.append(number)
    return here


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from fetcher.frontier.spill import Frozen, Spill\n"
        "spill = Spill(sys.argv[1])\n"
        "rows = [Frozen(n, n, f'http://a.example/{n}', None, 'http', 'a.example', 80, None) for n in range(100_000)]\n"
        "spill.append(spill.spool(), rows)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == -9
    assert os.listdir(tmp_path) == []


def test_without_a_folder_it_lies_where_the_system_wants_it() -> None:
    assert os.path.isdir(Spill().folder)


# Trouble


def test_a_full_disk_is_the_runs_end_and_names_the_folder(tmp_path: Path, spill: Spill) -> None:
    spool = spill.spool()
    spill.append(spool, [frozen(1)])
    spill._open().execute("pragma max_page_count = 4").close()
    with pytest.raises(SinkError, match=f"^{tmp_path}: cannot keep the rows that wait: .*full"):
        for _ in range(100):
            spill.append(spool, [frozen(number) for number in range(CHUNK)])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path / "gone"))
    with pytest.raises(SinkError, match="gone: cannot keep the rows that wait: No such file"):
        spill.append(spill.spool(), [frozen(1)])
    with pytest.raises(SinkError, match="gone: cannot keep"):
        spill.has_room()
    spill.close()


def test_the_disk_is_not_filled_up_by_reading_ahead(spill: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    megabyte = 2**20
    usage = [1000 * megabyte, 0, 49 * megabyte]
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert not spill.has_room()
    usage[2] = 51 * megabyte
    assert spill.has_room()
    usage[0] = 10**6 * megabyte
    assert not spill.has_room()


def test_millions_of_rows_are_three_numbers(spill: Spill) -> None:
    spool = spill.spool()
    rows = [frozen(number) for number in range(CHUNK)]
    for _ in range(400):
        spill.append(spool, rows)
    assert (spool.count, spool.end - spool.first) == (400 * CHUNK, 400)
    draw = random.Random(1)
    left = spool.count
    while taken := spill.take(spool, draw.randint(1, 3 * CHUNK)):
        left -= len(taken)
    assert (left, spool.count) == (0, 0)
    assert math.isfinite(spool.first)
