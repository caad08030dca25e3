"""The gate: slots are given back to whoever waits, and what is let go of is told."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.errors import ConnectError, Skipped, StatusError
from fetcher.hosts.health import SILENT_SECONDS
from fetcher.hosts.limits import block
from fetcher.hosts.remote import RemoteHosts
from fetcher.hosts.scheduler import DISPATCH, Scheduler
from fetcher.hosts.state import HostReport, HostState
from fetcher.middleware.gate import SWEEP_SECONDS, Gate
from fetcher.model import Request, Response, Stage
from fetcher.request_state import RequestState, Requeue, SchemeTrial, Transfer, current
from fetcher.urls import parse
from tests.lab.timers import note_timers


class Wire:
    """A transport that holds each exchange until it is released, and counts."""

    def __init__(self, hosts: Scheduler) -> None:
        self.held: dict[int, asyncio.Event] = {}
        self.most = 0
        self._shared = hosts.shared

    async def __call__(self, request: Request) -> Response:
        self.held[request.id] = asyncio.Event()
        self.most = max(self.most, len(self.held), self._shared.on_wire)
        try:
            await self.held[request.id].wait()
        finally:
            del self.held[request.id]
        return Response(request, request.url, 200)


class Room:
    """A gate, a wire behind it, and rows that go through."""

    def __init__(self, **limits: float) -> None:
        self.now = 1000.0
        self.hosts = Scheduler(Limits(**limits), RetryPolicy())  # type: ignore[arg-type]  # numbers all
        self.gate = Gate(self.hosts, lambda: self.now)
        self.wire = Wire(self.hosts)
        self.told: list[str] = []
        self.hosts.listeners.append(self.told.append)

    def state(
        self, number: int, host: str = "a.test", *, reserved: str | None = None, can_requeue: bool = False
    ) -> RequestState:
        url = f"http://{host}/{number}"
        state = RequestState(Request(number, url), parse(url))
        state.can_requeue = can_requeue
        if reserved is not None:
            holder = self.hosts.get(reserved, self.now)
            self.hosts.shared.reserve(holder)
            state.reservation = holder
        return state

    async def go(self, state: RequestState) -> Response:
        current.set(state)
        return await self.gate(state.request, self.wire)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def park(self, key: str, seconds: float) -> HostState:
        """Have a host refuse with the wish to be left alone, as the gate hears it."""
        host = self.hosts.get(key, self.now)
        self.hosts.health.park(host, self.now, seconds)
        self.gate._send_away(host, self.now)
        self.hosts.tell(key)
        return host

    def idle(self) -> bool:
        """Whether no slot is taken or reserved, and never were there more than allowed."""
        shared = self.hosts.shared
        return (shared.on_wire, shared.reserved) == (0, 0) and self.wire.most <= shared.limits.concurrency


@pytest.mark.parametrize("first", ["cancel", "release"])
@pytest.mark.parametrize("limit", ["concurrency", "per_host"])
async def test_the_slot_of_a_row_that_is_cancelled_in_the_same_instant_goes_to_the_next(first: str, limit: str) -> None:
    room = Room(**{limit: 1})
    tasks = [asyncio.create_task(room.go(room.state(n))) for n in range(3)]
    await room.settle()
    assert list(room.wire.held) == [0]
    for step in ("cancel", "release") if first == "cancel" else ("release", "cancel"):
        if step == "cancel":
            tasks[1].cancel()
        else:
            room.wire.held[0].set()
            if first == "release":
                await asyncio.sleep(0)  # its place is given to the next, which is cancelled before it learns of it
    await room.settle()
    assert list(room.wire.held) == [2]
    room.wire.held[2].set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[1].cancelled()
    assert room.idle()
    assert room.wire.most == 1


async def test_who_pauses_twice_has_paused_since_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    excused: list[float] = []
    monkeypatch.setattr(room.hosts.table, "excuse", excused.append)
    for now, paused in ((1000.0, False), (1010.0, True), (1020.0, True), (1040.0, False), (1050.0, False)):
        room.now = now
        room.gate.pause(paused=paused)
    assert (excused, room.told) == ([30.0], [""])


async def test_whoever_gives_up_waiting_is_forgotten() -> None:
    room = Room(concurrency=1)
    tasks = [asyncio.create_task(room.go(room.state(n))) for n in range(3)]
    await room.settle()
    tasks[1].cancel()
    await room.settle()
    room.wire.held[0].set()
    await room.settle()
    assert list(room.wire.held) == [2]
    room.wire.held[2].set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert room.idle()


async def test_a_row_of_a_parked_host_lets_go_of_its_reservation_and_says_so() -> None:
    room = Room()
    room.park("a.test", 60.0)
    room.told.clear()
    with pytest.raises(Requeue) as caught:
        await room.go(room.state(1, reserved="a.test", can_requeue=True))
    assert caught.value.due == room.now + 60
    assert room.told == ["a.test"]
    assert room.idle()


async def test_a_row_of_a_host_that_was_given_up_does_so_too() -> None:
    room = Room()
    room.park("a.test", 1e9)
    room.told.clear()
    with pytest.raises(Skipped) as caught:
        await room.go(room.state(1, reserved="a.test"))
    assert caught.value.code == "host_budget"
    assert room.told == ["a.test"]
    assert room.idle()


@pytest.mark.parametrize(("seconds", "said"), [(1e9, "given up: "), (60.0, "parked: a.test for 60.0 s")])
def test_a_host_that_is_parked_or_given_up_is_told_of(
    seconds: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "fetcher.hosts"):
        Room().park("a.test", seconds)
    (line,) = caplog.messages
    assert line.startswith(said)


@pytest.mark.parametrize("suspect", [False, True])
def test_a_port_that_does_not_speak_a_scheme_leaves_its_host_as_suspect_as_it_was(suspect: bool) -> None:
    class Trial:
        def failed(self, *_: object) -> bool:
            return True

    room = Room()
    host, state = room.hosts.get("a.test", room.now), room.state(1)
    room.hosts.shared.set_suspect(host, suspect=not suspect)
    state.transfer = Transfer(suspect=suspect)
    state.trial = Trial()  # type: ignore[assignment]  # as far as it is asked here
    room.gate._failed(host, state, ConnectError("connect_refused"), room.now, room.now)
    assert host.suspect is suspect


async def test_a_row_that_waits_holds_no_reservation() -> None:
    room = Room(per_host=1)
    first = asyncio.create_task(room.go(room.state(1, reserved="a.test")))
    await room.settle()
    room.told.clear()
    second = asyncio.create_task(room.go(room.state(2, reserved="a.test")))
    await room.settle()
    assert (room.hosts.shared.on_wire, room.hosts.shared.reserved) == (1, 0)
    assert room.told == ["a.test"]
    room.wire.held[1].set()
    await room.settle()
    room.wire.held[2].set()
    await asyncio.gather(first, second)
    assert room.idle()


async def test_a_row_that_goes_elsewhere_frees_its_own_host() -> None:
    room = Room()
    task = asyncio.create_task(room.go(room.state(1, "b.test", reserved="a.test")))
    await room.settle()
    assert room.told == ["a.test"]
    assert room.hosts.get("b.test", room.now).on_wire == 1
    room.wire.held[1].set()
    await task
    assert room.idle()


async def test_whoever_waits_for_its_site_is_told_though_another_had_no_use_for_it() -> None:
    room = Room(per_site=1)
    task = asyncio.create_task(room.go(room.state(1, "a.site.test", reserved="a.site.test")))
    await room.settle()
    for name in ("b.site.test", "c.site.test", "d.site.test"):
        host = room.hosts.get(name, room.now)
        assert room.hosts.decide(host, DISPATCH, room.now) > room.now
        block(host)  # it has a row
    room.told.clear()
    taker = room.hosts.get("c.site.test", room.now)
    room.hosts.listeners.append(lambda key: room.hosts.shared.reserve(taker) if key == taker.key else None)
    room.wire.held[1].set()
    await task
    assert room.told == ["a.site.test", "b.site.test"]
    for _ in range(3):  # as a dispatcher does, which has started what it could
        room.hosts.tell_blocked()
    assert room.told == ["a.site.test", "b.site.test", "c.site.test"]
    (group,) = taker.groups
    assert list(group.blocked) == ["d.site.test"]  # told when this one ends
    room.hosts.shared.unreserve(taker)
    assert room.idle()


async def test_those_who_wait_are_sent_back_when_their_host_is_parked_for_long() -> None:
    room = Room(per_host=1)
    tasks = [asyncio.create_task(room.go(room.state(n, can_requeue=n != 2))) for n in range(4)]
    await room.settle()
    room.park("a.test", 60.0)
    await room.settle()
    assert [task.done() for task in tasks] == [False, True, False, True]
    for n in (1, 3):
        with pytest.raises(Requeue):
            tasks[n].result()
    room.park("a.test", 1e9)
    room.wire.held[0].set()
    assert (await tasks[0]).status == 200
    with pytest.raises(Skipped):
        await tasks[2]
    assert room.idle()
    room.gate.close()


async def test_those_who_wait_are_sent_back_when_their_host_fails() -> None:
    room, failing = Room(per_host=1), asyncio.Event()

    async def refused(request: Request) -> Response:
        await failing.wait()
        raise ConnectError("connect_refused")

    async def through(number: int) -> Response:
        state = room.state(number, can_requeue=number == 2)
        current.set(state)
        return await room.gate(state.request, refused)

    failing.set()
    with pytest.raises(ConnectError):
        await through(0)  # this one is the row's own
    failing.clear()
    tasks = [asyncio.create_task(through(number)) for number in (1, 2)]
    await room.settle()
    failing.set()
    await room.settle()
    assert [task.done() for task in tasks] == [True, True]
    assert isinstance(tasks[0].exception(), ConnectError)
    assert isinstance(tasks[1].exception(), Requeue)
    assert room.idle()
    room.gate.close()


async def test_a_closed_gate_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(delay=0.5)
    timers = note_timers(monkeypatch)
    tasks = [asyncio.create_task(room.go(room.state(number))) for number in range(2)]
    await room.settle()
    room.wire.held[0].set()
    await room.settle()
    assert [task.done() for task in tasks] == [True, False]
    assert not all(timer.cancelled() for timer in timers)
    room.gate.close()
    assert all(timer.cancelled() for timer in timers)
    tasks[1].cancel()


async def test_a_short_delay_is_waited_for_at_the_gate() -> None:
    room = Room(delay=0.01)
    room.gate.clock = asyncio.get_running_loop().time
    tasks = [asyncio.create_task(room.go(room.state(n))) for n in range(3)]
    async with asyncio.timeout(30):
        for n in range(3):
            while n not in room.wire.held:
                await asyncio.sleep(0.001)
            room.wire.held[n].set()
            await tasks[n]
    assert room.idle()
    room.gate.close()


async def test_what_fails_on_the_wire_gives_its_slots_back() -> None:
    room = Room()

    async def broken(request: Request) -> Response:
        raise ZeroDivisionError

    state = room.state(1)
    current.set(state)
    with pytest.raises(ZeroDivisionError):
        await room.gate(state.request, broken)
    assert room.idle()
    assert room.told == ["a.test"]


@pytest.mark.parametrize("raised", [False, True])  # by a transport of the caller's own
@pytest.mark.parametrize(("status", "refused"), [(429, 1), (503, 1), (500, 0), (403, 0), (200, 0)])
async def test_a_429_and_a_503_are_refusals_and_nothing_else_is(status: int, refused: int, raised: bool) -> None:
    room = Room()

    async def answer(request: Request) -> Response:
        if raised:
            raise StatusError(status, "", 5.0)
        return Response(request, request.url, status, (("retry-after", "5"),))

    state = room.state(1)
    current.set(state)
    with contextlib.suppress(StatusError):
        await room.gate(state.request, answer)
    host = room.hosts.get("a.test", room.now)
    assert [report.refused for report in room.gate.troubled()] == [1] * refused
    assert (host.breaker.parked_until, host.ports) == (refused * (room.now + 5.0), (80,))
    assert room.idle()


async def test_the_address_of_a_host_is_asked_for_once() -> None:
    room, asked = Room(per_address=5), list[str]()

    async def locate(key: str) -> str | None:
        asked.append(key)
        return "192.0.2.1"

    room.gate = Gate(room.hosts, lambda: room.now, locate=locate)
    for number in (1, 2):
        task = asyncio.create_task(room.go(room.state(number)))
        await room.settle()
        (group,) = room.hosts.get("a.test", room.now).groups
        assert group.on_wire == 1
        room.wire.held[number].set()
        await task
    assert asked == ["a.test"]
    assert room.idle()


async def test_a_row_whose_address_has_no_slot_left_goes_back_and_does_not_wait() -> None:
    room = Room(per_address=1)

    async def locate(key: str) -> str | None:
        return "192.0.2.1"

    room.gate = Gate(room.hosts, lambda: room.now, locate=locate)
    first = asyncio.create_task(room.go(room.state(1, "a.test")))
    await room.settle()
    with pytest.raises(Requeue):
        await asyncio.wait_for(room.go(room.state(2, "b.test", can_requeue=True)), 30)
    room.wire.held[1].set()
    await first
    assert room.idle()


# Silence


class Times(Room):
    """A room whose clock is moved by hand, and whose monitor sweeps when it is told to."""

    def sweep(self, seconds: float) -> None:
        self.now += seconds
        self.gate.monitor.close()
        self.gate.monitor.sweep()


def advance(state: RequestState, stage: Stage) -> None:
    """Take a row from the gate to a stage on the wire."""
    for step in (Stage.CONNECTING, Stage.WAITING, Stage.READING):
        state.enter(step)
        if step is stage:
            return


async def on_the_wire(room: Room, hosts: list[str], stage: Stage) -> list[asyncio.Task[Response]]:
    tasks = []
    for number, host in enumerate(hosts):
        state = room.state(number, host, can_requeue=True)
        tasks.append(asyncio.create_task(room.go(state)))
        await room.settle()
        advance(state, stage)
    return tasks


def test_the_silent_are_looked_for_often_enough() -> None:
    """The share of dead hosts holds only if one is found out soon after its two seconds."""
    assert 0 < SWEEP_SECONDS <= SILENT_SECONDS / 4


async def test_dead_hosts_make_room_and_their_rows_go_back() -> None:
    room = Times(concurrency=10)
    tasks = await on_the_wire(room, [f"dead{n}.test" for n in range(10)], Stage.CONNECTING)
    room.sweep(1.9)
    assert room.hosts.shared.suspected == 0
    room.sweep(0.2)
    await room.settle()
    assert [task.done() for task in tasks] == [True] * 9 + [False]  # one slot is theirs
    for task in tasks[:9]:
        with pytest.raises(Requeue) as caught:
            task.result()
        assert caught.value.due == room.now
    assert (room.hosts.shared.on_wire, room.hosts.shared.suspected) == (1, 1)
    room.wire.held[9].set()
    assert (await tasks[9]).status == 200
    assert room.hosts.shared.suspected == 0
    assert room.idle()
    room.gate.close()


class Trial(SchemeTrial):
    """A trial that takes an exchange broken off for an answer."""

    def __init__(self) -> None:
        super().__init__(("https", "a.test", 443), lambda: None, patience=1.0)

    def broken_off(self, state: RequestState) -> ConnectError:
        return ConnectError("connect_timeout", "silent")


@pytest.mark.parametrize(
    ("trial", "returns", "ends"),
    [(None, 0, Requeue), (None, 1, Requeue), (Trial(), 0, Requeue), (Trial(), 1, ConnectError)],
)
async def test_a_row_on_trial_is_told_the_second_time_that_it_is_broken_off(
    trial: SchemeTrial | None, returns: int, ends: type[BaseException]
) -> None:
    room = Times(concurrency=2)
    tasks = []
    for number, host in enumerate(("a.test", "b.test")):
        state = room.state(number, host, can_requeue=True)
        state.trial = trial
        for _ in range(returns):
            state.count_return()
        tasks.append(asyncio.create_task(room.go(state)))
        await room.settle()
        advance(state, Stage.CONNECTING)
    room.sweep(3.0)
    await room.settle()
    assert [task.done() for task in tasks] == [True, False]
    assert type(tasks[0].exception()) is ends
    room.wire.held[1].set()
    await tasks[1]
    assert room.idle()
    room.gate.close()


async def test_who_is_cancelled_by_others_as_well_is_cancelled() -> None:
    room = Times(concurrency=2)
    tasks = await on_the_wire(room, ["a.test", "b.test"], Stage.CONNECTING)
    tasks[0].cancel()
    room.sweep(3.0)
    await room.settle()
    assert tasks[0].cancelled()
    assert not tasks[1].done()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert room.idle()
    assert not room.gate.monitor.broken_off
    room.gate.close()


async def test_what_answers_in_the_same_instant_has_answered() -> None:
    room = Times(concurrency=2)
    tasks = await on_the_wire(room, ["a.test", "b.test"], Stage.CONNECTING)
    room.sweep(3.0)
    room.wire.held[0].set()
    outcomes = await asyncio.gather(tasks[0], return_exceptions=True)
    assert isinstance(outcomes[0], Requeue)
    assert tasks[0].cancelling() == 0
    room.wire.held[1].set()
    await tasks[1]
    assert room.idle()
    room.gate.close()


async def test_a_head_gives_a_host_its_slots_though_its_body_lasts() -> None:
    room = Times(per_host=3)
    tasks = await on_the_wire(room, ["a.test"] * 3, Stage.READING)
    assert list(room.wire.held) == [0]
    room.told.clear()
    room.sweep(0.5)
    await room.settle()
    assert room.told == ["a.test"]
    assert list(room.wire.held) == [0, 1, 2]
    for held in list(room.wire.held.values()):
        held.set()
    await asyncio.gather(*tasks)
    assert room.idle()
    room.gate.close()


async def test_a_dead_host_rests_from_rows_that_can_wait_elsewhere() -> None:
    room = Room()
    host = room.hosts.get("a.test", room.now)

    async def refused(request: Request) -> Response:
        raise ConnectError("connect_refused")

    for number in range(2):  # the first is the row's own
        state = room.state(number)
        current.set(state)
        with pytest.raises(ConnectError):
            await room.gate(state.request, refused)
    assert room.idle()
    with pytest.raises(Requeue) as caught:
        await room.go(room.state(1, can_requeue=True))
    assert caught.value.due == host.breaker.open_until == room.now + 0.25
    task = asyncio.create_task(room.go(room.state(2)))
    await room.settle()
    room.wire.held[2].set()
    assert (await task).status == 200
    room.gate.close()


# What others tell the gate


async def test_a_larger_share_of_the_slots_lets_those_go_on_who_wait_for_one() -> None:
    room = Room(concurrency=1)
    tasks = [asyncio.create_task(room.go(room.state(n, f"{n}.test"))) for n in range(3)]
    await room.settle()
    assert list(room.wire.held) == [0]
    room.told.clear()
    room.gate.set_share(2, None)
    await room.settle()
    assert list(room.wire.held) == [0, 1]
    assert room.told == [""]  # whoever starts rows looks at all that may start
    for n in range(3):
        room.wire.held[n].set()
        await room.settle()
    await asyncio.gather(*tasks)
    assert room.idle()


@pytest.mark.parametrize(("known", "delay", "told"), [(False, 0.0, ["a.test"]), (True, 2.0, []), (True, 0.0, [])])
async def test_rules_that_ask_for_no_delay_are_known_too_and_a_delay_may_change(
    known: bool, delay: float, told: list[str]
) -> None:
    room = Room()
    host = room.hosts.get("a.test", room.now)
    host.know_robots(known=known)
    room.gate.know_robots("a.test", delay)
    assert (host.robots_known, host.delay, room.told) == (True, delay, told)


async def test_robots_and_delays_are_told_by_the_host_key() -> None:
    room = Room(delay=1.0)
    host = room.hosts.get("a.test", room.now)
    host.know_robots(known=False)
    room.gate.know_robots("a.test", 7.0)
    room.gate.know_robots("a.test", 7.0)
    assert (host.robots_known, host.delay) == (True, 7.0)
    assert room.told == ["a.test"]
    room.gate.denied("a.test")
    assert [(report.host, report.denied) for report in room.gate.troubled()] == [("a.test", 1)]


async def test_what_is_parked_can_be_written_down_and_restored() -> None:
    room, later = Room(), Room()
    room.park("a.test", 60.0)
    later.now += 500.0
    later.gate.restore(room.gate.parked())
    with pytest.raises(Requeue) as caught:
        await later.go(later.state(1, can_requeue=True))
    assert caught.value.due == later.now + 60.0


@pytest.mark.parametrize("remotes", [0, 2])
def test_hosts_with_trouble_are_told_of_by_all_processes(remotes: int) -> None:
    room = Room()
    for number in range(remotes):
        remote = RemoteHosts()
        remote.heard({}, {}, [HostReport(f"there{number}.test", refused=number + 1)], room.now)
        room.gate.remote.append(remote)
    assert [report.host for report in room.gate.troubled()] == [f"there{n}.test" for n in reversed(range(remotes))]


def test_what_another_process_has_under_way_counts_once_it_has_said_so() -> None:
    room, remote = Room(), RemoteHosts()
    room.gate.remote.append(remote)
    assert room.gate.on_wire == 0
    remote.on_wire = 3
    assert room.gate.on_wire == 3
