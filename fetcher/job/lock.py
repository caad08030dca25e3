"""The lock of a job: one live process works on a folder, and the system lets go of it when that process ends.

Laws: the lock is ``flock`` on an open file, so one left by a crash refuses nobody; the file is not touched before it
is ours, never removed, and never reached through a link (6, 7).
"""

from __future__ import annotations

import os
import time

from fetcher.errors import JobLocked, LedgerError
from fetcher.files import PRIVATE, NotRegularFileError, open_regular, try_lock

__all__ = ["Lock"]

_NAME = "lock"


class Lock:
    """The right to work on the job in ``folder``, held from ``acquire`` to ``release`` or to the process's end."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = os.path.join(folder, _NAME)
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock, without waiting.

        Raises ``JobLocked`` naming the process that has it, ``LedgerError`` where the file cannot be locked.
        """
        assert self._descriptor < 0, "the lock is ours already"
        while True:
            descriptor = self._open()
            try:
                self._lock(descriptor)
                if self._stands(descriptor):
                    self._sign(descriptor)
                    self._descriptor = descriptor
                    return
            finally:
                if self._descriptor != descriptor:
                    os.close(descriptor)

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                raise self._trouble(error) from error

    def _open(self) -> int:
        try:
            if os.path.islink(self.path):
                raise self._foreign()
            return open_regular(self.path, os.O_RDWR | os.O_CREAT, mode=PRIVATE)
        except NotRegularFileError:
            raise self._foreign() from None
        except OSError as error:
            raise self._trouble(error) from error

    def _lock(self, descriptor: int) -> None:
        for pause in (0.02, 0.1, 0.0):  # a report looks for an instant whether somebody holds it
            try:
                if try_lock(descriptor):
                    return
            except OSError as error:
                raise self._trouble(error) from error
            time.sleep(pause)
        raise JobLocked(
            f"{self.folder}: another fetcher{self._holder(descriptor)} is working on it; wait for it or stop it"
        )

    def _holder(self, descriptor: int) -> str:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            word = os.read(descriptor, 32).split(b"\n", 1)[0]
        except OSError:
            return ""  # that it is locked is what matters
        return f" (process {int(word)})" if word.isdigit() else ""

    def _stands(self, descriptor: int) -> bool:
        """Say whether the file we locked is still the one at the path: whoever began again may have put a new one."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._trouble(error) from error

    def _sign(self, descriptor: int) -> None:
        word = b"%d\n" % os.getpid()
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, word)
            os.ftruncate(descriptor, len(word))
        except OSError as error:
            raise self._trouble(error) from error

    def _foreign(self) -> LedgerError:
        return LedgerError(
            f"{self.path}: is no regular file, as a lock is: take it away and run the same command again"
        )

    def _trouble(self, error: OSError) -> LedgerError:
        return LedgerError(
            f"{self.path}: cannot lock the job: {error.strerror or error}: "
            "repair that and run the same command again, or give another --job"
        )
