"""Runs a bench: each round in a process of its own, one after another, and one report of them all.

Laws: nothing else of ours works while a round runs. A bench that is stopped reports the rounds that are complete. The
process of a round ends with whoever waits for it, through its own handle; what it prints on standard error is quoted in
an error, and never shown directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from fetcher.bench.conclusions import warnings_of
from fetcher.bench.plan import Bench, Listing, PlannedRound, listing_of, planned_rounds, site_of
from fetcher.bench.results import Report, Round, all_failed, mismatches, recommended, summarise, this_machine
from fetcher.bench.worker import Message, RoundProgress, RoundResult, RoundSpec, Row
from fetcher.config import Config
from fetcher.demo import SiteProcess
from fetcher.demo.scenarios import ROUND_HEADER, Scenario
from fetcher.drawing.formatting import duration, plain
from fetcher.errors import ConfigError, FetcherError
from fetcher.model import Request
from fetcher.spawn import command, environment
from fetcher.urls import without_userinfo

__all__ = ["ProgressUpdate", "compare", "handle_signals", "measure", "run_round"]

log = logging.getLogger("fetcher.bench")

LONG_BASELINE_SECONDS = 120.0
"""A baseline that takes longer is announced."""
STOP_TIMEOUT_SECONDS = 5.0
MAX_LINE_BYTES = 1 << 30
"""The longest line of a round's process: the samples of some five million rows."""
MAX_QUOTED_BYTES = 100_000


class ProgressUpdate(msgspec.Struct, frozen=True):
    """How far a bench is: ``done`` rows of the ``number``-th of ``of`` rounds, and the round once it is complete."""

    planned: PlannedRound
    number: int
    of: int
    done: int
    round: Round | None = None


Tell = Callable[[ProgressUpdate], None]


def compare(
    urls: Iterable[str | Request] | None = None,
    *,
    concurrency: Sequence[int] = (10, 50, 100),
    n: int = 200,
    rounds: int = 3,
    sequential: bool = True,
    latency: tuple[float, float] = (0.02, 0.06),
    seed: int = 1,
    scenario: Scenario = "latency",
    config: Config | None = None,
    progress: Tell | None = None,
) -> Report:
    """Fetch a list one after another and concurrently, blocking, and report what each took.

    Without ``urls`` it is the built-in site, whose pages take ``latency`` seconds. The other parameters are those of
    ``plan.Bench``. ``progress`` gets a ``ProgressUpdate`` about ten times a second. Ctrl-C ends it early: ``complete``
    is then false in the report, as it is when the first round of a list brought no page. Raises ``FetcherError``, and
    ``ConfigError`` for a wrong parameter.

    >>> compare(concurrency=[20], n=100).modes[-1].speed_up.median  # doctest: +SKIP
    18.7
    """
    bench = Bench(
        concurrency=tuple(concurrency),
        n=n,
        rounds=rounds,
        sequential=sequential,
        latency=latency,
        seed=seed,
        scenario=scenario,
        config=config or Config(),
    )
    listing = None if urls is None else listing_of(urls, bench, "the list")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_measure_until_ctrl_c(bench, listing, progress))
    raise RuntimeError("a loop is running here: use 'await fetcher.bench.runner.measure(…)'")


async def _measure_until_ctrl_c(bench: Bench, listing: Listing | None, progress: Tell | None) -> Report:
    stop = asyncio.Event()
    with handle_signals(lambda _: stop.set(), signal.SIGINT):
        return await measure(bench, listing, progress=progress, stop=stop)


async def measure(
    bench: Bench,
    listing: Listing | None = None,
    *,
    progress: Tell | None = None,
    say: Callable[[str], None] = log.warning,
    stop: asyncio.Event | None = None,
    words: Sequence[str] = (),
) -> Report:
    """Run a bench over a listing, or over the built-in site. Setting ``stop`` ends it with what is complete.

    ``say`` gets a notice beforehand where it will take long; ``words`` are the command, for the report. Raises what
    ``compare`` does.
    """
    async with _subject(bench, listing) as (subject, site):
        run = _Running(bench, subject, site, progress or (lambda _: None), say)
        await run.go(stop or asyncio.Event())
        return run.report(words)


