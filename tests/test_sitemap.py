"""One sitemap, read: every kind of it, what is wrong with the web's, and what is made to harm."""

from __future__ import annotations

import gzip
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources import BadRow, ListOptions, check, read, sitemap
from fetcher.sources.sitemap import MAX_BYTES, MAX_NESTING, Location, Sitemap, read_sitemap
from tests.lab.sitemaps import BILLION_LAUGHS, index, urlset

BLOCK = 64 * 1024
MIB = 1024 * 1024


def rows_of(*blocks: bytes, base: str | None = None) -> list[Location]:
    return list(read_sitemap(iter(blocks), name="s.xml", base=base))


def urls_of(*blocks: bytes, base: str | None = None) -> list[str]:
    found = rows_of(*blocks, base=base)
    assert not [row for row in found if isinstance(row, BadRow)]
    return [row.url for row in found if isinstance(row, Request | Sitemap)]


def error_of(blocks: Iterator[bytes]) -> str:
    with pytest.raises(SourceError) as raised:
        for _ in read_sitemap(blocks, name="s.xml", base=None):
            pass
    return str(raised.value)


def only(text: str | bytes) -> str:
    """Return the error of a whole document."""
    return error_of(iter([text.encode() if isinstance(text, str) else text]))


# What there is


def test_pages_with_their_fields() -> None:
    text = urlset(["http://a/1", "http://a/2"], lastmod="2024-01-02", changefreq="daily", priority="0.5", other="x")
    found = rows_of(text.encode())
    fields = {"lastmod": "2024-01-02", "changefreq": "daily", "priority": "0.5"}
    assert found == [Request(0, "http://a/1", (), fields), Request(0, "http://a/2", (), fields)]


def test_a_page_without_fields_has_none() -> None:
    assert rows_of(urlset(["http://a/"]).encode()) == [Request(0, "http://a/")]


def test_an_index_names_sitemaps() -> None:
    assert rows_of(index(["http://a/1.xml", "http://b/2.xml.gz"]).encode()) == [
        Sitemap("http://a/1.xml"),
        Sitemap("http://b/2.xml.gz"),
    ]


def test_rss_and_rdf() -> None:
    item = (
        "<item><title>t</title><link>http://a/1</link><atom:link href='http://no/'/>"
        "<pubDate>Tue, 10 Jun 2003 04:00:00 GMT</pubDate></item>"
        "<item><guid isPermaLink='false'>7</guid><link><![CDATA[ http://a/2?x=1&y=2 ]]></link></item>"
        "<item><guid>http://a/3</guid><pubDate>some day</pubDate></item>"
    )
    rss = f"<rss version='2.0'><channel><link>http://site/</link><image><link>http://i/</link></image>{item}</channel></rss>"
    rdf = f"<rdf:RDF><channel><link>http://site/</link></channel>{item}</rdf:RDF>"
    for text in (rss, rdf):
        assert rows_of(text.encode()) == [
            Request(0, "http://a/1", (), {"lastmod": "2003-06-10T04:00:00+00:00"}),
            Request(0, "http://a/2?x=1&y=2"),
            Request(0, "http://a/3", (), {"lastmod": "some day"}),
        ]


def test_atom_takes_the_link_that_leads_to_the_page() -> None:
    text = (
        "<feed xmlns='http://www.w3.org/2005/Atom'><link href='http://site/'/>"
        "<entry><link rel='edit' href='http://no/'/><link rel='alternate' href='/1'/><published>2020</published>"
        "<updated>2021</updated><content type='xhtml'><div><a><link href='http://no/'/></a></div></content></entry></feed>"
    )
    assert rows_of(text.encode(), base="http://a/feed") == [Request(0, "http://a/1", (), {"lastmod": "2021"})]


