"""Who writes to a prefix: one run at a time, by an object that only one can make.

Law 6: two writers would give parts the same names. The object is made on the condition that there is none
(``If-None-Match: *``); where the store does not know that (some that speak S3 do not), it is looked for before and held
against ours a little later. Its owner writes it again every ``BEAT_SECONDS``; whoever finds one that is not its own
looks whether that happens, by its own clock alone: clocks of two machines, or the store's, are never compared. One that
is not renewed for ``PATIENCE_SECONDS`` belongs to nobody. What an owner that was thought to be dead still tries to put
is refused, for a part is made on the same condition.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from fetcher.errors import FetcherError, JobLocked
from fetcher.files import PRIVATE, sync, sync_folder_of
from fetcher.store.store import ObjectExistsError, Store

__all__ = ["Owner"]

log = logging.getLogger("fetcher.store")

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 2.0
"""Between looking for an owner and writing, beyond which two may miss each other in a store that knows no condition."""

_TAKEN = "another run goes on with this output, and this one was thought to be dead: its rows are that run's now"


class OwnerNote(msgspec.Struct, frozen=True):
    """What stands in the object."""

    token: str
    host: str
    process: int
    beat: int = 0


class Owner:
    """The right to write to a prefix, by the object ``name`` in it; ``path`` is a file that remembers who we were.

    A run that died on this machine is succeeded at once, for the job's lock says that it is dead.
    """

    def __init__(self, store: Store, name: str, path: str) -> None:
        self._store = store
        self._name = name
        self._path = path
        self._note = OwnerNote(secrets.token_hex(16), socket.gethostname()[:100], os.getpid())
        self._lost = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()

    def claim(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Become the owner. Raises ``JobLocked`` where another run is one and lives."""
        if self._thread is not None:
            return
        ours = self._remember()
        while (found := self._make()) is not None:
            if found.token == self._note.token:  # the answer to our first try was lost
                break
            if found.token in ours:
                self._store.put(self._name, msgspec.json.encode(self._note))
                break
            self._wait_for_end(found, clock)
        if not self._has_condition():
            self._settle()
        self._thread = threading.Thread(target=self._beat, name="fetcher-store-owner", daemon=True)
        self._thread.start()

    def verify(self) -> None:
        """Raise ``JobLocked`` where another run is the owner by now."""
        if not self._lost:
            found = self._read()
            if found is None:  # somebody has removed it
                with contextlib.suppress(ObjectExistsError):
                    self._store.put(self._name, msgspec.json.encode(self._note), create=True)
                    return
                found = self._read()
            self._lost = found is not None and found.token != self._note.token
        if self._lost:
            raise JobLocked(f"{self._store.address}: {_TAKEN}")

    def release(self) -> None:
        """Give it up, if it is ours and the store answers."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is None or self._lost:
            return
        with self._writing, contextlib.suppress(FetcherError, ObjectExistsError):
            found = self._read(patient=False)
            if found is not None and found.token == self._note.token:
                self._store.remove(self._name, patient=False)

    def _make(self) -> OwnerNote | None:
        """Make the object; return what is there instead. It is looked for first: some stores would overwrite it."""
        found = self._read()
        while found is None:
            try:
                self._store.put(self._name, msgspec.json.encode(self._note), create=True)
            except ObjectExistsError:
                found = self._read()
            else:
                return None
        return found

    def _has_condition(self) -> bool:
        """Say whether the store refuses to make what is there: that is tried with our own object."""
        if self._store.conditional is None:
            try:
                self._store.put(self._name, msgspec.json.encode(self._note), create=True)
            except ObjectExistsError:
                # Set by now where the store has refused the condition itself, and what was there was looked for instead.
                self._store.conditional = self._store.conditional is None
            else:
                self._store.conditional = False
        return self._store.conditional

    def _settle(self) -> None:
        """Look once more who the owner is, when another that looked as we did has written. Raises ``JobLocked``."""
        log.warning(
            "%s: this store makes no object on a condition (If-None-Match): two runs that begin there in the same second "
            "may see each other late: give each a prefix of its own",
            self._store.address,
        )
        self._stopping.wait(SETTLE_SECONDS)
        found = self._read()
        if found is None or found.token != self._note.token:
            raise JobLocked(
                f"{self._store.address}: another run has begun there in the same moment: run one of them again, or write "
                "to another prefix"
            )

    def _wait_for_end(self, found: OwnerNote, clock: Callable[[], float]) -> None:
        """Look whether the owner lives; return when it is gone, or removed. Raises ``JobLocked``."""
        about = f"process {found.process} on {found.host}"
        log.warning(
            "%s: another run (%s) is writing there, or has died: it is watched for %.0f s",
            self._store.address, about, PATIENCE_SECONDS,
        )  # fmt: skip
        end = clock() + PATIENCE_SECONDS
        while clock() < end:
            self._stopping.wait(LOOK_SECONDS)
            now = self._read()
            if now is None:
                return
            if now != found:
                raise JobLocked(
                    f"{self._store.address}: another run ({about}) is writing there: stop it, or write to another prefix; "
                    "once it is dead, the same command goes on after half a minute"
                )
        log.warning("%s: the run that was writing there (%s) is dead: this one goes on", self._store.address, about)
        self._store.remove(self._name)

    def _beat(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            with self._writing, contextlib.suppress(FetcherError, ObjectExistsError):  # the next one may succeed
                if self._stopping.is_set():
                    return
                found = self._read(patient=False)
                if found is not None and found.token != self._note.token:
                    self._lost = True
                    return
                self._note = msgspec.structs.replace(self._note, beat=self._note.beat + 1)
                self._store.put(self._name, msgspec.json.encode(self._note), patient=False)

    def _read(self, *, patient: bool = True) -> OwnerNote | None:
        data = self._store.read(self._name, patient=patient)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=OwnerNote)
        except ValueError:
            return OwnerNote("", "unknown", 0)

    def _remember(self) -> set[str]:
        """Write down our token before it is used; return those that this job had."""
        try:
            with open(self._path, encoding="ascii") as file:
                before = [line.strip() for line in file.read(1000).splitlines() if line.strip()][:4]
        except (OSError, ValueError):
            before = []
        fresh = f"{self._path}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
        try:
            os.write(descriptor, "".join(f"{token}\n" for token in [self._note.token, *before]).encode())
            sync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(fresh, self._path)
        sync_folder_of(self._path)
        return set(before)
