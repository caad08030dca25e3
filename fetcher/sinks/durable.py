"""An output that is appended to batch by batch and can be cut back to the end of any batch.

Laws: a batch is on the disk before its mark is given out, and whole members only are compressed, so that every mark is
a safe place to cut (6); an output that is not as its mark and the checksums of its batches say is refused and left as
it is, never cut (2), and so is one that is no longer the file at its path; a copy without some of the records is made a
block and a member at a time, however large the output is (3).
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO

from fetcher.compression import compress, decompress, packing_of_path
from fetcher.errors import FetcherError, SinkError
from fetcher.files import READ_BYTES, create_like, move, read_range, sync, sync_folder_of, write_all
from fetcher.sinks.job_output import Batch, JobOutput, KeptRecords, KeptRow, Mark, Rewrite
from fetcher.sinks.opening import RESTORE_ADVICE, already_exists, check_same_file, open_for_job, write_error
from fetcher.sinks.stream import StreamSink

__all__ = ["Batch", "DurableFile", "Mark", "Rewrite", "lines_of"]

REWRITE_PART_BYTES = 1024 * 1024
"""Bytes of records that a rewrite compresses together, or one record where that is larger."""

REWRITE_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of a rewritten output that have a checksum together: as many as a large batch."""


class DurableFile(JobOutput):
    """A regular file that ``append`` makes longer by a batch, and ``resume`` cuts back to the last one committed.

    ``sink`` makes the format and is never entered. ``encode`` belongs to the thread that has the outcomes, all else to
    one other. What an append began and could not end is torn: nothing is appended to it any more, and the next
    ``resume`` cuts it off.
    """

    def __init__(self, path: str, sink: StreamSink) -> None:
        super().__init__(path)
        self._packing = None if sink.packs_itself else packing_of_path(path)
        self._sink = sink
        self.encode = sink.encode
        self._descriptor = -1
        self._mark = Mark()
        self._torn = False

    def create(self, *, fresh: bool = False) -> None:
        """Make the file, or take an empty one that is there; ``fresh`` empties it.

        Raises ``ConfigError`` for a file with something in it, ``SinkError`` for a place that cannot be written.
        """
        descriptor = open_for_job(self.path, create=True, mode=self._sink.mode)
        with _closed_on_error(self.path, descriptor, "cannot write"):
            if os.fstat(descriptor).st_size:
                if not fresh:
                    raise already_exists(self.path)
                os.ftruncate(descriptor, 0)
                sync(descriptor)
            sync_folder_of(self.path)
        self._take(descriptor, Mark())

    def resume(self, mark: Mark, *, clean: bool, batches: Iterable[Batch] | None = None) -> None:
        """Open the file, check it against ``mark`` and cut off what was not committed, which ``clean`` says is nothing.

        ``batches`` are those whose checksums are looked at, by default the last. Raises ``SinkError``, with the file as
        it was, where it is missing, cannot be opened or was changed since.
        """
        try:
            self._sink.restore(mark.state)
        except ValueError as error:
            raise SinkError(f"{self.path}: the job does not say how it goes on ({error}): {RESTORE_ADVICE}") from error
        descriptor = open_for_job(self.path, create=mark.position == 0, mode=self._sink.mode)
        with _closed_on_error(self.path, descriptor, "cannot go on with it"):
            _check(self.path, descriptor, mark, batches, clean=clean)
            if os.fstat(descriptor).st_size > mark.position:
                os.ftruncate(descriptor, mark.position)
                sync(descriptor)
            if not mark.position:
                sync_folder_of(self.path)
        self._take(descriptor, mark)

    def append(self, chunks: list[bytes]) -> Mark:
        """Write a batch of records, the preamble before the first, to the disk; return the new mark.

        Without anything to write the mark is the one before. Raises ``SinkError``: the batch is not committed then.
        """
        if self._mark.position == 0:
            chunks = [self._sink.preamble(), *chunks]
        return self._commit(chunks) if any(chunks) else self._mark

    def complete(self) -> Mark:
        """Make of a file without any batch what an empty output of its format is; return the mark. Raises as ``append``."""
        return self._mark if self._mark.position else self._commit([self._sink.preamble(empty=True)])

    def discard(self) -> None:
        """Close the file as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # all that was promised is on the disk
                os.close(descriptor)

    def rewrite(self, copy: str, rows: Iterator[KeptRow], batches: Iterable[Batch] | None = None) -> Rewrite:
        """Write to ``copy`` the records of those ``rows`` that are kept, byte for byte; return what the copy is.

        The file itself stays as it is, and is held against the checksums of ``batches``, which are all. Raises
        ``SinkError`` where it is otherwise, where there are more or fewer records than rows, or where ``copy`` could
        not be written or later ``adopt``-ed.
        """
        folder = os.path.dirname(os.path.realpath(self.path))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"{self.path}: cannot be replaced: no permission to write in {folder}")
        try:
            descriptor = create_like(copy, os.fstat(self._descriptor))
            try:
                rewrite = self._fill(descriptor, rows, batches)
                sync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder_of(copy)
        except BaseException as error:
            with contextlib.suppress(OSError):  # a copy that is left is made anew by the next rewrite
                os.unlink(copy)
            if isinstance(error, OSError):
                raise write_error(self.path, f"cannot be rewritten as {copy}", error) from error
            if isinstance(error, ValueError) and not isinstance(error, FetcherError):
                raise _changed(self.path, str(error)) from error
            raise
        return rewrite

    def adopt(self, copy: str, mark: Mark, batches: Collection[Batch] | None = None) -> None:
        """Put ``copy`` in the file's place and go on at ``mark``; a copy that is gone was adopted before.

        ``batches`` of it are looked at, by default the last. Raises ``SinkError`` where the copy, or what is in its
        place, is not what ``mark`` says.
        """
        self.discard()
        try:
            if os.path.lexists(copy):
                _check_copy(copy, mark, batches)
                move(copy, os.path.realpath(self.path))
        except OSError as error:
            raise write_error(self.path, "cannot be replaced", error) from error
        self.resume(mark, clean=True)

    def check_place(self) -> None:
        """Raise ``SinkError`` unless the file at the path is the one that we write: whoever looks there shall find it."""
        check_same_file(self.path, self._descriptor)

    def _commit(self, chunks: list[bytes]) -> Mark:
        if self._descriptor < 0:
            raise RuntimeError(f"{self.path}: not open: create or resume first")
        if self._torn:
            raise SinkError(f"{self.path}: cannot write: an earlier write failed")
        start = self._mark.position
        packed = self._compressed(b"".join(chunks))
        try:
            self._torn = True
            self._check_alone()
            os.lseek(self._descriptor, start, os.SEEK_SET)
            write_all(self._descriptor, packed)
            sync(self._descriptor)
            self._torn = False
        except OSError as error:
            raise write_error(self.path, "cannot write", error) from error
        self._mark = _after(start, packed, self._sink.state())
        return self._mark

    def _compressed(self, data: bytes) -> bytes:
        return data if self._packing is None else compress(data, self._packing)

    def _take(self, descriptor: int, mark: Mark) -> None:
        self.discard()
        self._descriptor, self._mark, self._torn = descriptor, mark, False

    def _check_alone(self) -> None:
        """See that nobody else has cut, filled, moved or deleted the file: what is written then would be lost."""
        found = os.fstat(self._descriptor)
        if found.st_size != self._mark.position:
            raise SinkError(f"{self.path}: another program has written to it")
        self.check_place()

    def _fill(self, descriptor: int, rows: Iterator[KeptRow], batches: Iterable[Batch] | None) -> Rewrite:
        whole = [Batch(0, self._mark.position, -1)]
        blocks = _blocks_of(self.path, self._descriptor, whole if batches is None else batches)
        if self._packing is not None:
            blocks = decompress(blocks, self._packing, max_block=READ_BYTES)
        records = self._sink.split(lines_of(blocks))
        preamble = self._sink.preamble() if self._mark.position else b""
        if preamble and next(records, b"") != preamble:
            raise ValueError("begins otherwise")
        written = BatchCounter()
        for part in _parts_of(preamble, self._chosen(records, rows)):
            packed = self._compressed(part) if self._mark.position else part
            write_all(descriptor, packed)
            written.add(packed)
        return written.rewrite(self._mark.state)

    def _chosen(self, records: Iterator[bytes], rows: Iterator[KeptRow]) -> Iterator[bytes]:
        """Yield the records whose row is kept. Raises ``ValueError`` where they are not those that were written."""
        explodes = self._sink.explodes
        kept = KeptRecords(rows, "many" if explodes else "one")
        for record in records:
            if kept.of([self._sink.id_of(record) if explodes else 0])[0]:
                yield record
        kept.end()


class BatchCounter:
    """Counts what is written to a copy into batches of ``REWRITE_BATCH_BYTES``."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._last = Batch(0, 0, 0)

    def add(self, data: bytes) -> None:
        """Count ``data``, which is never divided."""
        start, end, checksum = self._last
        self._last = Batch(start, end + len(data), zlib.crc32(data, checksum))
        if self._last.end - start >= REWRITE_BATCH_BYTES:
            self._close()

    def rewrite(self, state: str) -> Rewrite:
        """Return what the copy is."""
        if self._last.end > self._last.start:
            self._close()
        last = self._batches[-1] if self._batches else self._last
        return Rewrite(Mark(last.end, last.end - last.start, last.checksum, state), self._batches)

    def _close(self) -> None:
        self._batches.append(self._last)
        self._last = Batch(self._last.end, self._last.end, 0)


