"""Tables as people have them: their delimiters, their headers, their encodings, and which of their columns are carried."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fetcher.errors import ConfigError, SourceError
from fetcher.sources import BadRow, check, read
from fetcher.sources.columns import LESS_LIKELY_NAMES, LIKELY_NAMES
from fetcher.sources.inputs import ListOptions, parse_carry, parse_delimiter, parse_encoding
from tests.test_sources import put, rows_of, shown


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Delimiters


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("n,url\n1;x,a.example\n", {"n": "1;x"}),
        ("n;url\n1,x;a.example\n", {"n": "1,x"}),
        ("n\turl\n1,x\ta.example\n", {"n": "1,x"}),
        ("n|url\n1,x|a.example\n", {"n": "1,x"}),
        ("Firma, Ort;URL\nX, Y;a.example\n", {"Firma, Ort": "X, Y"}),
        ("a,b,c,d;url\n1;a.example\n", {"a,b,c,d": "1"}),
        ('"a;b;c",url\n1,a.example\n', {"a;b;c": "1"}),
        ('"a\nb;c";url\r\n1;a.example\r\n', {"a\nb;c": "1"}),
        ("\n \nn;url\n1;a.example\n", {"n": "1"}),
        ("sep=;\r\nurl;n\r\na.example;1,5\r\n", {"n": "1,5"}),
        ('\ufeff"sep=|"\nn|url\n1|a.example\n', {"n": "1"}),
        ("sep=,\nurl,a;b;c\na.example,1\n", {"a;b;c": "1"}),
        ("SEP=\t\nurl\tn\na.example\t1\n", {"n": "1"}),
        ("Name;Link\n1;a.example\n", {"Name": "1"}),
        ("url\na.example\n", None),
    ],
)
def test_the_header_line_shows_the_delimiter(content: str, fields: dict[str, str] | None) -> None:
    expected = (1, "a.example") if fields is None else (1, "a.example", fields)
    assert rows_of("l.csv", content) == [expected]
    # However the bytes come.
    assert [shown(row) for row in read(["-"], format="csv", stdin=Trickle(content.encode()))] == [expected]


class Trickle(io.BytesIO):
    """A stream that has one byte at a time."""

    def read1(self, _: int | None = -1) -> bytes:
        return self.read(1)


def test_a_delimiter_that_is_asked_for_wins() -> None:
    assert rows_of("l.csv", "url;n,url\n1,a.example\n", delimiter=",") == [(1, "a.example", {"url;n": "1"})]
    assert rows_of("l.csv", "sep=;\nn,url\n1,a.example\n", delimiter=",") == [(1, "a.example", {"n": "1"})]
    assert rows_of("l.csv", "n:url\n1:a.example\n", delimiter=":") == [(1, "a.example", {"n": "1"})]
    assert rows_of("l.csv", "n\turl\n1\ta.example\n", delimiter="tab") == [(1, "a.example", {"n": "1"})]
    assert rows_of("l.tsv", "n\turl\n1,5\ta.example\n", delimiter=",") == [(1, "a.example", {"n": "1,5"})]


def test_a_line_that_says_the_delimiter_is_counted_as_a_line() -> None:
    (row,) = read([put("l.csv", "sep=;\nn;url\n1;\n")])
    assert isinstance(row, BadRow)
    assert row.error.message == "l.csv:3: no URL in column 'url'"
    assert rows_of("l.csv", "url\nsep=;\n") == [(1, "sep=;")]
    with pytest.raises(SourceError, match=r"^l\.csv: no URLs in it$"):
        check([put("l.csv", "sep=;\n")])


@pytest.mark.parametrize("value", ["", "ab", '"', "\n", "\0", "a", "7", 1, None])
def test_what_is_no_delimiter(value: Any) -> None:
    with pytest.raises(ConfigError, match="is no delimiter: one character such as ';', or 'tab'"):
        parse_delimiter(value)


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ('a.example, "b, c"', ["b, c", ""]),
        ('a.example,   "b, ""c"""  ', None),
        ('a.example, "b, ""c""", "d"', ['b, "c"', "d"]),
        ('  "a.example", b, c', [" b", " c"]),
        ('a.example,"b, ""x"", "" y",z', ['b, "x", " y', "z"]),
        ('a.example,5" , 6" "x"', ['5" ', ' 6" "x"']),
        ('a.example,"b\n, "", ""x""", "c, d"', ['b\n, ", "x"', "c, d"]),
    ],
)
def test_a_blank_before_a_quoted_cell_is_no_part_of_it(line: str, cells: list[str] | None) -> None:
    (row,) = read([put("l.csv", f"url,x,y\n{line}\n")])
    if cells is None:
        assert isinstance(row, BadRow)
    else:
        assert shown(row) == (1, "a.example", {"x": cells[0], "y": cells[1]})


