"""What is read out of a page into columns of its own (``with``, ``text``), off the one tree that title and links come from.

What the columns need of the whole page is looked for in one search. A column of a body that cannot have it is null; a page
that could and does not gives an empty mapping or list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from selectolax.lexbor import LexborHTMLParser, LexborNode

from fetcher.config.policies import Content
from fetcher.model import CONTENT_COLUMNS, Response
from fetcher.page.inner_text import inner_lines, inner_text, tag_ids
