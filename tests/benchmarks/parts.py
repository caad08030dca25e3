"""Owns what the parts of the engine cost: the gate, the frontier, one decision, one exchange without a network.

Run it with ``python -m tests.benchmarks.parts``; it prints the microseconds of each, the best of several rounds. They
are for comparison: run it before a change and after it, in turn, on the same machine.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Awaitable, Callable
from time import process_time

from fetcher.client import Fetcher
from fetcher.config import Config, Limits, RetryPolicy
from fetcher.event_loop import fastest_loop
from fetcher.frontier.frontier import Frontier
from fetcher.hosts.scheduler import CONNECT, DISPATCH, SEND, Scheduler
from fetcher.middleware.gate import Gate
from fetcher.model import Request, Response
from fetcher.pipeline import Engine, exchange
from fetcher.request_state import RequestState, current
from fetcher.urls import Target

ROUNDS = 15
CALLS = 5_000
HOSTS = 200


def row(number: int) -> RequestState:
    """Return a row of one of the hosts."""
    host = f"host-{number % HOSTS}.example"
    url = f"http://{host}/{number}"
    return RequestState(Request(number, url), Target(url, "http", host, 80), number)


def known_hosts() -> Scheduler:
    """Return hosts that have answered before."""
    scheduler = Scheduler(Limits(concurrency=100, per_host=10), RetryPolicy())
    for number in range(HOSTS):
        scheduler.get(f"host-{number}.example", 0.0).answered(80)
    return scheduler


async def answer(request: Request) -> Response:
    """Answer at once."""
    return Response(request, request.url, 200)


async def the_gate() -> float:
    """Pass the gate, with a reservation, and give the slots back."""
    scheduler = known_hosts()
    gate = Gate(scheduler)
    rows = [row(number) for number in range(CALLS)]
    began = process_time()
    for state in rows:
        current.set(state)
        host = scheduler.get(state.target.host, 0.0)
        scheduler.shared.reserve(host)
        state.reservation = host
        await gate(state.request, answer)
    took = process_time() - began
    gate.close()
    return took


async def the_frontier() -> float:
    """Push a row and pop one."""
    scheduler = known_hosts()
    frontier = Frontier(scheduler, Limits(concurrency=100, per_host=10))
    rows = [row(number) for number in range(CALLS)]
    for state in rows[:1_000]:
        frontier.push(state)
    began = process_time()
    for state in rows[1_000:]:
        frontier.push(state)
        popped = frontier.pop(1.0)
        assert popped is not None
        reserved = popped.take_reservation()
        assert reserved is not None
        scheduler.shared.unreserve(reserved)
    took = process_time() - began
    frontier.clear()
    return took * CALLS / (CALLS - 1_000)


async def one_decision() -> float:
    """Ask once at each of the three steps."""
    scheduler = known_hosts()
    hosts = [scheduler.get(f"host-{number}.example", 0.0) for number in range(HOSTS)]
    decide = scheduler.decide
    began = process_time()
    for host in itertools.islice(itertools.cycle(hosts), CALLS):
        decide(host, DISPATCH, 1.0)
        decide(host, CONNECT, 1.0)
        decide(host, SEND, 1.0)
    return (process_time() - began) / 3


async def one_exchange() -> float:
    """Send a row through all handlers, to a transport that answers at once."""
    config = Config.of(concurrency=100, per_host=10, robots=False)
    async with Fetcher(config, transport=answer) as fetcher:
        engine: Engine = fetcher._running()
        rows = [row(number) for number in range(CALLS)]
        began = process_time()
        for state in rows:
            await exchange(engine, state)
        return process_time() - began


PARTS: dict[str, Callable[[], Awaitable[float]]] = {
    "the gate, with a reservation": the_gate,
    "frontier: a push and a pop": the_frontier,
    "one decision": one_decision,
    "one exchange without a network": one_exchange,
}


async def best_of_rounds() -> dict[str, float]:
    """Return the least microseconds of each part."""
    best = dict.fromkeys(PARTS, float("inf"))
    for _ in range(ROUNDS):
        for name, part in PARTS.items():
            gc.collect()
            best[name] = min(best[name], await part() / CALLS * 1e6)
    return best


def main() -> None:
    """Measure and print."""
    gc.freeze()
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        for name, micros in runner.run(best_of_rounds()).items():
            print(f"{name:<32} {micros:6.2f} µs")


if __name__ == "__main__":
    main()
