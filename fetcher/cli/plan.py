"""What a crawl, or an extraction, is going to do, checked: all that is wrong with it is found before the first request.

Law 2: a list, an option or an output that is no good ends the run while nothing has been fetched, opened for
writing or overwritten.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.cli.settings import RUN_KEYS, concurrency_within_limits, list_options, make_config
from fetcher.config import Config, Follow
from fetcher.errors import ConfigError, SinkError, SourceError
from fetcher.job.job import check_job_outputs
from fetcher.job.paths import folder_for, has_earlier, is_job
from fetcher.job.resume import choose_codes
from fetcher.model import Extractor, Middleware
from fetcher.page.reader import Reader
from fetcher.sinks import Layout, check_output, companions, format_of, may_be_folder, needs_messages
from fetcher.sinks.layout import BodyPlace, body_place
from fetcher.sinks.opening import check_path, descriptor_of, is_special
from fetcher.sources import ListOptions, check, is_url_argument
from fetcher.sources.inputs import meant_file
from fetcher.store import is_store_url
from fetcher.transport.descriptors import RESERVED_DESCRIPTORS

if TYPE_CHECKING:
    from fetcher.stored import StoredFile

__all__ = ["Plan", "make_extraction_plan", "make_plan"]


class Plan(msgspec.Struct, frozen=True):
    """A crawl that has been checked: nothing in it is known to be wrong."""

    config: Config
    inputs: list[str]
    outputs: list[str]
    settings: Mapping[str, Any]
    job: str | None = None
    """The folder of the job; without one, what is done is not known to a later run."""
    retry: list[str] = []
    """Codes and classes of failures to take up once more."""
    extract: Extractor | None = None
    middleware: tuple[Middleware, ...] = ()
    notes: tuple[str, ...] = ()
    """What is done otherwise than was asked, in words."""
    stored: StoredFile | None = None
    """The file of pages that takes the network's place; ``inputs`` is its path."""

    def __getitem__(self, key: str) -> Any:
        return self.settings.get(key, RUN_KEYS[key])

    @property
    def wants_live(self) -> bool:
        """Whether it is to be looked at in a browser."""
        return bool(self["live"] or self["live_at"] is not None or self["open"])

    @property
    def body_place(self) -> BodyPlace:
        """Where the bodies of pages go."""
        return body_place(self["body"])

    @property
    def list_options(self) -> ListOptions:
        """How the lists are read."""
        return list_options(self.settings)


def make_plan(inputs: list[str], settings: Mapping[str, Any], *, lasting: bool = True) -> Plan:
    """Check the settings, the lists and the outputs, changing nothing.

    ``lasting`` is ``False`` for a list that will not be there again, and makes no job. Raises ``ConfigError``,
    ``SourceError`` and ``SinkError``.
    """
    plan = _plan_of(inputs, settings, lasting=lasting)
    for text in inputs:
        if (meant := meant_file(text)) is not None:
            host = f" (for the host, write https://{text})" if is_url_argument(text) else ""
            raise SourceError(f"{text}: no such file: did you mean {meant}?{host}")
    check(inputs, plan.list_options)
    _check_places(plan)
    return plan


def make_extraction_plan(
    path: str, settings: Mapping[str, Any], *, bodies: str | None = None, workers: int = 1
) -> Plan:
    """Check the same where pages are read out of the file at ``path``. Raises the same."""
    for output in settings.get("output") or ():
        if needs_messages(output, settings.get("format")):
            raise ConfigError(
                f"{output}: an archive is made of what a server sends, and here no server is asked: "
                "write to a .jsonl, .csv, .parquet or .sqlite"
            )
    from fetcher.stored import open_stored  # a crawl reads no such file

    plan = _plan_of([path], settings, lasting=True)
    config = plan.config
    selected = Reader(config, plan.extract).selected_names
    stored = open_stored(path, max_size=config.limits.max_size, accept=config.accept, bodies=bodies, selected=selected)
    if workers > 1:
        stored = _divided(stored, workers, plan)
    plan = msgspec.structs.replace(plan, stored=stored)
    _check_places(plan)
    return plan


