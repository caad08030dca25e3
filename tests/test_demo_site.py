"""The built-in site: what it promises on the wire, in its log, and about its process."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp
import brotli
import msgspec
import pytest

from fetcher.demo import BUSY, GONE, MOVED, PARTNER, Site, SiteProcess, expected, latency_of, urls
from fetcher.demo.server import AccessLogEntry, accepted_codings, listen, serve
from fetcher.demo.shop import shop_pages
from fetcher.demo.site import addresses, has_many_loopbacks, page_at
from fetcher.errors import ConfigError, FetcherError

ROOT = Path(__file__).resolve().parents[1]
QUICK = Site(hosts=3, pages=80, latency=(0.0, 0.0))
CODINGS: dict[str | None, Callable[[bytes], bytes]] = {
    None: lambda body: body,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
}


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def text(self) -> str:
        """Decode by the charset of the header, else of the meta element."""
        body = CODINGS[self.headers["Content-Encoding"]](self.body)
        declared = re.search(r"charset=([\w-]+)", self.headers["Content-Type"])
        if declared:
            return body.decode(declared[1])
        meta = re.search(rb"<meta [^>]*charset=\"?([\w-]+)", body[:1024])
        assert meta
        return body.decode(meta[1].decode())


def get(url: str, method: str = "GET", **headers: str) -> Reply:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def wait_until(true: Callable[[], bool], deadline: float = 30.0) -> None:
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, "the deadline has passed"
        time.sleep(0.01)


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Reader(HTMLParser):
    """Reads what a browser would see of a page: hrefs, and the elements a user selects."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.seen: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            self.hrefs.append(given["href"] or "")
        self.seen[f"{tag}.{given.get('class')}"] += 1


@pytest.fixture(scope="module")
def shop() -> Iterator[SiteProcess]:
    with SiteProcess(QUICK) as process:
        yield process


def test_every_page_decodes_to_what_is_expected_of_it(shop: SiteProcess) -> None:
    seen: Counter[str] = Counter()
    for url in shop.urls():
        path = urlsplit(url).path
        reply = get(url, Accept_Encoding="gzip, br")
        if path in (MOVED, PARTNER):
            reply = get(urljoin(url, reply.headers["Location"]), Accept_Encoding="gzip, br")
        elif path == BUSY and reply.status == 503:
            reply = get(url)
        status, length, title, links = expected(shop.site, path)
        text = reply.text()
        found = re.search(r"<title>(.*?)</title>", text)
        assert found
        assert (reply.status, len(text), unescape(found[1]), len(Reader(text).hrefs)) == (status, length, title, links)
        seen[str(reply.headers["Content-Encoding"])] += 1
        seen["header" if "charset" in reply.headers["Content-Type"] else "meta"] += 1
    assert min(seen[kind] for kind in ("None", "gzip", "br", "header", "meta")) >= 5


def test_the_shop_has_every_charset_both_by_header_and_by_meta() -> None:
    documents = shop_pages(80, 1).values()
    for charset in ("windows-1252", "iso-8859-2", "shift_jis", "koi8-r", "utf-8"):
        pages = [document for document in documents if document.charset == charset]
        assert {("charset" in page.content_type) for page in pages} == {True, False}, charset
        assert all(not page.body.isascii() for page in pages if charset != "utf-8"), charset


def test_the_japanese_reads_the_same_in_the_webs_shift_jis() -> None:
    for document in shop_pages(300, 1).values():
        if document.charset == "shift_jis":
            assert document.body.decode("cp932") == document.text


@pytest.mark.parametrize("pages", [1, 2, 3, 13, 14, 300])
def test_the_shop_has_as_many_pages_as_asked_and_lengths_differ(pages: int) -> None:
    documents = shop_pages(pages, 7)
    assert len(documents) == pages
    assert next(iter(documents)) == "/"
    assert len({len(document.text) for document in documents.values()}) > pages * 0.9 - 1


def test_another_seed_draws_another_shop() -> None:
    assert shop_pages(30, 1) is shop_pages(30, 1)
    assert {path: page.text for path, page in shop_pages(30, 1).items()} != {
        path: page.text for path, page in shop_pages(30, 2).items()
    }


def test_what_a_user_selects_is_there() -> None:
    for path, document in shop_pages(80, 1).items():
        seen = Reader(document.text).seen
        assert (seen["h1.name"], seen["img.hero"]) == (1, 1)
        if path.startswith("/coffee/"):
            assert seen["span.price"] >= 1
            assert 1 <= seen["li.tag"] <= 3


