"""The errors: codes that stand in every record, texts for people, and values that survive any copy."""

from __future__ import annotations

import copy
import logging
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
    ConnectTimeout,
    DNSError,
    DNSTimeout,
    FetcherError,
    FetchError,
    FetchTimeout,
    InvalidURL,
    ProtocolError,
    Skipped,
    StatusError,
    TLSError,
    TLSTimeout,
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
        StatusError(404).about("http://a.example/missing"),
        FetchError("novel", "").about("http://a.example/"),
        InvalidURL(),
        ConnectTimeout(),
        DNSTimeout(message="x"),
        TLSTimeout(),
        TooLarge(message="10 MB"),
    ]
    for kind in KINDS:
        if issubclass(kind, FetchError):
            made += [kind(code, f"what {code} means · ö\x1b") for code in kind.codes]
            made += [kind(code, "").about("http://a.example/ö?") for code in kind.codes]
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
            assert again.url == error.url
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
    lines = re.findall(r"^        (?:[│ ]   )*[├└]── \w+ +(.*)$", errors.__doc__ or "", re.MULTILINE)
    return {code for line in lines if "NNN" not in line for code in line.split(" · ")}


def test_the_codes_of_the_docstring_are_those_of_the_classes() -> None:
    codes = {code for kind in KINDS if issubclass(kind, FetchError) for code in kind.codes}
    assert drawn_codes() == codes
    assert not {code for code in RETRYABLE if not code.startswith("http_")} - codes


def test_the_codes_of_the_readme_are_those_of_the_classes() -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", readme, re.MULTILINE))
    told = {name: set(re.findall(r"`([a-z_]+)`", text)) for name, text in rows.items() if name in vars(errors)}
    fetch_errors = [kind for kind in KINDS if issubclass(kind, FetchError) and kind.__bases__ == (FetchError,)]
    assert told == {kind.__name__: kind.codes for kind in fetch_errors}
    assert {code for name in told for code in re.findall(r"`([a-z0-9_]+)`↻", rows[name])} == RETRYABLE


def test_only_what_the_module_exports_is_there() -> None:
    assert set(errors.__all__) == {kind.__name__ for kind in KINDS} | {"DISTRIBUTION", "RETRYABLE", "missing_extra"}


def test_texts() -> None:
    assert str(ConnectError("connect_refused")) == "connect_refused"
    assert str(ConnectError("connect_refused", "port 80")) == "connect_refused: port 80"
    assert str(StatusError(503)) == "http_503"
    assert str(InvalidURL()) == "invalid_url"
    assert str(TooLarge(message="over 10 MB")) == "too_large: over 10 MB"
    assert str(ConfigError("per-host 0: must be at least 1")) == "per-host 0: must be at least 1"
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


# Timeouts


@pytest.mark.parametrize(
    ("kind", "first", "code"),
    [
        (DNSTimeout, DNSError, "dns_timeout"),
        (ConnectTimeout, ConnectError, "connect_timeout"),
        (TLSTimeout, TLSError, "tls_timeout"),
    ],
)
def test_a_timeout_before_the_answer_is_of_two_classes(
    kind: type[DNSTimeout | ConnectTimeout | TLSTimeout], first: type[FetchError], code: str
) -> None:
    error = kind(message="over 10 s")
    assert kind.__bases__ == (first, FetchTimeout)
    assert (error.code, error.message, error.args) == (code, "over 10 s", (code, "over 10 s"))
    assert error.code in first.codes
    assert error.code not in FetchTimeout.codes, "--retry-codes timeout means what it meant"
    assert (kind().code, kind().message) == (code, "")


def test_every_code_of_a_timeout_is_a_fetch_timeout() -> None:
    """``parse_timeout`` is none: the page came in time."""
    kinds = [kind for kind in KINDS if issubclass(kind, FetchError)]
    late = {code for kind in kinds for code in kind.codes if issubclass(kind, FetchTimeout)}
    assert late == {code for kind in kinds for code in kind.codes if code.endswith("timeout")} - {"parse_timeout"} | {
        "too_slow"
    }


# The URL an error is about, and what it gives up as a value


def test_an_error_knows_no_url_until_it_is_told() -> None:
    assert StatusError(404).url is None
    error = StatusError(404, "gone", 1.0)
    assert error.about("http://a.example/") is error
    assert error.url == "http://a.example/"
    assert error.args == (404, "gone", 1.0)
    assert ProtocolError("truncated").about("").url is None
    assert ProtocolError("truncated").about(None).url is None


def test_an_error_that_has_a_url_keeps_it() -> None:
    error = ConnectError("connect_refused").about("http://login.example/")
    assert error.about("http://a.example/").url == "http://login.example/"


def test_a_url_is_no_part_of_the_text() -> None:
    assert str(ConnectError("connect_refused", "no").about("http://a.example/")) == "connect_refused: no"


def raised() -> FetchError:
    try:
        try:
            raise OSError("the cause")
        except OSError as cause:
            raise ConnectError("connect_refused", "no") from cause
    except ConnectError as error:
        return error.about("http://a.example/")


def references(error: BaseException) -> list[object]:
    return [error.__traceback__, error.__cause__, error.__context__]


def test_an_error_that_is_a_value_refers_to_nothing_else() -> None:
    error = raised()
    assert None not in references(error)
    assert error.detach() is error
    assert references(error) == [None, None, None]
    assert (error.code, error.message, error.url) == ("connect_refused", "no", "http://a.example/")


def test_the_causes_lose_their_tracebacks_too() -> None:
    error = raised()
    cause = error.__cause__
    assert cause is not None
    cause.__cause__ = inner = OSError("its cause")
    inner.__traceback__, inner.__cause__ = cause.__traceback__, error  # a cycle
    error.detach()
    for each in (cause, inner):
        assert references(each) == [None, None, None]


def test_an_error_that_the_caller_is_handling_keeps_its_traceback() -> None:
    try:
        raise KeyError("the caller's")
    except KeyError as handled:
        error = raised()
        assert error.__cause__ is not None and error.__cause__.__context__ is handled
        error.detach()
        assert handled.__traceback__ is not None


def test_what_an_error_gives_up_is_logged_first(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "fetcher.failures"):
        error = raised().detach()
        error.detach()
        Skipped("duplicate").detach()
    [record] = caplog.records
    assert record.getMessage() == "http://a.example/ failed"
    assert "OSError: the cause" in caplog.text
    assert "in raised" in caplog.text


def test_without_debug_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fetcher.failures"):
        raised().detach()
    assert caplog.records == []


# What a row that failed still knows


def test_a_row_that_was_never_asked_for_claims_nothing() -> None:
    state = RequestState(REQUEST, VALUES[4])  # type: ignore[arg-type]  # the target
    failure = failure_of(state, Skipped("duplicate"))
    assert (failure.url, failure.status, failure.bytes, failure.attempts, failure.elapsed) == (None, None, None, 0, 0.0)
    assert failure.waited == 0.0
    assert failure.error.url == "http://a.example/", "what it would have asked for"
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