# Headers


@pytest.mark.parametrize(
    "name", ["URL", "Url ", " url", "Link", "HREF", "Web site", "Web-Site URL", "home_page", "URI", "Domain", "Address"]
)
def test_a_header_as_people_write_it(name: str) -> None:
    assert rows_of("l.csv", f"n,{name}\n1,a.example\n") == [(1, "a.example", {"n": "1"})]
    assert rows_of("l.jsonl", json.dumps({"n": 1, name: "a.example"})) == [(1, "a.example", {"n": 1})]


def test_the_likeliest_column_is_taken_and_none_where_it_may_be_several() -> None:
    assert rows_of("l.csv", "Address,Website\nRoad 1,a.example\n") == [(1, "a.example", {"Address": "Road 1"})]
    assert rows_of("l.csv", "link,href,URL\n1,2,a.example\n") == [(1, "a.example", {"link": "1", "href": "2"})]
    assert rows_of("l.jsonl", '{"address": {"x": 1}, "host": "a.example"}') == [(1, "a.example", {"address": {"x": 1}})]
    with pytest.raises(SourceError, match=r"several columns may hold the URL: web, site; say which with --url-column$"):
        check([put("l.csv", "web,site\na,b\n")])
    assert not LIKELY_NAMES & LESS_LIKELY_NAMES


def test_a_column_that_is_asked_for_is_met() -> None:
    for content in ("link\na.example\n", "n,href\n1,a.example\n"):
        with pytest.raises(SourceError, match=r"^l\.csv:1: there is no column 'url'; the columns are: "):
            list(read([put("l.csv", content)], url_column="url"))
    (row,) = read([put("l.jsonl", '{"link": "a.example"}')], url_column="url")
    assert isinstance(row, BadRow)
    assert rows_of("l.csv", "Links,LINK\n1,a.example\n", url_column=" link ") == [(1, "a.example", {"Links": "1"})]


def test_a_lone_column_of_urls_needs_no_header() -> None:
    assert rows_of("l.csv", "https://a.example/\nb.example\n") == [(1, "https://a.example/"), (2, "b.example")]
    assert rows_of("l.csv", '\ufeff"www.a.example/x"\n') == [(1, "www.a.example/x")]
    assert rows_of("l.tsv", "http://a.example\n") == [(1, "http://a.example")]
    bad = rows_of("l.csv", "https://a.example/\nhttps://b.example/x;y,z\n")[1]
    assert bad[2] == "l.csv:2: has 2 cells under 1 column (a cell with ',' in it is quoted)"
    assert rows_of("l.csv", "http://purl.example/title,url\n1,a.example\n")[0][1] == "a.example"


# Encodings


