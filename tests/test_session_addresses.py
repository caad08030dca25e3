"""Which addresses a row may reach, judged where its socket connects: by what the server saw, not by what we say.

No test leaves loopback. Where a public address is needed, the rule is told that 127.0.0.2 is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from fetcher.client import Fetcher
from fetcher.config import Config
from fetcher.errors import Skipped
from fetcher.model import Failure, Outcome, Request
from fetcher.request_state import RequestState, current
from fetcher.transport import address
from fetcher.transport.address import AddressClass, classify
from fetcher.transport.session import Transport
from fetcher.urls import parse
from tests.lab.crawl import code_of, names, one, with_names
from tests.lab.server import Exchange, LabServer

PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3) as lab:
        yield lab


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the second host stand for one of the Internet's."""
    real = address._judge_v4

    def judge(number: int) -> AddressClass:
        return "public" if number == 0x7F000002 else real(number)

    monkeypatch.setattr(address, "_judge_v4", judge)
    classify.cache_clear()
    yield
    classify.cache_clear()


def blocked(outcome: Outcome) -> bool:
    """Whether the address was the reason, and nothing else was told."""
    if not isinstance(outcome, Failure):
        return False
    return outcome.error.code == "address_blocked" and bool(outcome.error.message)


def hop(lab: LabServer, to: str, name: str) -> str:
    """Return a URL on the host ``name`` that redirects."""
    return f"http://{name}:{lab.port}/redirect?to={quote(to, safe='')}"


# A row's own host


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "named.test", "0x7f.1", "2130706433", "127.1", "[::ffff:127.0.0.1]"]
)
async def test_untrusted_lists_reach_nothing_private_and_send_no_packet(lab: LabServer, host: str) -> None:
    (outcome,) = await with_names({"named.test": PRIVATE}, [f"http://{host}:{lab.port}/ok"], private_network="deny")
    assert blocked(outcome), outcome
    assert outcome.attempts == 0
    assert lab.connections.total == 0


@pytest.mark.parametrize("mode", ["listed", "allow"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "named.test", "0x7f.1"])
async def test_a_rows_own_host_may_be_private(lab: LabServer, host: str, mode: str) -> None:
    url = f"http://{host}:{lab.port}/ok"
    outcomes = await with_names({"named.test": PRIVATE}, [url, url], private_network=mode)
    assert [code_of(outcome) for outcome in outcomes] == [200, 200]


@pytest.mark.parametrize("mode", ["listed", "deny"])
@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "0xA9FEA9FE", "meta.test", "both.test"]
)
async def test_what_hands_out_credentials_is_never_reached(lab: LabServer, host: str, mode: str) -> None:
    table = {"meta.test": "169.254.169.254", "both.test": "169.254.169.254 169.254.170.2"}
    urls = [f"http://{host}/latest", hop(lab, f"http://{host}/latest", "127.0.0.1")]
    outcomes = await with_names(table, urls, private_network=mode, connect_timeout=5)
    assert all(blocked(outcome) for outcome in outcomes), outcomes
    assert "metadata" in outcomes[0].error.message  # type: ignore[union-attr]  # blocked: it is a failure


# Hops


async def test_from_private_to_private_is_fine(lab: LabServer) -> None:
    table = {"one.test": PRIVATE, "three.test": "127.0.0.3"}
    urls = [hop(lab, f"http://{host}:{lab.port}/ok", "one.test") for host in ("three.test", "127.0.0.3", "localhost")]
    assert [code_of(outcome) for outcome in await with_names(table, urls)] == [200] * 3


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "inner.test", "0x7f.1", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("start", ["outer.test", PUBLIC])
async def test_from_public_to_private_is_not(lab: LabServer, start: str, host: str) -> None:
    url = hop(lab, f"http://{host}:{lab.port}/secret", start)
    (outcome,) = await with_names({"outer.test": PUBLIC, "inner.test": PRIVATE}, [url])
    assert blocked(outcome), outcome
    assert outcome.redirects
    assert {entry.host for entry in lab.log} == {PUBLIC}
    assert list(lab.connections.per_host) == [PUBLIC]


@pytest.mark.usefixtures("public")
async def test_from_private_to_public_and_back_is_not(lab: LabServer) -> None:
    table = {"outer.test": PUBLIC, "inner.test": PRIVATE}
    back = hop(lab, f"http://inner.test:{lab.port}/secret", "outer.test")
    outcomes = await with_names(
        table, [hop(lab, back, "inner.test"), hop(lab, f"http://outer.test:{lab.port}/ok", "inner.test")]
    )
    assert blocked(outcomes[0])
    assert code_of(outcomes[1]) == 200
    assert lab.requests("/secret") == []


