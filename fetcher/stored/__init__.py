"""Pages that were fetched before and lie in a file: web archives, and outputs of ours with their bodies.

Law 1: each row of the file is handed out once, as a page's answer or as the failure that it was; what is broken is
passed over and counted. Law 3: one record is in memory at a time, and none that is larger than a page may be. Law 7:
what stands in a file is no more trusted than what comes from the web.
"""

from __future__ import annotations

from fetcher.stored.opening import open_stored
from fetcher.stored.page import IsFinished, PassedOverCounts, RowsBeingRead, StoredFile, StoredPage

__all__ = ["IsFinished", "PassedOverCounts", "RowsBeingRead", "StoredFile", "StoredPage", "open_stored"]
