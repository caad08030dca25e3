"""The examples: each idea has one, each runs by itself as a newcomer would run it, and each is short."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from fetcher.demo import GONE, Site, SiteProcess
from tests.lab.server import Exchange, LabServer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
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
    "training_texts": r"40 pages, 0 failed, 0 that may not be used\n40 distinct texts .*\n  en +[\d,]+ characters\n",
    "common_crawl": r"64 rows, 63 pages with a text, of 2 hosts\n  en +\d+ pages, such as '.*'\n",
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


STORY = "".join(f"<p>The {word} sentence of a story is long enough to be a part of it.</p>" for word in "abcdefgh")


def test_the_articles_of_a_news_site_are_kept_where_they_may_be(tmp_path: Path) -> None:
    def news(story: str, head: str = "", lang: str = "en") -> str:
        menu = "<nav><a href=/a>Politics</a><a href=/b>Sport</a></nav>"
        return f"<!doctype html><html lang={lang}><head><title>N</title>{head}</head><body>{menu}<article>{story}</article>"

    pages = {
        "/a": news(STORY),
        "/same": news(STORY),
        "/de": news(STORY.replace("sentence", "Satz"), lang="de-AT"),
        "/short": news("<p>Soon."),
        "/noai": news(STORY, "<meta name=robots content='noai, follow'>"),
        "/reserved": news(STORY, "<meta name=tdm-reservation content=1>"),
    }

    async def reply(exchange: Exchange) -> None:
        await exchange.reply(pages[exchange.entry.path], headers=[("Content-Type", "text/html; charset=utf-8")])

    with LabServer.in_thread() as lab:
        for path in pages:
            lab.add(path, reply)
        urls = [lab.url(path) for path in (*pages, "/status/404")]
        shown = run(ROOT / "examples" / "training_texts.py", tmp_path, *urls)
    kept = len("\n".join(re.findall(r"<p>(.*?)</p>", STORY)))
    assert shown.splitlines()[:3] == [
        "4 pages, 1 failed, 2 that may not be used",
        "2 distinct texts of 200 characters or more",
        f"  en    {kept:8,} characters",
    ]
    assert shown.splitlines()[3].startswith("  de-AT ")


class Writer(WARCWriter):  # type: ignore[misc]  # it is not typed
    """One that leaves no temporary files open."""

    def _create_temp_file(self) -> io.BytesIO:
        return io.BytesIO()


def common_crawl(path: Path, pages: dict[str, str]) -> None:
    """Write an archive as Common Crawl does: three records a page, bodies decoded, the head saying how they came."""
    with path.open("wb") as file:
        writer = Writer(file, gzip=True, warc_version="1.0")
        crawl = {"isPartOf": "CC-MAIN-2026-47", "publisher": "Common Crawl", "format": "WARC File Format 1.0"}
        writer.write_record(writer.create_warcinfo_record(path.name, crawl))
        for url, page in pages.items():
            asked = StatusAndHeaders(
                "GET / HTTP/1.1", [("User-Agent", "CCBot/2.0"), ("Host", "h")], is_http_request=True
            )
            request = writer.create_warc_record(url, "request", http_headers=asked, payload=io.BytesIO())
            body = page.encode()
            head = [
                ("Content-Type", "text/html; charset=utf-8"),
                ("X-Crawl-Content-Encoding", "gzip"),
                ("X-Crawl-Transfer-Encoding", "chunked"),
                ("Content-Length", str(len(body))),
            ]
            answer = writer.create_warc_record(
                url,
                "response",
                http_headers=StatusAndHeaders("200 OK", head, protocol="HTTP/1.1"),
                payload=io.BytesIO(body),
                warc_headers_dict={"WARC-Identified-Payload-Type": "text/html", "WARC-IP-Address": "192.0.2.1"},
            )
            told = b'fetchTimeMs: 120\r\ncharset-detected: UTF-8\r\nlanguages-cld2: {"reliable":true}\r\n'
            more = writer.create_warc_record(
                url, "metadata", payload=io.BytesIO(told), warc_content_type="application/warc-fields"
            )
            for record in (request, answer, more):
                writer.write_record(record)


def test_a_file_of_common_crawl_is_extracted(tmp_path: Path) -> None:
    path = tmp_path / "CC-MAIN-20261128000000-00000.warc.gz"
    pages = {
        f"https://host-{number % 7}.example/{number}": f"<html lang={'de' if number % 3 else 'fr'}><title>T {number}</title><p>ü {number}"
        for number in range(50)
    }
    common_crawl(path, pages)
    (tmp_path / "empty").mkdir()
    shown = run(ROOT / "examples" / "common_crawl.py", tmp_path / "empty", str(path))
    assert shown.splitlines() == [
        "50 rows, 50 pages with a text, of 7 hosts",
        "  de        33 pages, such as 'T 49'",
        "  fr        17 pages, such as 'T 48'",
    ]


def test_the_notebook_is_short_and_its_cell_runs() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LINES
    told, cell = json.loads(text)["cells"]
    assert (told["cell_type"], cell["cell_type"], cell["outputs"]) == ("markdown", "code", [])
    tree = ast.parse("".join(cell["source"]))
    pytest.importorskip("pandas")
    names: dict[str, Any] = {}
    exec(compile(ast.Module(tree.body[:-1], []), str(NOTEBOOK), "exec"), names)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    shown = eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)
    assert (len(names["table"]), list(shown.columns), shown["count"].sum() > 40) == (60, ["count", "min", "max"], True)


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
