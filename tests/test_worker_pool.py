"""Who the workers are and how they stand: shares, what was last heard of each, and which row each was parsing."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import cast

import pytest

from fetcher.config import Limits
from fetcher.hosts.standing import HostStanding
from fetcher.parallel.messages import FromParent, HostNews, HostStandings, LimitShare, PauseWorker, WorkerStatus
from fetcher.parallel.parsing_marks import ParsingMarks
from fetcher.parallel.process import WorkerProcess
from fetcher.parallel.shares import Part
from fetcher.parallel.worker_pool import WorkerPlace, WorkerPool
from fetcher.request_state import InFlight, WorkerStanding

ROW = InFlight(7, "http://h.example/", "reading", 1.5, 0.5, 1)


class Listening:
    """What a place has of its process, without one: whether it is alive, and what it was told."""

    def __init__(self, number: int, *, alive: bool = True) -> None:
        self.number = number
        self.pid = 100 + number
        self.alive = alive
        self.finished = False
        self.told: list[FromParent] = []

    def tell(self, message: FromParent) -> None:
        self.told.append(message)

    def kill(self) -> None:
        self.alive = False


def staffed(pool: WorkerPool, place: int, *, alive: bool = True) -> Listening:
    process = Listening(place, alive=alive)
    pool.places[place].process = cast(WorkerProcess, process)
    return process


def test_slots_and_rate_are_shared_out_from_the_beginning() -> None:
    pool = WorkerPool(3, Limits(concurrency=7, rate=14.0))
    assert [place.told for place in pool.places] == [3, 2, 2]
    assert [pool.rate(place) for place in pool.places] == [6.0, 4.0, 4.0]
    assert WorkerPool(1, Limits()).rate(pool.places[0]) is None


@pytest.mark.parametrize(
    ("staff", "status", "part"),
    [
        (False, None, Part(5, 5, 1)),
        (True, None, Part(5, 8, 5)),
        (True, WorkerStatus(1, 1, 9, 30, None), Part(5, 9, 30)),  # of an earlier share
        (True, WorkerStatus(1, 2, 3, 4, None), Part(5, 5, 4)),
        (True, WorkerStatus(1, 2, 7, 4, None), Part(5, 7, 4)),
    ],
)
def test_a_worker_holds_what_it_may_hold_of_an_earlier_share(
    staff: bool, status: WorkerStatus | None, part: Part
) -> None:
    place = WorkerPlace(5)
    place.before, place.share_number, place.status = 8, 2, status
    if staff:
        place.process = cast(WorkerProcess, Listening(0))
    assert place.part == part


def test_other_limits_are_told_to_those_that_listen() -> None:
    pool = WorkerPool(3, Limits(concurrency=6))
    first, gone = staffed(pool, 0), staffed(pool, 1, alive=False)
    pool.change(Limits(concurrency=6, rate=3.0))
    assert first.told == [LimitShare(1, 2, 1.0)]
    assert gone.told == []
    pool.tell(PauseWorker(True))
    assert first.told[1:] == [PauseWorker(True)]
    assert [process.pid for process in pool.processes] == [100, 101]
    assert pool.has(cast(WorkerProcess, first))
    assert not pool.has(cast(WorkerProcess, Listening(0)))


def test_the_crew_has_finished_when_each_has_said_its_last_word() -> None:
    pool = WorkerPool(2, Limits())
    assert pool.finished  # nobody has begun
    process = staffed(pool, 1)
    assert not pool.finished
    pool.places[1].kill()
    assert pool.finished
    assert not process.alive


def test_rows_grow_older_while_nothing_is_heard() -> None:
    pool = WorkerPool(2, Limits())
    pool.places[1].heard(WorkerStatus(1, 0, 3, 4, [ROW], on_wire=2), 10.0)
    pool.places[1].heard(WorkerStatus(1, 0, 3, 4, None, on_wire=1), 11.0)  # its rows are told more rarely
    (row,) = pool.in_flight(12.5)
    assert (row.id, row.age, row.in_stage) == (7, 4.0, 3.0)
    assert pool.places[1].remote.on_wire == 1
    pool.places[1].begin_anew()
    assert pool.in_flight(12.5) == []
    assert pool.places[1].remote.on_wire == 0


def test_hosts_stand_as_their_workers_say_and_wait_as_the_parent_knows() -> None:
    pool = WorkerPool(2, Limits())
    pool.places[0].heard(HostStandings(1, [HostStanding("a", 1, running=2, on_wire=2)]), 10.0)
    pool.places[1].heard(HostStandings(1, [HostStanding("b", 5)]), 10.0)
    pool.places[1].heard(HostNews(1, {"b": 3.0}, {"b": 0.5}, []), 10.0)
    found = {standing.host: standing for standing in pool.standings(10, {"a": 9, "c": 4})}
    assert (found["a"].waiting, found["a"].running, found["a"].on_wire) == (7, 2, 2)
    assert (found["b"].waiting, found["b"].why) == (5, "")
    assert (found["c"].waiting, found["c"].why) == (4, "its worker has said nothing of it yet")
    assert len(pool.standings(2, {"a": 9, "c": 4})) == 2
    assert pool.places[1].remote.parked(11.0) == {"b": 2.0}


def test_workers_stand_by_their_places() -> None:
    pool = WorkerPool(2, Limits(concurrency=4))
    staffed(pool, 0)
    pool.places[0].heard(WorkerStatus(1, 0, 1, 9, None), 10.0)
    staffed(pool, 1, alive=False)
    assert pool.workers([3, 0]) == [WorkerStanding(1, 100, 2, 1, 3), WorkerStanding(2, None, 2, 2, 0)]


def test_a_row_that_was_being_parsed_is_read_from_the_jobs_file(tmp_path: Path) -> None:
    path = tmp_path / "parsing"
    path.write_bytes(struct.pack("<3Q", 1, 0, 77) + b"half")
    marks = ParsingMarks(str(path))
    marks.open()
    assert [marks.of(worker) for worker in range(4)] == [0, 77, 0, 0]
    marks.close(2, clear=False)
    assert marks.of(1) == 77
    marks.close(2, clear=True)
    assert struct.unpack("<3Q", path.read_bytes()[:24]) == (1, 0, 0)  # the parent's own stays
    path.unlink()
    assert marks.of(1) == 0
    marks.close(2, clear=True)


def test_a_run_without_a_job_has_a_file_of_its_own() -> None:
    marks = ParsingMarks(None)
    assert marks.of(0) == 0
    marks.close(1, clear=True)
    marks.open()
    assert marks.path is not None
    assert os.path.getsize(marks.path) == 0
    marks.close(1, clear=True)
    assert not os.path.exists(marks.path)
