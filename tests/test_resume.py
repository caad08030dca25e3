"""Which rows of a list are left, and which failures are tried again.

Finished rows are recognised, a grown list is fine, a changed one is found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher import errors
from fetcher.errors import ConfigError, FetchError, InvalidURL, Skipped, SourceError
from fetcher.job.resume import CLASSES, ROWS_A_TURN, FinishedPages, ResumeFilter, choose_codes, digest_of
from fetcher.model import Request
from fetcher.sources.rows import BadRow, FinishedRow
from fetcher.stored.page import IsFinished, RowsBeingRead, StoredFile, StoredPage

ADVICE = (
    "a list may grow at its end, not change; give it as it was, write to another output, or begin again with --fresh"
)

Strain = Callable[..., Any]


def rows(*names: str) -> list[Request]:
    return [Request(number, f"http://host/{name}") for number, name in enumerate(names, 1)]


def done(*requests: Request) -> Iterator[tuple[int, int]]:
    return iter([(request.id, digest_of(request)) for request in requests])


async def slowly(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def strained(
    finished: Iterator[tuple[int, int]], listed: Iterable[Any], *, later: bool = False, **options: Any
) -> list[Any]:
    """Return what is left, read in one way or the other."""
    unfinished = ResumeFilter(finished, **options)
    if later:
        return [row async for row in unfinished.left_async(slowly(listed))]
    return list(unfinished.left(listed))


both = pytest.mark.parametrize("later", [False, True], ids=["iterable", "async"])


@both
async def test_what_is_not_finished_is_left(later: bool) -> None:
    listed = rows(*"abcde")
    a, b, _, d, e = listed
    for finished in ([], [a], [e], [b, d], listed):
        left = await strained(done(*finished), listed, later=later)
        assert left == [row for row in listed if row not in finished]


@both
async def test_a_list_may_grow(later: bool) -> None:
    listed = rows(*"abcde")
    assert await strained(done(*listed[:2]), listed, later=later) == listed[2:]
    assert await strained(done(listed[1]), listed, later=later) == [listed[0], *listed[2:]]


@both
@pytest.mark.parametrize(
    ("listed", "left", "message"),
    [
        ("axcd", ["a"], "row 2 of the list is another than the one this job has fetched"),
        ("abcx", ["a", "c"], "row 4 of the list is another than the one this job has fetched"),
        ("abc", ["a", "c"], "the list ends at row 3, and this job has fetched row 4 of it"),
        ("", [], "the list ends at row 0, and this job has fetched row 2 of it"),
    ],
)
async def test_a_changed_list_is_refused_at_the_first_row_that_differs(
    listed: str, left: list[str], message: str, later: bool
) -> None:
    _, b, _, d = rows(*"abcd")
    unfinished = ResumeFilter(done(b, d))
    got: list[Request] = []
    with pytest.raises(SourceError) as caught:
        if later:
            async for row in unfinished.left_async(slowly(rows(*listed))):
                got.append(row)  # what came before the error is looked at
        else:
            for row in unfinished.left(rows(*listed)):
                got.append(row)  # as above
    assert str(caught.value) == f"{message}: {ADVICE}"
    assert [row.url.rpartition("/")[2] for row in got] == left


async def test_a_row_whose_number_is_left_out_is_missing() -> None:
    a, b, c = rows(*"abc")
    with pytest.raises(SourceError, match=r"^the list has no row 2 any more, and this job has fetched one: a list may"):
        await strained(done(a, b), [a, c])


@both
async def test_texts_are_numbered_as_they_come_and_trimmed(later: bool) -> None:
    listed = ["http://host/a", "  http://host/b\n", "http://host/c"]
    left = await strained(done(*rows(*"ab")), listed, later=later)
    assert left == rows(*"abc")[2:]


@both
async def test_a_limit_is_the_last_row_of_the_input(later: bool) -> None:
    listed = rows(*"abcde")
    for limit, left in ((0, []), (1, []), (2, []), (3, listed[2:3]), (9, listed[2:])):
        assert await strained(done(*listed[:2]), listed, later=later, limit=limit) == left
    # What lies behind it is not read, and not asked about.
    assert await strained(done(listed[0], listed[4]), listed[:3], later=later, limit=3) == listed[1:3]


async def test_a_limit_reads_no_row_more() -> None:
    read: list[Request] = []

    def source() -> Iterator[Request]:
        for row in rows(*"abc"):
            read.append(row)
            yield row

    assert await strained(done(), source(), limit=2) == rows(*"ab")
    assert len(read) == 2
    assert await strained(done(), source(), limit=0) == []
    assert len(read) == 2


@both
async def test_finished_rows_are_passed_on_where_they_have_duplicates(later: bool) -> None:
    listed = rows(*"abc")
    left = await strained(done(*listed[:2]), listed, later=later, passing=True)
    assert left == [FinishedRow(listed[0]), FinishedRow(listed[1]), listed[2]]


async def test_the_loop_gets_a_turn_while_many_are_passed_over() -> None:
    listed = rows(*map(str, range(3 * ROWS_A_TURN)))
    left = await strained(done(*listed), listed)
    assert left == [FinishedRow()] * 3


@both
async def test_bad_rows_are_rows(later: bool) -> None:
    bad = BadRow(Request(2, "javascript:x"), InvalidURL(message="no"))
    first, _, third = rows("a", "b", "c")
    assert await strained(done(first), [first, bad, third], later=later) == [bad, third]
    assert await strained(done(bad.request), [first, bad, third], later=later) == [first, third]
    with pytest.raises(SourceError, match=r"^row 2 of the list is another"):
        await strained(done(rows("a", "b")[1]), [first, bad, third], later=later)


@pytest.mark.parametrize("numbers", [[1, 1], [2, 1], [0], [-1], [1, 3, 2]])
async def test_numbers_must_rise(numbers: list[int]) -> None:
    listed = [Request(number, "http://host/") for number in numbers]
    with pytest.raises(SourceError, match=r"^row \d has the number -?\d after \d: a job needs them to rise$"):
        await strained(done(), listed)


async def test_numbers_may_have_gaps() -> None:
    listed = [Request(number, f"http://host/{number}") for number in (5, 9, 2**40)]
    assert await strained(done(listed[1]), listed) == [listed[0], listed[2]]


@pytest.mark.parametrize("row", [5, None, b"http://host/", ("http://host/",)])
async def test_what_is_no_row_is_a_bug_of_the_caller(row: object) -> None:
    with pytest.raises(TypeError, match=r"^row 1 is neither a str nor a Request: "):
        await strained(done(), [row])


# The digest


def test_the_digest_is_four_bytes_of_what_makes_a_row() -> None:
    plain = Request(1, "http://host/")
    assert 0 <= digest_of(plain) < 2**32
    assert digest_of(plain) == 3007391367, "a ledger of an earlier version would not know its rows"
    assert digest_of(Request(2, "http://host/", tag=object())) == digest_of(plain), "its number and tag are not in it"
    others = [
        Request(1, "http://host/x"),
        Request(1, "http://host/", fields={"a": "b"}),
        Request(1, "http://host/", fields={"a": "c"}),
        Request(1, "http://host/", fields={"b": "b"}),
        Request(1, "http://host/", headers=(("A", "b"),)),
        Request(1, "http://host/", fields={}),
    ]
    digests = {digest_of(request) for request in [plain, *others]}
    assert len(digests) == 1 + len(others)


def test_whatever_a_row_holds_has_a_digest() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    many: list[Any] = [
        {"\ud800": "\udfff"}, {"a": object()}, {"a": {1, 2}}, {"a": float("nan")}, {"a": 2**100}, {"a": b"\xff"},
        {1: 2}, {(1, 2): 3}, loop, {"a": [[[[]]]] * 3},
    ]  # fmt: skip
    for fields in many:
        request = Request(1, "http://host/\ud800", fields=fields)
        assert digest_of(request) == digest_of(request)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_equal_rows_have_equal_digests(fields: dict[str, Any]) -> None:
    assert digest_of(Request(1, "http://host/", fields=dict(fields))) == digest_of(
        Request(9, "http://host/", fields=fields)
    )


@given(st.sets(st.integers(1, 40)), st.integers(0, 40))
def test_finished_and_left_make_the_list(finished: set[int], length: int) -> None:
    listed = rows(*map(str, range(1, length + 1)))
    known = [request for request in listed if request.id in finished]
    left = list(ResumeFilter(done(*known)).left(listed))
    assert sorted([*left, *known], key=lambda request: request.id) == listed


# The pages of a file


class Stored:
    """A file of pages, some of which may have to be waited for; ``told`` is what it was given to ask with."""

    def __init__(self, *rows: Request | RowsBeingRead) -> None:
        self.rows = rows
        self.told: IsFinished | None = None

    def pages(self, is_finished: IsFinished | None = None) -> Iterator[StoredPage | RowsBeingRead]:
        self.told = is_finished
        return (row if isinstance(row, RowsBeingRead) else StoredPage(row) for row in self.rows)


def left_of(file: Stored, finished: Iterator[tuple[int, int]], **options: Any) -> list[Any]:
    found = FinishedPages(finished, **options).left(cast(StoredFile, file))
    return [row.request if isinstance(row, StoredPage) else row for row in found]


def test_pages_that_are_not_finished_are_left_in_the_order_of_the_file() -> None:
    a, b, c, d = rows(*"abcd")
    waiting = RowsBeingRead(Future())
    file = Stored(d, b, waiting, a, c)
    assert left_of(file, done(b, c)) == [d, waiting, a]
    assert file.told is not None
    assert [file.told(row) for row in (a, b, c, d)] == [False, True, True, False]
    assert left_of(file, done()) == [d, b, waiting, a, c]
    assert file.told is None, "there is nothing to ask"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abxd", "row 3 of the file is another than the one this job has read"),
        ("ab", "1 row that this job has read is not in the file any more"),
        ("a", "2 rows that this job has read are not in the file any more"),
    ],
)
def test_a_file_that_changed_is_refused(names: str, message: str) -> None:
    _, b, c, _ = rows(*"abcd")
    with pytest.raises(SourceError) as caught:
        left_of(Stored(*rows(*names)), done(b, c))
    assert str(caught.value) == f"{message}: {ADVICE}"


@pytest.mark.parametrize("limit", range(5))
def test_of_a_file_too_a_limit_is_the_last_row(limit: int) -> None:
    listed = rows(*"abcd")
    waiting = RowsBeingRead(Future())
    assert (
        left_of(Stored(listed[0], waiting, *listed[1:]), done(listed[0]), limit=limit)
        == ([[], [waiting], *([waiting, *listed[1:last]] for last in (2, 3, 4))][limit])
    )


def test_the_loop_gets_a_turn_while_many_pages_are_passed_over() -> None:
    listed = rows(*map(str, range(2 * ROWS_A_TURN + 1)))
    assert left_of(Stored(*listed), done(*listed[:-1])) == [FinishedRow(), FinishedRow(), listed[-1]]


# Which failures are tried again


def kinds(kind: type[FetchError] = FetchError) -> list[type[FetchError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in kinds(child))]


CODES = {code for kind in kinds() for code in kind.codes}
STATUSES = {f"http_{status}" for status in range(100, 600)}
EVERYTHING = CODES | STATUSES


def chosen(*names: str) -> set[str]:
    choose = choose_codes(names)
    assert choose is not None
    assert not choose("ok"), "a page is never tried again"
    return {code for code in EVERYTHING if choose(code)}


def test_nothing_chooses_nothing() -> None:
    assert choose_codes([]) is None


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_its_codes(name: str) -> None:
    assert chosen(name) == CLASSES[name].codes == chosen(name.upper()) == chosen(f" {name} ")


def test_every_class_of_errors_has_a_name_or_is_of_one_code() -> None:
    named = set(CLASSES.values())
    rest = {kind for kind in kinds() if kind.codes and kind.__bases__[0] is FetchError and kind not in named}
    assert rest == {errors.InvalidURL, errors.TooLarge, Skipped}


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_code_is_itself(code: str) -> None:
    assert chosen(code) == {code}


def test_statuses_are_named_by_number_by_code_and_by_hundred() -> None:
    assert chosen("503") == chosen("http_503") == {"http_503"}
    assert chosen("5xx") == chosen("5XX") == {f"http_{status}" for status in range(500, 600)}
    assert chosen("http") == STATUSES


def test_several_are_all_of_them() -> None:
    assert chosen("404", "5xx", "dns") == {"http_404"} | chosen("5xx") | errors.DNSError.codes


def test_failed_is_all_but_what_was_skipped_for_good() -> None:
    assert EVERYTHING - chosen("failed") == {"robots_denied", "page_denied", "address_blocked", "duplicate"}
    assert chosen("failed", "duplicate") == chosen("failed") | {"duplicate"}


@pytest.mark.parametrize(
    "name", ["", "ok", "0xx", "5x", "5xxx", "http_5xx", "99", "1000", "http_", "none", "dns,tls", "٥xx"]
)
def test_what_is_none_of_these_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is neither a code nor a class: there are failed, http, 4xx, 5xx, dns"):
        choose_codes(["404", name])
