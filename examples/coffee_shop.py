"""The coffee shop: customers arrive when they like, each coffee brews as long as it takes.

The idea: a barista who serves one customer at a time, and stands by while each coffee brews, has a queue out of the
door. Concurrency is one barista who starts the next coffee while the others brew: nobody brews faster, yet
everybody is served sooner. ``concurrency`` is the room at the counter: a few places are nearly as good as many.
The pictures are drawn from the server's own log (· waiting outside, █ brewing), so they are what really happened.

    python examples/coffee_shop.py
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator

from fetcher import Config, Fetcher
from fetcher.demo import Site, SiteProcess

CUSTOMERS, SCALE = 10, 60  # characters a second
Arrivals = list[tuple[float, str]]


async def through_the_door(arrivals: Arrivals, opening: float) -> AsyncIterator[str]:
    """Yield each order when its customer comes in."""
    for at, order in arrivals:
        await asyncio.sleep(max(0.0, opening + at - time.monotonic()))
        yield order


async def serve(shop: SiteProcess, arrivals: Arrivals, counter: int) -> None:
    """Serve everybody, so many at once, and draw how it went."""
    seen, opening = len(shop.log()), time.monotonic()
    config = Config.of(concurrency=counter, per_host=counter, robots=False)  # nobody comes for a robots.txt
    async with (
        Fetcher(config) as fetcher,
        fetcher.stream(through_the_door(arrivals, opening), sequentially=counter == 1) as coffees,
    ):
        served = [coffee async for coffee in coffees]
    took = time.monotonic() - opening
    visits = {"http://{host}:{port}{path}".format(**visit): visit for visit in shop.log()[seen:]}
    most = max(visit["in_flight"] for visit in visits.values())
    print(f"{counter} at the counter: {len(served)} coffees in {took:.2f} s, at most {most} brewing at once")
    for number, (at, order) in enumerate(arrivals, 1):
        times = (at, visits[order]["start"] - opening, visits[order]["end"] - opening)
        came, begun, ended = (round(SCALE * seconds) for seconds in times)
        print(f"  customer {number:2} {' ' * came}{'·' * (begun - came)}{'█' * max(1, ended - begun)}")


if __name__ == "__main__":
    rng = random.Random(7)
    times = itertools.accumulate(rng.expovariate(40) for _ in range(CUSTOMERS))
    with SiteProcess(Site(hosts=1, latency=(0.05, 0.12), failures=False)) as shop:
        orders = list(zip(times, shop.urls(), strict=False))
        for counter in (1, 3, CUSTOMERS):
            asyncio.run(serve(shop, orders, counter))