@pytest.mark.parametrize(
    "encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "shift_jis", "utf-8-sig"]
)
@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
def test_a_list_in_another_encoding(kind: str, encoding: str) -> None:
    word = "テスト" if encoding == "shift_jis" else "Öl"
    number = 3000  # a few blocks
    lines = {
        "txt": [f"a.example/{word}/{n}" for n in range(number)],
        "csv": ["url;n", *(f'a.example/{word}/{n};"{word}\n"' for n in range(number))],
        "tsv": ["url\tn", *(f"a.example/{word}/{n}\t{word}" for n in range(number))],
        "jsonl": [json.dumps({"url": f"a.example/{word}/{n}", "n": word}, ensure_ascii=False) for n in range(number)],
    }[kind]
    found = rows_of("list", "\r\n".join(lines).encode(encoding), format=kind, encoding=encoding)
    assert [row[:2] for row in found] == [(n + 1, f"a.example/{word}/{n}") for n in range(number)]
    if kind != "txt":
        assert {row[2]["n"].strip() for row in found} == {word}
    if encoding.startswith(("utf-16-", "utf-32-")):  # without a mark, by what the first bytes look like
        assert rows_of("list", "\r\n".join(lines).encode(encoding), format=kind, encoding=encoding[:6]) == found
    if encoding in ("utf-16", "utf-32", "utf-8-sig"):  # their mark says it
        assert rows_of("list", "\r\n".join(lines).encode(encoding), format=kind) == found
        assert rows_of("list", "\r\n".join(lines).encode(encoding), format=kind, encoding="cp1252") == found


def test_what_is_not_utf8_costs_only_the_rows_whose_url_it_is_in(caplog: pytest.LogCaptureFixture) -> None:
    content = b'sep=;\nn\xfcm;url\n"caf\xe9\n";a.example\n2;\xfc.example\n\xfc;b.example;x\n3;c.example\n'
    found = rows_of("l.csv", content)
    assert found == [
        (1, "a.example", {"n\ufffdm": "caf\ufffd\n"}),
        (2, "\ufffd.example", {"n\ufffdm": "2"}, "l.csv:5: the URL is not UTF-8"),
        (
            3,
            "b.example",
            {"n\ufffdm": "\ufffd"},
            "l.csv:6: has 3 cells under 2 columns (a cell with ';' in it is quoted)",
        ),
        (4, "c.example", {"n\ufffdm": "3"}),
    ]
    lines = b'{"url": "a.example", "n": ["caf\xe9", {"\xe9": 1}]}\n{"url": "\xe9", "n": 1}\n{"url": "b", "n": \xe9}\n'
    found = rows_of("l.jsonl", lines)
    assert found[:2] == [
        (1, "a.example", {"n": ["caf\ufffd", {"\ufffd": 1}]}),
        (2, "\ufffd", {"n": 1}, "l.jsonl:2: the URL is not UTF-8"),
    ]
    assert found[2][2].startswith("l.jsonl:3: is not JSON: ")
    rows_of("l.txt", b"a.example\n\xe9.example\n\xe9.example\n")
    advice = "bytes that cannot be read become U+FFFD; --encoding NAME reads it as it is meant (cp1252 is what Windows and Excel write)"
    assert [record.getMessage() for record in caplog.records] == [
        f"l.csv:2: is not UTF-8: {advice}", f"l.jsonl:1: is not UTF-8: {advice}", f"l.txt:2: is not UTF-8: {advice}",
    ]  # fmt: skip
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_nothing_is_told_by_a_look_into_the_list(caplog: pytest.LogCaptureFixture) -> None:
    check([put("l.csv", b"n,url\n\xe9,a.example\n")])
    assert caplog.records == []


def test_what_is_in_no_encoding_is_told_with_the_one_that_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    content = b"n,url\n\x81,a.example\n2,\x81.example\n"
    assert rows_of("l.csv", content, encoding="cp1252") == [
        (1, "a.example", {"n": "\ufffd"}), (2, "\ufffd.example", {"n": "2"}, "l.csv:3: the URL is not cp1252"),
    ]  # fmt: skip
    wide = "n,url\n".encode("utf-16") + b"\x00\xd8" + ",a.example\n".encode("utf-16-le") + b"x"
    found = rows_of("l.csv", wide)
    assert found[0] == (1, "a.example", {"n": "\ufffd"})
    assert [record.getMessage() for record in caplog.records] == [
        "l.csv:2: is not cp1252: bytes that cannot be read become U+FFFD; is another --encoding meant?",
        "l.csv:2: is not UTF-16: bytes that cannot be read become U+FFFD; is another --encoding meant?",
    ]


def test_an_encoding_that_gives_up_is_one_clear_line() -> None:
    with pytest.raises(SourceError, match=r"^l\.txt: cannot be read as punycode: "):
        list(read([put("l.txt", b"a-\xff\xff\n")], encoding="punycode"))