def _divided(stored: StoredFile, workers: int, plan: Plan) -> StoredFile:
    from fetcher.extraction_workers import DividedWARC
    from fetcher.stored.warc import StoredWARC

    if not isinstance(stored, StoredWARC):
        raise ConfigError(f"workers: {stored.path} is no WARC, and only one is read by several processes: leave it out")
    if plan.config.keep_body:
        raise ConfigError("workers: with --body the pages would have to go from one process to another: leave one out")
    return DividedWARC(stored, workers, plan.config, plan.extract)


def _plan_of(inputs: list[str], settings: Mapping[str, Any], *, lasting: bool) -> Plan:
    """Check the settings."""
    urls = inputs if all(is_url_argument(text) for text in inputs) else []
    outputs = settings.get("output") or ["-"]
    kept: dict[str, Any] = {"keep_body": True} if settings.get("body", "none") != "none" else {}
    if any(needs_messages(path, settings.get("format")) for path in outputs):
        kept["keep_messages"] = True
    follows = settings.get("follow") or settings.get("follow_css")
    if not follows and all(_is_text(path, settings.get("format")) for path in outputs):
        kept["parse"] = False  # its lines have neither title nor links
    plan = Plan(
        make_config({**settings, **kept}, urls),
        inputs,
        outputs,
        settings,
        job=_job_of(outputs, settings, lasting=lasting),
        retry=_retried(settings),
        extract=_imported("extract", settings.get("extract")),
        middleware=tuple(_imported("middleware", name) for name in settings.get("middleware") or ()),
    )
    check_job_outputs(plan.outputs, plan["format"], plan.config, plan["body"], plan.inputs)
    if plan.retry and plan.job is None:
        raise ConfigError(
            "retry-failed: needs a job, as --retry-codes does: an output that is a file (-o), without --no-job"
        )
    _check_follow(plan)
    if plan["verify"] and plan.job is None:
        raise ConfigError("verify: needs a job: an output that is a file (-o), without --no-job")
    if plan["max_age"] is not None and plan["since"] is None:
        raise ConfigError(
            "max-age: says how old what is known of a page may be: name the output that knows it, --since"
        )
    Layout.of(plan.config, plan.body_place, since=plan["since"] is not None)
    Reader(plan.config, plan.extract)  # is dropped: what is wrong with a rule or the extractor is found here
    plan = _with_workers(_within_limits(plan))
    if plan.config.tls.profile == "compatible":
        note = "--tls compatible: keys and hashes are accepted that are no longer thought to be strong"
        plan = msgspec.structs.replace(plan, notes=(*plan.notes, note))
    if plan.body_place == "inline" and all(_is_text(path, plan["format"]) for path in outputs):
        note = "--body inline: a text output has no columns; write to a .jsonl or .csv, or give -f"
        plan = msgspec.structs.replace(plan, notes=(*plan.notes, note))
    return plan


def _check_follow(plan: Plan) -> None:
    """Refuse what does not go together with rows that are found, and what is of no use without them.

    Links stay within the site of the row of the list, and so within its shard.
    """
    rules = plan.config.follow
    if not rules.asked:
        unused = [name for name in _OF_FOLLOW if getattr(rules, name) != getattr(Follow(), name)]
        if unused and plan.stored is None:
            raise ConfigError(
                f"{unused[0].replace('_', '-')}: says which links are followed: give --follow, or leave it out"
            )
        return
    if plan["ordered"]:
        raise ConfigError(
            "ordered: rows that are found have no place in the order of the list: leave out --ordered or --follow"
        )


def _is_text(path: str, format: str | None) -> bool:  # noqa: A002 - the name of the option
    """Whether an output is text for people. One whose format is unknown is reported by who checks it."""
    try:
        return format_of(path, format) == "text"
    except ConfigError:
        return False


