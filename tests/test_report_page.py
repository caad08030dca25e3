"""``fetcher report --html``: its figures are those of ``--json``, nothing on it is active, and every job has a page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fetcher.drawing.document import document
from fetcher.errors import SourceError
from fetcher.hosts.state import HostReport
from fetcher.job.opening import Lock
from fetcher.job.report import HostFigures, OutputFigures
from fetcher.report.html_report import render_comparison, render_job, render_shards
from fetcher.report.job_page import JobPage, read_job, read_shards
from fetcher.report.records import MAX_CODES, MAX_COLUMNS, RecordLine, RecordSums, read_records
from fetcher.sources.earlier import SelectedName, earlier_format
from fetcher.topics import advice_for
from tests.benchmarks.report_page import MAX_MB, make, measure
from tests.lab.command import run
from tests.lab.desk import Desk
from tests.lab.exchange import Case, Exchange
from tests.lab.report_scene import CODES, HOSTS, NAUGHTY, OPTIONS, make_scene, product
from tests.lab.server import LabServer
from tests.test_report import BEGAN, begin, end, entry, make_job, so_far, write

TAGS = {
    "html", "head", "meta", "title", "link", "style", "body", "header", "main", "footer", "section", "div", "p", "strong", "small",
    "label", "input", "h1", "h2", "h3", "dl", "dt", "dd", "data", "ul", "li", "figure", "figcaption", "details", "summary",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "desc", "path", "line", "text", "bdi", "b", "code",
}  # fmt: skip
ATTRIBUTES = re.compile(
    "lang|charset|http-equiv|content|name|rel|href|class|role|aria-.*|type|id|checked|value|tabindex|scope|width|height|x|y|x1|x2"
    "|y1|y2|dx|dy|d|viewbox|preserveaspectratio|text-anchor|stroke-width"
)


class Reading(HTMLParser):
    """A page as a browser reads it: elements, texts, and the values of ``data``."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, str] = {}
        self.style = ""
        self._in: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        self._in.append(tag)
        if tag == "data":
            self.data[str(found["id"])] = str(found["value"])

    def handle_data(self, data: str) -> None:
        if self._in and self._in[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._in:
            while self._in.pop() != tag:
                pass

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def checked(page: str) -> Reading:
    """Return the page read, after a look for whatever is active or comes from elsewhere."""
    read = Reading(page)
    assert {tag for tag, _ in read.elements} <= TAGS
    for tag, attributes in read.elements:
        for name, value in attributes.items():
            assert ATTRIBUTES.fullmatch(name), (tag, name)
            if name == "href":
                assert (tag, str(value)[:19]) == ("link", "data:image/svg+xml,")
    policy = next(str(found["content"]) for tag, found in read.elements if found.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(read.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert "@import" not in read.style
    assert "url(" not in read.style
    page.encode()  # no lone surrogate
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    ids = [str(found["id"]) for _, found in read.elements if "id" in found]
    assert len(ids) == len(set(ids))
    return read


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=HOSTS) as server:
        yield server


@pytest.fixture(scope="module")
def scene(lab: LabServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    make_scene(Desk(lab, folder))
    return folder


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def page_of(text: str) -> Case:
    """A case that answers with an HTML page."""

    async def reply(exchange: Exchange) -> None:
        await exchange.reply(text)

    return reply


def told(folder: Path, *names: str) -> tuple[Reading, Any]:
    """Return the page of a job and what ``--json`` says, each by a command of its own."""
    ended = run("report", *names, "--html", "report.html", folder=folder)
    assert (ended.code, ended.said) == (0, "")
    figures = json.loads(run("report", *names, "--json", folder=folder).text)
    return checked((folder / "report.html").read_text(encoding="utf-8")), figures


# The job that was killed twice


def test_its_figures_are_those_of_the_json(scene: Path) -> None:
    page, figures = told(scene, "pages.jsonl")
    names = ("input", "ok", "failed", "skipped", "pages_per_second", "seconds", "bytes", "hosts")
    assert {name: float(page.data[name]) for name in names} == {name: float(figures[name]) for name in names}
    codes = {name.removeprefix("code-"): int(many) for name, many in page.data.items() if name.startswith("code-")}
    assert codes == figures["codes"]
    assert len(codes) >= 10
    assert set(CODES.values()) <= set(codes)


def test_its_kills_and_its_runs_are_told(scene: Path) -> None:
    page, figures = told(scene, "pages.jsonl")
    assert [run["clean"] for run in figures["runs"]] == [False, False, True]
    marks = [found for tag, found in page.elements if tag == "line" and found.get("class") == "kill"]
    assert len(marks) == 2
    places = [float(str(found["x1"]).rstrip("%")) for found in marks]
    seconds = [run["seconds"] for run in figures["runs"]]
    assert places == pytest.approx(
        [100 * seconds[0] / sum(seconds), 100 * (seconds[0] + seconds[1]) / sum(seconds)], abs=0.02
    )
    assert page.texts.count("killed") >= 3  # in two rows, and beside the marks, where there is room


def test_each_failure_has_examples_and_advice(scene: Path) -> None:
    page, figures = told(scene, "pages.jsonl")
    for code in figures["codes"]:
        advice = advice_for(code)
        assert f"{advice.meaning} {advice.do}".replace("`", "") in "".join(page.texts)
    assert "`" not in "".join(page.texts)
    for path, code in CODES.items():
        assert any(path in text and text.startswith("http") for text in page.texts), code


def test_its_fields_are_told(scene: Path) -> None:
    page, figures = told(scene, "pages.jsonl")
    records = [json.loads(line) for line in (scene / "pages.jsonl").read_text().splitlines()]
    pages = [record for record in records if record["error"] is None]
    for name in ("price", "name", "tags", "missing"):
        full = sum(record["data"][name] not in (None, []) for record in pages)
        assert f"{full / len(pages) * 100:.1f}\xa0%" in page.texts
    assert "price: its numbers" in page.texts
    assert "What robots.txt refused" in page.texts
    assert figures["ok"] == len(pages)


def test_with_json_it_prints_the_figures_and_a_page_may_go_to_stdout(scene: Path) -> None:
    both = run("report", "pages.jsonl", "--html", "r.html", "--json", folder=scene)
    assert json.loads(both.text) == json.loads(run("report", "pages.jsonl", "--json", folder=scene).text)
    plain = run("report", "pages.jsonl", "--html", "r.html", "--hosts", folder=scene)
    assert plain.text == run("report", "pages.jsonl", "--hosts", folder=scene).text
    out = run("report", "pages.jsonl", "--html", "-", folder=scene)
    assert checked(out.text).data["ok"] == str(json.loads(both.text)["ok"])


# Hostile text


def hostile(page: JobPage) -> JobPage:
    """Return a page of which every text is hostile."""
    every = " ".join(NAUGHTY) + "\ud800\ufdd0\U0001fffe"
    sums = RecordSums()
    for number in range(2 * MAX_CODES):
        text = NAUGHTY[number % len(NAUGHTY)]
        sums.add(_line(url=text, error=f"{text}{number}" if number > 9 else "http_404", message=every))
    for text in NAUGHTY:
        sums.add(_line(url=text, title=every, content_type=text, data=dict.fromkeys(NAUGHTY, text)))
        sums.add(_line(url=every, data={text: 5.0, f"{text}2": [text], f"{text}3": {text: text}}))
    sums.trouble.append(every)
    host = HostFigures(every, 3, 1, 0.5, 10)
    trouble = HostReport(every, requests=5, refused=1, parked=9.0, ceiling=1, spacing=0.5, given_up=every)
    figures = msgspec.structs.replace(
        page.figures,
        job=every,
        codes=dict.fromkeys(NAUGHTY, 3),
        retrying=[every],
        outputs=[OutputFigures(every, 5)],
        slowest=[host],
        failing=[host],
        troubled=[trouble],
        shard=every,
    )
    return msgspec.structs.replace(
        page, figures=figures, inputs=[every], asked=[(every, every)], refused=[(every, 3)], records=sums, made=every
    )


def _line(**known: Any) -> RecordLine:
    return RecordLine(**known)


def test_hostile_text_is_text(scene: Path) -> None:
    page = hostile(read_job(str(scene / "pages.jsonl.job")))
    read = checked(render_job(page))
    assert any("<script>document.title='owned'</script>" in text for text in read.texts)
    assert any("onerror=alert(1)" in text for text in read.texts)
    checked(render_comparison([page, page]))
    sums = shards_of(page)
    checked(render_shards(sums, [page, page]))
    checked(document(NAUGHTY[1], "", "", ""))


def shards_of(page: JobPage) -> Any:
    from fetcher.job.shards import ShardFigures, ShardsReport

    figures = msgspec.structs.asdict(page.figures)
    text = page.figures.job
    kept = {name: figures[name] for name in ShardsReport.__struct_fields__ if name in figures}
    kept |= {"of": 2, "missing": [text], "notes": [text], "state": "stopped"}
    kept["shards"] = [ShardFigures(text, text, text, 1, 1, 0, 0, 0, None, 1, 1.0, 1.0)]
    return ShardsReport(**kept)


def test_what_a_server_says_is_text(scene: Path) -> None:
    """The titles and names of the scene are hostile: of a thousand rows some would be shown, so here all are."""
    page = read_job(str(scene / "pages.jsonl.job"))
    records = [json.loads(line) for line in (scene / "pages.jsonl").read_text().splitlines()]
    rows = [record for record in records if record["title"] and "<script>" in record["title"]]
    assert rows
    page.records.rows_shown.values = [
        _line(**{key: row[key] for key in ("url", "status", "title", "data")}) for row in rows[:5]
    ]
    assert any("<script>document.title" in text for text in checked(render_job(page)).texts)


# Several jobs


def test_two_jobs_are_put_side_by_side(desk: Desk) -> None:
    desk.lab.add("/product", product)
    shop = [desk.lab.url(f"/product?n={number}", 1 + number % 3) for number in range(1, 13)]
    desk.write([*shop, desk.lab.url("/status/404?n=1"), desk.lab.url("/status/500?n=1")])
    desk.crawl(*OPTIONS[3:], to="monday.jsonl")
    desk.write([*shop[:8], *(desk.lab.url(f"/status/404?n={number}") for number in range(4))])
    desk.crawl(*OPTIONS[3:], to="tuesday.jsonl")
    ended = run("report", "monday.jsonl", "tuesday.jsonl", "--html", "both.html", folder=desk.folder)
    assert (ended.code, ended.text, ended.said) == (0, "", "")
    page = checked((desk.folder / "both.html").read_text(encoding="utf-8"))
    for number, name in ((1, "monday"), (2, "tuesday")):
        figures = json.loads(run("report", f"{name}.jsonl", "--json", folder=desk.folder).text)
        for key in ("input", "ok", "failed", "skipped"):
            assert page.data[f"job-{number}-{key}"] == str(figures[key])
    assert "+3" in page.texts  # of http_404
    assert "-1" in page.texts  # of http_500
    assert any("12 → 8 (-33.3\xa0%)" in text for text in page.texts)
    refused = run("report", "monday.jsonl", "tuesday.jsonl", "--html", "both.html", "--json", folder=desk.folder)
    assert refused.code == 2
    assert "are not the shards of one list" in refused.said
    assert run("report", "monday.jsonl", "tuesday.jsonl", folder=desk.folder).code == 2  # as before


def test_shards_are_added_up(desk: Desk) -> None:
    desk.write([desk.lab.url(f"/ok?n={n}", 1 + n % HOSTS) for n in range(40)] + [desk.lab.url("/status/404", 2)])
    for shard in ("1/2", "2/2"):
        desk.crawl("--shard", shard, to=f"{shard[0]}.jsonl")
    page, figures = told(desk.folder, "1.jsonl", "2.jsonl")
    assert {name: int(page.data[name]) for name in ("input", "ok", "failed")} == {"input": 41, "ok": 40, "failed": 1}
    assert page.data["ok"] == str(figures["ok"])
    sums, pages = read_shards([str(desk.folder / "2.jsonl.job"), str(desk.folder / "1.jsonl.job")])
    assert [page.figures.shard for page in pages] == ["1/2", "2/2"]
    assert pages[0].records.rows == pages[1].records.rows == sums.done == 41
    one, _ = told(desk.folder, "2.jsonl")
    assert "It is shard 2/2." in one.text
    (desk.folder / "1.jsonl.job" / "ledger.sqlite").unlink()
    assert run("report", "1.jsonl", "2.jsonl", "--html", "r.html", folder=desk.folder).code == 2


# What is not as it should be


def test_an_empty_job(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "pages.jsonl.job")
    ledger.abandon()
    page, figures = told(tmp_path, "pages.jsonl.job")
    assert "No row has an outcome yet" in page.texts
    assert figures["input"] == int(page.data["input"]) == 0
    made = tmp_path / "done.jsonl.job"
    end(begin(made, ["done.jsonl"]), so_far(0))
    assert "No row has an outcome yet" in told(tmp_path, "done.jsonl.job")[0].texts


def test_an_output_that_is_gone(desk: Desk) -> None:
    desk.write([*desk.urls("a"), desk.lab.url("/status/404?n=b")])
    desk.crawl("--select", "x=title")
    (desk.folder / "pages.jsonl").unlink()
    page, _ = told(desk.folder, "pages.jsonl")
    assert "Of its rows not all is told: pages.jsonl: no such file." in page.texts
    assert page.data["code-http_404"] == "1"


@pytest.mark.parametrize("to", ["pages.txt", "pages.jsonl"])
def test_an_output_that_cannot_be_read_again(to: str, desk: Desk) -> None:
    desk.pages(*"abc")
    desk.crawl(to=to)
    if to == "pages.jsonl":
        (desk.folder / to).write_bytes(b"\x00\xff" * 5_000)
    page, _ = told(desk.folder, to)
    said = "its rows cannot be read again" if to == "pages.txt" else "line of the output could not be read"
    assert said in page.text.replace("\xa0", " ")
    assert page.data["ok"] == "3"


def test_a_job_of_a_newer_version(tmp_path: Path) -> None:
    make_job(tmp_path / "pages.jsonl.job", [entry(1)])
    with closing(sqlite3.connect(tmp_path / "pages.jsonl.job" / "ledger.sqlite")) as db:
        db.execute("PRAGMA user_version=99")
    ended = run("report", "pages.jsonl.job", "--html", "r.html", folder=tmp_path)
    assert ended.code == 1
    assert ended.said.count("\n") == 1
    assert "was written by another version (format 99;" in ended.said
    assert not (tmp_path / "r.html").exists()


def test_a_job_of_an_older_version(tmp_path: Path) -> None:
    make_job(tmp_path / "pages.jsonl.job", [entry(1)])
    with closing(sqlite3.connect(tmp_path / "pages.jsonl.job" / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("DROP TABLE pace")
        db.execute("PRAGMA user_version=3")
    page, _ = told(tmp_path, "pages.jsonl.job")
    assert "went over time is not known: an older version made its ledger." in page.text
    assert "How it went over time" not in page.texts


def test_a_ledger_that_is_being_written(tmp_path: Path) -> None:
    folder = tmp_path / "pages.jsonl.job"
    ledger = begin(folder)
    write(ledger, [entry(1), entry(2, "http_404")], so_far(5, more=True, ok=1), position=100)
    lines = [json.dumps({"id": 1, "url": "http://a.example/1", "status": 200, "error": None, "title": "One"})]
    (tmp_path / "pages.jsonl").write_text("\n".join([*lines, '{"id": 2, "url": "http://a.exam']))
    held = Lock(str(folder))
    held.acquire()
    try:
        before = (folder / "ledger.sqlite").read_bytes()
        page, figures = told(tmp_path, "pages.jsonl")
        assert (folder / "ledger.sqlite").read_bytes() == before
    finally:
        held.release()
        ledger.abandon()
    assert figures["state"] == "running"
    assert " is being worked on: what is told is of its last commit." in page.texts
    assert page.data["input"] == "5"


@pytest.mark.parametrize(
    ("pause", "said"), [(-2, "the clock was set back"), (-1, "under 2 s"), (0, "under 2 s"), (5, "5.00 s")]
)
def test_a_pause_is_known_to_the_second(pause: int, said: str, tmp_path: Path) -> None:
    """A run's beginning is told without its fraction: one that follows at once may seem to begin before the other ends."""
    from fetcher.job.ledger import Ledger

    folder = tmp_path / "pages.jsonl.job"
    ledger = begin(folder)
    write(ledger, [entry(1)], so_far(1, ok=1, seconds=2.0))
    ledger.abandon()
    with closing(Ledger.open(str(folder / "ledger.sqlite"))) as again:
        again.begin_run(BEGAN + 2 + pause)
        again.commit([entry(2)], again.marks(), so_far(2, ok=1, seconds=1.0))
        again.end_run(so_far(2, ok=1, seconds=1.0), exit=0)
    page, _ = told(tmp_path, "pages.jsonl.job")
    assert said in page.texts


def test_a_clock_that_was_set_back_draws_no_nonsense(tmp_path: Path) -> None:
    from fetcher.job.ledger import Ledger

    folder = tmp_path / "pages.jsonl.job"
    ledger = begin(folder)
    write(ledger, [entry(1)], so_far(1, ok=1))
    ledger.abandon()
    with closing(Ledger.open(str(folder / "ledger.sqlite"))) as again:
        again.begin_run(1_600_000_000.0)
        again.commit([entry(2)], again.marks(), so_far(2, ok=1, seconds=1.0))
        again.end_run(so_far(2, ok=1, seconds=1.0), exit=0)
    page, _ = told(tmp_path, "pages.jsonl.job")
    assert "the clock was set back" in page.texts
    for _, found in page.elements:
        for name in ("x1", "x2"):
            if name in found:
                assert 0 <= float(str(found[name]).rstrip("%")) <= 100


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--html", "data.csv"], 2, "data.csv: is there, and is no HTML page: name another file for --html"),
        (["--html", "no/such/r.html"], 1, "no/such/r.html: cannot write the page: No such file or directory"),
        (
            ["--html", "r.html", "--changes"],
            2,
            "--html and --changes: the page has no list of changes; give one of them",
        ),
    ],
)
def test_where_a_page_cannot_be(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    make_job(tmp_path / "pages.jsonl.job", [entry(1)])
    (tmp_path / "data.csv").write_text("mine\n")
    ended = run("report", "pages.jsonl.job", *words, folder=tmp_path)
    assert ended.code == code
    assert said in ended.said
    assert (tmp_path / "data.csv").read_text() == "mine\n"


def test_a_page_is_written_over_an_older_one(tmp_path: Path) -> None:
    make_job(tmp_path / "pages.jsonl.job", [entry(1)])
    for _ in range(2):
        told(tmp_path, "pages.jsonl.job")


# Outputs of all kinds


@pytest.mark.parametrize("kind", ["jsonl", "csv", "sqlite", "parquet", "warc"])
def test_an_output_whose_name_says_no_format_is_known_by_its_first_bytes(kind: str, desk: Desk) -> None:
    for extra in {"parquet": ["pyarrow"], "warc": ["fastwarc"]}.get(kind, []):
        pytest.importorskip(extra)
    desk.write([desk.lab.url(f"/ok?n={number}") for number in range(3)])
    ended = desk.crawl("-f", kind, to="pages")
    assert ended.code == 0, ended.said
    page = read_job(str(desk.folder / "pages.job"))
    assert (page.records.rows, page.records.pages, page.records.trouble) == (3, 3, [])
    assert earlier_format(str(desk.folder / "pages")) == kind
    ended = desk.crawl("--since", "pages", to="new.jsonl")
    assert (ended.code, "--since pages: 3 pages\n" in ended.said) == (0, True), ended.said


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"http://a.example/\n",
        b'{"url": "a"}',
        b"url,id\n",
        b"\x1f\x8bno gzip",
        gzip.compress(b'{"id":1}\n', mtime=0),
    ],
)
def test_what_is_no_output_of_ours_under_a_name_that_says_nothing_is_refused(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(start)
    with pytest.raises(SourceError, match="mine: is no output that can be read again"):
        earlier_format(str(tmp_path / "mine"))


def test_a_csv_with_a_mark_before_it_is_known_too(desk: Desk) -> None:
    desk.write([desk.lab.url("/ok")])
    assert desk.crawl("-f", "csv", "--csv-bom", to="pages").code == 0
    assert read_job(str(desk.folder / "pages.job")).records.pages == 1


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no output that can be read again"):
        earlier_format(str(tmp_path / "mi\0ne"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="pipe: is no output that can be read again"):
        earlier_format(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    "name", ["p.jsonl", "p.jsonl.gz", "p.csv", "p.csv.gz", "p.sqlite", "p.parquet", "p.warc.gz", "p.jsonl.zst"]
)
def test_each_format_tells_the_same(name: str, desk: Desk) -> None:
    for extra in {"p.parquet": ["pyarrow"], "p.warc.gz": ["fastwarc"]}.get(name, []):
        pytest.importorskip(extra)
    desk.lab.add("/product", product)
    desk.write(
        [desk.lab.url(f"/product?n={number}", 1 + number % HOSTS) for number in range(40)]
        + [desk.lab.url("/status/404?n=1"), desk.lab.url("/loop")]
    )
    ended = desk.crawl(*OPTIONS[3:], to=name)
    assert ended.code == 0, ended.said
    page = read_job(str(desk.folder / f"{name.rstrip('/')}.job"))
    assert page.records.trouble == [], os.listdir(desk.folder)
    assert (page.records.rows, page.records.pages) == (42, 40)
    assert page.records.whole == {"title": 40, "meta": 40}
    assert {code: len(found) for code, found in page.records.examples.items()} == {"http_404": 1, "redirect_loop": 1}
    filled = {name: column.filled for name, column in page.records.columns.items() if column.filled}
    assert filled == {"price": 34, "price_currency": 34, "name": 40, "tags": 30}
    price = page.records.columns["price"]
    assert price.numbers.count == 34
    assert 0 < price.low < price.high


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.sqlite", "p.parquet", "p.warc.gz", "parts/"])
def test_what_a_file_of_rules_and_a_table_select_is_told(name: str, desk: Desk) -> None:
    for extra in {"p.parquet": ["pyarrow"], "parts/": ["pyarrow"], "p.warc.gz": ["fastwarc"]}.get(name, []):
        pytest.importorskip(extra)
    desk.lab.add(
        "/shelf",
        page_of(
            "<title>Shelf</title><h1>One</h1><p class=cost>12.50 EUR</p><p class=many>7</p><p class=on>yes</p><i>a</i><i>b</i>"
            "<table><tr><th>Size<th>Left</tr><tr><td>L<td>3</tr></table>"
        ),
    )
    rules = "cost=.cost:price", "many=.many:int", "sale=.on:bool", "marks[]=i", "first=html{head=h1}", "title=h1"
    (desk.folder / "rules.toml").write_text(f"[[pages]]\nurl = '*/shelf*n=1*'\nselect = {list(rules)}\n")
    desk.write([desk.lab.url(f"/shelf?n={number}") for number in (*range(10, 20), *range(20, 25))])
    words = ["--select", "h=h1", "--select-from", "rules.toml", "--table", "table", "--with", "links,text"]
    parts = ["-f", "parquet", "--part-rows", "4"] if name == "parts/" else []
    ended = desk.crawl(*words, *parts, to=name)
    assert ended.code == 0, ended.said
    page = read_job(str(desk.folder / f"{name.rstrip('/')}.job"))
    assert page.records.trouble == []
    columns = page.records.columns
    filled = {column: sums.filled for column, sums in columns.items()}
    assert filled == {
        "h": 15, "table": 15, "cost": 10, "cost_currency": 10, "many": 10, "sale": 10, "marks": 10, "first": 10, "title": 10
    }  # fmt: skip
    kinds = {column: [*sums.kinds] for column, sums in columns.items()}
    assert kinds["cost"] == kinds["many"] == ["number"]
    assert (kinds["sale"], kinds["marks"], kinds["table"], kinds["first"]) == (
        ["yes or no"],
        ["list"],
        ["list"],
        ["object"],
    )
    assert (columns["cost"].low, columns["many"].high) == (12.5, 7)
    assert columns["title"].example == "One"
    assert columns["marks"].example == '["a","b"]'
    assert columns["table"].example == '[{"Size":"L","Left":"3"}]'
    assert page.records.whole == {"title": 15, "link_list": 0, "text": 15}
    assert "cost_currency" in render_job(page)


def test_rules_that_cannot_be_read_here_are_told_and_end_no_report(desk: Desk) -> None:
    desk.pages(1, 2)
    assert desk.crawl("--select", "h=h1", to="p.csv").code == 0
    with closing(sqlite3.connect(desk.folder / "p.csv.job" / "ledger.sqlite")) as ledger, ledger:
        (identity,) = ledger.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        changed = bytes(identity).replace(b"h=h1", b"h=newer:h1{{")
        ledger.execute("UPDATE meta SET value = ? WHERE key = 'identity'", (changed,))
    page = read_job(str(desk.folder / "p.csv.job"))
    assert page.records.rows == 2
    (trouble,) = page.records.trouble
    assert trouble.startswith("what was selected is not told: select ")
    assert "newer" in trouble


@pytest.mark.parametrize("name", ["p.csv", "p.sqlite", "p.parquet", "p.jsonl"])
def test_links_and_images_of_tables_of_their_own_are_counted(name: str, desk: Desk) -> None:
    if name == "p.parquet":
        pytest.importorskip("pyarrow")
    desk.lab.add("/linking", page_of("<title>t</title><a href=/a>a</a><a href=/b>b</a>"))
    desk.lab.add("/plain", page_of("<title>t</title>"))
    desk.write([desk.lab.url(f"/{kind}?n={number}") for number, kind in enumerate(["plain", "linking"] * 5)])
    assert desk.crawl("--with", "links,images", to=name).code == 0
    records = read_job(str(desk.folder / f"{name.rstrip('/')}.job")).records
    assert (records.trouble, records.whole) == ([], {"title": 10, "link_list": 5, "image_list": 0})


@pytest.mark.parametrize("name", ["p.csv", "p.sqlite", "p.parquet"])
def test_a_table_that_has_none_of_our_columns_is_told(name: str, desk: Desk) -> None:
    if name == "p.parquet":
        pytest.importorskip("pyarrow")
    desk.pages(1)
    assert desk.crawl(to=name).code == 0
    path = desk.folder / name
    path.unlink()
    if name == "p.csv":
        path.write_text("animal,legs\ncat,4\n")
    elif name == "p.sqlite":
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE animals(legs)")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"legs": [4]}), path)
    (trouble,) = read_job(str(desk.folder / f"{name.rstrip('/')}.job")).records.trouble
    assert "is no output of fetcher" in trouble


def test_a_long_record_is_read_and_a_torn_one_is_counted(tmp_path: Path) -> None:
    line = msgspec.json.encode({"id": 1, "url": "http://a.example/", "error": None, "text": "t" * 200_000})
    (tmp_path / "p.jsonl").write_bytes(line + b"\n" + line + b"\n" + line[:100_000])
    sums = read_records(str(tmp_path / "p.jsonl"), content=["text"])
    assert (sums.rows, sums.whole["text"], sums.unread) == (2, 2, 1)


def test_cells_of_a_csv_are_what_they_were(tmp_path: Path) -> None:
    """Lines within a cell, an apostrophe that keeps a cell from running, and a row that is cut short."""
    text = 'id,url,status,error,message,title\r\n1,http://a.example/,,\'=code,"two\r\nlines",\r\n2,http://b.ex'
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    sums = read_records(str(tmp_path / "p.csv"))
    assert {code: [each.message for each in found] for code, found in sums.examples.items()} == {
        "=code": ["two\r\nlines"]
    }
    assert (sums.rows, sums.unread) == (1, 1)


def test_columns_codes_and_lines_without_number_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with path.open("wb") as file:
        for number in range(2_000):
            data = {f"field{number}-{at}": number for at in range(3)}
            record = {"id": number, "url": "u" * 5_000, "data": data, "content_type": f"a/{number}", "error": None}
            if number % 2:
                record |= {"error": f"code{number}", "message": "m" * 5_000}
            file.write(msgspec.json.encode(record) + b"\n")
        file.write(b"[1]\n" + b'{"url": 5}\n' + b"\xff\n" + b'{"url": "x", "data": 1e999}\n')
    sums = read_records(str(path))
    assert len(sums.columns) == MAX_COLUMNS
    assert sums.left_out > 0
    assert len(sums.examples) == MAX_CODES
    assert max(len(each.url) for found in sums.examples.values() for each in found) <= 300
    assert sums.unread == 4
    assert sums.rows == 2_000
    assert sums.trouble == []


def test_absurd_numbers_are_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "pages.jsonl.job"
    make_job(folder, [entry(number) for number in range(1, 6)])
    values = ["1e308", "-1e308", str(10**400), "0", "5e-324"]
    lines = [
        f'{{"id": {at}, "url": "http://a.example/", "error": null, "data": {{"n": {value}}}}}'
        for at, value in enumerate(values)
    ]
    (tmp_path / "pages.jsonl").write_text("\n".join(lines))
    shutil.move(tmp_path / "pages.jsonl", folder / "p.jsonl")
    page = read_job(str(folder))
    sums = read_records(str(folder / "p.jsonl"))
    checked(render_job(msgspec.structs.replace(page, records=sums)))
    assert sums.columns["n"].low == -1e300


def test_a_selected_name_of_a_table_is_found_where_its_own_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,url,status,error,title,data_title\r\n1,http://a.example/,200,,Own,Selected\r\n")
    sums = read_records(str(path), selected=[SelectedName("title")])
    assert sums.whole["title"] == 1
    assert sums.columns["title"].example == "Selected"


def test_the_page_of_many_rows_is_small(tmp_path: Path) -> None:
    """The judge of a million is ``tests.benchmarks.report_page``; here the same job has five thousand rows."""
    _, _, peak, size = measure(make(tmp_path, 5_000, "jsonl"))
    assert peak < MAX_MB
    assert size < 200_000
    assert checked((tmp_path / "report.html").read_text(encoding="utf-8")).data["input"] == "5000"
