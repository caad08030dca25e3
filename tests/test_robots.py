"""robots.txt over real sockets: what is asked for and how often, by the server's log, and what then may be fetched."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fetcher.config import Config
from fetcher.errors import ConnectError, FetchError, Skipped, StatusError
from fetcher.hosts.scheduler import Scheduler
from fetcher.middleware import robots as handler
from fetcher.middleware.accept import accept
from fetcher.middleware.gate import Gate
from fetcher.middleware.redirects import Redirects
from fetcher.middleware.retry import Retry
from fetcher.middleware.robots import PAUSE, Robots, robots_exchange
from fetcher.middleware.robots_rules import MAX_ROBOTS_BYTES, parse_robots
from fetcher.model import Request, Response
from fetcher.request_state import RequestState, Requeue, current
from fetcher.transport.connector import StagedResolver
from fetcher.transport.session import Transport
from fetcher.urls import parse
from tests.lab.bodies import bomb_parts
from tests.lab.crawl import names
from tests.lab.exchange import Case, Exchange
from tests.lab.server import LabServer, black_hole, refused_port, silent_port

DENY = "User-agent: *\nDisallow: /ok\n"
DAY = 24 * 3_600  # the longest that a robots.txt is believed (RFC 9309, 2.4)


class Noted(Gate):
    """A gate that notes the delays it is told, and keeps none: nothing here waits for one."""

    def __init__(self, config: Config) -> None:
        super().__init__(Scheduler(config.limits, config.retry, robots=True))
        self.told: list[tuple[str, float]] = []
        self.denials: list[str] = []

    def know_robots(self, key: str, delay: float) -> None:
        """Note the delay."""
        self.told.append((key, delay))
        super().know_robots(key, 0.0)

    def denied(self, key: str) -> None:
        """Note the host."""
        self.denials.append(key)
        super().denied(key)


class Stack:
    """The handlers as they stand in a fetcher, and its robots."""

    def __init__(self, config: Config, resolver: StagedResolver | None = None) -> None:
        self.now = 0.0  # added to the clock
        self.gate = Noted(config)
        self.pages = Transport(config, resolver=resolver)
        self.files = Transport(config, resolver=resolver)
        self.robots = Robots(
            robots_exchange(config, self.gate, self.files),
            token=config.identity.product_token,
            max_crawl_delay=7.0,
            gate=self.gate,
            clock=lambda: asyncio.get_running_loop().time() + self.now,
        )
        self.exchange: Any = self.pages
        for one in (self.gate, self.robots, Redirects(config), accept(config.accept), Retry(config.retry, self.gate)):
            self.exchange = self._around(one, self.exchange)

    @staticmethod
    def _around(one: Any, proceed: Any) -> Any:
        return lambda request: one(request, proceed)

    async def get(self, url: str, *, can_requeue: bool = False) -> Response:
        state = RequestState(Request(1, url), parse(url))
        state.can_requeue = can_requeue
        token = current.set(state)
        try:
            response: Response = await self.exchange(state.request)
            return response
        finally:
            state.free()
            current.reset(token)

    async def code(self, url: str) -> str | int:
        try:
            return (await self.get(url)).status
        except FetchError as error:
            return error.code


@asynccontextmanager
async def stack(resolver: StagedResolver | None = None, **options: Any) -> AsyncIterator[Stack]:
    made = Stack(Config.of(**{"retries": 0, "backoff": 0} | options), resolver)
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        await made.robots.close()
        made.gate.close()
        await made.pages.close()
        await made.files.close()


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3, second_port=True) as lab:
        yield lab


def asked(lab: LabServer) -> int:
    return len(lab.requests("/robots.txt"))


def status(code: int, body: str = DENY, **headers: str) -> Case:
    async def reply(exchange: Exchange) -> None:
        await exchange.reply(body, code, headers=[(name.replace("_", "-"), text) for name, text in headers.items()])

    return reply


def raw(body: bytes, kind: str = "text/plain", *headers: tuple[str, str]) -> Case:
    async def reply(exchange: Exchange) -> None:
        await exchange.reply(body, kind=kind, headers=headers)

    return reply


# Once an origin


async def test_fifty_rows_at_once_ask_once(lab: LabServer) -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.pause(0.1)
        await exchange.reply(DENY)

    lab.add("/robots.txt", slow)
    async with stack() as fetcher:
        urls = [lab.url(f"/{'ok' if n % 2 else 'echo'}?{n}") for n in range(50)]
        codes = await asyncio.gather(*map(fetcher.code, urls))
        assert codes == [200, "robots_denied"] * 25
        assert asked(lab) == 1
        assert len(lab.log) == 26
        assert (lab.log[0].path, lab.log[0].header("user-agent")) == ("/robots.txt", Config().identity.user_agent)
        assert await fetcher.code(lab.url("/ok")) == "robots_denied"
    assert asked(lab) == 1


async def test_each_origin_has_its_own(lab: LabServer) -> None:
    lab.add("/robots.txt", DENY, host=1)
    async with stack() as fetcher:
        for host, port in ((1, None), (2, None), (1, lab.other_port), (1, None)):
            await fetcher.code(lab.url("/ok", host, port))
    assert asked(lab) == 3


async def test_a_row_that_is_cancelled_takes_nobodys_answer_away(lab: LabServer) -> None:
    hold = asyncio.Event()

    async def held(exchange: Exchange) -> None:
        await hold.wait()
        await exchange.reply(DENY)

    lab.add("/robots.txt", held)
    async with stack() as fetcher:
        first, second = (asyncio.create_task(fetcher.code(lab.url(path))) for path in ("/ok", "/echo"))
        await lab.until(lambda: asked(lab) == 1)
        first.cancel()
        await asyncio.wait([first])
        hold.set()
        assert await second == 200
        assert first.cancelled()
    assert asked(lab) == 1


async def test_waiting_holds_no_slot(lab: LabServer) -> None:
    hold = asyncio.Event()

    async def held(exchange: Exchange) -> None:
        await hold.wait()
        await exchange.reply("")

    lab.add("/robots.txt", held, host=1)
    async with stack(concurrency=2) as fetcher:
        waiting = [asyncio.create_task(fetcher.code(lab.url("/ok"))) for _ in range(20)]
        await lab.until(lambda: asked(lab) == 1)
        assert fetcher.gate.scheduler.shared.on_wire == 1
        assert await fetcher.code(lab.url("/ok", 2)) == 200
        hold.set()
        assert await asyncio.gather(*waiting) == [200] * 20


async def test_closing_gives_up_what_is_asked_for(lab: LabServer) -> None:
    async def never(exchange: Exchange) -> None:
        await exchange.gone()

    lab.add("/robots.txt", never)
    async with stack() as fetcher:
        row = asyncio.create_task(fetcher.code(lab.url("/ok")))
        await lab.until(lambda: asked(lab) == 1)
        await fetcher.robots.close()
        await asyncio.wait([row])
        assert row.cancelled()


async def test_a_bug_is_raised_to_whoever_waits(lab: LabServer) -> None:
    async with stack() as fetcher:

        async def broken(request: Request) -> Response:
            raise ZeroDivisionError

        fetcher.robots._exchange = broken
        found = await asyncio.gather(*(fetcher.get(lab.url("/ok")) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [ZeroDivisionError] * 3


# What is answered


@pytest.mark.parametrize("code", [300, 304, 400, 401, 403, 404, 410, 418, 451])
async def test_an_answer_without_a_file_allows(lab: LabServer, code: int) -> None:
    lab.add("/robots.txt", status(code))
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == 200
        assert await fetcher.code(lab.url("/ok")) == 200
    assert asked(lab) == 1


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504, 520, 529, 599])
async def test_5xx_forbids_after_retries(lab: LabServer, code: int) -> None:
    lab.add("/robots.txt", status(code))
    async with stack(retries=2) as fetcher:
        with pytest.raises(Skipped, match=rf"no answer from .*/robots.txt \(http_{code}: ") as caught:
            await fetcher.get(lab.url("/ok"))
        assert caught.value.code == "robots_unreachable"
        assert await fetcher.code(lab.url("/echo")) == "robots_unreachable"
    assert asked(lab) == (1 if code in (501, 599) else 3)
    assert len(lab.log) == asked(lab)


async def test_429_forbids_and_is_charged_to_the_host(lab: LabServer) -> None:
    lab.add("/robots.txt", status(429, retry_after="1000"))
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) in ("host_budget", "robots_unreachable")
    assert len(lab.log) == 1


async def test_a_429_that_passes_is_waited_out(lab: LabServer) -> None:
    async def once(exchange: Exchange) -> None:
        first = not exchange.site.state.get("asked")
        exchange.site.state["asked"] = 1
        await exchange.reply("" if first else DENY, 429 if first else 200, headers=[("Retry-After", "0")])

    lab.add("/robots.txt", once)
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == "robots_denied"
    assert asked(lab) == 2


@pytest.mark.parametrize("trouble", ["/empty", "/cut-body", "/malformed", "/gzip-cut", "/gzip-bad-crc"])
async def test_an_answer_that_is_none_forbids(lab: LabServer, trouble: str) -> None:
    async def become(exchange: Exchange) -> None:
        await exchange.become(trouble)

    lab.add("/robots.txt", become)
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == "robots_unreachable"
    assert not lab.requests("/ok")


async def test_a_connection_that_breaks_is_the_rows_own_error(lab: LabServer) -> None:
    async def reset(exchange: Exchange) -> None:
        await exchange.become("/reset")

    lab.add("/robots.txt", reset)
    async with stack(retries=1) as fetcher:
        with pytest.raises(ConnectError) as caught:
            await fetcher.get(lab.url("/ok"))
        assert caught.value.code == "connect_reset"
        assert caught.value.url == lab.url("/robots.txt")
        assert await fetcher.code(lab.url("/echo")) == "connect_reset"
    assert len(lab.log) == asked(lab) == 2  # the tries of the file: the rows have none of their own on top


async def test_a_connection_that_fails_behind_a_redirect_of_the_file_forbids(lab: LabServer) -> None:
    with refused_port() as port:

        async def move(exchange: Exchange) -> None:
            await exchange.reply("", 302, headers=[("Location", f"http://127.0.0.1:{port}/robots.txt")])

        lab.add("/robots.txt", move)
        async with stack() as fetcher:
            with pytest.raises(Skipped, match="connect_refused") as caught:
                await fetcher.get(lab.url("/ok"))
            assert caught.value.code == "robots_unreachable"


async def test_no_answer_in_time_forbids(lab: LabServer) -> None:
    async def never(exchange: Exchange) -> None:
        await exchange.gone()

    lab.add("/robots.txt", never)
    async with stack(read_timeout=0.2) as fetcher:
        with pytest.raises(Skipped, match="read_timeout") as caught:
            await fetcher.get(lab.url("/ok"))
        assert caught.value.code == "robots_unreachable"


@pytest.mark.parametrize(
    ("port_of", "code"),
    [(refused_port, "connect_refused"), (black_hole, "connect_timeout"), (silent_port, "robots_unreachable")],
)
async def test_a_host_that_is_not_there_has_its_own_error_and_a_silent_one_is_unreachable(
    port_of: Any, code: str
) -> None:
    with port_of() as port:
        async with stack(read_timeout=0.2, connect_timeout=0.2) as fetcher:
            assert await fetcher.code(f"http://127.0.0.1:{port}/ok") == code


async def test_a_name_that_does_not_exist_is_the_rows_own_error() -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    async with stack(resolver=names({"nowhere.test": error})) as fetcher:
        assert await fetcher.code("http://nowhere.test/ok") == "dns_not_found"


# Redirects


def leading(hops: int, lab: LabServer, hosts: int = 1) -> None:
    """Make /robots.txt of host 1 a chain of so many redirects, in turn over the hosts, that ends in ``DENY``."""

    async def go(exchange: Exchange) -> None:
        left = int(exchange.number("left", hops))
        if left == 0:
            await exchange.reply(DENY)
            return
        await exchange.reply("", 302, headers=[("Location", lab.url(f"/file?left={left - 1}", left % hosts + 1))])

    lab.add("/robots.txt", go, host=1)
    lab.add("/file", go)


@pytest.mark.parametrize("hosts", [1, 3])
async def test_five_redirects_are_followed_to_any_host(lab: LabServer, hosts: int) -> None:
    leading(5, lab, hosts)
    async with stack(max_redirects=0) as fetcher:
        with pytest.raises(Skipped, match=r"'Disallow: /ok' in line 2 of http://127\.0\.0\.\d:\d+/file\?left=0"):
            await fetcher.get(lab.url("/ok"))
    assert len(lab.log) == 6


async def test_six_are_too_many_and_allow(lab: LabServer) -> None:
    leading(6, lab)
    async with stack(max_redirects=50) as fetcher:
        assert await fetcher.code(lab.url("/ok")) == 200
    assert len(lab.requests("/file")) == 5


async def test_for_a_row_that_came_by_a_redirect_six_are_too_many_as_well(lab: LabServer) -> None:
    leading(6, lab)
    target = parse(lab.url("/ok"))
    async with stack(max_redirects=50) as fetcher:
        asker = RequestState(Request(1, "http://public.test/"), target)
        asker.redirects, asker.reached = (target.wire,), "private"
        current.set(asker)
        await fetcher.robots.judge(target)
    assert len(lab.requests("/file")) == 5


@pytest.mark.parametrize("to", ["/robots.txt", "http://[::1", "mailto:me"])
async def test_a_redirect_to_nowhere_allows(lab: LabServer, to: str) -> None:
    lab.add("/robots.txt", status(302, Location=to))
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == 200


async def test_every_hop_of_a_row_is_judged(lab: LabServer) -> None:
    lab.add("/robots.txt", DENY, host=2)
    async with stack() as fetcher:
        url = lab.url(f"/redirect?to={lab.url('/ok', 2)}")
        with pytest.raises(Skipped, match=r"of http://127\.0\.0\.2"):
            await fetcher.get(url)
    assert [(entry.host, entry.path) for entry in lab.log] == [
        ("127.0.0.1", "/robots.txt"), ("127.0.0.1", "/redirect"), ("127.0.0.2", "/robots.txt"),
    ]  # fmt: skip


# Law 7


async def test_the_file_is_not_asked_for_where_the_row_may_not_go(lab: LabServer) -> None:
    """A public name, by the resolver's word, that leads to a private address."""
    lab.add("/robots.txt", status(404))
    private = lab.url("/ok", 2)
    hop = f"http://public.test:{lab.port}/ok"
    async with stack(names({"public.test": "127.0.0.1"})) as fetcher:
        asker = RequestState(Request(1, hop), parse(hop))
        asker.target, asker.redirects, asker.reached = parse(private), (private,), "public"
        current.set(asker)
        for _ in range(2):
            with pytest.raises(Skipped) as caught:
                await fetcher.robots(asker.request, fetcher.pages)
            assert caught.value.code == "address_blocked"
        assert lab.log == []
        # That one came there by a redirect says nothing of a row that lists the address.
        assert await fetcher.code(private) == 200


