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

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import SinkError
from fetcher.frontier.spill import MAX_BATCH_ROWS, Spill, StoredRow, from_stored, to_stored
from fetcher.model import Discovery, Request
from fetcher.request_state import RequestState, Transfer
from fetcher.urls import parse

DERIVED = {
    "target", "stage", "stage_since", "reservation", "can_requeue", "_release_memory", "chain", "transfer",
    "trial", "by_http", "messages", "urgent", "memory_wait", "earlier", "not_modified",
}  # fmt: skip
"""What a row that waits has no own of: its place, its task, its present try, what is on the wire."""
OF_THE_WIRE = {"host", "began", "send_gate", "suspect", "clock", "repeated", "max_bytes", "recording"}
"""What is over of an exchange that is; ``max_bytes`` are for robots.txt, which is no row."""


def row(number: int, url: str = "", **columns: Any) -> RequestState:
    url = url or f"http://a.example/{number}"
    return RequestState(Request(number, url, **columns), parse(url), number)


def frozen(number: int) -> StoredRow:
    kept = to_stored(row(number))
    assert kept is not None
    return kept


def shown(state: RequestState) -> dict[str, Any]:
    transfer = {
        name: getattr(state.transfer, name, None) for name in Transfer.__struct_fields__ if name not in OF_THE_WIRE
    }
    return {name: getattr(state, name) for name in RequestState.__slots__ if name not in DERIVED} | transfer


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
    kept = to_stored(state)
    spill = Spill()
    try:
        if kept is None:  # what msgpack has no word for stays in memory
            assert _odd(fields) or _odd([text for pair in headers for text in pair])
            return
        spilled = spill.spilled()
        spill.append(spilled, [kept])
        (back,) = spill.take(spilled, 1)
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
    state.transfer, state.redirects, state.reached = Transfer(status=503, received=17), ("http://b.example/",), "b"
    kept = to_stored(state)
    assert kept is not None
    assert shown(from_stored(kept)) == shown(state)


@pytest.mark.parametrize(("attempts", "most"), [(0, 64), (1, 128)])
def test_a_row_on_disk_is_small(attempts: int, most: int) -> None:
    """Where millions wait, what is written of each with its URL is a matter of gigabytes: no names of fields."""
    state = row(10**6)
    state.attempts, state.began, state.ended, state.elapsed = attempts, 1234.25, 1240.0, 1.5
    if not attempts:
        state.began = 0.0
    assert len(msgspec.msgpack.encode(to_stored(state))) < most


@pytest.mark.parametrize(
    ("columns", "been"),
    [
        ({"guarded": True}, {}),
        ({"headers": (("a", "b"),)}, {}),
        ({"fields": {}}, {}),
        ({"discovery": Discovery(1, 2, "http://a.example/")}, {}),
        ({"url": "http://me@a.example/"}, {}),
        ({}, {"began": 5.0}),
        ({}, {"attempts": 1}),
        ({}, {"returns": 1, "asked_to_wait": True, "by_get": "http://a.example/"}),
        ({}, {"attempts": 1, "transfer": Transfer(status=503)}),
        ({}, {"attempts": 1, "transfer": Transfer(received=0)}),
    ],
)
def test_each_thing_alone_comes_back_with_its_row(columns: dict[str, Any], been: dict[str, Any]) -> None:
    state = row(3, **columns)
    for name, value in been.items():
        setattr(state, name, value)
    kept = to_stored(state)
    assert kept is not None
    assert shown(from_stored(kept)) == shown(state)
    assert kept.rest is not None
    assert row(4).transfer is None and frozen(4).rest is None, "most rows have nothing of the kind"


def test_every_slot_of_a_row_is_kept_or_needs_not_be() -> None:
    state = row(1)
    state.transfer = Transfer()
    answered = {name: object() for name in Transfer.__struct_fields__ if name not in OF_THE_WIRE}
    for name, value in answered.items():
        setattr(state.transfer, name, value)
    changed = {name: object() for name in RequestState.__slots__ if name not in DERIVED | {"request", "first", "order"}}
    for name, value in changed.items():
        setattr(state, name, value)
    kept = to_stored(state)
    assert kept is not None
    back = from_stored(kept)
    assert {name: getattr(back, name) for name in changed} == changed
    assert {name: getattr(back.transfer, name) for name in answered} == answered


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
    assert to_stored(row(1, **columns)) is None


def test_a_row_in_a_chain_of_redirects_stays_in_memory() -> None:
    state = row(1)
    state.chain = object()
    assert to_stored(state) is None
    state.chain, state.target = None, parse("http://b.example/")
    assert to_stored(state) is None


