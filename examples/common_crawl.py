"""A file of Common Crawl, extracted: language, title and text of its pages, on all cores, without asking anybody.

The idea: ``fetcher extract`` reads the web archives of others as well as ours, with the options of a crawl. Each worker has
a range of the file's bytes, and killed it goes on with the same command. It needs the extra ``warc``. A file is had by

    curl -O https://data.commoncrawl.org/crawl-data/CC-MAIN-…/segments/…/warc/CC-MAIN-….warc.gz
    python examples/common_crawl.py [FILE.warc.gz]     # without one, a small archive of the built-in shop
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from fetcher import Fetcher, Job
from fetcher.demo import Site, SiteProcess


async def archive(path: Path) -> None:
    """Write an archive of the shop."""
    with SiteProcess(Site(hosts=2, pages=60, latency=(0.0, 0.0))) as shop:
        async with Fetcher(keep_messages=True) as fetcher, Job(fetcher, path) as job:
            await job.run(shop.urls())


def extract(source: Path, texts: Path) -> None:
    """Read the pages of the archive; its responses are the rows."""
    options = ["--with", "lang", "--text", "body", "--columns", "url,status,title,lang,text,error", "-q"]
    workers = ["--workers", str(os.cpu_count() or 1)]
    command = [sys.executable, "-m", "fetcher", "extract", str(source), "-o", str(texts), *options, *workers]
    subprocess.run(command, check=True)


def show(texts: Path) -> None:
    """Count what came out."""
    rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    titles = {row["lang"] or "?": row["title"] for row in rows if row["text"]}
    languages = Counter(row["lang"] or "?" for row in rows if row["text"])
    hosts = {row["url"].split("/")[2] for row in rows}
    print(f"{len(rows)} rows, {languages.total()} pages with a text, of {len(hosts)} hosts")
    for language, many in languages.most_common(5):
        print(f"  {language:6} {many:5} pages, such as {titles[language]!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        given = Path(sys.argv[1]) if sys.argv[1:] else Path(folder, "shop.warc.gz")
        if not sys.argv[1:]:
            asyncio.run(archive(given))
        extract(given, Path(folder, "texts.jsonl"))
        show(Path(folder, "texts.jsonl"))
