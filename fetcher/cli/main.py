"""The entry point: a command is loaded when it is called, an error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys

import click

from fetcher.cli.commands import cli, flags_of_command
from fetcher.cli.exits import INTERRUPTED, PIPE_CLOSED, discard_stdout, exit_of

__all__ = ["main"]


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
    from fetcher.terminal import has_colour, paint, printable

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
