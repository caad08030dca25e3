"""A run in figures: the summary for people, and the same as JSON. Law 1: the stats stand in both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from fetcher.buckets import Shard
from fetcher.hosts.state import HostReport
from fetcher.model import Change
from fetcher.stats import FieldCount, Stats, counted
from fetcher.terminal import printable

__all__ = ["Summary", "describe_trouble", "human_bytes", "human_seconds", "summarize"]

SHOWN_HOSTS = 5  # hosts in the text
MAX_EMPTY_SHARE = 0.99  # of the pages a field may be missing on


class Summary(msgspec.Struct, frozen=True):
    """The final counts: ``input = ok + failed + skipped + pending``; ``more`` rows were never read.

    ``seconds`` is the wall time of this run, ``bytes`` the decoded bodies, ``codes`` the failures by code, most first;
    ``earlier`` of the pages were there before this run. ``hosts`` are those that were slow, throttled, parked or
    denied. ``by_http`` of this run's rows named no scheme and were asked by http. ``notes`` say what was done otherwise
    than was asked. ``fields`` has for each selected one the ``pages`` it was looked for on, on how many it was
    ``found``, and where its text was not of its type (``unconverted``); ``content`` the same of the columns that are
    read out of pages: ``found`` says on how many that could be done. ``changes`` counts what became of the pages of an
    earlier run (``--since``), by this run. ``shard`` is the share of the list that its rows are, and ``listed`` how
    many rows of all shards were read. ``found`` of the rows are links that were followed; there is ``more`` too where a
    limit left links out. ``unread`` names the selected fields whose rule can read none of the bodies that it saw, with
    the types of these.
    """

    input: int
    ok: int
    failed: int
    skipped: int
    pending: int
    more: bool
    bytes: int
    seconds: float
    pages_per_second: float
    codes: dict[str, int]
    earlier: int = 0
    by_http: int = 0
    hosts: list[HostReport] = []
    exit: int | None = None
    notes: list[str] = []
    fields: dict[str, dict[str, int]] = {}
    content: dict[str, dict[str, int]] = {}
    changes: dict[str, int] = {}
    shard: str | None = None
    listed: int | None = None
    found: int | None = None
    unread: dict[str, list[str]] = {}

    def as_text(self) -> str:
        """Return one or two lines for people."""
        rest = f" + {self.pending:,} pending" if self.pending else ""
        text = (
            f"{counted(self.input, 'row')}{' and more' if self.more else ''} = {self.ok:,} ok + {self.failed:,} failed"
            f" + {self.skipped:,} skipped{rest}, in {human_seconds(self.seconds)}"
            f" ({self.pages_per_second:,.0f} pages/s, {human_bytes(self.bytes)})"
        )
        if self.earlier:
            text += f", {self.earlier:,} of the pages by earlier runs"
        if self.listed is not None:
            text += f"\n  shard {self.shard}: {self.input:,} of {counted(self.listed, 'row')}{' so far' if self.more else ''}"
        if self.by_http:
            text += f"\n  {counted(self.by_http, 'row')} without a scheme went by http: https was not spoken there"
        if self.changes:
            text += "\n  " + ", ".join(f"{count:,} {change}" for change, count in self.changes.items())
        text += "".join(f"\n  {note}" for note in self.notes)
        if self.codes:
            text += "\n  " + " · ".join(f"{code} {count:,}" for code, count in self.codes.items())
        text += "".join(
            f"\n  {printable(line)}"
            for line in (*self._unread_fields(), *self._broken_fields(), *self._unread_content())
        )
        unclear = next((code for code in self.codes if code != "duplicate"), None)
        question = f"\n  what is {unclear}? fetcher help {unclear}" if unclear else ""
        trouble = "".join(f"\n  {printable(describe_trouble(host))}" for host in self.hosts[:SHOWN_HOSTS])
        more = len(self.hosts) - SHOWN_HOSTS
        rest_of_hosts = f"\n  and {counted(more, 'more host')} that gave trouble" if more > 0 else ""
        return text + trouble + rest_of_hosts + question

    def _unread_fields(self) -> Iterator[str]:
        """Yield a line for the fields whose rules saw only bodies that they cannot read, those of the same together."""
        alike: dict[tuple[int, str], list[str]] = {}
        for name, types in self.unread.items():
            alike.setdefault((self.fields[name]["pages"], ", ".join(types)), []).append(name)
        for (pages, shown), names in alike.items():
            rule = "its rule" if len(names) == 1 else "their rules"
            yield (
                f"{', '.join(names)}: {counted(pages, 'page')}, and none that {rule} can read ({shown}): CSS and XPath read "
                "HTML and XML, json: reads JSON"
            )

    def _broken_fields(self) -> Iterator[str]:
        """Yield a line for each field that nearly no page has, or whose text was not of its type."""
        for name, count in self.fields.items():
            if name in self.unread:
                continue
            pages, empty = count["pages"], count["pages"] - count["found"]
            if empty > MAX_EMPTY_SHARE * pages:
                yield f"{name}: empty on {empty:,} of {counted(pages, 'page')}: does its selector fit them?"
            if count["unconverted"]:
                yield f"{name}: on {counted(count['unconverted'], 'page')} its text was not of its type"

    def _unread_content(self) -> Iterator[str]:
        """Yield a line for each column that no page could have, or of which something could not be read."""
        for name, count in self.content.items():
            if count["pages"] and not count["found"] and name != "lang":  # of that most pages say nothing
                yield f"{name}: null on all of {counted(count['pages'], 'page')}: none is of a type that it is read from"
            if count["unconverted"]:
                what = "is no JSON, and kept as it is written" if name == "jsonld" else "could not be read"
                yield f"{name}: on {counted(count['unconverted'], 'page')} some of it {what}"

    def as_json(self) -> str:
        """Return the same as one indented JSON object."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


