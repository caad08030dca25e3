"""The gate: slots are given back to whoever waits, and what is let go of is told."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.errors import Skipped
from fetcher.hosts.hosts import Hosts
from fetcher.middleware.gate import Gate, Waiter
from fetcher.model import Request, Response
from fetcher.request_state import RequestState, Requeue, current
from fetcher.urls import parse


class Wire:
    """A transport that holds each exchange until it is released, and counts."""

    def __init__(self) -> None:
        self.held: dict[int, asyncio.Event] = {}
        self.most = 0

    async def __call__(self, request: Request) -> Response:
        self.held[request.id] = asyncio.Event()
        self.most = max(self.most, len(self.held))
        try:
            await self.held[request.id].wait()
        finally:
            del self.held[request.id]
        return Response(request, request.url, 200)


class Room:
    """A gate, a wire behind it, and rows that go through."""

    def __init__(self, **limits: float) -> None:
        self.now = 1000.0
        self.hosts = Hosts[Waiter](Limits(**limits), RetryPolicy())  # type: ignore[arg-type]  # numbers all
        self.gate = Gate(self.hosts, lambda: self.now)
        self.wire = Wire()
        self.told: list[str] = []
        self.gate.listeners.append(self.told.append)

    def state(
        self, number: int, host: str = "a.test", *, promised: str | None = None, deferrable: bool = False
    ) -> RequestState:
        url = f"http://{host}/{number}"
        state = RequestState(Request(number, url), parse(url))
        state.deferrable = deferrable
        if promised is not None:
            state.promised = self.hosts.get(promised, self.now)
            self.hosts.promise(state.promised)
        return state

    async def go(self, state: RequestState) -> Response:
        current.set(state)
        return await self.gate(state.request, self.wire)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def idle(self) -> bool:
        return (self.hosts.on_wire, self.hosts.promised, self.gate._slots.free) == (
            0,
            0,
            self.hosts.limits.concurrency,
        )


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


async def test_a_row_of_a_parked_host_lets_go_of_its_promise_and_says_so() -> None:
    room = Room()
    room.gate.charge("a.test", 60.0)
    room.told.clear()
    with pytest.raises(Requeue) as caught:
        await room.go(room.state(1, promised="a.test", deferrable=True))
    assert caught.value.due == room.now + 60
    assert room.told == ["a.test"]
    assert room.idle()


async def test_a_row_of_a_host_that_was_given_up_does_so_too() -> None:
    room = Room()
    room.gate.charge("a.test", 1e9)
    room.told.clear()
    with pytest.raises(Skipped) as caught:
        await room.go(room.state(1, promised="a.test"))
    assert caught.value.code == "host_budget"
    assert room.told == ["a.test"]
    assert room.idle()


async def test_a_row_that_waits_holds_no_promise() -> None:
    room = Room(per_host=1)
    first = asyncio.create_task(room.go(room.state(1, promised="a.test")))
    await room.settle()
    room.told.clear()
    second = asyncio.create_task(room.go(room.state(2, promised="a.test")))
    await room.settle()
    assert (room.hosts.on_wire, room.hosts.promised) == (1, 0)
    assert room.told == ["a.test"]
    room.wire.held[1].set()
    await room.settle()
    room.wire.held[2].set()
    await asyncio.gather(first, second)
    assert room.idle()


async def test_a_row_that_goes_elsewhere_frees_its_own_host() -> None:
    room = Room()
    task = asyncio.create_task(room.go(room.state(1, "b.test", promised="a.test")))
    await room.settle()
    assert room.told == ["a.test"]
    assert room.hosts.get("b.test", room.now).on_wire == 1
    room.wire.held[1].set()
    await task
    assert room.idle()


async def test_whoever_waits_for_its_site_is_told_though_another_had_no_use_for_it() -> None:
    room = Room(per_site=1)
    task = asyncio.create_task(room.go(room.state(1, "a.site.test", promised="a.site.test")))
    await room.settle()
    for name in ("b.site.test", "c.site.test", "d.site.test"):
        host = room.hosts.get(name, room.now)
        assert room.hosts.opens(host, room.now) != room.now
    room.told.clear()
    promised = room.hosts.get("c.site.test", room.now)
    room.gate.listeners.append(lambda key: room.hosts.promise(promised) if key == promised.key else None)
    room.wire.held[1].set()
    await task
    assert room.told == ["a.site.test", "b.site.test", "c.site.test"]
    (group,) = promised.groups
    assert list(group.blocked) == ["d.site.test"]  # told when this one ends
    room.hosts.withdraw(promised)
    assert room.idle()


async def test_those_who_wait_are_sent_back_when_their_host_is_parked_for_long() -> None:
    room = Room(per_host=1)
    tasks = [asyncio.create_task(room.go(room.state(n, deferrable=n != 2))) for n in range(4)]
    await room.settle()
    room.gate.charge("a.test", 60.0)
    await room.settle()
    assert [task.done() for task in tasks] == [False, True, False, True]
    for n in (1, 3):
        with pytest.raises(Requeue):
            tasks[n].result()
    room.gate.charge("a.test", 1e9)
    room.wire.held[0].set()
    assert (await tasks[0]).status == 200
    with pytest.raises(Skipped):
        await tasks[2]
    assert room.idle()
    room.gate.close()


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


# Silence


class Times(Room):
    """A room whose clock is moved by hand, and whose listener looks around when it is told to."""

    def look_around(self, seconds: float) -> None:
        self.now += seconds
        self.gate._listener.close()
        self.gate._listener.look_around()


async def on_the_wire(room: Room, hosts: list[str], stage: str) -> list[asyncio.Task[Response]]:
    tasks = []
    for number, host in enumerate(hosts):
        state = room.state(number, host, deferrable=True)
        tasks.append(asyncio.create_task(room.go(state)))
        await room.settle()
        state.stage = stage
    return tasks


async def test_dead_hosts_make_room_and_their_rows_go_back() -> None:
    room = Times(concurrency=10)
    tasks = await on_the_wire(room, [f"dead{n}.test" for n in range(10)], "connecting")
    room.look_around(1.9)
    assert room.hosts.suspected == 0
    room.look_around(0.2)
    await room.settle()
    assert [task.done() for task in tasks] == [True] * 9 + [False]  # one slot is theirs
    for task in tasks[:9]:
        with pytest.raises(Requeue) as caught:
            task.result()
        assert caught.value.due == room.now
    assert (room.hosts.on_wire, room.hosts.suspected) == (1, 1)
    room.wire.held[9].set()
    assert (await tasks[9]).status == 200
    assert room.hosts.suspected == 0
    assert room.idle()
    room.gate.close()


async def test_who_is_cancelled_by_others_as_well_is_cancelled() -> None:
    room = Times(concurrency=2)
    tasks = await on_the_wire(room, ["a.test", "b.test"], "connecting")
    tasks[0].cancel()
    room.look_around(3.0)
    await room.settle()
    assert tasks[0].cancelled()
    assert not tasks[1].done()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert room.idle()
    assert not room.gate._listener.sent_back
    room.gate.close()


async def test_what_answers_in_the_same_instant_has_answered() -> None:
    room = Times(concurrency=2)
    tasks = await on_the_wire(room, ["a.test", "b.test"], "connecting")
    room.look_around(3.0)
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
    tasks = await on_the_wire(room, ["a.test"] * 3, "reading")
    assert list(room.wire.held) == [0]
    room.told.clear()
    room.look_around(0.5)
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
    room.hosts.charge(host, room.now, None, dead=True)
    with pytest.raises(Requeue) as caught:
        await room.go(room.state(1, deferrable=True))
    assert caught.value.due == host.rests_until == room.now + 0.25
    task = asyncio.create_task(room.go(room.state(2)))
    await room.settle()
    room.wire.held[2].set()
    assert (await task).status == 200
    room.gate.close()


# What others tell the gate


async def test_robots_and_delays_are_told_by_the_host_key() -> None:
    room = Room(delay=1.0)
    host = room.hosts.get("a.test", room.now)
    host.robots_known = False
    room.gate.know_robots("a.test", 7.0)
    room.gate.know_robots("a.test", 7.0)
    assert (host.robots_known, host.delay) == (True, 7.0)
    assert room.told == ["a.test"]
    room.gate.denied("a.test")
    assert [(report.host, report.denied) for report in room.gate.troubled()] == [("a.test", 1)]


async def test_what_is_parked_can_be_written_down_and_restored() -> None:
    room, later = Room(), Room()
    room.gate.charge("a.test", 60.0)
    later.now += 500.0
    later.gate.restore(room.gate.parked())
    with pytest.raises(Requeue) as caught:
        await later.go(later.state(1, deferrable=True))
    assert caught.value.due == later.now + 60.0
