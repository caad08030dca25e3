"""Where a body is read: what goes to another process, which extractors can, and that the page is the same."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import sys
import types
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_hexdigest

from fetcher.config import Config
from fetcher.errors import ConfigError, ParseError
from fetcher.model import Extractor, Page, Request, Response
from fetcher.page import reader as reader_module
from fetcher.page.reader import (
    LONG_TAG_BYTES,
    MAX_BYTES_HERE,
    MAX_TAGS_HERE,
    SAFE_BYTES,
    SAMPLE_BYTES,
    SAMPLED_BYTES,
    SMALL_BYTES,
    Reader,
    looks_dangerous,
    name_of,
)
from tests.lab import extractors

HTML = "text/html; charset=utf-8"
SMALL_PAGE = b"<title>T</title><a href=x>1</a>"
BOMB = b"<div>" * 20_000


def respond(body: bytes, content_type: str | None = HTML, *, row: int = 7, **known: Any) -> Response:
    request = known.pop("request", Request(row, "http://example.com/"))
    head = known.pop("headers", (("server", "x"),))
    headers = head if content_type is None else (*head, ("content-type", content_type))
    return Response(request, "http://example.com/", 200, headers, body, **known)


def isolated(reader: Reader, response: Response) -> Page | tuple[str, str]:
    """Read one response in a process of its own, in a loop of its own."""

    async def main() -> Page | tuple[str, str]:
        try:
            return await reader.read_isolated(response, waited=0.5, fetched_at=9.0)
        except ParseError as error:
            return error.code, error.message
        finally:
            await reader.close()

    return asyncio.run(main())


def here(reader: Reader, response: Response) -> Page:
    return reader.read(response, waited=0.5, fetched_at=9.0)


# What is isolated


@pytest.mark.parametrize(
    ("options", "extract", "goes"),
    [
        ({}, None, {"bomb"}),
        ({}, extractors.titled, {"bomb"}),
        ({}, extractors.nameless, {"bomb"}),
        ({"select": "h=h1"}, None, {"bomb"}),
        ({"isolate": True}, None, {"bomb"}),
        ({"isolate": True}, extractors.titled, {"bomb", "page", "text", "image", "big text"}),
        ({"isolate": True, "select": "h=h1"}, None, {"bomb", "page"}),
        ({"parse": False}, None, set()),
        ({"parse": False, "parsers": 1}, None, set()),
        ({"columns": "url"}, None, set()),
        ({"parse": False, "select": "t=title"}, None, {"bomb"}),
        ({"parsers": 1}, None, {"bomb", "page"}),
        ({"parsers": 1}, extractors.titled, {"bomb", "page"}),
        ({"parsers": 1, "isolate": True}, extractors.titled, {"bomb", "page", "text", "image", "big text"}),
    ],
)
def test_what_is_read_isolated(options: dict[str, Any], extract: Extractor | None, goes: set[str]) -> None:
    bodies = {
        "bomb": respond(BOMB),
        "page": respond(SMALL_PAGE),
        "text": respond(SMALL_PAGE, "text/plain"),
        "image": respond(SMALL_PAGE, "image/png"),
        "big text": respond(BOMB * 20, "text/plain"),
    }
    reader = Reader(Config.of(**options), extract)
    assert {name for name, response in bodies.items() if reader.needs_isolation(response)} == goes


def test_a_bomb_is_known_by_its_bytes_where_its_type_is_not() -> None:
    reader = Reader(Config())
    assert reader.needs_isolation(respond(b"<html >" + BOMB, None))
    assert not reader.needs_isolation(respond(b"x" * 2 * SAFE_BYTES, None))


def test_a_suspect_is_isolated_whatever_it_looks_like() -> None:
    reader = Reader(Config())
    with reader.marking(lambda row: None, suspects={7}):
        assert reader.needs_isolation(respond(b"x", "text/plain", row=7))
        assert not reader.needs_isolation(respond(b"x", "text/plain", row=8))
    assert not reader.needs_isolation(respond(b"x", "text/plain", row=7))


# Which extractors can go


def test_an_extractor_is_found_by_its_name() -> None:
    assert name_of(extractors.titled) == "tests.lab.extractors:titled"
    assert name_of(extractors.MethodExtractors.of) == "tests.lab.extractors:MethodExtractors.of"
    assert name_of(extractors.MethodExtractors.size) == "tests.lab.extractors:MethodExtractors.size"
    assert name_of(str) == "builtins:str"


def closure() -> Extractor:
    def extract(response: Response) -> int:
        return len(response.body)

    return extract


class Inheriting(extractors.MethodExtractors):
    """Inherits a method that has its parent's name."""


