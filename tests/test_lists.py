"""Lists on the network in the library: a few lines crawl a sitemap, and nothing of it waits in the event loop."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import fetcher.lists
from fetcher import Config, Failure, Fetcher, Job, Outcome, Request, SourceError
from fetcher.errors import ConfigError, TooLarge
from fetcher.sources import Row
from fetcher.sources.network import ListBody, NetworkLists, read_site
from fetcher.transport import address
from tests.lab.exchange import Exchange
from tests.lab.held_case import HeldCase
from tests.lab.server import LabServer
from tests.lab.sitemaps import SitemapSite, index, urlset

NO_ROBOTS = Config.of(robots=False, retries=0)


@pytest.fixture
async def site() -> AsyncIterator[SitemapSite]:
    async with LabServer() as lab:
        yield SitemapSite(lab)


async def crawled(fetcher: Fetcher, *inputs: str, format: str = "sitemap") -> list[Outcome]:  # noqa: A002  # as read's
    async with fetcher.stream(fetcher.read(inputs, format=format)) as outcomes:
        return sorted([outcome async for outcome in outcomes], key=lambda outcome: outcome.request.id)


async def test_a_sitemap_in_a_few_lines(site: SitemapSite) -> None:
    site.put("/robots.txt", f"User-agent: *\nSitemap: {site.url('/i.xml')}\n")
    site.put("/i.xml", index([site.url("/1.xml.gz")]))
    site.put("/1.xml.gz", gzip.compress(urlset(site.pages("a", "b"), lastmod="2024").encode()))
    async with Fetcher() as fetcher:
        outcomes = await crawled(fetcher, site.url("/"))
    assert [(outcome.ok, outcome.url) for outcome in outcomes] == [(True, url) for url in site.pages("a", "b")]
    assert [outcome.request.fields for outcome in outcomes] == [{"lastmod": "2024"}] * 2


@pytest.mark.parametrize("robots", [True, False])
async def test_a_sitemap_that_its_robots_txt_names_is_allowed_by_that(
    robots: bool, site: SitemapSite
) -> None:  # a case
    async def moved(exchange: Exchange) -> None:
        await exchange.reply(status=301, headers=[("Location", other.url("/maps/i.xml"))])

    other = SitemapSite(site.lab, 2)
    for each in (site, other):
        each.put("/robots.txt", f"User-agent: *\nDisallow: /maps/\nSitemap: {site.url('/maps/i.xml')}\n")
        each.put("/maps/i.xml", urlset(each.pages("a")))
    async with Fetcher(Config.of(robots=robots, retries=0)) as fetcher:
        assert [outcome.ok for outcome in await crawled(fetcher, site.url("/"))] == [True]
        site.lab.add("/maps/i.xml", moved, 1)
        for named in (site.url("/"), other.url("/maps/i.xml")):  # what another origin names is not its own word
            if robots:
                with pytest.raises(SourceError, match="robots_denied"):
                    await crawled(fetcher, named)
            else:
                assert [outcome.ok for outcome in await crawled(fetcher, named)] == [True]


async def test_without_a_format_read_is_fetchers_read(site: SitemapSite, tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text(site.pages("a")[0])
    async with Fetcher(NO_ROBOTS) as fetcher, fetcher.stream(fetcher.read([str(path), *site.pages("b")])) as outcomes:
        assert sorted([outcome.request.url async for outcome in outcomes]) == site.pages("a", "b")


async def test_the_options_are_those_of_fetchers_read(site: SitemapSite) -> None:
    site.put("/l.csv", f"Nom;Lien;n\nCafé;{site.pages('a')[0]};1\n".encode("cp1252"))
    async with Fetcher(NO_ROBOTS) as client:
        rows = client.read(
            [site.url("/l.csv")], format="csv", url_column="lien", delimiter=";", encoding="cp1252", carry=["nom"]
        )
        assert [(row.url, row.fields) async for row in rows if isinstance(row, Request)] == [
            (site.pages("a")[0], {"Nom": "Café"})
        ]
        stdin = io.BytesIO(site.pages("b")[0].encode())
        assert [row.url async for row in client.read(["-"], stdin=stdin) if isinstance(row, Request)] == site.pages("b")
        with pytest.raises(ConfigError, match=r"^delimiter: 'xx' is no delimiter"):
            client.read([site.url("/l.csv")], format="csv", delimiter="xx")
    options = [set(inspect.signature(read).parameters) for read in (fetcher.read, Fetcher.read)]
    assert options[0] - {"network"} == options[1] - {"self", "kept"}


async def test_middleware_and_headers_see_the_list_too(site: SitemapSite) -> None:
    seen: list[str] = []

    async def watch(request: Request, proceed: fetcher.Exchange) -> fetcher.Response:
        seen.append(request.url)
        return await proceed(request)

    site.put("/s.xml", urlset(site.pages("a")))
    async with Fetcher(NO_ROBOTS, middleware=[watch]) as client:
        await crawled(client, site.url("/s.xml"))
    assert seen == [site.url("/s.xml"), *site.pages("a")]


async def test_a_refresh_and_other_statuses_are_no_list(site: SitemapSite) -> None:
    site.put("/s.xml", 404)
    config = Config.of(robots=False, retries=0, accept="200-599", follow_refresh=True)
    async with Fetcher(config) as fetcher:
        with pytest.raises(SourceError, match="http_404"):
            await crawled(fetcher, site.url("/s.xml"))


async def test_a_list_is_what_was_asked_for_wherever_it_would_lead_a_reader(site: SitemapSite) -> None:
    async def leads_on(exchange: Exchange) -> None:
        refresh = ("Refresh", f"0; url={site.url('/other.xml')}")
        await exchange.reply(urlset(site.pages("a")), kind="application/xml", headers=[refresh])

    site.lab.add("/s.xml", leads_on, site.host)
    async with Fetcher(Config.of(robots=False, follow_refresh=True)) as fetcher:
        await crawled(fetcher, site.url("/s.xml"))
    assert (site.asked("/s.xml"), site.asked("/other.xml"), site.asked("/ok")) == (1, 0, 1)


async def test_a_list_that_is_too_large_is_named(site: SitemapSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher.lists, "MAX_BYTES", 1_000)
    site.put("/s.xml", urlset(site.pages(*range(100))))
    async with Fetcher(NO_ROBOTS) as client:
        with pytest.raises(SourceError, match=r"too_large: the list is over 0 MiB: download it, and give the file$"):
            await crawled(client, site.url("/s.xml"))
    assert TooLarge.codes == {"too_large"}


async def test_a_closed_fetcher_ends_what_reads_a_list(site: SitemapSite) -> None:
    held = HeldCase()
    site.lab.add("/s.xml", held)
    async with Fetcher(NO_ROBOTS) as fetcher:
        rows = fetcher.read([site.url("/s.xml")], format="sitemap")
        waiting = asyncio.ensure_future(anext(rows))
        await site.lab.until(lambda: site.asked("/s.xml") == 1)
    with pytest.raises(SourceError, match=r"s\.xml: was not read, for the run has ended$"):
        await waiting


async def test_the_loop_itself_is_never_waited_in(site: SitemapSite) -> None:
    found: list[NetworkLists] = []

    async with Fetcher(NO_ROBOTS) as fetcher:
        fetcher.read(["x"], format="sitemap")
        assert fetcher._lists is not None
        found.append(NetworkLists(fetcher._lists))
        with pytest.raises(RuntimeError, match="another thread"):
            next(read_site(site.url("/s.xml"), found[0]))


async def test_a_job_keeps_its_list(site: SitemapSite, tmp_path: Path) -> None:
    site.put("/s.xml", urlset(site.pages("a", "b", "c")))
    output = str(tmp_path / "p.jsonl")

    async def run(rows: int | None) -> int:
        config = Config.of(robots=False, retries=0, limit=rows)
        async with Fetcher(config) as fetcher, Job(fetcher, output) as job:
            source = fetcher.read([site.url("/s.xml")], format="sitemap", kept=job.kept_list)
            return (await job.run(source)).ok

    assert await run(1) == 1
    site.put("/s.xml", 404)
    assert await run(None) == 3
    assert site.asked("/s.xml") == 1
    assert (tmp_path / "p.jsonl").read_text().count(site.url("/ok?n=")) >= 3


def test_any_function_that_fetches_will_do() -> None:
    def fetch(url: str, /, *, robots: bool = True, guarded: bool = False) -> ListBody:
        return ListBody(url, b"http://a/1\nhttp://a/2\n")

    rows: list[Row] = list(fetcher.read(["http://l/list"], format="txt", network=NetworkLists(fetch)))
    assert [row.url for row in rows if isinstance(row, Request)] == ["http://a/1", "http://a/2"]


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the second host stand for one of the Internet's."""
    real = address._judge_v4

    def judge(number: int) -> address.AddressClass:
        return "public" if number == 0x7F000002 else real(number)

    monkeypatch.setattr(address, "_judge_v4", judge)
    address.classify.cache_clear()
    yield
    address.classify.cache_clear()


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("robots", [True, False])
async def test_what_a_public_host_lists_reaches_no_private_one(robots: bool, site: SitemapSite) -> None:  # a case
    other = SitemapSite(site.lab, 2)
    other.put("/i.xml", index([site.url("/1.xml"), other.url("/1.xml")]))
    other.put("/1.xml", urlset([*site.pages("no"), *other.pages("yes")]))
    other.put("/l.txt", "\n".join([*site.pages("no"), *other.pages("yes")]))
    async with Fetcher(Config.of(robots=robots, retries=0)) as fetcher:
        sitemap, private, public = await crawled(fetcher, other.url("/i.xml"))
        more = await crawled(fetcher, other.url("/l.txt"), format="txt")
    assert isinstance(sitemap, Failure)
    assert sitemap.error.message.startswith(f"{site.url('/1.xml')}: address_blocked: 127.0.0.1 is a private address")
    for outcome in (private, more[0]):
        assert isinstance(outcome, Failure)
        assert outcome.error.code == "address_blocked"
    assert [public.ok, more[1].ok] == [True, True]
    assert {entry.host for entry in site.lab.log} == {"127.0.0.2"}