@contextlib.asynccontextmanager
async def _subject(bench: Bench, listing: Listing | None) -> AsyncIterator[tuple[Listing, SiteProcess | None]]:
    """Give the list to fetch; the built-in site runs as long as the block."""
    if listing is not None:
        yield listing, None
        return
    async with SiteProcess(site_of(bench)) as site:
        low, high = (round(seconds * 1000, 3) for seconds in bench.latency)
        words = bench.scenario if bench.scenario == "fast" else f"{bench.scenario}, {low:g}-{high:g} ms"
        yield listing_of(site.urls(bench.n), bench, f"the built-in site ({words}, seed {bench.seed})"), site


class _Running:
    """A bench while it runs: the rounds so far."""

    def __init__(
        self,
        bench: Bench,
        listing: Listing,
        site: SiteProcess | None,
        tell: Tell,
        say: Callable[[str], None],
    ) -> None:
        self._bench = bench
        self._listing = listing
        self._site = site
        self._tell = tell
        self._say = say
        self._planned = planned_rounds(bench, len(listing.rows))
        self._rounds: list[Round] = []
        self._loop = ""

    async def go(self, stop: asyncio.Event) -> None:
        """Run one round after another, until all are done, ``stop`` is set, or the first one brought no page."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            for number, planned in enumerate(self._planned):
                if planned.mode == "sequential" and planned.warm_up:
                    self._announce_baseline()
                round_ = await _unless(stopping, self._round(number, planned))
                if round_ is None:
                    return
                self._rounds.append(round_)
                if all_failed(self._rounds):
                    return
        finally:
            stopping.cancel()

    def report(self, words: Sequence[str]) -> Report:
        """Return the report of the rounds that are complete."""
        rounds, limits = self._seen_by_site(), self._bench.config.limits
        modes = summarise(rounds, limits.per_host)
        return Report(
            command=list(words),
            source=self._listing.source,
            rows=len(self._listing.rows),
            hosts=len(set(self._listing.hosts)),
            per_host=limits.per_host,
            machine=this_machine(self._loop),
            modes=modes,
            rounds=rounds,
            recommended=recommended(modes),
            warnings=warnings_of(rounds, limits, self._listing),
            mismatches=mismatches(rounds, {row.id: without_userinfo(row.url) for row in self._listing.rows}),
            complete=len(rounds) == len(self._planned),
        )

    async def _round(self, number: int, planned: PlannedRound) -> Round:
        update = ProgressUpdate(planned, number + 1, len(self._planned), 0)
        self._tell(update)
        label = ((ROUND_HEADER, str(number)),) if self._site is not None else ()
        rows = [Row(row.id, row.url, (*row.headers, *label)) for row in self._listing.rows[: planned.rows]]
        config = self._bench.config_of(planned.concurrency, built_in=self._site is not None)
        spec = RoundSpec(config, planned.mode == "sequential", rows)
        result = await run_round(spec, lambda done: self._tell(msgspec.structs.replace(update, done=done)))
        self._loop = result.loop
        round_ = Round(
            mode=planned.mode,
            concurrency=planned.concurrency,
            index=planned.index,
            warm_up=planned.warm_up,
            wall=result.wall,
            cpu=result.cpu,
            peak_memory=result.peak_memory,
            most_in_flight=None,
            samples=result.samples,
        )
        self._tell(msgspec.structs.replace(update, done=planned.rows, round=round_))
        return round_

    def _announce_baseline(self) -> None:
        """Say how long the baseline will take where that is long, estimated by the latencies of the first warm-up."""
        latencies = [sample.latency for sample in self._rounds[0].samples]
        once = sum(latencies)
        seconds = once / len(latencies) * sum(planned.rows for planned in self._planned if planned.mode == "sequential")
        if seconds > LONG_BASELINE_SECONDS:
            n = max(1, int(len(latencies) * LONG_BASELINE_SECONDS / seconds))
            text = f"the sequential baseline will take about {duration(seconds)}, {duration(once)} a round"
            hint = f"-n {n} brings it to about two minutes, --no-sequential leaves it out"
            self._say(plain(f"{text}; {hint}"))

    def _seen_by_site(self) -> list[Round]:
        """Return the rounds with what the built-in site saw of them, according to its log."""
        if self._site is None:
            return self._rounds
        most = _most_in_flight(Path(str(self._site.site.log)))
        return [
            msgspec.structs.replace(round_, most_in_flight=most.get(str(number)))
            for number, round_ in enumerate(self._rounds)
        ]


class _LoggedRequest(msgspec.Struct):
    """What is read of a line of the site's log."""

    in_flight: int
    headers: dict[str, str]


