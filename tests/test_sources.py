from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources import BadRow, Row, check, estimate_rows, is_url_argument, read
from fetcher.sources.streams import LINE_LIMIT

A, B = "http://a.example/x?q=1", "http://b.example/ü"
PACKINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}
LISTS = {
    "txt": f"{A}\n{B}\n",
    "csv": f"url,name\n{A},one\n{B},two\n",
    "tsv": f"name\turl\none\t{A}\ntwo\t{B}\n",
    "jsonl": f'{{"url": "{A}", "name": "one"}}\n{{"name": "two", "url": "{B}"}}\n',
    "ndjson": f'{{"url": "{A}", "name": "one"}}\n{{"name": "two", "url": "{B}"}}\n',
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def shown(row: Row) -> tuple[Any, ...]:
    """A row as the plain values a test compares: number and URL, fields when there are any, flaw when bad."""
    request = row.request if isinstance(row, BadRow) else row
    fields = () if request.fields is None else (dict(request.fields),)
    return (request.id, request.url, *fields, *((row.error.message,) if isinstance(row, BadRow) else ()))


def rows_of(name: str, content: str | bytes, **options: Any) -> list[tuple[Any, ...]]:
    return [shown(row) for row in read([put(name, content)], **options)]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", LISTS)
def test_every_format_plain_and_packed(suffix: str, packing: str) -> None:
    content = PACKINGS[packing](LISTS[suffix].encode())
    fields: list[tuple[Any, ...]] = [(), ()] if suffix == "txt" else [({"name": "one"},), ({"name": "two"},)]
    expected = [(1, A, *fields[0]), (2, B, *fields[1])]
    assert rows_of(f"list.{suffix}{packing}", content) == expected
    assert rows_of(f"LIST.{suffix.upper()}{packing.upper()}", content) == expected
    check([f"list.{suffix}{packing}"])
    kind = "jsonl" if suffix == "ndjson" else suffix
    assert rows_of("no-suffix", content, format=kind) == expected
    assert [shown(row) for row in read(["-"], format=kind, stdin=io.BytesIO(content))] == expected


@pytest.mark.parametrize(
    ("content", "urls"),
    [
        ("a.example\r\nb.example\r\n", ["a.example", "b.example"]),
        ("\ufeffa.example\nb.example", ["a.example", "b.example"]),
        ("\n# one\n  \t\n  # two\n\t a.example \n#\nb.example#f\n", ["a.example", "b.example#f"]),
        ("a.example/\u2028x\n", ["a.example/\u2028x"]),
        ("a.example/\x0bx\x85y\n", ["a.example/\x0bx\x85y"]),
        ("not a url\n", ["not a url"]),
    ],
)
def test_lines_of_a_text_list(content: str, urls: list[str]) -> None:
    assert rows_of("list", content) == list(enumerate(urls, 1))
    packed = gzip.compress(content.encode())
    assert rows_of("list.gz", packed) == list(enumerate(urls, 1))


def test_rows_are_numbered_over_all_inputs() -> None:
    inputs = [
        put("a.txt", "# x\na.example\n\n"),
        "https://one.example/",
        "-",
        put("empty.txt", ""),
        put("b.csv", "url\nb.example\n\nc.example\n"),
        "two.example:8080/x",
        put("c.jsonl", '"d.example"\n'),
    ]
    check(inputs)
    found = [shown(row) for row in read(inputs, stdin=io.BytesIO(b"\nstdin.example\n"))]
    urls = ["a.example", "https://one.example/", "stdin.example", "b.example", "c.example", "two.example:8080/x"]
    assert found == [*enumerate(urls, 1), (7, "d.example")]


LONG = "x" * (LINE_LIMIT + 1)
CUT = "x" * 2000 + "…"

BAD_ROWS: list[tuple[str, str | bytes, tuple[Any, ...]]] = [
    ("l.txt", f"#\n{LONG}\nb.example\n", (1, CUT, "l.txt:2: the line is over 64 KiB long")),
    ("l.txt", b"#\n\xff.example\nb.example\n", (1, "\ufffd.example", "l.txt:2: the line is not UTF-8")),
    (
        "l.txt",
        "a.example\rc.example\nb.example\n",
        (1, "a.example\rc.example", "l.txt:1: the line has a carriage return within (lines end in LF or CRLF)"),
    ),
    ("l.csv", "n,url\n1,\n2,b.example\n", (1, "", {"n": "1"}, "l.csv:2: no URL in column 'url'")),
    ("l.csv", "n,url\n1\n2,b.example\n", (1, "", {"n": "1"}, "l.csv:2: no URL in column 'url'")),
    ("l.csv", b"n,url\n\xe9,a.example\n2,b.example\n",
     (1, "a.example", {"n": "\ufffd"}, "l.csv:2: the line is not UTF-8")),
    ("l.csv", f"n,url\n{LONG},a.example\n2,b.example\n", (1, CUT, "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", f'n,url\n"{LONG}\n",a.example\n2,b.example\n', (1, '"' + CUT[1:], "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", f'n,url\n"\n{LONG}\n",a.example\n2,b.example\n', (1, CUT, "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", f'n,url\n"\n{LONG}",a.example\n2,b.example\n', (1, CUT, "l.csv:2: the line is over 64 KiB long")),
    ("l.csv", "url\na.example/x,y\nb.example\n",
     (1, "a.example/x", "l.csv:2: has 2 cells under 1 columns (a cell with ',' in it is quoted)")),
    ("l.jsonl", '""\n"b.example"\n', (1, "", "l.jsonl:1: the URL is empty")),
    ("l.jsonl", '{"URL": "a", "x": 1}\n"b.example"\n',
     (1, '{"URL": "a", "x": 1}', "l.jsonl:1: has no key 'url' (its keys: URL, x)")),
    ("l.jsonl", '{"url": 7, "x": 1}\n"b.example"\n',
     (1, '{"url": 7, "x": 1}', {"x": 1}, "l.jsonl:1: 'url' is a number, not a string")),
    ("l.jsonl", '["a.example"]\n"b.example"\n', (1, '["a.example"]', "l.jsonl:1: is an array, neither an object nor a URL")),
    ("l.jsonl", b'"\xff"\n"b.example"\n', (1, '"\ufffd"', "l.jsonl:1: the line is not UTF-8")),
    ("l.jsonl", f'"{LONG}"\n"b.example"\n', (1, '"' + CUT[1:], "l.jsonl:1: the line is over 64 KiB long")),
]  # fmt: skip


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


FORMATS_THERE_ARE = ".txt, .csv, .tsv, .jsonl, .ndjson (each also .gz or .zst)"
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
    ("ftp://example.com/x", None, "ftp://example.com/x: only http:// and https:// URLs can be fetched"),
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
    ("urls.txt", "a.example\n".encode("utf-16"), "urls.txt: is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    ("urls.csv", b"\xfe\xff\0u", "urls.csv: is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    ("urls.txt", "a".encode("utf-32"), "urls.txt: is UTF-32; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    ("urls.gz", b"a.example\n", "urls.gz: is not gzip data, though its name ends in .gz"),
    ("urls.zst", b"", "urls.zst: is not zstd data, though its name ends in .zst"),
    ("urls.json", "[]", f"urls.json: a .json file is no list of URLs that can be read: there are {FORMATS_THERE_ARE}"),
    ("u.parquet.gz", "", f"u.parquet.gz: a .parquet file is no list of URLs that can be read: there are {FORMATS_THERE_ARE}"),
    ("urls.XLSX", None, f"urls.XLSX: a .xlsx file is no list of URLs that can be read: there are {FORMATS_THERE_ARE}"),
    ("urls.csv", "\nid,link\n1,a\n", "urls.csv:2: there is no column 'url'; the columns are: id, link"),
    ("urls.csv", "url;name\n", "urls.csv:1: there is no column 'url'; the columns are: url;name"),
    ("urls.csv", "URL,Url\n", "urls.csv:1: several columns are called 'url'; the columns are: URL, Url"),
    ("urls.csv", b"url,\xe9\n", "urls.csv:1: the header is not UTF-8"),
    ("urls.csv", f"url,{LONG}\n", "urls.csv:1: the header is over 64 KiB long"),
    ("urls.csv", b"url\r\na.example\rb.example\r\n", "urls.csv:2: has a carriage return within (lines end in LF or CRLF)"),
    ("urls.csv", b"url\na\n\nb\0c\n", "urls.csv:4: has a NUL byte; this is no text"),
    ("urls.csv", 'url,x\na,b\n"c,d\ne,f\n', "urls.csv:3: a quote is opened and never closed"),
    ("urls.csv", 'url,x\n"c,d\n' + "e,f\n" * 50_000, "urls.csv:2: a cell is too large; is a quote left open?"),
    ("urls.csv", 'url\n"' + '\n","' * 500_000, "urls.csv:2: a record of over 1 MiB; is a quote left open?"),
    ("urls.jsonl", "a.example\n",
     "urls.jsonl:1: is not JSON, so this is no jsonl list (one JSON value a line): JSON is malformed: "
     "invalid character (byte 0)"),
    ("urls.txt.gz", PLAIN_GZIP[:-9], "urls.txt.gz: at row 201: the gzip data is cut short"),
    ("urls.txt.gz", PLAIN_GZIP[:-8] + bytes(8), "urls.txt.gz: at row 1: the gzip data is damaged"),
    ("urls.txt.gz", PLAIN_GZIP + b"junk", "urls.txt.gz: at row 201: the gzip data is damaged"),
    ("urls.txt.gz", PLAIN_GZIP[:3], "urls.txt.gz: at row 1: the gzip data is cut short"),
    ("urls.txt.zst", PLAIN_ZSTD + PLAIN_ZSTD[:-1], "urls.txt.zst: at row 401: the zstd data is cut short"),
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
    with pytest.raises(SourceError, match=r"^'xml' is no format of a list: there are txt, csv, tsv, jsonl$"):
        check([put("list", "a.example")], format="xml")
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


def test_a_format_that_is_named_wins_over_the_suffix() -> None:
    assert rows_of("list.json", '{"url": "a.example"}', format="jsonl") == [(1, "a.example")]
    assert rows_of("list.csv", "url\na.example\n", format="txt") == [(1, "url"), (2, "a.example")]


def test_columns() -> None:
    content = '\ufeffName, URL ,name,Name,\n"x\r\ny",a.example,2,3,4\n"",  b.example\n"q""q",c.example,,,5,,\n'
    assert rows_of("l.csv", content) == [
        (1, "a.example", {"Name": "x\r\ny", "name": "2", "Name_2": "3", "column_5": "4"}),
        (2, "b.example", {"Name": "", "name": "", "Name_2": "", "column_5": ""}),
        (3, "c.example", {"Name": 'q"q', "name": "", "Name_2": "", "column_5": "5"}),
    ]
    assert rows_of("l.csv", "URL,url,url_2,url\n1,2,3,4\n") == [(1, "2", {"URL": "1", "url_2": "3", "url_3": "4"})]
    assert rows_of("l.csv", "a,link\n1,a.example\n", url_column="LINK") == [(1, "a.example", {"a": "1"})]
    assert rows_of("l.csv", "url\n\n \na.example\n") == [(1, "a.example")]
    wide = ",".join(["url"] * 20_000)
    assert len(rows_of("l.csv", f"{wide}\n{wide}\n")[0][2]) == 19_999


def test_json_fields_are_any_values() -> None:
    value = {"link": " a.example ", "n": 1, "deep": {"x": [None, True, 1.5]}, "url": "other"}
    found = rows_of("l.jsonl", json.dumps(value), url_column="link")
    assert found == [(1, "a.example", {"n": 1, "deep": {"x": [None, True, 1.5]}, "url": "other"})]


def endless(chunk: bytes) -> Iterator[bytes]:
    while True:
        yield chunk


class Endless(io.RawIOBase):
    """A stream without an end that counts what is taken."""

    def __init__(self, head: bytes, chunk: bytes, end: float = float("inf")) -> None:
        self.taken = 0
        self._head, self._chunk, self._end = head, chunk, end

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.taken >= self._end:
            return b""
        head, self._head = self._head, b""
        block = head + self._chunk * ((size - len(head)) // len(self._chunk))
        self.taken += len(block)
        return block


@pytest.mark.parametrize(
    ("format", "head", "line"),
    [
        ("txt", b"", b"a.example/xyz\n"),
        ("csv", b"url,n\n", b"a.example,1\n"),
        ("jsonl", b"", b'{"url": "a.example", "x": [1, 2]}\n'),
    ],
)
def test_a_list_without_an_end_is_read_as_far_as_it_is_used(format: str, head: bytes, line: bytes) -> None:
    stream: Any = Endless(head, line)
    rows = read(["-", "missing.txt"], format=format, stdin=stream)
    tracemalloc.start()
    try:
        for expected in range(1, 20_001):
            row = next(rows)
            assert isinstance(row, Request)
            assert row.id == expected
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert stream.taken < 20_000 * len(line) + 3 * LINE_LIMIT


@pytest.mark.parametrize(("format", "head"), [("txt", b""), ("csv", b"url\n"), ("jsonl", b'"a.example"\n')])
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_a_gigabyte_is_never_held(format: str, head: bytes, packed: bool) -> None:
    size = 2**26 if packed else 2**30
    stream: Any = Endless(head, b"x" * 4096, end=size)
    if packed:
        stream = io.BytesIO(gzip.compress(head + b"x" * size, 1))
    tracemalloc.start()
    try:
        *_, last = read(["-"], format=format, stdin=stream)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert isinstance(last, BadRow)
    assert last.error.message.endswith("the line is over 64 KiB long")


def test_a_megabyte_line_amid_others_costs_one_row() -> None:
    choices = random.Random(7)
    lines = [f"a.example/{n}" + "y" * choices.choice([0, 0, 0, 50, 65_000, 66_000, 1_000_000]) for n in range(200)]
    found = list(read([put("l.txt", "\r\n".join(lines))]))
    assert len(found) == len(lines)
    for number, (row, line) in enumerate(zip(found, lines, strict=True), 1):
        if len(line) >= LINE_LIMIT:
            assert shown(row) == (number, line[:2000] + "…", f"l.txt:{number}: the line is over 64 KiB long")
        else:
            assert shown(row) == (number, line)


def test_inputs_that_are_urls() -> None:
    put("there.example", "a.example\n")
    put("bare", "a.example\n")
    urls = [
        "http://x", "HTTPS://x y/", " https://x/ ", "example.com", "example.com.", "example.com:8080/x?y#z", "localhost",
        "localhost:8000/y", "127.0.0.1:80", "bücher.example", "例え.テスト/道", "example.com/index.html", "example.zip",
        "a_b.example.com", "[::1]:8000/x", "example.com?x=1", "http://x/urls.txt",
    ]  # fmt: skip
    files = [
        "-", "", "bare", "there.example", "urls.txt", "lists/urls.csv", "example.com/urls.jsonl.gz", "data.json", "urls.zst",
        "exa mple.com", "./example.com", "../x.y/z", "/etc/x.conf", "~/x.y", "1.5", "v1.2", "256.1.1.1", "word", "a:b",
        "user@example.com", "ftp://example.com", "example.com:port", "..", "a..b",
    ]  # fmt: skip
    assert [text for text in urls if not is_url_argument(text)] == []
    assert [text for text in files if is_url_argument(text)] == []
    assert [shown(row) for row in read(["there.example"])] == [(1, "a.example")]


def test_check_takes_nothing_from_a_pipe() -> None:
    os.mkfifo("pipe.csv")
    check(["pipe.csv", "-", put("empty.txt", "")])
    with pytest.raises(SourceError, match=r"^urls\.txt: no such file$"):
        check(["pipe.csv", "urls.txt"])


def test_an_estimate_of_the_rows() -> None:
    plain = put("a.txt", "a.example\n" * 1000 + "b.example")
    lines = put("b.jsonl", '"a.example"\n' * 10)
    assert estimate_rows([plain, "https://x/", lines]) == 1012
    assert estimate_rows([put("none.txt", "")]) == 0
    packed = put("packed", PLAIN_GZIP)
    for other in ("-", put("c.csv", "url\na\n"), packed, put("d.txt.gz", PLAIN_GZIP), "missing.txt", "x.json", "a\0b.txt"):
        assert estimate_rows([plain, other]) is None
    os.mkfifo("pipe")
    assert estimate_rows(["pipe"]) is None
    with open("large.txt", "wb") as file:
        file.truncate(201 * 2**20)
    assert estimate_rows(["large.txt"]) is None