def test_every_link_and_image_leads_somewhere(shop: SiteProcess) -> None:
    for path, document in shop_pages(shop.site.pages, shop.site.seed).items():
        for href in Reader(document.text).hrefs:
            target = urlsplit(urljoin(f"http://127.0.0.1{path}", href))
            assert target.scheme == "mailto" or page_at(shop.site, target.path)[0] == 200, href
    image = get(f"http://127.0.0.1:{shop.port}/img/shop.png")
    assert (image.status, image.headers["Content-Type"], image.body[:4]) == (200, "image/png", b"\x89PNG")


def test_a_coding_is_sent_only_to_those_who_accept_it(shop: SiteProcess) -> None:
    url = f"http://127.0.0.1:{shop.port}/"
    plain, packed = get(url), get(url, Accept_Encoding="gzip")
    assert (plain.headers["Content-Encoding"], packed.headers["Content-Encoding"]) == (None, "gzip")
    assert gzip.decompress(packed.body) == plain.body
    assert get(url, Accept_Encoding="gzip;q=0, br").headers["Content-Encoding"] is None
    assert get(url, method="HEAD").body == b""


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        ("", {""}),
        ("gzip", {"gzip"}),
        ("GZip, br;q=0.1", {"gzip", "br"}),
        ("gzip;q=0, br; q=0.000", set()),
        ("br;q=1.0", {"br"}),
    ],
)
def test_accept_encoding_is_read_with_its_weights(header: str, codings: set[str]) -> None:
    assert accepted_codings(header) == codings


def test_the_honest_failures(shop: SiteProcess) -> None:
    first, second = (f"http://{host}:{port}" for host, port in addresses(2, shop.port))
    assert get(first + GONE).status == 404
    moved = get(first + MOVED)
    assert moved.status == 301
    assert get(urljoin(first, moved.headers["Location"])).status == 200
    partner = get(first + PARTNER)
    assert partner.status == 302
    assert partner.headers["Location"].startswith(second + "/")
    assert get(partner.headers["Location"]).status == 200
    assert get(first + "/robots.txt").status == 404


def test_the_503_recovers_on_the_second_request_of_each_host(shop: SiteProcess) -> None:
    origin = f"http://127.0.0.1:{shop.port}{BUSY}"
    while get(origin).status != 200:
        pass
    replies = [get(origin) for _ in range(4)]
    assert [reply.status for reply in replies] == [503, 200, 503, 200]
    assert [reply.headers["Retry-After"] for reply in replies] == ["1", None, "1", None]


def test_a_site_without_failures_lists_and_has_none() -> None:
    site = Site(pages=20, failures=False)
    assert len(urls(site, 1)) == 20
    assert {expected(site, urlsplit(url).path).status for url in urls(site, 1)} == {200}
    assert [expected(site, path).status for path in (GONE, BUSY, MOVED, PARTNER)] == [404] * 4


def test_the_list_is_seeded_even_and_as_long_as_asked() -> None:
    site = Site(hosts=4, pages=40)
    listed = urls(site, 8000)
    assert len(listed) == len(set(listed)) == 44
    assert listed == urls(site, 8000)
    assert listed != urls(msgspec.structs.replace(site, seed=2), 8000)
    long = urls(site, 8000, 1000)
    assert len(long) == len(set(long)) == 1000
    assert [urls(site, 8000, n) for n in (0, 1, 30, 60)] == [long[:n] for n in (0, 1, 30, 60)]
    hosts = Counter(urlsplit(url).netloc for url in listed if page_at(site, urlsplit(url).path)[0] == 200)
    assert len(hosts) == 4 or not has_many_loopbacks()
    assert set(Counter(urlsplit(url).hostname for url in urls(Site(failures=False), 1)).values()) <= {30, 300}


def test_the_failures_are_early_in_the_list_of_any_size() -> None:
    for pages in (1, 10, 300):
        early = {urlsplit(url).path for url in urls(Site(pages=pages), 1)[:40]}
        assert {GONE, BUSY, MOVED, PARTNER} <= early


def test_a_longer_list_is_served_too(shop: SiteProcess) -> None:
    last = shop.urls(1000)[-1]
    assert "?visit=" in last
    assert len(get(last).text()) == expected(shop.site, urlsplit(last).path).length


def test_robots_txt_is_what_it_is_told_to_be() -> None:
    with SiteProcess(Site(hosts=2, pages=1, latency=(0, 0), robots="User-agent: *\nDisallow: /gifts\n")) as process:
        for url in {urljoin(url, "/robots.txt") for url in process.urls()}:
            reply = get(url)
            assert (reply.status, reply.text()) == (200, "User-agent: *\nDisallow: /gifts\n")


