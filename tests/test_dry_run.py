"""``--dry-run``: what is said of a list, and that none of its rows is fetched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fetcher.cli import dry_run as dry
from fetcher.cli.dry_run import Judge, dry_run
from fetcher.cli.plan import make_plan
from fetcher.config import Config
from fetcher.errors import ConfigError, ConnectError, SinkError, Skipped
from fetcher.terminal import Notices
from fetcher.urls import Target


class Said(NamedTuple):
    allowed: bool
    delay: float = 0.0


def judge_by(say: Callable[[Target], Any]) -> Any:
    @asynccontextmanager
    async def opened(_: Config) -> AsyncIterator[Judge]:
        async def judge(target: Target) -> Said:
            said = say(target)
            if isinstance(said, BaseException):
                raise said
            if said is None:
                await asyncio.Event().wait()
            return said  # type: ignore[no-any-return]  # what the test gave

        yield judge

    return opened


@pytest.fixture
def foretold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, Any]]:
    def foretell(rows: list[str], judge: Any = None, **settings: Any) -> tuple[str, Any]:
        path = tmp_path / "list.txt"
        path.write_text("".join(f"{row}\n" for row in rows))
        told = tmp_path / "told.json"
        plan = make_plan([str(path)], {"summary": str(told), **settings})
        assert dry_run(plan, Notices(), judge=judge) == 0
        said = capsys.readouterr()
        assert not said.err
        return said.out, json.loads(told.read_text())

    return foretell


def rows_on(**rows: int) -> list[str]:
    return [f"http://{host}.localhost:1/{n}" for host, number in rows.items() for n in range(number)]


def test_the_list_is_counted(foretold: Any) -> None:
    text, told = foretold([*rows_on(a=40, b=2, c=2), "mailto:x@a.example", "http://b.localhost:1/0#top"], delay="0.5")
    counts = ("rows", "invalid", "duplicates", "fetched", "hosts", "half")
    assert [told[name] for name in counts] == [46, 1, 1, 45, 3, 1]
    assert told["least"] == {"seconds": 19.5, "set_by": "delay", "host": "a.localhost"}
    assert [(host["host"], host["rows"]) for host in told["largest"]] == [
        ("a.localhost", 40),
        ("b.localhost", 3),
        ("c.localhost", 2),
    ]
    assert told["robots"] is None
    assert text.splitlines()[-1] == "time      at least 19.5 s, set by a.localhost (40 rows, the delay between two)"


def test_duplicates_that_are_left_out_cost_no_time(foretold: Any) -> None:
    rows = rows_on(a=10)
    _, told = foretold([*rows, *rows], delay="1", dedupe=True)
    assert (told["rows"], told["duplicates"], told["fetched"], told["least"]["seconds"]) == (20, 10, 10, 9.0)
    _, told = foretold([*rows, *rows], delay="1")
    assert (told["rows"], told["duplicates"], told["fetched"], told["least"]["seconds"]) == (20, 10, 20, 19.0)


def test_the_first_rows_are_the_input(foretold: Any) -> None:
    _, told = foretold(rows_on(a=10, b=10), limit="12", rate="3/s")
    assert (told["rows"], told["hosts"], told["least"]) == (12, 2, {"seconds": 4.0, "set_by": "rate", "host": None})


def test_names_are_looked_up_and_addresses_are_not(foretold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = foretold(["http://a.localhost/", "http://127.0.0.1/", "http://[::1]/"])
    assert told["names"] == {"asked": 1, "found": 1, "failed": {}}

    def fail(*_: Any) -> list[Any]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(dry, "Resolver", lambda: _resolver(fail))
    text, told = foretold(["http://gone.example/", "http://a.localhost/"])
    assert told["names"] == {"asked": 2, "found": 1, "failed": {"gone.example": "Name or service not known"}}
    assert "          gone.example: Name or service not known" in text.splitlines()


def _resolver(lookup: Any) -> Any:
    from fetcher.transport.resolver import Resolver

    return Resolver(lookup)


def test_a_proxy_looks_names_up_itself(foretold: Any) -> None:
    _, told = foretold(["http://gone.example/"], proxy="127.0.0.1:9")
    assert told["names"] is None


def test_a_sample_is_held_against_robots_txt(foretold: Any) -> None:
    def say(target: Target) -> Any:
        if target.host.startswith("b."):
            return Skipped("robots_unreachable", "http_503")
        return Said(allowed=not target.host.startswith("c."), delay=7.0 if target.host.startswith("d.") else 0.0)

    text, told = foretold(rows_on(a=20, b=2, c=2, d=5), judge=judge_by(say), delay="1")
    assert told["robots"] == {
        "asked": 4,
        "allowed": 2,
        "denied": 1,
        "unknown": {"robots_unreachable": 1},
        "delays": {"d.localhost": 7.0},
    }
    assert told["least"]["host"] == "d.localhost"
    assert told["least"]["seconds"] == pytest.approx(35, abs=1)  # robots.txt itself, then five rows
    assert "          d.localhost asks for 7 s between two" in text.splitlines()


def test_a_host_that_speaks_http_alone_is_sampled_by_that(foretold: Any) -> None:
    def say(target: Target) -> Any:
        return ConnectError("connect_refused") if target.scheme == "https" or "dead" in target.host else Said(True, 4.0)

    rows = ["127.0.0.1/a", "127.0.0.1/b", "dead.localhost/c"]
    _, told = foretold(rows, judge_by(say))
    assert (told["robots"]["allowed"], told["robots"]["unknown"]) == (1, {"connect_refused": 1})
    assert told["robots"]["delays"] == {"127.0.0.1": 4.0}
    _, told = foretold(rows, judge_by(say), default_scheme="https")
    assert (told["robots"]["allowed"], told["robots"]["unknown"]) == (0, {"connect_refused": 2})


def test_a_delay_that_is_asked_for_counts_as_far_as_a_crawl_obeys_it(foretold: Any) -> None:
    _, told = foretold(rows_on(a=4), judge=judge_by(lambda _: Said(True, 3600.0)), max_crawl_delay="5")
    assert told["robots"]["delays"] == {"a.localhost": 3600.0}
    assert told["largest"][0]["delay"] == 5.0
    assert told["least"]["seconds"] == pytest.approx(20, abs=1)  # robots.txt itself, then four rows


def test_a_host_with_terms_of_its_own_may_set_the_time(foretold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry, "LARGEST_HOSTS", 1)
    hosts = {"b.localhost": {"delay": 10}, "a.localhost": {"delay": 0.1}, "c.localhost": {"per-host": 1}}
    _, told = foretold(rows_on(a=40, b=5), delay="0.5", hosts=hosts)
    assert told["least"] == {"seconds": 40.0, "set_by": "delay", "host": "b.localhost"}
    assert told["largest"] == [{"host": "a.localhost", "rows": 40, "share": 0.8889, "delay": 0.1, "latency": None}]


def test_no_more_than_a_sample_is_asked(foretold: Any) -> None:
    asked: list[str] = []

    def say(target: Target) -> Said:
        asked.append(target.host)
        return Said(allowed=True)

    foretold([f"http://h{n}.localhost/" for n in range(500)], judge=judge_by(say))
    assert len(asked) == len(set(asked)) == dry.SAMPLED_HOSTS


def test_who_does_not_answer_is_not_waited_for(foretold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry, "SAMPLE_SECONDS", 0.05)
    _, told = foretold(rows_on(a=1, b=1), judge=judge_by(lambda target: None if "a." in target.host else Said(True)))
    assert (told["robots"]["allowed"], told["robots"]["unknown"]) == (1, {"total_timeout": 1})


def test_a_bug_in_what_is_asked_is_raised(foretold: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        foretold(rows_on(a=1), judge=judge_by(lambda _: ZeroDivisionError()))


def test_the_summary_may_be_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(["http://a.localhost/"], {"summary": "-"})
    assert dry_run(plan, Notices()) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1


def test_a_summary_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises((SinkError, ConfigError), match="gone"):
        dry_run(make_plan(["http://a.localhost/"], {"summary": str(tmp_path / "gone" / "x.json")}), Notices())


def test_rows_may_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(["http://a.localhost/"], {})
    assert dry_run(plan, Notices(), source=["http://b.localhost/\x1b[2J", "x:"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rows      2: 1 to fetch, 1 invalid, 0 duplicates\nhosts     1\n")


def test_what_the_list_says_reaches_no_terminal_raw(foretold: Any) -> None:
    text, _ = foretold(["http://a\x1b[2J.example/", "http://b.localhost/\x07"])
    assert "\x1b" not in text
    assert "\x07" not in text


def test_an_empty_list_is_said_to_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(make_plan(["http://a.localhost/"], {}), Notices(), source=["x:"], judge=judge_by(str)) == 0
    assert "0 to fetch, 1 invalid" in capsys.readouterr().out
