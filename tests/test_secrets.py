"""Secrets stay where they are meant to go: none is in a file, on a stream, in a table or in a traceback (law 7).

Each run gets them in every way a user has, and all that it leaves is searched for every form of every one.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import gzip
import itertools
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher import Config, Fetcher, Request
from fetcher.cli import redaction
from fetcher.cli.redaction import keep, redact
from fetcher.cli.resume_command import resume_command
from fetcher.config import Header, ProxyPolicy
from fetcher.errors import InvalidURL
from fetcher.intake import without_secrets
from fetcher.job.resume import digest_of
from fetcher.urls import erase_userinfo, hide_userinfo, parse, without_userinfo
from tests.lab.command import Ended, Running, run
from tests.lab.proxy import LabProxy
from tests.lab.server import LabServer, refused_port

LISTED = "lister-Qx71:list%20pass%2FZw93%2B"
INPUT = "inputter-Hv55:input-pass-Rt20"
USER = "basic-Kp42:basic pass-Lm88"
COOKIE = "session=cookie-Wd36"
TOKEN = "token-Jb64-Ys19"
HEADER = "header-Fn27-Ug50"
PROXY = "proxier-Ta83:proxy-pass-Ce61"
COLUMN = "columner-Mi90:column-pass-Sv14"


def forms(secret: str) -> Iterator[str]:
    """Yield a secret as given, percent-encoded, decoded and in base64, and its password alone."""
    for whole in {secret, unquote(secret)}:
        for text in {whole, whole.partition(":")[2], whole.partition("=")[2], whole.partition(":")[0]}:
            if len(text) > 5 and text != "session":
                yield from {text, quote(text), quote(text, safe="")}
        yield base64.b64encode(whole.encode()).decode().rstrip("=")


SECRETS = [
    form
    for secret in (LISTED, INPUT, USER, COOKIE, TOKEN, HEADER, PROXY, COLUMN)
    for form in sorted(set(forms(secret)))
]


def found_in(data: bytes) -> list[str]:
    """Return which secrets are in it."""
    return [secret for secret in SECRETS if secret.encode() in data]


def leaks(folder: Path, *ended: Ended) -> list[str]:
    """Return what is found on the streams of the runs and in all files but the lists."""
    found = [f"{name}: {secret}" for run in ended for name in ("out", "err") for secret in found_in(getattr(run, name))]
    for path in folder.rglob("*"):
        if path.is_file() and "list" not in path.name:
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            found += [f"{path.name}: {secret}" for secret in found_in(data)]
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


class Place:
    """A folder with lists full of secrets, and the flags of a run that has more of them."""

    def __init__(self, lab: LabServer, folder: Path, dead_port: int) -> None:
        self.lab, self.folder, self.dead_port = lab, folder, dead_port
        self.host = lab.url("").removeprefix("http://")
        good = [self.secret(path) for path in ("/ok?n=1", "/status/404", "/redirect?to=/echo", "/reset", "/loop")]
        dead = f"http://{LISTED}@127.0.0.1:{dead_port}/"
        bad = [
            f"ftp://{LISTED}@host/", f"{LISTED}@host.example/x", f"http://{LISTED}@[nowhere/", f"http://{LISTED}@",
            f"http://{unquote(LISTED)}@host.example/", f"http://{LISTED}@h/ \r {LISTED}@", f"  //{LISTED}@[",
            f"http:\\\\{LISTED}@{self.host}\\ok?n=2", f"HTTP:{LISTED}@{self.host}/ok?n=3",
        ]  # fmt: skip
        self.rows = len(good) + len(bad) + 1
        (folder / "list.txt").write_bytes("\n".join([*good, dead, *bad, ""]).encode())
        cell = f"http://{COLUMN}@mirror.example/"
        with (folder / "list.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["url", "mirror"], [good[0], cell], [bad[2], cell]])
        (folder / "list.jsonl").write_text(
            json.dumps({"url": good[0], "more": {"mirrors": [cell, {"x": cell}]}})
            + f'\n{{"no": "{good[0]}"}}\n{{"{good[0]}": 1}}\n["{good[0]}"]\nno json: {good[0]}\n'
        )
        self.flags = [
            "-u", f"@{self.host} {USER}", "-b", f"@{self.host} {COOKIE}", "-H", f"@{self.host} X-Thing: {HEADER}",
            "-H", f"@other.example Authorization: Bearer {TOKEN}", "-H", f"X-Api-Token: {TOKEN}", "--retries", "1",
        ]  # fmt: skip

    def secret(self, path: str, host: int = 1) -> str:
        """Return a page of the lab, with a name and a password."""
        return self.lab.url(path, host).replace("//", f"//{LISTED}@")

    def run(self, *words: str, **more: str) -> Ended:
        """Run the command there."""
        return run(*words, folder=self.folder, env=more)


@pytest.fixture
def place(lab: LabServer, tmp_path: Path) -> Iterator[Place]:
    lab.clear()
    with refused_port() as port:
        yield Place(lab, tmp_path, port)


# All that a run leaves


@pytest.mark.parametrize("log", ["text", "json"])
@pytest.mark.parametrize("listed", ["list.txt", "list.csv", "list.jsonl"])
def test_a_job_shows_no_secret(listed: str, log: str, place: Place) -> None:
    words = ["crawl", listed, "-o", "a.jsonl", "-o", "b.csv.gz", "-o", "c.txt", "--summary", "s.json", "-vv"]
    ended = place.run(*words, *place.flags, "--log-format", log)
    assert ended.code in (0, 3), ended.said
    again = place.run(*words, *place.flags, "--retry-failed", "--log-format", log)
    reports = [place.run("report", "a.jsonl", *flags) for flags in ([], ["--json"], ["--hosts", "--errors"])]
    assert leaks(place.folder, ended, again, *reports) == []
    records = [json.loads(line) for line in (place.folder / "a.jsonl").read_bytes().splitlines()]
    assert {record["url"] for record in records} >= {place.lab.url("/ok?n=1")}
    sent = [entry.headers for entry in place.lab.requests("/ok")]
    token = base64.b64encode(unquote(LISTED).encode()).decode()
    assert any(f"Basic {token}" in str(headers) for headers in sent), "the list's own went where it belongs"
    assert any(HEADER in str(headers) and COOKIE in str(headers) for headers in sent)
    if listed == "list.txt":
        assert len(records) == place.rows
        assert sum(record["error"] is None for record in records) == 4
    else:
        assert all("mirror.example" in str(record["fields"]) for record in records if record["error"] is None)


def test_standard_output_shows_no_secret(place: Place) -> None:
    for form in ("text", "jsonl", "csv"):
        ended = place.run("crawl", "list.txt", "-f", form, "-vv", *place.flags)
        assert ended.code == 0
        assert leaks(place.folder, ended) == []


def test_what_is_in_flight_and_the_command_that_continues_show_no_secret(place: Place) -> None:
    url = place.secret("/delay/60000/ok")
    words = ["crawl", f"http://{INPUT}@{place.host}/delay/60000/ok", url, "-o", "a.jsonl", "-vv"]
    with Running(*words, *place.flags, folder=place.folder) as crawl:
        assert place.lab.site.stats.wait(lambda: len(place.lab.requests("/delay")) >= 1, 60)
        crawl.send(signal.SIGUSR1)
        crawl.until_said("in flight: ")
        for _ in range(2):
            crawl.send(signal.SIGINT)
        ended = crawl.end()
    assert ended.code == 130, ended.said
    assert leaks(place.folder, ended) == []
    command = ended.said.splitlines()[-1]
    assert f"'http://***@{place.host}/delay/60000/ok'" in command
    for shown in (f"'@{place.host} ***'", f"'@{place.host} X-Thing: ***'", "'X-Api-Token: ***'"):
        assert shown in command


def test_a_changed_password_is_no_other_list(place: Place) -> None:
    url = place.lab.url("/ok?n=1")
    for userinfo in (INPUT, "another:password", ""):
        listed = url.replace("//", f"//{userinfo}@") if userinfo else url
        ended = place.run("crawl", listed, "-o", "a.jsonl")
        assert ended.code == 0, ended.said
    assert len((place.folder / "a.jsonl").read_bytes().splitlines()) == 1
    with closing(sqlite3.connect(place.folder / "a.jsonl.job" / "ledger.sqlite")) as db:
        (identity,) = db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    assert json.loads(identity)["inputs"] == [url]


@contextmanager
def proxy(status: int) -> Iterator[str]:
    """Run a proxy in a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    end = asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with LabProxy(status=status) as made:
            urls.append(made.url)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        loop.close()