@pytest.mark.usefixtures("public")
async def test_what_a_private_host_lists_may_be_private(site: SitemapSite) -> None:
    other = SitemapSite(site.lab, 2)
    site.put("/robots.txt", f"Sitemap: {site.url('/i.xml')}")
    site.put("/i.xml", index([site.url("/1.xml"), other.url("/2.xml")]))
    site.put("/1.xml", urlset([*site.pages("a"), *other.pages("b")]))
    other.put("/2.xml", urlset(other.pages("c")))
    async with Fetcher() as fetcher:
        outcomes = await crawled(fetcher, site.url("/"))
    assert [outcome.url for outcome in outcomes if outcome.ok] == [*site.pages("a"), *other.pages("b", "c")]


@pytest.mark.usefixtures("public")
async def test_a_resume_does_not_forget_who_listed_a_row(site: SitemapSite, tmp_path: Path) -> None:
    other = SitemapSite(site.lab, 2)
    other.put("/s.xml", urlset([*other.pages("a"), *site.pages("no")]))
    for limit in (1, None):
        config = Config.of(robots=False, retries=0, limit=limit)
        async with Fetcher(config) as fetcher, Job(fetcher, str(tmp_path / "p.jsonl")) as job:
            stats = await job.run(fetcher.read([other.url("/s.xml")], format="sitemap", kept=job.kept_list))
    assert dict(stats.codes) == {"address_blocked": 1}
    assert {entry.host for entry in site.lab.log} == {"127.0.0.2"}


