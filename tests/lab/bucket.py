"""Owns a real S3 server on loopback: moto's, in a process of its own, and a line to it that can be cut.

Law 1: it listens on 127.0.0.1, and ends with the block. Law 2: nothing is slept for: it is asked until it answers.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["KEY", "SECRET", "Bucket", "CutLine", "missing", "serving_bucket"]

KEY, SECRET = "AKIAFETCHERTESTKEY00", "s3cr3t/of+the/fetcher/tests/0123456789"
BUCKET = "lab"
ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0


def missing() -> str | None:
    """Say what is not installed of what it takes, or ``None``."""
    for name in ("moto", "flask", "s3fs", "boto3"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install -e '.[s3]' 'moto[server]'"
    return None


class CutLine:
    """A TCP proxy in front of a server on loopback: ``cut`` resets what is open and refuses what comes."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.port = 0
        self.mend()

    def cut(self) -> None:
        """Cut it."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Mend it, at the same port."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        with near, far:
            back.start()
            self._pump(near, far)
            back.join()
        with self._lock:
            self._open -= {near, far}

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass
class Bucket:
    """A bucket of the server, the way to it that can be cut, and a client of its own that goes there directly."""

    port: int
    line: CutLine
    client: Any = field(repr=False)
    name: str = BUCKET

    def environment(self, *, secret: str = SECRET, direct: bool = False) -> dict[str, str]:
        """Return what a process needs to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port if direct else self.line.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "*",
        }

    def names(self, prefix: str = "") -> list[str]:
        """Return the keys under a prefix, without it, sorted."""
        found: list[str] = []
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            found += [entry["Key"].removeprefix(prefix) for entry in page.get("Contents", ())]
        return sorted(found)

    def get(self, key: str) -> bytes:
        """Return an object."""
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Put an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def remove(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def fetch(self, prefix: str, folder: Path, suffix: str) -> list[Path]:
        """Write the objects under a prefix whose names end so into a folder; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name in self.names(prefix):
            if name.endswith(suffix) and "/" not in name:
                paths.append(folder / name)
                paths[-1].write_bytes(self.get(prefix + name))
        return paths


@contextmanager
def serving_bucket(how: str = "honours") -> Iterator[Bucket]:
    """Serve a bucket until the block is left; ``how`` says what a condition is to the server (see ``s3_server``)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.lab.s3_server", str(port), how]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=kept)
    try:
        _await(port, process)
        import boto3

        client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", aws_access_key_id=KEY,
            aws_secret_access_key=SECRET, config=boto3.session.Config(proxies={}, retries={"max_attempts": 5}),
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        line = CutLine(port)
        try:
            yield Bucket(port, line, client)
        finally:
            line.cut()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            threading.Event().wait(0.05)
        else:
            return
    raise RuntimeError(f"the S3 server did not start (exit code {process.poll()})")