def summarize(stats: Stats, seconds: float, *, earlier: int = 0, shard: Shard | None = None, **more: Any) -> Summary:
    """Close the stats of a run that took ``seconds``; ``earlier`` pages were in them when it began."""
    seconds = max(0.0, seconds)  # a clock may be set back
    return Summary(
        input=stats.input,
        ok=stats.ok,
        failed=stats.failed,
        skipped=stats.skipped,
        pending=stats.pending,
        more=stats.more or (stats.following is not None and (stats.following.cut or stats.following.hosts_cut)),
        bytes=stats.bytes,
        seconds=round(seconds, 3),
        pages_per_second=round((stats.ok - earlier) / seconds, 1) if seconds > 0 else 0.0,
        earlier=earlier,
        by_http=stats.by_http,
        codes=dict(stats.codes.most_common()),
        fields=_counts(stats.fields),
        content=_counts(stats.content),
        unread={name: sorted(count.types) for name, count in stats.fields.items() if 0 < count.pages == count.unread},
        changes={change: stats.changes[change] for change in get_args(Change) if stats.changes[change]},
        shard=None if shard is None else str(shard),
        listed=None if shard is None else stats.input + stats.elsewhere,
        found=None if stats.following is None else stats.following.found,
        **more,
    )


def _counts(fields: dict[str, FieldCount]) -> dict[str, dict[str, int]]:
    return {
        name: {"pages": count.pages, "found": count.found, "unconverted": count.unconverted}
        for name, count in fields.items()
    }


def describe_trouble(host: HostReport) -> str:
    """Return one line on the trouble a host gave."""
    facts = [
        f"{count:,} {what}"
        for count, what in (
            (host.refused, "refused"),
            (host.failed, "without an answer"),
            (host.slow, "slow"),
            (host.denied, "denied by robots.txt"),
        )
        if count
    ]
    if host.parked:
        facts.append(f"parked for {human_seconds(host.parked)}")
    if host.ceiling is not None:
        facts.append(f"bears {host.ceiling} at once")
    if host.spacing:
        facts.append(f"bears one in {host.spacing:.2g} s")
    if host.given_up is not None:
        facts.append("given up")
    return f"{host.host}: {counted(host.requests, 'request')}; {', '.join(facts)}"


def human_bytes(size: float) -> str:
    """Return a size with its unit: ``3.1 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration: ``1.9 s``, ``3 min 20 s``, ``2 h 05 min``; none is below zero."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