@pytest.mark.usefixtures("public")
async def test_a_kept_connection_carries_no_row_past_the_guard(lab: LabServer) -> None:
    """The private host has been reached, and its connection is idle, when a public one redirects to it."""
    inner = f"http://inner.test:{lab.port}/ok"
    table = {"outer.test": PUBLIC, "inner.test": PRIVATE}
    outcomes = await with_names(table, [inner, hop(lab, inner, "outer.test"), inner])
    assert [code_of(outcome) for outcome in outcomes] == [200, "address_blocked", 200]
    assert lab.connections.per_host[PRIVATE].total == 1


@pytest.mark.usefixtures("public")
async def test_a_name_that_changes_its_address_is_judged_at_each_socket(lab: LabServer) -> None:
    """DNS rebinding: public when it was first asked, private when the hop connects."""

    async def again(exchange: Exchange) -> None:
        exchange.close()
        await exchange.reply("moved", 302, headers=[("Location", "/secret")])

    lab.add("/again", again)
    (outcome,) = await with_names({"turn.test": [PUBLIC, PRIVATE]}, [f"http://turn.test:{lab.port}/again"])
    assert blocked(outcome), outcome
    assert {entry.host for entry in lab.log} == {PUBLIC}
    assert list(lab.connections.per_host) == [PUBLIC]


@pytest.mark.usefixtures("public")
async def test_untrusted_names_that_turn_private_are_blocked(lab: LabServer) -> None:
    urls = [f"http://turn.test:{lab.port}/no-length", f"http://turn.test:{lab.port}/secret"]
    outcomes = await with_names({"turn.test": [PUBLIC, PRIVATE]}, urls, private_network="deny")
    assert [code_of(outcome) for outcome in outcomes] == [200, "address_blocked"]
    assert {entry.host for entry in lab.log} == {PUBLIC}


@pytest.mark.usefixtures("public")
async def test_a_listed_name_may_move_between_private_and_public(lab: LabServer) -> None:
    urls = [f"http://turn.test:{lab.port}/no-length?{n}" for n in range(4)]
    # Each look-up is one exchange's, and the one after a move finds the pool that it may not use: one more.
    answers = [PRIVATE, PRIVATE, PUBLIC, PUBLIC, PUBLIC, PRIVATE, PRIVATE]
    outcomes = await with_names({"turn.test": answers}, urls)
    assert [code_of(outcome) for outcome in outcomes] == [200] * 4
    assert [entry.host for entry in lab.log] == [PRIVATE, PUBLIC, PUBLIC, PRIVATE]


@pytest.mark.usefixtures("public")
async def test_a_hop_that_had_to_wait_is_judged_by_where_it_came_from(lab: LabServer) -> None:
    """The row leaves its task between the hops; that it came from a public host is not forgotten."""
    inner = f"http://inner.test:{lab.port}"
    options: dict[str, Any] = {"retries": 0, "per_host": 2, "max_retry_after": 5, "robots": False}
    transport = Transport(Config.of(**options), resolver=names({"outer.test": PUBLIC, "inner.test": PRIVATE}))
    lab.add("/throttled", lambda exchange: exchange.become("/retry-after/k?after=2"), host=1)
    urls = [f"{inner}/throttled", hop(lab, f"{inner}/secret", "outer.test").replace("/redirect", "/delay/300/redirect")]
    try:
        async with Fetcher(Config.of(**options), transport=transport) as fetcher, fetcher.stream(urls) as outcomes:
            codes = {outcome.request.id: code_of(outcome) async for outcome in outcomes}
    finally:
        await transport.close()
    assert codes == {1: 200, 2: "address_blocked"}
    assert len(lab.requests("/delay")) == 1
    assert lab.requests("/secret") == []


async def test_nothing_is_judged_where_all_is_allowed(lab: LabServer) -> None:
    outcome = await one(hop(lab, lab.url("/ok", 3), "127.0.0.1"), private_network="allow")
    assert code_of(outcome) == 200


async def test_an_address_is_judged_by_the_request_and_not_by_the_rows_other_one() -> None:
    """A middleware may make two requests of one row at once: they share its state."""
    transport = Transport(Config.of(proxy="http://127.0.0.1:9", robots=False))
    current.set(RequestState(Request(1, "http://a.example/"), parse("http://a.example/")))
    with pytest.raises(Skipped, match="metadata"):
        await transport(Request(1, "http://169.254.169.254/latest/"))
    await transport.close()
