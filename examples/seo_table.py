"""An SEO table: title, description, canonical and headings of each page, and what most lack.

The idea: ``with_="meta,lang"`` reads what pages say of themselves into columns of their own, off the tree that title and
links come from; ``records`` makes plain dictionaries of the outcomes, for pandas, polars or a loop.

    python examples/seo_table.py
"""

from __future__ import annotations

from collections import Counter

from fetcher import fetch_all, records
from fetcher.demo import Site, SiteProcess

WANTED = ("description", "canonical", "language", "h1", "published")


def show(urls: list[str]) -> None:
    """Fetch the pages and print a line for some, and what is missing on how many."""
    missing: Counter[str] = Counter()
    pages = [row for row in records(fetch_all(urls, with_="meta,lang")) if row["error"] is None and row["meta"]]
    for number, row in enumerate(pages):
        meta = row["meta"]
        missing.update(name for name in WANTED if not meta.get(name))
        if number < 3:
            print(f"{row['lang'] or '?':3} {len(row['title'] or ''):3} characters {(row['title'] or '')[:50]!r}")
    print(f"\n{len(pages)} pages; missing on")
    for name in WANTED:
        print(f"  {name:12} {missing[name]:4} {'█' * round(40 * missing[name] / len(pages))}")


if __name__ == "__main__":
    with SiteProcess(Site(hosts=2, pages=120, latency=(0.0, 0.0), failures=False)) as shop:
        show(shop.urls())
