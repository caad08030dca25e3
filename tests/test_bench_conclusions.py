"""The warnings about a bench's figures: each where it belongs, and none where all is well."""

from __future__ import annotations

from typing import Any

import msgspec

from fetcher.bench.conclusions import warnings_of
from fetcher.bench.plan import Listing
from fetcher.bench.results import Round
from fetcher.config import Limits
from tests.test_bench_results import LISTING, concurrent, sampled, sequential


def warnings(*rounds: Round, limits: Limits | None = None, listing: Listing = LISTING) -> list[str]:
    return warnings_of(rounds, limits or Limits(), listing)


def four(*walls: float, **more: Any) -> list[Round]:
    return [concurrent(4, index, wall, **more) for index, wall in enumerate(walls, 1)]


def test_there_is_no_warning_where_all_is_well() -> None:
    assert warnings(sequential(0, 99), concurrent(4, 0, 99), sequential(1), sequential(2), *four(2.0, 2.1, 2.05)) == []


def test_a_slow_first_round() -> None:
    said = warnings(*four(3.0, 2.0, 2.0))
    assert said[0].startswith("-c 4: the first round took 3.00 s and the others 2.00 s: something was still warming up")
    assert not any("first round" in text for text in warnings(*four(2.0, 2.0, 3.0)))


def test_a_spread_over_a_tenth() -> None:
    (said,) = warnings(*four(2.0, 2.3, 2.1))
    assert said.startswith("-c 4: the rounds differ by 14% (2.00 s to 2.30 s)")
    (said,) = warnings(sequential(1, 8.0), sequential(2, 9.0))
    assert said.startswith("sequential: the rounds differ by 12%")


def test_an_outlier_among_enough_rounds() -> None:
    walls = [2.0, 2.01, 2.02, 2.0, 2.01, 2.15]
    assert warnings(*four(*walls)) == ["-c 4: round 6 (2.15 s) is an outlier; the median is 2.01 s"]
    assert warnings(*four(*walls[:5])) == []
    assert warnings(*four(2.0, 2.0, 2.15)) == []  # three rounds tell nothing


def test_the_clients_cpu() -> None:
    (said,) = warnings(*four(2.0, 2.0, cpu=1.9))
    assert said == "-c 4: the client's CPU was busy 95% of the time: the client is the limit, not the network"


def test_failures_during_a_run() -> None:
    samples = [sampled(1, code="http_500"), sampled(2, code="connect_reset"), sampled(3), sampled(4)]
    (said,) = warnings(*four(2.0, 2.0, samples=samples))
    assert said == "-c 4: 4 of 8 rows failed (connect_reset 2, http_500 2)"


def test_a_row_that_takes_most_of_the_time() -> None:
    samples = [sampled(1, 1.9), sampled(2), sampled(3), sampled(4)]
    (said,) = warnings(*four(2.0, 2.0, samples=samples))
    assert said == "-c 4: row 1 alone took 1.90 s, 95% of the time: more concurrency cannot help it"


def test_limits_in_force() -> None:
    assert warnings(concurrent(8, 1, 1.5), limits=Limits(per_host=1)) == [
        "-c 8: at most 4 at once with 1 to each of 4 hosts: the per-host limit is in force (--per-host)"
    ]
    assert warnings(concurrent(9, 1, 1.5)) == ["-c 9: the list has 8 rows: that many at once is all there can be"]
    said = warnings(*four(2.0), limits=Limits(delay=0.5, rate=5.0))
    assert said == [
        "the delay of 0.5 s between two requests to a host is in force, in every mode",
        "the rate of 5 requests/s is in force, in every mode",
    ]


def test_rows_that_were_left_out() -> None:
    one = msgspec.structs.replace(LISTING, left_out=["urls.txt:3: no host"])
    assert warnings(listing=one) == ["1 row is no URL and was left out: urls.txt:3: no host"]
    two = msgspec.structs.replace(LISTING, left_out=["urls.txt:3: no host", "urls.txt:9: no host"])
    assert warnings(listing=two) == ["2 rows are no URLs and were left out: urls.txt:3: no host"]