AMPERSANDS = {
    "a=1&b=2": "a=1&b=2",
    "a=1&amp;b=2": "a=1&b=2",
    "a&#38;b&#x26;c&#x3C;": "a&b&c<",
    "&&amp;&": "&&&",
    "a&copy=1&nbsp;&ampx;&#x;&#;&#section": "a&copy=1&nbsp;&ampx;&#x;&#;&#section",
    "<![CDATA[a&b&amp;c]]>&d<![CDATA[&e]&f]]&g]]>&h": "a&b&amp;c&d&e]&f]]&g&h",
    "<!-- & <![CDATA[ -->a&amp;b<![CDATA[&amp;]]>&c": "a&b&amp;&c",
}  # fmt: skip


@pytest.mark.parametrize("written", AMPERSANDS)
def test_an_ampersand_that_begins_no_reference_is_text(written: str) -> None:
    text = f"<urlset a='1&2&amp;3'><url><loc>http://a/?{written}</loc></url><url><loc>http://a/&</loc></url></urlset>"
    data = text.encode()
    expected = [Request(0, f"http://a/?{AMPERSANDS[written]}"), Request(0, "http://a/&")]
    assert rows_of(data) == expected
    assert rows_of(*(data[at : at + 1] for at in range(len(data)))) == expected
    filler = b"<urlset>" + b" " * 2_000  # more than what is looked at together at the beginning
    for cut in range(len(data)):
        assert rows_of(filler + data[data.index(b"<url>") : cut], data[max(cut, data.index(b"<url>")) :]) == expected


def test_an_ampersand_in_a_tag_or_at_the_end_is_as_it_was() -> None:
    assert only("<urlset><url><loc>http://a/</loc></url>&") == "s.xml:1: ends in the middle: it was cut short"
    assert only("<urlset><&>") == "s.xml:1: is not well-formed XML (not well-formed (invalid token))"


def test_ampersands_cost_no_time() -> None:
    began = time.process_time()
    for unit in (b"&", b"&#", b"<![CDATA[&]]>", b"<![CDATA[", b"]]", b"&amp;"):
        end = b"" if unit != b"<![CDATA[" else b"]]>"
        rows = rows_of(*filled(b"<urlset><url><loc>http://a/", unit, end + b"</loc></url></urlset>", size=8 * MIB))
        assert len(rows) == 1
    assert time.process_time() - began < 15  # one or two seconds


def test_plain_text() -> None:
    text = b"\xef\xbb\xbf\r\n# pages\r\nhttp://a/1\r\n\r\nhttp://a/2\thttp://a/3\n"
    first, second = rows_of(text)
    assert first == Request(0, "http://a/1")
    assert isinstance(second, BadRow)
    assert second.error.message.startswith("s.xml:")
    assert "has a tab within" in second.error.message


def test_it_may_come_a_byte_at_a_time() -> None:
    for text in (
        urlset(["http://a/é", "http://a/2"]),
        "http://a/é\nhttp://a/2\n",
        "\ufeff" + urlset(["http://a/é", "http://a/2"]),
    ):
        data = text.encode()
        assert urls_of(*(data[at : at + 1] for at in range(len(data)))) == ["http://a/é", "http://a/2"]


def test_a_declared_encoding_may_come_a_byte_at_a_time() -> None:
    data = "<?xml version='1.0' encoding='gb2312'?><urlset><url><loc>http://a/\u4e00</loc></url></urlset>".encode(
        "gb2312"
    )
    assert urls_of(*(data[at : at + 1] for at in range(len(data)))) == ["http://a/\u4e00"]


# What is wrong with the web's