async def test_a_list_has_more_time_than_a_page(site: SitemapSite) -> None:
    async def drip(exchange: Exchange) -> None:
        data = urlset(site.pages("a")).encode()
        await exchange.send(exchange.head(headers=[("Content-Length", str(len(data)))]))
        for at in range(0, len(data), 20):
            await exchange.send(data[at : at + 20])
            await exchange.pause(0.05)

    site.lab.add("/s.xml", drip)
    async with Fetcher(Config.of(robots=False, retries=0, timeout=0.3)) as fetcher:
        (outcome,) = await crawled(fetcher, site.url("/s.xml"))
        assert outcome.ok
        async with fetcher.stream([site.url("/s.xml")]) as outcomes:
            (late,) = [each async for each in outcomes]
    assert isinstance(late, Failure)
    assert late.error.code in ("too_slow", "total_timeout")


async def test_a_list_that_is_being_fetched_is_in_flight(site: SitemapSite) -> None:
    held = HeldCase()
    site.lab.add("/s.xml", held)
    async with Fetcher(NO_ROBOTS) as fetcher, fetcher.stream(fetcher.read([site.url("/s.xml")], format="sitemap")):
        await site.lab.until(lambda: site.asked("/s.xml") == 1)
        assert [(row.id, row.url) for row in fetcher.in_flight()] == [(0, site.url("/s.xml"))]


async def test_a_list_waits_for_no_memory_that_its_own_reader_holds(site: SitemapSite) -> None:
    site.put("/p", "x" * 100_000, "text/plain")
    site.put("/l.txt", site.pages("a")[0] + "\n" + "# \n" * 50_000)
    config = Config.of(robots=False, retries=0, keep_body=True, max_size="100K", memory="100K")
    async with Fetcher(config) as fetcher, fetcher.stream([site.url("/p")]) as outcomes:
        await site.lab.until(lambda: site.asked("/p") == 1)
        rows = fetcher.read([site.url("/l.txt")], format="txt")
        async with asyncio.timeout(30):
            assert [row.url async for row in rows if isinstance(row, Request)] == site.pages("a")
        assert [outcome.ok async for outcome in outcomes] == [True]
