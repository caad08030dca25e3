"""What a job asks of an output, whatever its format: append a batch, cut back to the last one, drop rows.

Law 6: a batch is durable when ``append`` returns, and its mark goes into the ledger after that. So after a kill the
ledger knows of all that an output has, but for one batch at most, which ``resume`` takes off again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from fetcher.model import Outcome

__all__ = ["Batch", "JobOutput", "KeptRecords", "KeptRow", "LedgerOutput", "Mark", "RecordsOf", "Rewrite"]

RecordsOf: TypeAlias = Literal["one", "many", "some"]
"""How many records a row of the list has in an output: see ``KeptRecords``."""


class Mark(msgspec.Struct, frozen=True):
    """How much of an output is committed."""

    position: int = 0
    """Bytes."""
    tail: int = 0
    """Length in bytes of the last committed batch: compressed, whole members or frames."""
    checksum: int = 0
    """CRC-32 of that tail."""
    state: str = ""
    """JSON, what the format must remember (CSV: the list's own columns); empty for nothing."""


class Batch(NamedTuple):
    """What was written at one time: from the byte ``start`` up to ``end``, with its CRC-32."""

    start: int
    end: int
    checksum: int


class Rewrite(NamedTuple):
    """A copy of an output: its mark, and the batches it is made of."""

    mark: Mark
    batches: list[Batch]


class KeptRow(NamedTuple):
    """A row of the list that has a record, and whether it keeps that."""

    id: int
    kept: bool


class KeptRecords:
    """Goes through the records of an output beside the rows that they are of, and says which are kept.

    A row has ``one`` record; or ``many``, at least one, or ``some``, or none: those that follow each other with its id.
    Raises ``ValueError`` where records and rows are not the same.
    """

    def __init__(self, rows: Iterator[KeptRow], records: RecordsOf = "one") -> None:
        self._rows = rows
        self._records = records
        self._row: KeptRow | None = None

    def of(self, ids: Iterable[int]) -> list[bool]:
        """Return which of the next records are kept, by the ids that they have."""
        return [self._next().kept if self._records == "one" else self._keeps(id_) for id_ in ids]

    def end(self) -> None:
        """Look whether all rows had a record, where each has."""
        if self._records == "some":
            for _ in self._rows:
                pass
        elif next(self._rows, None) is not None:
            raise ValueError("fewer records than were written")

    def _keeps(self, id_: int) -> bool:
        if self._row is None or self._row.id != id_:
            self._row = self._next()
            while self._records == "some" and self._row.id != id_:
                self._row = self._next()
            if self._row.id != id_:
                raise ValueError(f"row {id_} is not where it was written")
        return self._row.kept

    def _next(self) -> KeptRow:
        row = next(self._rows, None)
        if row is None:
            raise ValueError("more records than were written")
        return row


class JobOutput(ABC):
    """An output of a job. ``encode`` belongs to the thread that has the outcomes, all else to one other.

    Everything raises ``SinkError`` where data would be lost, with what was committed as it was.
    """

    in_store = False
    """Whether its parts lie in a store, where another machine may go on with them."""

    encode: Callable[[Outcome], bytes]
    """Returns the record of an outcome, a chunk for ``append``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.thorough = False
        """Whether ``resume`` looks at all bytes, where it would not by its ``batches``."""

    @abstractmethod
    def create(self, *, fresh: bool = False) -> None:
        """Make the output, or take an empty one that is there; ``fresh`` empties it.

        Raises ``ConfigError`` for one with something in it.
        """

    @abstractmethod
    def resume(self, mark: Mark, *, clean: bool, batches: Iterable[Batch] | None = None) -> None:
        """Open the output, check it against ``mark`` and take off what was not committed, which ``clean`` says is nothing.

        ``batches`` are those whose checksums are looked at, where the format has any; ``None`` is the last.
        """

    @abstractmethod
    def append(self, chunks: list[bytes]) -> Mark:
        """Bring a batch of records to the disk; return the new mark."""

    @abstractmethod
    def complete(self) -> Mark:
        """Make the output whole: all rows of the list are in it, or none. Return the mark. Harmless twice."""

    def settle(self) -> None:  # noqa: B027  # for formats that have something to do then
        """Do what must wait until the last mark is in the ledger. A kill before it leaves it to ``resume``."""

    @abstractmethod
    def discard(self) -> None:
        """Close the output as it is."""

    @abstractmethod
    def rewrite(self, copy: str, rows: Iterator[KeptRow], batches: Iterable[Batch] | None = None) -> Rewrite:
        """Prepare at ``copy`` an output without the records of those ``rows`` that are not kept; return what it will be.

        ``rows`` come in the order in which their records were appended. The output itself stays as it is until
        ``adopt``: a kill in between leaves a copy that nobody takes up.
        """

    @abstractmethod
    def adopt(self, copy: str, mark: Mark, batches: Collection[Batch] | None = None) -> None:
        """Put ``copy`` in the output's place and go on at ``mark``. A copy that is gone was adopted before."""

    @abstractmethod
    def check_place(self) -> None:
        """Raise unless what is at the path is what we write: whoever looks there shall find it."""


class LedgerOutput(JobOutput):
    """An output that asks the ledger of its job, and has it keep more than a mark: the ``news``, each a note by its name.

    Whoever commits a mark takes the news with it, and leaves none.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.news: dict[str, bytes] = {}

    @abstractmethod
    def attach(self, ledger: Any, mark: Mark) -> bool:
        """Know the ledger, which has this ``mark``; say whether it knows less than stands where the output is."""

    @abstractmethod
    def begin_batch(self, number: int, rows: Sequence[Any]) -> None:
        """Know what the ledger will know of the records to come, and the number of the first."""

    @abstractmethod
    def finish(self, *, complete: bool) -> None:
        """Wait until all that is settled is where it belongs; ``complete`` says that nothing more will come."""

    def take_news(self) -> dict[str, bytes]:
        """Return the news, once."""
        news, self.news = self.news, {}
        return news