@pytest.mark.parametrize(
    "text",
    [
        "<urlset><url><loc>http://a/1</loc></url></urlset>",
        "<sm:urlset><sm:url><sm:loc>http://a/1</sm:loc><image:image><image:loc>http://i/</image:loc></image:image></sm:url></sm:urlset>",
        "<URLSET><URL><Loc>\n http://a/1 </Loc></URL></URLSET>",
        "\n\n <?xml version='1.0'?><urlset xmlns='wrong'><url>http://a/1</url></urlset>",
        "\ufeff\n<?xml version='1.0'?><urlset><url><loc></loc><loc>http://a/1</loc></url></urlset>",
        "<!DOCTYPE urlset SYSTEM 'http://127.0.0.1:9/x.dtd'><urlset><url><loc>http://a/1</loc></url></urlset>",
        "<!-- <html> --><urlset><url><image:loc>http://i/</image:loc><loc>http://a/1</loc></url></urlset>",
        "<urlset><url><loc>http://a/1</loc></url><!-- <url><loc>http://no/</loc></url> --></urlset>",
    ],
)
def test_the_url_is_found(text: str) -> None:
    assert urls_of(text.encode()) == ["http://a/1"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "iso-8859-1", "windows-1252", "shift_jis", "gb2312"]
)
def test_every_encoding_is_read(encoding: str) -> None:
    url = "http://a/é" if encoding[:2] in ("ut", "is", "wi") else "http://a/\u4e00"
    data = f"<?xml version='1.0' encoding='{encoding}'?><urlset><url><loc>{url}</loc></url></urlset>".encode(encoding)
    assert urls_of(data) == [url]


def test_a_byte_that_is_wrong_costs_its_row_alone() -> None:
    data = (
        b"<urlset><url><loc>http://a/\xe9</loc></url><url><x:title>\xe9</x:title><loc>http://a/2</loc></url></urlset>"
    )
    bad, good = rows_of(data)
    assert isinstance(bad, BadRow)
    assert bad.error.message == "s.xml:1: the URL has bytes that are not in its encoding"
    assert good == Request(0, "http://a/2")


def test_relative_locations_are_resolved_where_the_sitemap_has_a_url() -> None:
    text = b"<urlset><url><loc>/1</loc></url><url><loc>2</loc></url><url><loc>//b/3</loc></url></urlset>"
    assert urls_of(text, base="http://a/x/s.xml") == ["http://a/1", "http://a/x/2", "http://b/3"]
    assert urls_of(text) == ["/1", "2", "//b/3"]  # each a bad row later on
    (bad,) = rows_of(index(["two.xml"]).encode())
    assert isinstance(bad, BadRow)
    assert bad.error.message == "s.xml:3: the location of a sitemap is relative"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("<url><lastmod>2020</lastmod></url>", "s.xml:1: an entry without a URL"),
        ("<url><loc>http://a/\nhttp://b/</loc></url>", "s.xml:1: the URL has a line end within"),
        (f"<url><loc>http://a/{'x' * 70_000}</loc></url>", "s.xml:1: the URL is over 64 KiB long"),
    ],
)
def test_an_entry_that_is_no_url_is_a_bad_row(entry: str, message: str) -> None:
    bad, good = rows_of(f"<urlset>{entry}<url><loc>http://a/</loc></url></urlset>".encode())
    assert isinstance(bad, BadRow)
    assert bad.error.message == message
    assert good == Request(0, "http://a/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.xml: is empty, and no sitemap"),
        (" \n", "s.xml: is empty, and no sitemap"),
        ("<!doctype html><p>Not found", "s.xml: is an HTML page, and no sitemap"),
        ("<!-- a --><!-- b -->\n<?x?><HTML lang=de>", "s.xml: is an HTML page, and no sitemap"),
        ("<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC 'x' 'y'><a/>", "s.xml: is an HTML page, and no sitemap"),
        ("<note/>", "s.xml: is XML and no sitemap, RSS or Atom (its root is <note>)"),
        ('{"urls": []}', "s.xml: is no sitemap: neither XML nor a list of URLs, one a line"),
        ("<urlset><url><loc>http", "s.xml:1: ends in the middle: it was cut short"),
        ("<urlset>\n<url></urlset>", "s.xml:2: is not well-formed XML (mismatched tag)"),
        (
            "<urlset>\n<url><loc a=1>http://a/</loc>",
            "s.xml:2: is not well-formed XML (not well-formed (invalid token))",
        ),
        ("<?xml version='1.0' encoding='zip'?><urlset/>", "s.xml: has the encoding 'zip', which is not known"),
        (
            "<?xml version='1.0' encoding='unicode_escape'?><urlset/>",
            "s.xml: has the encoding 'unicode_escape', which is not known",
        ),
    ],
)
def test_what_is_no_sitemap_is_one_clear_line(text: str, message: str) -> None:
    assert only(text) == message


