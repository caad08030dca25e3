"""The manual page ``fetcher.1``, made of click's commands and of what ``topics/`` says of each name."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import click

from fetcher import __version__, topics
from fetcher.cli.commands import GROUPS, group_of
from fetcher.topics import Topic

__all__ = ["manual"]

DATE = "2026-11-28"  # of the page: it goes with a version
MAX_LINE = 78
_CODE = re.compile(r"`([^`]+)`")


def manual() -> str:
    """Return the page in the language of man(7)."""
    return "\n".join(_broken(_lines())) + "\n"


def _broken(lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines, those of running text at most as long as roff's own rules have them."""
    filled, tag = True, False
    for line in lines:
        filled = line != ".nf" if line in (".nf", ".fi") else filled
        if line.startswith(".") or tag or not filled:
            yield line
        else:
            yield from (
                f"\\&{part}" if part.startswith((".", "'")) else part
                for part in textwrap.wrap(line, MAX_LINE, break_long_words=False, break_on_hyphens=False)
            )
        tag = line.startswith(".TP")


def _lines() -> Iterator[str]:
    from fetcher.cli.commands import COMMANDS, cli

    context = click.Context(cli, info_name="fetcher")
    commands = {name: command for name in COMMANDS if (command := cli.get_command(context, name)) is not None}
    yield from (
        '.\\" Written by python -m tests.documents: change fetcher/topics/ and the commands, not this file.',
        f'.TH FETCHER 1 "{DATE}" "fetcher {__version__}" "User Commands"',
        ".SH NAME",
        "fetcher \\- fetch lists of URLs: fast, politely, surviving anything",
        ".SH SYNOPSIS",
        ".nf",
    )
    for name, command in commands.items():
        arguments = " ".join(
            param.metavar or (param.name or "").upper() for param in command.params if isinstance(param, click.Argument)
        )
        yield f"\\fBfetcher {name}\\fR [\\fIOPTIONS\\fR] {_roff(arguments)}".rstrip()
    yield ".fi"
    yield ".SH DESCRIPTION"
    yield "A list of URLs in, one record for every row out: fast over many hosts, polite to each of them, and after"
    yield "\\fBkill \\-9\\fR the same command goes on where it was."
    yield "Data goes to standard output or to files, everything else to standard error."
    yield ".SH COMMANDS"
    for name, about in COMMANDS.items():
        yield from (".TP", f"\\fB{name}\\fR", _roff(about))
    yield ".SH OPTIONS"
    yield from _options(commands)
    yield from _section("EXIT STATUS", topics.topics("exit"))
    yield from _section("ERROR CODES", topics.topics("code"))
    yield from _section("FORMATS", topics.topics("format"))
    yield from _section("COLUMNS OF A RECORD", topics.topics("column"))
    for topic in topics.topics("topic").values():
        yield f'.SH "{topic.name.upper()}"'
        yield from _paragraphs(topic, indented=False)
    for topic in topics.topics("coming from").values():
        yield f'.SH "COMING FROM {topic.name.upper()}"'
        yield from _paragraphs(topic, indented=False)


def _options(commands: dict[str, click.Command]) -> Iterator[str]:
    """Yield each flag once, in its group, with the commands that have it."""
    homes: dict[str, list[str]] = {}
    options: dict[str, click.Option] = {}
    for name, command in commands.items():
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                long = next(each for each in param.opts if each.startswith("--"))
                homes.setdefault(long, []).append(name)
                options.setdefault(long, param)
    context = click.Context(next(iter(commands.values())))
    for group in GROUPS:
        of_group = {long: option for long, option in options.items() if group_of(option) == group}
        if of_group:
            yield f'.SS "{group}"'
        for long, option in of_group.items():
            written, about = option.get_help_record(context) or (long, "")
            yield from (".TP", f"\\fB{_roff(written)}\\fR", _roff(about))
            topic = topics.topics("flag").get(long)
            if topic is not None:
                yield from _paragraphs(topic, indented=True)
            if homes[long] != ["crawl"]:
                yield from (".IP", f"Of {', '.join(homes[long])}.")


def _section(title: str, entries: dict[str, Topic]) -> Iterator[str]:
    yield f'.SH "{title}"'
    for name, topic in entries.items():
        first, *rest = topic.paragraphs
        yield from (".TP", f"\\fB{_roff(name)}\\fR", _roff(first))
        for paragraph in rest:
            yield from (".IP", _roff(paragraph))


def _paragraphs(topic: Topic, *, indented: bool) -> Iterator[str]:
    for number, paragraph in enumerate(topic.paragraphs):
        if paragraph.startswith("```"):
            yield ".nf"
            yield from map(_roff, paragraph.splitlines()[1:-1])
            yield ".fi"
        elif paragraph.startswith("| "):
            for row in topics.table_rows(paragraph):
                yield from (".TP", _roff(row.theirs), _roff(row.ours.replace("\\|", "|")))
        elif paragraph.startswith("- "):
            for item in re.split(r"^- ", paragraph, flags=re.MULTILINE)[1:]:
                yield from (".TP 2", "\\(bu", _roff(item))
        else:
            if indented:
                yield ".IP"
            elif number:
                yield ".PP"
            yield _roff(paragraph)


def _roff(text: str) -> str:
    """Return a text of one paragraph with what roff would obey written as what it is."""
    text = " ".join(text.split()) if "\n" in text else text.strip()
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(char if ord(char) < 128 else f"\\[u{ord(char):04X}]" for char in text)
    text = _CODE.sub(r"\\fB\1\\fR", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"\\fB\1\\fR", text)
    return f"\\&{text}" if text.startswith((".", "'")) else text