async def test_a_row_that_lists_an_address_does_not_suffer_by_one_that_was_led_there(lab: LabServer) -> None:
    lab.add("/robots.txt", "")
    private = parse(lab.url("/ok", 2))
    async with stack() as fetcher:

        async def led() -> str:
            asker = RequestState(Request(1, "http://public.test/"), private)
            asker.redirects, asker.reached = (private.wire,), "public"
            current.set(asker)
            try:
                await fetcher.robots.judge(private)
            except Skipped as error:
                return error.code
            return "known"

        first, second = asyncio.create_task(led()), asyncio.create_task(fetcher.code(private.wire))
        assert (await first, await second) == ("address_blocked", 200)


async def test_no_secret_goes_along(lab: LabServer) -> None:
    lab.add("/robots.txt", "")
    headers = [
        "X-Key: s3cret",
        f"@127.0.0.1:{lab.port} Authorization: s3cret",
        "Accept-Language: en",
        "User-Agent: Me/1",
    ]
    async with stack(header=headers, cookie=[f"@127.0.0.1:{lab.port} a=s3cret"]) as fetcher:
        assert await fetcher.code(lab.url("/echo")) == 200
    files, page = lab.log
    assert "s3cret" not in files.head
    assert (files.header("accept-language"), files.header("user-agent")) == ("en", "Me/1")
    assert page.head.count("s3cret") == 3
    assert Config.of(header=headers).identity.product_token == "Me"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], "fetcher"),
        (["User-Agent: Me/1"], "Me"),
        (["user-agent: Me/1", "X-Key: Other/2"], "Me"),
        (["@a.test User-Agent: Other/2"], "fetcher"),
    ],
)
def test_we_are_named_by_the_user_agent_that_all_are_sent(headers: list[str], token: str) -> None:
    assert Config.of(header=headers).identity.product_token == token


