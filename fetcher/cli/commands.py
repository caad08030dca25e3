"""The commands by their names, each imported when it is called; and what all of them and their options have in common.

Their help is in groups, and some options go by names that hands have learnt elsewhere. Which flags are a group is said
by the headings of ``topics/flags.md``; one without a paragraph there stands under ``Other``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from fetcher import __version__

__all__ = [
    "COMMANDS",
    "AliasedOption",
    "GroupedCommand",
    "OneOf",
    "Value",
    "cli",
    "complete_files",
    "complete_folders",
    "flags_of_command",
    "group_of",
]

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

GROUPS = ("Input", "Output", "Pace", "Retries", "Network", "Parsing", "Run", "Other")


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


class GroupedCommand(click.Command):
    """A command whose help has its options in groups.

    ``foreign`` are options that it takes and shows nowhere: those of other programs.
    """

    def __init__(self, *args: Any, foreign: Sequence[click.Option] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._foreign = list(foreign)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all that it takes."""
        return [*super().get_params(ctx), *self._foreign]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and have an error know the command that it is about: click forgets that of some."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section for each group."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections[group_of(param)].append(record)
        few = sum(map(len, sections.values())) <= 12
        if few:
            sections = {"Options": [record for records in sections.values() for record in records]}
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def group_of(param: click.Parameter) -> str:
    """Return the group of an option, by its topic."""
    from fetcher.topics import topics

    flags = topics("flag")
    return next((flags[name].group for name in param.opts if name in flags), GROUPS[-1])


class AliasedOption(click.Option):
    """An option that also goes by the names that other programs have for it; help and completion show its own alone."""

    def __init__(self, *args: Any, aliases: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.aliases = tuple(aliases)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Have the parser know all of its names."""
        with self._all_names():
            super().add_to_parser(parser, ctx)

    @contextlib.contextmanager
    def _all_names(self) -> Iterator[None]:
        shown, self.opts = self.opts, [*self.opts, *self.aliases]
        try:
            yield
        finally:
            self.opts = shown


class Value(click.ParamType):  # type: ignore[type-arg]  # generic in new click, plain in old
    """A value that one of the readers of ``config/options.py`` reads: what it refuses is said in its words."""

    name = "value"

    def __init__(self, reader: Callable[[Any], Any]) -> None:
        self._reader = reader

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the reader makes of it."""
        from fetcher.errors import ConfigError

        try:
            return self._reader(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class OneOf(click.Choice):  # type: ignore[type-arg]  # generic in new click, plain in old
    """One of several words. ``meant`` has words that others use, and what to say of them."""

    def __init__(self, choices: Sequence[str], *, meant: Mapping[str, str] | None = None) -> None:
        super().__init__(choices)
        self._meant = meant or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, or say which there are."""
        if value not in self.choices:
            from fetcher.config.options import nearest, refused

            known = [str(choice) for choice in self.choices]
            said = self._meant.get(value) or f"must be one of {', '.join(known)}{nearest(value, known)}"
            self.fail(str(refused(value, said)), param, ctx)
        return super().convert(value, param, ctx)


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def complete_folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete the name of a folder."""
    return [CompletionItem(incomplete, type="dir")]
