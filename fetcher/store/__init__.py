"""Objects in a store (S3, Google Cloud Storage, Azure): lists that are read from there, and parts that are put there.

``fsspec`` and the store's own library are imported in this room alone, when the first object is asked for. Law 7:
credentials are found by that library (environment, profile, metadata service), and stand neither in a URL nor in
anything that we write.

Here is what names an object, or a prefix of such: ``s3://BUCKET/KEY``, ``gs://…``, ``az://…``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from fetcher.errors import FetcherError

__all__ = ["EXTRAS", "LIBRARIES", "StoreAddress", "is_store_url", "parse_address"]

LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""Scheme -> the library that speaks with such a store."""

EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure"}
"""Scheme -> the extra of ours that brings it."""

_SCHEME = re.compile(r"(s3|gs|az)://", re.IGNORECASE)


class StoreAddress(NamedTuple):
    """Where an object is, or a prefix: ``key`` has neither a slash at its beginning nor, of a prefix, at its end."""

    scheme: str
    bucket: str
    key: str

    @property
    def path(self) -> str:
        """What a library calls it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def under(self, name: str) -> StoreAddress:
        """Return the address of a name within this prefix."""
        return self._replace(key=f"{self.key}/{name}" if self.key else name)

    def is_within(self, other: StoreAddress) -> bool:
        """Say whether it is another address, or under it."""
        same = (self.scheme, self.bucket) == (other.scheme, other.bucket)
        return same and (not other.key or f"{self.key}/".startswith(f"{other.key}/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"


def is_store_url(text: str) -> bool:
    """Tell whether a text names something in a store."""
    return _SCHEME.match(text.strip()) is not None


def parse_address(url: str, error: Callable[[str], FetcherError]) -> StoreAddress:
    """Return what a URL of a store names. Raises what ``error`` makes of a message where it names nothing."""
    scheme, _, rest = url.strip().partition("://")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        shown = f"{scheme}://…@{bucket.rpartition('@')[2]}"
        raise error(
            f"{shown}: credentials do not belong into the URL: give them as the store's own tools find them, "
            "in the environment or a profile"
        )
    if not bucket or bucket in (".", "..") or re.search(r"[\s:?#\\]", bucket) or "\0" in key:
        raise error(f"{url!r} names no bucket: {scheme.lower()}://BUCKET/KEY")
    return StoreAddress(scheme.lower(), bucket, key.strip("/"))