# Bodies


async def test_a_file_over_500_kib_counts_as_far_as_it_goes(lab: LabServer) -> None:
    head = b"User-agent: *\nDisallow: /ok\n"
    body = head + b"#" * (MAX_ROBOTS_BYTES - len(head) - 1) + b"\nDisallow: /echo\n"
    lab.add("/robots.txt", raw(body))
    async with stack(max_size=1000) as fetcher:
        assert await fetcher.code(lab.url("/ok")) == "robots_denied"
        assert await fetcher.code(lab.url("/echo")) == 200


async def test_a_gzip_bomb_is_cut(lab: LabServer) -> None:
    block, trailer = bomb_parts(50)
    start = gzip.compress(DENY.encode())
    bomb = start + b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + block * 50 + b"\x03\x00" + trailer
    lab.add("/robots.txt", raw(bomb, "text/plain", ("Content-Encoding", "gzip")))
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == "robots_denied"
        assert await fetcher.code(lab.url("/echo")) == 200


@pytest.mark.parametrize("rules", [1, 4_000])
async def test_a_file_in_gzip_is_read_whatever_its_size(lab: LabServer, rules: int) -> None:
    text = DENY + "".join(f"Disallow: /section-{n}/\n" for n in range(rules))
    lab.add("/robots.txt", raw(gzip.compress(text.encode()), "text/plain", ("Content-Encoding", "gzip")))
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == "robots_denied"
        assert await fetcher.code(lab.url(f"/section-{rules - 1}/x")) == "robots_denied"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