@pytest.mark.parametrize("where", ["flag", "without a scheme", "variable", "file"])
def test_a_proxys_password_is_shown_nowhere(where: str, place: Place) -> None:
    with proxy(407) as url:
        dead = f"127.0.0.1:{place.dead_port}"
        for address in (url.removeprefix("http://"), dead):
            through = f"http://{PROXY}@{address}"
            words: list[str] = []
            more: dict[str, str] = {}
            if where == "variable":
                more = {"HTTP_PROXY": through, "HTTPS_PROXY": through, "http_proxy": through, "https_proxy": through}
            elif where == "file":
                (place.folder / "list-settings.toml").write_text(f'proxy = "{through}"\n')
                words = ["--config", "list-settings.toml"]
            else:
                words = ["-x", through if where == "flag" else through.removeprefix("http://")]
            (place.folder / "list.txt").write_text(f"{place.secret('/ok')}\nhttps://{LISTED}@a.example/\n")
            ended = place.run("crawl", "list.txt", "-o", "a.jsonl", "--fresh", "-vv", *words, "--retries", "0", **more)
            assert ended.code == 3, ended.said
            assert leaks(place.folder, ended) == []


def test_a_bench_shows_no_secret(place: Place) -> None:
    listed = f"http://{INPUT}@{place.host}/ok"
    words = ["bench", listed, place.secret("/random"), "list.txt", "-n", "4", "-c", "2", "--rounds", "1", "-vv"]
    ended = place.run(*words, "--json", "b.json", "--html", "b.html", *place.flags)
    assert ended.code in (0, 1), ended.said
    assert (place.folder / "b.html").stat().st_size > 1000
    assert leaks(place.folder, ended) == []


