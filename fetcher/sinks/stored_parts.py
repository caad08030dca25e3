"""The parts that are in a store: what is there and whose it is, and how a part is put, or found to be another.

Laws: a part is put where there is none, on that condition, unless it was there when we came: what another writer has
put is not overwritten (6). Whether a part is as it was written is told by its size and what the store calls its bytes;
where that says nothing, its bytes are read (2).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Collection, Iterator

import msgspec

from fetcher.errors import ConfigError, FetcherError, JobLocked, SinkError
from fetcher.files import PRIVATE
from fetcher.sinks.store_parts import (
    JOB,
    JobNote,
    PartMark,
    PartRow,
    part_name,
    part_number,
    read_sidecar,
    sidecar_name,
    sidecar_number,
)
from fetcher.store.owner import Owner
from fetcher.store.store import ObjectExistsError, Store, StoredObject, checksum_of

__all__ = ["StoredParts", "check_suffix", "whole_parts"]

log = logging.getLogger("fetcher.store")

OWNER_FILE = "owner"
OWNER, JOB_NOTE = f"{JOB}/owner", f"{JOB}/job"
_WRITTEN = re.compile(r"part-[0-9]{5,9}\.(jsonl\.zst|csv\.gz|parquet|warc\.gz|cdxj)", re.ASCII)


class StoredParts:
    """The parts under ``url`` with this ``suffix``; ``folder`` is where the job keeps what belongs to its output.

    ``there`` are those that are in the store, ``sidecars`` the numbers that have one, ``note`` says whose they are.
    Raises ``SinkError``, and ``JobLocked`` where another run is writing.
    """

    def __init__(self, url: str, suffix: str, folder: str) -> None:
        self.there: dict[int, StoredObject] = {}
        self.sidecars: set[int] = set()
        self.note: JobNote | None = None
        self.store = Store(url, SinkError, writing=True)
        self.store.check_installed()
        self._url = url
        self.suffix = suffix
        self._folder = folder
        self._owner: Owner | None = None

    def connect(self) -> None:
        """Become the owner of the prefix, and look what is there. Harmless twice."""
        if self._owner is not None:
            return
        os.makedirs(self._folder, 0o700, exist_ok=True)
        self.store = Store(self._url, SinkError, writing=True)
        self._owner = Owner(self.store, OWNER, os.path.join(os.path.dirname(self._folder), OWNER_FILE))
        self._owner.claim()
        try:
            if many := self.store.abort_uploads(_is_ours):
                log.warning("%s: %d uploads that an earlier run had begun are aborted", self._url, many)
        except FetcherError as error:
            log.warning(
                "%s: uploads that an earlier run had begun could not be looked for, and may be left: %s",
                self._url,
                error,
            )
        self._look()

    def close(self) -> None:
        """Give up the prefix. Harmless twice."""
        self.store.close()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.release()

    def clear(self) -> None:
        """Remove all that a job has written there, but for its owner."""
        for folder in ("", JOB):
            for name in self.store.names(folder):
                if _WRITTEN.fullmatch(name) or (folder and (name == "job" or sidecar_number(name))):
                    self.store.remove(f"{folder}/{name}" if folder else name)
        self._look()

    def prepare(self, job: str, identity: bytes) -> None:
        """Say whose the parts are, where that is not said yet; raise ``JobLocked`` where another run goes on with them."""
        assert self._owner is not None
        self._owner.verify()
        note = JobNote(job, self.suffix, identity.decode())
        if note == self.note:
            return
        data = msgspec.json.encode(note)
        try:
            self.store.put(JOB_NOTE, data, create=self.note is None)
        except ObjectExistsError:
            if self.store.read(JOB_NOTE) != data:  # else its answer was lost
                raise JobLocked(f"{self._url}: another run has begun a job there") from None
        self.note = note

    def sidecar(self, number: int) -> tuple[PartMark, Iterator[PartRow]] | None:
        """Return what stands beside a part, ``None`` where there is nothing that can be read."""
        if number not in self.sidecars:
            return None
        try:
            return read_sidecar(self.store.blocks(sidecar_name(number)), number)
        except (ValueError, FileNotFoundError):
            return None

    def matches(self, part: PartMark, *, thorough: bool = False) -> bool:
        """Say whether a part is there as it was written; ``thorough`` reads it."""
        found = self.there.get(part.number)
        if found is None or found.size != part.size:
            return False
        if found.tag in (part.tag, self.tags().get(part.number)) and not thorough:
            return True
        # The store may call the same bytes otherwise: then they are looked at.
        try:
            if checksum_of(self.store, part_name(part.number, self.suffix)) != part.checksum:
                return False
        except FileNotFoundError:
            return False
        self._keep_tag(part.number, found.tag)
        return True

    def put_sidecar(self, part: PartMark, source: str) -> None:
        """Put what stands beside a part."""
        number = part.number
        try:
            self.store.put_file(sidecar_name(number), source, create=number not in self.sidecars | self.there.keys())
        except ObjectExistsError as error:
            self.sidecars.add(number)
            told = self.sidecar(number)  # perhaps it is ours, and its answer was lost
            if told is None or told[0] != part:
                raise _written_by_another(error) from None
        self.sidecars.add(number)

    def put_part(self, part: PartMark, source: str, companions: Collection[str]) -> None:
        """Put a part, what goes with it first, and see that it is there as it was written."""
        number = part.number
        for companion in companions:
            self.store.put_file(os.path.basename(companion), companion)
        name = part_name(number, self.suffix)
        with contextlib.suppress(ObjectExistsError):  # then we look whose it is
            self.store.put_file(name, source, create=number not in self.there)
        found = self.store.info(name)
        if found is not None:
            self.there[number] = found
        if not self.matches(part):
            raise _written_by_another(self.shown(number))

    def check_written(self, parts: Collection[PartMark]) -> None:
        """Look whether all parts are there as they were written, where the store itself lets one overwrite another's."""
        if self.store.conditional is not False:
            return
        self._look()
        for part in parts:
            if not self.matches(part):
                raise _written_by_another(self.shown(part.number))

    def remove(self, number: int, *, beside: bool = False) -> None:
        """Remove a part and what stands beside it; or ``beside`` alone, which says what is no longer so, whatever is put back."""
        if not beside:
            self.store.remove(part_name(number, self.suffix))
            self.there.pop(number, None)
        self.store.remove(sidecar_name(number))
        self.sidecars.discard(number)

    def shown(self, number: int) -> str:
        """Return what messages call a part."""
        return str(self.store.address.under(part_name(number, self.suffix)))

    def tags(self) -> dict[int, str]:
        """Return what the store calls parts, where that is not what was expected."""
        found: dict[int, str] = {}
        with contextlib.suppress(OSError, ValueError), open(self._tags_file, encoding="utf-8") as file:
            for line in file:
                number, _, tag = line.strip().partition(" ")
                found[int(number)] = tag
        return found

    def _keep_tag(self, number: int, tag: str) -> None:
        descriptor = os.open(self._tags_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
        try:
            os.write(descriptor, f"{number} {tag}\n".encode())
        finally:
            os.close(descriptor)

    @property
    def _tags_file(self) -> str:
        return os.path.join(self._folder, "tags")

    def _look(self) -> None:
        self.there = {
            number: found
            for name, found in self.store.names().items()
            if (number := part_number(name, self.suffix)) is not None
        }
        self.sidecars = {number for name in self.store.names(JOB) if (number := sidecar_number(name)) is not None}
        data = self.store.read(JOB_NOTE)
        try:
            self.note = None if data is None else msgspec.json.decode(data, type=JobNote)
        except ValueError:
            raise SinkError(
                f"{self.store.address.under(JOB_NOTE)}: is not as a job has written it: remove it, or use --fresh"
            ) from None


def check_suffix(stored: StoredParts) -> None:
    """Raise ``ConfigError`` where the parts that are there have another format."""
    if stored.note is not None and stored.note.suffix != stored.suffix:
        raise ConfigError(
            f"{stored.store.address}/: holds parts named *{stored.note.suffix}, and *{stored.suffix} is asked for: give -f as "
            "before, write to another prefix, or begin again with --fresh"
        )


def whole_parts(stored: StoredParts) -> Iterator[tuple[PartMark, Iterator[PartRow]]]:
    """Yield the parts that are as what stands beside them says, with their rows; tell of those that are not."""
    check_suffix(stored)
    for number in sorted(stored.there):
        told = stored.sidecar(number)
        if told is not None and stored.matches(told[0]):
            yield told
        else:
            log.warning("%s: is not as its sidecar says: it is written again", stored.shown(number))


def _written_by_another(what: object) -> JobLocked:
    return JobLocked(f"{what}: is not what was put there: another run writes to this prefix")


def _is_ours(name: str) -> bool:
    return _WRITTEN.fullmatch(name) is not None or (name.startswith(f"{JOB}/") and "/" not in name[len(JOB) + 1 :])
