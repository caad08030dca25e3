"""``fetcher serve``: the built-in site in the foreground."""

from __future__ import annotations

import click

from fetcher.errors import ConfigError, FetcherError
from fetcher.options import parse_seconds

__all__ = ["command"]


@click.command("serve", short_help="Serve the built-in site on loopback, to play with.")
@click.option("--port", default=8000, show_default=True, help="The port on every host.")
@click.option("--hosts", default=10, show_default=True, help="Loopback hosts: 127.0.0.1, 127.0.0.2, …")
@click.option("--pages", default=300, show_default=True, help="Pages of the shop.")
@click.option("--latency", default="20-60", show_default=True, metavar="LOW-HIGH", help="Milliseconds a page takes.")
@click.option("--seed", default=1, show_default=True, help="The draw of pages and latencies.")
@click.option("--log", metavar="PATH", help="Write each request as a JSON line.")
@click.option("--list", "print_list", is_flag=True, help="Print the list of URLs on stdout and serve on.")
def command(port: int, hosts: int, pages: int, latency: str, seed: int, log: str | None, print_list: bool) -> None:
    """Serve the built-in site: a shop on many loopback hosts, with honest failures. Ctrl-C ends it."""
    import asyncio

    from fetcher.bench.site import Site, serve, urls

    low, dash, high = latency.partition("-")
    try:
        bounds = (parse_seconds(low) / 1000, parse_seconds(high if dash else low) / 1000)
    except ConfigError as error:
        raise ConfigError(f"latency: {error}") from None
    if bounds[0] > bounds[1]:
        raise ConfigError(f"latency: {low} is above {high}")
    site = Site(hosts=hosts, pages=pages, seed=seed, latency=bounds, port=port, log=log)

    def ready(port: int) -> None:
        listing = urls(site, port)
        click.echo(f"serving {len(listing)} URLs, the first is {listing[0]} (Ctrl-C ends it)", err=True)
        if print_list:
            for url in listing:
                click.echo(url)

    try:
        asyncio.run(serve(site, ready))
    except KeyboardInterrupt:
        click.echo("closed", err=True)
    except OSError as error:
        raise FetcherError(f"cannot serve on port {port}: {error.strerror or error}") from None