def test_what_came_before_an_error_is_given() -> None:
    found: list[Location] = []
    with pytest.raises(SourceError):
        found.extend(read_sitemap(iter([b"<urlset><url><loc>http://a/</loc></url>"]), name="s.xml", base=None))
    assert found == [Request(0, "http://a/")]


# What is made to harm


@pytest.mark.parametrize(
    "subset",
    [
        '<!ENTITY a "b">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a SYSTEM "http://127.0.0.1:9/x.dtd"> %a;',
        '<!ATTLIST url a CDATA "default">',
        "<!ELEMENT url ANY>",
    ],
)
def test_a_dtd_of_its_own_is_refused(subset: str) -> None:
    text = f"<?xml version='1.0'?>\n<!DOCTYPE urlset [{subset}]><urlset><url><loc>http://a/&a;</loc></url></urlset>"
    assert only(text) == "s.xml:2: has a DTD of its own (entities), which is refused"


def test_a_billion_laughs_are_refused() -> None:
    assert only(BILLION_LAUGHS).endswith("has a DTD of its own (entities), which is refused")


def test_an_external_entity_opens_no_file_and_no_connection(tmp_path: Path) -> None:
    """Judged by the system's calls: nothing is opened, and no socket made, but what the interpreter does."""
    secret = tmp_path / "secret.txt"
    secret.write_text("http://a/secret")
    texts = [
        f'<!DOCTYPE urlset [<!ENTITY x SYSTEM "{secret.as_uri()}">]><urlset><url><loc>&x;</loc></url></urlset>',
        f'<!DOCTYPE urlset SYSTEM "{secret.as_uri()}"><urlset><url><loc>http://a/&x;</loc></url></urlset>',
        f'<urlset xmlns:xi="http://www.w3.org/2001/XInclude"><url><xi:include href="{secret.as_uri()}"/></url></urlset>',
    ]
    code = (
        "import sys\n"
        "from fetcher.errors import SourceError\n"
        "from fetcher.sources.sitemap import read_sitemap\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, found: seen.append((event, found)) "
        "if event in ('open', 'socket.__new__', 'socket.connect', 'socket.getaddrinfo') else None)\n"
        "for text in sys.stdin.read().split('\\x1e'):\n"
        "    try:\n"
        "        found = list(read_sitemap(iter([text.encode()]), name='s', base=None))\n"
        "    except SourceError as error:\n"
        "        found = error\n"
        "    assert 'secret' not in repr(found).replace('secret.txt', ''), found\n"
        "assert not seen, seen\n"
    )
    subprocess.run([sys.executable, "-c", code], input="\x1e".join(texts).encode(), check=True, timeout=60)