NAMELESS: list[Any] = [
    extractors.nameless,
    extractors.called,
    extractors.MethodExtractors().own,
    Inheriting.of,
    closure(),
    functools.partial(extractors.titled),
    lambda response: len(response.body),
]


@pytest.mark.parametrize("options", [{"isolate": True}, {"parsers": 2}])
@pytest.mark.parametrize("extract", NAMELESS)
def test_an_extractor_without_a_name_is_refused_where_it_was_to_go(extract: Extractor, options: dict[str, Any]) -> None:
    assert name_of(extract) is None
    Reader(Config(), extract)
    with pytest.raises(ConfigError, match=rf"^{next(iter(options))}: the extractor .* move it into a module"):
        Reader(Config.of(**options), extract)


def test_what_another_process_would_not_import_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str, spec: Any = None) -> Extractor:
        module = module_from_spec(spec) if spec else types.ModuleType(name)
        exec("def extract(response): return 1", module.__dict__)
        monkeypatch.setitem(sys.modules, name, module)
        extract: Extractor = module.extract
        extract.__module__ = name
        return extract

    plugin = tmp_path / "plugin_from_a_path.py"
    plugin.touch()
    assert name_of(made("plugin_from_a_path", spec_from_file_location("plugin_from_a_path", plugin))) is None
    assert name_of(made("made_by_hand")) is None
    assert name_of(made("no_package.inside", spec_from_file_location("no_package.inside", plugin))) is None
    assert name_of(made("__main__")) is None
    monkeypatch.syspath_prepend(tmp_path)
    assert name_of(made("plugin_from_a_path", spec_from_file_location("plugin_from_a_path", plugin))) is not None


def test_a_bad_selector_is_refused() -> None:
    with pytest.raises(ConfigError, match="h1 >"):
        Reader(Config.of(select="h=h1 >"))


# The same page


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


READERS: dict[str, Reader] = {
    "bare": Reader(Config.of(preview=20, parsers=1)),
    "select": Reader(Config.of(parsers=1, select=["h=h1", "all[]=a@href"])),
    "extract": Reader(Config.of(parsers=1), extractors.titled),
}


@pytest.fixture(scope="module", autouse=True)
def closed(runner: asyncio.Runner) -> Iterator[None]:
    yield
    for reader in READERS.values():
        runner.run(reader.close())


TEXTS = st.text(st.characters(), max_size=30)  # lone surrogates too: a header's bytes may become some
RESPONSES = st.builds(
    respond,
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: text.encode()),
        st.lists(st.sampled_from([b"<title>", b"</title>", b"<h1>", b"<a href=x>", "ö漢".encode(), b"<svg>"])).map(
            b"".join
        ),
    ),
    st.sampled_from([HTML, "text/html", "text/html; charset=euc-jp", "text/plain", "image/png", None]),
    headers=st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
    request=st.builds(
        Request,
        st.integers(1, 2**40),
        TEXTS,
        fields=st.none() | st.dictionaries(st.text(max_size=5), TEXTS | st.integers() | st.none(), max_size=3),
        tag=st.sampled_from([None, object()]),
    ),
    redirects=st.lists(TEXTS, max_size=2).map(tuple),
    attempts=st.integers(1, 5),
    elapsed=st.floats(0, 100),
    truncated=st.booleans(),
)