# Queues


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("apt"), st.sampled_from([1, 3, MAX_BATCH_ROWS, 2 * MAX_BATCH_ROWS + 5])), max_size=25
    )
)
def test_a_queue_keeps_its_order(steps: list[tuple[str, int]]) -> None:
    spill = Spill()
    spilled, other = spill.spilled(), spill.spilled()
    spill.append(other, [frozen(0)])
    expected: list[int] = []
    fresh = iter(range(1, 10**6))
    try:
        for what, rows in steps:
            if what == "t":
                taken = [state.order for state in spill.take(spilled, rows)]
                assert min(1, len(expected)) <= len(taken) <= max(2 * rows, MAX_BATCH_ROWS)
                assert taken == expected[: len(taken)]
                del expected[: len(taken)]
            else:
                numbers = [next(fresh) for _ in range(rows)]
                expected = expected + numbers if what == "a" else numbers + expected
                (spill.append if what == "a" else spill.prepend)(spilled, list(map(frozen, numbers)))
            assert spilled.count == len(expected)
        assert [state.order for state in spill.take(spilled, 10**6)] == expected
        assert [state.order for state in spill.take(other, 9)] == [0]
    finally:
        spill.close()


@pytest.mark.parametrize(("rows", "taken"), [(20, 20), (21, 10)])
def test_a_batch_is_parted_only_where_it_has_over_twice_what_is_asked_for(spill: Spill, rows: int, taken: int) -> None:
    spilled = spill.spilled()
    spill.append(spilled, list(map(frozen, range(rows))))
    assert len(spill.take(spilled, 10)) == taken
    assert len(spill.take(spilled, rows)) == rows - taken


def test_of_a_second_batch_what_is_still_wanted_is_taken(spill: Spill) -> None:
    spilled = spill.spilled()
    for first, rows in ((0, 10), (10, 11)):
        spill.append(spilled, list(map(frozen, range(first, first + rows))))
    assert [state.order for state in spill.take(spilled, 15)] == list(range(15))
    assert [state.order for state in spill.take(spilled, 15)] == list(range(15, 21))


def test_rows_on_the_shelf_keep_their_times(spill: Spill) -> None:
    place = spill.put_delayed([frozen(1), frozen(2)], [5.0, 7.5])
    assert [(due, state.order) for due, state in spill.get_delayed(place)] == [(5.0, 1), (7.5, 2)]


def test_what_was_taken_makes_place_for_others(spill: Spill) -> None:
    spilled = spill.spilled()
    rows = [frozen(number) for number in range(20 * MAX_BATCH_ROWS)]
    pages = []
    for _ in range(6):
        spill.append(spilled, rows)
        assert len(spill.take(spilled, len(rows))) == len(rows)
        pages.append(spill._open().execute("pragma page_count").fetchone()[0])
    assert pages[-1] <= pages[0] + 1
    assert spill.written == 6 * len(rows)


# The file


def test_the_file_has_no_name(tmp_path: Path, spill: Spill) -> None:
    assert os.listdir(tmp_path) == []
    spill.append(spill.spilled(), [frozen(1)])
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


def test_one_descriptor_is_held_and_given_back(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    spill = Spill(str(tmp_path))
    spill.append(spill.spilled(), [frozen(1)])
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    spill.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from fetcher.frontier.spill import StoredRow, Spill\n"
        "spill = Spill(sys.argv[1])\n"
        "rows = [StoredRow(n, n, f'http://a.example/{n}', None, 'http', 'a.example', 80, None) for n in range(100_000)]\n"
        "spill.append(spill.spilled(), rows)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == -9
    assert os.listdir(tmp_path) == []


def test_without_a_folder_it_lies_where_the_system_wants_it() -> None:
    assert os.path.isdir(Spill().folder)


@pytest.mark.parametrize(
    ("temporary", "writable", "folder"),
    [("/tmp", True, "/var/tmp"), ("/tmp", False, "/tmp"), ("/scratch", True, "/scratch")],
)
def test_rows_that_wait_are_not_put_where_memory_may_be(
    temporary: str, writable: bool, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: temporary)
    monkeypatch.setattr("os.access", lambda *_: writable)
    assert Spill().folder == folder


# Trouble


def test_a_full_disk_is_the_runs_end_and_names_the_folder(tmp_path: Path, spill: Spill) -> None:
    spilled = spill.spilled()
    spill.append(spilled, [frozen(1)])
    spill._open().execute("pragma max_page_count = 4").close()
    with pytest.raises(SinkError, match=f"^{tmp_path}: cannot keep the rows that wait: .*full"):
        for _ in range(100):
            spill.append(spilled, [frozen(number) for number in range(MAX_BATCH_ROWS)])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path / "gone"))
    with pytest.raises(SinkError, match="gone: cannot keep the rows that wait: No such file"):
        spill.append(spill.spilled(), [frozen(1)])
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
    usage[2] = 250 * megabyte  # of a large disk a quarter of a gigabyte is left to others
    assert not spill.has_room()
    usage[2] = 260 * megabyte
    assert spill.has_room()


def test_millions_of_rows_are_three_numbers(spill: Spill) -> None:
    spilled = spill.spilled()
    rows = [frozen(number) for number in range(MAX_BATCH_ROWS)]
    for _ in range(400):
        spill.append(spilled, rows)
    assert (spilled.count, spilled.end - spilled.first) == (400 * MAX_BATCH_ROWS, 400)
    draw = random.Random(1)
    left = spilled.count
    while taken := spill.take(spilled, draw.randint(1, 3 * MAX_BATCH_ROWS)):
        left -= len(taken)
    assert (left, spilled.count) == (0, 0)
    assert math.isfinite(spilled.first)