def test_robots_and_a_dry_run_show_no_secret(place: Place) -> None:
    urls = [place.secret("/ok"), f"http://{INPUT}@127.0.0.1:{place.dead_port}/", f"{INPUT}@host", f"http://{INPUT}@["]
    told = [place.run("robots", *flags, *urls, "--retries", "0", "-vv") for flags in ([], ["--json"])]
    dry = place.run("crawl", "list.txt", urls[0], "--dry-run", "-vv", *place.flags, "--summary", "s.json")
    assert dry.code == 0, dry.said
    assert leaks(place.folder, *told, dry) == []
    assert all(place.lab.url("/ok").encode() in one.out for one in told)


WRONG = [
    ["crawl", f"{INPUT}@host.example"],
    ["crawl", f"ftp://{INPUT}@host.example/"],
    [f"http://{INPUT}@host.example/"],
    ["robots", f"http://{INPUT}@host.example/", "--config", "none.toml"],
    ["crawl", "list.txt", "-u", f"@host:{USER}"],
    ["crawl", "list.txt", "-u", f"@{USER}"],
    ["crawl", "list.txt", "-u", USER],
    ["crawl", "list.txt", "-b", COOKIE],
    ["crawl", "list.txt", "-b", "@host cookie-Wd36"],
    ["crawl", "list.txt", "-H", f"@host X-Thing {HEADER}"],
    ["crawl", "list.txt", "-H", f"Authorization Bearer {TOKEN}"],
    ["crawl", "list.txt", "-H", f"Authorization: Bearer {TOKEN}"],
    ["crawl", "list.txt", "-H", f"@host X-Thing: {HEADER}\x01"],
    ["crawl", "list.txt", "-x", f"ftp://{PROXY}@host"],
    ["crawl", "list.txt", "-x", f"http://{PROXY}/@host:99999"],
    ["crawl", "list.txt", "-x", f"http://{PROXY}@host", "--private-network", "deny"],
    ["crawl", "list.txt", "-o", "none/a.jsonl", "-x", f"http://{PROXY}@host"],
    ["crawl", "list.txt", "--config", "list-user.toml"],
    ["crawl", "list.txt", "--config", "list-header.toml"],
    ["crawl", "list.txt", "--from", "csv"],
    ["crawl", "list.txt", "--from", "jsonl"],
    ["bench", f"{INPUT}@host.example"],
]


