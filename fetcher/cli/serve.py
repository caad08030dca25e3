"""``fetcher serve``: the built-in site in the foreground."""

from __future__ import annotations

import click

from fetcher.cli.commands import GroupedCommand, Value, complete_files
from fetcher.cli.exits import PIPE_CLOSED, discard_stdout
from fetcher.config.options import number_from
from fetcher.errors import FetcherError, SinkError

__all__ = ["command"]


@click.command("serve", cls=GroupedCommand, short_help="Serve the built-in site on loopback, to play with.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    metavar="N",
    type=Value(number_from(0, whole=True)),
    help="The port on every host; 0 takes a free one.",
)
@click.option(
    "--hosts",
    default=10,
    show_default=True,
    metavar="N",
    type=Value(number_from(1, whole=True)),
    help="Loopback hosts: 127.0.0.1, 127.0.0.2, …",
)
@click.option(
    "--pages",
    default=300,
    show_default=True,
    metavar="N",
    type=Value(number_from(1, whole=True)),
    help="Pages of the shop.",
)
@click.option("--latency", default="20-60", show_default=True, metavar="LOW-HIGH", help="Milliseconds a page takes.")
@click.option(
    "--seed",
    default=1,
    show_default=True,
    metavar="N",
    type=Value(number_from(0, whole=True)),
    help="The draw of pages and latencies.",
)
@click.option("--log", metavar="PATH", shell_complete=complete_files, help="Write each request as a JSON line.")
@click.option("--list", "print_list", is_flag=True, help="Print the list of URLs on stdout and serve on.")
@click.pass_context
def command(
    context: click.Context, /, *, port: int, hosts: int, pages: int, latency: str, seed: int, log: str | None,
    print_list: bool,
) -> None:  # fmt: skip
    """Serve the built-in site: a shop on many loopback hosts, with honest failures. Ctrl-C ends it."""
    import asyncio

    from fetcher.cli.settings import read_latency
    from fetcher.demo import Site, urls
    from fetcher.demo.server import serve
    from fetcher.stats import counted

    site = Site(hosts=hosts, pages=pages, seed=seed, latency=read_latency(latency), port=port, log=log)

    def ready(port: int) -> None:
        listing = urls(site, port)
        click.echo(f"serving {counted(len(listing), 'URL')}, the first is {listing[0]} (Ctrl-C ends it)", err=True)
        if print_list:
            click.echo("\n".join(listing))
            discard_stdout()  # the reader of the list sees its end, though we go on serving

    try:
        asyncio.run(serve(site, ready))
    except KeyboardInterrupt:
        click.echo("closed", err=True)
    except BrokenPipeError:
        discard_stdout()
        context.exit(PIPE_CLOSED)
    except OSError as error:
        reason = error.strerror or str(error)
        if log is not None and error.filename == log:
            raise SinkError(f"{log}: cannot write the log: {reason}") from None
        raise FetcherError(f"cannot serve on port {port}: {reason}") from None
