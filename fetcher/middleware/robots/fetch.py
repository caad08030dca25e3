"""How a robots.txt is fetched: retry ▶ accept ▶ redirects ▶ pacing ▶ transport, as any URL is, and guarded like the row.

Law 7: what fetches it is bound as the row is that asked for it. A row that came by a redirect from a public host
must not make us ask a private address for its robots.txt, which the row itself could not reach; and since a hop may
lead to any origin, no secret goes along, not even one that is meant for that host.
"""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec

from fetcher.config import Accept, Config, Identity
from fetcher.middleware.accept import accept
from fetcher.middleware.gate import Gate
from fetcher.middleware.headers import may_follow
from fetcher.middleware.redirects import Redirects
from fetcher.middleware.retry import Retry
from fetcher.middleware.robots.parse import MAX_ROBOTS_BYTES
from fetcher.model import Exchange, Middleware, Request, Response, compose
from fetcher.request_state import RequestState, SchemeTrial, current, is_guarded
from fetcher.urls import Target, parse

__all__ = ["PATH", "RobotsFetch", "robots_exchange", "trial_of"]

PATH = "/robots.txt"
MAX_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2
FINAL_STATUSES = Accept(((200, 428), (430, 499)))  # neither a reason to ask again nor to stay away


def trial_of(asker: RequestState | None, target: Target) -> SchemeTrial | None:
    """Return the trial of the row's scheme that a robots.txt of ``target`` is the first exchange of."""
    trial = asker.trial if asker is not None else None
    return trial if trial is not None and not trial.spoken and trial.origin == target.origin else None


class RobotsFetch(RequestState):
    """The state of one robots.txt, for the row ``asker``; a wait of its own ends it, and it goes on afterwards."""

    __slots__ = ("hops_before", "reached_before")

    def __init__(self, target: Target, asker: RequestState | None, *, attempts: int = 0) -> None:
        url = f"{target.wire[: target.wire.index('/', 8)]}{PATH}"
        super().__init__(Request(0, url, guarded=is_guarded(asker)), parse(url), attempts=attempts)
        self.can_requeue = True
        self.hops_before = asker.redirects if asker is not None else ()
        self.reached_before = asker.reached if asker is not None else None

    @property
    def guarded(self) -> bool:
        """Whether it asks for a row that is."""
        return self.request.guarded


async def _as_the_row(request: Request, proceed: Exchange) -> Response:
    """Let the first exchange count as the hop of the row that it is; those behind it are hops by themselves."""
    state = current.get()
    if state.redirects or not isinstance(state, RobotsFetch) or not state.hops_before:
        return await proceed(request)
    state.follow(state.target, redirects=state.hops_before)
    state.reach(state.reached_before)
    try:
        return await proceed(request)
    finally:
        state.follow(state.target, redirects=())


def _first_bytes(request: Request, proceed: Exchange) -> Awaitable[Response]:
    """Want no more of the file than counts."""
    transfer = current.get().transfer
    if transfer is not None:
        transfer.max_bytes = MAX_ROBOTS_BYTES
    return proceed(request)


def _config_of(config: Config) -> Config:
    """Return what redirects of a robots.txt go by: five hops, and no secret."""
    limits = msgspec.structs.replace(config.limits, max_redirects=MAX_ROBOTS_REDIRECTS)
    told = tuple(header for header in config.identity.headers if may_follow(header.name))
    identity = Identity(config.identity.user_agent, told)
    return msgspec.structs.replace(config, limits=limits, accept=Accept(), identity=identity)


def robots_exchange(config: Config, gate: Gate, transport: Exchange) -> Exchange:
    """Build what fetches robots.txt; ``config`` is the run's own.

    The current state must be an ``RobotsFetch``, and whoever calls must be ready for ``Requeue``.
    """
    handlers: list[Middleware] = [
        Retry(config.retry, gate),
        accept(FINAL_STATUSES),
        Redirects(_config_of(config)),
        _as_the_row,
        gate,
        _first_bytes,
    ]
    return compose(handlers, transport)
