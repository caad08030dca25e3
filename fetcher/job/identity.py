"""The identity of a job: what must not change while it lasts, its lists and whatever decides what stands in a record.

Law 6: the same command continues. A list may grow, and all that is not named here may change. What has changed and
must not is refused, with what it was, what it is and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Self

import msgspec

from fetcher.config import Config, Follow
from fetcher.errors import ConfigError, LedgerError
from fetcher.sources.inputs import DEFAULT_OPTIONS, ListOptions
from fetcher.terminal import printable
from fetcher.urls import suffixes_digest, without_userinfo

__all__ = ["JobIdentity"]

SHOWN_CHARACTERS = 120  # of a value in a message

_FLAGS = {
    "input_format": "--from",
    "url_column": "--url-column",
    "delimiter": "--delimiter",
    "encoding": "--encoding",
    "carry": "--carry",
    "default_scheme": "--default-scheme",
    "outputs": "the format of -o",
    "select": "--select",
    "select_from": "the rules of --select-from",
    "table": "--table",
    "explode": "--explode",
    "skip_when": "--skip-when",
    "text": "--text",
    "content": "--with",
    "text_format": "--text-format",
    "extract": "--extract",
    "parse": "parse",
    "head": "--head",
    "accept": "--accept",
    "dedupe": "--dedupe",
    "max_size": "--max-size",
    "truncate": "--truncate",
    "preview": "--preview",
    "columns": "--columns",
    "keep_headers": "--keep-headers",
    "body": "--body",
    "csv_bom": "--csv-bom",
    "since": "--since",
    "shard": "--shard",
    "follow": "--follow",
    "follow_css": "--follow-css",
    "depth": "--depth",
    "within": "--within",
    "include": "--include",
    "exclude": "--exclude",
    "max_pages": "--max-pages",
    "max_pages_per_host": "--max-pages-per-host",
}
"""Field -> the flag a user knows it by. The inputs are compared on their own."""

_TABLES = ("csv", "sqlite", "parquet")
"""The formats whose columns are fixed at the start."""


class JobIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must not change. ``inputs`` are as shown to people, URLs without user name and password, ``outputs`` formats such as ``jsonl.gz``.

    ``one_table`` says that a table's columns are those of one list. ``accept`` is a text of ranges, ``max_size`` in
    bytes, ``extract`` the name of the user's function. A ``shard`` has the digest of the public suffix list beside it,
    by which sites are told.
    """

    inputs: tuple[str, ...]
    input_format: str | None
    url_column: str
    default_scheme: str
    outputs: tuple[str, ...]
    select: tuple[str, ...]
    extract: str | None
    accept: str
    dedupe: bool
    max_size: int
    truncate: bool
    preview: int
    select_from: tuple[str, ...] = ()
    table: str | None = None
    skip_when: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    text: str | None = None
    text_format: str = "plain"
    columns: tuple[str, ...] = ()
    keep_headers: tuple[str, ...] = ()
    body: str = "none"
    csv_bom: bool = False
    one_table: bool = False
    # Ledgers from before these options have none of them.
    delimiter: str | None = None
    encoding: str | None = None
    carry: tuple[str, ...] | None = None
    head: bool = False
    explode: str | None = None
    since: str | None = None
    parse: bool = True
    shard: str | None = None
    suffixes: str | None = None
    follow: bool = False
    follow_css: str | None = None
    depth: int | None = None
    within: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_pages: int | None = None
    max_pages_per_host: int | None = None

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        inputs: Sequence[str],
        list_options: ListOptions,
        outputs: Sequence[str],
        extract: str | None,
        body: str = "none",
        csv_bom: bool = False,
        one_table: bool = False,
        since: str | None = None,
    ) -> Self:
        """Take from ``config`` and the command what must not change."""
        return cls(
            inputs=tuple(_text(without_userinfo(text)) if "://" in text else _text(text) for text in inputs),
            input_format=list_options.format,
            url_column=_text(list_options.url_column or "url"),
            default_scheme=config.default_scheme,
            outputs=tuple(outputs),
            select=tuple(map(_text, config.select)),
            extract=None if extract is None else _text(extract),
            accept=_ranges(config.accept.ranges),
            dedupe=config.dedupe,
            max_size=config.limits.max_size,
            truncate=config.limits.truncate,
            preview=config.preview,
            select_from=tuple(_text(repr(group)) for group in config.select_from),
            table=None if config.table is None else _text(config.table),
            skip_when=tuple(sorted(config.skip_when)),
            content=config.content.asked,
            text=config.content.method,
            text_format=config.content.text_format,
            columns=config.columns,
            keep_headers=tuple(sorted(config.keep_headers)),
            body=body,
            csv_bom=csv_bom and any(output.startswith("csv") for output in outputs),
            one_table=one_table and any(output.partition(".")[0] in _TABLES for output in outputs),
            delimiter=list_options.delimiter,
            encoding=list_options.encoding,
            since=None if since is None else _text(since),
            carry=None if list_options.carry is None else tuple(map(_text, list_options.carry)),
            head=config.head,
            explode=None if config.explode is None else _text(config.explode),
            parse=config.parse or all(output.partition(".")[0] == "text" for output in outputs),  # has no such column
            shard=None if config.shard is None else str(config.shard),
            suffixes=None if config.shard is None else suffixes_digest(),
            **(_following(config.follow) if config.follow.asked else {}),
        )

    def to_json(self) -> bytes:
        """Return the identity as it is kept in a ledger."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes, *, path: str = "") -> Self:
        """Read the identity kept in the ledger at ``path``. Raises ``LedgerError`` where it cannot be read."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (ValueError, RecursionError) as error:
            where = f"{path}: " if path else ""
            raise LedgerError(
                f"{where}the identity of the job cannot be read ({printable(str(error), SHOWN_CHARACTERS)}): "
                "put back the ledger as it was, or begin again with --fresh"
            ) from error

    def check(self, now: JobIdentity) -> None:
        """Raise ``ConfigError`` for the first field that differs ``now``; there may be more inputs."""
        _check_inputs(self.inputs, now.inputs)
        for field, flag, was, is_now in self.differences(now):
            advice = _ADVICE
            if field == "default_scheme" and is_now == "auto":  # https was the default once, and nobody gave it
                advice = advice.replace("it as before", f"{flag} {was}")
            raise ConfigError(f"{flag} was {was} when this job began, and is {is_now}: {advice}")
        if self.suffixes != now.suffixes:
            raise ConfigError(
                f"the public suffix list was {self.suffixes} when this job began, and is {now.suffixes}: by it rows are "
                "dealt to shards, and some would be fetched by two or by none; install that version of publicsuffixlist "
                "again, write to another -o, or begin all shards again with --fresh"
            )
        if self.one_table and not now.one_table:
            raise ConfigError(
                "this job began with one list, and its table has no column for what other lists have: give that one "
                "alone, write to another -o, or begin again with --fresh"
            )

    def differences(self, other: JobIdentity) -> Iterator[tuple[str, str, str, str]]:
        """Yield each option that is another in ``other``: its field, its flag, and both values as they may be shown."""
        for field, flag in _FLAGS.items():
            one, two = getattr(self, field), getattr(other, field)
            if one != two:
                shown = [_shown(value, empty="nothing" if field == "carry" else _NOT_GIVEN) for value in (one, two)]
                yield field, flag, shown[0], shown[1]

    def asked(self) -> Iterator[tuple[str, str]]:
        """Yield each option that is not what it is by default, and its value as it may be shown."""
        plain = JobIdentity.of(Config(), inputs=(), list_options=DEFAULT_OPTIONS, outputs=(), extract=None)
        for field, flag, value, _ in self.differences(plain):
            if field not in ("outputs", "parse"):
                yield flag, value

    def other_list(self, other: JobIdentity) -> tuple[str, str, str] | None:
        """Return the first INPUT that is another in ``other``: which, and both as they may be shown."""
        for place, (one, two) in enumerate(zip_longest(self.inputs, other.inputs), 1):
            if one is None or two is None or _same_name(one) != _same_name(two):
                return f"INPUT {place}", _shown(one), _shown(two)
        return None


