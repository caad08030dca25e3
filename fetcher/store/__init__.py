"""Objects in a store (S3, Google Cloud Storage, Azure): lists that are read from there, and parts that are put there.

``fsspec`` and the store's own library are imported in this room alone, when the first object is asked for. Law 7:
credentials are found by that library (environment, profile, metadata service), and stand neither in a URL nor in
anything that we write.
"""

from fetcher.store.address import StoreAddress, is_store_url, parse_address

__all__ = ["StoreAddress", "is_store_url", "parse_address"]
