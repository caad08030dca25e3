"""The lab's cases that speak good HTTP: pages, statuses, waits, redirects, cookies, throttles, and ``/random``.

The cases that break the protocol are in ``faults``, those about codings, charsets and sizes in ``bodies``.
"""

from __future__ import annotations

import codecs
import json
import math
import random
import time
from functools import lru_cache
from urllib.parse import urlencode

import tests.lab.bodies
import tests.lab.faults  # noqa: F401 - importing it registers its cases
from tests.lab.exchange import HTML, PLAIN, Exchange, case

FAULTS = (
    "/ok", "/ok", "/ok?size=20000", "/delay/20/ok", "/gzip", "/hops/2", "/status/404", "/status/500",
    "/status/503?retry-after=0", "/loop", "/no-location", "/reset", "/reset-body", "/empty", "/cut-body",
    "/cut-chunked", "/cut-headers", "/gzip-cut", "/gzip-bad-crc", "/malformed", "/bad-chunk", "/bad-length",
    "/slow-body?chunks=3&gap=0.01", "/keep-alive-close",
)  # fmt: skip
"""What ``/random`` chooses from; a good answer is in it about every fourth time."""


@lru_cache(maxsize=256)
def ok_page(size: int = 100, title: str = "ok", links: int = 0) -> str:
    """Return the page of ``/ok``: a title, links to ``/ok?n=0`` and on, and ``size`` characters of text."""
    anchors = "".join(f'<a href="/ok?n={n}">{n}</a>' for n in range(links))
    text = ("lorem ipsum " * (size // 12 + 1))[:size]
    return f"<!doctype html><html><head><title>{title}</title></head><body>{anchors}<p>{text}</p></body></html>"


def codec(charset: str) -> str:
    """Return the charset if Python speaks it, else UTF-8."""
    try:
        return codecs.lookup(charset).name
    except LookupError:
        return "utf-8"


@case("/ok")
async def ok(exchange: Exchange) -> None:
    """``?size=N&links=N&title=…&type=…&charset=…``: a page, in UTF-8 where the charset is empty or unknown."""
    charset = exchange.text("charset", "utf-8")
    title = exchange.text("title", "ok").encode("latin-1").decode(errors="replace")
    page = ok_page(int(exchange.number("size", 100)), title, int(exchange.number("links", 0)))
    media = exchange.text("type", "text/html")
    await exchange.reply(page.encode(codec(charset)), kind=f"{media}; charset={charset}" if charset else media)


@case("/echo")
async def echo(exchange: Exchange) -> None:
    """The request's head as it came, and its body, as text."""
    await exchange.reply(exchange.entry.head.encode("latin-1") + exchange.body, kind="text/plain; charset=latin-1")


@case("/status")
async def status(exchange: Exchange) -> None:
    """``/NNN?retry-after=V``: that status, with a Retry-After of those very characters."""
    code = int(exchange.rest.strip("/").partition("/")[0] or 200)
    headers = [("Retry-After", exchange.text("retry-after"))] if "retry-after" in exchange.params else []
    await exchange.reply(f"<title>{code}</title>", code, headers=headers)


@case("/flaky")
async def flaky(exchange: Exchange) -> None:
    """``/KEY?fail=2&status=503&retry-after=V&as=/reset``: fails that often (as another case), then is ok."""
    key = f"flaky{exchange.rest}"
    seen = exchange.site.state[key] = exchange.site.state.get(key, 0) + 1
    if seen > exchange.number("fail", 2):
        await exchange.become("/ok")
        return
    wish = {"retry-after": exchange.text("retry-after")} if "retry-after" in exchange.params else {}
    await exchange.become(exchange.text("as") or f"/status/{exchange.text('status', '503')}?{urlencode(wish)}")


@case("/delay")
async def delay(exchange: Exchange) -> None:
    """``/MS/rest…``: waits, then is the case ``/rest…`` (or ``/ok``) with the same query."""
    milliseconds, _, rest = exchange.rest.strip("/").partition("/")
    await exchange.pause(int(milliseconds) / 1000)
    await exchange.become(f"/{rest or 'ok'}?{exchange.query}")


async def move(exchange: Exchange, to: str, *headers: tuple[str, str]) -> None:
    """Send a redirect, with ``?status=`` as its status."""
    code = int(exchange.number("status", 302))
    await exchange.reply(f"<title>{code}</title>", code, headers=[("Location", to), *headers])


@case("/redirect")
async def redirect(exchange: Exchange) -> None:
    """``?to=URL&status=302``: the Location is what ``to`` decodes to, byte for byte."""
    await move(exchange, exchange.text("to", "/ok"))


@case("/hops")
async def hops(exchange: Exchange) -> None:
    """``/N?hosts=1&status=302``: N redirects, then ``/ok``; over that many hosts in turn."""
    left = int(exchange.rest.strip("/") or 0)
    if left == 0:
        await exchange.become("/ok")
        return
    path = (f"/hops/{left - 1}" if left > 1 else "/ok") + (f"?{exchange.query}" if exchange.query else "")
    hosts = int(exchange.number("hosts", 1))
    await move(exchange, path if hosts == 1 else exchange.site.url(path, left % hosts + 1))


@case("/loop")
async def loop(exchange: Exchange) -> None:
    """A redirect to itself."""
    await move(exchange, "/loop")


@case("/loop2")
async def loop2(exchange: Exchange) -> None:
    """``/a`` and ``/b`` redirect to each other."""
    await move(exchange, "/loop2/b" if exchange.rest == "/a" else "/loop2/a")


@case("/two-locations")
async def two_locations(exchange: Exchange) -> None:
    """A redirect to two places."""
    await move(exchange, "/ok?n=1", ("Location", "/ok?n=2"))


@case("/no-location")
async def no_location(exchange: Exchange) -> None:
    """A redirect to nowhere."""
    await exchange.reply("<title>302</title>", int(exchange.number("status", 302)))


@case("/bad-location")
async def bad_location(exchange: Exchange) -> None:
    """``?v=…``: a redirect to what is no URL."""
    await move(exchange, exchange.text("v", "http://[::1"))


@case("/set-cookie-then")
async def set_cookie_then(exchange: Exchange) -> None:
    """``?to=URL&cookie=lab=1``: sets the cookie and redirects."""
    await move(exchange, exchange.text("to", "/echo"), ("Set-Cookie", exchange.text("cookie", "lab=1; Path=/")))


@case("/cookie-gate")
async def cookie_gate(exchange: Exchange) -> None:
    """Redirects to itself with a cookie until the cookie comes."""
    if "gate=open" in (exchange.entry.header("cookie") or ""):
        await exchange.become("/ok")
    else:
        await move(exchange, "/cookie-gate", ("Set-Cookie", "gate=open; Path=/"))


@case("/connection-count")
async def connection_count(exchange: Exchange) -> None:
    """The number of this connection, and how many are open and were accepted, as JSON."""
    counts = exchange.site.stats.connections()
    body = {"connection": exchange.entry.connection, "open": counts.open, "total": counts.total}
    await exchange.reply(json.dumps(body), kind="application/json")


@case("/throttle")
async def throttle(exchange: Exchange) -> None:
    """``/KEY?n=3&ms=50``: takes that long; 429 while more than n are in flight for the key, on all hosts."""
    path = exchange.entry.path
    if sum(entry.path == path for entry in exchange.site.stats.active()) > exchange.number("n", 3):
        exchange.entry.note = "throttled"
        await exchange.become(f"/status/429?{urlencode({'retry-after': exchange.text('retry-after', '1')})}")
    else:
        await exchange.pause(exchange.number("ms", 50) / 1000)
        await exchange.become("/ok")


@case("/retry-after")
async def retry_after(exchange: Exchange) -> None:
    """``/KEY/…?after=1&status=429&ms=0``: refused until that many seconds after the key's first request.

    ``after`` is sent rounded up to whole seconds (or send ``header=V``). A request that comes after the first
    refusal was sent (``ms`` after the request) and before it may has a note, ``early by S s``. A client that
    obeys for the whole host keeps the note off ``/KEY/1``, ``/KEY/2``, … as well.
    """
    state, now, after = exchange.site.state, exchange.entry.t, exchange.number("after", 1)
    key = "retry-after/" + exchange.rest.strip("/").partition("/")[0]
    first = state.setdefault(key, now)
    if now >= first + after:
        await exchange.become("/ok")
        return
    if key + " told" in state:
        exchange.entry.note = f"early by {first + after - now:.3f} s"
    header = exchange.text("header", str(math.ceil(after)))
    code = exchange.text("status", "429")
    await exchange.pause(exchange.number("ms", 0) / 1000)
    state.setdefault(key + " told", time.monotonic())
    await exchange.become(f"/status/{code}?{urlencode({'retry-after': header})}")


@case("/random")
async def chance(exchange: Exchange) -> None:
    """``/…?seed=…``: one of ``FAULTS``, by the seed, the target, and how often it was asked for before."""
    target = exchange.entry.local
    key = f"random{target}"
    turn = exchange.site.state[key] = exchange.site.state.get(key, 0) + 1
    chosen = random.Random(f"{exchange.text('seed')} {target} {turn:.0f}").choice(FAULTS)
    exchange.entry.note = chosen
    await exchange.become(chosen)


@case("/control")
async def control(exchange: Exchange) -> None:
    """``?where=title,header,reason``: control characters in each (the first two, unless told)."""
    where = exchange.text("where", "title,header").split(",")
    nasty = "\x1b]0;owned\x07\x1b[31mred\x08\x7f"
    title = f"a{nasty}\x9b31m\u202ebc" if "title" in where else "calm"
    body = f"<!doctype html><title>{title}</title>".encode()
    head = exchange.head(200, [("Content-Type", HTML), ("Content-Length", str(len(body)))])
    if "header" in where:
        head = head.replace("\r\n\r\n", f"\r\nX-Control: a{nasty}b\r\n\r\n")
    if "reason" in where:
        head = head.replace("OK", f"OK{nasty}", 1)
    await exchange.send(head.encode("latin-1") + body)


@case("/robots.txt")
async def robots(exchange: Exchange) -> None:
    """None: 404, until a test adds its own."""
    await exchange.reply("no rules\n", 404, kind=PLAIN)