def _following(rules: Follow) -> dict[str, Any]:
    return {
        "follow": True,
        "follow_css": None if rules.css is None else _text(rules.css),
        "depth": rules.depth,
        "within": rules.within,
        "include": tuple(map(_text, rules.include)),
        "exclude": tuple(map(_text, rules.exclude)),
        "max_pages": rules.max_pages,
        "max_pages_per_host": rules.max_pages_per_host,
    }


def _check_inputs(were: Sequence[str], now: Sequence[str]) -> None:
    for place, was in enumerate(were):
        if place >= len(now):
            raise ConfigError(f"INPUT {place + 1} was {_shown(was)} when this job began, and is not given: {_ADVICE}")
        if _same_name(was) != _same_name(now[place]):
            raise ConfigError(
                f"INPUT {place + 1} was {_shown(was)} when this job began, and is {_shown(now[place])}: {_ADVICE}"
            )


def _same_name(shown: str) -> str:
    """Return what makes an input the same: a URL is it whole, a file by its name wherever it lies."""
    return shown if "://" in shown else os.path.basename(shown)


_NOT_GIVEN = "not given"


def _shown(value: Any, *, empty: str = _NOT_GIVEN) -> str:
    if value is None:
        return _NOT_GIVEN
    if value == ():
        return empty
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = ", ".join(map(str, value))
    return printable(str(value), SHOWN_CHARACTERS)


def _ranges(ranges: Iterable[tuple[int, int]]) -> str:
    """Return status codes as one text however they were given: sorted, and what touches is one range."""
    merged: list[list[int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1][1] = max(high, merged[-1][1])
        else:
            merged.append([low, high])
    return ",".join(f"{low}-{high}" if low < high else str(low) for low, high in merged)


def _text(text: str) -> str:
    """Return ``text`` in what JSON can carry: a file name need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


_ADVICE = "give it as before, write to another -o, or begin again with --fresh"