def test_a_line_in_the_log_for_each_request_before_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "site.log"
    with SiteProcess(Site(hosts=2, pages=20, latency=(0, 0), log=str(path))) as process:
        listed = process.urls()
        for number, url in enumerate(listed, start=1):
            reply = get(url, User_Agent=f"test/{number}", Cookie="a=b", Authorization="Basic eDp5")
            log = process.log()
            assert len(log) == number
            assert log[-1]["status"] == reply.status
    assert path.stat().st_mode & 0o077 == 0
    assert process.log() == log
    for number, (url, entry) in enumerate(zip(listed, log, strict=True), start=1):
        visit = msgspec.convert(entry, AccessLogEntry)
        parts = urlsplit(url)
        assert (visit.host, visit.port, visit.path, visit.method) == (parts.hostname, parts.port, parts.path, "GET")
        assert (visit.in_flight, visit.host_in_flight) == (1, 1)
        assert visit.end >= visit.start
        headers = {name: visit.headers[name] for name in ("user-agent", "cookie", "authorization", "accept-encoding")}
        assert headers == {
            "user-agent": f"test/{number}",
            "cookie": "a=b",
            "authorization": "Basic eDp5",
            "accept-encoding": "identity",
        }


async def fetch_together(listed: list[str]) -> None:
    async with aiohttp.ClientSession() as session:

        async def fetch(url: str) -> None:
            async with session.get(url) as response:
                await response.read()

        await asyncio.gather(*(fetch(url) for url in listed))


async def test_requests_in_flight_are_counted_over_all_hosts_and_for_each() -> None:
    # Eight arrivals have half a second to meet.
    async with SiteProcess(Site(hosts=2, pages=10, latency=(0.5, 0.5))) as process:
        if not has_many_loopbacks():
            pytest.skip("the machine has one loopback address")
        origins = [f"http://{host}:{port}" for host, port in addresses(2, process.port)]
        paths = list(shop_pages(10, 1))
        listed = [origins[0] + path for path in paths[:5]] + [origins[1] + path for path in paths[:3]]
        await fetch_together(listed)
        log = process.log()
        assert sorted(entry["in_flight"] for entry in log) == list(range(1, 9))
        for host, most in (("127.0.0.1", 5), ("127.0.0.2", 3)):
            counts = [entry["host_in_flight"] for entry in log if entry["host"] == host]
            assert sorted(counts) == list(range(1, most + 1))
        await fetch_together(listed[:1])
        assert process.log()[-1]["in_flight"] == 1


async def test_one_worker_serves_one_at_a_time_and_the_others_queue() -> None:
    async with SiteProcess(Site(hosts=1, pages=10, latency=(0.05, 0.05), workers=1)) as process:
        origin = f"http://127.0.0.1:{process.port}"
        await fetch_together([origin + path for path in shop_pages(10, 1)][:5])
        served = sorted(process.log(), key=lambda entry: entry["end"])
    assert len(served) == 5
    for before, after in itertools.pairwise(served):
        assert after["start"] + after["queued"] >= before["end"] - 1e-6


def test_latency_is_drawn_by_the_seed() -> None:
    def draws(site: Site) -> dict[str, float]:
        with SiteProcess(site) as process:
            for url in process.urls(12):
                get(url)
            log = process.log()
        assert all(entry["service"] >= entry["latency"] - 0.001 for entry in log)
        return {entry["path"]: entry["latency"] for entry in log}

    site = Site(hosts=2, pages=12, latency=(0.001, 0.02), failures=False)
    first = draws(site)
    assert first == draws(site) == {path: latency_of(site, path) for path in first}
    assert len(set(first.values())) == 12
    assert all(0.001 <= seconds <= 0.02 for seconds in first.values())
    assert all(latency_of(msgspec.structs.replace(site, seed=2), path) != first[path] for path in first)


