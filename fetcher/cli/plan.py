"""What a crawl is going to do, checked: all that is wrong with it is found before the first request.

Law 2: a list, an option or an output that is no good ends the run while nothing has been fetched, opened for
writing or overwritten.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Mapping
from typing import Any

import msgspec

from fetcher.cli.settings import RUN_KEYS, descriptors_for, make_config
from fetcher.config import Config
from fetcher.errors import ConfigError, SinkError
from fetcher.sinks import check_output
from fetcher.sinks.place import check_place, descriptor_of
from fetcher.sources import check, is_url_argument

__all__ = ["Plan", "make_plan"]


class Plan(msgspec.Struct, frozen=True):
    """A crawl that has been checked: nothing in it is known to be wrong."""

    config: Config
    inputs: list[str]
    outputs: list[str]
    settings: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.settings.get(key, RUN_KEYS[key])


def make_plan(inputs: list[str], settings: Mapping[str, Any]) -> Plan:
    """Check the settings, the lists and the outputs, changing nothing.

    Raises ``ConfigError``, ``SourceError`` and ``SinkError``.
    """
    urls = inputs if all(is_url_argument(text) for text in inputs) else []
    plan = Plan(make_config(settings, urls), inputs, settings.get("output") or ["-"], settings)
    descriptors_for(plan.config.limits.concurrency)
    check(inputs, format=plan["from"], url_column=plan["url_column"])
    _check_outputs(plan)
    return plan


def _check_outputs(plan: Plan) -> None:
    lists = {_identity(path, reading=True) for path in plan.inputs if not is_url_argument(path)} - {None}
    taken: dict[Hashable, str] = {}
    summary = [] if plan["summary"] in (None, "-") else [plan["summary"]]
    for path in [*plan.outputs, *summary]:
        what = "summary" if path in summary else "output"
        if os.path.isdir(path):
            raise SinkError(f"{path}: is a folder; name a file in it, such as {os.path.join(path, 'pages.jsonl')}")
        place = _identity(path)
        if place is not None and place in lists:
            raise ConfigError(f"{what}: {_shown(path)} is a list that is to be read; write to another file")
        if place is not None and place in taken:
            raise ConfigError(f"{what}: {_shown(path)} is given twice (as {_shown(taken[place])})")
        taken[place] = path
        if what == "output":
            check_output(path, format=plan["format"], fresh=plan["fresh"])
        else:
            check_place(path, fresh=True)


def _identity(path: str, *, reading: bool = False) -> Hashable:
    """Return what is the same for two names of one file or descriptor; ``None`` where two do no harm."""
    descriptor = 0 if reading and path == "-" else descriptor_of(path)
    try:
        status = os.stat(path) if descriptor is None else os.fstat(descriptor)
    except (OSError, ValueError):
        return os.path.realpath(path) if descriptor is None else None
    if stat.S_ISREG(status.st_mode):
        return (status.st_dev, status.st_ino)
    return None if descriptor is None else descriptor


def _shown(path: str) -> str:
    return "standard output" if path == "-" else path
