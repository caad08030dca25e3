"""``fetcher help``: what the docs say of a name, and the man page that is made of all of it."""

from __future__ import annotations

import difflib
import http
import re
import shutil
import textwrap
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from fetcher import topics
from fetcher.cli.commands import GroupedCommand
from fetcher.cli.exits import PIPE_CLOSED, discard_stdout
from fetcher.cli.refusals import in_plain_text
from fetcher.topics import Topic

__all__ = ["as_text", "command", "names"]

WIDTH = 100
LABELS = {
    "topic": "", "code": "error code", "flag": "flag", "format": "format", "column": "column of a record",
    "exit": "exit code", "field": "field of a Page or Failure", "coming from": "coming from",
}  # fmt: skip


def _complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names() if name.startswith(incomplete)]


@click.command(
    "help",
    cls=GroupedCommand,
    short_help="Explain a code, a flag, a format, or how to read a summary.",
    context_settings={"ignore_unknown_options": True},  # flags are asked about
)
@click.argument("names", nargs=-1, metavar="[CODE|FLAG|FORMAT|TOPIC]...", shell_complete=_complete)
@click.option("--man", is_flag=True, help="Print the manual page, for 'man -l -'.")
@click.pass_context
def command(context: click.Context, /, names: tuple[str, ...], *, man: bool) -> None:
    """Print what the docs say of a name: an error code, a flag, a format, a column, an exit code, or a topic.

    \b
      fetcher help host_budget
      fetcher help --per-host
      fetcher help summary
      fetcher help 404
      fetcher help curl
      fetcher help --man | man -l -
    """  # noqa: D301  (click keeps the lines below this very control character as they are)
    if man:
        from fetcher.cli.manual import manual

        text = manual()
    else:
        width = max(20, min(WIDTH, shutil.get_terminal_size().columns - 2))
        text = "\n".join(_answer(name, context, width) for name in names) if names else overview(width)
    try:
        click.echo(text, nl=False)
    except BrokenPipeError:
        discard_stdout()
        context.exit(PIPE_CLOSED)


def names() -> list[str]:
    """Return all that can be asked about."""
    from fetcher.cli.commands import COMMANDS

    return [*COMMANDS, *(name.lower() for kind in topics.FILES for name in topics.topics(kind))]


def overview(width: int) -> str:
    """Return what there is to ask about."""
    lines = ["fetcher help NAME explains one of these:", ""]
    for kind, label in (("topic", "topics"), ("code", "error codes"), ("format", "formats"), ("column", "columns of a record"),
                        ("exit", "exit codes"), ("coming from", "coming from"), ("flag", "flags")):  # fmt: skip
        lines += [f"{label}:", *_wrapped(" ".join(topics.topics(kind)).replace("coming from", ""), width, "  "), ""]
    return "\n".join(lines)


def _answer(name: str, context: click.Context, width: int) -> str:
    """Return what is known of a name. Raises ``UsageError`` where that is nothing."""
    from fetcher.cli.commands import COMMANDS, cli

    found = topics.find(name)
    parts = [as_text(topic, width) for topic in found]
    if name in COMMANDS:
        asked = cli.get_command(context, name)
        assert asked is not None
        with click.Context(asked, info_name=name, parent=context.find_root()) as its:
            parts.append(f"{asked.get_help(its)}\n")
    if not parts and (elsewhere := topics.foreign(name)):
        parts = [f"{name}\n" + "".join(f"  {owner or 'here'}: {in_plain_text(ours)}\n" for owner, ours in elsewhere)]
    if not parts:
        close = difflib.get_close_matches(name.lower(), names(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "'fetcher help' lists what can be explained"
        raise click.UsageError(f"{name}: nothing is known of it: {hint}", context)
    return "\n".join(parts)


def as_text(topic: Topic, width: int) -> str:
    """Return a topic as a terminal shows it."""
    label = LABELS[topic.kind]
    lines = [f"{topic.name}{f'  ({label})' if label else ''}"]
    if topic.kind == "flag":
        lines = [*_flag_lines(topic, width)]
    if topic.name.startswith("http_") and topic.name[5:].isdigit():
        lines[0] = f"{topic.name}  {_phrase(int(topic.name[5:]))} ({label})"
    for paragraph in topic.paragraphs:
        lines += ["", *_laid_out(paragraph, width)]
    return "\n".join(lines) + "\n"


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _flag_lines(topic: Topic, width: int) -> Iterator[str]:
    """Yield how a flag is written, what the help says of it, and where else it can be set."""
    from fetcher.cli.commands import COMMANDS, cli

    context = click.Context(cli)
    homes: dict[str, click.Option] = {}
    for name in COMMANDS:
        for param in getattr(cli.get_command(context, name), "params", ()):
            if isinstance(param, click.Option) and topic.name in param.opts:
                homes[name] = param
    option = next(iter(homes.values()), None)
    record = option.get_help_record(context) if option is not None else None
    if option is None or record is None:  # --help and --version are click's own
        yield topic.name
        return
    yield record[0]
    yield from _wrapped(record[1], width, "  ")
    where = f"of fetcher {', '.join(homes)}"
    if isinstance(option.envvar, str) and option.name not in ("config", "demo", "dry_run"):
        where += f"; {option.envvar} in the environment, {option.opts[-1].lstrip('-')} in a configuration file"
    yield from _wrapped(where, width, "  ")


def _laid_out(paragraph: str, width: int) -> list[str]:
    if paragraph.startswith("```"):
        return [f"    {line}" for line in paragraph.splitlines()[1:-1]]
    if paragraph.startswith("| "):
        rows = topics.table_rows(paragraph)
        lines = []
        for row in rows:
            lines += _wrapped(in_plain_text(row.theirs), width, "  ")
            lines += _wrapped(in_plain_text(row.ours).replace("\\|", "|"), width, "      ")
        return lines
    if paragraph.startswith("- "):
        items = re.split(r"^- ", paragraph, flags=re.MULTILINE)[1:]
        return [line for item in items for line in _wrapped(in_plain_text(item), width, "    ", first="  - ")]
    return _wrapped(in_plain_text(paragraph), width, "  ")


def _wrapped(text: str, width: int, indent: str, *, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), width, initial_indent=indent if first is None else first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
