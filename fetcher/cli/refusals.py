"""What is wrong with a command line in one line: the flag and its value, what is allowed, and the next step.

All errors of use come through here, click's and our own: ``--concurrency 0: must be at least 1 (see 'fetcher help
--concurrency')``. An error of ours begins with the option that it is about; where it comes from a file or a variable, that
stands before it.
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
        text = f"{_name_of(error.param)} is missing" + (f": one of {', '.join(choices)}" if choices else "")
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
    known = [each for param in command.params for each in (*param.opts, *param.secondary_opts) if each.startswith("--")]
    ours = topics.LONG_NAMES.get(name, name)
    found = topics.foreign(name) if command.name == "crawl" else []
    if ours in topics.topics("flag") and not found:
        return f"{name}: there is no such flag here: {ours} is one of another command", ours
    found = found or topics.foreign(name)
    if found:
        said = [_said_of(owner, ours) for owner, ours in found]
        owner, ours = found[0]
        flag = owner if ours.startswith("nothing") and owner else _flag_in(ours)
        return f"{name}: there is no such flag: {'; '.join(dict.fromkeys(said))}", flag
    close = [flag for flag in known if flag.startswith(name)] if len(name) > len("--x") else []
    if len(close) != 1:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not close:
        close = _by_words(name, known)
    if close:
        return f"{name}: there is no such flag: did you mean {close[0]}?", close[0]
    return f"{name}: there is no such flag", ""


def in_plain_text(text: str) -> str:
    """Return a line of Markdown as a terminal shows it."""
    return re.sub(r"\*\*(.+?)\*\*", r"\1", text).replace("`", "")


def _said_of(owner: str, ours: str) -> str:
    """Return what a flag of somebody's is here."""
    text = in_plain_text(ours)
    if text.startswith("nothing"):
        return text.partition(": ")[2] or text
    return f"{owner}'s is here {text}" if owner else f"perhaps {text} is meant"


def _by_words(name: str, known: list[str]) -> list[str]:
    """Return the flag that has the words of this one: its own, or those of another name for it."""
    words = _stems(name)
    scores: dict[str, float] = {}
    for flag in known:
        scores[flag] = _likeness(words, _stems(flag))
    for row in topics.synonyms():
        flag = _flag_in(row.ours)
        for word in re.findall(r"--[\w-]+", row.theirs):
            scores[flag] = max(scores.get(flag, 0.0), _likeness(words, _stems(word)))
    best = max(scores, key=lambda flag: scores[flag], default="")
    return [best] if best in known and scores[best] >= 0.5 else []


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


def _has_value(error: click.BadParameter) -> bool:
    return ": " in error.message and not error.message.startswith("'")
