"""A custom extractor: the data you came for, out of each page, as a value of your own.

The idea: ``extract=`` takes a plain function from a ``Response`` to any value, and ``Page.data`` is what it returned.
It knows nothing of loops, hosts or retries, so it is tested with a page in a string. ``parse(response)`` gives the
tree that title and links were read from: the page is parsed once. What it raises costs that page alone: its outcome
is a ``Failure`` with the code ``extract_failed``, as here for the shelves, which have no price of their own.
"""

from __future__ import annotations

import asyncio
import re
from itertools import groupby
from typing import NamedTuple

from fetcher import Fetcher, Page, Response, parse
from fetcher.demo import Site, SiteProcess


class Coffee(NamedTuple):
    """What we came for; ``amount`` counts the currency's smallest coin."""

    currency: str
    amount: int
    price: str
    name: str


def coffee(response: Response) -> Coffee:
    """Read a coffee off its page, whatever the language. Raises what Python raises where there is none."""
    name, price = (node.text(strip=True) for node in parse(response).tree.css("h1.name, p > .price"))
    digits, signs = re.findall(r"\d", price), re.findall(r"[^\d.,\s]+", price)
    return Coffee(signs[0], int("".join(digits)), price, name)


async def main(urls: list[str]) -> None:
    """Ask for all coffees and print the cheapest and the dearest of each currency."""
    async with Fetcher(extract=coffee) as fetcher, fetcher.stream(urls) as outcomes:
        coffees: list[Coffee] = [outcome.data async for outcome in outcomes if isinstance(outcome, Page)]
        stats = outcomes.stats
    for currency, group in groupby(sorted(coffees), key=lambda each: each.currency):
        cheapest, *_, dearest = shelf = list(group)
        print(f"{len(shelf):3} in {currency:4} from {cheapest.price:>15} to {dearest.price:>15}", end="")
        print(f"   {cheapest.name} … {dearest.name}")
    print(f"\n{stats.input} pages, {stats.ok} of them coffees; the others: {dict(stats.codes)}")


if __name__ == "__main__":
    with SiteProcess(Site(pages=120, failures=False)) as shop:
        asyncio.run(main(shop.urls()))
