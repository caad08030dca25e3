from __future__ import annotations

import gzip
import io
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from fetcher.errors import SourceError
from fetcher.model import Request
from fetcher.sources import BadRow, Row, check, estimate_rows, is_url_argument, read
from fetcher.sources.lines import MAX_LINE_BYTES

A, B = "http://a.example/x?q=1", "http://b.example/ü"
PLAIN_GZIP = gzip.compress(b"a.example\n")
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
        ("\ufeffa.example\n\ufeff\n \ufeff # one\n\ufeff\ufeff b.example\n", ["a.example", "b.example"]),
        ("\"a.example\"\n'b.example'\n< c.example >\r\n“d.example”\n", [f"{c}.example" for c in "abcd"]),
        (" \ufeff<\"a.example/?q='x'\"> \n", ["a.example/?q='x'"]),
        ('"a.example","b.example"\n<a><b>\n"\n""\n"c\n', ['"a.example","b.example"', "<a><b>", '"', '""', '"c']),
        ("a.example/it's\na.example/?q=http://b.example\n", ["a.example/it's", "a.example/?q=http://b.example"]),
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
    wide = ",".join(["u"] * 20_000)
    assert len(rows_of("l.csv", f"{wide}\n{wide}\n", url_column="u")[0][2]) == 19_999


def test_a_quote_in_tsv_is_data() -> None:
    content = '\ufeffurl\tcaption\r\na.example\t"best of\r\n"b.example"\tthe "end"\n\ufeffc.example\tx"\n'
    assert rows_of("l.tsv", content) == [
        (1, "a.example", {"caption": '"best of'}),
        (2, "b.example", {"caption": 'the "end"'}),
        (3, "c.example", {"caption": 'x"'}),
    ]


def test_what_stands_around_a_url_in_a_cell_is_no_part_of_it() -> None:
    content = 'url,n\n"""a.example""",\ufeff1\n\ufeff<b.example>,2\n'
    assert rows_of("l.csv", content) == [(1, "a.example", {"n": "\ufeff1"}), (2, "b.example", {"n": "2"})]
    lines = '\ufeff{"url": "<a.example>"}\n\ufeff"\\"b.example\\""\n\ufeff\n'
    assert rows_of("l.jsonl", lines) == [(1, "a.example"), (2, "b.example")]


def test_a_misquoted_record_costs_itself_alone() -> None:
    content = 'n,url\n"1" x,a.example\n"2\n2",b.example\n"3" x,"\n",c.example\n"4"" z",d.example\n'
    found = list(read([put("l.csv", content)]))
    assert [isinstance(row, BadRow) for row in found] == [True, False, True, False]
    assert shown(found[1]) == (2, "b.example", {"n": "2\n2"})
    assert shown(found[3]) == (4, "d.example", {"n": '4" z'})


def test_json_fields_are_any_values() -> None:
    value = {"link": " a.example ", "n": 1, "deep": {"x": [None, True, 1.5]}, "url": "other"}
    found = rows_of("l.jsonl", json.dumps(value), url_column="link")
    assert found == [(1, "a.example", {"n": 1, "deep": {"x": [None, True, 1.5]}, "url": "other"})]


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
    ("kind", "head", "line"),
    [
        ("txt", b"", b"a.example/xyz\n"),
        ("csv", b"url,n\n", b"a.example,1\n"),
        ("jsonl", b"", b'{"url": "a.example", "x": [1, 2]}\n'),
    ],
)
def test_a_list_without_an_end_is_read_as_far_as_it_is_used(kind: str, head: bytes, line: bytes) -> None:
    stream: Any = Endless(head, line)
    rows = read(["-", "missing.txt"], format=kind, stdin=stream)
    tracemalloc.start()
    try:
        for expected in range(1, 20_001):
            row = next(rows)
            assert isinstance(row, Request)
            assert row.id == expected
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert stream.taken < 20_000 * len(line) + 3 * MAX_LINE_BYTES


@pytest.mark.parametrize(("kind", "head"), [("txt", b""), ("csv", b"url\n"), ("jsonl", b'"a.example"\n')])
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_hundreds_of_megabytes_is_never_held(kind: str, head: bytes, packed: bool) -> None:
    size = 2**26 if packed else 2**28
    stream: Any = Endless(head, b"x" * 4096, end=size)
    if packed:
        stream = io.BytesIO(gzip.compress(head + b"x" * size, 1))
    tracemalloc.start()
    try:
        *_, last = read(["-"], format=kind, stdin=stream)
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
        if len(line) >= MAX_LINE_BYTES:
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
    for other in (
        "-",
        put("c.csv", "url\na\n"),
        packed,
        put("d.txt.gz", PLAIN_GZIP),
        "missing.txt",
        "x.json",
        "a\0b.txt",
    ):
        assert estimate_rows([plain, other]) is None
    os.mkfifo("pipe")
    assert estimate_rows(["pipe"]) is None
    with open("large.txt", "wb") as file:
        file.truncate(201 * 2**20)
    assert estimate_rows(["large.txt"]) is None
