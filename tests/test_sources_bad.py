from __future__ import annotations

import gzip
import io
import os
import re
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from fetcher.errors import SourceError
from fetcher.sources import BadRow, ListOptions, check, read
from fetcher.sources.lines import MAX_LINE_BYTES, ListEncoding
from fetcher.sources.text import read_text
from tests.test_sources import put, rows_of


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


LONG = "x" * (MAX_LINE_BYTES + 1)
CUT = "x" * 2000 + "…"
MISQUOTED = "the line has text after a closing quote (a quote within a quoted cell is doubled)"

BAD_ROWS: list[tuple[str, str | bytes, tuple[Any, ...]]] = [
    ("l.txt", f"#\n{LONG}\nb.example\n", (1, CUT, "l.txt:2: the line is over 64 KiB long")),
    ("l.txt", b"#\n\xff.example\nb.example\n", (1, "\ufffd.example", "l.txt:2: the line is not UTF-8")),
    (
        "l.txt",
        "a.example\rc.example\nb.example\n",
        (1, "a.example\rc.example", "l.txt:1: the line has a carriage return within (lines end in LF or CRLF)"),
    ),
    ("l.txt", "a.example\tc.example\nb.example\n",
     (1, "a.example\tc.example", "l.txt:1: the line has a tab within (is it a .tsv?)")),
    ("l.txt", "\ufeffhttp://a.example  https://c.example\nb.example\n",
     (1, "http://a.example  https://c.example", "l.txt:1: the line has a second URL behind a blank (one URL a line)")),
    ("l.csv", 'n,url\nx,"a.example\nc.example"\nb,b.example\n',
     (1, "a.example\nc.example", {"n": "x"}, "l.csv:2: the URL has a line end within")),
    ("l.csv", 'url,n\n"a.example\tc.example",x\nb.example,b\n',
     (1, "a.example\tc.example", {"n": "x"}, "l.csv:2: the URL has a tab within")),
    ("l.jsonl", '{"url": "a.example\\tc.example", "n": 1}\n"b.example"\n',
     (1, "a.example\tc.example", {"n": 1}, "l.jsonl:1: the URL has a tab within")),
    ("l.csv", 'url,n\na.example,"nice" cat\nb.example,b\n', (1, 'a.example,"nice" cat', f"l.csv:2: {MISQUOTED}")),
    ("l.csv", 'url,n\n"a.example"/x,"nice\ncat"\nb.example,b\n', (1, '"a.example"/x,"nice\ncat"', f"l.csv:2: {MISQUOTED}")),
    ("l.csv", 'n,url\n"one\n"" two" x,"a.example"\r\nb,b.example\n',
     (1, '"one\n"" two" x,"a.example"', f"l.csv:2: {MISQUOTED}")),
    ("l.csv", f'n,url\n"{LONG}\n"x,a.example\n2,b.example\n', (1, '"' + CUT[1:], "l.csv:2: the line is over 64 KiB long")),
    ("l.tsv", f'n\turl\n"{LONG}\ta.example\n"2\tb.example\n', (1, '"' + CUT[1:], "l.tsv:2: the line is over 64 KiB long")),
    ("l.tsv", 'url\tn\na.example\t"x\ty"\nb.example\tb\n',
     (1, "a.example", {"n": '"x'}, "l.tsv:2: has 3 cells under 2 columns (in TSV a tab always ends a cell)")),
    ("l.csv", "n,url\n1,\n2,b.example\n", (1, "", {"n": "1"}, "l.csv:2: no URL in column 'url'")),
    ("l.csv", "n,url\n1\n2,b.example\n", (1, "", {"n": "1"}, "l.csv:2: no URL in column 'url'")),
    ("l.csv", b"n,url\n\xe9,\xe9.example\n2,b.example\n",
     (1, "\ufffd.example", {"n": "\ufffd"}, "l.csv:2: the URL is not UTF-8")),
    ("l.csv", f"n,url\n{LONG},a.example\n2,b.example\n", (1, CUT, "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", f'n,url\n"{LONG}\n",a.example\n2,b.example\n', (1, '"' + CUT[1:], "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", f'n,url\n"\n{LONG}\n",a.example\n2,b.example\n', (1, CUT, "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", f'n,url\n"\n{LONG}",a.example\n2,b.example\n', (1, CUT, "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", "url\na.example/x,y\nb.example\n",
     (1, "a.example/x", "l.csv:2: has 2 cells under 1 column (a cell with ',' in it is quoted)")),
    ("l.jsonl", '""\n"b.example"\n', (1, "", "l.jsonl:1: the URL is empty")),
    ("l.jsonl", '{"img": "a", "x": 1}\n"b.example"\n',
     (1, '{"img": "a", "x": 1}', "l.jsonl:1: has no key 'url' (its keys: img, x)")),
    ("l.jsonl", '{"link": "a", "href": "c"}\n"b.example"\n',
     (1, '{"link": "a", "href": "c"}', "l.jsonl:1: has no key 'url' (its keys: link, href)")),
    ("l.jsonl", '{"url": 7, "x": 1}\n"b.example"\n',
     (1, '{"url": 7, "x": 1}', {"x": 1}, "l.jsonl:1: 'url' is a number, not a string")),
    ("l.jsonl", '["a.example"]\n"b.example"\n', (1, '["a.example"]', "l.jsonl:1: is an array, neither an object nor a URL")),
    ("l.jsonl", b'"\xff"\n"b.example"\n', (1, "\ufffd", "l.jsonl:1: the URL is not UTF-8")),
    ("l.jsonl", f'"{LONG}"\n"b.example"\n', (1, '"' + CUT[1:], "l.jsonl:1: the line is over 64 KiB long")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "shown", "step"),
    [
        ("url,name\na.example,a\n", "url,name", "csv"),
        ("\n# a comment\nName; Page URL\na;a.example\n", "Name; Page URL", "csv"),
        ("id\tlink\n1\ta.example\n", "id\tlink", "tsv"),
        ('\ufeff"Company","Website"\r\n"a","a.example"\r\n', '"Company","Website"', "csv"),
        ("rank|domain\n1|a.example\n", "rank|domain", "csv"),
        ("site,link,href\na,b,c\n", "site,link,href", "csv --url-column NAME"),
    ],
)
def test_a_table_by_the_name_of_a_text_list_is_refused(content: str, shown: str, step: str) -> None:
    refusal = f"l.txt: the first line ({shown}) is the header of a table: read it with --from {step}"
    with pytest.raises(SourceError, match=f"^{re.escape(refusal)}$"):
        rows_of("l.txt", content)


@pytest.mark.parametrize(
    "content",
    ["example,url.example\n", "a.example\nurl,name\n", "localhost\n", "url\n", "one,two\n", "a.example/x,url\n"],
)
def test_what_may_be_a_url_is_no_header(content: str) -> None:
    assert len(rows_of("l.txt", content)) == len(content.splitlines())


def test_a_header_is_found_however_the_list_comes() -> None:
    data = b"# a comment\n\nurl,name\na.example,a\n"
    for size in range(1, len(data) + 1):
        blocks = (data[at : at + size] for at in range(0, len(data), size))
        with pytest.raises(SourceError, match="is the header of a table"):
            list(read_text(blocks, name="stdin", numbers=count(1), encoding=ListEncoding("stdin")))


@pytest.mark.parametrize("line", ["a" + " " * 60_000 + ".", "a, " * 20_000 + ".", '"a"' + " " * 60_000 + "b."])
def test_a_long_first_line_takes_no_longer_than_another(line: str) -> None:
    began = time.monotonic()
    assert len(rows_of("l.txt", line)) == 1
    assert time.monotonic() - began < 5  # a hundredth of a second; half a minute, were it quadratic


@pytest.mark.parametrize(("name", "content", "expected"), BAD_ROWS, ids=[row[2][-1][:50] for row in BAD_ROWS])
def test_a_bad_row_is_a_row(name: str, content: str | bytes, expected: tuple[Any, ...]) -> None:
    bad, good = rows_of(name, content)
    assert bad == expected
    assert good[:2] == (2, "b.example")
    row = next(iter(read([name])))
    assert isinstance(row, BadRow)
    assert row.error.code == "invalid_url"
    check([name])


def test_a_later_line_that_is_not_json_is_a_bad_row() -> None:
    found = rows_of("l.jsonl", '"a.example"\nb.example\n{"url": "c.example"\n' + "[" * 5000 + "\n")
    assert [row[:2] for row in found] == [
        (1, "a.example"), (2, "b.example"), (3, '{"url": "c.example"'), (4, "[" * 2000 + "…"),
    ]  # fmt: skip
    assert all(re.match(rf"l\.jsonl:{row[0]}: is not JSON: ", row[2]) for row in found[1:])


FORMATS_THERE_ARE = ".txt, .csv, .tsv, .jsonl, .ndjson (each also .gz or .zst), .parquet, .sqlite"
NOT_JSON = (
    "urls.jsonl:1: is not JSON, so this is no jsonl list (one JSON value a line): "
    "JSON is malformed: invalid character (byte 0)"
)
PLAIN_GZIP = gzip.compress(b"a.example\nb.example\n" * 100)
PLAIN_ZSTD = zstd.compress(b"a.example\nb.example\n" * 100)

BAD_LISTS: list[tuple[str, str | bytes | None, str]] = [
    ("urls.txt", None, "urls.txt: no such file"),
    ("lists/urls.csv", None, "lists/urls.csv: no such file"),
    ("urls.txt.gz", None, "urls.txt.gz: no such file"),
    ("urls", None, "urls: no such file"),
    ("v1.2", None, "v1.2: no such file"),
    ("./example.com", None, "./example.com: no such file"),
    ("", None, "'': no such file"),
    ("a\0b", None, "'a\\x00b': no such file"),
    ("ftp://example.com/x", None, "ftp://example.com/x: only http:// and https:// URLs can be fetched, and lists read from s3://, gs:// and az://"),
    ("urls.txt", "", "urls.txt: no URLs in it"),
    ("urls.txt", "# nothing\n\n", "urls.txt: no URLs in it"),
    ("urls.txt", "\ufeff", "urls.txt: no URLs in it"),
    ("urls.csv", "", "urls.csv: no URLs in it"),
    ("urls.csv", "url\n", "urls.csv: no URLs in it"),
    ("urls.jsonl", "\n \n", "urls.jsonl: no URLs in it"),
    ("urls.txt", b"a\0b", "urls.txt: looks like a binary file, not a list of URLs"),
    ("urls.jsonl", b'"a"\n\0', "urls.jsonl: looks like a binary file, not a list of URLs"),
    ("urls.txt", b"%PDF-1.7\nx", "urls.txt: looks like a binary file (PDF), not a list of URLs"),
    ("urls.csv", b"PK\x03\x04\0\0", "urls.csv: looks like a binary file (zip or xlsx), not a list of URLs"),
    ("urls", b"\x89PNG\r\n\x1a\n", "urls: looks like a binary file (PNG), not a list of URLs"),
    ("urls.csv", b"PAR1\x15\0\0", "urls.csv: looks like a binary file (Parquet), not a list of URLs"),
    ("urls.txt.gz", gzip.compress(b"%PDF-1"), "urls.txt.gz: looks like a binary file (PDF), not a list of URLs"),
    ("urls.txt", "a.example\n".encode("utf-16-le"),
     "urls.txt: looks like a binary file (UTF-16? then say so: --encoding utf-16-le), not a list of URLs"),
    ("urls.csv", "url\n".encode("utf-16-be"),
     "urls.csv: looks like a binary file (UTF-16? then say so: --encoding utf-16-be), not a list of URLs"),
    ("urls.gz", b"a.example\n", "urls.gz: is not gzip data, though its name ends in .gz"),
    ("urls.zst", b"", "urls.zst: is not zstd data, though its name ends in .zst"),
    ("urls.json", "[]", f"urls.json: a .json file is no list of URLs that can be read: there are {FORMATS_THERE_ARE}; 'jq -c .[]' makes jsonl of an array"),
    ("u.parquet.gz", "", "u.parquet.gz: is empty, not a Parquet file"),
    ("urls.XLSX", None, f"urls.XLSX: a .xlsx file is no list of URLs that can be read: there are {FORMATS_THERE_ARE}; save the sheet as CSV"),
    ("urls.csv", "\nid,img\n1,a\n", "urls.csv:2: there is no column 'url'; the columns are: id, img; say which has the URL with --url-column"),
    ("urls.csv", '"url" x,name\n', f"urls.csv:1: {MISQUOTED.replace('the line', 'the header')}"),
    ("urls.csv", 'url,n\na,b\nb,"x" y,"z\nc,d\n', "urls.csv:3: a quote is opened and never closed"),
    ("urls.csv", 'url,n\nb,"x" y\rz\nc,d\n', "urls.csv:2: has a carriage return within (lines end in LF or CRLF)"),
    ("urls.tsv", '"url"\t"name"\n',
     "urls.tsv:1: there is no column 'url'; the columns are: \"url\", \"name\"; say which has the URL with --url-column (TSV has no quoting)"),
    ("urls.csv", "Firma, Ort;Name;x\n", "urls.csv:1: there is no column 'url'; the columns are: Firma, Ort, Name, x; say which has the URL with --url-column"),
    ("urls.csv", "Link;Website;a,b,c\n",
     "urls.csv:1: several columns may hold the URL: Link, Website; say which with --url-column"),
    ("urls.csv", "https://a.example/x,1\n",
     "urls.csv:1: has a URL where the names of the columns belong; put a line such as name,url before it, or say --from txt (one URL a line)"),
    ("urls.csv", "URL,Url\n", "urls.csv:1: several columns are called 'url'; the columns are: URL, Url"),
    ("urls.csv", b"sep=;\nid;\xe9\n", "urls.csv:2: there is no column 'url'; the columns are: id, \ufffd; say which has the URL with --url-column"),
    ("urls.csv", f"url,{LONG}\n", "urls.csv:1: the header is over 64 KiB long"),
    ("urls.csv", b"url\r\na.example\rb.example\r\n", "urls.csv:2: has a carriage return within (lines end in LF or CRLF)"),
    ("urls.csv", b"url\na\n\nb\0c\n", "urls.csv:4: has a NUL byte; this is no text"),
    ("urls.csv", 'url,x\na,b\n"c,d\ne,f\n', "urls.csv:3: a quote is opened and never closed"),
    ("urls.csv", 'url,x\n"c,d\n' + "e,f\n" * 50_000, "urls.csv:2: a cell is too large; is a quote left open?"),
    ("urls.csv", 'url\n"' + '\n","' * 500_000, "urls.csv:2: a record of over 1 MiB; is a quote left open?"),
    ("urls.jsonl", "a.example\n",
     NOT_JSON),
    ("urls.txt.gz", PLAIN_GZIP[:-9], "urls.txt.gz: at row 201: the gzip data is cut short"),
    ("urls.txt.gz", PLAIN_GZIP[:-8] + bytes(8), "urls.txt.gz: at row 1: the gzip data is damaged"),
    ("urls.txt.gz", PLAIN_GZIP + b"junk", "urls.txt.gz: at row 201: the gzip data is damaged"),
    ("urls.txt.gz", PLAIN_GZIP[:3], "urls.txt.gz: at row 1: the gzip data is cut short"),
    ("urls.txt.zst", PLAIN_ZSTD + PLAIN_ZSTD[:-1], "urls.txt.zst: at row 201: the zstd data is cut short"),
    ("urls.txt.zst", PLAIN_ZSTD + b"junk", "urls.txt.zst: at row 201: the zstd data is damaged"),
    ("/proc/self/mem", b"", "/proc/self/mem: at row 1: Input/output error"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_LISTS, ids=[row[2][:60] for row in BAD_LISTS])
def test_a_bad_list_is_one_clear_line(name: str, content: str | bytes | None, message: str) -> None:
    if name.startswith("/proc"):
        if not Path(name).exists():
            pytest.skip("there is no /proc")
    elif content is not None:
        put(name, content)
    with pytest.raises(SourceError) as caught:
        list(read([name]))
    assert str(caught.value) == message
    first_rows_are_fine = re.search(r"at row (?!1:)|NUL|quote|:2: has a carriage", message)
    if not first_rows_are_fine:
        with pytest.raises(SourceError) as caught:
            check([name])
        assert str(caught.value) == message


def test_a_directory_and_a_format_that_there_is_not() -> None:
    Path("lists").mkdir()
    for use in (lambda: list(read(["lists"])), lambda: check(["lists"])):
        with pytest.raises(SourceError, match=r"^lists: is a directory, not a list of URLs$"):
            use()
    with pytest.raises(
        SourceError, match=r"^'xml' is no format of a list: there are txt, csv, tsv, jsonl, parquet, sqlite, sitemap$"
    ):
        check([put("list", "a.example")], ListOptions(format="xml"))
    with pytest.raises(SourceError, match=r"^no list of URLs is given$"):
        list(read([]))
    with pytest.raises(SourceError, match=r"^a.txt and 1 more: no URLs in them$"):
        list(read([put("a.txt", ""), put("b.txt", "")]))
    with pytest.raises(SourceError, match=r"^stdin: no URLs in it$"):
        list(read(["-"], stdin=io.BytesIO()))


def test_a_file_we_may_not_read() -> None:
    name = put("secret.txt", "a.example")
    Path(name).chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        for use in (lambda: list(read([name])), lambda: check([name])):
            with pytest.raises(SourceError, match=r"^secret\.txt: permission denied$"):
                use()
    finally:
        if user == 0:
            os.seteuid(0)
