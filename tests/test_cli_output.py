"""What a crawl prints and writes, seen from outside: lines, records, summaries, and what is kept off the terminal."""

from __future__ import annotations

import asyncio
import csv
import gzip
import importlib
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fetcher.demo import Site, SiteProcess
from fetcher.sinks import COLUMNS
from tests.lab.bodies import TEXTS
from tests.lab.command import Ended, run
from tests.lab.server import LabServer

FORBIDDEN = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u061c\u200e\u200f\u2028\u2029"]
FORBIDDEN += [*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]
EVIL = "\x1b]0;owned\x07\x1b[31m\x08\x7f\x85\x9b31m\u202e\u2066\u200f\u2028"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def folder(lab: LabServer, tmp_path: Path) -> Path:
    lab.clear()
    return tmp_path


def listed(folder: Path, *urls: str) -> str:
    (folder / "l.txt").write_text("".join(f"{url}\n" for url in urls), encoding="utf-8")
    return "l.txt"


def records(ended: Ended) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in ended.lines), key=lambda record: int(record["id"]))


def counted_by_aiohttp(urls: list[str]) -> dict[str, tuple[int, str | None]]:
    """Return for each URL the characters that aiohttp counts, and the charset that the header names."""

    async def count(session: aiohttp.ClientSession, url: str) -> tuple[int, str | None]:
        async with session.get(url) as response:
            return len(await response.text(errors="replace")), response.charset

    async def gather() -> list[tuple[int, str | None]]:
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(count(session, url) for url in urls))

    return dict(zip(urls, asyncio.run(gather()), strict=True))


# Text


def test_the_length_is_what_aiohttp_counts(lab: LabServer, folder: Path) -> None:
    urls = [lab.url(f"/charset/{name}?by=header") for name in TEXTS if name != "utf-16"]
    urls += [lab.url(path) for path in ("/ok?size=5000", "/gzip", "/deflate", "/no-length", "/slow-body?gap=0")]
    ended = run("crawl", listed(folder, *urls), folder=folder)
    assert ended.code == 0
    assert sorted(ended.lines) == sorted(f"{url} -> {length}" for url, (length, _) in counted_by_aiohttp(urls).items())


def test_the_length_is_what_aiohttp_counts_of_a_shop(folder: Path) -> None:
    with SiteProcess(Site(hosts=3, pages=60, latency=(0, 0), failures=False)) as site:
        urls = site.urls()
        ended = run("crawl", listed(folder, *urls), "-f", "jsonl", folder=folder)
        counted = counted_by_aiohttp(urls)
    pages = records(ended)
    assert len(pages) == len(urls)
    # Where the header is silent and the page itself names its charset, aiohttp takes UTF-8 all the same.
    alike = [page for page in pages if counted[page["url"]][1] or page["charset"] == "utf-8"]
    assert {page["url"]: page["length"] for page in alike} == {page["url"]: counted[page["url"]][0] for page in alike}
    assert len({page["charset"] for page in alike}) > 1