async def test_byte_orders(lab: LabServer, codec: str) -> None:
    lab.add("/robots.txt", raw(DENY.encode(codec)))
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == "robots_denied"


async def test_a_page_in_its_place_allows(lab: LabServer) -> None:
    async def become(exchange: Exchange) -> None:
        await exchange.become("/ok?size=5000&links=20")

    lab.add("/robots.txt", become)
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == 200


async def test_the_file_itself_may_always_be_fetched(lab: LabServer) -> None:
    lab.add("/robots.txt", "User-agent: *\nDisallow: /\n")
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/robots.txt")) == 200
        assert await fetcher.code(lab.url("/robots.txt?x")) == "robots_denied"


# Delays


@pytest.mark.parametrize(
    ("line", "seconds"), [("Crawl-delay: 2", 2.0), ("Request-rate: 1/5", 5.0), ("Crawl-delay: 60", 7.0), ("", 0.0)]
)
async def test_the_hosts_delay_is_told_up_to_the_cap(lab: LabServer, line: str, seconds: float) -> None:
    lab.add("/robots.txt", f"User-agent: fetcher\nAllow: /\n{line}\n")
    async with stack() as fetcher:
        assert await fetcher.code(lab.url("/ok")) == 200
        assert set(fetcher.gate.told) == {("127.0.0.1", seconds)}
        assert (await fetcher.robots.judge(parse(lab.url("/ok")))).delay == seconds


