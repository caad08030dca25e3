"""Owns the addresses of the lab: its loopback hosts, and ports at which nobody answers in one way or another."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

ATTEMPTS = 50
BACKLOG = 1024


def host_address(number: int) -> str:
    """Return the address of a loopback host: 1 is 127.0.0.1, 2 is 127.0.0.2."""
    return f"127.0.{number >> 8}.{number & 255}"


def bind_hosts(hosts: int) -> list[socket.socket]:
    """Return a listening socket for each host from 1, all at one port that was free.

    Raises OSError when no port is free on all of them, or the system has no such loopback hosts.
    """
    failure = OSError("no host to bind")
    for _ in range(ATTEMPTS):
        with ExitStack() as stack:
            listeners: list[socket.socket] = []
            try:
                for number in range(1, hosts + 1):
                    port = listeners[0].getsockname()[1] if listeners else 0
                    listeners.append(stack.enter_context(_listen(host_address(number), port, BACKLOG)))
            except OSError as error:
                failure = error
                continue
            stack.pop_all()
            return listeners
    raise failure


@contextmanager
def refused_port(host: int = 1) -> Iterator[int]:
    """Hold a port that is bound and not listened on, so that connecting is refused at once."""
    with socket.socket() as sock:
        sock.bind((host_address(host), 0))
        yield sock.getsockname()[1]


@contextmanager
def silent_port(host: int = 1) -> Iterator[int]:
    """Hold a port where the kernel accepts up to 128 connections and nobody ever reads or answers.

    To a client it is a server that hangs: after the connect, and inside a TLS handshake.
    """
    with _listen(host_address(host), 0, 128) as sock:
        yield sock.getsockname()[1]


@contextmanager
def black_hole(host: int = 1) -> Iterator[int]:
    """Hold a port where connecting hangs: neither accepted nor refused, as behind a firewall that drops.

    A listener with a backlog of 0 that never accepts; its queue is filled here, and Linux then drops each SYN
    (unless ``net.ipv4.tcp_abort_on_overflow`` is set). Raises OSError when the queue does not fill up.
    """
    with _listen(host_address(host), 0, 0) as sock, ExitStack() as stack:
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
            # On loopback the handshake is done before connect returns: what is not writable now hangs.
            if not select.select([], [filler], [], 0.2)[1]:
                break
        else:
            raise OSError("the queue of the listener does not fill up")
        yield sock.getsockname()[1]


def _listen(address: str, port: int, backlog: int) -> socket.socket:
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
