"""An output of ours in a store, as a list of its parts.

Law 2: a prefix without parts, or with those of two formats, is a ``SourceError``.
"""

from __future__ import annotations

from fetcher.errors import SourceError
from fetcher.sinks import SUFFIXES
from fetcher.sinks.store_parts import FORMATS, part_number
from fetcher.store import is_store_url

__all__ = ["is_prefix", "stored_parts"]

_OF_FILES = (*SUFFIXES, ".gz", ".zst")


def is_prefix(path: str) -> bool:
    """Tell a URL of what may have parts under it, by its name, from that of one object."""
    return is_store_url(path) and (path.endswith("/") or not path.lower().endswith(_OF_FILES))


def stored_parts(url: str) -> list[str]:
    """Return the URLs of the parts under a prefix, in the order of their numbers. Raises ``SourceError`` where there are none."""
    from fetcher.store.reading import StoreReader

    store = StoreReader(url, SourceError)
    found: dict[int, str] = {}
    suffixes = set()
    for name in store.names():
        for suffix in FORMATS.values():
            if (number := part_number(name, suffix)) is not None:
                found[number] = name
                suffixes.add(suffix)
    if not found:
        raise SourceError(
            f"{url}: there are no parts of an output: name the prefix that -o named, or one object, such as "
            f"{store.address.under('part-00001.parquet')}"
        )
    if len(suffixes) > 1:
        raise SourceError(
            f"{url}: has parts of two formats ({', '.join(sorted(suffixes))}): name one object, or move some"
        )
    return [str(store.address.under(found[number])) for number in sorted(found)]