# Ages, waits and bounds: without sockets


class Scripted:
    """A robots of a scripted exchange and a clock that is set."""

    def __init__(self, *answers: str | FetchError | Requeue) -> None:
        self.now = 1000.0
        self.answers = list(answers)
        self.asked: list[str] = []
        self.attempts: list[int] = []
        self.guarded: list[bool] = []
        self.robots = Robots(self.exchange, token="fetcher", clock=lambda: self.now)

    async def exchange(self, request: Request) -> Response:
        self.asked.append(request.url)
        self.attempts.append(current.get().attempts)
        self.guarded.append(getattr(current.get(), "guarded", False))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not isinstance(answer, str):
            if isinstance(answer, Requeue):
                current.get().attempts += 1
            raise answer
        return Response(request, request.url, 200, body=answer.encode())

    async def code(self, url: str = "http://a.test/ok", *, can_requeue: bool = True, led: bool = False) -> str:
        state = RequestState(Request(1, url), parse(url))
        state.can_requeue = can_requeue
        if led:
            state.follow(state.target, redirects=("http://public.test/",))
            state.reach("public")
        current.set(state)

        async def page(request: Request) -> Response:
            return Response(request, request.url, 200)

        try:
            await self.robots(state.request, page)
        except FetchError as error:
            return error.code
        except Requeue as requeue:
            return f"due {requeue.due:g}"
        return "allowed"


