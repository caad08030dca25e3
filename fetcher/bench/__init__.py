"""The bench: it measures a fetch of the built-in site, or of any list, and reports it as text, JSON or a page.

``compare`` runs all of it in one call. It is imported when it is first used.
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
