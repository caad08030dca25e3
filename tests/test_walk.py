"""The newcomer's walk of CONTRIBUTING: each function it names is there, and they run in its order for a real row."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from fetcher import Config, Fetcher, Job, read
from tests.lab.call_trace import Call, recorded_calls
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## What happens to a URL\n"
MOST = 20
ENTRY = re.compile(r"(\d+)\. `(fetcher/[\w/]+\.py)` `([\w.]+)` \S.*")


class Step(NamedTuple):
    """One entry: the module's path and the qualified function."""

    file: str
    function: str


def steps_of(text: str) -> list[Step]:
    """Read the numbered list of the section. Raises AssertionError where an entry is not as all are."""
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    steps: list[Step] = []
    for line in section.splitlines():
        if line[:1].isdigit():
            entry = ENTRY.fullmatch(line)
            assert entry, f"not a number, a module's path, a function and words: {line}"
            assert int(entry[1]) == len(steps) + 1, f"out of number: {line}"
            steps.append(Step(entry[2], entry[3]))
    return steps


def functions_of(source: str) -> set[str]:
    """The qualified names of all functions of a module, those in functions as if these were classes."""
    found: set[str] = set()

    def look(parent: ast.AST, above: str) -> None:
        for node in ast.iter_child_nodes(parent):
            name = above
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{above}.{node.name}".lstrip(".")
                if not isinstance(node, ast.ClassDef):
                    found.add(name)
            look(node, name)

    look(ast.parse(source), "")
    return found


def missing(steps: Sequence[Step]) -> list[str]:
    """What is named and not there."""
    breaches = []
    for file, function in steps:
        if not (ROOT / file).is_file():
            breaches.append(f"there is no {file}")
        elif function not in functions_of((ROOT / file).read_text(encoding="utf-8")):
            breaches.append(f"there is no {function} in {file}")
    return breaches


def out_of_order(steps: Sequence[Step], calls: Sequence[Call]) -> list[str]:
    """The steps that did not run, or ran for the first time before the step above them did."""
    first: dict[Step, int] = {}
    for number, call in enumerate(calls):
        first.setdefault(Step(call.file, call.function.replace(".<locals>", "")), number)
    breaches = []
    reached = -1
    for step in steps:
        if step not in first:
            breaches.append(f"{step.function} of {step.file} did not run")
            continue
        if first[step] < reached:
            breaches.append(f"{step.function} of {step.file} ran before the step above it")
        reached = max(reached, first[step])
    return breaches


WALK = steps_of((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


@pytest.fixture
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=1) as lab:
        yield lab


def test_the_walk_is_short_and_every_function_of_it_exists() -> None:
    assert 10 <= len(WALK) <= MOST
    assert missing(WALK) == []


async def test_a_row_goes_that_way(lab: LabServer, tmp_path: Path) -> None:
    async def allow(exchange: Exchange) -> None:
        await exchange.reply("User-agent: *\nAllow: /\n", kind="text/plain")

    lab.add("/robots.txt", allow)
    urls, pages = tmp_path / "urls.txt", tmp_path / "pages.jsonl"
    urls.write_text(f"{lab.url('/ok')}\n", encoding="utf-8")
    with recorded_calls(threads=True) as calls:
        async with Fetcher(Config.of(concurrency=1, robots=True)) as fetcher, Job(fetcher, pages) as job:
            stats = await job.run(read([str(urls)]))
    assert (stats.ok, stats.pending, pages.read_bytes().count(b"\n")) == (1, 0, 1)
    assert out_of_order(WALK, calls) == []


@pytest.mark.parametrize(
    "entry", ["2. `fetcher/b.py` `go` goes.", "1. `b.py` `go` goes.", "1. `fetcher/b.py` goes.", "1. It `goes`."]
)
def test_an_entry_that_cannot_be_followed_is_seen(entry: str) -> None:
    text = f"{HEADING}\nWords.\n\n{{}}\n   more words.\n\n## Next\n\n7. else\n"
    assert steps_of(text.format("1. `fetcher/a.py` `A.go` goes.")) == [Step("fetcher/a.py", "A.go")]
    with pytest.raises(AssertionError):
        steps_of(text.format(entry))


def test_a_step_that_is_not_there_or_not_in_order_is_seen() -> None:
    there = [Step("fetcher/urls.py", "parse"), Step("fetcher/middleware/accept.py", "accept.handle")]
    assert missing(there) == []
    gone = [Step("fetcher/url.py", "parse"), Step("fetcher/urls.py", "pars"), Step("fetcher/urls.py", "Target")]
    assert len(missing(gone)) == 3
    calls = [
        Call("fetcher/urls.py", "parse", 1, 0),
        Call("fetcher/middleware/accept.py", "accept.<locals>.handle", 1, 1),
    ]
    assert out_of_order(there, [*calls, *reversed(calls)]) == []
    assert out_of_order(there, calls[::-1]) == [
        "accept.handle of fetcher/middleware/accept.py ran before the step above it"
    ]
    assert out_of_order([*there, gone[0]], calls) == ["parse of fetcher/url.py did not run"]
