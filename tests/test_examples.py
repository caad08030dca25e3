"""The examples: each idea has one, each runs by itself as a newcomer would run it, and each is short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.demo import GONE, Site, SiteProcess

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DEADLINE = 60.0
LINES = 60

IDEAS = {
    "one_by_one_and_gather": r"one by one +\d+\.\d\d s .*\n"
    r"gather .*\nstream, ordered .*\n\n30 URLs, three times the same pages in the same order",
    "producer_and_consumer": r"producer ▸ 30 listed\n(.*\n)*\npacked: \d+ \+ \d+ of 30 pages listed",
    "coffee_shop": r"1 at the counter: 10 coffees in .* s, at most 1 brewing at once\n( +customer +\d+ .*█.*\n){10}"
    r"3 at the counter: 10 coffees .*, at most [1-3] brewing (.*\n)*10 at the counter: 10 coffees",
    "async_iterator_and_context_manager": r"♥\n(.*\n)*10\. .*\n(♥\n)?\n\d\d of endlessly many .* with this one: 1\n",
    "blocking_work": r"loop +12 pages, .* █+\nthread +12 pages, .*\nprocess +12 pages, ",
    "threads_beside_gather": r"threads +60 .*\ngather +60 .* [1-4]\n",
    "in_flight": r"\d+ in flight: .*waiting.*\n  row \d+ .* http://127(.*\n)*\nall landed: 27 pages, 1 failed",
    "embedding": r"Cleo hears: sorry, invalid_url: .*\n(.*\n)*\nmeanwhile the walk saw \d+ pages; all is closed",
    "custom_extractor": r" in £ .* from +£(.*\n)*\n120 pages, 109 of them coffees; the others: {'extract_failed': 11}",
    "custom_sink": r"utf-8 +\d+ █+ (.*\n)*\n104 URLs in, 103 pages and 1 failures in the table, 0 lost",
    "middleware": r"7 pages the first time\n\n( +0\.\d ms .*\n){7}7 pages the second .*\n\n"
    r"the shop saw 10 requests for pages, 10 of them signed",
    "survive_a_kill": r"0 rows were done before\n(.*\n)*\d+ rows were done before\n.* 0 pending\neach row once: True",
    "link_audit": r"64 pages have \d\d distinct links, 1 of them broken\n  http_404 …/discontinued on the list",
    "seo_table": r"characters '.*\n(.*\n)*\n120 pages; missing on\n  description +120 █+\n",
    "shop_prices": r"300 pages, 0 failed\n +£ +91 products from +7\.50 to +98\.00\n(.*\n)*the tag that most have: for filter",
    "follow_links": r"0 links away: +1 pages █\n(\d links away: .*\n)+(  …/.*\n)+  …/\n$",
    "custom_transport": r"ok: /moody +is The moody page\n(.*\n)*passed",
}
"""The ideas that are shown, each by the file of that name, and the result it prints."""


def run(path: Path, folder: Path, *arguments: str) -> str:
    """Run an example in an empty folder, with warnings about what it leaves open, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "default::ResourceWarning", str(path), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(folder.iterdir()) == []
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_shows_its_result(path: Path, tmp_path: Path) -> None:
    shown = run(path, tmp_path)
    assert re.search(IDEAS.get(path.stem, r"\S"), shown), shown


@pytest.fixture(scope="module")
def shop() -> Iterator[SiteProcess]:
    with SiteProcess(Site(hosts=2, pages=20, latency=(0.0, 0.0), failures=False)) as shop:
        yield shop


TAKERS = [path for path in EXAMPLES if "[URL ...]" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", TAKERS, ids=lambda path: path.stem)
def test_an_example_that_takes_urls_fetches_these(path: Path, tmp_path: Path, shop: SiteProcess) -> None:
    urls = [*shop.urls(3), f"http://127.0.0.1:{shop.port}{GONE}", "ftp://not.example/"]
    before = len(shop.log())
    assert run(path, tmp_path, *urls).strip()
    assert {visit["path"] for visit in shop.log()[before:]} >= {GONE}


@pytest.mark.parametrize("idea", IDEAS)
def test_every_idea_has_its_example(idea: str) -> None:
    assert idea in {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_first_what_it_teaches(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lesson, _, idea = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")
    assert lesson.endswith(".")
    assert idea.startswith("The idea: ")
    assert text.startswith('"""')
    assert len(text.splitlines()) < LINES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_uses_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    taken = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "fetcher" in taken
    assert {name for name in taken if name and name.startswith("fetcher.")} <= {"fetcher.demo"}
