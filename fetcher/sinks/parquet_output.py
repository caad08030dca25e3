"""Parquet as an output: rows stand in a journal until there are enough for a file, or the list is complete.

Laws: a batch is on the disk in the journal when its mark is given out, and leaves it only when the file it went into
has its name and the ledger knows of it (6). Memory holds a row group, whatever the number of rows (3).
"""

from __future__ import annotations

import contextlib
import json  # its escapes keep lone surrogates, which the names of columns may have
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import msgspec

from fetcher.errors import SinkError
from fetcher.files import move, sync_folder_of
from fetcher.model import Outcome
from fetcher.sinks.child_tables import CHILD_COLUMNS, CHILD_TABLES, ChildTable, child_tables, companion_path
from fetcher.sinks.explode import exploder_for
from fetcher.sinks.job_output import Batch, JobOutput, KeptRecords, KeptRow, Mark, RecordsOf, Rewrite
from fetcher.sinks.journal import Journal, JournalMark
from fetcher.sinks.layout import Layout, RecordMaker, to_json, well_formed
from fetcher.sinks.opening import RESTORE_ADVICE, check_path, explained
from fetcher.sinks.parquet import ParquetTable, child_table, has_rest, page_table
from fetcher.sinks.parquet_files import FileMark, PartFolder, WholeFile, check_parts, remove_table

__all__ = ["ChildEncoder", "ParquetOutput", "ParquetState", "RowEncoder", "check_place", "is_folder"]

BATCH_ROWS = 1_000
PART_ROWS = 1_000_000
"""Rows of one file of a folder, where nothing else is asked for."""


def is_folder(path: str) -> bool:
    """Say whether a Parquet output at ``path`` is a folder of parts: it ends in a slash, or is one."""
    return path.endswith(os.sep) or os.path.isdir(path)


def check_place(path: str, *, fresh: bool) -> None:
    """Check, changing nothing, that a file or parts can be written at ``path``.

    Raises ``ConfigError`` for what exists and is not to be overwritten, ``SinkError`` for a place that is no good.
    """
    if not is_folder(path):
        check_path(path, fresh=fresh)
        WholeFile(path).check_folder()
    elif os.path.lexists(path.rstrip(os.sep)):
        if path.lower().endswith(".parquet"):
            raise SinkError(f"{path}: is a folder; name a file in it, or write {path}{os.sep} for a folder of parts")
        check_parts(path, fresh=fresh)
    else:
        check_path(path.rstrip(os.sep), fresh=fresh)


class ParquetState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a mark says of the output: the list's own columns, and where the rows are."""

    fields: tuple[str, ...] | None = None
    file: FileMark | None = None
    parts: int | None = None
    """How many there are in a folder; ``None`` for a single file."""
    journal: JournalMark = JournalMark()

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, text: str, *, folder: bool) -> ParquetState:
        """Read it again. Raises ``ValueError``."""
        try:
            state = msgspec.convert(json.loads(text), cls) if text else cls(parts=0 if folder else None)
        except RecursionError:
            raise ValueError("nested too deep") from None
        if (state.parts is not None) != folder or (state.parts or 0) < 0:
            raise ValueError(
                "it began as a folder of parts" if state.parts is not None else "it began as a single file"
            )
        return state


def _plain(value: Any) -> Any:
    return value


