"""The entry point: commands are loaded when they are called, errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from fetcher import __version__
from fetcher.cli.exits import FAILED, PIPE_CLOSED, USAGE

__all__ = ["cli", "main"]

COMMANDS = {
    "crawl": "Fetch a list of URLs and write what came.",
    "serve": "Serve the built-in site on loopback, to play with.",
    "completion": "Print the completion script of a shell.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when it is called; the help needs only the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's)
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"fetcher.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fetcher")
def cli() -> None:
    """Fetch lists of URLs: fast, politely, surviving anything."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = cli.main(prog_name="fetcher", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except BrokenPipeError:
        code = _closed_pipe()
    except Exception as error:  # noqa: BLE001  (the last line of defence: one plain line, the traceback under -vv)
        code = _explain(error)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _closed_pipe()
    sys.exit(code if isinstance(code, int) else 0)


def _closed_pipe() -> int:
    """Point stdout away from the closed pipe, so that the interpreter's own flush stays silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return PIPE_CLOSED


def _explain(error: Exception) -> int:
    from fetcher.errors import ConfigError, FetcherError, SourceError
    from fetcher.sinks.escape import printable

    if os.environ.get("FETCHER_TRACEBACK") or "-vv" in sys.argv[1:] or sys.argv.count("-v") > 1:
        import traceback

        traceback.print_exception(error)
    kind = "" if isinstance(error, FetcherError) else f"internal error: {type(error).__name__}: "
    hint = "" if isinstance(error, FetcherError) else " (-vv shows where)"
    text = " ".join(printable(str(error)).split())
    print(f"fetcher: {kind}{text}{hint}", file=sys.stderr)
    return USAGE if isinstance(error, ConfigError | SourceError) else FAILED
