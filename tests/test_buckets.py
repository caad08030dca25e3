"""Which bucket and which shard a host falls to: values that must never change, and how evenly they fall."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fetcher.buckets import BUCKETS, Shard, bucket_of, shard_of, shard_of_text, site_hash
from fetcher.urls import suffixes_digest


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 8676750893070244099),
        ("mailto:x", 16426906253198299396),
        ("http://", 4982992349063628771),
        ("ä", 4756023157627995456),
    ],
)
def test_a_text_that_is_no_url_falls_to_the_shard_it_always_did(text: str, value: int) -> None:
    assert shard_of_text(text, 1 << 64) == value
    assert shard_of_text(text, 4) == value % 4
    assert [Shard(number, 4).has_text(text) for number in (1, 2, 3, 4)].index(True) == value % 4


def test_the_digest_of_the_suffix_list_is_that_of_its_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import publicsuffixlist

    def digest(text: str) -> str:
        (tmp_path / "list.dat").write_text(text, encoding="utf-8")
        monkeypatch.setattr(publicsuffixlist, "PSLFILE", str(tmp_path / "list.dat"))
        suffixes_digest.cache_clear()
        return suffixes_digest()

    known = suffixes_digest()
    one = digest("// VERSION: 1\ncom\n\nco.uk\n")
    assert one == digest("// VERSION: 2\nco.uk\ncom\n") == "a8bbd28abab7e780"
    assert one != digest("com\n")
    monkeypatch.undo()
    suffixes_digest.cache_clear()
    assert suffixes_digest() == known


def test_sites_fall_evenly_to_buckets_and_those_of_one_shard_still_fall_to_all() -> None:
    hosts = [f"site{number}.example" for number in range(40_000)]
    shares = Counter(shard_of(host, 4) for host in hosts)
    assert set(shares) == {0, 1, 2, 3}
    assert all(9_600 < count < 10_400 for count in shares.values())
    buckets = {bucket_of(host) for host in hosts if shard_of(host, 4) == 3}
    assert len(buckets) > BUCKETS * 0.85
    assert max(buckets) < BUCKETS
