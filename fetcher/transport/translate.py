"""Every exception aiohttp raises, in our words. A test walks aiohttp's tree and finds each one here."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import aiohttp

from fetcher.errors import (
    ConnectError,
    DNSError,
    FetchError,
    FetchTimeout,
    InvalidURL,
    ProtocolError,
    RedirectError,
    Skipped,
    TLSError,
)
from fetcher.transport.address import blocked_address

__all__ = ["out_of_descriptors", "translate"]

_RESET = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN}


def out_of_descriptors(error: BaseException) -> bool:
    """Say whether the process has no file descriptor left: our own limit, and no fault of the host."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def translate(error: BaseException, stage: str) -> FetchError:
    """Turn what aiohttp raised into a ``FetchError``; ``stage`` is where the exchange stood.

    Names what happened to the row: the server's number is never invented (aiohttp says 400 for a reply it
    cannot read), and a broken body is told from a broken connection.
    """
    blocked = blocked_address(error)
    if blocked is not None:
        return Skipped("address_blocked", str(blocked))
    if isinstance(error, asyncio.TimeoutError):
        return _timeout(error, stage)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or (
        isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, socket.gaierror)
    ):
        return _dns(error.os_error)
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return TLSError("tls_verify", str(error))
    certificate = _certificate_error(error)
    if certificate is not None:
        return TLSError("tls_verify", certificate)
    if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
        return TLSError("tls_protocol", _words(error))
    if isinstance(error, aiohttp.ClientPayloadError):
        return ProtocolError("truncated", f"the body ended early ({_words(error)})")
    if isinstance(error, aiohttp.ClientResponseError):
        return _response(error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        if error.message is not None and not isinstance(error.message, str):
            return ProtocolError("truncated", "the connection closed within the head of the answer")
        return ProtocolError("empty_reply", "the connection closed before any answer")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return InvalidURL(message=f"aiohttp refuses it: {_words(error)}")
    if isinstance(error, aiohttp.RedirectClientError):
        return RedirectError("bad_redirect", _words(error))
    if isinstance(error, OSError):
        return _os_error(error, stage)
    if isinstance(error, aiohttp.ClientConnectionError):
        return ConnectError("connect_reset", _words(error))
    return ProtocolError("malformed_response", _words(error))


def _timeout(error: BaseException, stage: str) -> FetchError:
    if isinstance(error, aiohttp.SocketTimeoutError):
        return FetchTimeout("read_timeout", f"nothing came for the whole read-timeout while {stage}")
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ServerTimeoutError) or stage in _CONNECT_STAGES:
        kind, code = _CONNECT_STAGES.get(stage, (ConnectError, "connect_timeout"))
        return kind(code, f"connect-timeout ran out while {stage}")
    return FetchTimeout("too_slow" if stage == "reading" else "total_timeout", f"timeout ran out while {stage}")


_CONNECT_STAGES: dict[str, tuple[type[FetchError], str]] = {
    "resolving": (DNSError, "dns_timeout"),
    "connecting": (ConnectError, "connect_timeout"),
    "handshaking": (TLSError, "tls_timeout"),
}


def _dns(error: BaseException) -> FetchError:
    temporary = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
    return DNSError("dns_timeout" if temporary else "dns_not_found", getattr(error, "strerror", None) or str(error))


def _certificate_error(error: BaseException) -> str | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause: BaseException = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    else:
        cause = error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message or _words(cause)
    return _words(cause) if isinstance(error, aiohttp.ClientConnectorCertificateError) else None


def _response(error: aiohttp.ClientResponseError) -> FetchError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectError("connect_refused", f"the proxy answered {error.status} {error.message}".strip())
    if isinstance(error, aiohttp.TooManyRedirects):
        return RedirectError("redirect_limit", "too many redirects")
    if "Got more than" in error.message or "Header value is too long" in error.message:
        return ProtocolError("headers_too_large", error.message.strip())
    return ProtocolError("malformed_response", error.message.strip() or "the answer is no HTTP")


def _os_error(error: OSError, stage: str) -> FetchError:
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        number, text = inner.errno, inner.strerror or str(inner)
        where = "the proxy: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        if number == errno.ETIMEDOUT:
            return ConnectError("connect_timeout", where + text)
        if isinstance(inner, ssl.SSLError):
            return TLSError("tls_protocol", where + text)
        if number in _RESET or stage == "handshaking":
            return (
                TLSError("tls_protocol", where + text)
                if stage == "handshaking"
                else ConnectError("connect_reset", where + text)
            )
        return ConnectError("connect_refused", where + text)
    if stage == "reading":
        return ProtocolError("truncated", f"the connection broke within the body ({_words(error)})")
    return ConnectError("connect_reset", _words(error))


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
