"""The gate: slots are given back to whoever waits, and what is let go of is told."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.config import Limits, RetryPolicy
from fetcher.errors import Skipped
from fetcher.flight import Flight, Later, current
from fetcher.hosts import Hosts
from fetcher.model import Request, Response
from fetcher.policy.pacing import Gate, Waiter
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

    def flight(
        self, number: int, host: str = "a.test", *, promised: str | None = None, deferrable: bool = False
    ) -> Flight:
        url = f"http://{host}/{number}"
        flight = Flight(Request(number, url), parse(url))
        flight.deferrable = deferrable
        if promised is not None:
            flight.promised = self.hosts.get(promised, self.now)
            self.hosts.promise(flight.promised)
        return flight

    async def go(self, flight: Flight) -> Response:
        current.set(flight)
        return await self.gate(flight.request, self.wire)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def idle(self) -> bool:
        return (self.hosts.on_wire, self.hosts.promised, self.gate._slots._value) == (
            0,
            0,
            self.hosts.limits.concurrency,
        )


@pytest.mark.parametrize("first", ["cancel", "release"])
@pytest.mark.parametrize("limit", ["concurrency", "per_host"])
async def test_the_slot_of_a_row_that_is_cancelled_in_the_same_instant_goes_to_the_next(first: str, limit: str) -> None:
    room = Room(**{limit: 1})
    tasks = [asyncio.create_task(room.go(room.flight(n))) for n in range(3)]
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
    tasks = [asyncio.create_task(room.go(room.flight(n))) for n in range(3)]
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
    with pytest.raises(Later) as caught:
        await room.go(room.flight(1, promised="a.test", deferrable=True))
    assert caught.value.due == room.now + 60
    assert room.told == ["a.test"]
    assert room.idle()


async def test_a_row_of_a_host_that_was_given_up_does_so_too() -> None:
    room = Room()
    room.gate.charge("a.test", 1e9)
    room.told.clear()
    with pytest.raises(Skipped) as caught:
        await room.go(room.flight(1, promised="a.test"))
    assert caught.value.code == "host_budget"
    assert room.told == ["a.test"]
    assert room.idle()


async def test_a_row_that_waits_holds_no_promise() -> None:
    room = Room(per_host=1)
    first = asyncio.create_task(room.go(room.flight(1, promised="a.test")))
    await room.settle()
    room.told.clear()
    second = asyncio.create_task(room.go(room.flight(2, promised="a.test")))
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
    task = asyncio.create_task(room.go(room.flight(1, "b.test", promised="a.test")))
    await room.settle()
    assert room.told == ["a.test"]
    assert room.hosts.get("b.test", room.now).on_wire == 1
    room.wire.held[1].set()
    await task
    assert room.idle()


async def test_those_who_wait_are_sent_back_when_their_host_is_parked_for_long() -> None:
    room = Room(per_host=1)
    tasks = [asyncio.create_task(room.go(room.flight(n, deferrable=n != 2))) for n in range(4)]
    await room.settle()
    room.gate.charge("a.test", 60.0)
    await room.settle()
    assert [task.done() for task in tasks] == [False, True, False, True]
    for n in (1, 3):
        with pytest.raises(Later):
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
    tasks = [asyncio.create_task(room.go(room.flight(n))) for n in range(3)]
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

    flight = room.flight(1)
    current.set(flight)
    with pytest.raises(ZeroDivisionError):
        await room.gate(flight.request, broken)
    assert room.idle()
    assert room.told == ["a.test"]
