"""The sitemaps and feeds of crawler-commons' tests: each gives the URLs its file has, by a second and simpler reading."""

from __future__ import annotations

import gzip
import re
from html import unescape
from pathlib import Path
from xml.sax.saxutils import unescape as unescape_xml

import pytest

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources import read
from fetcher.sources.lines import open_list
from fetcher.sources.sitemap import Location, Sitemap, read_sitemap
from tests.lab.suites import suite

COUNTS = {
    "atom.xml": 1,
    "do-not-visit.txt": 1,
    "sitemap-with-bom.txt": 2,
    "sitemap.badns.xml": 2,
    "sitemap.index.xml": 15,
    "sitemap.ns.xml": 2,
    "sitemap.txt": 2,
    "sitemap.txt.gz": 5,
    "xmlSitemap.gz": 5,
    "extension/hebdenbridgetimes-articles-sitemap.xml": 74,
    "extension/pagemaps-sitemap.xml": 2,
    "extension/shinpaideshou-news-sitemap.xml": 3,
    "extension/sitemap-images.xml": 1,
    "extension/sitemap-links.xml": 3,
    "extension/sitemap-mobile.xml": 3,
    "extension/sitemap-news.xml": 2,
    "extension/sitemap-videos-tvshow.xml": 1,
    "extension/sitemap-videos.xml": 3,
}
REFUSED = {"xxe-scrapy-676.xml": r":2: has a DTD of its own \(entities\), which is refused$"}
NO_SITEMAPS = {"SOURCE.txt", "LICENSE.txt"}

# Only ``loc`` outside of an extension: ``image:loc`` and the like are no pages.
_LOC = re.compile(r"<(?:sit:)?loc>(.*?)</(?:sit:)?loc>", re.DOTALL)


@pytest.fixture(scope="module")
def folder() -> Path:
    return suite("sitemaps")


def listed(path: Path) -> list[Location]:
    with open_list(str(path), encoding=None) as blocks:
        return list(read_sitemap(blocks, name=path.name, base=None))


def urls_of(found: list[Location]) -> list[str]:
    for location in found:
        assert isinstance(location, Request | Sitemap)
    return [location.url for location in found if isinstance(location, Request | Sitemap)]


def simply(path: Path) -> list[str]:
    """Return what a search for the tags finds."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    if "<feed" in text:
        return re.findall(r'<entry>.*?<link href="(.*?)"', text, re.DOTALL)
    if "<sitemapindex" in text:
        return [unescape_xml(url.strip()) for url in re.findall(r"<sitemap>(.*?)</sitemap>", text, re.DOTALL)]
    if "<urlset" in text or "urlset " in text:
        return [unescape(url.strip()) for url in _LOC.findall(text)]
    return text.split()


def test_every_file_of_the_suite_is_tried(folder: Path) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {*COUNTS, *REFUSED, *NO_SITEMAPS}


@pytest.mark.parametrize("name", COUNTS)
def test_a_sitemap_gives_its_urls(name: str, folder: Path) -> None:
    found = urls_of(listed(folder / name))
    assert found == simply(folder / name)
    assert len(found) == COUNTS[name]


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "sitemap.index.xml"])
def test_a_sitemap_is_a_list(name: str, folder: Path) -> None:
    rows = list(read([str(folder / name)], format="sitemap"))
    assert [row.id for row in rows if isinstance(row, Request)] == list(range(1, COUNTS[name] + 1))


@pytest.mark.parametrize("name", REFUSED)
def test_what_declares_entities_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(SourceError, match=REFUSED[name]):
        listed(folder / name)


@pytest.mark.parametrize("name", sorted(NO_SITEMAPS))
def test_a_text_that_is_no_list_of_urls_is_no_sitemap(name: str, folder: Path) -> None:
    with pytest.raises(SourceError, match=r": is no sitemap: neither XML nor a list of URLs, one a line$"):
        listed(folder / name)


def test_the_fields_of_a_row(folder: Path) -> None:
    rows = list(read([str(folder / "xmlSitemap.gz")], format="sitemap"))
    fields = rows[0].fields if isinstance(rows[0], Request) else None
    assert fields == {"lastmod": "2005-01-01", "changefreq": "monthly", "priority": "0.8"}