def test_a_request_whose_client_left_is_no_longer_in_flight() -> None:
    site = Site(hosts=1, pages=300, latency=(0.0, 60.0))
    paths = sorted(shop_pages(300, 1), key=lambda path: latency_of(site, path))
    with SiteProcess(site) as process:
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as left:
            left.sendall(f"GET {paths[-1]} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            quick = f"http://127.0.0.1:{process.port}{paths[0]}"
            # Whoever comes while the first one waits counts two.
            wait_until(lambda: get(quick).status == 200 and process.log()[-1]["in_flight"] == 2)
        wait_until(lambda: process.log()[-1]["status"] is None)
        entry = process.log()[-1]
        assert (entry["path"], entry["status"]) == (paths[-1], None)


def test_the_process_is_gone_after_the_block() -> None:
    with SiteProcess(QUICK) as process:
        pid, port = process.pid, process.port
        assert not refuses(port)
    assert refuses(port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="with SiteProcess"):
        _ = process.pid


def test_the_process_is_gone_after_an_error_in_the_block() -> None:
    with pytest.raises(ZeroDivisionError), SiteProcess(QUICK) as process:
        pid = process.pid
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_the_process_is_gone_after_its_owner_is_killed() -> None:
    script = (
        "from fetcher.demo import *\n"
        "with SiteProcess(Site(pages=5)) as process:\n"
        "    print(process.port, process.site.log, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as owner:
        assert owner.stdout is not None
        words = owner.stdout.readline().split()
        port, log = int(words[0]), Path(words[1].decode())
        assert not refuses(port)
        assert log.exists()
        owner.kill()
        owner.wait()
    wait_until(lambda: refuses(port) and not log.parent.exists())


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_it_says_one_line_outlives_ctrl_c_and_ends_with_its_standard_input() -> None:
    settings = msgspec.json.encode(Site(hosts=2, pages=5, latency=(0, 0))).decode()
    with subprocess.Popen(
        [sys.executable, "-m", "fetcher.demo.server", settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.fullmatch(rb"ready \d+\n", line.replace(b"\r", b""))
        process.send_signal(signal.SIGINT)
        for url in urls(Site(hosts=2, pages=5), int(line.split()[1])):
            get(url)
        rest, complaints = process.communicate(timeout=30)
    assert (rest, complaints, process.returncode) == (b"", b"", 0)


def test_a_site_that_cannot_start_says_why() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = SiteProcess(Site(port=taken.getsockname()[1]))
        with pytest.raises(FetcherError, match=r"did not start \(exit 1\)(.|\n)*in use"):
            process.__enter__()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_site_that_ended_by_itself_is_an_error_at_the_end_of_the_block() -> None:
    with pytest.raises(FetcherError, match=r"ended by itself \(exit -9\)"), SiteProcess(QUICK) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its socket is closed a moment before that


async def test_a_cancelled_start_leaves_no_process() -> None:
    process = SiteProcess(QUICK)

    async def enter() -> None:
        async with process:
            raise AssertionError("it was cancelled before")

    task = asyncio.create_task(enter())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError):
        _ = process.pid
    assert process.port == 0 or refuses(process.port)


async def test_serve_runs_until_cancelled(tmp_path: Path) -> None:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    site = Site(hosts=2, pages=5, latency=(0, 0), log=str(tmp_path / "log"))
    serving = asyncio.create_task(serve(site, ready.set_result))
    port = await ready
    await fetch_together([f"http://127.0.0.1:{port}/"])
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert refuses(port)
    assert len((tmp_path / "log").read_bytes().splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
async def test_serve_ends_on_sigterm_with_requests_under_way(tmp_path: Path) -> None:
    ports: list[int] = []
    site = Site(hosts=1, pages=5, latency=(60, 60), log=str(tmp_path / "log"))

    def ready(port: int) -> None:
        ports.append(port)
        os.kill(os.getpid(), signal.SIGTERM)

    await asyncio.wait_for(serve(site, ready), 30)
    assert refuses(ports[0])


def test_the_site_listens_on_loopback_only() -> None:
    for many in (None, False):
        sockets = listen(4, 0, many=many)
        try:
            names = [bound.getsockname() for bound in sockets]
            assert all(host.startswith("127.") for host, _ in names)
            assert names == addresses(4, names[0][1], many=many)
        finally:
            for bound in sockets:
                bound.close()


def test_one_loopback_address_means_a_port_for_each_host() -> None:
    assert addresses(3, 9000, many=False) == [("127.0.0.1", 9000), ("127.0.0.1", 9001), ("127.0.0.1", 9002)]
    assert addresses(256, 9000, many=True)[252:] == [
        ("127.0.0.253", 9000), ("127.0.0.254", 9000), ("127.0.1.1", 9000), ("127.0.1.2", 9000),
    ]  # fmt: skip
    with pytest.raises(OSError, match="no port 65536"):
        listen(2, 65535, many=False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hosts": 0}, "hosts"),
        ({"pages": 0}, "pages"),
        ({"pages": 10_001}, "pages"),
        ({"latency": (0.2, 0.1)}, "latency"),
        ({"latency": (-1.0, 0.1)}, "latency"),
        ({"latency": (0.0, float("nan"))}, "latency"),
        ({"workers": 0}, "workers"),
        ({"port": 70_000}, "port"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: "):
        Site(**settings)
