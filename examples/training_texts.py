"""Articles of a news site into Parquet, for training: the main text, its language, and no page that forbids it.

The idea: ``text="best"`` keeps the article and drops menus and footers, ``with_="lang"`` reads the language that a page says
it is in, and ``skip_when`` keeps no page that reserves its rights. What is left to do is a filter over columns. It needs the
extras ``article`` and ``parquet``. The same on the command line:

    fetcher crawl --from sitemap news.example -o articles.parquet --with lang --text best --skip-when noai,tdm-reservation

    python examples/training_texts.py [URL ...]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from pyarrow import parquet

from fetcher import Fetcher, Job
from fetcher.demo import Site, SiteProcess

FORBIDS = "noai,noindex,tdm-reservation"
COLUMNS = ["url", "status", "title", "lang", "text", "digest", "error"]
LEAST_CHARACTERS = 200


async def crawl(urls: list[str], path: Path) -> None:
    """Fetch the articles into a table; the same again would go on where this was killed."""
    reader = Fetcher(with_="lang", text="best", skip_when=FORBIDS, columns=COLUMNS)
    async with reader as fetcher, Job(fetcher, path) as job:
        stats = await job.run(urls)
    print(f"{stats.ok} pages, {stats.failed} failed, {stats.codes['page_denied']} that may not be used")


def show(path: Path) -> None:
    """Keep each text once, where it is one: what goes into training."""
    rows = parquet.read_table(path, columns=["lang", "text", "digest"]).to_pylist()
    texts = {row["digest"]: row for row in rows if len(row["text"] or "") >= LEAST_CHARACTERS}
    characters: Counter[str] = Counter()
    for row in texts.values():
        characters[row["lang"] or "?"] += len(row["text"])
    print(f"{len(texts)} distinct texts of {LEAST_CHARACTERS} characters or more")
    for language, many in characters.most_common():
        print(f"  {language:5} {many:8,} characters")


if __name__ == "__main__":
    with (
        SiteProcess(Site(hosts=2, pages=40, latency=(0.0, 0.01), failures=False)) as shop,
        tempfile.TemporaryDirectory() as folder,
    ):
        articles = Path(folder, "articles.parquet")
        asyncio.run(crawl(sys.argv[1:] or shop.urls(), articles))
        show(articles)
