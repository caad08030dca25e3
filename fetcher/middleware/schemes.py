"""By which scheme a row is asked that names none: by https, and by http where its host does not speak that.

A host and port is asked once, by the first exchange that comes (its robots.txt, or the page), and what was found is
remembered. Neither try is an attempt, and neither is charged to the host: a port that refuses https says nothing of the
one for http. Where both fail the row goes on as though it named https, with all its attempts, and ends with that error.
Law 3: what is remembered is bounded. Law 4: who waits for another row's try waits for a future and holds no slot.
Law 7: a row that carries a secret for its host is never asked by http.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Literal, TypeAlias

import msgspec

from fetcher.errors import ConnectError, FetchError, FetchTimeout, TLSError
from fetcher.middleware.gate import Gate
from fetcher.middleware.redirects import Secrets
from fetcher.model import Exchange, Request, Response, Stage
from fetcher.request_state import RequestState, SchemeTrial, current
from fetcher.urls import Target, lacks_scheme, parse

__all__ = ["Schemes", "may_do_without_tls"]

TRIAL_SECONDS = 3.0  # for the connection by https, TLS in it; a shorter connect-timeout holds
REMEMBERED = 65_536  # hosts and ports; one that is forgotten is asked again
DEAD_SECONDS = 60.0  # until a host is tried again that spoke neither

Key: TypeAlias = tuple[str, int, int]
"""A host key, and the ports for https and for http: those of ``example.com`` and ``example.com:443`` are not the same."""


class Finding(msgspec.Struct, frozen=True):
    """What was found of a host and port, which holds until ``until`` (monotonic seconds).

    Without a ``scheme`` the try by https failed and that by http is still to be made; ``slow`` says that it timed out.
    """

    scheme: Literal["https", "http"] | None
    until: float = float("inf")
    slow: bool = False


class _Row(msgspec.Struct, frozen=True):
    """What is asked for one row: its two URLs, and how."""

    request: Request
    proceed: Exchange
    state: RequestState
    secure: Target
    plain: Target

    @property
    def key(self) -> Key:
        return self.secure.host, self.secure.port, self.plain.port

    async def by_http(self) -> Response:
        """Ask by http; what comes back is the row's, as it was listed."""
        return await _by_http(self.request, self.proceed, self.state)


class Schemes:
    """The handler, outside of redirects, shared by all runs of a ``Fetcher``. ``secrets`` knows what a row carries."""

    def __init__(self, gate: Gate, secrets: Secrets) -> None:
        self._gate = gate
        self._secrets = secrets
        self._findings: dict[Key, Finding] = {}
        self._asking: dict[Key, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._findings)

    def __call__(self, request: Request, proceed: Exchange) -> Awaitable[Response]:
        """Ask a row that names its scheme as it is, and another by the scheme that its host speaks."""
        if request.url.startswith(("https://", "http://")):
            return proceed(request)  # without a coroutine of its own
        return self._decide(request, proceed)

    async def _decide(self, request: Request, proceed: Exchange) -> Response:
        if not lacks_scheme(request.url):
            return await proceed(request)
        state = current.get()
        secure = state.first if request.url == state.request.url else parse(request.url)
        if state.chain is not None and request.url == state.request.url:
            # It goes on with a chain, perhaps one of another process: what its host speaks has been found out.
            return await (_by_http(request, proceed, state) if state.by_http else proceed(request))
        state.by_http = False
        if self._secrets.bound_to(request, secure):
            return await proceed(request)
        row = _Row(request, proceed, state, secure, parse(request.url, "http"))
        while True:
            finding = self._find(row.key)
            if finding is not None and finding.scheme is not None:
                return await (proceed(request) if finding.scheme == "https" else row.by_http())
            asking = self._asking.get(row.key)
            if asking is None:
                return await self._try(row, finding)
            state.enter(Stage.PACING)
            self._gate.withdraw(state)  # its place is the other row's now
            await asyncio.wait([asking])  # a row that is cancelled takes nobody's answer away

    async def _try(self, row: _Row, finding: Finding | None) -> Response:
        """Ask by https unless that was done, then by http; and then as though the row named https."""
        asking = self._asking[row.key] = asyncio.get_running_loop().create_future()
        state = row.state
        try:
            if finding is None:
                state.trial = trial = SchemeTrial(
                    row.secure.origin, partial(self._found, row.key, "https"), patience=TRIAL_SECONDS
                )
                try:
                    return await row.proceed(row.request)
                except FetchError as error:
                    if not _is_unspoken(trial, state, error):
                        raise
                    slow = isinstance(error, FetchTimeout)
                    error.detach()
                self._keep(row.key, Finding(None, slow=slow))
            else:
                slow = finding.slow
            state.trial = trial = SchemeTrial(row.plain.origin, partial(self._found, row.key, "http"), slow=slow)
            try:
                return await row.by_http()
            except FetchError as error:
                if not _is_unspoken(trial, state, error):
                    raise
                error.detach()
                self._found_neither(row.key)
        finally:
            state.trial = None
            if self._asking.get(row.key) is asking:
                del self._asking[row.key]
            if not asking.done():
                asking.set_result(None)
        state.by_http = False
        return await row.proceed(row.request)

    # What was found

    def _find(self, key: Key) -> Finding | None:
        finding = self._findings.get(key)
        return finding if finding is None or finding.until > self._gate.clock() else None

    def _found(self, key: Key, scheme: Literal["https", "http"]) -> None:
        """Remember what a host speaks, and tell the rows that wait for it."""
        self._keep(key, Finding(scheme))
        asking = self._asking.pop(key, None)
        if asking is not None and not asking.done():
            asking.set_result(None)

    def _found_neither(self, key: Key) -> None:
        """Go by https for a while. Where our own network may be away nothing was found."""
        now = self._gate.clock()
        network = self._gate.scheduler.network
        if network.away(now) or network.doubtful(now):
            self._findings.pop(key, None)
        else:
            self._keep(key, Finding("https", now + DEAD_SECONDS))

    def _keep(self, key: Key, finding: Finding) -> None:
        """Remember, and forget what was found first where that is too much."""
        findings = self._findings
        findings.pop(key, None)
        findings[key] = finding
        if len(findings) > REMEMBERED:
            del findings[next(iter(findings))]


async def _by_http(request: Request, proceed: Exchange, state: RequestState) -> Response:
    state.by_http = True
    response = await proceed(msgspec.structs.replace(request, url=parse(request.url, "http").wire))
    return msgspec.structs.replace(response, request=request)


def may_do_without_tls(error: FetchError) -> bool:
    """Whether an error of a host asked by https may mean that it speaks http alone.

    A certificate that does not hold is an answer, and a name that does not resolve does so for no scheme.
    """
    return isinstance(error, ConnectError | TLSError) and error.code != "tls_verify"


def _is_unspoken(trial: SchemeTrial, state: RequestState, error: FetchError) -> bool:
    """Whether a row failed for want of its scheme: by its own exchange, or by what is known of its robots.txt."""
    if trial.error is not None:
        return True
    known = error.final and not trial.spoken and not state.redirects
    return known and may_do_without_tls(error)