@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(RESPONSES)
def test_a_page_read_isolated_is_the_page_read_here(runner: asyncio.Runner, name: str, response: Response) -> None:
    reader = READERS[name]
    if name == "extract" and any(unkept(value) for value in (response.request.fields or {}).values()):
        response = msgspec.structs.replace(response, request=Request(1, "u"))
    expected = here(reader, response)
    page = runner.run(reader.read_isolated(response, waited=0.5, fetched_at=9.0))
    assert page == expected
    assert page.request is response.request


def unkept(value: Any) -> bool:
    """Tell whether data with this in it is not plain."""
    if isinstance(value, int):
        return not -(2**63) <= value < 2**64
    return isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value)


@pytest.mark.parametrize(
    ("request_", "headers", "said"),
    [
        (Request(3, "http://a/", fields={"sku": "1", "n": 2.5}), (), ["'http://a/'", "3", "{'sku': '1', 'n': 2.5}"]),
        (Request(3, "\udcff", fields={"a": "\ud800"}), (), [r"'\udcff'", "3", r"{'a': '\ud800'}"]),
        (Request(3, "u", fields={"n": 2**70, "o": object()}), (), ["'u'", "3", f"{{'n': {2**70}}}"]),
        (Request(3, "u", fields={1: 2, "a": b"x"}), (), ["'u'", "3", "{}"]),  # type: ignore[dict-item]  # not its type
        (Request(3, "u", fields=types.MappingProxyType({"a": 1})), (), ["'u'", "3", "{'a': 1}"]),
        (Request(3, "u"), (("x-odd", "caf\udce9"),), ["'u'", "3", "{}", r"'caf\udce9'"]),
    ],
)
def test_an_isolated_extractor_sees_the_row_but_for_its_tag(
    request_: Request, headers: tuple[tuple[str, str], ...], said: list[str]
) -> None:
    request = msgspec.structs.replace(request_, tag=object())
    page = isolated(Reader(Config.of(isolate=True), extractors.echo), respond(b"", request=request, headers=headers))
    assert isinstance(page, Page)
    assert page.data == [*[*said, "none"][:4], "None"]
    assert page.request is request


def test_a_process_stands_where_its_owner_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "caf\udce9"))
    page = isolated(Reader(Config.of(isolate=True), extractors.path_bytes), respond(b""))
    assert isinstance(page, Page)
    pid, session, folder, path = page.data
    assert pid != os.getpid()
    assert session != os.getsid(0)
    assert folder == str(tmp_path).encode()
    assert path == [os.fsencode(entry) for entry in sys.path]


# Extractors that stay here


def test_an_extractor_without_a_name_runs_here_once_the_page_was_parsed_there() -> None:
    ran: list[int] = []

    def extract(response: Response) -> int:
        ran.append(os.getpid())
        return len(response.body)

    page = isolated(Reader(Config(), extract), respond(SMALL_PAGE))
    assert isinstance(page, Page)
    assert (page.title, page.links, page.data) == ("T", 1, len(SMALL_PAGE))
    assert ran == [os.getpid()]
    assert isolated(Reader(Config.of(parse_timeout=0.3), extract), respond(BOMB * 5)) == ("parse_timeout", "over 0.3 s")
    assert len(ran) == 1

    def fail(response: Response) -> None:
        raise KeyError("price")

    assert isolated(Reader(Config(), fail), respond(SMALL_PAGE)) == ("extract_failed", "KeyError: 'price'")


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"tuple ", ("a", ("b", 1))),
        (b"set ", {"a", "b"}),
        (b"huge ", 2**70),
        (b"surrogate ", "\udcff"),
        (b"key ", {("a", "b"): 1}),
        (b"say yes", "yes"),
    ],
)
def test_data_is_what_the_extractor_returned_whichever_page_it_was(body: bytes, data: Any) -> None:
    """Where nothing was asked for, a large page must not have other data than a small one."""
    page = isolated(Reader(Config(), extractors.obey), respond(body))
    assert isinstance(page, Page)
    assert (page.data, type(page.data)) == (data, type(data))


def test_an_extractor_with_a_name_is_isolated_on_a_bomb() -> None:
    page = isolated(Reader(Config(), extractors.pid), respond(SMALL_PAGE))
    assert isinstance(page, Page)
    assert page.data != os.getpid()