_OF_FOLLOW = ("depth", "within", "include", "exclude", "max_pages", "max_pages_per_host")


def _check_places(plan: Plan) -> None:
    """Check what is to be written."""
    _check_outputs(plan)
    _check_since(plan)
    if plan.body_place == "folder":
        _check_bodies(plan)


def _is_on_cluster(plan: Plan) -> bool:
    return isinstance(plan["workers"], str) and plan["workers"] != "auto"


def _within_limits(plan: Plan) -> Plan:
    """Lower the concurrency to what the limit of file descriptors allows, and say so. Another machine has its own."""
    if _is_on_cluster(plan):
        return plan
    limits = plan.config.limits
    allowed = concurrency_within_limits(limits.concurrency)
    if allowed == limits.concurrency:
        return plan
    note = (
        f"-c {limits.concurrency} is lowered to {allowed}: the limit of file descriptors allows no more (ulimit -n); "
        f"{RESERVED_DESCRIPTORS} of them are kept for files, parsers and look-ups"
    )
    config = msgspec.structs.replace(plan.config, limits=msgspec.structs.replace(limits, concurrency=allowed))
    return msgspec.structs.replace(plan, config=config, notes=(*plan.notes, note))


def _with_workers(plan: Plan) -> Plan:
    """Say so where there are more workers than can be of use. Raises ``ConfigError`` for what they cannot do."""
    workers = plan["workers"]
    if plan["ray_address"] is not None and not _is_on_cluster(plan):
        raise ConfigError("ray-address: is for workers on a cluster: give --workers ray as well, or leave it out")
    if workers in (1, "auto"):
        return plan
    from fetcher.worker_count import MANY, cores

    if plan["ordered"] and (plan.config.keep_body or plan.config.keep_messages):
        raise ConfigError(
            "workers: in the order of the list, with the bodies of pages, what waits for its turn would have no bound: "
            "leave out --workers or --ordered"
        )
    available = cores()
    if _is_on_cluster(plan) or workers <= MANY * available:
        return plan
    note = f"--workers {workers}: that is more than {MANY} for each core, of which there are {available}"
    return msgspec.structs.replace(plan, notes=(*plan.notes, note))


def _check_outputs(plan: Plan) -> None:
    read = plan.inputs if plan.stored is not None else [path for path in plan.inputs if not is_url_argument(path)]
    lists = {_identity(path, reading=True) for path in read} - {None}
    taken: dict[Hashable, str] = {}
    columns = plan.config.content.columns
    tables = [place for path in plan.outputs for _, place in companions(path, columns, format=plan["format"])]
    beside = [(path, what) for what in ("summary", "metrics") if (path := _file_of(plan, what)) is not None]
    outputs = [(path, "output") for path in (*plan.outputs, *tables)]
    for path, what in [*outputs, *beside]:
        may_be = what == "output" and (path in tables or may_be_folder(path, plan["format"]))
        if os.path.isdir(path) and not may_be:
            raise SinkError(
                f"{path}: is a folder; name a file in it, such as {os.path.join(path, 'pages.jsonl')}"
                + (", or give -f parquet for a folder of parts" if what == "output" and "." not in path else "")
            )
        place = _identity(path)
        if place is not None and place in lists:
            kind = "the file of pages" if plan.stored is not None else "a list"
            raise ConfigError(f"{what}: {_shown(path)} is {kind} that is to be read; write to another file")
        if place is not None and place in taken:
            raise ConfigError(f"{what}: {_shown(path)} is given twice (as {_shown(taken[place])})")
        taken[place] = path
        if path in tables:
            continue  # looked at with the output that it belongs to
        if what == "output":
            # A job knows how far it wrote, and looks itself; what it only made before it was killed is empty.
            goes_on = plan.job is not None and (is_job(plan.job) or _is_empty(path))
            check_output(path, format=plan["format"], fresh=plan["fresh"] or goes_on, columns=columns)
        else:
            check_path(path, fresh=True)