def filled(before: bytes, unit: bytes, after: bytes = b"", *, size: int = MAX_BYTES - MIB) -> Iterator[bytes]:
    """Return a document of ``size`` bytes without holding it."""
    block = unit * max(1, BLOCK // len(unit))
    return chain([before], repeat(block, size // len(block)), [after])


@pytest.mark.parametrize(
    ("name", "blocks", "message"),
    [
        ("nested", lambda: filled(b"<urlset>", b"<a>"), f"s.xml:1: elements are nested over {MAX_NESTING} deep"),
        ("nested in an entry", lambda: filled(b"<urlset><url>", b"<a>"), f"s.xml:1: elements are nested over {MAX_NESTING} deep"),
        ("one attribute", lambda: filled(b"<urlset a='", b"x"), "s.xml:1: a tag or comment of over 2 MiB"),
        ("one comment", lambda: filled(b"<urlset><!--", b"x"), "s.xml:1: a tag or comment of over 2 MiB"),
        ("one instruction", lambda: filled(b"<urlset/><?x ", b"x"), "s.xml:1: a tag or comment of over 2 MiB"),
        ("one root's name", lambda: filled(b"<", b"x"), "s.xml:1: a tag or comment of over 2 MiB"),
        ("blanks", lambda: filled(b"", b" ", size=MAX_BYTES + MIB), f"s.xml: is over {MAX_BYTES // MIB} MiB unpacked (sitemaps.org allows 50 MB)"),
        ("size", lambda: filled(b"<urlset>", b"<x/>" + b" " * 1000, size=MAX_BYTES + MIB), f"s.xml: is over {MAX_BYTES // MIB} MiB unpacked (sitemaps.org allows 50 MB)"),
    ],
)  # fmt: skip
def test_a_bomb_is_bounded_in_time_and_memory(name: str, blocks: object, message: str) -> None:
    assert callable(blocks)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert error_of(blocks()) == message
    assert time.process_time() - began < 15  # a second or two
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024  # KiB


def test_a_text_as_long_as_the_sitemap_is_one_bad_row() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    blocks = filled(b"<urlset><url><loc>http://a/", b"x", b"</loc></url></urlset>")
    (bad,) = read_sitemap(blocks, name="s.xml", base=None)
    assert isinstance(bad, BadRow)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024


def test_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemap, "MAX_ENTRIES", 1000)
    assert len(rows_of(urlset(["http://a/"] * 1000).encode())) == 1000
    assert only(urlset(["http://a/"] * 1001)) == "s.xml: has over 1,000 entries (sitemaps.org allows 50,000)"


# A file


def test_a_file_is_unpacked_and_numbered(tmp_path: Path) -> None:
    packed, plain = tmp_path / "a.xml.gz", tmp_path / "b.txt"
    packed.write_bytes(gzip.compress(urlset(["http://a/1", "http://a/2"]).encode()))
    plain.write_text("http://a/3\n")
    paths = [str(packed), str(plain)]
    check(paths, ListOptions(format="sitemap"))
    assert [(row.id, row.url) for row in read(paths, format="sitemap") if isinstance(row, Request)] == [
        (1, "http://a/1"),
        (2, "http://a/2"),
        (3, "http://a/3"),
    ]


def test_a_bomb_of_gzip_in_a_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.xml.gz"
    unit = b"<x/>" + b" " * 1000  # to read a hundred MiB of elements takes ten times as long
    path.write_bytes(gzip.compress(b"<urlset>" + unit * (110 * MIB // len(unit)), 1))
    with pytest.raises(SourceError, match=r"a\.xml\.gz: is over 100 MiB unpacked"):
        list(read([str(path)], format="sitemap"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(urlset(["http://a/1"]).encode())[:-9])
    with pytest.raises(SourceError, match=r"a\.xml\.gz: at row \d: the gzip data is cut short"):
        list(read([str(path)], format="sitemap"))


@pytest.mark.parametrize(
    "use",
    [lambda path: list(read([path], format="sitemap")), lambda path: check([path], ListOptions(format="sitemap"))],
)
def test_a_file_that_is_no_sitemap_is_named(use: object, tmp_path: Path) -> None:
    assert callable(use)
    path = tmp_path / "page.html"
    path.write_text("<html><body>")
    with pytest.raises(SourceError, match=r"page\.html: is an HTML page, and no sitemap"):
        use(str(path))


def test_an_index_in_a_file_needs_the_network(tmp_path: Path) -> None:
    path = tmp_path / "i.xml"
    path.write_text(index(["http://a/1.xml"]))
    check([str(path)], ListOptions(format="sitemap"))
    with pytest.raises(
        SourceError, match=r"i\.xml: lists sitemaps that are on the network: 'fetcher crawl' and Fetcher\.read"
    ):
        list(read([str(path)], format="sitemap"))
