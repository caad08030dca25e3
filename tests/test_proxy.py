"""Through a proxy: what it is asked, what it is not, and what its own failures are called."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest

from fetcher.errors import ConfigError
from tests.lab.crawl import code_of, crawl, one, with_names
from tests.lab.proxy import LabProxy
from tests.lab.server import LabServer, refused_port, silent_port


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=3) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared_tls_lab() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=2, tls=True) as lab:
        yield lab


@pytest.fixture
def tls_lab(shared_tls_lab: LabServer) -> LabServer:
    """The same for all tests, which come in any order, with nothing in its log."""
    shared_tls_lab.clear()
    return shared_tls_lab


async def test_plain_requests_are_asked_of_the_proxy_in_full(lab: LabServer) -> None:
    async with LabProxy(names={"far.test": "127.0.0.2"}) as proxy:
        url = f"http://far.test:{lab.port}/ok?a=%7e|b"
        assert code_of(await one(url, proxy=proxy.url)) == 200
    assert proxy.lines == [f"GET {url} HTTP/1.1"]
    assert (lab.log[0].host, lab.log[0].header("host")) == ("127.0.0.2", f"far.test:{lab.port}")


async def test_tls_goes_through_a_tunnel_and_is_verified_at_its_end(tls_lab: LabServer) -> None:
    urls = [tls_lab.https("/ok", certificate=name) for name in ("valid", "wrong_host", "unknown_ca")]
    async with LabProxy() as proxy:
        outcomes = await crawl(urls, proxy=proxy.url, ca_bundle=str(tls_lab.ca))
    assert [code_of(outcome) for outcome in outcomes] == [200, "tls_verify", "tls_verify"]
    assert {line.split(" ")[0] for line in proxy.lines} == {"CONNECT"}
    assert [entry.path for entry in tls_lab.log] == ["/ok"]


async def test_a_tunnel_tells_the_proxy_no_secret(tls_lab: LabServer) -> None:
    port = tls_lab.tls_ports["valid"]
    async with LabProxy() as proxy:
        outcome = await one(
            tls_lab.https("/echo"),
            proxy=proxy.url.replace("//", "//ann:pw@"),
            ca_bundle=str(tls_lab.ca),
            header=["X-Api-Key: s3cret", f"@127.0.0.1:{port} Authorization: Bearer s3cret"],
        )
    assert code_of(outcome) == 200
    assert "s3cret" not in proxy.heads[0]
    assert "Proxy-Authorization: Basic YW5uOnB3" in proxy.heads[0]
    head = tls_lab.log[-1].head
    assert head.count("s3cret") == 2
    assert "Proxy-Authorization" not in head


async def test_the_proxys_own_certificate_is_held_to_the_same_rules(lab: LabServer, tls_lab: LabServer) -> None:
    import trustme

    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with LabProxy(context=context) as proxy:
        with authority.cert_pem.tempfile() as bundle:
            assert code_of(await one(lab.url("/ok"), proxy=proxy.url, ca_bundle=bundle)) == 200
        assert code_of(await one(lab.url("/ok"), proxy=proxy.url)) == "tls_verify"
        assert code_of(await one(lab.url("/ok"), proxy=proxy.url, insecure=True)) == 200
        assert code_of(await one(tls_lab.https("/ok"), proxy=proxy.url, insecure=True)) == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_no_news_of_the_host(scheme: str) -> None:
    with refused_port() as refused, silent_port() as silent:
        dead = await one(f"{scheme}://far.test/", proxy=f"http://127.0.0.1:{refused}")
        mute = await one(f"{scheme}://far.test/", proxy=f"http://127.0.0.1:{silent}", timeout=0.5, connect_timeout=0.5)
        missing = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        (nameless,) = await with_names({"gone.test": missing}, [f"{scheme}://far.test/"], proxy="http://gone.test:1")
    assert code_of(dead) == "connect_refused"
    assert "proxy" in dead.error.message  # type: ignore[union-attr]  # the code says it failed
    assert code_of(mute) in ("connect_timeout", "total_timeout")
    assert code_of(nameless) == "connect_refused"
    assert "proxy" in nameless.error.message  # type: ignore[union-attr]  # the code says it failed


async def test_a_proxy_that_refuses_is_told_from_the_host(lab: LabServer) -> None:
    async with LabProxy(status=407) as proxy:
        assert code_of(await one("https://far.test/", proxy=proxy.url)) == "connect_refused"
        assert code_of(await one("http://far.test/", proxy=proxy.url)) == "http_407"
    assert lab.connections.total == 0


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (403, 1), (502, 3)])
async def test_a_tunnel_that_a_proxy_refuses_for_good_is_not_asked_for_again(status: int, tries: int) -> None:
    async with LabProxy(status=status) as proxy:
        outcome = await one("https://far.test/", proxy=proxy.url, retries=2, backoff=0)
    assert code_of(outcome) == "connect_refused"
    assert len(proxy.lines) == tries
    assert outcome.attempts == tries, "what was asked is counted, also where it is not asked again"


async def test_hosts_that_need_no_proxy_are_reached_directly(lab: LabServer) -> None:
    with refused_port() as dead:
        options = {"http_proxy": f"http://127.0.0.1:{dead}", "no_proxy": "127.0.0.1, localhost"}
        urls = [lab.url("/ok", 1), f"http://localhost:{lab.port}/ok", lab.url("/ok", 2)]
        outcomes = await crawl(urls, middleware=(), **options)  # type: ignore[arg-type]  # they are options
    assert [code_of(outcome) for outcome in outcomes] == [200, 200, "connect_refused"]


async def test_each_scheme_has_its_proxy(lab: LabServer, tls_lab: LabServer) -> None:
    async with LabProxy() as plain, LabProxy() as secure:
        outcomes = await crawl(
            [lab.url("/ok"), tls_lab.https("/ok")],
            http_proxy=plain.url,
            https_proxy=secure.url,
            ca_bundle=str(tls_lab.ca),
        )
    assert [code_of(outcome) for outcome in outcomes] == [200, 200]
    assert [proxy.lines[0].split(" ")[0] for proxy in (plain, secure)] == ["GET", "CONNECT"]


async def test_a_hop_from_behind_the_proxy_to_a_private_address_is_blocked(lab: LabServer) -> None:
    """Where a name led is the proxy's to know: it counts as public."""
    async with LabProxy(names={"far.test": "127.0.0.2"}) as proxy:
        to = lab.url("/secret", 1)
        assert code_of(await one(f"http://far.test:{lab.port}/redirect?to={to}", proxy=proxy.url)) == "address_blocked"
        metadata = await one("http://169.254.169.254/latest", proxy=proxy.url)
        assert code_of(metadata) == "address_blocked"
    assert lab.requests("/secret") == []
    assert len(proxy.heads) == 1


def test_names_cannot_be_judged_through_a_proxy() -> None:
    with pytest.raises(ConfigError, match="proxy"):
        from fetcher.config import Config

        Config.of(proxy="http://127.0.0.1:1", private_network="deny")