class RowEncoder:
    """Makes of each outcome the values of its rows, packed: what a column cannot hold is made text or left out here.

    ``fields`` are the list's own columns, those of the first row where they are not given.
    """

    def __init__(self, layout: Layout) -> None:
        self.fields = layout.fields
        self._layout = layout
        wanted = layout.columns
        columns = [name for name in wanted if name not in ("fields", "data") and name not in CHILD_COLUMNS]
        self._values = RecordMaker([*columns, "fields", "data"], binary=True).values
        self._times = [(columns.index(name), name) for name in ("fetched_at", "checked_at") if name in columns]
        self._wants_fields, self._wants_data = "fields" in wanted, "data" in wanted
        # In the order of ``parquet.columns_of``: JSON for what has no column of its own, where there may be such.
        self._rest = [name for name in ("fields", "data") if name in wanted and has_rest(layout, name)]
        plain = {name for name, kind in layout.select_types if kind != "date"}
        self._select = [
            (name, _plain if name in plain else _texts if name in layout.select_lists else _text)
            for name in layout.select
        ]
        self._exploder = exploder_for(layout, flat=True)

    def table(self) -> ParquetTable:
        """Return the table of the rows, by the columns that are known."""
        return page_table(self._layout, self.fields or ())

    def encode(self, outcome: Outcome) -> bytes:
        """Return the rows of an outcome, mostly one; the first decides about the columns where none were named."""
        if self.fields is None:
            self.fields = tuple(outcome.request.fields or ())
        if self._exploder is None:
            rows = [self._values_of(outcome)]
        else:
            rows = list(map(self._values_of, self._exploder.lines(outcome)))
        return _packed(rows)

    def _values_of(self, outcome: Outcome) -> list[Any]:
        *values, listed, data = self._values(outcome)
        for place, column in self._times:
            values[place] = _microseconds(getattr(outcome, column, 0.0))
        own: list[Any] = []
        if self._wants_fields:
            listed = dict(listed or ())
            own += [_text(listed.pop(name, None)) for name in self.fields or ()]
        if self._wants_data and self._select:
            taken = dict(data) if isinstance(data, Mapping) else {}
            own += [convert(taken.pop(name, None)) for name, convert in self._select]
            data = (taken or None) if isinstance(data, Mapping) else data
        for name in self._rest:
            values.append(_json(listed or None) if name == "fields" else _json(data))
        return [*values, *own]


class ChildEncoder:
    """Makes of each outcome the rows of a child table, packed: none where it has no such items."""

    def __init__(self, child: ChildTable) -> None:
        self.fields: tuple[str, ...] | None = ()
        self._child = child
        self._converters = [_CONVERTERS.get(kind, _plain) for _, kind in child.columns]

    def table(self) -> ParquetTable:
        """Return the table of the rows."""
        return child_table(self._child)

    def encode(self, outcome: Outcome) -> bytes:
        """Return the rows of an outcome."""
        id_ = outcome.request.id
        return _packed(
            [
                [id_, position, *(convert(value) for convert, value in zip(self._converters, item, strict=True))]
                for position, item in enumerate(self._child.items(outcome))
            ]
        )


