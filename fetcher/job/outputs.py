"""What a job is asked to write: its outputs and the place of its bodies, checked before anything is opened.

Law 2: what does not go together is a ``ConfigError``, before a row is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fetcher.client import Fetcher
from fetcher.compression import SUFFIXES
from fetcher.config import Config
from fetcher.errors import ConfigError
from fetcher.sinks import Layout, check_store, format_of, needs_messages
from fetcher.sinks.layout import BodyPlace, ItemColumns, body_place
from fetcher.store import is_store_url, parse_address

if TYPE_CHECKING:
    from fetcher.sinks.body_folder import BodyFolder

__all__ = ["bodies_of", "body_shown", "check_job_outputs", "format_shown", "layout_of", "paths_of"]


def layout_of(fetcher: Fetcher, fields: Sequence[str] | None, place: BodyPlace, *, since: bool) -> Layout:
    """Return what records look like: by the config and the extractor, with the list's own ``fields``."""
    return Layout.of(
        fetcher.config,
        place,
        since=since,
        fields=None if fields is None else tuple(dict.fromkeys(fields)),
        select=tuple(dict.fromkeys(fetcher.reader.selected_names)),
        select_lists=tuple(fetcher.reader.selected_lists),
        select_types=tuple(fetcher.reader.selected_types),
        explode=ItemColumns.of(fetcher.reader.explosion),
    )


def paths_of(outputs: Sequence[str | os.PathLike[str]], given: str | None, config: Config) -> list[str]:
    """Return the outputs' paths. Raises ``ConfigError`` for one that needs what is not kept."""
    paths = [os.fspath(path) for path in outputs]
    for path in paths:
        if needs_messages(path, given) and not config.keep_messages:
            raise ConfigError(f"{path}: a WARC is made of the messages themselves: Config.of(keep_messages=True)")
    return paths


def check_job_outputs(
    paths: Sequence[str],
    format: str | None,  # noqa: A002  # the option's own name
    config: Config,
    body: str,
    inputs: Sequence[str] = (),
) -> None:
    """Raise ``ConfigError`` for what does not go together with an output in a store."""
    url = next((path for path in paths if is_store_url(path)), None)
    if url is None:
        return
    if len(paths) > 1:
        raise ConfigError(
            f"{url}: an output in a store is a job's only one, for another machine must be able to go on with it alone: "
            "write the others by a run of their own"
        )
    if config.follow.asked:
        raise ConfigError(
            f"{url}: rows that are found (--follow) are known to a ledger alone, and not yet to a store: "
            "leave out --follow, or write to a folder here (-o pages/ -f parquet) and copy it there when it is complete"
        )
    if body_place(body) == "folder":
        raise ConfigError(
            f"{url}: bodies in a folder stay on this machine: keep them in the parts, with --body inline or -f warc"
        )
    place = parse_address(url, ConfigError)
    for listed in inputs:
        if is_store_url(listed) and parse_address(listed, ConfigError).is_within(place):
            raise ConfigError(
                f"output: {listed} is a list that is to be read, and lies under {url}: write to another prefix"
            )
    check_store(url, format_of(url, format), config.content.columns)


def bodies_of(fetcher: Fetcher, body: str, directory: str) -> BodyFolder | None:
    """Return where bodies are stored, if they are. Raises ``ConfigError`` where there will be none, or no place."""
    place = body_place(body)
    if place != "none" and not fetcher.config.keep_body:
        raise ConfigError(f"body: {body!r} needs the bodies of pages: give the fetcher a config with keep_body=True")
    if place != "folder":
        return None
    if os.path.realpath(body) == os.path.realpath(directory):
        raise ConfigError(f"body: {body} is the folder of the job; name one of its own")
    from fetcher.sinks.body_folder import BodyFolder  # most runs keep no bodies

    return BodyFolder(body, owner=os.path.realpath(directory))


def body_shown(layout: Layout, bodies: BodyFolder | None) -> str:
    """Return what must not change of where bodies go: a folder may be moved, and another one has not the files."""
    if bodies is not None:
        return os.path.basename(os.path.abspath(bodies.path)) + "/"
    return "inline" if "body" in layout.columns else "none"


def format_shown(path: str, given: str | None) -> str:
    """Return what must not change of an output's format: with its packing."""
    packing = path[path.rfind(".") :].lower()
    return format_of(path, given) + (packing if packing in SUFFIXES else "")
