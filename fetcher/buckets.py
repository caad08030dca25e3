"""Which share of the work a host belongs to: the bucket that a worker has, and the shard that a run has.

A site (registrable domain) is never divided, for politeness and a host's state are kept in one process. Law 5, law 8.
The hash is public: a shard must mean the same on each machine and each version of Python, so a test holds its values.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import msgspec

from fetcher.urls import registrable_domain

__all__ = ["BUCKETS", "Shard", "bucket_of", "shard_of", "shard_of_text", "site_hash"]

BUCKETS = 4096


class Shard(msgspec.Struct, frozen=True):
    """One of ``of`` shares of a list, ``number`` from 1: the rows whose sites fall to it.

    >>> str(Shard(1, 4))
    '1/4'
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, host: str) -> bool:
        """Say whether the rows of a host key fall to this shard."""
        return shard_of(host, self.of) == self.number - 1

    def has_text(self, text: str) -> bool:
        """Say whether a row that is no URL falls to this shard."""
        return shard_of_text(text, self.of) == self.number - 1


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


def shard_of_text(text: str, shards: int) -> int:
    """Return which of so many shards a row without a host falls to, from 0: by its text, as it stands in the list.

    So each such row is of exactly one shard, wherever it stands.
    """
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") % shards