def _file_of(plan: Plan, what: str) -> str | None:
    """Return the file of the summary or of the metrics, if there is one."""
    value: str | None = plan[what]
    if what == "metrics" and value is not None:
        from fetcher.report.metrics import MetricsPlace, check_metrics  # most runs tell none

        check_metrics()
        return MetricsPlace.of(value).path
    return None if value == "-" else value


def _check_since(plan: Plan) -> None:
    """Check the earlier output, unless the job has read it already."""
    since = plan["since"]
    if since is None:
        return
    from fetcher.job.since import find_earlier, refuse_kinds

    refuse_kinds(plan.config)
    if plan["fresh"] or plan.job is None or not has_earlier(plan.job):
        find_earlier(since, plan.outputs)


def _check_bodies(plan: Plan) -> None:
    """Check the folder of the bodies: a place of its own, that can be written."""
    folder: str = plan["body"]
    place = os.path.realpath(folder)
    beside = [path for what in ("summary", "metrics") if (path := _file_of(plan, what)) is not None]
    for path in [*plan.outputs, *beside]:
        if descriptor_of(path) is None and os.path.realpath(path) == place:
            raise ConfigError(f"body: {folder} is an output; name a folder of its own")
    if plan.job is not None and os.path.realpath(plan.job) == place:
        raise ConfigError(f"body: {folder} is the folder of the job; name one of its own")
    from fetcher.sinks.body_folder import check_body_folder  # most runs keep no bodies

    check_body_folder(folder)


def _job_of(outputs: list[str], settings: Mapping[str, Any], *, lasting: bool) -> str | None:
    """Return the folder of the job, or ``None`` where the run is a plain one."""
    folder: str | None = settings.get("job")
    stored = next((path for path in outputs if is_store_url(path)), None)
    if stored is not None and (settings.get("no_job") or not lasting):
        raise ConfigError(
            f"{stored}: needs a job, which knows what is there: leave out {'--no-job' if lasting else '--demo'}"
        )
    special = next((path for path in outputs if is_special(path)), None)
    if folder is None:
        return None if special is not None or settings.get("no_job") or not lasting else folder_for(outputs)
    if settings.get("no_job"):
        raise ConfigError("job: contradicts --no-job: leave one of them out")
    if special is not None:
        raise ConfigError(
            f"job: {_shown(special)} cannot be cut back after a crash, so there is no job with it; "
            "write to a file with -o, or leave out --job"
        )
    if os.path.realpath(folder) in map(os.path.realpath, outputs):
        raise ConfigError(f"job: {folder} is an output; name a folder of its own")
    if not lasting:
        raise ConfigError("job: the demo's list is another each time; leave out --job")
    return folder


def _imported(option: str, name: str | None) -> Any:
    if name is None:
        return None
    from fetcher.cli.import_string import import_string

    return import_string(option, name)


def _is_empty(path: str) -> bool:
    try:
        return os.path.getsize(path) == 0
    except (OSError, ValueError):
        return False


def _retried(settings: Mapping[str, Any]) -> list[str]:
    codes = [name for text in settings.get("retry_codes") or () for name in text.replace(",", " ").split()]
    if settings.get("retry_failed"):
        codes.append("failed")
    choose_codes(codes)
    return codes


def _identity(path: str, *, reading: bool = False) -> Hashable:
    """Return what is the same for two names of one file or descriptor; ``None`` where two do no harm."""
    descriptor = 0 if reading and path == "-" else descriptor_of(path)
    try:
        status = os.stat(path) if descriptor is None else os.fstat(descriptor)
    except (OSError, ValueError):
        return os.path.realpath(path) if descriptor is None else None
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return (status.st_dev, status.st_ino)
    return None if descriptor is None else descriptor


def _shown(path: str) -> str:
    return "standard output" if path == "-" else path