def test_what_is_no_text_is_counted_in_bytes(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok?type=image/png&charset=")
    assert run("crawl", url, folder=folder).text == f"{url} -> 178 bytes (image/png)\n"


def test_a_failure_is_a_line_with_its_code(lab: LabServer, folder: Path) -> None:
    url = lab.url("/status/404")
    ended = run("crawl", url, lab.url("/ok"), folder=folder)
    assert ended.code == 0, "failed URLs are data"
    assert f"{url} !! http_404: the server answered 404 Not Found" in ended.lines


def test_the_preview_stands_below(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok?title=Hello")
    assert run("crawl", url, "--preview", "30", folder=folder).lines == [
        f"{url} -> 181",
        "    <!doctype html><html><head><ti",
    ]


def test_what_is_selected_stands_below(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok?title=Hello&links=3")
    select = [
        "--select",
        "headline=title",
        "--select",
        "link=a@href",
        "--select",
        "links[]=a@href",
        "--select",
        "no=h6",
    ]
    found = [lab.url(f"/ok?n={n}") for n in range(3)]
    ended = run("crawl", url, *select, folder=folder)
    assert [re.sub(r"> \d+", "> N", line) for line in ended.lines] == [
        f"{url} -> N",
        "    headline: Hello",
        f"    link: {found[0]}",
        f'    links: ["{found[0]}","{found[1]}","{found[2]}"]',
        "    no: null",
    ]
    data = records(run("crawl", url, "-f", "jsonl", *select, folder=folder))[0]["data"]
    assert data == {"headline": "Hello", "link": found[0], "links": found, "no": None}


# Records


def test_a_record_has_every_field(lab: LabServer, folder: Path) -> None:
    url, final = lab.url("/hops/2"), lab.url("/ok")
    before = datetime.now(UTC)
    (page,) = records(run("crawl", url, "-f", "jsonl", folder=folder))
    assert tuple(page) == COLUMNS
    assert COLUMNS == (
        "id", "url", "final_url", "status", "length", "bytes", "content_type", "charset", "title", "links",
        "redirects", "attempts", "elapsed", "waited", "fetched_at", "error", "message", "truncated", "robots", "refresh", "etag",
        "last_modified", "digest", "fields", "data",
    )  # fmt: skip
    assert re.fullmatch(r"xxh3:[0-9a-f]{32}", page.pop("digest"))
    moment, elapsed, waited = page.pop("fetched_at"), page.pop("elapsed"), page.pop("waited")
    assert page == {
        "id": 1, "url": url, "final_url": final, "status": 200, "length": 178, "bytes": 178,
        "content_type": "text/html", "charset": "utf-8", "title": "ok", "links": 0,
        "redirects": [lab.url("/hops/1"), final], "attempts": 1, "error": None, "message": None,
        "truncated": False, "robots": None, "refresh": None, "etag": None, "last_modified": None, "fields": None,
        "data": None,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert abs((datetime.fromisoformat(moment) - before).total_seconds()) < 60
    assert elapsed >= 0 <= waited


def test_the_record_of_a_failure_has_what_is_known(lab: LabServer, folder: Path) -> None:
    urls = [lab.url("/status/404"), lab.url("/loop"), "javascript:x", lab.url("/ok?size=5000")]
    ended = run("crawl", listed(folder, *urls), "-f", "jsonl", "--max-size", "1K", "--retries", "0", folder=folder)
    missing, loop, script, large = records(ended)
    assert (missing["error"], missing["status"], missing["final_url"]) == ("http_404", 404, urls[0])
    assert missing["bytes"] is not None
    assert (loop["error"], loop["status"]) == ("redirect_loop", 302)
    assert (script["error"], script["attempts"], script["final_url"]) == ("invalid_url", 0, None)
    assert (large["error"], large["status"]) == ("too_large", 200)
    for record in (missing, loop, script, large):
        assert tuple(record) == COLUMNS
        assert (record["length"], record["title"], record["links"], record["data"]) == (None, None, None, None)


def test_what_is_truncated_is_marked(lab: LabServer, folder: Path) -> None:
    (page,) = records(
        run("crawl", lab.url("/ok?size=5000"), "-f", "jsonl", "--max-size", "1K", "--truncate", folder=folder)
    )
    assert (page["bytes"], page["length"], page["truncated"], page["error"]) == (1024, 1024, True, None)


def test_a_csv_has_its_header_and_the_lists_columns(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok?title==1%2B1")
    (folder / "l.csv").write_text(f'name,url,title\n"a, b",{url},mine\n+cmd,{lab.url("/status/404")},\n')
    ended = run("crawl", "l.csv", "-f", "csv", "--select", "t=title", folder=folder)
    table = list(csv.reader(io.StringIO(ended.text, newline="")))
    assert table[0] == [*COLUMNS[:-2], "name", "row_title", "t"]
    rows = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
    assert (rows["1"]["name"], rows["1"]["row_title"]) == ("a, b", "mine")
    assert (rows["1"]["title"], rows["1"]["t"]) == ("'=1+1", "'=1+1"), "a spreadsheet would run it"
    assert (rows["2"]["name"], rows["2"]["error"], rows["2"]["redirects"]) == ("'+cmd", "http_404", "[]")


def test_a_csv_of_nothing_has_its_header(lab: LabServer, folder: Path) -> None:
    ended = run("crawl", lab.url("/ok"), "--limit", "0", "-f", "csv", folder=folder)
    assert (ended.code, ended.text) == (0, ",".join(COLUMNS[:-2]) + "\r\n")


def test_fields_come_through(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok")
    (folder / "l.jsonl").write_text(f'{{"link": "{url}", "n": 1, "deep": {{"a": [1, null]}}}}\n"{url}"\n')
    first, second = records(run("crawl", "l.jsonl", "--url-column", "link", "-f", "jsonl", folder=folder))
    assert first["fields"] == {"n": 1, "deep": {"a": [1, None]}}
    assert (second["id"], second["fields"]) == (2, None)


def test_several_outputs_have_the_same_rows(lab: LabServer, folder: Path) -> None:
    names = ["a.jsonl", "a.csv", "a.txt", "a.jsonl.gz", "a.csv.gz", "a.txt.gz"]
    zstd = next((name for name in ("compression.zstd", "backports.zstd") if _importable(name)), None)
    if zstd:
        names += ["a.jsonl.zst", "a.csv.zst", "a.txt.zst"]
    urls = [lab.url(f"/ok?n={n}") for n in range(20)]
    ended = run("crawl", listed(folder, *urls), *[word for name in names for word in ("-o", name)], folder=folder)
    assert (ended.code, ended.out) == (0, b"")
    files = {name: (folder / name).read_bytes() for name in names}
    for name, data in files.items():
        plain, _, packing = name.removeprefix("a.").partition(".")
        if packing == "gz":
            assert gzip.decompress(data) == files[f"a.{plain}"]
        elif packing == "zst":
            assert importlib.import_module(str(zstd)).decompress(data) == files[f"a.{plain}"]
    assert files["a.jsonl"].count(b"\n") == files["a.txt"].count(b"\n") == 20
    assert files["a.csv"].count(b"\r\n") == 21


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def test_stdout_may_be_one_of_several(lab: LabServer, folder: Path) -> None:
    ended = run("crawl", lab.url("/ok"), "-o", "a.jsonl", "-o", "-", folder=folder)
    assert ended.text == f"{lab.url('/ok')} -> 178\n"
    assert json.loads((folder / "a.jsonl").read_text())["url"] == lab.url("/ok")


def test_fresh_overwrites(lab: LabServer, folder: Path) -> None:
    (folder / "a.jsonl").write_text("old\n" * 1000)
    assert run("crawl", lab.url("/ok"), "-o", "a.jsonl", "--fresh", folder=folder).code == 0
    assert json.loads((folder / "a.jsonl").read_text())["id"] == 1


# What is the input


def test_a_list_on_stdin_needs_no_name(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok")
    for arguments in ([], ["-"]):
        ended = run("crawl", *arguments, folder=folder, stdin=f"# list\n{url}\n".encode())
        assert (ended.code, ended.text) == (0, f"{url} -> 178\n")
    packed = run("crawl", "-", "--from", "jsonl", folder=folder, stdin=gzip.compress(f'{{"url": "{url}"}}\n'.encode()))
    assert packed.text == f"{url} -> 178\n"


def test_rows_are_numbered_over_all_inputs(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok")
    (folder / "l.txt").write_text(f"# not counted\n\n{url}?1\n{url}?2\n")
    (folder / "m.csv").write_text(f"url\n{url}?3\n")
    (folder / "n.dat").write_text(f"{url}?6\n")
    ended = run(
        "crawl", "l.txt", "m.csv", f"{url}?4", "-", "n.dat", "-f", "jsonl", folder=folder, stdin=f"{url}?5".encode()
    )
    assert {page["id"]: page["url"].rpartition("?")[2] for page in records(ended)} == {n: str(n) for n in range(1, 7)}


def test_from_wins_over_the_suffix(lab: LabServer, folder: Path) -> None:
    (folder / "l.txt").write_text(f"name\turl\nx\t{lab.url('/ok')}\n")
    (page,) = records(run("crawl", "l.txt", "--from", "tsv", "-f", "jsonl", folder=folder))
    assert page["fields"] == {"name": "x"}


def test_bare_hosts_get_a_scheme(lab: LabServer, folder: Path) -> None:
    bare = lab.url("/ok").removeprefix("http://")
    ended = run("crawl", bare, "--default-scheme", "http", folder=folder)
    assert ended.text == f"{bare} -> 178\n"
    assert run("crawl", listed(folder, bare), "--default-scheme", "http", folder=folder).code == 0


def test_bare_hosts_are_asked_by_the_scheme_they_speak(lab: LabServer, folder: Path) -> None:
    bare = lab.url("/ok").removeprefix("http://")
    ended = run("crawl", bare, "-f", "jsonl", "--summary", "s.json", folder=folder)
    (page,) = records(ended)
    assert (page["url"], page["final_url"], page["attempts"]) == (bare, f"http://{bare}", 1)
    assert json.loads((folder / "s.json").read_text())["by_http"] == 1
    assert "1 row without a scheme went by http" in ended.said
    refused = run("crawl", bare, "-f", "jsonl", "--default-scheme", "https", "--retries", "0", folder=folder)
    (page,) = records(refused)
    assert (refused.code, page["error"]) == (3, "tls_protocol")


def test_a_secret_of_the_command_line_keeps_a_bare_host_from_http(lab: LabServer, folder: Path) -> None:
    bare = lab.url("/ok").removeprefix("http://")
    ended = run("crawl", bare, "-u", "name:password", "--retries", "0", "-f", "jsonl", folder=folder)
    assert [page["error"] for page in records(ended)] == ["tls_protocol"]
    assert not lab.log


def test_the_limit_takes_the_first_rows(lab: LabServer, folder: Path) -> None:
    urls = [lab.url(f"/ok?n={n}") for n in range(9)]
    ended = run("crawl", listed(folder, *urls), "--limit", "3", "--summary", "s.json", folder=folder)
    assert ended.code == 0
    assert sorted(line.split(" ")[0] for line in ended.lines) == urls[:3]
    stats = json.loads((folder / "s.json").read_text())
    assert (stats["input"], stats["more"]) == (3, False)


def test_equal_urls_are_fetched_once(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok")
    (folder / "l.txt").write_text(f"{url}\n{url}#part\n{url.upper().replace('/OK', '/ok')}\n{url}?other\n")
    ended = run("crawl", "l.txt", "--dedupe", "-f", "jsonl", "--max-failed", "0", folder=folder)
    assert ended.code == 0, "a duplicate is no failure"
    assert [record["error"] for record in records(ended)] == [None, "duplicate", "duplicate", None]
    assert len(lab.log) == 2
    assert "4 rows = 2 ok + 0 failed + 2 skipped" in ended.said


# Selection


def test_typed_fields_and_what_the_summary_says_of_them(lab: LabServer, folder: Path) -> None:
    urls = [lab.url(f"/ok?title={n}&links=2") for n in range(3)]
    ended = run(
        "crawl", listed(folder, *urls), "-f", "jsonl", "--summary", "s.json",
        "--select", "n=title:int", "--select", "l[]=a@href", "--select", "gone=.none", "--select", "words=p:int",
        "--select", "link[]=a{to=@@href; at=::text:int}", folder=folder,
    )  # fmt: skip
    assert ended.code == 0
    by_url = {record["url"]: record["data"] for record in records(ended)}
    assert by_url[urls[2]] == {
        "n": 2,
        "l": [lab.url("/ok?n=0"), lab.url("/ok?n=1")],
        "gone": None,
        "words": None,
        "link": [{"to": "/ok?n=0", "at": 0}, {"to": "/ok?n=1", "at": 1}],
    }
    assert "gone: empty on 3 of 3 pages: does its selector fit them?" in ended.said
    assert "words: on 3 pages its text was not of its type" in ended.said
    fields = json.loads((folder / "s.json").read_text())["fields"]
    assert fields["n"] == {"pages": 3, "found": 3, "unconverted": 0}
    assert fields["words"] == {"pages": 3, "found": 0, "unconverted": 3}


# The exit code and the stats


@pytest.mark.parametrize(("rule", "code"), [("0", 3), ("1", 0), ("24%", 3), ("25%", 0), ("24.9%", 3), ("100%", 0)])
def test_more_failures_than_allowed_are_told_by_the_exit_code(
    rule: str, code: int, lab: LabServer, folder: Path
) -> None:
    urls = [lab.url("/status/404"), *(lab.url(f"/ok?{n}") for n in range(3))]
    assert run("crawl", listed(folder, *urls), "--max-failed", rule, folder=folder).code == code


def test_that_every_row_failed_is_told_by_the_exit_code(lab: LabServer, folder: Path) -> None:
    urls = [lab.url("/status/404"), lab.url("/status/500")]
    ended = run("crawl", listed(folder, *urls), "--retries", "0", "--max-failed", "100%", folder=folder)
    assert (ended.code, len(ended.lines)) == (3, 2)


def test_the_books_balance_in_both_summaries(lab: LabServer, folder: Path) -> None:
    urls = [lab.url("/ok"), lab.url("/ok"), lab.url("/status/404"), lab.url("/status/404?x"), "ftp://x/"]
    ended = run("crawl", listed(folder, *urls), "--dedupe", "--summary", "s.json", folder=folder)
    stats = json.loads((folder / "s.json").read_text())
    assert list(stats) == [
        "input", "ok", "failed", "skipped", "pending", "more", "bytes", "seconds", "pages_per_second", "codes",
        "earlier", "by_http", "hosts", "exit", "notes", "fields", "content", "changes", "shard", "listed", "found",
        "unread",
    ]  # fmt: skip
    counts = {key: stats[key] for key in ("input", "ok", "failed", "skipped", "pending", "more", "exit")}
    assert counts == {"input": 5, "ok": 1, "failed": 3, "skipped": 1, "pending": 0, "more": False, "exit": 0}
    assert stats["codes"] == {"http_404": 2, "invalid_url": 1, "duplicate": 1}
    assert (stats["hosts"], stats["notes"]) == ([], [])
    assert ended.said.splitlines()[0].startswith("5 rows = 1 ok + 3 failed + 1 skipped, in ")
    assert ended.said.splitlines()[1].strip().startswith("http_404 2 · ")


def test_the_summary_may_go_to_stdout(lab: LabServer, folder: Path) -> None:
    ended = run("crawl", lab.url("/ok"), "-o", "a.jsonl", "--summary", "-", folder=folder)
    assert json.loads(ended.text)["ok"] == 1


def test_a_list_that_turns_bad_closes_its_books(lab: LabServer, folder: Path) -> None:
    url = lab.url("/ok")
    (folder / "l.csv").write_text(f'url\n{url}\n{url}\n"{url}\n')
    ended = run("crawl", "l.csv", "--summary", "s.json", folder=folder)
    assert ended.code == 2
    assert len(ended.lines) == 2
    assert ended.said.splitlines()[-1] == "fetcher: l.csv:4: a quote is opened and never closed"
    stats = json.loads((folder / "s.json").read_text())
    assert (stats["input"], stats["ok"], stats["more"], stats["exit"]) == (2, 2, True, 2)


# What is told meanwhile


def test_quiet_is_silent(lab: LabServer, folder: Path) -> None:
    ended = run("crawl", lab.url("/ok"), lab.url("/status/404"), "-q", "-k", folder=folder)
    assert (ended.code, ended.err, len(ended.lines)) == (0, b"", 2)


def test_an_unverified_run_is_warned_of(lab: LabServer, folder: Path) -> None:
    ended = run("crawl", lab.url("/ok"), "-k", folder=folder)
    assert ended.said.startswith("fetcher: warning: certificates are not verified (--insecure)\n")


def test_verbose_tells_of_parked_hosts_and_retries(lab: LabServer, folder: Path) -> None:
    urls = [lab.url("/retry-after/told?after=0.2&header=0"), lab.url("/flaky/told?fail=1&status=500", host=2)]
    ended = run("crawl", *urls, "-v", folder=folder)
    assert ended.code == 0
    assert re.search(r"^fetcher: parked: 127\.0\.0\.1 for \d", ended.said, re.MULTILINE)
    assert re.search(r"^fetcher: row 2: .*again in \d", ended.said, re.MULTILINE)
    told = run("crawl", lab.url("/retry-after/again?after=0.2&header=0"), folder=folder).said
    assert "fetcher: parked" not in told
    assert re.search(r"^  127\.0\.0\.1: 2 requests; 1 refused, parked for \d", told, re.MULTILINE)


def test_json_is_spoken_by_every_line(lab: LabServer, folder: Path) -> None:
    url = lab.url("/retry-after/json?after=0.2&header=0")
    ended = run("crawl", url, "-v", "-k", "--log-format", "json", folder=folder)
    lines = [json.loads(line) for line in ended.said.splitlines()]
    assert lines[0]["level"] == "warning"
    assert any(line["logger"] == "fetcher.hosts" and line["message"].startswith("parked: ") for line in lines)
    assert lines[-1]["summary"]["ok"] == 1
    assert all(re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z", line["time"]) for line in lines)
    assert ended.err.isascii()


def test_json_is_spoken_of_errors_too(folder: Path) -> None:
    for arguments in (["nowhere.txt"], ["--demo", "x"], ["http://127.0.0.1:9/", "-o", "no/x.csv"]):
        ended = run("crawl", *arguments, "--log-format", "json", folder=folder)
        assert ended.code in (1, 2)
        (line,) = ended.said.splitlines()
        assert json.loads(line)["level"] == "error"


# The terminal


def test_nothing_steers_the_terminal(lab: LabServer, folder: Path) -> None:
    """C0, C1 and bidirectional characters in a URL, title, preview, header, reason and Location."""
    sent = "".join(f"%{byte:02x}" for byte in EVIL.encode())
    urls = [
        lab.url("/control?where=title,header,reason"),
        lab.url(f"/ok?title={sent}"),
        lab.url(f"/ok?type=image/{sent}&charset="),
        *(lab.url(f"/redirect?to={scheme}{sent}") for scheme in ("", "http://h", "ftp://h/", "//", "/ok?")),
        lab.url(f"/bad-location?v=http://[::1{sent}"),
        lab.url(f"/bad-header?v=X{sent}"),
        lab.url(f"/bad-status-line?v={sent}"),
        lab.url(f"/bad-status-line?v=HTTP/1.1%20404%20{sent}"),
        lab.url(f"/ok?{EVIL}"),
        f"http://{EVIL}/",
        f"java{EVIL}script:x",
        EVIL,
    ]
    (folder / "l.txt").write_bytes("\n".join(urls).encode() + b"\nhttp://127.0.0.1/\xff\x1b[31m\n")
    flags = ["--preview", "500", "--select", "t=title", "--select", "all[]=title", "-vv", "--retries", "1"]
    ended = run("crawl", "l.txt", *flags, folder=folder)
    assert ended.code == 0
    assert ended.lines
    assert "\\x1b]0;owned\\x07" in ended.text, "it was there to be seen"
    for shown in (ended.text, ended.said):
        assert [char for char in FORBIDDEN if char in shown.replace("\n", "")] == []


def test_very_verbose_shows_where_a_row_failed(lab: LabServer, folder: Path) -> None:
    (folder / "l.txt").write_text(f"{lab.url('/cut-body')}\n")
    ended = run("crawl", "l.txt", "-vv", "--retries", "0", folder=folder)
    assert f"fetcher: {lab.url('/cut-body')} failed\n" in ended.said
    assert "Traceback (most recent call last):" in ended.said
    assert "ClientPayloadError" in ended.said, "its cause too"
    ended = run("crawl", "l.txt", "-v", "--retries", "0", folder=folder)
    assert "Traceback" not in ended.said


def test_a_list_that_cannot_be_read_steers_no_terminal(folder: Path) -> None:
    (folder / "l.csv").write_text(f"a{EVIL}\nb\n".replace("\u2028", "").replace("\x85", ""))
    for arguments in (["l.csv"], ["l.csv", "--url-column", EVIL], [f"{EVIL}.txt"], ["--config", EVIL, "l.csv"]):
        ended = run("crawl", *arguments, folder=folder)
        assert ended.code == 2
        assert [char for char in FORBIDDEN if char in ended.said.replace("\n", "")] == []
