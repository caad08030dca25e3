"""Owns a job worth looking at: killed twice and gone on with, with failures of more than ten codes and hostile pages.

``python -m tests.lab.report_scene FOLDER`` makes it there, with its page and what ``--json`` says.
"""

from __future__ import annotations

import html
import random
import signal
import sys
from pathlib import Path

from tests.lab.command import Running, run
from tests.lab.desk import Desk
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer

__all__ = ["CODES", "NAUGHTY", "OPTIONS", "make_scene"]

NAUGHTY = (
    "<script>document.title='owned'</script>",
    "</title></style></script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' autofocus onfocus=alert(1) '",
    "javascript:alert(1)//\u202egro.live\u2066",
    "<!-- --><svg/onload=alert(1)>]]>",
    "\u0000\u0007\u001b[31mred\u001b]0;owned\u0007",
    "&lt;b&gt;&amp;amp;&#60;i&#62; &NotAnEntity;",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f" * 6,
    "ﷺ" * 40,
    "W" * 400,
    "<base href=http://127.0.0.1:9/><meta http-equiv=refresh content=0>",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "../../etc/passwd\r\nSet-Cookie: a=b",
)
"""What must be text wherever it is shown."""

CODES = {
    "/status/404": "http_404",
    "/status/403": "http_403",
    "/status/500": "http_500",
    "/cut-body": "truncated",
    "/loop": "redirect_loop",
    "/hops/30": "redirect_limit",
    "/gzip-bad-crc": "bad_encoding",
    "/malformed": "malformed_response",
    "/empty": "empty_reply",
    "/big": "too_large",
    "/private/x": "robots_denied",
}
"""A path of the lab, and the code its row ends with."""

OPTIONS = (
    "--robots", "--retries", "0", "--max-size", "100K", "--dedupe", "--per-host", "4", "-c", "12",
    "--select", "price=.price:price", "--select", "name=h1", "--select", "tags[]=li", "--select", "missing=.none", "--with", "meta",
)  # fmt: skip
HOSTS = 6
PAGES = 420


def _name_of(number: int) -> str:
    return NAUGHTY[number % len(NAUGHTY)] if number % 5 == 0 else f"Thing {number}"


async def product(exchange: Exchange) -> None:
    """A page with a name, a price and tags; each fifth has a hostile name."""
    number = int(exchange.number("n", 0))
    chance = random.Random(number)
    await exchange.pause(min(0.4, chance.lognormvariate(-3.2, 0.7)))
    name = html.escape(_name_of(number).replace("\0", "\ufffd"))
    price = f'<p class="price">{chance.lognormvariate(3, 0.8):.2f} EUR</p>' if number % 7 else ""
    tags = "".join(f"<li>tag {tag}" for tag in range(number % 4))
    text = "lorem ipsum " * chance.randrange(20, 1_500)
    await exchange.reply(f"<!doctype html><title>{name}</title><h1>{name}</h1>{price}<ul>{tags}</ul><p>{text}</p>")


def listed(lab: LabServer) -> list[str]:
    """Return the list: products of several hosts, with what fails in between, and rows that are no URL."""
    urls = [lab.url(f"/product?n={number}", 1 + number % HOSTS) for number in range(PAGES)]
    bad = [
        lab.url(f"{path}{'&' if '?' in path else '?'}n={number}", 1 + number % 3)
        for path in CODES
        for number in range(5)
    ]
    bad += [lab.url(f"/nobody?n={number}", HOSTS + 3) for number in range(3)]
    bad += [f"http://[{text[:60]}".replace("\n", " ").replace("\r", " ").replace("\0", "") for text in NAUGHTY]
    bad += urls[:9]
    bad += [lab.url(f"/status/410?x={'%3Cscript%3E' * 40}", 2)]
    for place, url in enumerate(bad):
        urls.insert(20 + place * 4, url)
    return urls


def make_scene(desk: Desk, kills: int = 2) -> Path:
    """Run the job in the desk's folder, killed ``kills`` times on its way; return its output."""
    desk.lab.add("/product", product)
    desk.lab.add("/robots.txt", "User-agent: *\nDisallow: /private/\n")
    desk.write(listed(desk.lab))
    words = ["crawl", "l.txt", "-o", "pages.jsonl", *OPTIONS]
    env = {"FETCHER_ROBOTS": "1"}
    for kill in range(kills):
        with Running(*words, folder=desk.folder, env=env) as crawl:
            desk.until_asked("/product", times=100 * (kill + 1))
            desk.until_written(100 * (kill + 1))
            crawl.send(signal.SIGKILL)
            crawl.end()
    ended = run(*words, folder=desk.folder, env=env)
    assert ended.code == 0, ended.said
    return desk.folder / "pages.jsonl"


def main() -> None:
    """Make the job, its page and its figures in a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with LabServer.in_thread(hosts=HOSTS) as lab:
        make_scene(Desk(lab, folder))
    ended = run("report", "pages.jsonl", "--html", "report.html", "--json", folder=folder)
    (folder / "report.json").write_text(ended.text)
    print(ended.said, end="")


if __name__ == "__main__":
    main()
