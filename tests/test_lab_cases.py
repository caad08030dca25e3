"""Each case of the lab sends the bytes it promises, read from a raw socket."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import re
import zlib
from collections.abc import AsyncIterator

import pytest

from tests.lab.ask import Answer, ask, connect, request
from tests.lab.bodies import TEXTS, prose
from tests.lab.cases import FAULTS, ok_page
from tests.lab.exchange import CASES, case
from tests.lab.faults import PAGE
from tests.lab.server import LabServer

OK = "HTTP/1.1 200 OK\r\n"
HTML = "Content-Type: text/html; charset=utf-8\r\n"
CLOSE = "Connection: close\r\n\r\n"
SIZE = len(PAGE)

WIRE = {
    "/slow-headers?n=1&gap=0.001": f"{OK}{HTML}Content-Length: {SIZE}\r\nX-Slow-0: 1\r\n{CLOSE}{PAGE}",
    "/slow-body?chunks=2&gap=0.001&size=3": f"{OK}{HTML}Transfer-Encoding: chunked\r\n{CLOSE}"
    "3\r\nxxx\r\n3\r\nxxx\r\n0\r\n\r\n",
    "/drip?n=5&gap=0.001": f"{OK}{HTML}Content-Length: 5\r\n{CLOSE}xxxxx",
    "/cut-body?size=9&sent=4": f"{OK}{HTML}Content-Length: 9\r\n{CLOSE}xxxx",
    "/cut-chunked": f"{OK}{HTML}Transfer-Encoding: chunked\r\n{CLOSE}4\r\nxxxx\r\n",
    "/cut-chunked?inside=1": f"{OK}{HTML}Transfer-Encoding: chunked\r\n{CLOSE}64\r\nxxxx",
    "/cut-headers": f"{OK}Content-Type: text/html\r\nContent-Le",
    "/empty": "",
    "/malformed": "\x00\x01SSH-2.0-garbage\r\n\xff\xfe\r\n\r\n",
    "/bad-status-line": f"HTTP/1.1 abc Nope\r\nContent-Length: {SIZE}\r\n\r\n{PAGE}",
    "/bad-status-line?v=ICY+200+OK": f"ICY 200 OK\r\nContent-Length: {SIZE}\r\n\r\n{PAGE}",
    "/bad-header": f"{OK}this header has no colon\r\nContent-Length: {SIZE}\r\n\r\n{PAGE}",
    "/bad-header?v=A%00B%FF": f"{OK}A\x00B\xff\r\nContent-Length: {SIZE}\r\n\r\n{PAGE}",
    "/bad-length": f"{OK}{HTML}Content-Length: many\r\n\r\n{PAGE}",
    "/bad-length?kind=negative": f"{OK}{HTML}Content-Length: -5\r\n\r\n{PAGE}",
    "/bad-length?kind=two": f"{OK}{HTML}Content-Length: {SIZE}\r\nContent-Length: 7\r\n\r\n{PAGE}",
    "/bad-chunk": f"{OK}{HTML}Transfer-Encoding: chunked\r\n{CLOSE}4\r\nxxxx\r\nzz\r\nyyyy\r\n0\r\n\r\n",
    "/huge-header?size=9": f"{OK}{HTML}Content-Length: {SIZE}\r\nX-Huge: hhhhhhhhh\r\n{CLOSE}{PAGE}",
    "/many-headers?n=2": f"{OK}{HTML}Content-Length: {SIZE}\r\nX-Many-0: m\r\nX-Many-1: m\r\n{CLOSE}{PAGE}",
    "/101": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: lab\r\nConnection: Upgrade\r\n"
    "Connection: close\r\n\r\nlab lab lab",
    "/informational": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    f"{OK}{HTML}Content-Length: {SIZE}\r\n{CLOSE}{PAGE}",
    "/no-length": f"{OK}{HTML}\r\n{PAGE}",
    "/http10": f"HTTP/1.0 200 OK\r\n{HTML}\r\n{PAGE}",
    "/lf-only": f"{OK}{HTML}Content-Length: {SIZE}\r\n{CLOSE}".replace("\r\n", "\n") + PAGE,
    "/status/204": f"HTTP/1.1 204 No Content\r\n{CLOSE}",
    "/status/599?retry-after=soon": "HTTP/1.1 599 Unnamed\r\n" + HTML + "Content-Length: 18\r\n"
    f"Retry-After: soon\r\n{CLOSE}<title>599</title>",
    "/no-location": f"HTTP/1.1 302 Found\r\n{HTML}Content-Length: 18\r\n{CLOSE}<title>302</title>",
    "/control?where=header": f"{OK}{HTML}Content-Length: 34\r\nConnection: close\r\n"
    "X-Control: a\x1b]0;owned\x07\x1b[31mred\x08\x7fb\r\n\r\n<!doctype html><title>calm</title>",
}

LOCATIONS = {
    "/redirect": (302, ["/ok"]),
    "/redirect?to=http%3A%2F%2Fh%2F%E4%F6?a&status=308": (308, ["http://h/\xe4\xf6?a"]),
    "/hops/2": (302, ["/hops/1"]),
    "/hops/1?status=301": (301, ["/ok?status=301"]),
    "/loop": (302, ["/loop"]),
    "/loop2/a": (302, ["/loop2/b"]),
    "/loop2/b": (302, ["/loop2/a"]),
    "/two-locations": (302, ["/ok?n=1", "/ok?n=2"]),
    "/no-location?status=301": (301, []),
    "/bad-location": (302, ["http://[::1"]),
    "/bad-location?v=": (302, [""]),
    "/set-cookie-then?to=/x": (302, ["/x"]),
    "/cookie-gate": (302, ["/cookie-gate"]),
}

ASKED_BELOW = {
    "/ok", "/flaky", "/delay", "/keep-alive-close", "/silent", "/reset", "/reset-body", "/throttle", "/retry-after",
    "/random", "/gzip", "/gzip-cut", "/gzip-bad-crc", "/gzip-bomb", "/deflate", "/br", "/zstd", "/stacked",
    "/unknown-encoding", "/bytes", "/big", "/charset",
}  # fmt: skip
ASKED_BESIDE = {"/echo", "/connection-count", "/robots.txt"}


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer() as lab:
        yield lab


def test_every_case_is_tested() -> None:
    tabled = {"/" + target.split("?")[0].split("/")[1] for target in (*WIRE, *LOCATIONS)}
    assert set(CASES) == tabled | ASKED_BELOW | ASKED_BESIDE
    with pytest.raises(ValueError, match="two cases for /ok"):
        case("/ok")(CASES["/echo"])


@pytest.mark.parametrize("target", WIRE)
async def test_the_wire_carries_exactly(lab: LabServer, target: str) -> None:
    assert await ask(lab.url(target)) == Answer(WIRE[target].encode("latin-1"))


@pytest.mark.parametrize("target", LOCATIONS)
async def test_redirects_point_where_they_say(lab: LabServer, target: str) -> None:
    answer = await ask(lab.url(target))
    assert (answer.status, answer.headers("Location")) == LOCATIONS[target]


async def test_hops_go_over_hosts_and_end_at_ok(lab: LabServer) -> None:
    assert (await ask(lab.url("/hops/0"))).body.decode() == ok_page()
    url, seen = lab.url("/hops/5?hosts=3"), []
    while locations := (await ask(url)).headers("Location"):
        (url,) = locations
        seen.append(url)
    assert len(seen) == 5
    assert seen[0] == lab.url("/hops/4?hosts=3", 3)
    assert seen[-1] == lab.url("/ok?hosts=3", 2)


async def test_pages_are_as_large_and_coded_as_asked(lab: LabServer) -> None:
    answer = await ask(lab.url("/ok?size=5000&title=T&links=2&charset=utf-16-le&type=text/x"))
    assert answer.body.decode("utf-16-le") == ok_page(5000, "T", 2)
    assert answer.headers("Content-Type") == ["text/x; charset=utf-16-le"]
    assert len(ok_page(5000)) - len(ok_page(0)) == 5000
    assert (await ask(lab.url("/ok?charset="))).headers("Content-Type") == ["text/html"]
    odd = await ask(lab.url("/ok?charset=x-odd&title=%C3%A4"))
    assert (odd.headers("Content-Type"), odd.body.decode()) == (["text/html; charset=x-odd"], ok_page(100, "ä"))
    control = await ask(lab.url("/control?where=title,reason"))
    assert control.head.startswith("HTTP/1.1 200 OK\x1b]0;owned\x07")
    assert "\x9b31m\u202e" in control.body.decode()


async def test_cookies_open_the_gate(lab: LabServer) -> None:
    (cookie,) = (await ask(lab.url("/cookie-gate"))).headers("Set-Cookie")
    assert (await ask(lab.url("/cookie-gate"), f"Cookie: {cookie.split(';')[0]}")).status == 200
    given = await ask(lab.url("/set-cookie-then?cookie=a%3Db%3B+Domain%3Dco.uk"))
    assert given.headers("Set-Cookie") == ["a=b; Domain=co.uk"]


async def test_flaky_fails_first_as_it_was_told(lab: LabServer) -> None:
    url = lab.url("/flaky/a?fail=2&status=500&retry-after=7")
    answers = [await ask(url) for _ in range(3)]
    assert [(answer.status, answer.headers("Retry-After")) for answer in answers] == [
        (500, ["7"]), (500, ["7"]), (200, []),
    ]  # fmt: skip
    assert [(await ask(lab.url("/flaky/b?fail=1&as=/reset"))).reset for _ in range(2)] == [True, False]


async def test_delay_waits_and_is_then_another_case(lab: LabServer) -> None:
    assert (await ask(lab.url("/delay/30/status/503?retry-after=4"))).headers("Retry-After") == ["4"]
    assert (await ask(lab.url("/delay/0"))).status == 200
    entry = lab.log[0]
    assert entry.t_end is not None
    assert entry.t_end - entry.t > 0.029  # the loop's clock may fire a tick early


@pytest.mark.parametrize(("target", "came"), [("/silent", 0), ("/silent?after=head", 0), ("/silent?after=body", 500)])
async def test_silence_lasts_until_the_client_leaves(lab: LabServer, target: str, came: int) -> None:
    with await connect(lab.url("/")) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, request(lab.url(target)))
        if "after" in target:
            assert len((await loop.sock_recv(sock, 4096)).partition(b"\r\n\r\n")[2]) == came
        await lab.until(lambda: len(lab.log) == 1)
        assert lab.log[0].t_end is None
    await lab.until(lambda: lab.log[0].t_end is not None and lab.connections.open == 0)


async def test_resets_are_resets(lab: LabServer) -> None:
    assert await ask(lab.url("/reset")) == Answer(b"", reset=True)
    answer = await ask(lab.url("/reset-body"))
    assert answer.reset
    assert (answer.headers("Content-Length"), answer.body) == (["1000"], b"x" * 500)


async def test_a_connection_that_was_to_live_is_closed(lab: LabServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(request(lab.url("/keep-alive-close")))
    answer = Answer(await reader.read())
    assert (answer.headers("Connection"), answer.body.decode()) == (["keep-alive"], PAGE)
    writer.close()


async def test_a_throttled_key_refuses_what_is_too_many(lab: LabServer) -> None:
    url = lab.url("/throttle/k?n=2&ms=60000&retry-after=9")
    within = [asyncio.create_task(ask(url)) for _ in range(2)]
    await lab.until(lambda: len(lab.log) == 2)
    refused = await ask(url)
    assert (refused.status, refused.headers("Retry-After")) == (429, ["9"])
    assert (await ask(lab.url("/throttle/other?n=1&ms=1"))).status == 200
    assert [entry.note for entry in lab.log] == ["", "", "throttled", ""]
    for task in within:
        task.cancel()


async def test_retry_after_notes_who_comes_early(lab: LabServer) -> None:
    first = await ask(lab.url("/retry-after/k?after=999.5"))
    early = await ask(lab.url("/retry-after/k/2?after=999.5&status=503&header=soon"))
    assert (first.status, first.headers("Retry-After")) == (429, ["1000"])
    assert (early.status, early.headers("Retry-After")) == (503, ["soon"])
    assert lab.log[0].note == ""
    assert re.fullmatch(r"early by 9\d\d\.\d\d\d s", lab.log[1].note)
    while (answer := await ask(lab.url("/retry-after/short?after=0.05"))).status == 429:
        pass
    assert (answer.status, lab.log[-1].note) == (200, "")


async def test_who_came_before_the_refusal_was_sent_was_not_early(lab: LabServer) -> None:
    url = lab.url("/retry-after/k?after=999&ms=60000")
    tasks = [asyncio.create_task(ask(url)) for _ in range(3)]
    await lab.until(lambda: len(lab.log) == 3)
    assert {entry.note for entry in lab.log} == {""}
    for task in tasks:
        task.cancel()


async def test_chance_is_the_same_for_the_same_seed(lab: LabServer) -> None:
    targets = [f"/random/{n}?seed={seed}" for seed in (1, 2) for n in range(40)]
    runs = []
    for _ in range(2):
        for target in targets:
            await ask(lab.url(target))
        runs.append([entry.note for entry in lab.log])
        lab.clear()
    assert runs[0] == runs[1]
    assert runs[0][:40] != runs[0][40:]
    assert len(set(runs[0])) > len(set(FAULTS)) / 2
    await ask(lab.url(targets[0]))
    await ask(lab.url(targets[0]))
    assert lab.log[0].note == runs[0][0]
    assert all(fault.partition("?")[0] == "/ok" or lab.site.find(fault.partition("?")[0], "") for fault in FAULTS)


@pytest.mark.parametrize(
    ("target", "module", "codings"),
    [
        ("/gzip?size=99", "gzip", "gzip"), ("/deflate?size=99", "zlib", "deflate"),
        ("/br?size=99", "brotli", "br"), ("/zstd?size=99", "backports.zstd", "zstd"),
    ],
)  # fmt: skip
async def test_codings_can_be_undone(lab: LabServer, target: str, module: str, codings: str) -> None:
    decompress = pytest.importorskip(module).decompress
    answer = await ask(lab.url(target))
    assert answer.headers("Content-Encoding") == [codings]
    assert decompress(answer.body) == prose(99)
    assert answer.headers("Content-Length") == [str(len(answer.body))]


async def test_codings_stack_and_may_be_raw_or_unknown(lab: LabServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stacked = await ask(lab.url("/stacked"))
    assert stacked.headers("Content-Encoding") == ["gzip, deflate"]
    assert gzip.decompress(zlib.decompress(stacked.body)) == prose(10_000)
    raw = await ask(lab.url("/deflate?raw=1&size=50"))
    assert zlib.decompress(raw.body, wbits=-15) == prose(50)
    unknown = await ask(lab.url("/unknown-encoding"))
    assert (unknown.headers("Content-Encoding"), unknown.body) == (["x-lab"], prose(1000))

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert (await ask(lab.url("/br"))).status == 501


async def test_gzip_is_broken_as_told(lab: LabServer) -> None:
    cut = await ask(lab.url("/gzip-cut"))
    assert cut.headers("Content-Length") == [str(len(cut.body))]
    with pytest.raises(EOFError):
        gzip.decompress(cut.body)
    with pytest.raises(gzip.BadGzipFile, match="CRC"):
        gzip.decompress((await ask(lab.url("/gzip-bad-crc"))).body)
    bomb = await ask(lab.url("/gzip-bomb?mb=3"))
    assert bomb.headers("Content-Length") == [str(len(bomb.body))]
    assert len(bomb.body) < 4000
    assert gzip.decompress(bomb.body) == bytes(3 << 20)


async def test_bodies_are_as_large_as_asked(lab: LabServer) -> None:
    octets = await ask(lab.url("/bytes?n=300"))
    assert octets.body == bytes(range(256)) + bytes(range(44))
    assert octets.headers("Content-Type") == ["application/octet-stream"]
    big = await ask(lab.url("/big?mb=2"))
    assert (len(big.body), big.headers("Content-Length")) == (2 << 20, [str(2 << 20)])
    chunked = await ask(lab.url("/big?mb=1&chunked=1"))
    assert chunked.body == b"".join(b"10000\r\n%b\r\n" % big.body[:65536] for _ in range(16)) + b"0\r\n\r\n"


@pytest.mark.parametrize("name", TEXTS)
async def test_texts_come_in_their_charset(lab: LabServer, name: str) -> None:
    header = await ask(lab.url(f"/charset/{name}"))
    assert header.headers("Content-Type") == [f"text/html; charset={name}"]
    assert f"<title>{TEXTS[name]}</title>" in header.body.decode(name)
    meta = await ask(lab.url(f"/charset/{name}?by=meta"))
    assert (meta.headers("Content-Type"), f'charset="{name}"' in meta.body.decode(name)) == (["text/html"], True)
    bare = await ask(lab.url(f"/charset/{name}?by=none&bom=1"))
    assert bare.headers("Content-Type") == ["text/html"]
    assert bare.body.startswith(b"\xef\xbb\xbf") == (name == "utf-8")
    assert (await ask(lab.url("/charset/ebcdic"))).status == 404
