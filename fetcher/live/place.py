"""Where the page is served: an address and a port of this machine, by default loopback and a port that is free."""

from __future__ import annotations

import socket

import msgspec

from fetcher.errors import ConfigError

__all__ = ["LivePlace"]

LOOPBACK = "127.0.0.1"


class LivePlace(msgspec.Struct, frozen=True):
    """A ``host`` (a name or an address of ours) and a ``port``, 0 for one that is free."""

    host: str = LOOPBACK
    port: int = 0

    @classmethod
    def of(cls, text: str) -> LivePlace:
        """Read ``[HOST:]PORT``. Raises ``ConfigError`` for what is none."""
        host, _, port = text.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (port.isascii() and port.isdecimal()) or any(mark in host for mark in "/@[] ") or "\0" in host:
            raise ConfigError(f"{text!r} is no [HOST:]PORT (such as 8080, 0.0.0.0:8080 or [::1]:8080)")
        if int(port) > 65535:
            raise ConfigError(f"{port} is no port: they go from 0 (any that is free) to 65535")
        return cls(host or LOOPBACK, int(port))

    def listen(self) -> socket.socket:
        """Return a socket that listens there. Raises ``ConfigError`` where that cannot be had."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)
            return socket.create_server(address[:2], family=family, backlog=128)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"live-at: cannot listen on {self.host}:{self.port}: {reason}; give another port, or 0 for one that is free"
            ) from None