@contextlib.contextmanager
def _closed_on_error(path: str, descriptor: int, what: str) -> Iterator[None]:
    """Close ``descriptor`` after any error, and raise the system's as a ``SinkError`` that says ``what`` failed."""
    try:
        yield
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise write_error(path, what, error) from error
        raise


def lines_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of ``blocks``, each with its newline (which the last may lack)."""
    pieces: list[bytes] = []
    for block in blocks:
        for piece in BytesIO(block):
            pieces.append(piece)
            if piece.endswith(b"\n"):
                yield piece if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
    if pieces:
        yield b"".join(pieces)


def _parts_of(preamble: bytes, records: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``preamble`` and ``records`` in parts of a megabyte, or of one record where that is larger.

    Of nothing at all there is one part, empty.
    """
    part, size = [preamble], len(preamble)
    for record in records:
        part.append(record)
        size += len(record)
        if size >= REWRITE_PART_BYTES:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def _after(position: int, packed: bytes, state: str) -> Mark:
    return Mark(position + len(packed), len(packed), zlib.crc32(packed), state)


def _check(path: str, descriptor: int, mark: Mark, batches: Iterable[Batch] | None, *, clean: bool) -> None:
    """Check the file against its mark and ``batches``, by default the last. Raises ``SinkError`` where it was changed, ``OSError`` where it is unreadable."""
    size = os.fstat(descriptor).st_size
    if size < mark.position:
        raise _changed(path, f"{size} bytes, not {mark.position}")
    if not 0 <= mark.tail <= mark.position:
        raise _changed(path, "it ends otherwise")
    last = [Batch(mark.position - mark.tail, mark.position, mark.checksum)]
    for _ in _blocks_of(path, descriptor, last if batches is None else batches):
        pass
    if clean and size > mark.position:
        raise SinkError(f"{path}: was added to since ({size} bytes, not {mark.position}): {RESTORE_ADVICE}")


def _blocks_of(path: str, descriptor: int, batches: Iterable[Batch]) -> Iterator[bytes]:
    """Yield the bytes of ``batches`` in blocks. Raises ``SinkError`` behind one whose checksum is another.

    A checksum below 0 is not known.
    """
    for start, end, checksum in batches:
        found = 0
        for block in read_range(descriptor, start, end):
            found = zlib.crc32(block, found)
            yield block
        if found != checksum >= 0:
            raise _changed(path, f"its bytes {start} to {end} are not those that were written")


def _check_copy(copy: str, mark: Mark, batches: Iterable[Batch] | None) -> None:
    if os.path.islink(copy):
        raise _changed(copy, "a link")
    descriptor = open_for_job(copy, create=False)
    try:
        _check(copy, descriptor, mark, batches, clean=True)
    finally:
        os.close(descriptor)


def _changed(path: str, how: str) -> SinkError:
    return SinkError(f"{path}: was changed since ({how}): {RESTORE_ADVICE}")
