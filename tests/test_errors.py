"""The errors: codes that stand in every record, texts for people, and values that survive any copy."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fetcher import errors
from fetcher.config import Config
from fetcher.errors import (
    RETRYABLE,
    ConfigError,
    ConnectError,
    FetcherError,
    FetchError,
    InvalidURL,
    Skipped,
    StatusError,
    TooLarge,
)
from fetcher.model import Failure, Page, Request, Response
from fetcher.request_state import InFlight, RequestState, Transfer, failure_of, snapshot_of
from fetcher.urls import Target

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FetcherError)
]  # as the module defines them
COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda value, p=p: pickle.loads(pickle.dumps(value, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)),
]


def every_error() -> list[FetcherError]:
    made: list[FetcherError] = [
        StatusError(429, "wait", 1.5),
        StatusError(404),
        InvalidURL(),
        TooLarge(message="10 MB"),
    ]
    for kind in KINDS:
        if issubclass(kind, FetchError):
            made += [kind(code, f"what {code} means · ö\x1b") for code in kind.codes]
        else:
            made += [kind(), kind("fetcher.toml: per-hots: what?")]
    return made


@pytest.mark.parametrize("copied", COPIES)
def test_every_error_survives_a_copy(copied: Callable[[Any], Any]) -> None:
    for error in every_error():
        error.add_note("seen in /a.txt:3")
        again = copied(error)
        assert (type(again), again.args, str(again)) == (type(error), error.args, str(error))
        assert again.__notes__ == error.__notes__
        if isinstance(error, FetchError):
            assert (again.code, again.message, again.retryable) == (error.code, error.message, error.retryable)
        if isinstance(error, StatusError):
            assert (again.status, again.retry_after) == (error.status, error.retry_after)


REQUEST = Request(7, "http://a.example/ö", (("X", "1"),), {"sku": [1, {"a": None}]}, ("tag", 1))
PAGE = Page(REQUEST, "http://a.example/%C3%B6", 200, 5, 6, data={"h": ["1"]}, redirects=("u",), body=b"\xff")
FAILURE = Failure(REQUEST, StatusError(429, "wait", 1.5), "http://a.example/", 429, 9, ("u",), 0.5, 1.5, 2, 1e9)
VALUES = [
    REQUEST,
    Response(REQUEST, "http://a.example/", 200, (("set-cookie", "a=1"), ("set-cookie", "b=2")), b"\x00", 2, ("u",)),
    PAGE,
    InFlight(7, "http://a.example/", "reading", 1.5, 0.5, 1),
    Target("http://a.example/", "http", "a.example", 80, "u", None),
    Config.of(header="X: 1", rate="5/s"),
]


@pytest.mark.parametrize("copied", COPIES)
def test_every_value_survives_a_copy(copied: Callable[[Any], Any]) -> None:
    for value in VALUES:
        again = copied(value)
        assert type(again) is type(value)
        assert again == value
    failure = copied(FAILURE)
    assert msgspec.structs.replace(failure, error=FAILURE.error) == FAILURE
    assert (type(failure.error), failure.error.args) == (StatusError, (429, "wait", 1.5))
    assert (failure.ok, PAGE.ok) == (False, True)


def test_a_deep_copy_shares_nothing() -> None:
    again = copy.deepcopy(PAGE)
    again.data["h"].append("2")
    assert PAGE.data == {"h": ["1"]}
    assert again.request.fields is not REQUEST.fields


# Codes and texts


def drawn_codes() -> set[str]:
    lines = re.findall(r"^        [├└]── \w+ +(.*)$", errors.__doc__ or "", re.MULTILINE)
    return {code for line in lines if "NNN" not in line for code in line.split(" · ")}


def test_the_codes_of_the_docstring_are_those_of_the_classes() -> None:
    codes = {code for kind in KINDS if issubclass(kind, FetchError) for code in kind.codes}
    assert drawn_codes() == codes
    assert not {code for code in RETRYABLE if not code.startswith("http_")} - codes


def test_the_codes_of_the_readme_are_those_of_the_classes() -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", readme, re.MULTILINE))
    told = {name: set(re.findall(r"`([a-z_]+)`", text)) for name, text in rows.items() if name in vars(errors)}
    fetch_errors = [kind for kind in KINDS if issubclass(kind, FetchError) and kind is not FetchError]
    assert told == {kind.__name__: kind.codes for kind in fetch_errors}
    assert {code for name in told for code in re.findall(r"`([a-z0-9_]+)`↻", rows[name])} == RETRYABLE


def test_only_what_the_module_exports_is_there() -> None:
    assert set(errors.__all__) == {kind.__name__ for kind in KINDS} | {"RETRYABLE"}


def test_texts() -> None:
    assert str(ConnectError("connect_refused")) == "connect_refused"
    assert str(ConnectError("connect_refused", "port 80")) == "connect_refused: port 80"
    assert str(StatusError(503)) == "http_503"
    assert str(InvalidURL()) == "invalid_url"
    assert str(TooLarge(message="over 10 MB")) == "too_large: over 10 MB"
    assert str(ConfigError("per-host: 0 is below 1")) == "per-host: 0 is below 1"
    assert repr(InvalidURL(message="empty")) == "InvalidURL('invalid_url', 'empty')"


@pytest.mark.parametrize(("status", "retryable"), [(408, True), (429, True), (503, True), (404, False), (501, False)])
def test_a_status_has_a_code_of_its_own(status: int, retryable: bool) -> None:
    error = StatusError(status)
    assert (error.code, error.retryable, error.retry_after) == (f"http_{status}", retryable, None)


def test_a_config_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^x$"):
        raise ConfigError("x")


def test_only_fetch_errors_cost_one_url() -> None:
    assert not [kind for kind in KINDS if issubclass(kind, FetchError) and issubclass(kind, ValueError | OSError)]
    assert issubclass(Skipped, FetchError)
    assert not issubclass(errors.SourceError, FetchError)
    assert not issubclass(errors.SinkError, FetchError)


# What a row that failed still knows


def test_a_row_that_was_never_asked_for_claims_nothing() -> None:
    state = RequestState(REQUEST, VALUES[4])  # type: ignore[arg-type]  # the target
    failure = failure_of(state, Skipped("duplicate"))
    assert (failure.url, failure.status, failure.bytes, failure.attempts, failure.elapsed) == (None, None, None, 0, 0.0)
    assert failure.waited == 0.0
    state = RequestState(REQUEST, VALUES[4], elapsed=0.5, transfer=Transfer(status=503))  # type: ignore[arg-type]  # a stand-in
    failure = failure_of(state, StatusError(503))
    assert (failure.url, failure.status) == ("http://a.example/", 503)


def test_a_row_that_never_entered_a_stage_is_no_older_than_itself() -> None:
    seen = snapshot_of(RequestState(REQUEST, VALUES[4]))  # type: ignore[arg-type]  # the target
    assert (seen.age, seen.in_stage) == (0.0, 0.0)


def test_what_a_row_holds_is_given_back_once() -> None:
    state = RequestState(REQUEST, VALUES[4])  # type: ignore[arg-type]  # the target
    given_back: list[int] = []
    state.hold_memory(lambda: given_back.append(1))
    assert state.holds_memory
    state.free()
    assert not state.holds_memory
    state.free()
    assert given_back == [1]
