"""Owns what is known before and what it costs: the plan held against the run, and robots.txt against none."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from tests.benchmarks.crawling import crawl, plan, together
from tests.benchmarks.figures import Asked, Figure, at_most
from tests.benchmarks.hosts import Scene, Street

__all__ = ["planned", "robots"]

LARGE = "127.0.1.1"
SMALL, ROWS, TIMES = 200, 2, 20  # hosts and the rows of each, and how many times the mean the large one has
DELAY = "0.5"
SHARING = 40  # hosts of one site, which is one address
LATENCY = (0.05, 0.15)

HOSTS, PAGES = 50, 5_000
WITHOUT, WITH = "--no-robots", "--robots"


def planned(street: Street, rounds: int) -> Iterator[Figure]:
    """Hold the least time of a plan against what the crawl then takes: for a delay, and for limits that hosts share."""
    large = round(TIMES * SMALL * ROWS / (SMALL + 1 - TIMES))  # twenty times the mean of all hosts, itself among them
    hosts = [LARGE] * large + [f"127.0.2.{number}" for number in range(1, SMALL + 1)] * ROWS
    names = [f"{name}.shop.localhost" for name in range(SHARING)] * (4 * ROWS)
    mixed = random.Random(1).sample(hosts, len(hosts))
    yield Figure("rows of the large host over the mean", large / len(hosts) * (SMALL + 1), " ×")
    yield from _held("the large host anywhere", street, mixed, rounds, "--delay", DELAY)
    yield from _held("the large host last", street, [*hosts[large:], *hosts[:large]], rounds, "--delay", DELAY)
    yield from _held("a rate for all", street, mixed, rounds, "--rate", "40/s")
    yield from _held("hosts of one site", street, names, rounds, "--per-site", "2")
    yield from _held("hosts of one address", street, names, rounds, "--per-address", "2")


def _held(name: str, street: Street, hosts: Sequence[str], rounds: int, *words: str) -> Iterator[Figure]:
    urls = [f"http://{host}:{street.port}/{row}" for row, host in enumerate(hosts)]
    street.play(Scene(LATENCY))
    least = plan(urls, *words)["least"]
    took = []
    for _ in range(rounds):
        street.play(Scene(LATENCY))
        crawled = crawl(urls, *words)
        assert not crawled.errors(), Counter(crawled.errors())
        log = street.log()
        took.append(max(entry.went for entry in log) - log[0].came)
    said = f"{name} ({' '.join(words)})"
    setter = least["set_by"] + (f" of {least['host']}" if least["host"] else "")
    yield Figure(f"{said}: the run", min(took), f" s (least {least['seconds']:.1f} s by {setter})")
    yield Figure(f"{said}: least over it", least["seconds"] / min(took), "", Asked(0.9, 1.1, "from 0.9 to 1.1"))


def robots(street: Street, rounds: int) -> Iterator[Figure]:
    """Count the requests that robots.txt adds, and the CPU that a hundred rules on each host add.

    The two crawls that are compared run at the same time on one core, each with hosts of its own.
    """
    nets = {WITHOUT: "127.0.1", WITH: "127.0.2"}
    lists = {name: _articles(net, street.port) for name, net in nets.items()}
    texts = {"no such file": None, "a hundred rules": rules("{host}"), "the same on all hosts": rules("a-platform")}
    for text, robots_txt in texts.items():
        cpu: dict[str, list[float]] = {name: [] for name in nets}
        for number in range(rounds if robots_txt else 1):
            street.play(Scene((0.002, 0.004), robots=robots_txt, pages="large"))
            order = [WITHOUT, WITH] if number % 2 else [WITH, WITHOUT]
            both = together(*((lists[name], [name]) for name in order), core=max(os.sched_getaffinity(0)))
            asked = Counter(entry.host for entry in street.log())
            for name, crawled in zip(order, both, strict=True):
                assert not crawled.errors(), Counter(crawled.errors())
                cpu[name].append(crawled.cpu)
        counts = {name: [n for host, n in asked.items() if host.startswith(f"{net}.")] for name, net in nets.items()}
        more = max(counts[WITH]) - max(counts[WITHOUT])  # of all hosts the same
        yield Figure(f"{text}: requests more, of one host", more, f" ({sum(counts[WITH]) - PAGES} in all)", at_most(1))
        if robots_txt is not None:
            pairs = [with_ / without for with_, without in zip(cpu[WITH], cpu[WITHOUT], strict=True)]
            yield Figure(f"{text}: CPU, {WITHOUT}", 1e6 * min(cpu[WITHOUT]) / PAGES, " µs a page")
            yield Figure(f"{text}: CPU, pair by pair", min(pairs), f" to {max(pairs):.3f} ×")
            yield Figure(f"{text}: CPU, the median of the pairs", median(pairs), " ×", at_most(1.03))


def _articles(net: str, port: int) -> list[str]:
    """Write the list of one net: so many hosts in no order, as many pages of each."""
    urls = [
        f"http://{net}.{row % HOSTS + 1}:{port}/articles/{2000 + row % 24}/some-title-{row}.html?page={row % 7}"
        for row in range(PAGES)
    ]
    random.Random(1).shuffle(urls)
    return urls


def rules(whose: str) -> str:
    """Write a robots.txt of a hundred rules for everyone: prefixes, wildcards and ends, as large sites have them."""
    lines = ["User-agent: *"]
    lines += [f"Disallow: /{name}/" for name in ("admin", "cart", "checkout", "login", "search", "tmp", "api", "print")]
    lines += [f"Disallow: /articles/{year}/drafts/" for year in range(2000, 2032)]
    lines += [f"Disallow: /*?{key}=" for key in ("sort", "filter", "session", "utm_source", "ref", "view", "lang", "q")]
    lines += [f"Disallow: /*.{end}$" for end in ("pdf", "zip", "json", "xml", "rss", "php", "cgi", "asp")]
    lines += [
        f"Disallow: /*/{name}/*/edit" for name in ("user", "forum", "group", "list", "wiki", "talk", "tag", "file")
    ]
    lines += [f"Allow: /articles/{year}/" for year in range(2000, 2024)]
    lines += [f"Disallow: /private-{number}-of-{whose}" for number in range(100 - (len(lines) - 1))]
    return "\n".join([*lines, "Sitemap: http://example.com/sitemap.xml", ""])
