"""The cluster on paper: what flows in comes out, and no sooner than its parts allow. ``tests.benchmarks.simulate_cluster``."""

from __future__ import annotations

import pytest

from tests.benchmarks.simulate_cluster import DONE, Cluster, Costs, draw, flow

ROWS = 1e7


@pytest.mark.parametrize("parents", [1, 4])
def test_a_list_takes_what_its_narrowest_part_does(parents: int) -> None:
    costs, cluster = Costs(), Cluster("c", machines=20, cores=16, parents=parents)
    hosts = draw(ROWS, 500_000, 0.8, 6, seed=7)
    assert sum(many * rows for many, rows in zip(hosts.count, hosts.rows, strict=True)) == pytest.approx(ROWS)
    went = flow(hosts, cluster, costs, (0.5, 1.0))
    capacity = min(cluster.limits(costs, hosts.latency).values())
    assert went.at[0.5] * 3600 >= 0.5 * ROWS / capacity
    slowest = max(rows * interval for rows, interval in zip(hosts.rows, hosts.interval, strict=True))
    assert went.at[1.0] * 3600 >= 0.9 * DONE * slowest
    assert went.at[0.5] < went.at[1.0] < 2 * (slowest + ROWS / capacity) / 3600
    assert set(went.held_by) <= {"cores", "parent", "slots", "politeness"}
    assert 0 < went.most_waiting < ROWS


def test_the_same_seed_draws_the_same_hosts() -> None:
    assert draw(ROWS, 500_000, 0.8, 6, seed=7) == draw(ROWS, 500_000, 0.8, 6, seed=7)
    assert draw(ROWS, 500_000, 0.8, 6, seed=7) != draw(ROWS, 500_000, 0.8, 6, seed=8)
