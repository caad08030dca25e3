"""Where a body is read: here and now, or in a process of its own, with a limit of time.

Law 1: one outcome per request: a page that stops or kills its parser costs its own row. Law 7: the web's bytes are
never trusted: what is large or looks dangerous is not parsed in the process that has everything else to lose.
"""

from __future__ import annotations

import asyncio
import importlib.machinery
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from random import random
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from fetcher.config import Config, Content
from fetcher.errors import ConfigError, ParseError, Skipped
from fetcher.model import Extractor, Page, Response, check_callable, kept_headers
from fetcher.page.parse import (
    TREE_COLUMNS,
    Reading,
    body_digest,
    extract_from,
    kind_of,
    read_body,
    read_head,
    read_headers,
    validators_of,
)
from fetcher.refresh import refresh_of

if TYPE_CHECKING:
    from fetcher.page.found_links import LinkSearch
    from fetcher.page.isolation import ParserPool
    from fetcher.page.messages import NotPlain
    from fetcher.page.select import Explosion, SelectedColumn, Selection

__all__ = ["MarkRow", "Reader", "looks_dangerous", "name_of"]

log = logging.getLogger("fetcher.extract")

MarkRow: TypeAlias = Callable[[int], None]
"""Is told the id of the row whose page is about to be parsed in this process, and 0 afterwards."""

SLOW_SECONDS = 0.05  # for a page, on the loop
SLOW_PAGES = 10  # until that is told
MAX_PROCESSES = 4  # where their number was not asked for
SHORTAGE_PAUSE_SECONDS = 0.5  # until a page is tried again that there was no memory for
MAX_QUEUED_PAGES = 16  # that a process has at once, where all pages go to one

# lexbor's time grows with the square of how deep tags are nested and of how many attributes one tag has: 500 KB of
# <div> take over 20 s, a tag of 50,000 attributes 8 s. A look at the bytes is far cheaper than a parse.
SAFE_BYTES = 32 * 1024  # in which no tags can be made that take a tenth of a second
MAX_BYTES_HERE = 1024 * 1024
MAX_TAGS_HERE = 10_000
LONG_TAG_BYTES = 16 * 1024  # without a ">": a tag as long as that may have thousands of attributes
# To count the tags of a page takes a twentieth of its parse, so most are judged by a look here and there: at places
# nobody can foresee, or a page could hide its tags from them. Of a large page, enough tags fit into a small part.
SAMPLED_BYTES = 256 * 1024  # and more are counted
SAMPLES, SAMPLE_BYTES = 16, 256
SMALL_BYTES = 64 * 1024  # of which so many tags take at least half: less of it shows them as surely
SMALL_SAMPLES, SMALL_SAMPLE_BYTES = 8, 128
MAX_SAMPLED_TAGS = 0.75 * MAX_TAGS_HERE  # reckoned by the samples: from here on they are counted


class WatchedExtractor:
    """Calls an extractor on the loop, and says once that it is slow: all other pages wait for it meanwhile."""

    def __init__(self, extract: Extractor, clock: Callable[[], float] = time.perf_counter) -> None:
        self._extract = extract
        self._clock = clock
        self._slow = 0

    def __call__(self, response: Response) -> Any:
        """Return what the extractor does."""
        began = self._clock()
        try:
            return self._extract(response)
        finally:
            if self._clock() - began > SLOW_SECONDS:
                self._slow += 1
                if self._slow == SLOW_PAGES:
                    log.warning(
                        "the extractor took over %d ms on %d pages, and nothing else moves meanwhile: --isolate "
                        "(isolate=True) runs it in processes of its own",
                        SLOW_SECONDS * 1000,
                        SLOW_PAGES,
                    )


