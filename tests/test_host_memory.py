"""What a job remembers of hosts: told at one time, read at another, and checked."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.errors import LedgerError
from fetcher.hosts.scheduler import Scheduler
from fetcher.job.host_memory import DELAYS, PARKED, TROUBLED, pauses_of, remember, troubled_of
from fetcher.middleware.gate import Gate

THEN = 1_000_000.0  # seconds since the epoch


@pytest.fixture
def notes() -> dict[str, bytes]:
    hosts = Scheduler(Limits(), RetryPolicy())
    gate = Gate(hosts, clock=lambda: 100.0)
    for key in ("parked.example", "both.example"):
        hosts.health.park(hosts.get(key, 100.0), 100.0, 60.0)
    gate.know_robots("both.example", 20.0)
    gate.know_robots("slow.example", 10.0)
    gate.know_robots("plain.example", 0.0)
    gate.denied("slow.example")
    return remember(gate, THEN)


def pauses(notes: dict[str, bytes], now: float, longest: float = 300.0) -> dict[str, float]:
    return pauses_of(notes[PARKED], notes[DELAYS], now, longest, path="a.job")


def test_pauses_run_on_and_delays_begin_anew(notes: dict[str, bytes]) -> None:
    assert pauses(notes, THEN) == {"parked.example": 60.0, "both.example": 60.0, "slow.example": 10.0}
    assert pauses(notes, THEN + 50) == {"parked.example": 10.0, "both.example": 20.0, "slow.example": 10.0}
    assert pauses(notes, THEN + 9_999) == {"both.example": 20.0, "slow.example": 10.0}


def test_a_pause_of_less_than_a_second_is_remembered() -> None:
    hosts = Scheduler(Limits(), RetryPolicy())
    hosts.health.park(hosts.get("parked.example", 100.0), 100.0, 0.5)
    assert pauses(remember(Gate(hosts, clock=lambda: 100.0), THEN), THEN) == {"parked.example": 0.5}


def test_a_pause_is_noted_to_the_millisecond_and_so_once() -> None:
    hosts = Scheduler(Limits(), RetryPolicy())
    hosts.health.park(hosts.get("parked.example", 100.0), 100.0, 60.0)
    noted = {
        remember(Gate(hosts, clock=partial(float, 100.0 + late)), THEN + late + error)[PARKED]
        for late, error in ((0.0, 0.0), (1.0, 0.0003), (2.0, -0.0003))  # the two clocks are not read at once
    }
    assert noted == {b'{"parked.example":1000060.0}'}


def test_a_clock_that_was_put_back_makes_nobody_wait_for_ever(notes: dict[str, bytes]) -> None:
    assert max(pauses(notes, THEN - 1e6).values()) == 300.0


def test_who_gave_trouble_is_told(notes: dict[str, bytes]) -> None:
    troubled = troubled_of(notes[TROUBLED], path="a.job")
    assert {host.host: (host.parked, host.denied) for host in troubled} == {
        "parked.example": (60.0, 0),
        "both.example": (60.0, 0),
        "slow.example": (0.0, 1),
    }


def test_of_very_many_hosts_those_that_rest_longest_are_remembered() -> None:
    hosts = Scheduler(Limits(), RetryPolicy())
    for n in range(12_000):
        hosts.health.park(hosts.get(f"h{n}.example", 100.0), 100.0, 60.0 + n / 100)
    found = pauses(remember(Gate(hosts, clock=lambda: 100.0), THEN), THEN)
    assert sorted(found, key=lambda key: found[key]) == [f"h{n}.example" for n in range(2_000, 12_000)]


def test_a_note_of_more_hosts_than_are_ever_noted_is_damaged() -> None:
    note = msgspec.json.encode({f"h{n}.example": THEN + 60.0 for n in range(10_001)})
    with pytest.raises(LedgerError, match=r"a\.job: is damaged \(10,001 hosts\)"):
        pauses_of(note, None, THEN, 300.0, path="a.job")


def test_nothing_noted_is_nothing() -> None:
    assert pauses_of(None, None, THEN, 300.0, path="a.job") == {}
    assert troubled_of(None, path="a.job") == []


@pytest.mark.parametrize("note", [b"", b"[1]", b'{"a": "x"}', b"\xff", b"[" * 100_000])
def test_a_note_that_is_none_is_named(note: bytes) -> None:
    for parked, delays in ((note, None), (None, note)):
        with pytest.raises(LedgerError, match=r"a\.job: is damaged"):
            pauses_of(parked, delays, THEN, 300.0, path="a.job")
    with pytest.raises(LedgerError, match=r"a\.job: is damaged"):
        troubled_of(note, path="a.job")


def test_no_host_has_rested_for_less_than_no_time() -> None:
    with pytest.raises(LedgerError, match="less than no time"):
        pauses_of(None, b'{"a": 3.0, "b": -1.0}', THEN, 300.0, path="a.job")


def test_a_host_may_have_rested_for_no_time() -> None:
    assert pauses_of(None, b'{"a": 3.0, "b": 0.0}', THEN, 300.0, path="a.job") == {"a": 3.0, "b": 0.0}
