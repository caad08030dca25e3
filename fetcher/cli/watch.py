"""``fetcher watch``: a job in the browser, by its ledger alone, while a run works on it elsewhere or after the last has ended."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["command"]


@click.command("watch", short_help="Look at a job in the browser, while it runs or later.")
@click.argument("jobs", metavar="JOB|OUTPUT...", nargs=-1, required=True)
@click.option(
    "--live-at",
    metavar="[HOST:]PORT",
    envvar="FETCHER_LIVE_AT",
    help="Where the page is served.  [default: 127.0.0.1, a free port]",
)
@click.option(
    "--live-host",
    multiple=True,
    metavar="NAME",
    envvar="FETCHER_LIVE_HOST",
    help="A further host name by which the page may be asked for; repeatable.",
)
@click.option("--open", "opens", is_flag=True, envvar="FETCHER_OPEN", help="Open the page in the browser.")
@click.option("-v", "--verbose", count=True, help="Twice: show where an error of ours struck.")
def command(*, jobs: tuple[str, ...], live_at: str | None, live_host: tuple[str, ...], opens: bool, **_: Any) -> None:
    """Show a job on a page in the browser, by its ledger alone: nothing is changed, and a run that works on it is not disturbed.

    JOB is the folder of a job, OUTPUT a file that it writes (then the job is OUTPUT.job). Several, or a pattern in
    quotes, are the shards of one list: they are added up. What a ledger does not know (what is in flight, the last
    messages) is left out; the page of 'crawl --live' has it. Ctrl-C ends it.

    \b
      fetcher watch pages.jsonl --open
      fetcher watch 'shard-*/pages.jsonl' --live-at 8080
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    import asyncio

    from fetcher.cli.report import find_jobs
    from fetcher.live.job import JobSource
    from fetcher.live.place import LivePlace

    place = LivePlace() if live_at is None else LivePlace.of(live_at)
    folders = find_jobs(jobs)
    source = JobSource(folders, together=len(folders) > 1)
    source.look()  # what is wrong with it is said here, and not on a page
    try:
        asyncio.run(_serve(source, place, list(live_host), opens=opens))
    except KeyboardInterrupt:
        click.echo("closed", err=True)


async def _serve(source: Any, place: Any, names: list[str], *, opens: bool) -> None:
    import asyncio

    from fetcher.cli.live import announce
    from fetcher.live.server import LiveServer
    from fetcher.terminal import Notices

    async with LiveServer(source, place, names=names) as server:
        await announce(server, Notices(), opens=opens, quiet=False)
        await asyncio.Event().wait()
