"""Makes README's pictures from real runs of the built-in shop: ``python -m tests.pictures [FOLDER]``.

It needs Chromium (Debian: chromium) and takes a minute. The pictures go to ``.github/pictures``, or to FOLDER.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.browser import Browser, Chromium, find
from tests.lab.command import Running, argv, environment, run
from tests.lab.looker import address_of

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / ".github" / "pictures"
WIDTH = 1080
LATENCY = "60-400"


@contextmanager
def shop(ground: Path) -> Iterator[list[str]]:
    """Serve the shop; gives the URLs of its pages."""
    words = argv("serve", "--list", "--hosts", "12", "--pages", "1500", "--latency", LATENCY, "--port", "0")
    with subprocess.Popen(
        words, cwd=ground, env=environment(ground), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        urls: list[str] = []
        try:
            while not urls or urls[-1].startswith("http"):
                line = server.stdout.readline().strip()
                urls.append(line)
                if len(urls) == 1506 or not line:
                    break
            yield [url for url in urls if url]
        finally:
            server.terminate()


async def picture(browser: Browser, path: Path, height: int, *, theme: str = "light") -> None:
    """Save what the window shows."""
    await browser.look(WIDTH, theme, height)
    await asyncio.sleep(0.3)  # for what moves to come to rest
    said = await browser.call("Page.captureScreenshot", format="png")
    path.write_bytes(base64.b64decode(said["data"]))
    print(f"{path}: {path.stat().st_size:,} bytes")


async def main(folder: Path) -> int:
    """Make them all."""
    program = find()
    if program is None:
        print("no chromium in PATH (Debian: apt-get install chromium)", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="fetcher-pictures-") as name,
        shop(Path(name)) as urls,
        Chromium(program, Path(name) / "profile") as chromium,
    ):
        ground = Path(name)
        (ground / "urls.txt").write_text("\n".join(urls))
        select = ["--select", "price=.price:price", "--select", "name=h1"]
        words = [
            "crawl",
            "urls.txt",
            "-o",
            "pages.jsonl",
            "-c",
            "30",
            "--per-host",
            "3",
            "--select",
            "name=h1",
            *select[:2],
        ]
        async with Browser(chromium) as browser:
            with Running(*words, "--live", folder=ground) as crawl:  # killed while it is looked at, and gone on with
                await browser.visit(await asyncio.to_thread(address_of, crawl))
                await asyncio.sleep(7)
                await picture(browser, folder / "live.png", 1000)
                crawl.send(signal.SIGKILL)
                crawl.end()
            time.sleep(1)
            assert run(*words, folder=ground).code in (0, 1)
            assert run("report", "pages.jsonl", "--html", "report.html", folder=ground).code == 0
            await browser.open(ground / "report.html")
            await picture(browser, folder / "report.png", 1250)
            assert run("bench", "-n", "150", "-c", "10,50", "--html", "bench.html", folder=ground).code == 0
            await browser.open(ground / "bench.html")
            await picture(browser, folder / "bench.png", 1000)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)))