class ParquetOutput(JobOutput):
    """A Parquet file, or a folder of them, that a job writes; ``work`` is where its journal lies.

    With a ``child`` it has the rows of that table, and not those of the pages. Several may share an ``encoder``.
    """

    def __init__(
        self,
        path: str,
        layout: Layout,
        *,
        work: str,
        child: ChildTable | None = None,
        encoder: RowEncoder | None = None,
    ) -> None:
        super().__init__(path)
        own: RowEncoder | ChildEncoder = RowEncoder(layout) if child is None else ChildEncoder(child)
        self._encoder = encoder or own
        wanted = child_tables(layout.columns)
        self._unwanted = [each for each in CHILD_TABLES if each not in wanted and child is None]
        self._records: RecordsOf = "some" if child is not None else "one" if layout.explode is None else "many"
        self._journal = Journal(work)
        self._place: WholeFile | PartFolder
        self._place = PartFolder(path, layout.part_rows or PART_ROWS) if is_folder(path) else WholeFile(path)
        self._table: ParquetTable | None = None
        self._mark = Mark()
        self._torn = True

    def create(self, *, fresh: bool = False) -> None:
        """See that the output can be written, and make its folder; ``fresh`` removes what was there before.

        Raises ``ConfigError`` for a file or parts that are there, ``SinkError`` for a place that cannot be written.
        """
        with self._explained("cannot write"):
            self._place.create(fresh=fresh)
            for child in self._unwanted if fresh else ():  # what an earlier run left would be taken for this one's
                remove_table(companion_path(self.path, child.name), child.name)
            shutil.rmtree(self._journal.folder, ignore_errors=True)
        self._mark, self._torn = Mark(), False

    def resume(self, mark: Mark, *, clean: bool, batches: Iterable[Batch] | None = None) -> None:
        """Hold what is whole and the journal against ``mark``, and take off what was not committed.

        Raises ``SinkError``, with everything as it was, where something is missing or was changed since.
        """
        folder = isinstance(self._place, PartFolder)
        try:
            state = ParquetState.from_json(mark.state, folder=folder)
        except ValueError as error:
            raise SinkError(f"{self.path}: the job does not say how it goes on ({error}): {RESTORE_ADVICE}") from error
        if batches is None:
            batches = [Batch(mark.position - mark.tail, mark.position, mark.checksum)] if mark.position else []
        with self._explained("cannot go on with it"):
            if isinstance(self._place, PartFolder):
                self._place.check(state.parts or 0, mark.position, batches)
            else:
                self._place.check(state.file, thorough=self.thorough)
            self._journal.check(state.journal, clean=clean, thorough=self.thorough)
            self._place.open()
            self._journal.open(state.journal)
        if state.fields is not None:
            self._encoder.fields = state.fields
        self._table = None
        self._mark, self._torn = mark, False

    def encode(self, outcome: Outcome) -> bytes:
        """Return the rows of an outcome, a chunk for ``append``."""
        return self._encoder.encode(outcome)

    def append(self, chunks: list[bytes]) -> Mark:
        """Bring a batch of rows to the disk, in the journal; write a part of a folder where it is full."""
        if not chunks:
            return self._mark
        with self._writing():
            table = self._made_table()
            left: Iterator[list[Any]] = (row for chunk in chunks for row in msgspec.msgpack.decode(chunk))
            first = next(left, None)
            while first is not None:
                most = BATCH_ROWS
                if self._place.part_rows is not None:
                    most = min(most, self._place.part_rows - self._journal.mark.rows)
                if most > 0:
                    self._journal.append(table.pack([first, *islice(left, most - 1)]))
                    first = next(left, None)
                if self._place.part_rows is not None and self._journal.mark.rows >= self._place.part_rows:
                    self._make_whole(table)
            self._journal.sync()
            return self._marked()

    def complete(self) -> Mark:
        """Write what is in the journal to the file, or to one more part; one without any rows where there are none."""
        place = self._place
        is_whole = place.parts > 0 if isinstance(place, PartFolder) else place.mark is not None
        if is_whole and not self._journal.mark.rows:
            return self._mark
        with self._writing():
            self._make_whole(self._made_table())
            return self._marked()

    def settle(self) -> None:
        """Give what is whole its name, and let go of what is in it. Raises ``SinkError``."""
        with self._explained("cannot write"):
            self._place.publish()
            self._journal.tidy()

    @property
    def lies_at(self) -> str:
        """Where the bytes of a single file are, which has its name only when it is settled."""
        return self._place.lies_at if isinstance(self._place, WholeFile) else self.path

    def discard(self) -> None:
        """Close the journal as it is."""
        self._journal.close()
        self._torn = True

    def rewrite(self, copy: str, rows: Iterator[KeptRow], batches: Iterable[Batch] | None = None) -> Rewrite:
        """Make in a folder ``copy`` the files, or the parts concerned, and the journal without the rows that are not kept.

        Raises ``SinkError`` where a file was changed, or ``copy`` could not be written.
        """
        with self._explained(f"cannot be rewritten as {copy}"):
            try:
                _remove(copy)
                os.mkdir(copy, 0o700)
                rewrite = self._rewritten(copy, rows, batches)
                sync_folder_of(os.path.join(copy, "file"))
                sync_folder_of(copy)
            except BaseException:
                with contextlib.suppress(OSError):  # one that is left is made anew by the next rewrite
                    _remove(copy)
                raise
        return rewrite

    def adopt(self, copy: str, mark: Mark, batches: Collection[Batch] | None = None) -> None:
        """Put each file of ``copy`` in its place, those that are gone being there, and go on at ``mark``."""
        self.discard()
        with self._explained("cannot be replaced"):
            if os.path.lexists(copy):
                if os.path.islink(copy) or not os.path.isdir(copy):
                    raise ValueError(f"{copy} is no folder")
                for name in sorted(os.listdir(copy)):
                    source = os.path.join(copy, name)
                    if name.endswith(".frames"):
                        os.makedirs(self._journal.folder, 0o700, exist_ok=True)
                        move(source, os.path.join(self._journal.folder, name))
                    else:
                        self._place.take(source, name)
                sync_folder_of(self._journal.folder)
                os.rmdir(copy)
                sync_folder_of(copy)
        self.resume(mark, clean=True, batches=batches)

    def check_place(self) -> None:
        """Raise ``SinkError`` unless what is at the path is what we wrote, or nothing where we wrote nothing yet."""
        with self._explained("cannot be found again"):
            self._place.check_place()

    def _made_table(self) -> ParquetTable:
        fields = self._encoder.fields
        if fields is None:
            return self._encoder.table()  # there is no row yet: the first will say
        if self._table is None:
            self._table = self._encoder.table()
        return self._table

    def _make_whole(self, table: ParquetTable) -> None:
        self._journal.sync()
        journal = self._journal
        self._place.write(table, (table.together(journal.frames(number)) for number in journal.numbers))
        journal.restart()

    def _marked(self) -> Mark:
        """Return the mark of what there is now, which is the last from here on."""
        place, before = self._place, self._mark
        if isinstance(place, PartFolder):
            state = ParquetState(self._encoder.fields, parts=place.parts, journal=self._journal.mark)
            mark = Mark(before.position, before.tail, before.checksum, state.to_json())
            if place.position != before.position:
                mark = Mark(place.position, place.position - before.position, place.checksum, mark.state)
            place.begin()
        else:
            state = ParquetState(self._encoder.fields, file=place.mark, journal=self._journal.mark)
            mark = Mark(state=state.to_json())
        self._mark = mark
        return mark

    def _rewritten(self, copy: str, rows: Iterator[KeptRow], batches: Iterable[Batch] | None) -> Rewrite:
        table, place, made = self._made_table(), self._place, list[Batch]()
        kept = KeptRecords(rows, self._records)
        state = ParquetState(self._encoder.fields)
        if isinstance(place, PartFolder):
            parts, made = place.rewrite(copy, kept, table, batches or ())
            state = msgspec.structs.replace(state, parts=parts)
        else:
            state = msgspec.structs.replace(state, file=place.rewrite(copy, kept, table))
        after = self._journal.mark.current + 1
        journal = Journal(copy, JournalMark(after, after))
        try:
            for number in self._journal.numbers:
                for frame in self._journal.frames(number):
                    batch = table.unpack(frame)
                    batch = table.chosen(batch, kept.of(table.ids(batch)))
                    if batch.num_rows:
                        journal.append(table.frame(batch))
            journal.sync()
        finally:
            journal.close()
        kept.end()
        text = msgspec.structs.replace(state, journal=journal.mark).to_json()
        if not made:
            return Rewrite(Mark(state=text), [])
        return Rewrite(Mark(made[-1].end, made[-1].end - made[-1].start, made[-1].checksum, text), made)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Write: after an error nothing is written any more, for what was begun is torn."""
        if self._torn:
            raise SinkError(f"{self.path}: cannot write: an earlier write failed")
        self._torn = True
        with self._explained("cannot write"):
            yield
        self._torn = False

    def _explained(self, what: str) -> AbstractContextManager[None]:
        return explained(
            self.path, what, lambda error: SinkError(f"{self.path}: was changed since ({error}): {RESTORE_ADVICE}")
        )


_pack = msgspec.msgpack.Encoder(enc_hook=str).encode


def _packed(rows: list[list[Any]]) -> bytes:
    try:
        return _pack(rows)
    except (ValueError, TypeError, OverflowError, RecursionError):  # a lone surrogate, an endless number
        return _pack([[_sound(value) for value in values] for values in rows])


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    text = to_json(value)
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode()


def _texts(value: Any) -> list[str | None] | None:
    if value is None:
        return None
    return [_text(item) for item in value] if isinstance(value, list | tuple) else [_text(value)]


_CONVERTERS: dict[str, Callable[[Any], Any]] = {"text": _text, "texts": _texts}


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def _microseconds(moment: float) -> int | None:
    return round(moment * 1000) * 1000 if moment else None


def _sound(value: Any) -> Any:
    """Return what can be packed of a value: text well-formed, and no number that 64 bits cannot hold."""
    if isinstance(value, str):
        return well_formed(value)
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, Mapping):
        return {well_formed(str(key)): well_formed(str(item)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [None if item is None else well_formed(str(item)) for item in value]
    return well_formed(str(value))


def _remove(copy: str) -> None:
    if os.path.isdir(copy) and not os.path.islink(copy):
        shutil.rmtree(copy)
    elif os.path.lexists(copy):
        os.unlink(copy)
