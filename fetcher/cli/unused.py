"""What was given and changes nothing: said before a run, for it was meant to change something.

It is a warning and no error: the environment is shared with other programs (Kubernetes sets ``FETCHER_PORT`` for a
service called fetcher), and a configuration file with other lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fetcher.report.notices import Notices
from fetcher.sources import is_url_argument
from fetcher.sources.inputs import format_of
from fetcher.sources.lines import list_name
from fetcher.urls import without_userinfo

__all__ = ["unknown_variables", "unused_list_options", "warn_of_unused"]

_PREFIX = "FETCHER_"
_NO_OPTIONS = {"FETCHER_TRACEBACK", "FETCHER_SUITES", "FETCHER_SAMPLE", "FETCHER_PARSEL_STEP"}
"""Variables of ours that no option reads: of the command's errors, of the tests."""


def warn_of_unused(notices: Notices, inputs: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> None:
    """Tell of all of it."""
    for text in (*unknown_variables(os.environ), *unused_list_options(inputs, settings or {})):
        notices.say(f"warning: {text}", level="warning")


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence about the variables that begin with our prefix and that no command reads."""
    given = [name for name in environment if name.upper().startswith(_PREFIX) and name not in _NO_OPTIONS]
    known = _known_variables() if given else frozenset()
    shown = []
    for name in sorted(set(given) - known):
        import difflib  # for a misspelt name alone

        endings = [each.removeprefix(_PREFIX) for each in known]
        close = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), endings, n=1)
        shown.append(f"{name} (did you mean {_PREFIX}{close[0]}?)" if close else name)
    if shown:
        yield f"no setting is called {', '.join(shown)}"


def unused_list_options(inputs: Sequence[str], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence where columns are named and no input has columns, or a delimiter and none is a CSV."""
    named = [each for each in inputs if settings.get("from") or not is_url_argument(each)]
    lists = {each: format_of(each, settings.get("from")) for each in named}
    kinds = set(lists.values())
    name, kind = next(((without_userinfo(list_name(each)), kind) for each, kind in lists.items()), ("", ""))
    what = f"{name} is read as {kind}{_READ_AS.get(kind, '')}" if name else "no INPUT is a list"
    if not inputs:
        return
    for key, default, without in (("url_column", "url", {"txt", "sitemap"}), ("carry", None, {"txt"})):
        if settings.get(key) not in (None, default) and not kinds - without:
            yield f"{key.replace('_', '-')} is of no use here: {what}"
    if settings.get("delimiter") is not None and "csv" not in kinds:
        yield f"delimiter is of no use here: {what}"
    if settings.get("encoding") is not None and kinds == {"sitemap"}:
        yield f"encoding is of no use here: {what}, which says its own"


_READ_AS = {"txt": ", one URL a line (--from csv reads columns)"}


def _known_variables() -> frozenset[str]:
    import click

    from fetcher.cli.commands import COMMANDS, cli

    context = click.Context(cli)
    found: set[str] = set()
    for name in COMMANDS:
        command = cli.get_command(context, name)
        for param in command.params if command is not None else ():
            found.update([param.envvar] if isinstance(param.envvar, str) else param.envvar or ())
    return frozenset(found)
