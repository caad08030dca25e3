"""``fetcher robots``: whether URLs may be fetched, by which line of which robots.txt, and at what pace."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from fetcher.cli.commands import GroupedCommand
from fetcher.cli.crawl import command as crawl
from fetcher.cli.exits import ALL_FAILED, COMPLETE
from fetcher.config import Config
from fetcher.errors import FetchError
from fetcher.urls import Target, erase_userinfo, lacks_scheme, parse

if TYPE_CHECKING:
    from fetcher.middleware.robots import Verdict

__all__ = ["command"]

SHARED = (
    "user_agent", "timeout", "connect_timeout", "read_timeout", "retries", "default_scheme", "proxy", "insecure",
    "ca_bundle", "private_network", "delay", "max_crawl_delay", "config",
)  # fmt: skip
"""The flags of ``crawl`` that mean the same here: the very same options."""

OWN = frozenset({"as_json", "urls", "config"})


@click.command("robots", cls=GroupedCommand, short_help="Say why a URL may be fetched or not.")
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each URL.")
@click.option("-v", "--verbose", count=True, help="Twice: show where an error of ours struck.")
@click.pass_context
def command(context: click.Context, /, urls: tuple[str, ...], as_json: bool, config: str | None, **_: Any) -> None:
    """Say of each URL whether robots.txt allows it, by which line, and what delay applies.

    The URLs themselves are not fetched. Exit 0 where there was an answer for any of them, 3 where for none.

    \b
      fetcher robots https://example.com/private/page.html
      fetcher robots example.com -A 'SomeBot/1.0' --json
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    from fetcher.cli.settings import gather, make_config, warn_of_unused
    from fetcher.terminal import Notices

    warn_of_unused(Notices())
    settings = {key: value for key, value in gather(context, config).items() if key not in OWN}
    reports = asyncio.run(_ask(list(urls), make_config(settings, urls)))
    for report in reports:
        click.echo(json.dumps(report, ensure_ascii=False) if as_json else _as_text(report))
    sys.stdout.flush()
    context.exit(COMPLETE if any(report["error"] is None for report in reports) else ALL_FAILED)


command.params.extend(param for param in crawl.params if param.name in SHARED)


async def _ask(urls: list[str], config: Config) -> list[dict[str, Any]]:
    """Return a report for each URL, in their order."""
    from fetcher.client import robots_judge

    token = config.identity.product_token
    many = asyncio.Semaphore(config.limits.concurrency)
    async with robots_judge(config) as judge:

        async def report(url: str) -> dict[str, Any]:
            async with many:
                return await _report(judge, url, token, config)

        return await asyncio.gather(*map(report, urls))


async def _report(
    judge: Callable[[Target], Awaitable[Verdict]], url: str, token: str, config: Config
) -> dict[str, Any]:
    from fetcher.client import judge_by_either

    found: dict[str, Any] = {
        "url": erase_userinfo(url), "allowed": None, "robots": None, "line": None, "rule": None, "rules": None, "delay": None,
        "agent": token, "error": None, "message": None,
    }  # fmt: skip
    try:
        target: Target = parse(url.strip(), config.default_scheme)
        either = config.default_scheme == "auto" and lacks_scheme(url)
        verdict = await (judge_by_either(judge, target) if either else judge(target))
    except FetchError as error:
        return found | {"error": error.code, "message": error.message}
    rule = verdict.rule
    return found | {
        "allowed": verdict.allowed,
        "robots": verdict.source,
        "line": rule.line if rule is not None else None,
        "rule": str(rule) if rule is not None else None,
        "rules": verdict.rules,
        "delay": _delay_of(target, verdict.delay, config),
    }


def _delay_of(target: Target, asked: float, config: Config) -> float:
    """Return the seconds between two requests that a crawl would leave, of ``asked`` and of what is configured."""
    from fetcher.hosts.table import HostTable

    host = HostTable(config.limits, config.retry, config.hosts).get(target.host, 0.0)
    host.set_crawl_delay(asked)
    return host.own_delay


def _as_text(report: dict[str, Any]) -> str:
    from fetcher.stats import counted
    from fetcher.terminal import printable

    url = report["url"]
    if report["error"] is not None:
        return printable(f"{url} !! {report['error']}: {report['message']}")
    if report["rule"] is not None:
        why = f"'{report['rule']}' in line {report['line']} of {report['robots']}"
    elif report["rules"]:
        why = f"none of the {counted(report['rules'], 'rule')} for {report['agent'] or '*'} in {report['robots']} is about it"
    else:
        why = f"{report['robots']} has no rule for {report['agent'] or '*'}"
    delay = f"; {report['delay']:g} s between two requests" if report["delay"] else ""
    return printable(f"{url} -> {'allowed' if report['allowed'] else 'denied'}: {why}{delay}")
