"""The files that a config names, on their way to a worker that may be on a machine without them.

Law 7: they may be keys and cookies, so their contents go in a message of ours, never on a command line or into a place
where others look, and on the other machine they have no name: they lie in memory where the system can do that, and else
in a folder for their owner alone, for as long as it takes to read them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from fetcher.config import Config
from fetcher.errors import ConfigError

__all__ = ["carried_files", "placed"]

MAX_BYTES = 32 * 1024 * 1024  # of all files together: a bundle of authorities has 250 KB


def carried_files(config: Config) -> dict[str, bytes]:
    """Return the contents of the files that a worker reads, by their paths. Raises ``ConfigError``."""
    found: dict[str, bytes] = {}
    for path in _named_by(config):
        try:
            with open(path, "rb") as file:
                found[path] = file.read(MAX_BYTES)
        except OSError as error:
            raise ConfigError(f"workers: {path}: cannot be read ({error.strerror}), and the workers need it") from None
    if sum(map(len, found.values())) >= MAX_BYTES:
        raise ConfigError(
            "workers: the files of --cookie, --cert, --key and --ca-bundle are too large to be sent to them"
        )
    return found


@contextmanager
def placed(config: Config, files: Mapping[str, bytes]) -> Iterator[Config]:
    """Give the config with paths under which these contents are found here, until the block is left."""
    if not files:
        yield config
        return
    with contextlib.ExitStack() as stack:
        paths = {path: stack.enter_context(_place(content)) for path, content in files.items()}
        certificates = tuple(
            msgspec.structs.replace(one, file=paths.get(one.file, one.file)) for one in config.tls.certificates
        )
        tls = msgspec.structs.replace(
            config.tls,
            ca_bundle=_moved(config.tls.ca_bundle, paths),
            key=_moved(config.tls.key, paths),
            certificates=certificates,
        )
        cookies = tuple(paths.get(path, path) for path in config.identity.cookie_files)
        identity = msgspec.structs.replace(config.identity, cookie_files=cookies)
        yield msgspec.structs.replace(config, tls=tls, identity=identity)


def _named_by(config: Config) -> list[str]:
    tls = config.tls
    paths = [tls.ca_bundle, tls.key, *(one.file for one in tls.certificates), *config.identity.cookie_files]
    return [path for path in paths if path is not None]


def _moved(path: str | None, paths: Mapping[str, str]) -> str | None:
    return None if path is None else paths.get(path, path)


@contextmanager
def _place(content: bytes) -> Iterator[str]:
    """Have a file with that content, and give a path under which this process can open it."""
    in_memory = getattr(os, "memfd_create", None)
    if in_memory is not None and os.path.isdir("/proc/self/fd"):
        with open(in_memory("carried"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile(prefix="fetcher-") as named:  # its mode is for the owner alone
        named.write(content)
        named.flush()
        yield named.name
