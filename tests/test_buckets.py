"""Which bucket and which shard a host falls to: values that must never change, and how evenly they fall."""

from __future__ import annotations

from collections import Counter

import pytest

from fetcher.buckets import BUCKETS, bucket_of, shard_of, site_hash


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("example.com", 9571566950035961063),
        ("www.example.com", 9571566950035961063),
        ("127.0.0.1", 18072715853414111358),
        ("[::1]", 5706719731296243679),
        ("xn--mller-kva.de", 9696377803320850553),
    ],
)
def test_the_hash_of_a_site_is_what_it_always_was(host: str, value: int) -> None:
    assert site_hash(host) == value
    assert bucket_of(host) == value >> 52
    assert shard_of(host, 4) == value % 4


def test_sites_fall_evenly_to_buckets_and_those_of_one_shard_still_fall_to_all() -> None:
    hosts = [f"site{number}.example" for number in range(40_000)]
    shares = Counter(shard_of(host, 4) for host in hosts)
    assert set(shares) == {0, 1, 2, 3}
    assert all(9_600 < count < 10_400 for count in shares.values())
    buckets = {bucket_of(host) for host in hosts if shard_of(host, 4) == 3}
    assert len(buckets) > BUCKETS * 0.85
    assert max(buckets) < BUCKETS