class Reader:
    """Makes pages of responses. ``explosion`` says what a table has where items are lines of their own.

    ``processes`` are those that it may parse in, where that is another number than the config's.

    Raises ``ConfigError`` for a rule that is no selector, for an extractor beside rules or of the wrong shape, and
    where the extractor is to run in other processes and cannot be found there by its name.
    """

    def __init__(self, config: Config, extract: Extractor | None = None, *, processes: int | None = None) -> None:
        parsing = config.parsing
        if extract is not None:
            check_callable("extract", extract, ["response"], asynchronous=False)
            if config.head:
                raise _reads_nothing("extract")
            if _selects(config):
                raise ConfigError("select: says what a page's data is, and so does extract: leave one of them out")
        for option in ("select", "select_from", "table", "skip_when", "preview", "keep_body"):
            if config.head and getattr(config, option):
                raise _reads_nothing("body" if option == "keep_body" else option.replace("_", "-"))
        self._head = config.head
        self._select = _selection(config) if _selects(config) else None
        self.explosion = _explosion(config, self._select)
        self._preview = config.preview
        self._content = _content(config)
        parsed_again = self._content is not None and self._content.parses_again
        wanted = TREE_COLUMNS.intersection(config.columns) if config.columns else TREE_COLUMNS
        self._columns = wanted if config.parse else frozenset()
        self._headers = frozenset(config.keep_headers)
        self._with_digest = not config.head and (not config.columns or "digest" in config.columns)
        self._skip_when = frozenset(config.skip_when)
        self.token = config.identity.product_token
        _check_follow(config)
        if self._skip_when:
            self._columns |= {"robots"}
        self._keep_body = config.keep_body
        self._extract = extract
        self._watched = None if extract is None else WatchedExtractor(extract)
        self._makes_trees = bool(self._columns or self._select or self._content or extract)
        self._asked = parsing.isolate or parsing.parsers is not None
        # A library that parses the page again takes longer than all else: it runs where the cores are.
        self._all_html = parsing.parsers is not None or parsed_again or (parsing.isolate and self._select is not None)
        self._everything = parsing.isolate and extract is not None
        name = name_of(extract) if extract is not None else None
        if extract is not None and name is None and self._asked:
            raise ConfigError(
                f"{'isolate' if parsing.isolate else 'parsers'}: the extractor {_shown(extract)} cannot be found by its "
                "name in another process: move it into a module, as a function of its own"
            )
        self._extract_here = extract if name is None else None
        self._worker_extract = name
        self._timeout = parsing.timeout
        self._path = [os.fsencode(entry) for entry in sys.path if isinstance(entry, str)]
        self._folder = _working_folder()
        self._size = processes or parsing.parsers or min(MAX_PROCESSES, os.cpu_count() or 1)
        self._pool: ParserPool | None = None
        self._mark_row: MarkRow | None = None
        self.suspects: frozenset[int] = frozenset()
        self.slots: str | None = None

    @contextmanager
    def marking(self, mark_row: MarkRow, *, suspects: Collection[int] = (), slots: str | None = None) -> Iterator[None]:
        """Within the block ``mark_row`` is told which row is parsed in this process.

        The rows of ``suspects`` are parsed in a process of their own whatever they look like. ``slots`` is the file in
        which other processes of the same run note theirs.
        """
        self._mark_row, self.suspects, self.slots = mark_row, frozenset(suspects), slots
        try:
            yield
        finally:
            self._mark_row, self.suspects, self.slots = None, frozenset(), None

    @property
    def selected_names(self) -> list[str]:
        """The names of what is selected, in the order of the rules: as the columns of a table."""
        return [column.name for column in self.selected_columns]

    @property
    def selected_columns(self) -> tuple[SelectedColumn, ...]:
        """The same with the type of each."""
        if self.explosion is not None:
            return self.explosion.columns
        return self._select.columns if self._select is not None else ()

    @property
    def selected_lists(self) -> list[str]:
        """Those of them that are lists, for all matches."""
        return [column.name for column in self.selected_columns if column.many]

    @property
    def selected_types(self) -> list[tuple[str, str]]:
        """Those of them that are no text, and what they are."""
        return [(column.name, column.type) for column in self.selected_columns if column.type is not None]

    def denies(self, robots: str) -> bool:
        """Say whether a page that says this to robots is not to be kept (``skip_when``)."""
        return bool(self._skip_when) and self._denied_by(robots) is not None

    def _denied_by(self, robots: str) -> str | None:
        from fetcher.page.denial import denied_by  # most runs keep every page

        return denied_by(robots, self._skip_when, self.token)

    @property
    def makes_data(self) -> bool:
        """Whether something is taken out of each page, by rules or by an extractor."""
        return self._select is not None or self._extract is not None

    @property
    def extractor_name(self) -> str | None:
        """Where the extractor is defined, such as ``shop.pages:price``; ``None`` without one."""
        extract = self._extract
        if extract is None:
            return None
        return f"{extract.__module__}:{getattr(extract, '__qualname__', type(extract).__qualname__)}"

    def needs_isolation(self, response: Response, *, links: bool = False) -> bool:
        """Tell whether a body must be read in a process of its own; ``links`` says that some are looked for in it."""
        if self._head:
            return False
        if self._everything or response.request.id in self.suspects:
            return True
        if not (self._makes_trees or links) or (not self._all_html and len(response.body) <= SAFE_BYTES):
            return False
        return kind_of(response) in ("html", "xml") and (self._all_html or looks_dangerous(response.body))

    def read(self, response: Response, *, waited: float, fetched_at: float, search: LinkSearch | None = None) -> Page:
        """Make the page of a response here and now. Raises ``ParseError``; see ``read_body``."""
        if self._head:
            return self._page_of(response, read_headers(response), waited=waited, fetched_at=fetched_at)
        mark_row = self._mark_row
        if mark_row is not None:
            mark_row(response.request.id)
        try:
            reading = read_body(
                response,
                select=self._select,
                extract=self._watched,
                preview=self._preview,
                columns=self._columns,
                content=self._content,
                search=search,
            )
        finally:
            if mark_row is not None:
                mark_row(0)
        return self._page_of(response, reading, waited=waited, fetched_at=fetched_at)

    async def read_isolated(
        self, response: Response, *, waited: float, fetched_at: float, search: LinkSearch | None = None
    ) -> Page:
        """Make the page of a response in a process of its own: the same page as ``read`` makes.

        Raises ``ParseError``: ``parse_timeout`` over the limit, ``parse_crash`` where the process died or cannot be
        started, ``extract_failed`` also for data that is not plain. An extractor that has no name to be found by
        runs here, once the page has been parsed there. Raises ``MemoryError`` where the memory is short for any page.
        """
        from fetcher.page.messages import NotPlain

        if self._pool is None:
            self._pool = self._open_pool()
        try:
            answer = await self._ask_pool(self._pool, response, search)
        except ParseError as error:
            error.reading = error.reading or read_head(response)
            raise
        if isinstance(answer, NotPlain):
            if self._asked:
                failed = ParseError("extract_failed", f"what it returns must be plain data here: {answer.reason}")
                failed.reading = answer.reading
                raise failed
            reading = self._with_data(response, answer.reading, self._extract)
        else:
            reading = self._with_data(response, answer, self._extract_here)
        return self._page_of(response, reading, waited=waited, fetched_at=fetched_at)

    async def _ask_pool(self, pool: ParserPool, response: Response, search: LinkSearch | None) -> Reading | NotPlain:
        """Have a page read in another process, twice where that has no memory for it.

        A process that holds nothing else and has too little for the same page twice is no want of ours, if the page is
        of the kind that takes much: it costs its own row, and not the run.
        """
        try:
            return await pool.read(response, search)
        except MemoryError:
            pass  # out of here: the error keeps what it passed through
        await asyncio.sleep(SHORTAGE_PAUSE_SECONDS)
        try:
            return await pool.read(response, search)
        except MemoryError:
            if not looks_dangerous(response.body):
                raise
        raise ParseError("parse_crash", "parsing it takes more memory than a process of its own is given")

    def _page_of(self, response: Response, reading: Reading, *, waited: float, fetched_at: float) -> Page:
        """Make the page of a response and of what was read out of it, unless it is not to be kept."""
        if self._skip_when and reading.robots and (word := self._denied_by(reading.robots)):
            denied = Skipped("page_denied", f"the page says {word!r} of itself (--skip-when)")
            denied.reading = reading
            raise denied
        headers = kept_headers(response.headers, self._headers) if self._headers else ()
        etag, last_modified = validators_of(response)
        return Page(
            request=response.request,
            url=response.url,
            status=response.status,
            length=reading.length,
            bytes=len(response.body),
            content_type=reading.content_type,
            charset=reading.charset,
            title=reading.title,
            links=reading.links,
            data=reading.data,
            redirects=response.redirects,
            elapsed=response.elapsed,
            waited=waited,
            attempts=response.attempts,
            fetched_at=fetched_at,
            truncated=response.truncated,
            robots=reading.robots,
            refresh=refresh_of(response),
            preview=reading.preview,
            content=reading.content,
            found=reading.found,
            unconverted=reading.unconverted,
            unread=reading.unread,
            headers=headers,
            body=response.body if self._keep_body else None,
            etag=etag,
            last_modified=last_modified,
            digest=body_digest(response.body) if self._with_digest else None,
        )

    def _open_pool(self) -> ParserPool:
        from fetcher.page.isolation import ParserPool
        from fetcher.page.messages import WorkerSettings

        settings = WorkerSettings(
            select=self._select,
            preview=self._preview,
            extract=self._worker_extract,
            path=self._path,
            folder=self._folder,
            limit=self._timeout,
            # What small pages are read with here must not give another type of data for the large ones.
            exact=not self._asked,
            columns=self._columns,
            content=self._content,
        )
        # Where all pages go there, the next ones wait within the process; else they are few, and dangerous.
        depth = MAX_QUEUED_PAGES if self._all_html or self._everything else 1
        return ParserPool(settings, size=self._size, depth=depth)

    async def close(self) -> None:
        """End the processes. They are started again when there is a body for them."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def _with_data(self, response: Response, reading: Reading, extract: Extractor | None) -> Reading:
        if extract is None:
            return reading
        mark_row = self._mark_row
        if mark_row is not None:
            mark_row(response.request.id)
        try:
            return msgspec.structs.replace(reading, data=extract_from(response, extract))
        except ParseError as error:
            error.reading = reading
            raise
        finally:
            if mark_row is not None:
                mark_row(0)


def looks_dangerous(body: bytes) -> bool:
    """Tell whether a page should be parsed in a process of its own."""
    size = len(body)
    if size <= SAFE_BYTES:
        return False
    if size > MAX_BYTES_HERE or _has_long_tag(body):
        return True
    return (size > SAMPLED_BYTES or _may_have_many_tags(body)) and body.count(b"<") >= MAX_TAGS_HERE


def _may_have_many_tags(body: bytes) -> bool:
    """Tell by samples whether a page may have as many tags as are dangerous.

    One that has just so many, all in a seventh of its 200 KB, is missed in one of four looks, and takes a fifth of a
    second then; one with twice as many in one of forty, with four times as many hardly ever.
    """
    size = len(body)
    samples, sample = (SMALL_SAMPLES, SMALL_SAMPLE_BYTES) if size <= SMALL_BYTES else (SAMPLES, SAMPLE_BYTES)
    width = size - sample
    tags = 0
    for _ in range(samples):
        at = int(random() * width)  # noqa: S311 - no secret: it need only not be known before
        tags += body.count(b"<", at, at + sample)
    return tags * size >= MAX_SAMPLED_TAGS * samples * sample


def _has_long_tag(body: bytes) -> bool:
    """Tell whether ``LONG_TAG_BYTES`` bytes in a row have no ``>``. Looks at few of the others: from the end of each."""
    begin, last = 0, len(body) - LONG_TAG_BYTES
    while begin <= last:
        end = body.rfind(b">", begin, begin + LONG_TAG_BYTES)
        if end < 0:
            return True
        begin = end + 1
    return False


def _reads_nothing(option: str) -> ConfigError:
    return ConfigError(f"{option}: reads a page's body, and by HEAD there is none: leave out {option} or head")


def _check_follow(config: Config) -> None:
    if not config.follow.asked:
        return
    if config.head:
        raise _reads_nothing("follow")
    from fetcher.page.found_links import check_rules  # most runs follow no links

    check_rules(config.follow)


def _selects(config: Config) -> bool:
    return bool(config.select or config.select_from or config.table)


def _content(config: Config) -> Content | None:
    content = config.content
    if content.text_format == "markdown" and content.method != "best":
        raise ConfigError("text-format: markdown is made by --text best alone")
    if content.method in ("fast", "best"):
        from fetcher.page.main_text import check_library  # most runs need none

        check_library(content)
    if not {"microdata", "rdfa"}.isdisjoint(content.parts):
        from fetcher.page.structured import check_structured

        check_structured(content)
    return content if content.columns else None


def _selection(config: Config) -> Selection:
    from fetcher.page.select import Selection  # most runs select nothing

    return Selection.of(config.select, table=config.table, groups=config.select_from)


def _explosion(config: Config, selection: Selection | None) -> Explosion | None:
    if config.explode is None:
        return None
    if selection is None:
        raise ConfigError(
            f"explode: nothing is selected: give a rule for {config.explode!r}, such as --select '{config.explode}[]=…'"
        )
    return selection.exploded(config.explode)


def name_of(extract: Callable[..., Any]) -> str | None:
    """Return ``module:name`` by which another process finds a function; ``None`` where none would."""
    module_name, path = getattr(extract, "__module__", None), getattr(extract, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(path, str):
        return None
    module = sys.modules.get(module_name)
    if module is None or module_name == "__main__" or not _is_importable(module_name, module):
        return None
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    same = found is extract or (isinstance(found, MethodType) and found == extract)  # a class's method is made anew
    return f"{module_name}:{path}" if same else None


def _is_importable(name: str, module: ModuleType) -> bool:
    """Tell whether an import would find this module: it may have been loaded from a path, or made by hand."""
    known = getattr(module, "__spec__", None)
    if not isinstance(known, importlib.machinery.ModuleSpec) or known.name != name:
        return False
    parent = sys.modules.get(name.rpartition(".")[0])
    path = getattr(parent, "__path__", None)
    if "." in name and path is None:
        return False
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, path) if find is not None else None
        if spec is not None:
            return bool(spec.origin == known.origin)
    return False


def _working_folder() -> bytes:
    try:
        return os.getcwdb()
    except OSError:  # it was removed
        return b"."


def _shown(extract: Extractor) -> str:
    name = getattr(extract, "__qualname__", None) or repr(extract)
    return f"{name} of {getattr(extract, '__module__', None)}"