def test_the_name_of_an_encoding() -> None:
    assert [parse_encoding(name) for name in ("Windows-1252", "latin1", "UTF8", "utf-8-sig", "SHIFT-JIS")] == [
        "cp1252", "iso8859-1", None, None, "shift_jis",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"^'cp12552' is no encoding of text \(did you mean 'cp1252'\?\)$"):
        parse_encoding("cp12552")
    for name in ("hex", "rot13", "idna", "zzzzzzzz", "", 7, "a\0b", "ü"):
        with pytest.raises(ConfigError, match="is no encoding of text"):
            parse_encoding(name)
    with pytest.raises(ConfigError, match=r"^encoding: 'hex' is no encoding"):
        read(["l.csv"], encoding="hex")


# JSON Lines


def test_a_url_within_another_object() -> None:
    lines = [
        {"product": {"url": "a.example", "n": 1}},
        {"product.url": "b.example", "product": {"url": "x"}},
        {"product": {"url": 7}},
        {"product": ["url"]},
    ]
    found = rows_of("l.jsonl", "\n".join(map(json.dumps, lines)), url_column="product.url")
    assert found == [
        (1, "a.example", {"product": {"url": "a.example", "n": 1}}),
        (2, "b.example", {"product": {"url": "x"}}),
        (3, '{"product": {"url": 7}}', {"product": {"url": 7}}, "l.jsonl:3: 'product.url' is a number, not a string"),
        (4, '{"product": ["url"]}', "l.jsonl:4: has no key 'product.url' (its keys: product)"),
    ]
    deep = json.dumps({"a": {"b.c": {"d": "a.example"}, "b": {"c": 1}}})
    assert rows_of("l.jsonl", deep, url_column="a.b.c.d")[0][1] == "a.example"


def test_half_a_surrogate_pair_costs_nothing_but_itself() -> None:
    lines = (
        r'{"url": "a.example", "t": "ok \ud83d", "\ude00": ["\ud83d\ude00\ud83d"]}'
        "\n"
        r'{"url": "\ud83d", "t": 1}'
    )
    assert rows_of("l.jsonl", lines) == [
        (1, "a.example", {"t": "ok \ufffd", "\ufffd": ["😀\ufffd"]}),
        (2, "\ufffd", {"t": 1}, "l.jsonl:2: the URL has half a surrogate pair"),
    ]
    for tail in ("NaN", "1" * 5000, "[" * 5000, ""):
        (row,) = read([put("l.jsonl", r'{"url": "a.example", "t": "\ud83d", "n": ' + tail + "}")])
        assert isinstance(row, BadRow)
        assert row.error.message.startswith("l.jsonl:1: is not JSON: ")


# Columns that are carried


def test_only_the_columns_that_are_asked_for_are_carried() -> None:
    content = "a,URL,B,c\n1,a.example,2,3\n"
    assert rows_of("l.csv", content, carry="b,a") == [(1, "a.example", {"B": "2", "a": "1"})]
    assert rows_of("l.csv", content, carry="") == [(1, "a.example")]
    assert rows_of("l.csv", content, carry=["c", "url"]) == [(1, "a.example", {"c": "3"})]
    lines = '{"url": "a.example", "a": 1, "b": 2}\n{"url": "b.example", "c": 1}\n"c.example"\n'
    found = [(1, "a.example", {"b": 2}), (2, "b.example"), (3, "c.example")]
    assert rows_of("l.jsonl", lines, carry="b") == found
    with pytest.raises(
        SourceError, match=r"^l\.csv:1: there is no column 'd' to carry; the columns are: a, URL, B, c$"
    ):
        check([put("l.csv", content)], ListOptions.of(carry="a,d"))


def test_names_of_columns_to_carry() -> None:
    assert parse_carry('a, "b, c" ,a') == ["a", "b, c"]
    assert parse_carry(["a", "b, c"]) == ["a", "b, c"]
    assert parse_carry(" , ") == []
    for value in (7, [7]):
        with pytest.raises(ConfigError):
            parse_carry(value)
