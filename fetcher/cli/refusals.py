"""What is wrong with a command line in one line: the flag and its value, what is allowed, and the next step.

All errors of use come through here, click's and our own:
``--concurrency 0: must be at least 1 (see 'fetcher help --concurrency')``. An error of ours begins with the option that
it is about; where it comes from a file or a variable, that stands before it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

import click

from fetcher import topics
from fetcher.cli.exits import USAGE

__all__ = ["in_plain_text", "meant_flag", "option_of", "refusal_of", "with_next_step"]

_OPTION = re.compile(r"(?:^|: )(?P<key>[a-z]+(?:-[a-z]+)*)(?=: | .+?: )")
MOST_LISTED = 16
"""Flags of a command that are named to somebody who knows none of them."""
_STEM = 5  # characters by which two words are one
_COMMON_WORDS = frozenset(
    {"max", "min", "num", "number", "no", "set", "use", "with", "enable", "file", "url", "the", "of"}
)


def refusal_of(error: click.ClickException) -> str:
    """Return the line for an error that click has raised."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "fetcher"
    text = " ".join(error.format_message().split())
    flag = ""
    if isinstance(error, click.NoSuchOption) and context is not None:
        text, flag = meant_flag(error.option_name, context.command)
    elif isinstance(error, click.BadOptionUsage) and context is not None:
        flag, metavar = option_of(error.option_name, context)
        needs = "requires an argument" in error.message
        text = f"{flag}: needs a value{f', {metavar}' if metavar else ''}" if needs else f"{flag}: takes no value"
    elif isinstance(error, click.MissingParameter):
        choices = getattr(getattr(error.param, "type", None), "choices", ())
        there = f"one of {', '.join(choices)}" if choices else _usage_of(context)
        text = f"{_name_of(error.param)} is missing" + (f": {there}" if there else "")
    elif isinstance(error, click.BadParameter) and error.param is not None:
        flag = _name_of(error.param)
        text = f"{flag} {error.message.rstrip('.')}" if _has_value(error) else f"{flag}: {error.message.rstrip('.')}"
    if error.exit_code != USAGE or "(see " in text:
        return text
    return f"{text} (see 'fetcher help {flag}')" if flag and topics.find(flag) else f"{text} (see '{path} --help')"


def with_next_step(text: str, flags: Collection[str]) -> str:
    """Return the message of an error of ours with the option as a flag, and where to read about it.

    ``flags`` are those of the command that runs: a file may be called as another command's are.
    """
    for match in _OPTION.finditer(text):
        flag = f"--{match['key']}"
        if flag not in flags:
            if match.start():
                continue
            return text
        if not match.start():
            text = f"--{text}"
        return text if "(see " in text else f"{text} (see 'fetcher help {flag}')"
    return text


def option_of(name: str | None, context: click.Context) -> tuple[str, str]:
    """Return the long name of an option, and what its value is called."""
    for param in context.command.params:
        if name in (*param.opts, *param.secondary_opts):
            return _name_of(param), param.metavar or ""
    return name or "", ""


def meant_flag(name: str, command: click.Command) -> tuple[str, str]:
    """Return what to say of a flag that there is none of, and the flag of ours that is meant, if one is certain."""
    known = _long_names(command)
    ours = topics.LONG_NAMES.get(name, name)
    found = topics.foreign(name) if command.name == "crawl" else []
    if ours in topics.topics("flag") and not found:
        return f"{name}: there is no such flag here: {ours} is one of {_owners_of(ours)}", ours
    found = found or _that_fit(topics.foreign(name), command, known)
    if found:
        return _as_foreign(name, found)
    if close := _near(name, known):
        return f"{name}: there is no such flag: did you mean {close}?", close
    if (other := _as_value_or_command(name, command)) is not None:
        return other
    words = {word.replace("_", "-"): word for word in topics.foreign_names() if word.startswith("--")}
    near = difflib.get_close_matches(name.lower(), words, n=1, cutoff=0.85)
    if near and len(near[0]) > len("--abcd") and (found := _that_fit(topics.foreign(words[near[0]]), command, known)):
        said, flag = _as_foreign(name, found)
        return said.replace("no such flag:", f"no such flag, nor {near[0]}:"), flag
    if (close := _near(name, list(topics.topics("flag")), 0.8)) and close not in known:
        return f"{name}: there is no such flag here: {close} is one of {_owners_of(close)}", close
    return f"{name}: there is no such flag: {_what_there_is(command, known)}", ""


def _long_names(command: click.Command) -> list[str]:
    return [
        each
        for param in command.params
        if not getattr(param, "hidden", False)
        for each in (*param.opts, *param.secondary_opts)
        if each.startswith("--")
    ]


def _near(name: str, known: list[str], cutoff: float = 0.7) -> str:
    """Return the flag that is meant by a beginning of it, by its words in another order, or by its letters."""
    begun = [flag for flag in known if flag.startswith(name)] if len(name) > len("--x") else []
    if len(begun) == 1:
        return begun[0]
    best, likeness = _by_words(name, known)
    if likeness < 1:
        bare = {flag.lstrip("-"): flag for flag in known}
        letters = difflib.get_close_matches(name.lstrip("-").lower(), bare, n=1, cutoff=cutoff)
        if letters:
            return bare[letters[0]]
    return best if likeness >= max(0.5, 2 * cutoff - 0.9) else ""


