"""The encoding cases of html5lib-tests: which charset a browser takes a page for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from fetcher.charset import FALLBACK_CHARSET, LATE_PRESCAN_BYTES, PRESCAN_BYTES, detect, prescan, resolve_label
from tests.lab.suites import suite

Case: TypeAlias = tuple[str, bytes, str]

CASES = 82
BEYOND_1024 = 7


def read_cases(folder: Path) -> Iterator[Case]:
    """Yield file and number, the page, and the label of its charset."""
    for path in sorted(folder.glob("*.dat")):
        for number, case in enumerate((b"\n" + path.read_bytes()).split(b"\n#data\n")[1:]):
            data, _, label = case.partition(b"\n#encoding\n")
            yield f"{path.name}:{number}", data, label.split(b"\n")[0].decode()


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(read_cases(suite("html5lib-encoding")))


def test_the_whole_suite_is_read(cases: list[Case]) -> None:
    assert len(cases) == CASES
    assert all(resolve_label(label) for _, _, label in cases)


def test_every_page_gets_the_charset_of_the_suite(cases: list[Case]) -> None:
    wrong = []
    for name, data, label in cases:
        charset, expected = detect(data, None).charset, resolve_label(label)
        # The suite's fallback is windows-1252; ours for bytes that are all ASCII is utf-8, which reads them alike.
        if expected == FALLBACK_CHARSET and data.isascii() and prescan(data[:LATE_PRESCAN_BYTES]) is None:
            expected = "utf-8"
        if charset != expected:
            wrong.append((name, charset, expected))
    assert wrong == []


def test_the_prescan_finds_what_is_declared_and_nothing_else(cases: list[Case]) -> None:
    beyond = 0
    for name, data, label in cases:
        expected = resolve_label(label)
        if data.startswith(b"\xef\xbb\xbf"):
            continue
        if (prescan(data[:PRESCAN_BYTES]) or FALLBACK_CHARSET) != expected:
            beyond += 1
            assert prescan(data[:PRESCAN_BYTES]) is None, name
        assert (prescan(data[:LATE_PRESCAN_BYTES]) or FALLBACK_CHARSET) == expected, name
    assert beyond == BEYOND_1024
