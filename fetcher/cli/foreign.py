"""Flags of curl and wget that a crawl takes though they change nothing, or say what another flag of ours does.

A command copied from a browser as cURL runs as it is pasted. What would do something that we do not do is refused, in
our words for it.
"""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

__all__ = ["ALIASES", "FOREIGN", "take_over"]

ALIASES = {
    "timeout": ("-m", "--max-time"),
    "retries": ("--retry",),
    "delay": ("--wait",),
    "head": ("-I", "--spider"),
    "quiet": ("-s", "--silent"),
    "ca_bundle": ("--cacert",),
    "insecure": ("--no-check-certificate",),
    "max_size": ("--max-filesize",),
    "max_redirects": ("--max-redirs", "--max-redirect"),
    "cookie": ("--load-cookies",),
}
"""Names of other programs for options of ours that mean the same there."""


class Method(click.ParamType):  # type: ignore[type-arg]  # generic in new click, plain in old
    """The only method that a list is fetched by."""

    name = "method"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take GET, and say what is there for others."""
        method = str(value).upper()
        if method != "GET":
            instead = "--head asks by HEAD" if method == "HEAD" else "nothing is sent to a server here"
            self.fail(f"{value}: must be GET: {instead}", param, ctx)
        return method


def _nothing(*names: str) -> click.Option:
    return click.Option(names, is_flag=True, hidden=True, expose_value=False)


FOREIGN = [
    _nothing("--compressed"),
    _nothing("-L", "--location"),
    _nothing("-G", "--get"),
    _nothing("--http1.1", "http1"),
    _nothing("-S", "--show-error"),
    click.Option(["-X", "--request"], hidden=True, expose_value=False, type=Method()),
    click.Option(["--url", "url_inputs"], hidden=True, multiple=True, metavar="URL"),
    click.Option(["--referer"], hidden=True, metavar="URL"),
]
"""Options that a crawl takes and that its help does not show."""


def take_over(context: click.Context) -> None:
    """Put what they say where our own options look for it."""
    params = context.params
    urls = params.pop("url_inputs", ())
    if urls:
        params["inputs"] = (*params["inputs"], *urls)
    referer = params.pop("referer", None)
    if referer:
        params["header"] = (*(params.get("header") or ()), f"Referer: {referer}")
        context.set_parameter_source("header", ParameterSource.COMMANDLINE)
