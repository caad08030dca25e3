"""What both pipelines run on, so that a comparison of the two is fair by construction."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.flight import Flight
from fetcher.model import Exchange, Outcome, Page, Response
from fetcher.policy.pacing import Gate

__all__ = ["Engine", "read"]


class Engine(msgspec.Struct, frozen=True):
    """The handlers, the reader of bodies, and the gate they share."""

    config: Config
    exchange: Exchange
    read: Callable[[Response, Flight], Page]
    gate: Gate


def read(engine: Engine, flight: Flight, response: Response) -> Outcome:
    """Make the outcome of a response: its page, or the failure to read one out of it."""
    try:
        return engine.read(response, flight)
    except FetchError as error:
        flight.attempts += 1
        return flight.fail(error)
