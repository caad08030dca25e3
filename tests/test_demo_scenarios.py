"""How the built-in site's hosts behave in each scenario: drawn from a seed, counted, and the same in each round."""

from __future__ import annotations

import http.client
from collections import Counter

import pytest

from fetcher.demo import Site, SiteProcess, latency_of, urls
from fetcher.demo.scenarios import (
    RETRY_AFTER_SECONDS,
    ROUND_HEADER,
    SCENARIOS,
    HostFaults,
    Scenario,
    latency_factor,
)
from fetcher.demo.shop import shop_pages
from fetcher.demo.site import addresses

PATHS = [f"/coffee/{number}" for number in range(400)]


def refusals(scenario: Scenario, host: int, *, seed: int = 1, round_: str = "1") -> list[int | None]:
    """What the host answers to each path, asked once, an hour apart."""
    faults = HostFaults(scenario, seed, host)
    return [faults.status_for(path, round_, 3600.0 * number) for number, path in enumerate(PATHS)]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whoever_asks_the_same_is_answered_the_same(scenario: Scenario) -> None:
    for host in range(20):
        assert refusals(scenario, host) == refusals(scenario, host)


@pytest.mark.parametrize("scenario", ["latency", "fast", "mixed"])
def test_most_scenarios_refuse_nothing(scenario: Scenario) -> None:
    assert not any(answer is not None for host in range(20) for answer in refusals(scenario, host))


def test_fast_takes_no_time_and_mixed_has_a_slow_host_in_ten() -> None:
    assert {latency_factor("fast", host) for host in range(50)} == {0.0}
    assert {latency_factor("latency", host) for host in range(50)} == {1.0}
    assert Counter(latency_factor("mixed", host) for host in range(50)) == {1.0: 45, 10.0: 5}
    site = Site(scenario="mixed")
    slow = next(host for host in range(10) if latency_factor("mixed", host) > 1)
    assert latency_of(site, "/", slow) == 10 * latency_of(site, "/")


def test_errors_recover_when_asked_again() -> None:
    faults = HostFaults("errors", 1, 0)
    first = {path: faults.status_for(path, "1", 0.0) for path in PATHS}
    assert not any(faults.status_for(path, "1", 0.0) is not None for path in PATHS)
    kinds = Counter(first.values())
    assert {500, 502, 503, 504, 0, None} == set(kinds)
    assert 0.05 < sum(kinds[status] for status in (500, 502, 503, 504)) / len(PATHS) < 0.2
    assert 0.01 < kinds[0] / len(PATHS) < 0.1


def test_errors_are_drawn_by_seed_and_host() -> None:
    assert refusals("errors", 0) != refusals("errors", 1)
    assert refusals("errors", 0) != refusals("errors", 0, seed=2)


@pytest.mark.parametrize("scenario", ["errors", "throttled"])
def test_each_round_begins_afresh(scenario: Scenario) -> None:
    faults = HostFaults(scenario, 1, 1)
    rounds = [[faults.status_for(path, str(round_), 0.0) for path in PATHS[:3]] for round_ in range(3)]
    assert rounds[0] == rounds[1] == rounds[2]


def test_one_host_in_five_throttles() -> None:
    throttling = [host for host in range(50) if 429 in refusals("throttled", host)]
    assert len(throttling) == 10


def test_a_throttling_host_pauses_after_each_five_pages() -> None:
    assert refusals("throttled", 1)[:13] == [429, *[None] * 5, 429, *[None] * 5, 429]


def test_what_comes_before_its_time_is_refused_too() -> None:
    faults = HostFaults("throttled", 1, 1)
    answers = [faults.status_for("/", "1", now) for now in (10.0, 10.5, 10.999, 10.0 + RETRY_AFTER_SECONDS, 11.5)]
    assert answers == [429, 429, 429, None, None]


# On the wire


def ask(connection: http.client.HTTPConnection, path: str, round_: str) -> tuple[int, str | None] | None:
    try:
        connection.request("GET", path, headers={ROUND_HEADER: round_})
        response = connection.getresponse()
        response.read()
    except ConnectionResetError:
        connection.close()
        return None
    return response.status, response.headers["Retry-After"]


def test_the_site_errs_on_the_wire_as_it_was_drawn_and_logs_it() -> None:
    site = Site(hosts=2, pages=60, latency=(0, 0), failures=False, scenario="errors")
    paths = list(shop_pages(60, site.seed))
    with SiteProcess(site) as process:
        at = addresses(2, process.port)[1]
        faults = HostFaults("errors", site.seed, 1)
        drawn = [faults.status_for(path, "1", 0.0) for path in paths]
        assert {0, None} < set(drawn)
        for round_ in ("1", "2"):
            connection = http.client.HTTPConnection(*at, timeout=30)
            seen = [ask(connection, path, round_) for path in paths]
            assert seen == [None if status == 0 else (status or 200, None) for status in drawn]
            assert [ask(connection, path, round_) for path in paths] == [(200, None)] * 60
            connection.close()
    first = [None if status == 0 else status or 200 for status in drawn]
    assert [entry["status"] for entry in process.log()] == [*first, *[200] * 60] * 2


def test_the_site_asks_to_wait_a_second_on_the_wire() -> None:
    site = Site(hosts=2, pages=20, latency=(0, 0), failures=False, scenario="throttled")
    with SiteProcess(site) as process:
        connection = http.client.HTTPConnection(*addresses(2, process.port)[1], timeout=30)
        paths = list(shop_pages(20, site.seed))
        assert ask(connection, paths[0], "1") == (429, "1")
        assert ask(connection, paths[1], "1") == (429, "1")
        assert ask(connection, paths[0], "2") == (429, "1")
        connection.close()
        patient = http.client.HTTPConnection(*addresses(2, process.port)[0], timeout=30)
        assert {ask(patient, path, "1") for path in paths} == {(200, None)}
        patient.close()


def test_a_slow_host_is_slow_on_the_wire() -> None:
    site = Site(hosts=5, pages=5, latency=(0.01, 0.01), failures=False, scenario="mixed")
    with SiteProcess(site) as process:
        for host, port in addresses(5, process.port):
            connection = http.client.HTTPConnection(host, port, timeout=30)
            assert ask(connection, "/", "1") == (200, None)
            connection.close()
        log = process.log()
    drawn = {entry["host"]: entry["latency"] for entry in log}
    assert sorted(drawn.values()) == pytest.approx([0.01] * 4 + [0.1])
    assert all(entry["service"] >= entry["latency"] - 0.001 for entry in log)


def test_the_list_does_not_depend_on_the_scenario() -> None:
    lists = [urls(Site(pages=40, failures=False, scenario=scenario), 8000) for scenario in SCENARIOS]
    assert all(listed == lists[0] for listed in lists)
