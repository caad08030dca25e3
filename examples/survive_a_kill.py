"""A process is killed in the middle of a list, and the same program finishes it, with one record for every row.

The idea: what is written and what is known to be written become durable together; the rest is done again.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fetcher import Config, Fetcher, Job
from fetcher.demo import SiteProcess


async def fetch(output: str, urls: list[str]) -> None:
    """Fetch what is left of the list; what is done stands in the ledger beside the output."""
    config = Config.of(concurrency=8, per_host=2)
    async with Fetcher(config) as fetcher, Job(fetcher, output) as job:
        print(f"{job.resume_state.done} rows were done before", flush=True)
        stats = await job.run(urls)
        print(f"{stats.ok} pages in all, {stats.pending} pending")


def main() -> None:
    """Run this program as a process of its own, kill it without a warning, and run it again."""
    with tempfile.TemporaryDirectory() as folder, SiteProcess() as site:
        output, listed = Path(folder, "pages.jsonl"), Path(folder, "urls.txt")
        listed.write_text("\n".join(site.urls(200)))
        command = [sys.executable, __file__, str(output), str(listed)]
        with subprocess.Popen(command) as victim:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (output.exists() and output.stat().st_size):
                time.sleep(0.01)
            victim.kill()
        print(f"killed, with {len(output.read_bytes().splitlines())} records on the disk", flush=True)
        subprocess.run(command, check=True)
        ids = sorted(json.loads(line)["id"] for line in output.read_text().splitlines())
        print("each row once:", ids == list(range(1, 201)))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(fetch(sys.argv[1], Path(sys.argv[2]).read_text().splitlines()))
    else:
        main()
