"""How a crawl ends before its list does: signals, a time limit, a reader that leaves. The server sets the pace."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.command import Ended, Running, argv, environment, run
from tests.lab.desk import Desk
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer
from tests.lab.striker import striking

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

HELD = 3
STOPPING = "fetcher: stopping: what is in flight has 5 s to finish (once more ends it now)"


class Site:
    """A lab with a page that waits behind a gate, and the list that leads there."""

    def __init__(self, lab: LabServer, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.gate = HeldCase()
        lab.clear()
        lab.add("/held", self.gate)

    def list(self, rows: int, path: str = "/held") -> list[str]:
        urls = [self.lab.url(f"{path}?n={n}", n % HELD + 1) for n in range(rows)]
        (self.folder / "l.txt").write_text("".join(f"{url}\n" for url in urls))
        return urls

    def start(self, *arguments: str, **more: object) -> Running:
        return Running("crawl", *arguments, folder=self.folder, **more)  # type: ignore[arg-type]  # passed on

    def until_held(self, requests: int = HELD) -> None:
        """Wait until that many requests stand before the gate."""
        assert self.lab.site.stats.wait(lambda: len(self.lab.requests("/held")) >= requests, 60)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def site(lab: LabServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(lab, tmp_path)
    yield made
    made.gate.open()


def balanced(folder: Path) -> dict[str, object]:
    stats: dict[str, object] = json.loads((folder / "s.json").read_text())
    assert stats["input"] == sum(int(str(stats[key])) for key in ("ok", "failed", "skipped", "pending"))
    return stats


def urls_of(ended: Ended) -> list[str]:
    return [line.split(" -> ")[0] for line in ended.lines]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_what_is_in_flight_finish(site: Site, number: int, code: int) -> None:
    urls = site.list(20)
    with site.start("l.txt", "-c", str(HELD), "--summary", "s.json", anew=True) as crawl:
        site.until_held()
        crawl.send(number)
        crawl.until_said(STOPPING)
        site.gate.open()
        ended = crawl.end()
    assert ended.code == code
    assert sorted(urls_of(ended)) == sorted(urls[:HELD])
    assert len(site.lab.log) == HELD, "something new was asked for"
    stats = balanced(site.folder)
    assert (stats["ok"], stats["exit"]) == (HELD, code)
    assert stats["pending"] or stats["more"]
    command = shlex.join(argv("crawl", "l.txt", "-c", str(HELD), "--summary", "s.json"))
    assert ended.said.splitlines()[-1] == f"fetcher: not all was fetched; to begin again: {command}"


@pytest.mark.parametrize(
    ("flags", "verb", "again"),
    [
        ([], "continue", []),
        (["--fresh"], "continue", []),
        (["--no-job"], "begin again", ["--fresh"]),
        (["--no-job", "--fresh"], "begin again", []),
    ],
    ids=str,
)
def test_the_last_line_completes_the_list(site: Site, flags: list[str], verb: str, again: list[str]) -> None:
    """A job goes on with what is missing; without one it is begun again."""
    urls = site.list(8)
    if "--fresh" in flags:
        (site.folder / "pages.jsonl").write_bytes(b"old\n")
    with site.start("l.txt", "-c", str(HELD), "-o", "pages.jsonl", *flags) as crawl:
        site.until_held()
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        site.gate.open()
        ended = crawl.end()
    assert (ended.code, ended.out) == (130, b"")
    pages = site.folder / "pages.jsonl"
    assert sorted(json.loads(line)["url"] for line in pages.read_bytes().splitlines()) == sorted(urls[:HELD])
    last = ended.said.splitlines()[-1]
    assert last.startswith(f"fetcher: not all was fetched; to {verb}: ")
    command = last.partition(": ")[2].partition(": ")[2]
    kept = [flag for flag in flags if flag == "--no-job" or verb == "begin again"]
    assert shlex.split(command) == argv("crawl", *again, "l.txt", "-c", str(HELD), "-o", "pages.jsonl", *kept)
    done = subprocess.run(
        ["sh", "-c", command], cwd=site.folder, env=environment(site.folder), capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert sorted(json.loads(line)["url"] for line in pages.read_bytes().splitlines()) == sorted(urls)
    twice = HELD if verb == "begin again" else 0
    assert len(site.lab.log) == len(urls) + twice, "what was done was fetched again"


def test_a_variable_that_says_fresh_is_taken_back(site: Site) -> None:
    site.list(8)
    env = {"FETCHER_FRESH": "1"}
    with site.start("l.txt", "-c", str(HELD), "-o", "pages.jsonl", env=env) as crawl:
        site.until_held()
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        site.gate.open()
        ended = crawl.end()
    command = ended.said.splitlines()[-1].partition("to continue: ")[2]
    assert "--no-fresh" in shlex.split(command)
    env = environment(site.folder, **env)
    assert (
        subprocess.run(["sh", "-c", command], cwd=site.folder, env=env, capture_output=True, timeout=60).returncode == 0
    )
    assert len(site.lab.log) == 8


def test_no_secret_is_repeated_and_no_control_character(site: Site) -> None:
    site.list(4)
    host, _, _ = site.lab.url("").removeprefix("http://").partition(":")
    secrets = ["-u", f"@{host}:{site.lab.port} me:hunter2", "-H", f"@{host} X-Api-Key: hunter3", f"-b@{host} a=hunter4"]
    with site.start(
        "l.txt", "-c", "1", *secrets, "-A", "it's \u202ea \\ \u009b31m", "-H", "Accept: text/html"
    ) as crawl:
        site.until_held(1)
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        site.gate.open()
        ended = crawl.end()
    assert ended.code == 130
    assert "hunter" not in ended.said
    last = ended.said.splitlines()[-1]
    assert last.endswith(" -H 'Accept: text/html'")
    assert not {"\u202e", "\u009b"} & set(ended.said)
    # As bash reads it, it is what was typed, but for the secrets.
    words = (
        subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {last.partition('begin again: ')[2]}"], capture_output=True, check=True
        )
        .stdout.decode()
        .split("\0")
    )
    assert "it's \u202ea \\ \u009b31m" in words
    assert f"@{host}:{site.lab.port} ***" in words


def test_the_second_signal_ends_it_now(site: Site) -> None:
    urls = site.list(20)
    quick = site.lab.url("/ok?first")
    (site.folder / "l.txt").write_text("\n".join([quick, *urls]))
    with site.start("l.txt", "-c", str(HELD), "--summary", "s.json", anew=True) as crawl:
        site.until_held()
        crawl.until(lambda crawl: quick.encode() in crawl.out)
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        crawl.send(signal.SIGINT)
        ended = crawl.end()
    assert ended.code == 130
    assert urls_of(ended) == [quick]
    assert balanced(site.folder)["ok"] == 1


def test_the_third_signal_kills(site: Site) -> None:
    """Nobody reads what is printed, so nothing ends it but force."""
    (site.folder / "l.txt").write_text("".join(f"{site.lab.url('/ok')}?size=20000&n={n}\n" for n in range(30)))
    with site.start("l.txt", "--preview", "20000", reading=False, anew=True) as crawl:
        assert site.lab.site.stats.wait(lambda: len(site.lab.requests("/ok")) == 30, 60)
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        crawl.send(signal.SIGINT)
        crawl.until_said("ending now")
        crawl.send(signal.SIGINT)
        ended = crawl.end()
    assert ended.code == 130


def test_what_never_answers_is_given_up_after_the_grace(site: Site) -> None:
    site.list(2)
    with site.start("l.txt", "--summary", "s.json") as crawl:
        site.until_held(2)
        crawl.send(signal.SIGTERM)
        ended = crawl.end()
    assert (ended.code, ended.out) == (143, b"")
    assert balanced(site.folder)["pending"] == 2


def test_a_signal_that_comes_when_all_is_done_changes_nothing(site: Site) -> None:
    urls = site.list(HELD)
    with site.start("l.txt", "--summary", "s.json") as crawl:
        site.until_held()
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        site.gate.open()
        ended = crawl.end()
    assert ended.code == 0
    assert sorted(urls_of(ended)) == sorted(urls)
    assert "begin again" not in ended.said


def test_a_signal_that_is_ignored_stays_ignored(site: Site) -> None:
    """As by nohup, or by a shell for its background jobs."""
    urls = site.list(HELD)
    with site.start("l.txt", before=["bash", "-c", 'trap "" INT; exec "$@"', "bash"]) as crawl:
        site.until_held()
        crawl.send(signal.SIGINT)
        crawl.send(signal.SIGUSR1)  # delivered after it, so that the first is over when this is heard
        crawl.until_said("in flight: 3")
        site.gate.open()
        ended = crawl.end()
    assert ended.code == 0
    assert sorted(urls_of(ended)) == sorted(urls)


def test_a_list_that_is_still_being_written_is_left(site: Site) -> None:
    url = site.lab.url("/ok")
    with site.start("-", stdin=subprocess.PIPE) as crawl:
        assert crawl.process.stdin is not None
        crawl.process.stdin.write(f"{url}\n".encode())
        crawl.process.stdin.flush()
        crawl.until(lambda crawl: url.encode() in crawl.out)
        crawl.send(signal.SIGINT)
        ended = crawl.end()
    assert ended.code == 130
    assert urls_of(ended) == [url]


def test_an_output_nobody_opens_is_left(site: Site) -> None:
    site.list(1)
    os.mkfifo(site.folder / "fifo")
    with site.start("l.txt", "-k", "-f", "jsonl", "-o", "fifo") as crawl:
        crawl.until_said("certificates are not verified")
        crawl.send(signal.SIGINT)
        ended = crawl.end()
    assert (ended.code, ended.out) == (130, b"")
    assert site.lab.log == []


def test_a_stop_leaves_whole_files(site: Site) -> None:
    import gzip

    site.list(20)
    outputs = ["pages.jsonl", "pages.csv", "pages.jsonl.gz"]
    with site.start("l.txt", "-c", str(HELD), *[word for name in outputs for word in ("-o", name)]) as crawl:
        site.until_held()
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        site.gate.open()
        assert crawl.end().code == 130
    plain = (site.folder / "pages.jsonl").read_bytes()
    assert len([json.loads(line) for line in plain.splitlines()]) == HELD
    assert gzip.decompress((site.folder / "pages.jsonl.gz").read_bytes()) == plain
    assert (site.folder / "pages.csv").read_bytes().count(b"\r\n") == HELD + 1


# The time limit


def test_the_time_limit_stops_as_the_first_signal_does(site: Site) -> None:
    urls = site.list(20)
    with site.start("l.txt", "-c", str(HELD), "--time-limit", "500ms", "--summary", "s.json") as crawl:
        crawl.until_said("fetcher: the time limit is reached: what is in flight has 5 s to finish")
        site.gate.open()
        ended = crawl.end()
    assert ended.code == 4
    begun = len(site.lab.requests("/held"))
    assert begun <= HELD
    assert sorted(urls_of(ended)) == sorted(urls[:begun])
    assert balanced(site.folder)["exit"] == 4
    assert "not all was fetched; to begin again: " in ended.said.splitlines()[-1]


def test_a_time_limit_that_is_not_reached_says_nothing(site: Site) -> None:
    site.list(HELD, "/ok")
    ended = run("crawl", "l.txt", "--time-limit", "1h", folder=site.folder)
    assert ended.code == 0
    assert "time limit" not in ended.said


# A job


STRUCK = [
    "before fetcher.sinks.durable DurableFile.append 1",
    "before fetcher.sinks.durable write_all 2",
    "after fetcher.sinks.durable write_all 1",
    "after fetcher.sinks.durable DurableFile.append 3",
    "before fetcher.job.ledger Ledger.commit 1",
    "after fetcher.job.ledger Ledger.commit 1",
    "before fetcher.job.ledger Ledger.commit 3",
    "after fetcher.job.ledger Ledger.commit 2",
]
"""Moments of a commit, which is made in a thread of its own."""

BLOWS = {
    "SIGINT": ([signal.SIGINT], {130}),
    "SIGINT twice": ([signal.SIGINT, signal.SIGINT], {130}),
    "SIGTERM": ([signal.SIGTERM], {143}),
    # Of two that are pending at the same time the lower number is delivered first (signal(7)).
    "SIGTERM and SIGINT": ([signal.SIGTERM, signal.SIGINT], {143, 130}),
}


@pytest.mark.parametrize(
    ("blow", "point"),
    [
        *((blow, point) for point in STRUCK for blow in ("SIGINT", "SIGINT twice")),
        *((blow, point) for point in STRUCK[1::3] for blow in ("SIGTERM", "SIGTERM and SIGINT")),
    ],
)
def test_a_signal_during_a_commit_loses_nothing(blow: str, point: str, lab: LabServer, tmp_path: Path) -> None:
    desk = Desk(lab, tmp_path)
    rows = 240
    desk.write([lab.url(f"/delay/20/ok?n={n}") for n in range(rows)])
    signals, codes = BLOWS[blow]
    with Running(
        *desk.words("-c", "4", "--per-host", "4", "--private-network", "allow"),
        folder=tmp_path,
        env=striking(point, *signals),
    ) as crawl:
        ended = crawl.end()
    assert ended.code in codes, ended.said
    stats = desk.balance(ended.code)
    asked = desk.asked()
    assert len(asked) == len(set(asked)), "a row was asked for twice"
    if len(signals) == 1:
        assert stats["ok"] == len(asked), "what was in flight was given up before its time"
    assert stats["ok"] >= len(asked) - 4
    continues(desk, ended, rows, asked)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("asked", [1, 40, 120, 199, 200])
def test_a_signal_at_any_time_loses_nothing(asked: int, times: int, lab: LabServer, tmp_path: Path) -> None:
    """When the server has seen so many requests; the last of them is the last of the list."""
    desk = Desk(lab, tmp_path)
    rows = 200
    desk.write([lab.url(f"/delay/10/ok?n={n}") for n in range(rows)])
    with Running(*desk.words("-c", "5", "--per-host", "5"), folder=tmp_path) as crawl:
        desk.until_asked("/delay", asked)
        crawl.send(signal.SIGINT)
        if times == 2:
            crawl.until(lambda crawl: b"stopping" in crawl.err or crawl.process.poll() is not None)
            if crawl.process.poll() is None:
                crawl.send(signal.SIGINT)
        ended = crawl.end()
    if ended.code == 0:
        assert asked >= rows - 5, "it had nothing more to ask for"
        assert len(desk.records()) == rows
        return
    assert ended.code == 130, ended.said
    desk.balance(130)
    continues(desk, ended, rows, desk.asked())


def continues(desk: Desk, ended: Ended, rows: int, asked: list[str]) -> None:
    """Run what the last line says, and see that it completes the list with what is missing alone."""
    done = set(desk.fetched())
    command = ended.said.splitlines()[-1].partition("fetcher: not all was fetched; to continue: ")[2]
    words = shlex.split(command)
    assert words[:3] == argv()
    end = run(*words[3:], folder=desk.folder)
    assert end.code == 0, end.said
    desk.balance(0)
    assert sorted(desk.fetched(), key=int) == [str(n) for n in range(rows)]
    again = desk.asked()
    assert not done & set(again), "what was done was fetched again"
    assert len(done) + len(again) == rows
    assert len(set(asked) & set(again)) <= 5, "more was given up than can be in flight"


def test_a_job_that_is_held_ends_within_the_grace(site: Site) -> None:
    """Once is enough, also when nothing ever answers."""
    desk = Desk(site.lab, site.folder)
    desk.write([*desk.urls(*"ab"), *desk.urls(*"xy", path="/held")])
    with Running(*desk.words(), folder=site.folder) as crawl:
        site.until_held(2)
        crawl.send(signal.SIGTERM)
        ended = crawl.end()
    assert ended.code == 143
    stats = desk.balance(143)
    assert (stats["input"], stats["ok"], stats["pending"], stats["more"]) == (4, 2, 2, False)
    site.gate.open()
    desk.asked()
    assert desk.crawl().code == 0
    assert desk.asked() == ["x", "y"]


def test_the_time_limit_of_a_job_continues(site: Site) -> None:
    desk = Desk(site.lab, site.folder)
    desk.write([*desk.urls(*"ab"), *desk.urls(*"xy", path="/held")])
    with Running(*desk.words("--time-limit", "1s"), folder=site.folder) as crawl:
        site.until_held(2)
        crawl.send(signal.SIGUSR1)
        crawl.until_said("time limit")
        ended = crawl.end()
    assert ended.code == 4
    assert ended.said.splitlines()[-1].startswith("fetcher: not all was fetched; to continue: ")
    desk.balance(4)
    site.gate.open()
    desk.asked()
    for _ in range(2):
        assert desk.crawl("--time-limit", "1h").code == 0
    assert desk.asked() == ["x", "y"]


@pytest.mark.parametrize("flags", [[], ["--fresh"]], ids=str)
@pytest.mark.parametrize(
    "point",
    [
        "before fetcher.job.ledger Ledger.create 1",
        "after fetcher.job.ledger Ledger.create 1",
        "after fetcher.job.ledger Ledger.begin_run 1",
    ],
)
def test_a_signal_while_the_job_is_opened_leaves_it_to_be_continued(
    point: str, flags: list[str], lab: LabServer, tmp_path: Path
) -> None:
    desk = Desk(lab, tmp_path)
    desk.pages(*range(9))
    if flags:
        (tmp_path / "pages.jsonl").write_bytes(b"old\n")
    with Running(*desk.words(*flags), folder=tmp_path, env=striking(point, signal.SIGINT)) as crawl:
        ended = crawl.end()
    assert ended.code == 130, ended.said
    command = ended.said.splitlines()[-1].partition("fetcher: not all was fetched; to continue: ")[2]
    env = environment(tmp_path)
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, capture_output=True, timeout=60).returncode == 0
    assert len(desk.records()) == 9
    asked = desk.asked()
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    "point",
    [
        "before fetcher.cli.settings gather 1",
        "before fetcher.cli.run make_plan 1",
        "before fetcher.cli.run summarize 1",
        "after fetcher.cli.run summarize 1",
        "after fetcher.cli.run.Crawl _close 1",
    ],
)
def test_a_signal_before_or_after_the_run_is_no_traceback(point: str, lab: LabServer, tmp_path: Path) -> None:
    """As every process here, it is judged by what it says."""
    desk = Desk(lab, tmp_path)
    desk.pages(*"abc")
    module, _, rest = point.partition(" ")[2].partition(" ")
    if module.endswith("Crawl"):
        point = f"after fetcher.cli.run Crawl.{rest}"
    with Running(*desk.words(), folder=tmp_path, env=striking(point, signal.SIGINT)) as crawl:
        ended = crawl.end()
    if point.startswith("before") and "summarize" not in point:
        assert (ended.code, ended.said.strip()) == (130, "")
        assert desk.crawl().code == 0
    else:
        assert ended.code == 0, "all was done"
    desk.balance(0)


def test_the_command_that_continues_can_be_pasted_whatever_the_names_are(site: Site) -> None:
    desk = Desk(site.lab, site.folder)
    name = 'it\'s a "list" $HOME `x`;&|*.txt'
    desk.write([*desk.urls(*"ab"), *desk.urls(*"xy", path="/held")], to=name)
    words = desk.words("--select", "t=h1 > a, p", listed=name, to="pages of $x.jsonl")
    with Running(*words, folder=site.folder) as crawl:
        site.until_held(2)
        crawl.send(signal.SIGINT)
        crawl.until_said(STOPPING)
        crawl.send(signal.SIGINT)
        ended = crawl.end()
    command = ended.said.splitlines()[-1].partition("to continue: ")[2]
    assert shlex.split(command) == argv(*words)
    site.gate.open()
    done = subprocess.run(["sh", "-c", command], cwd=site.folder, env=environment(site.folder), timeout=60)
    assert done.returncode == 0
    assert desk.fetched("pages of $x.jsonl") == [*"abxy"]


# A reader that leaves


def test_a_closed_stdout_ends_it_silently(site: Site) -> None:
    site.list(20)
    quick = site.lab.url("/ok?first")
    (site.folder / "l.txt").write_text("\n".join([quick, *site.list(20)]))
    reader, writer = os.pipe()
    try:
        with site.start("l.txt", "-c", str(HELD), "-o", "-", "-o", "pages.csv", stdout=writer, anew=True) as crawl:
            os.close(writer)
            writer = -1
            line = os.read(reader, 65_536)
            assert line.startswith(quick.encode())
            os.close(reader)
            reader = -1
            site.gate.open()
            ended = crawl.end()
    finally:
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
    assert (ended.code, ended.err) == (141, b"")
    rows = (site.folder / "pages.csv").read_bytes()
    assert rows.endswith(b"\r\n")


@pytest.mark.parametrize("flags", ["", "-f jsonl", "-f csv", "--preview 50", "-v", "--progress"])
def test_head_takes_what_it_wants(site: Site, flags: str) -> None:
    # More than a pipe holds and head reads, so that something is left to write when head has gone.
    (site.folder / "l.txt").write_text("".join(f"{site.lab.url('/ok')}?{n}{'x' * 1000}\n" for n in range(300)))
    script = f"$CRAWL l.txt {flags} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=site.folder,
        env=environment(site.folder, CRAWL=" ".join(argv("crawl"))),
        capture_output=True,
        timeout=60,
    )
    first, code, end = done.stdout.decode().split("\n")
    assert first
    assert (code, end, done.stderr) == ("141", "", b"")


def test_a_stderr_whose_reader_left_changes_nothing(site: Site) -> None:
    urls = site.list(HELD)
    reader, writer = os.pipe()
    with site.start("l.txt", "-v", "--progress", "--summary", "s.json", stderr=writer) as crawl:
        os.close(writer)
        os.close(reader)
        site.until_held()
        crawl.send(signal.SIGUSR1)
        site.gate.open()
        ended = crawl.end()
    assert ended.code == 0
    assert sorted(urls_of(ended)) == sorted(urls)


# Looking into it


def test_sigusr1_shows_what_is_in_flight(site: Site) -> None:
    urls = site.list(HELD)
    with site.start("l.txt", anew=True) as crawl:
        site.until_held()
        crawl.send(signal.SIGUSR1)
        crawl.until(lambda crawl: crawl.err.count(b"\n") > HELD)
        table = crawl.err.decode().splitlines()
        site.gate.open()
        ended = crawl.end()
    assert ended.code == 0
    assert table[0].startswith(f"in flight: {HELD} waiting {HELD}")
    for url in urls:
        assert sum(line.endswith(f"  {url}") for line in table) == 1
    assert all(" s  waiting " in line and "  row " in line for line in table[1:])


def test_sigusr1_speaks_json_too(site: Site) -> None:
    urls = site.list(HELD)
    with site.start("l.txt", "--log-format", "json") as crawl:
        site.until_held()
        crawl.send(signal.SIGUSR1)
        crawl.until(lambda crawl: b"\n" in crawl.err)
        site.gate.open()
        ended = crawl.end()
    first, last = map(json.loads, ended.said.splitlines())
    assert sorted(row["url"] for row in first["in_flight"]) == sorted(urls)
    assert last["summary"]["ok"] == HELD
