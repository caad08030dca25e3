"""A bench from end to end: real processes, the built-in site and its log, servers that change their mind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fetcher.bench.runner
from fetcher.bench import compare
from fetcher.bench.plan import WARM_UP_ROWS, Bench, PlannedRound, listing_of, planned_rounds, requests_by_host, site_of
from fetcher.bench.results import Report
from fetcher.bench.runner import ProgressUpdate, measure, run_round
from fetcher.bench.worker import RoundSpec, Row
from fetcher.config import Config
from fetcher.demo import Site
from fetcher.demo.scenarios import ROUND_HEADER, Scenario
from fetcher.errors import ConfigError, FetcherError, InvalidURL
from fetcher.model import Request
from fetcher.sources.rows import BadRow
from tests.lab.ports import refused_port


@contextmanager
def answering(body_of: Callable[[str, int], str]) -> Iterator[tuple[str, Counter[str]]]:
    """Serve what ``body_of`` returns for a path and for how many times it was asked before; gives origin and counts."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = body_of(self.path, asked[self.path]).encode()
            asked[self.path] += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Let the built-in site of a bench keep its log here, and read it: a dict for each request."""
    path = tmp_path / "site.log"

    def with_log(bench: Bench) -> Site:
        return msgspec.structs.replace(site_of(bench), log=str(path))

    monkeypatch.setattr(fetcher.bench.runner, "site_of", with_log)
    return lambda: [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def by_round(log: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in log:
        found[entry["headers"][ROUND_HEADER]].append(entry)
    return found


# The plan


def test_rounds_are_interleaved_after_a_warm_up_of_each_mode() -> None:
    planned = planned_rounds(Bench(concurrency=(50, 10, 50), rounds=2), 200)
    assert [(round_.mode[0], round_.concurrency, round_.index, round_.rows, round_.warm_up) for round_ in planned] == [
        ("c", 10, 0, 200, True), ("c", 50, 0, 200, True), ("s", 1, 0, WARM_UP_ROWS, True),
        ("s", 1, 1, 200, False), ("c", 10, 1, 200, False), ("c", 50, 1, 200, False),
        ("s", 1, 2, 200, False), ("c", 10, 2, 200, False), ("c", 50, 2, 200, False),
    ]  # fmt: skip
    assert planned_rounds(Bench(concurrency=(7,), rounds=1, sequential=False), 5) == [
        PlannedRound("concurrent", 7, 0, 5), PlannedRound("concurrent", 7, 1, 5),
    ]  # fmt: skip


def test_the_requests_each_host_will_get() -> None:
    hosts = ["a"] * 15 + ["b"] * 15
    planned = planned_rounds(Bench(concurrency=(2, 4), rounds=3), 30)
    # Two concurrent warm-ups, twenty rows of a sequential one, and three rounds of three modes.
    assert requests_by_host(planned, hosts) == {"a": 15 * 2 + 15 + 15 * 9, "b": 15 * 2 + 5 + 15 * 9}


@pytest.mark.parametrize("slots", [1, 100, 2_000])
def test_the_built_in_site_has_hosts_enough_for_the_concurrency(slots: int) -> None:
    site = site_of(Bench(concurrency=(slots,)))
    assert site.hosts * 6 >= 2 * slots
    assert site.hosts >= 50


def test_a_listing_is_the_first_rows_and_leaves_out_what_is_no_url() -> None:
    rows: list[str | Request | BadRow] = [
        "http://a.example/1", "", Request(70, "b.example/2", (("X-A", "1"),)), "ftp://a.example/",
        BadRow(Request(9, "?"), InvalidURL(message="urls.txt:9: is not UTF-8")), "http://a.example/3", "http://c.example/",
    ]  # fmt: skip
    listing = listing_of(rows, Bench(n=6), "urls.txt")
    assert listing.rows == [
        Row(1, "http://a.example/1"), Row(70, "b.example/2", (("X-A", "1"),)), Row(6, "http://a.example/3"),
    ]  # fmt: skip
    assert listing.hosts == ["a.example", "b.example", "a.example"]
    assert len(listing.left_out) == 3
    assert listing.left_out[-1] == "urls.txt:9: is not UTF-8"
    assert listing.more
    assert not listing_of(rows, Bench(n=7), "urls.txt").more


def test_a_list_that_never_ends_is_read_as_far_as_needed() -> None:
    endless = (f"http://a.example/{number}" for number in iter(int, 1))
    assert len(listing_of(endless, Bench(n=5), "x").rows) == 5


def test_a_listing_without_a_url_says_why() -> None:
    with pytest.raises(
        FetcherError, match=r"^urls\.txt: there is no URL to fetch: row 1: the scheme 'ftp' is not http"
    ):
        listing_of(["ftp://a.example/"], Bench(), "urls.txt")
    with pytest.raises(FetcherError, match=r"^urls\.txt: there is no URL to fetch$"):
        listing_of([], Bench(), "urls.txt")
    with pytest.raises(ConfigError, match="two rows have the id 1"):
        listing_of([Request(1, "http://a.example/"), Request(1, "http://b.example/")], Bench(), "urls.txt")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"concurrency": ()}, "concurrency: there is none"),
        ({"concurrency": (10, 0)}, "concurrency 0: must be at least 1"),
        ({"n": 0}, "n 0: must be at least 1"),
        ({"rounds": 0}, "rounds 0: must be at least 1"),
        ({"rounds": True}, "rounds true: must be a whole number"),
        ({"latency": (0.2, 0.1)}, "latency: 0.2 to 0.1 s is no range"),
        ({"scenario": "nice"}, "scenario nice: must be one of latency, fast"),
    ],
)
def test_a_setting_of_no_use_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        compare(**settings)


# A round


async def test_a_round_takes_its_config_headers_and_all() -> None:
    with answering(lambda path, _: f"<title>{path}</title>") as (origin, asked):
        config = Config.of(
            concurrency=2, robots=False, header=["X-Team: one", "@127.0.0.1:1 Authorization: Basic eDp5"]
        )
        done: list[int] = []
        result = await run_round(RoundSpec(config, False, [Row(4, f"{origin}/4"), Row(9, f"{origin}/9")]), done.append)
        assert asked == {"/4": 1, "/9": 1}
    assert [(sample.id, sample.host, sample.status, sample.length, sample.code) for sample in result.samples] == [
        (4, "127.0.0.1", 200, 17, None), (9, "127.0.0.1", 200, 17, None),
    ]  # fmt: skip
    for sample in result.samples:
        assert 0 <= sample.start < sample.end <= result.wall
        assert 0 < sample.latency <= sample.end - sample.start
    assert 0 < result.cpu
    assert result.peak_memory is None or 10e6 < result.peak_memory < 1e9


async def test_the_memory_of_a_round_is_its_own_and_not_its_owners() -> None:
    ballast = bytearray(os.urandom(1)) * 400_000_000
    with answering(lambda path, _: path) as (origin, _):
        result = await run_round(RoundSpec(Config(), True, [Row(1, f"{origin}/")]), lambda _: None)
    assert len(ballast) == 400_000_000
    assert result.peak_memory is None or result.peak_memory < 200_000_000


async def test_what_a_round_finds_wrong_is_raised_here(tmp_path: Path) -> None:
    bundle = tmp_path / "none.pem"
    with pytest.raises(ConfigError, match=r"none\.pem"):
        await run_round(
            RoundSpec(Config.of(ca_bundle=str(bundle)), True, [Row(1, "http://127.0.0.1:9/")]), lambda _: None
        )


async def test_a_round_that_dies_is_told_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher.bench.runner, "command", lambda _: ["python3", "-c", "import sys; sys.exit('no more')"])
    with pytest.raises(FetcherError, match=r"^a round ended by itself \(exit 1\): no more$"):
        await run_round(RoundSpec(Config(), True, [Row(1, "http://127.0.0.1:9/")]), lambda _: None)


# A bench


def test_the_built_in_site_from_end_to_end(logged: Callable[[], list[dict[str, Any]]]) -> None:
    updates: list[ProgressUpdate] = []
    report = compare(n=60, rounds=2, concurrency=[4, 30], latency=(0.02, 0.04), progress=updates.append)
    assert (report.rows, report.per_host, report.complete) == (60, 6, True)
    assert report.source == "the built-in site (latency, 20-40 ms, seed 1)"
    assert report.mismatches == []
    assert [(mode.mode, mode.concurrency, mode.rounds) for mode in report.modes] == [
        ("sequential", 1, 2), ("concurrent", 4, 2), ("concurrent", 30, 2),
    ]  # fmt: skip
    assert [round_.warm_up for round_ in report.rounds] == [True] * 3 + [False] * 6
    for mode in report.modes:
        assert mode.failures == {}
        assert 0 < mode.efficiency <= 1
        assert mode.cpu_ms_per_page > 0
    # A slot is a slot: the site's own log never shows one more, and shows them all in use.
    rounds = by_round(logged())
    for number, round_ in enumerate(report.rounds):
        seen = max(entry["in_flight"] for entry in rounds[str(number)])
        assert seen == round_.most_in_flight
        assert seen <= round_.concurrency
        assert sorted(sample.id for sample in round_.samples) == list(range(1, len(round_.samples) + 1))
    assert [mode.most_in_flight for mode in report.modes] == [1, 4, 30]
    assert report.recommended == 30
    # Twenty-five times is what thirty slots should bring; a fifth of it on a machine that is busy.
    assert report.modes[2].speed_up is not None
    assert report.modes[2].speed_up.median > 5
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    complete = [update for update in updates if update.round is not None]
    assert [update.number for update in complete] == list(range(1, 10))
    assert {update.of for update in updates} == {9}


def test_the_sequential_wall_is_the_sum_of_what_the_site_took(logged: Callable[[], list[dict[str, Any]]]) -> None:
    report = compare(n=12, rounds=1, concurrency=[1], latency=(0.05, 0.15))
    rounds = by_round(logged())
    for number, round_ in enumerate(report.rounds):
        served = sum(entry["service"] for entry in rounds[str(number)])
        assert served <= round_.wall < 5 * served  # 1.06 on a quiet machine: tests/benchmarks/speedup.py
        latencies = sum(sample.latency for sample in round_.samples)
        assert served <= latencies <= round_.wall
    one, other = (mode.wall.median for mode in report.modes)
    assert 0.2 < other / one < 5  # 1.05 on a quiet one


@pytest.mark.parametrize("scenario", ["errors", "throttled"])
def test_trouble_costs_no_page_in_any_mode(scenario: Scenario, logged: Callable[[], list[dict[str, Any]]]) -> None:
    report = compare(n=40, rounds=1, concurrency=[10], scenario=scenario, latency=(0.01, 0.02))
    assert report.complete
    assert report.mismatches == []
    for round_ in report.rounds:
        assert {sample.code for sample in round_.samples} == {None}
    rounds = by_round(logged())
    refused = {number: [(e["host"], e["path"]) for e in log if e["status"] != 200] for number, log in rounds.items()}
    assert all(refused.values())
    if scenario == "errors":  # each mode meets the same site
        first = sorted(refused["0"])
        assert sorted(refused["2"]) == sorted(refused["3"]) == first
    else:
        for log in rounds.values():
            _assert_patient(log)


def _assert_patient(log: list[dict[str, Any]]) -> None:
    """No row comes again before its Retry-After is over; what was not on its way yet leaves the host alone."""
    for answer in log:
        if answer["status"] != 429:
            continue
        early = [
            entry["start"] - answer["end"]
            for entry in log
            if entry["host"] == answer["host"] and answer["end"] < entry["start"] < answer["end"] + 1.0
        ]
        assert all(late < 0.5 for late in early), early  # sent before the refusal had been read
        again = [e["start"] for e in log if (e["host"], e["path"]) == (answer["host"], answer["path"])]
        assert not any(answer["end"] < start < answer["end"] + 1.0 for start in again)


def test_a_site_that_answers_another_mode_differently_is_named() -> None:
    # Asked for in both warm-ups and by the baseline; the fourth to come is the other mode.
    with answering(lambda path, before: "<p>long" * (5 if (path, before) == ("/2", 3) else 1)) as (origin, asked):
        config = Config.of(robots=False)
        report = compare([f"{origin}/{number}" for number in (1, 2, 3)], rounds=1, concurrency=[3], config=config)
        assert asked == {"/1": 4, "/2": 4, "/3": 4}
    (found,) = report.mismatches
    assert (found.id, found.url) == (2, f"{origin}/2")
    assert (found.expected, found.got) == ("7 characters", "35 characters")
    assert (found.mode, found.concurrency) == ("concurrent", 3)


def test_a_list_keeps_to_robots_txt_which_is_no_page() -> None:
    def body_of(path: str, _: int) -> str:
        if path != "/robots.txt":
            return path
        time.sleep(0.5)
        return "User-agent: *\nDisallow: /2\n"

    with answering(body_of) as (origin, asked):
        report = compare([f"{origin}/{number}" for number in (1, 2, 3)], rounds=1, concurrency=[3])
        assert asked == {"/robots.txt": 4, "/1": 4, "/3": 4}  # each round is a run of its own
    for round_ in report.rounds:
        assert [sample.code for sample in round_.samples] == [None, "robots_denied", None]
        assert sum(sample.latency for sample in round_.samples) < 0.5 < round_.wall
    assert all(mode.least < 0.5 for mode in report.modes)


def test_the_built_in_site_is_never_asked_for_robots_txt() -> None:
    bench = Bench(config=Config.of(robots=True))
    assert not bench.config_of(5, built_in=True).robots
    assert bench.config_of(5, built_in=False).robots


def test_a_list_that_fails_wholly_ends_after_its_first_round() -> None:
    with refused_port() as port:
        urls = [f"http://127.0.0.1:{port}/{number}" for number in range(3)]
        report = compare(urls, concurrency=[2], config=Config.of(retries=0, robots=False))
    assert (report.complete, report.modes, report.recommended) == (False, [], None)
    assert [sample.code for sample in report.rounds[0].samples] == ["connect_refused"] * 3
    assert len(report.rounds) == 1


async def test_stopping_reports_what_is_complete() -> None:
    stop = asyncio.Event()

    def progress(update: ProgressUpdate) -> None:
        if update.number == 5 and update.done == 0:
            stop.set()

    bench = Bench(n=10, rounds=50, concurrency=(2, 5), latency=(0, 0))
    report = await asyncio.wait_for(measure(bench, progress=progress, stop=stop), 60)
    assert not report.complete
    assert [(round_.mode, round_.index) for round_ in report.rounds] == [
        ("concurrent", 0), ("concurrent", 0), ("sequential", 0), ("sequential", 1),
    ]  # fmt: skip
    assert [(mode.mode, mode.rounds) for mode in report.modes] == [("sequential", 1)]


async def test_stopped_at_once_it_is_empty() -> None:
    stop = asyncio.Event()
    stop.set()
    with answering(lambda path, _: path) as (origin, _):
        bench = Bench(n=1)
        report = await measure(bench, listing_of([f"{origin}/"], bench, "x"), stop=stop)
    assert (report.complete, report.rounds, report.modes, report.warnings) == (False, [], [], [])


async def test_cancelling_ends_the_round_under_way() -> None:
    begun = asyncio.Event()
    with answering(lambda path, _: path) as (origin, _):
        bench = Bench(n=1, rounds=1_000)
        listing = listing_of([f"{origin}/"], bench, "x")
        running = asyncio.create_task(
            measure(bench, listing, progress=lambda update: begun.set() if update.number == 2 else None)
        )
        await asyncio.wait_for(begun.wait(), 60)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


def test_ctrl_c_gives_what_is_complete() -> None:
    def progress(update: ProgressUpdate) -> None:
        if update.number == 4 and update.done == 0:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = compare(n=5, rounds=50, concurrency=[2], latency=(0, 0), progress=progress)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert not report.complete
    assert len(report.rounds) == 3


def test_a_long_baseline_is_announced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(fetcher.bench.runner, "LONG_BASELINE_SECONDS", 0.01)
    compare(n=10, rounds=1, concurrency=[5], latency=(0.01, 0.02))
    (said,) = [record.getMessage() for record in caplog.records if record.name == "fetcher.bench"]
    assert said.startswith("the sequential baseline will take about ")
    assert said.endswith("-n 1 brings it to about two minutes, --no-sequential leaves it out")


async def test_a_running_loop_is_told_what_to_use() -> None:
    with pytest.raises(RuntimeError, match="measure"):
        compare()