@pytest.mark.parametrize("words", WRONG, ids=[" ".join(words[-2:])[:40] for words in WRONG])
def test_what_is_wrong_is_said_without_the_secret(words: list[str], place: Place) -> None:
    (place.folder / "list-user.toml").write_text(f'user = ["@host {USER}", 5]\nproxy = "http://{PROXY}@host"\n')
    (place.folder / "list-header.toml").write_text(f'header = [["X-Thing: {HEADER}"]]\n')
    for flags in ([], ["-vv"]):
        ended = run(*words, *flags, folder=place.folder)
        assert ended.code in (1, 2), ended.said
        assert leaks(place.folder, ended) == []


def test_an_error_of_ours_that_quotes_them_is_redacted(place: Place) -> None:
    """Also where the traceback is asked for, and whatever the user's own function says."""
    (place.folder / "list_quoting.py").write_text(
        "def extract(response):\n    raise RuntimeError(f'{response.request}')\n"
        "async def middleware(request, proceed):\n"
        f"    raise RuntimeError('{USER} {quote(USER)} {base64.b64encode(USER.encode()).decode()} {TOKEN} {PROXY}')\n"
    )
    for flags in (["--extract", "list_quoting:extract"], ["--middleware", "list_quoting:middleware"]):
        for more in ([], ["-vv"]):
            ended = place.run("crawl", "list.txt", "-x", f"http://{PROXY}@{place.host}", *flags, *more, *place.flags)
            assert leaks(place.folder, ended) == []


# The functions


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        ("https://a.example/x@y?q=a@b", "https://a.example/x@y?q=a@b"),
        ("https://u:p@a.example/x@y", "https://a.example/x@y"),
        ("https://u@a.example", "https://a.example"),
        ("https://u:p:q@@a.example:80/", "https://a.example:80/"),
        ("HTTPS:\\\\u:p@a.example\\x", "HTTPS:\\\\a.example\\x"),
        ("http:u:p@a.example", "http:a.example"),
        ("http:////u:p@a.example", "http:////a.example"),
        ("ht\ttp://u:p@a.example", "http://a.example"),
        ("//u:p@a.example/", "//a.example/"),
        ("u:p@a.example/x", "a.example/x"),
        ("u@a.example", "a.example"),
        ("ftp://u:p@a.example/", "ftp://a.example/"),
        ("http://u:p/w@a.example/", "http://a.example/"),
        ("http://u:p#w@a.example/y@z", "http://a.example/y@z"),
        ("http://a.example:8080/@u", "http://a.example:8080/@u"),
        ("http://a.example:/@u", "http://a.example:/@u"),
        ("http://[::1]:80/@u", "http://[::1]:80/@u"),
        ("a.example:80/@u", "a.example:80/@u"),
        ("mailto:me@a.example", "mailto:me@a.example"),
        ("http://u@/u@x", "http:///x"),
    ],
)
def test_a_url_is_shown_without_its_userinfo(listed: str, shown: str) -> None:
    assert without_userinfo(listed) == erase_userinfo(listed) == shown


@pytest.mark.parametrize("part", ["http://u@/", "//a:b", "u@", "u:p@/", "@//a:x", "http://u:p@h/", "a:b/@", "@\r"])
def test_a_row_made_to_be_slow_is_not(part: str) -> None:
    """Twice the length takes about twice as long, and what comes out of it stays."""
    listed = (part * 65_536)[:65_536]
    shown = erase_userinfo(f"http://{listed}")
    assert erase_userinfo(shown) == shown
    assert len(hide_userinfo(f"@{listed}", "***")) > 0


