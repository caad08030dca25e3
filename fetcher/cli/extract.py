"""``fetcher extract``: pages that were fetched before, read again with other rules and without the network."""

from __future__ import annotations

from typing import Any

import click

from fetcher.cli.commands import GroupedCommand, Value, complete_files
from fetcher.cli.crawl import command as crawl
from fetcher.cli.crawl import option, with_options
from fetcher.config.options import number_from

__all__ = ["command"]

OF_THE_NETWORK = frozenset({
    "inputs", "from", "url_column", "delimiter", "encoding", "carry", "demo", "ordered",
    "concurrency", "per_host", "delay", "max_crawl_delay", "per_site", "per_address", "robots", "rate", "timeout",
    "connect_timeout", "read_timeout", "retries", "retry_on", "max_retry_after", "host_patience", "default_scheme",
    "max_redirects", "follow_refresh", "truncate", "header", "user", "cookie", "cookie_file", "cookies", "cookie_jar",
    "cert", "key", "ca_bundle", "insecure", "tls", "proxy", "no_proxy", "http_proxy", "https_proxy", "http_version",
    "private_network", "middleware", "dedupe", "dry_run", "head", "resolve", "dns", "shard", "workers", "follow",
    "follow_css", "depth", "within", "include", "exclude", "max_pages", "max_pages_per_host",
    "ray_address",
})  # fmt: skip
"""The options of ``crawl`` that mean nothing here: they are about the list, the hosts and the way to them."""

SHARED = [param for param in crawl.params if param.name not in OF_THE_NETWORK]
OWN = [
    option("--bodies", metavar="DIR", help="Where the bodies of SOURCE are, if it was written with --body DIR."),
    option(
        "--workers",
        type=Value(number_from(1, whole=True)),
        default=1,
        metavar="N",
        help="Read a WARC by this many processes, a range of its bytes each.  [default: 1]",
    ),
]


@click.command("extract", cls=GroupedCommand, short_help="Read pages again that were fetched before: no network.")
@click.argument("source", metavar="SOURCE", shell_complete=complete_files)
@with_options(OWN)
@click.pass_context
def command(
    context: click.Context, /, source: str, bodies: str | None, workers: int, config: str | None, **_: Any
) -> None:
    """Read the pages in SOURCE again, with the rules given now: nothing is fetched.

    SOURCE is a web archive (.warc.gz, .warc), of ours or of others, or an output of ours that has the bodies: .jsonl,
    .parquet or .sqlite with --body inline, or with --body DIR (say where with --bodies). What failed when it was
    fetched stays failed. Records that are broken are passed over, and counted in the summary.

    \b
      fetcher extract pages.warc.gz -o prices.sqlite --select 'price=.price:price'
      fetcher extract pages.jsonl --bodies bodies -o titles.csv --columns url,title
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    from fetcher.cli.run import extract
    from fetcher.cli.settings import gather

    names = {param.name for param in SHARED}
    settings = {name: value for name, value in gather(context, config).items() if name in names}
    context.exit(extract(source, settings, bodies=bodies, workers=workers))


command.params.extend(SHARED)
