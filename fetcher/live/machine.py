"""What a process of ours uses: memory, file descriptors, CPU. Where the system does not say, it is ``None``."""

from __future__ import annotations

import os
import time

from fetcher.live.state import ResourceUse

__all__ = ["MachineWatch", "uses"]

LOOK_SECONDS = 5.0

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def uses(pid: int) -> tuple[int | None, int | None]:
    """Return the bytes of memory and the number of descriptors of a process of ours."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            memory: int | None = int(file.read(200).split()[1]) * _PAGE_BYTES
        descriptors: int | None = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, ValueError, IndexError):
        return None, None
    return memory, descriptors


class MachineWatch:
    """This process, from look to look. To count descriptors is dear, so it is looked at every five seconds."""

    def __init__(self) -> None:
        self._cpu, self._when = time.process_time(), time.monotonic()
        self._last: ResourceUse | None = None
        self._others: dict[int, tuple[int | None, int | None]] = {}

    def look(self) -> ResourceUse:
        """Return what it uses, and the CPU since the look before."""
        when = time.monotonic()
        if self._last is None or when - self._when >= LOOK_SECONDS:
            self._last = self._look(when)
        return self._last

    def look_at(self, pid: int | None) -> tuple[int | None, int | None]:
        """Return the memory and the descriptors of another process of ours; nothing where there is none."""
        if pid is None:
            return None, None
        if pid not in self._others:
            self._others[pid] = uses(pid)
        return self._others[pid]

    def _look(self, when: float) -> ResourceUse:
        cpu = time.process_time()
        passed, used = when - self._when, cpu - self._cpu
        self._cpu, self._when = cpu, when
        self._others.clear()
        memory, descriptors = uses(os.getpid())
        return ResourceUse(memory, descriptors, _most_descriptors(), used / passed if passed > 0 else None)


def _most_descriptors() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
