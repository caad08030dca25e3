"""``fetcher completion SHELL``: the script that makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from fetcher.cli.commands import GroupedCommand, OneOf

__all__ = ["command"]


@click.command("completion", cls=GroupedCommand, short_help="Print the completion script of a shell.")
@click.argument("shell", type=OneOf(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    Commands, flags, what they may be, and names of files are completed.

    \b
      eval "$(fetcher completion bash)"                                        in ~/.bashrc
      eval "$(fetcher completion zsh)"                                         in ~/.zshrc
      fetcher completion fish > ~/.config/fish/completions/fetcher.fish
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    kind = get_completion_class(shell)
    assert kind is not None
    # The source of bash's asks the installed bash for its version; the others are plain templates.
    click.echo(kind(context.find_root().command, {}, "fetcher", "_FETCHER_COMPLETE").source())
