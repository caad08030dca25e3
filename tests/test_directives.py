"""What a page says to robots of itself: told in the record, judged by nobody."""

from __future__ import annotations

import pytest

from fetcher.config import Config
from fetcher.model import Request, Response
from fetcher.page.reader import Reader
from fetcher.sinks.record import to_record


def directives(body: str, *headers: tuple[str, str], content_type: str = "text/html") -> str | None:
    response = Response(
        Request(1, "http://a.example/"),
        "http://a.example/",
        200,
        (("content-type", content_type), *headers),
        body.encode(),
    )
    page = Reader(Config()).read(response, waited=0.0, fetched_at=0.0)
    assert to_record(page).robots == page.robots
    return page.robots


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ("<title>x</title>", (), None),
        ("<meta name=robots content='noindex, nofollow'>", (), "noindex, nofollow"),
        ("<META NAME=ROBOTS CONTENT=NoArchive>", (), "NoArchive"),
        ("<meta name=robots>", (), None),
        ("<body><p>text<meta name=robots content=none>", (), None),
        ("<title>x</title>", (("x-robots-tag", "noindex"),), "noindex"),
        ("<title>x</title>", (("x-robots-tag", " "),), None),
        ("", (("x-robots-tag", "noindex"), ("x-robots-tag", "bot: nofollow ")), "noindex, bot: nofollow"),
        ("", (("x-robots-tag", "noindex"), ("x-robots-tag", "otherbot: nofollow")), "noindex, otherbot: nofollow"),
        ("<meta name=robots content=noindex>", (("x-robots-tag", "nosnippet"),), "nosnippet, noindex"),
        ("<meta name=robots content='a\n\t b'>", (), "a b"),
    ],
)
def test_what_is_said_is_told(body: str, headers: tuple[tuple[str, str], ...], said: str | None) -> None:
    assert directives(body, *headers) == said


def test_a_header_counts_for_what_is_no_page_too() -> None:
    assert directives("\0\0", ("x-robots-tag", "noindex"), content_type="application/pdf") == "noindex"


def test_what_is_told_is_bounded() -> None:
    said = directives("<meta name=robots content=noindex>" * 1_000, ("x-robots-tag", "x" * 100_000))
    assert said is not None
    assert len(said) == 1_000
