"""``fetcher bench``: its flags. What one request is, is said by flags of ``crawl``; what happens is in ``bench_run.py``."""

from __future__ import annotations

from typing import Any

import click

from fetcher.cli.commands import GroupedCommand, OneOf, complete_files
from fetcher.cli.crawl import command as crawl
from fetcher.cli.crawl import option, with_options

__all__ = ["command"]

SHARED = (
    "from", "url_column", "delimiter", "encoding", "per_host", "delay", "rate", "timeout", "connect_timeout", "read_timeout", "retries",
    "max_retry_after", "host_patience", "default_scheme", "max_redirects", "max_size", "truncate", "accept", "user_agent", "header",
    "cookie", "user", "proxy", "insecure", "ca_bundle", "private_network", "select", "progress", "quiet", "config",
)  # fmt: skip
"""The flags of ``crawl`` that mean the same here: the very same options."""


OPTIONS = [
    option("--sequential/--no-sequential", default=None, help="The baseline, one row after the other.  [default: on]"),
    option("-n", "--rows", metavar="N", help="The first N rows of the list, or N pages of the built-in site.  [default: 200]"),
    option("-c", "--concurrency", "sweep", metavar="N[,N...]", help="Requests at once, one mode for each N.  [default: 10,50,100]"),
    option("--rounds", metavar="R", help="Rounds of each mode, in turn.  [default: 3]"),
    option("--latency", metavar="LOW-HIGH", help="Milliseconds a page of the built-in site takes.  [default: 20-60]"),
    option("--seed", metavar="N", help="The draw of the built-in site's pages and latencies.  [default: 1]"),
    option("--scenario", type=OneOf(["latency", "fast", "mixed", "errors", "throttled"]), help="How the built-in site behaves.  [default: latency]"),
    option("--json", metavar="FILE", help="Write everything measured, every raw time too ('-' is stdout)."),
    option("--html", metavar="FILE", help="Write a picture of it: one page that needs no network."),
    click.option("-v", "--verbose", count=True, help="Twice: show where an error of ours struck."),
]  # fmt: skip


@click.command("bench", cls=GroupedCommand, short_help="Measure what concurrency buys.")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...", shell_complete=complete_files)
@with_options(OPTIONS)
@click.pass_context
def command(context: click.Context, /, inputs: tuple[str, ...], config: str | None, **_: Any) -> None:
    """Fetch the same rows one by one and side by side, and tell how much faster that is.

    INPUTs are those of 'crawl'. Without one it is the built-in site, served for the occasion on loopback. Every
    row is fetched once in each round of each mode, and in a warm-up that is not counted. The table goes to stdout,
    everything else to stderr. Exit 1 where the modes got different pages.

    \b
      fetcher bench
      fetcher bench -n 300 -c 50 --latency 50-150 --html bench.html
      fetcher bench urls.txt -n 100 -c 1,10,50,100
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    from fetcher.cli.bench_run import bench
    from fetcher.cli.settings import gather

    context.exit(bench(list(inputs), gather(context, config)))


command.params.extend(param for param in crawl.params if param.name in SHARED)