@pytest.mark.parametrize("origin", ["http://a", "https://a", "http://a:81", "http://[::1]"])
async def test_the_path_is_judged_whatever_the_origin(origin: str) -> None:
    scripted = Scripted("User-agent: *\nDisallow: /no")
    assert [await scripted.code(f"{origin}{path}") for path in ("/no?x", "/yes", "/robots.txt")] == [
        "robots_denied", "allowed", "allowed",
    ]  # fmt: skip
    assert scripted.asked == [f"{origin}/robots.txt"]


async def test_a_good_answer_is_believed_for_a_day() -> None:
    site = Scripted("", DENY)
    assert await site.code() == "allowed"
    site.now += DAY - 1
    assert await site.code() == "allowed"
    site.now += 2
    assert await site.code() == "robots_denied"
    assert site.asked == ["http://a.test/robots.txt"] * 2


async def test_what_cannot_be_had_is_asked_for_again_after_growing_times() -> None:
    pauses = [60.0, 120.0, 240.0, 480.0, 960.0, 1_920.0, 3_600.0, 3_600.0]  # an hour at most
    site = Scripted(*[StatusError(503) for _ in pauses], "")
    for pause in pauses:
        assert await site.code() == "robots_unreachable"
        asked = len(site.asked)
        site.now += pause - 1
        assert await site.code() == "robots_unreachable"
        assert len(site.asked) == asked
        site.now += 2
    assert await site.code() == "allowed"


async def test_an_old_answer_serves_where_there_is_no_new_one() -> None:
    site = Scripted(DENY, ConnectError("connect_refused"), "")
    assert await site.code() == "robots_denied"
    site.now += DAY + 1
    assert await site.code() == "robots_denied"
    assert len(site.asked) == 2
    site.now += PAUSE + 1
    assert await site.code() == "allowed"


async def test_rows_leave_their_tasks_where_the_file_has_to_wait() -> None:
    site = Scripted(Requeue(1010.0), DENY)
    assert await asyncio.gather(*(asyncio.create_task(site.code()) for _ in range(3))) == ["due 1010"] * 3
    assert await site.code() == "due 1010"
    assert len(site.asked) == 1
    site.now = 1010.0
    assert await site.code() == "robots_denied"
    assert site.attempts == [0, 1]  # it went on where it was


async def test_a_file_that_a_row_led_there_waits_for_is_asked_for_anew_for_one_that_lists_it() -> None:
    """A private address is closed to the first, and not to the second; the tries are those of the file."""
    site = Scripted(Requeue(1010.0), Requeue(1020.0), "")
    assert await site.code(led=True) == "due 1010"
    site.now = 1010.0
    assert await site.code(led=True) == "due 1020"
    site.now = 1020.0
    assert await site.code() == "allowed"
    assert (site.guarded, site.attempts) == ([True, True, False], [0, 1, 2])


async def test_a_row_that_cannot_leave_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Scripted(Requeue(1010.0), Requeue(1030.0), DENY)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        site.now += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await site.code(can_requeue=False) == "robots_denied"
    assert slept == [10, 20]


