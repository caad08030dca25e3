"""Our commands and options: help in groups, and names that hands have learnt elsewhere.

Which flags are a group is said by the headings of ``topics/flags.md``; one without a paragraph there stands under
``Other``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["AliasedOption", "GroupedCommand", "OneOf", "Value", "complete_files", "complete_folders", "group_of"]

GROUPS = ("Input", "Output", "Pace", "Retries", "Network", "Parsing", "Run", "Other")


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
