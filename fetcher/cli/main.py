"""The entry point: a command is loaded when it is called, an error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from fetcher import __version__
from fetcher.cli.exits import INTERRUPTED, PIPE_CLOSED, discard_stdout, exit_of

__all__ = ["cli", "flags_of_command", "main"]

COMMANDS = {
    "crawl": "Fetch a list of URLs and write what came.",
    "extract": "Read pages again that were fetched before: no network.",
    "robots": "Say why a URL may be fetched or not.",
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


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = cli.main(prog_name="fetcher", standalone_mode=False)
    except click.ClickException as error:
        code = _reject(error)
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        discard_stdout()
        code = PIPE_CLOSED
    except Exception as error:  # noqa: BLE001  (the last line of defence: one plain line, the traceback under -vv)
        code = _explain(error)
    try:
        if sys.stdout is not None:  # closed before we began
            sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
        code = PIPE_CLOSED
    sys.exit(code if isinstance(code, int) else 0)


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


def _reject(error: click.ClickException) -> int:
    """Put what is wrong with the command line on one line that says where the help is."""
    if type(error).__name__ == "NoArgsIsHelpError":  # of newer clicks, for 'fetcher' alone: it shows the help
        error.show()
        return error.exit_code
    from fetcher.cli.refusals import refusal_of

    _say(refusal_of(error))
    return error.exit_code


def _say(text: str) -> None:
    from fetcher.cli.redaction import redact
    from fetcher.sinks.escape import printable
    from fetcher.terminal import has_colour, paint

    name = paint("fetcher:", "red") if has_colour(sys.stderr) else "fetcher:"
    print(f"{name} {printable(redact(text))}", file=sys.stderr)


def _explain(error: Exception) -> int:
    from fetcher.errors import ConfigError, FetcherError

    if os.environ.get("FETCHER_TRACEBACK") or "-vv" in sys.argv[1:] or sys.argv.count("-v") > 1:
        import traceback

        from fetcher.cli.redaction import redact

        print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    if isinstance(error, MemoryError):
        where = f" ({error})" if str(error) else ""
        _say(
            f"no memory is left{where}: with more of it, or less of -c and --max-size, the same command goes on with a job"
        )
        return exit_of(error)
    if isinstance(error, ConfigError):
        from fetcher.cli.refusals import with_next_step

        _say(with_next_step(str(error), flags_of_command()))
        return exit_of(error)
    kind = "" if isinstance(error, FetcherError) else f"internal error: {type(error).__name__}: "
    hint = "" if isinstance(error, FetcherError) else " (-vv shows where)"
    _say(f"{kind}{error}{hint}")
    return exit_of(error)
