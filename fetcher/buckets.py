"""Which share of the work a host belongs to: the bucket that a worker has, and the shard that a run has.

A site (registrable domain) is never divided, for politeness and a host's state are kept in one process. Law 5, law 8.
The hash is public: a shard must mean the same on each machine and each version of Python, so a test holds its values.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from fetcher.urls import registrable_domain

BUCKETS = 4096


@lru_cache(16384)
def site_hash(host: str) -> int:
    """Return the 64 bits by which the site of a host key is dealt: the first 8 bytes of BLAKE2b, big-endian (RFC 7693)."""
    return int.from_bytes(blake2b(registrable_domain(host).encode()).digest()[:8], "big")


def bucket_of(host: str) -> int:
    """Return the bucket of a host key, 0 to 4095: the upper 12 bits of its site's hash."""
    return site_hash(host) >> 52


def shard_of(host: str, shards: int) -> int:
    """Return which of so many shards a host key falls to, from 0.

    The lower bits decide, so that the sites of one shard still fall to all buckets.
    """
    return site_hash(host) % shards
