"""The bench: a built-in site to fetch from, and what measures a fetch of it, or of any list.

``compare`` is the whole of it in one call; it is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fetcher.bench.runner import compare as compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    if name != "compare":
        raise AttributeError(f"module 'fetcher.bench' has no attribute {name!r}")
    from fetcher.bench.runner import compare

    return compare
