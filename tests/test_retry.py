"""The retry policy: what is worth another try, how many there are, and how long to wait before each."""

from __future__ import annotations

import pytest

from fetcher import errors
from fetcher.config import RetryPolicy
from fetcher.errors import RETRYABLE, FetchError, StatusError
from fetcher.policy.retry import Backoff

POLICY = RetryPolicy()
TIMEOUT = errors.FetchTimeout("read_timeout")


def waits(policy: RetryPolicy, attempts: int, error: FetchError = TIMEOUT) -> list[float]:
    backoff = Backoff(policy)
    found = [backoff.after(error, attempts) for _ in range(400)]
    return [wait for wait in found if wait is not None]


def every_code() -> list[FetchError]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FetchError)]
    made = [kind(code) for kind in kinds for code in kind.codes]
    return [*made, *(StatusError(status) for status in range(300, 600))]


def test_what_may_pass_is_tried_again_and_nothing_else() -> None:
    backoff = Backoff(POLICY)
    tried = {error.code for error in every_code() if backoff.after(error, 1) is not None}
    assert tried == RETRYABLE
    assert {code for code in tried if code.startswith("http_")} == {
        f"http_{status}" for status in (408, 425, 429, 500, 502, 503, 504)
    }


@pytest.mark.parametrize("retries", [0, 1, 2, 7])
def test_there_are_as_many_further_tries_as_asked_for(retries: int) -> None:
    backoff = Backoff(RetryPolicy(retries=retries))
    attempts = 1
    while backoff.after(TIMEOUT, attempts) is not None:
        attempts += 1
    assert attempts == retries + 1
    assert backoff.after(TIMEOUT, attempts + 5) is None


@pytest.mark.parametrize(
    ("attempts", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (60, 30.0), (5_000, 30.0)]
)
def test_the_wait_is_anywhere_up_to_a_bound_that_doubles(attempts: int, most: float) -> None:
    found = waits(RetryPolicy(retries=10_000), attempts)
    assert len(found) == 400
    assert 0.25 <= min(found) < 0.25 + (most - 0.25) * 0.2
    assert most * 0.8 < max(found) <= most
    assert len(set(found)) > 100  # jitter: those who failed together do not come back together


def test_no_backoff_is_no_wait() -> None:
    assert set(waits(RetryPolicy(backoff=0.0), 2)) == {0.0}
    assert set(waits(RetryPolicy(max_backoff=0.0), 2)) == {0.0}


def test_the_bound_holds_where_the_backoff_begins_above_it() -> None:
    assert max(waits(RetryPolicy(backoff=100.0, max_backoff=3.0), 1)) <= 3.0


def test_one_policy_serves_many_rows_at_once() -> None:
    backoff = Backoff(RetryPolicy(retries=1))
    assert backoff.after(TIMEOUT, 2) is None
    assert backoff.after(TIMEOUT, 1) is not None
    assert backoff.after(errors.TLSError("tls_verify"), 1) is None
    assert backoff.after(TIMEOUT, 1) is not None


def test_an_error_that_was_raised_is_not_held() -> None:
    backoff = Backoff(POLICY)
    try:
        raise errors.ConnectError("connect_reset", "by the peer")
    except FetchError as error:
        assert backoff.after(error, 1) is not None
        assert backoff.after(error, 3) is None
