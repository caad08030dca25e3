"""Which codes the words of ``--retry-codes`` mean."""

from __future__ import annotations

import pytest

from fetcher import errors
from fetcher.errors import ConfigError, FetchError, Skipped
from fetcher.job.choice import CLASSES, choose_codes


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
    assert EVERYTHING - chosen("failed") == {"robots_denied", "address_blocked", "duplicate"}
    assert chosen("failed", "duplicate") == chosen("failed") | {"duplicate"}


@pytest.mark.parametrize(
    "name", ["", "ok", "0xx", "5x", "5xxx", "http_5xx", "99", "1000", "http_", "none", "dns,tls", "٥xx"]
)
def test_what_is_none_of_these_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is neither a code nor a class: there are failed, http, 4xx, 5xx, dns"):
        choose_codes(["404", name])