# What was known when it failed


def known(error: ParseError) -> tuple[Any, ...]:
    reading = error.reading
    return reading.length, reading.content_type, reading.charset, reading.title, reading.links, reading.robots


def failing(reader: Reader, response: Response, *, apart: bool) -> ParseError:
    async def main() -> None:
        try:
            if apart:
                await reader.read_isolated(response, waited=0.5, fetched_at=9.0)
            else:
                here(reader, response)
        finally:
            await reader.close()

    with pytest.raises(ParseError) as caught:
        asyncio.run(main())
    return caught.value


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("extract", [extractors.obey, lambda response: extractors.obey(response)])
def test_a_failed_extractor_leaves_what_was_read(extract: Extractor, apart: bool) -> None:
    body = b"raise <title>T</title><a href=x>1</a>"
    response = respond(body, headers=(("x-robots-tag", "no\udcffindex"),))
    error = failing(Reader(Config(), extract), response, apart=apart)
    assert error.code == "extract_failed"
    assert known(error) == (len(body), "text/html", "utf-8", "T", 1, "no\ufffdindex")
    assert known(failing(Reader(Config(), extract), respond(b"raise", "image/png"), apart=apart)) == (
        None, "image/png", None, None, None, None,
    )  # fmt: skip


def test_what_a_parser_kills_or_cannot_send_leaves_what_was_read() -> None:
    response = respond("<title>é</title>".encode() + BOMB * 5, headers=(("x-robots-tag", "noindex"),))
    error = failing(Reader(Config.of(parse_timeout=0.3)), response, apart=True)
    assert (error.code, known(error)) == (
        "parse_timeout", (16 + 5 * len(BOMB), "text/html", "utf-8", None, None, "noindex"),
    )  # fmt: skip
    body = b"object <title>T</title>"
    error = failing(Reader(Config.of(isolate=True), extractors.obey), respond(body), apart=True)
    assert (error.code, known(error)) == ("extract_failed", (len(body), "text/html", "utf-8", "T", 0, None))
    error = failing(Reader(Config.of(isolate=True), extractors.obey), respond(b"list 100000"), apart=True)
    assert (error.code, known(error)) == ("extract_failed", (11, "text/html", "utf-8", None, 0, None))


def test_a_page_that_lexbor_refuses_leaves_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: bytes | str) -> None:
        raise ValueError("no")

    monkeypatch.setattr("fetcher.page.parse.LexborHTMLParser", refuse)
    error = failing(Reader(Config()), respond(SMALL_PAGE, headers=(("x-robots-tag", "noindex"),)), apart=False)
    assert (error.code, known(error)) == ("parse_crash", (len(SMALL_PAGE), "text/html", "utf-8", None, None, "noindex"))


def test_each_page_that_no_process_can_be_started_for_has_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.page.isolation.command", lambda module: ["/nowhere/python"])
    reader = Reader(Config())

    async def main() -> list[ParseError]:
        pages = (reader.read_isolated(respond(SMALL_PAGE), waited=0, fetched_at=0) for _ in range(8))
        try:
            return await asyncio.gather(*pages, return_exceptions=True)  # type: ignore[return-value]  # all fail
        finally:
            await reader.close()

    errors = asyncio.run(main())
    assert {error.code for error in errors} == {"parse_crash"}
    assert len(set(map(id, errors))) == 8


@pytest.mark.parametrize("extract", [extractors.obey, lambda response: extractors.obey(response)])
def test_a_want_of_memory_is_no_pages_fault(extract: Extractor) -> None:
    with pytest.raises(MemoryError):
        here(Reader(Config(), extract), respond(b"starve"))
    with pytest.raises(MemoryError):
        isolated(Reader(Config(), extract), respond(b"starve"))


def test_a_page_that_takes_more_than_a_process_has_costs_its_own_row() -> None:
    large = respond(b"starve " + b"x" * 2**20)
    failed = isolated(Reader(Config(), extractors.obey), large)
    assert failed == ("parse_crash", "parsing it takes more memory than a process of its own is given")
    with pytest.raises(MemoryError):  # whoever reads it here has it read there next
        here(Reader(Config(), extractors.obey), large)


