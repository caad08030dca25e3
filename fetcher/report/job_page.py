"""All that the page of a job shows: its figures, its pace and its distributions out of the ledger, its rows out of an output.

Law 1: the figures are those of ``job.report``, of one moment. Law 3: the database does the sums, and rounds what it
counts to three digits. Law 6: nothing is changed, and a run commits undisturbed beside it.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from fetcher.errors import ConfigError, SourceError
from fetcher.job.identity import JobIdentity
from fetcher.job.ledger_reader import OK
from fetcher.job.pace import PaceRow
from fetcher.job.paths import folder_for
from fetcher.job.report import MAX_HOSTS, JobReport, JobSnapshot, figures_of
from fetcher.job.schema import whole
from fetcher.job.shards import ShardsReport, in_order, report_shards
from fetcher.page.select import Selection
from fetcher.report.distributions import Distribution
from fetcher.report.records import READABLE, RecordSums, read_records
from fetcher.sources.earlier import SelectedName, earlier_format
from fetcher.store import is_store_url
from fetcher.terminal import printable

__all__ = ["JobPage", "read_job", "read_shards"]

MAX_STEPS = 20_000  # of a distribution: three digits of up to fifteen
MAX_REFUSED_HOSTS = 50
MAX_HOST_CHARACTERS = 255


class JobPage(msgspec.Struct, frozen=True):
    """What is told of one job. ``asked`` are its options with their values, ``pace`` is ``None`` where that is not known.

    ``latency`` are the milliseconds on the wire of each page with its number, ``failed_latency`` those of what failed
    after a try, ``sizes`` the bytes of pages. ``refused`` are hosts with the number of URLs that their robots.txt
    forbids. ``records`` is what an output says, ``made`` when all this was read, in UTC.
    """

    figures: JobReport
    inputs: list[str]
    asked: list[tuple[str, str]]
    pace: list[PaceRow] | None
    latency: Distribution
    failed_latency: Distribution
    sizes: Distribution
    refused: list[tuple[str, int]]
    records: RecordSums
    source: str | None
    made: str


def read_job(folder: str, *, hosts: int = MAX_HOSTS, into: RecordSums | None = None) -> JobPage:
    """Read the job in ``folder`` and one of its outputs. Raises ``LedgerError``.

    What cannot be read of an output is told in ``records.trouble``. With ``into`` the records are added to others.
    """
    with JobSnapshot(folder) as view:
        figures = figures_of(view, hosts)
        paths = [_place_of(path, folder) for path in view.output_paths()]
        identity = JobIdentity.from_json(view.identity, path=view.path) if view.identity != b"{}" else None
        page = JobPage(
            figures=figures,
            inputs=[printable(each, 300) for each in identity.inputs] if identity else [],
            asked=list(identity.asked()) if identity else [],
            pace=view.pace(),
            latency=_distribution(view, "elapsed", _OF_PAGES),
            failed_latency=_distribution(view, "elapsed", _OF_FAILURES),
            sizes=_distribution(view, "bytes", _OF_PAGES),
            refused=_refused(view),
            records=into or RecordSums(),
            source=None,
            made=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
    source = _best_of(paths)
    if source is None:
        page.records.trouble.append(
            f"{printable(', '.join(paths[:3]), 300) or 'there is no output'}: its rows cannot be read again: URLs, messages and fields are told of outputs in "
            ".jsonl, .csv, .parquet, .sqlite and .warc.gz"
        )
        return page
    content = identity.content if identity else ()
    selected: list[SelectedName] = []
    try:
        selected = _selected(identity) if identity else []
    except ConfigError as error:
        page.records.trouble.append(printable(str(error), 300))
    columns = [_COLUMN_OF.get(name, name) for name in content]
    read_records(source, content=columns, selected=selected, into=page.records)
    return msgspec.structs.replace(page, source=printable(source, 300))


def read_shards(folders: Sequence[str]) -> tuple[ShardsReport, list[JobPage]]:
    """Read the shards of one list: their sums, and the page of each, with the records of all in one.

    Raises ``ConfigError`` for jobs that do not belong together, and ``LedgerError``.
    """
    sums = report_shards(folders, hosts=MAX_HOSTS)
    records = RecordSums()
    return sums, [read_job(each.folder, into=records) for each in in_order(folders)]


_COLUMN_OF = {"links": "link_list", "images": "image_list"}
_OF_PAGES = "code = (SELECT id FROM codes WHERE name = ?)"
_OF_FAILURES = "code IS NOT (SELECT id FROM codes WHERE name = ?)"


def _rounded(column: str) -> str:
    """Return SQL that rounds a whole number down to three digits: so there are few steps, however large it may be."""
    steps = " ".join(
        f"WHEN {column} < {10 ** (digits + 3)} THEN {column} / {10**digits} * {10**digits}" for digits in range(1, 13)
    )
    return f"CASE WHEN {column} < 1000 THEN {column} {steps} ELSE 1000000000000000 END"


def _distribution(view: JobSnapshot, column: str, which: str) -> Distribution:
    query = (
        f"SELECT {_rounded(column)} AS value, count(*) AS many FROM rows "  # noqa: S608 - words of ours
        f"WHERE {which} AND attempts > 0 AND {column} >= 0 GROUP BY value LIMIT ?"
    )
    found = view.ask(query, OK, MAX_STEPS)
    return Distribution((whole(view.path, row["value"]), whole(view.path, row["many"])) for row in found)


def _refused(view: JobSnapshot) -> list[tuple[str, int]]:
    found = view.ask(_REFUSED, "robots_denied", MAX_REFUSED_HOSTS)
    return [(printable(str(row["host"]), MAX_HOST_CHARACTERS), whole(view.path, row["many"])) for row in found]


def _place_of(path: str, folder: str) -> str:
    """Return where an output is: a relative path is that of the command that wrote it, so one beside its job is sought there."""
    folder = folder.rstrip(os.sep)
    name = os.path.basename(path.rstrip(os.sep))
    if is_store_url(path) or os.path.isabs(path) or os.path.basename(folder) != os.path.basename(folder_for([name])):
        return path
    return os.path.join(os.path.dirname(folder), name)


def _best_of(paths: Sequence[str]) -> str | None:
    """Return the output that is read the fastest, of those that can be read again."""
    kinds: dict[str, str] = {}
    for path in paths:
        try:
            kinds.setdefault(earlier_format(path), path)
        except SourceError:  # text
            continue
    there = [kinds[kind] for kind in READABLE if kind in kinds]
    return next((path for path in there if os.path.exists(path)), there[0] if there else None)


def _selected(identity: JobIdentity) -> list[SelectedName]:
    """Return the names that the rules of a job give, those of ``--select-from`` and ``--table`` too.

    Raises ``ConfigError`` for rules that cannot be read here: a newer version's, or those that need a library.
    """
    if not (identity.select or identity.select_from or identity.table is not None):
        return []
    try:
        groups = [ast.literal_eval(group) for group in identity.select_from]
        selection = Selection.of(identity.select, table=identity.table, groups=groups)
        columns = selection.columns if identity.explode is None else selection.exploded(identity.explode).columns
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:  # ConfigError is a ValueError
        raise ConfigError(f"what was selected is not told: {error or type(error).__name__}") from None
    return [SelectedName(each.name, each.type, each.many, each.plain) for each in columns]


_REFUSED = """
SELECT substr(coalesce(name, ''), 1, 256) AS host, many FROM (
    SELECT host AS number, count(*) AS many FROM rows WHERE code = (SELECT id FROM codes WHERE name = ?)
    GROUP BY host ORDER BY many DESC LIMIT ?) LEFT JOIN hosts ON id = number ORDER BY many DESC, host
"""