@settings(max_examples=300)
@given(st.text(alphabet="hHtTpPsS:/\\@?#[]u. \t%0é\"'"))
def test_what_is_erased_is_erased_and_what_is_a_url_stays_one(listed: str) -> None:
    shown = erase_userinfo(listed)
    assert erase_userinfo(shown) == shown
    assert digest_of(Request(1, listed)) == digest_of(Request(1, shown))
    listed = f"http:{listed}"  # without a scheme, what follows a name may look like one
    try:
        target = parse(listed)
    except InvalidURL:
        return
    again = parse(without_userinfo(listed))
    assert (again.wire, again.origin) == (target.wire, target.origin)
    assert (again.user, again.password) == (None, None)


@settings(max_examples=100)
@given(st.text(alphabet="abc:%20.-_~!$&'()*+,;=", min_size=6).filter(lambda text: ":" in text[1:-1]))
def test_userinfo_is_hidden_within_any_text(userinfo: str) -> None:
    for text in (
        f"in {userinfo} no",
        f"at http://{userinfo}@host/x, row 3",
        f'"//{userinfo}@host"',
        f"x://{userinfo}@y",
    ):
        hidden = hide_userinfo(text, "***")
        assert ("@" not in text) or f"{userinfo}@" not in hidden
        assert hidden.count("@") == text.count("@")


def test_nothing_shows_itself_with_its_secrets() -> None:
    target = parse(f"https://{LISTED}@a.example/x")
    config = Config.of(
        user=f"@a {USER}", cookie=f"@a {COOKIE}", header=f"@a X-Thing: {HEADER}", proxy=f"http://{PROXY}@p"
    )
    shown = f"{target!r} {config!r} {config}"
    assert found_in(shown.encode()) == []
    assert "with credentials" in repr(target)
    assert "http://p" in repr(config)
    assert repr(Header("X-Team", "crawl")) == "Header('X-Team', 'crawl', host=None, port=None)"
    assert repr(ProxyPolicy()) == "ProxyPolicy(every=None, http=None, https=None, bypass=())"


async def test_a_page_is_returned_without_them(lab: LabServer) -> None:
    url = lab.url("/echo").replace("//", f"//{LISTED}@")
    async with Fetcher(Config.of(robots=False)) as fetcher:
        page = await fetcher.fetch(url)
        assert page.request.url == page.url == lab.url("/echo")
        async with fetcher.stream([url]) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.request.url == lab.url("/echo")
    request = Request(1, "https://a.example/")
    assert without_secrets(request) is request


def test_what_is_kept_is_redacted_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_kept", set())
    given = {
        "user": [f"@a {USER}"], "cookie": (f"@a {COOKIE}",), "header": [f"@a X-Thing: {HEADER}", "X-Team: crawl-team"],
        "proxy": f"http://{PROXY}@p", "verbose": 2, "select": None,
    }  # fmt: skip
    keep(given, [f"http://{INPUT}@a.example/", f"{LISTED}@b.example"])
    for secret in (USER, COOKIE, HEADER, PROXY, INPUT, LISTED):
        for text in itertools.chain(forms(secret)):
            if text not in (secret.partition(":")[0], quote(secret.partition(":")[0])):
                assert text not in redact(f"it says {text}."), text
    assert redact("crawl-team, a.example, http://u:p@host") == "crawl-team, a.example, http://***@host"


def test_the_command_that_continues_has_no_secret() -> None:
    argv = ["fetcher", "crawl", f"https://{INPUT}@a.example/x", "-H", f"@a X-Thing: {HEADER}", f"-x=http://{PROXY}@p"]
    command = resume_command(argv, {"header": [f"@a X-Thing: {HEADER}"], "proxy": f"http://{PROXY}@p"}, fresh=None)
    assert found_in(command.encode()) == []
    assert command.endswith("crawl 'https://***@a.example/x' -H '@a X-Thing: ***' '-x=http://***@p'")
    assert os.path.basename(command.split()[0]) == "fetcher"
