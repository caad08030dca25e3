"""The commands by their names: each is imported when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from fetcher import __version__

__all__ = ["COMMANDS", "cli", "flags_of_command"]

COMMANDS = {
    "crawl": "Fetch a list of URLs and write what came.",
    "extract": "Read pages again that were fetched before: no network.",
    "robots": "Say why a URL may be fetched or not.",
    "watch": "Look at a job in the browser, while it runs or later.",
    "report": "Tell how a job went, or how far it is.",
    "bench": "Measure what concurrency buys.",
    "serve": "Serve the built-in site on loopback, to play with.",
    "help": "Explain a code, a flag, a format, or how to read a summary.",
    "completion": "Print the completion script of a shell.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when it is called; the help needs only the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's signature)
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"fetcher.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest what was meant where there is no such command."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {name!r}: {_meant(name)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's signature)
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fetcher")
def cli() -> None:
    """Fetch lists of URLs: fast, politely, surviving anything."""


def flags_of_command() -> frozenset[str]:
    """Return the flags of the command that this process was started for."""
    name = next((word for word in sys.argv[1:] if word in COMMANDS), "crawl")
    command = cli.get_command(click.Context(cli), name)
    return frozenset(each for param in command.params for each in param.opts) if command is not None else frozenset()


def _meant(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if "." in name or "/" in name or os.path.exists(name):
        return f"to fetch it, write 'fetcher crawl {name}'"
    return f"there are {', '.join(COMMANDS)}"