async def test_a_host_that_was_given_up_stays_so() -> None:
    site = Scripted(Skipped("host_budget", "refused"))
    assert await site.code() == "host_budget"
    assert await site.code() == "host_budget"
    assert len(site.asked) == 1


async def test_origins_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MAX_ORIGINS", 3)
    site = Scripted("")
    for name in "abcadae":
        await site.code(f"http://{name}.test/")
    assert len(site.robots) == 3
    assert [url[7] for url in site.asked] == ["a", "b", "c", "d", "e"]
    monkeypatch.setattr(handler, "MAX_RULES_BYTES", 30_000)
    site = Scripted(*(large_file(n) for n in range(4)))
    for name in "abcd":
        assert await site.code(f"http://{name}.test/1") == "robots_denied"
    assert len(site.robots) == 2
    assert await site.code("http://d.test/1") == "robots_denied"
    assert len(site.asked) == 4
    assert site.robots._cache.size == sum(
        handler.ORIGIN_BYTES + known.rules.size for known in site.robots._cache._known.values() if known.rules
    )


async def test_the_origin_at_hand_is_remembered_however_large_its_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MAX_RULES_BYTES", 1)
    site = Scripted(large_file(0))
    for _ in range(2):
        assert await site.code("http://a.test/1") == "robots_denied"
    assert (len(site.asked), len(site.robots)) == (1, 1)


async def test_of_two_files_that_are_too_large_together_one_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MAX_RULES_BYTES", 15_000)
    site = Scripted(large_file(0), large_file(1))
    for name in "abb":
        assert await site.code(f"http://{name}.test/1") == "robots_denied"
    assert (len(site.asked), len(site.robots)) == (2, 1)


async def test_of_large_files_those_are_forgotten_that_were_asked_for_longest_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handler, "MAX_RULES_BYTES", 30_000)
    site = Scripted(*(large_file(n) for n in range(3)))
    for name in "abaca":
        await site.code(f"http://{name}.test/1")
    assert [url[7] for url in site.asked] == ["a", "b", "c"]


def large_file(number: int) -> str:
    return f"User-agent: *\nDisallow: /only-{number}\n" + "".join(f"Disallow: /{n}\n" for n in range(100))


async def test_files_that_are_alike_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MAX_RULES_BYTES", 40_000)
    site = Scripted(large_file(0))
    for n in range(20):
        assert await site.code(f"http://h{n}.test/1") == "robots_denied"
    assert len(site.robots) == len(site.asked) == 20  # each is asked all the same
    cache = site.robots._cache
    (rules,) = {known.rules for known in cache._known.values()}
    assert rules is not None
    assert cache.size == 20 * handler.ORIGIN_BYTES + rules.size
    site.answers = [large_file(1)]
    site.now += DAY + 1
    for n in range(20):
        assert await site.code(f"http://h{n}.test/only-0") == "allowed"
        assert await site.code(f"http://h{n}.test/only-1") == "robots_denied"
    (others,) = cache._origins
    assert others is not rules
    assert cache.size == 20 * handler.ORIGIN_BYTES + others.size
    del rules
    assert len(cache._alike) == 1


async def test_a_file_that_was_cut_is_not_like_one_that_is_whole() -> None:
    cache = handler.RobotsCache("fetcher")
    body = b"User-agent: *\nDisallow: /a\nDisallow: /b"
    assert ((await cache.read(body, truncated=False)).denial("/b") is None) is False
    assert ((await cache.read(body, truncated=True)).denial("/b") is None) is True
    assert ((await cache.read(body, truncated=False)).denial("/b") is None) is False


async def test_a_large_file_is_read_beside_the_loop_and_a_small_one_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def noted(*words: Any, **named: Any) -> Any:
        threads.append(threading.current_thread().name)
        return parse_robots(*words, **named)

    monkeypatch.setattr(handler, "parse_robots", noted)
    cache = handler.RobotsCache("fetcher")
    await cache.read(DENY.encode(), truncated=False)
    await cache.read(DENY.encode() + b"#" * 100_000, truncated=False)
    small, large = threads
    assert small == threading.current_thread().name != large


# Tags
