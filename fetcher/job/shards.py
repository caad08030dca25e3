"""The jobs of several shards, added up: one list that several runs divide among them, each with a ledger of its own.

Law 1: the sums are of rows that belong together. Jobs of another list, of other options, of another division or of
another public suffix list are refused, and so is a shard that is given twice; one that is missing is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import msgspec

from fetcher.errors import ConfigError
from fetcher.found.store import LISTED_IDS
from fetcher.hosts.state import HostReport
from fetcher.job.changes import ChangeReport, changes_of
from fetcher.job.identity import JobIdentity
from fetcher.job.report import COMPLETE, INTERRUPTED, RUNNING, STOPPED, HostFigures, JobReport, JobSnapshot, figures_of
from fetcher.job.schema import whole
from fetcher.stats import counted
from fetcher.terminal import printable

__all__ = ["ShardFigures", "ShardJob", "ShardsReport", "changes_of_shards", "in_order", "report_shards"]

_OWN = frozenset({"shard", "since"})  # what may be another for each shard


class ShardFigures(msgspec.Struct, frozen=True):
    """How the job of one shard stands; see ``JobReport``."""

    shard: str
    job: str
    state: str
    input: int
    ok: int
    failed: int
    skipped: int
    pending: int
    left: int | None
    bytes: int
    seconds: float
    pages_per_second: float


class ShardsReport(msgspec.Struct, frozen=True):
    """How the shards of a list stand together: the sums of what ``JobReport`` has of each.

    ``state`` is ``complete`` where all are and none is ``missing``. ``left`` is ``None`` where it is not known of each,
    or one is missing. ``seconds`` is the longest of them, and ``pages_per_second`` the sum, as of runs side by side.
    Rows that are no URL count as a host of each shard that has such. ``notes`` say in words what does not fit.
    """

    of: int
    missing: list[str]
    state: str
    input: int
    done: int
    ok: int
    failed: int
    skipped: int
    pending: int
    more: bool
    left: int | None
    bytes: int
    seconds: float
    pages_per_second: float
    codes: dict[str, int]
    hosts: int
    slowest: list[HostFigures]
    failing: list[HostFigures]
    troubled: list[HostReport]
    shards: list[ShardFigures]
    notes: list[str]


class ShardJob(msgspec.Struct, frozen=True):
    """The job of a shard, read: its number of ``of``, what must not change of it, and the last row it has."""

    folder: str
    number: int
    of: int
    identity: JobIdentity
    figures: JobReport
    last: int


def report_shards(folders: Sequence[str], *, hosts: int) -> ShardsReport:
    """Return how the jobs in ``folders`` stand together, with up to ``hosts`` hosts of each kind.

    Raises ``ConfigError`` for jobs that do not belong together, and ``LedgerError``.
    """
    jobs = in_order(folders, hosts)
    figures = [job.figures for job in jobs]
    missing = _missing(jobs)
    lefts = [each.left for each in figures]
    codes: Counter[str] = Counter()
    for each in figures:
        codes.update(each.codes)
    return ShardsReport(
        of=jobs[0].of,
        missing=missing,
        state=_state([each.state for each in figures], missing),
        input=sum(each.input for each in figures),
        done=sum(each.done for each in figures),
        ok=sum(each.ok for each in figures),
        failed=sum(each.failed for each in figures),
        skipped=sum(each.skipped for each in figures),
        pending=sum(each.pending for each in figures),
        more=bool(missing) or any(each.more for each in figures),
        left=None if missing or None in lefts else sum(left for left in lefts if left is not None),
        bytes=sum(each.bytes for each in figures),
        seconds=max(each.seconds for each in figures),
        pages_per_second=round(sum(each.pages_per_second for each in figures), 1),
        codes=dict(codes.most_common()),
        hosts=sum(each.hosts for each in figures),
        slowest=_merged((each.slowest for each in figures), lambda host: host.elapsed)[:hosts],
        failing=_merged((each.failing for each in figures), lambda host: host.failed)[:hosts],
        troubled=sorted((host for each in figures for host in each.troubled), key=_trouble, reverse=True)[:hosts],
        shards=[_row(job) for job in jobs],
        notes=list(_what_does_not_fit(jobs, missing)),
    )


def changes_of_shards(folders: Sequence[str], *, most: int) -> ChangeReport:
    """Return what has changed in the jobs of all ``folders``: see ``changes_of``. Raises the same, and as above."""
    jobs = in_order(folders)
    reports = [changes_of(job.folder, most=most) for job in jobs]
    missing = _missing(jobs)
    unlisted = [each.unlisted for each in reports]
    counts: Counter[str] = Counter()
    for each in reports:
        counts.update(each.counts)
    sources = dict.fromkeys(each.since for each in reports if each.since is not None)
    without = f" without {', '.join(missing)}" if missing else ""
    return ChangeReport(
        f"{counted(len(jobs), 'shard')} of {jobs[0].of}{without}",
        ", ".join(sources) or None,
        {kind: counts[kind] for kind in reports[0].counts},
        None if missing or None in unlisted else sum(many for many in unlisted if many is not None),
        {kind: [url for each in reports for url in each.urls[kind]][:most] for kind in reports[0].urls},
    )


def in_order(folders: Sequence[str], hosts: int = 0) -> list[ShardJob]:
    """Read the jobs, the first shard first. Raises ``ConfigError`` unless they are different shards of one list."""
    jobs = sorted((_read(folder, hosts) for folder in folders), key=lambda job: job.number)
    first = jobs[0]
    for before, job in pairwise(jobs):
        if job.of != first.of:
            raise ConfigError(
                f"{_named(job)} and {_named(first)} do not belong together: a list is divided in one way, "
                "and these are shares of two divisions"
            )
        if job.number == before.number:
            raise ConfigError(
                f"{before.folder} and {job.folder} are both shard {job.number}/{job.of}: give one of them"
            )
        _check_same(first, job)
    return jobs


def _read(folder: str, hosts: int) -> ShardJob:
    with JobSnapshot(folder) as view:
        identity = JobIdentity.from_json(view.identity, path=view.path)
        number, _, of = (identity.shard or "").partition("/")
        if not (number.isdecimal() and of.isdecimal()):
            raise ConfigError(f"{folder} is no shard of a list (--shard): several jobs are added up only where all are")
        return ShardJob(folder, int(number), int(of), identity, figures_of(view, hosts), _last_row(view))


def _last_row(view: JobSnapshot) -> int:
    """Return the number of the last row of the list that has an outcome, 0 where none has."""
    (found,) = view.ask("SELECT coalesce(max(id), 0) AS last FROM rows WHERE id <= ?", LISTED_IDS)
    return whole(view.path, found["last"])


def _check_same(first: ShardJob, job: ShardJob) -> None:
    """Raise ``ConfigError`` for a job of another list or with other options."""
    one, other = first.identity, job.identity
    if (difference := one.other_list(other)) is not None:
        what, was, now = difference
        raise ConfigError(
            f"{_named(job)} is of another list than {_named(first)}: {what} is {now}, and there {was}; "
            "if the list has more files now, run each shard with all of them"
        )
    if one.suffixes != other.suffixes:
        raise ConfigError(
            f"{_named(job)} was dealt by another public suffix list than {_named(first)}: their rows may overlap, or miss "
            "some; run all shards with one version of publicsuffixlist"
        )
    for field, flag, was, now in one.differences(other):
        if field not in _OWN:
            raise ConfigError(f"{_named(job)} has other options than {_named(first)}: {flag} is {now}, and there {was}")


def _named(job: ShardJob) -> str:
    return f"{printable(job.folder)} (shard {job.number}/{job.of})"


def _missing(jobs: Sequence[ShardJob]) -> list[str]:
    there, of = {job.number for job in jobs}, jobs[0].of
    return [f"{number}/{of}" for number in range(1, min(of, _MAX_MISSING) + 1) if number not in there]


def _state(states: Sequence[str], missing: Sequence[str]) -> str:
    if RUNNING in states:
        return RUNNING
    if set(states) == {COMPLETE} and not missing:
        return COMPLETE
    return INTERRUPTED if INTERRUPTED in states else STOPPED


def _what_does_not_fit(jobs: Sequence[ShardJob], missing: Sequence[str]) -> Iterable[str]:
    """Yield what the sums tell: the rows of a list are numbered, and each is of one shard."""
    if not jobs[0].identity.inputs:  # a program's own rows may have any number
        return
    rows, last = sum(job.figures.done for job in jobs), max(job.last for job in jobs)
    whole = not missing and all(job.figures.state == COMPLETE for job in jobs)
    if rows > last:
        yield (
            f"the shards have {rows:,} rows, and the list ends at row {last:,}: some are in two of them, so they are not of "
            "one list; begin again with --fresh, each shard with the same list"
        )
    elif whole and rows < last:
        yield (
            f"the shards have {rows:,} rows, and the list goes to row {last:,}: it was not the same for all of them; where "
            "it has grown, run each shard once more"
        )


def _merged(tables: Iterable[Sequence[HostFigures]], rank: Callable[[HostFigures], float]) -> list[HostFigures]:
    """Return the hosts of all shards, the first by ``rank`` first; rows without a host are one line."""
    found: dict[str, HostFigures] = {}
    for table in tables:
        for host in table:
            known = found.get(host.host)
            found[host.host] = host if known is None else _added(known, host)
    return sorted(found.values(), key=rank, reverse=True)


def _added(one: HostFigures, other: HostFigures) -> HostFigures:
    rows = one.rows + other.rows
    elapsed = (one.elapsed * one.rows + other.elapsed * other.rows) / max(1, rows)
    return HostFigures(one.host, rows, one.failed + other.failed, round(elapsed, 3), one.bytes + other.bytes)


def _trouble(host: HostReport) -> int:
    return host.refused + host.failed + host.slow + host.denied


def _row(job: ShardJob) -> ShardFigures:
    each = job.figures
    return ShardFigures(
        shard=f"{job.number}/{job.of}",
        job=each.job,
        state=each.state,
        input=each.input,
        ok=each.ok,
        failed=each.failed,
        skipped=each.skipped,
        pending=each.pending,
        left=each.left,
        bytes=each.bytes,
        seconds=each.seconds,
        pages_per_second=each.pages_per_second,
    )


_MAX_MISSING = 100_000  # of a ledger that says something absurd