def _that_fit(found: list[tuple[str, str]], command: click.Command, known: list[str]) -> list[tuple[str, str]]:
    """Return those answers that are of use to a command: of ours alone, the lists have all flags of others."""
    if command.name in ("crawl", "extract"):
        return found
    return [(owner, ours) for owner, ours in found if _flag_in(ours) in known]


def _as_foreign(name: str, found: list[tuple[str, str]]) -> tuple[str, str]:
    said = [_said_of(owner, ours) for owner, ours in found]
    owner, ours = found[0]
    flag = owner if ours.startswith("nothing") and owner else _flag_in(ours)
    return f"{name}: there is no such flag: {'; '.join(dict.fromkeys(said))}", flag


def _as_value_or_command(name: str, command: click.Command) -> tuple[str, str] | None:
    """Return what to say of a flag that is what an option may be, or that is a command."""
    from fetcher.cli.commands import COMMANDS

    word = name.lstrip("-")
    for param in sorted(command.params, key=lambda param: param.name != "format"):
        if isinstance(param, click.Option) and word in getattr(param.type, "choices", ()):
            flag = _name_of(param)
            return f"{name}: there is no such flag: did you mean {flag} {word}?", flag
    if word in COMMANDS and word != command.name:
        return f"{name}: there is no such flag: did you mean the command 'fetcher {word}'?", ""
    return None


def _owners_of(flag: str) -> str:
    """Return the commands that have a flag, in words."""
    from fetcher.cli.commands import COMMANDS, cli

    context = click.Context(cli)
    commands = [(name, cli.get_command(context, name)) for name in COMMANDS]
    names = [f"'fetcher {name}'" for name, command in commands if command is not None and flag in _long_names(command)]
    return ", ".join(names) or "another command"


def _what_there_is(command: click.Command, known: list[str]) -> str:
    """Return in words which flags there are: all where they are few, else their groups."""
    if isinstance(command, click.Group):
        return "flags stand behind the command, as in 'fetcher crawl urls.txt -o pages.jsonl'"
    if not known:
        return f"'fetcher {command.name}' has none"
    if len(known) <= MOST_LISTED:
        return f"'fetcher {command.name}' has {', '.join(known)}"
    from fetcher.cli.commands import GROUPS, group_of

    there = {group_of(param) for param in command.params if isinstance(param, click.Option)}
    groups = [group for group in GROUPS if group in there]
    return f"'fetcher {command.name}' has {len(known)}, in the groups {', '.join(groups)}"


def in_plain_text(text: str) -> str:
    """Return a line of Markdown as a terminal shows it."""
    return re.sub(r"\*\*(.+?)\*\*", r"\1", text).replace("`", "")


def _said_of(owner: str, ours: str) -> str:
    """Return what a flag of somebody's is here."""
    text = in_plain_text(ours)
    if text.startswith("nothing"):
        return text.partition(": ")[2] or text
    if text.startswith("is so anyway"):
        return f"it {text}"
    if owner:
        return f"{owner}'s is here {text}"
    return f"perhaps {text} is meant" if text.startswith("-") else f"here {text}"


def _by_words(name: str, known: list[str]) -> tuple[str, float]:
    """Return the flag that has the words of this one, its own or those of another name for it, and how many of them."""
    words = _stems(name)
    scores = {flag: _likeness(words, _stems(flag)) for flag in known}
    for row in topics.synonyms():
        flag = _flag_in(row.ours)
        for word in re.findall(r"--[\w-]+", row.theirs):
            if flag in scores:
                scores[flag] = max(scores[flag], _likeness(words, _stems(word)))
    best = max(scores, key=lambda flag: scores[flag], default="")
    return best, scores.get(best, 0.0)


def _stems(flag: str) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in re.split(r"[-_]", flag.strip("-").lower())) - _COMMON_WORDS


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(len(one), len(other)) if one and other else 0.0


def _flag_in(text: str) -> str:
    """Return the long name of the first flag in a text, ``""`` where there is none of ours."""
    for word in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text):
        flag: str = topics.LONG_NAMES.get(word, word)
        if flag in topics.topics("flag"):
            return flag
    return ""


def _name_of(param: click.Parameter | None) -> str:
    if param is None:
        return "a value"
    if isinstance(param, click.Option):
        return next((name for name in param.opts if name.startswith("--")), param.opts[0])
    return param.metavar or (param.name or "").upper()


def _usage_of(context: click.Context | None) -> str:
    """Return how a command is called, ``""`` where that is not known."""
    if context is None:
        return ""
    return " ".join(
        (
            context.command_path,
            *(_name_of(param) for param in context.command.params if isinstance(param, click.Argument)),
        )
    )


def _has_value(error: click.BadParameter) -> bool:
    return ": " in error.message and not error.message.startswith("'")