def _most_in_flight(path: Path) -> dict[str, int]:
    """Return for each round the most requests that were in flight at the site at once."""
    most: dict[str, int] = {}
    decoder = msgspec.json.Decoder(_LoggedRequest)
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):  # the last one may still be being written
                logged = decoder.decode(line)
                label = logged.headers.get(ROUND_HEADER, "")
                most[label] = max(most.get(label, 0), logged.in_flight)
    return most


async def _unless(stopping: asyncio.Future[Any], work: Coroutine[Any, Any, Round]) -> Round | None:
    """Run a round, or end it when ``stopping`` comes first: ``None`` then."""
    running = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait([running])
    if running.cancelled() or (stopping.done() and running.exception() is not None):
        return None  # the same Ctrl-C may have reached its process before that ignored it
    return running.result()


@contextlib.contextmanager
def handle_signals(act: Callable[[int], None], *numbers: signal.Signals) -> Iterator[None]:
    """Call ``act`` on these signals instead of their usual effect, where a loop can handle them: in the main thread.

    A signal that is ignored stays ignored, as nohup and a shell's background jobs need it.
    """
    loop = asyncio.get_running_loop()
    handled = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C stays KeyboardInterrupt
                        loop.add_signal_handler(number, act, number)
                        handled.append(number)
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


# One round in its process


async def run_round(spec: RoundSpec, tell: Callable[[int], None]) -> RoundResult:
    """Run a round in a process of its own and return its result; ``tell`` gets the number of rows done.

    Cancelling ends the process. Raises ``ConfigError`` and ``FetcherError`` as the process did, and ``FetcherError``,
    which quotes it, when it ended without a result.
    """
    with tempfile.TemporaryFile() as stderr:
        process = await asyncio.create_subprocess_exec(
            *command("fetcher.bench.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=environment(),
            limit=MAX_LINE_BYTES,
        )
        try:
            result = await _listen(process, spec, tell)
            code = await process.wait()
        finally:
            await _end(process)
        if result is None:
            raise FetcherError(f"a round ended by itself (exit {code}){_quoted(stderr)}")
        return result


async def _listen(
    process: asyncio.subprocess.Process, spec: RoundSpec, tell: Callable[[int], None]
) -> RoundResult | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended: what it has written is read below
        process.stdin.write(msgspec.json.encode(spec) + b"\n")
        await process.stdin.drain()
    async for line in process.stdout:
        if not line.endswith(b"\n"):
            break  # it died while it wrote
        message = msgspec.json.decode(line, type=Message)
        if isinstance(message, RoundProgress):
            tell(message.rows)
        elif isinstance(message, RoundResult):
            return message
        else:
            raise (ConfigError if message.usage else FetcherError)(message.text)
    return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait for the process to end: it ends with its input, and is killed where it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _quoted(stderr: IO[bytes]) -> str:
    stderr.seek(0)
    said = stderr.read(MAX_QUOTED_BYTES).decode(errors="replace").strip()
    return f": {said}" if said else ""