# Extractors of the wrong shape


async def later(response: Response) -> int:
    return len(response.body)


def pieces(response: Response) -> Iterator[bytes]:
    yield response.body


SHAPES: list[tuple[Any, str]] = [
    (7, r"7 cannot be called"),
    (later, r"later is async"),
    (functools.partial(later), r"is async"),
    (pieces, r"pieces is a generator"),
    (lambda: 1, r"<lambda>\(\) does not take that: too many positional arguments"),
    (lambda response, config: 1, r"does not take that: missing a required argument: 'config'"),
]


@pytest.mark.parametrize(("extract", "said"), SHAPES)
def test_an_extractor_of_the_wrong_shape_is_refused(extract: Any, said: str) -> None:
    with pytest.raises(TypeError, match=rf"^extract is called as function\(response\), and .*{said}"):
        Reader(Config(), extract)


def test_an_extractor_that_turns_out_to_be_async_fails_its_rows() -> None:
    with pytest.raises(ParseError, match="extract_failed: it returned a coroutine"):
        here(Reader(Config(), lambda response: later(response)), respond(SMALL_PAGE))


def test_rules_beside_an_extractor_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"select: .* and so does extract"):
        Reader(Config.of(select="h=h1"), extractors.titled)


# The crash marker


def test_a_row_is_marked_while_its_page_is_parsed_here() -> None:
    told: list[int | str] = []

    def extract(response: Response) -> None:
        told.append("extract")
        if not response.body:
            raise ValueError("empty")

    reader = Reader(Config(), extract)
    with reader.marking(told.append):
        here(reader, respond(SMALL_PAGE, row=3))
        assert told == [3, "extract", 0]
        with pytest.raises(ParseError):
            here(reader, respond(b"", row=4))
        assert told[3:] == [4, "extract", 0]
        isolated(reader, respond(SMALL_PAGE, row=5))
        assert told[6:] == [5, "extract", 0]
        isolated(reader, respond(b"", row=6))
        assert told[9:] == [6, "extract", 0]
    here(reader, respond(SMALL_PAGE, row=7))
    assert told[12:] == ["extract"]


def test_no_row_is_marked_that_is_parsed_apart() -> None:
    told: list[int] = []
    reader = Reader(Config(), extractors.titled)
    with reader.marking(told.append):
        assert isinstance(isolated(reader, respond(SMALL_PAGE)), Page)
    assert told == []


# What looks dangerous, and that the look agrees with a plain one


def prose(size: int) -> bytes:
    return (b"<p>some words, a page as pages are</p>\n" * (size // 39 + 1))[:size]


@pytest.mark.parametrize(
    ("body", "dangerous"),
    [
        (b"", False),
        (b"<div>" * (SAFE_BYTES // 5), False),
        (b"x" * SAFE_BYTES, False),
        (b"x" * (SAFE_BYTES + 1), True),
        (prose(SAFE_BYTES + 1), False),
        (prose(190_000), False),
        (prose(200_000), True),
        (b"<div>" * 100_000, True),
        (b"<a " + b" ".join(b"a%d=1" % n for n in range(50_000)) + b">", True),
        (b"<title>" + b"x" * 5000 + prose(60_000), False),
        (b"<p title='" + b"x" * LONG_TAG_BYTES + b"'>" + prose(SAFE_BYTES), True),
        (b"<b>some" * (MAX_TAGS_HERE - 1), False),
        (b"<b>some" * MAX_TAGS_HERE, True),
        (b"<b>" * 40_000 + b"some words > " * 5_000, True),  # they are hidden from hardly any 16 looks
        (prose(SAMPLED_BYTES)[:-10] + b"words > " * 5_000 + b"<", True),
        (b"words > " * (SAMPLED_BYTES // 8) + b"<b>" * (MAX_TAGS_HERE - 1), False),
        (b"words > " * (SAMPLED_BYTES // 8) + b"<b>" * MAX_TAGS_HERE, True),  # few looks would come upon these
    ],
)
def test_bombs_look_dangerous_and_pages_do_not(body: bytes, dangerous: bool) -> None:
    assert looks_dangerous(body) is dangerous


@pytest.mark.parametrize(
    ("tags", "looks_at", "dangerous"),
    [
        # In the first 256 bytes of 185 KB there are so few that all of it would have 7,225, or 7,947.
        (10, 0.0, False),
        (11, 0.0, True),
        (SAMPLE_BYTES, 0.0, True),
        (SAMPLE_BYTES, 1.0, False),
    ],
)
def test_what_few_samples_show_is_reckoned_for_the_whole_page(
    tags: int, looks_at: float, dangerous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = b"<" * tags + b"x" * (SAMPLE_BYTES - tags)
    body = start + b"<b>" * (MAX_TAGS_HERE) + b"some words > " * 11_900
    monkeypatch.setattr(reader_module, "random", lambda: looks_at)
    assert looks_dangerous(body) is dangerous


@pytest.mark.parametrize(
    ("size", "tags", "dangerous"),
    [
        # In the first 128 bytes of 60 KB there are so few that all of it would have 7,031, or 7,500.
        (60_000, 15, False),
        (60_000, 16, True),
        # To the byte: of a larger page twice as many bytes are looked at, so as many tags are half as dense.
        (SMALL_BYTES, 15, True),
        (SMALL_BYTES + 1, 15, False),
        (SMALL_BYTES + 1, 30, True),
    ],
)
def test_of_a_small_page_fewer_samples_show_as_much(
    size: int, tags: int, dangerous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = b"<" * tags + b"x" * (SAMPLE_BYTES - tags)
    body = start + b"<b>" * MAX_TAGS_HERE
    monkeypatch.setattr(reader_module, "random", lambda: 0.0)
    assert looks_dangerous((body + b"words > " * 9_000)[:size]) is dangerous


def test_above_a_megabyte_everything_is() -> None:
    page = b"<p>" + b"a few words > " * (MAX_BYTES_HERE // 14)
    assert not looks_dangerous(page[:MAX_BYTES_HERE])
    assert looks_dangerous((page + b">" * 100)[: MAX_BYTES_HERE + 1])


@pytest.mark.parametrize("before", [0, 1, LONG_TAG_BYTES - 1, LONG_TAG_BYTES, LONG_TAG_BYTES + 1])
@pytest.mark.parametrize("length", [LONG_TAG_BYTES - 1, LONG_TAG_BYTES])
@pytest.mark.parametrize("after", [0, 1, 5, LONG_TAG_BYTES])
def test_a_long_tag_is_seen_wherever_it_is(before: int, length: int, after: int) -> None:
    body = b">" * before + b"x" * length + b">" * after
    assert reader_module._has_long_tag(body) == (length >= LONG_TAG_BYTES)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 40))
@example([], 1)
def test_the_look_by_jumps_agrees_with_a_plain_one(gaps: list[int], stretch: int) -> None:
    body = b">".join(b"x" * gap for gap in gaps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "LONG_TAG_BYTES", stretch)
        assert reader_module._has_long_tag(body) == (re.search(b"[^>]{%d}" % stretch, body) is not None)


# What tells whether a page is another


def test_a_page_has_its_validators_and_a_digest() -> None:
    head = (("etag", 'W/"a\udcff"'), ("last-modified", "x" * 70_000))
    found = here(Reader(Config()), respond(SMALL_PAGE, headers=head))
    assert (found.etag, found.last_modified) == ('W/"a\ufffd"', "x" * 1_000)
    assert found.digest == f"xxh3:{xxh3_128_hexdigest(SMALL_PAGE)}"
    other = here(Reader(Config()), respond(SMALL_PAGE + b" "))
    assert (other.etag, other.last_modified) == (None, None)
    assert other.digest != found.digest


def test_a_digest_that_no_column_shows_is_not_made() -> None:
    assert here(Reader(Config.of(columns="url,title")), respond(SMALL_PAGE)).digest is None
