"""Every exception aiohttp raises, in our words. A test walks aiohttp's tree and finds each one here.

Law 2: a failed exchange costs one URL, so whatever the wire can do to us has a code of ours. Law 7: what an
error quotes is the web's, so it is cut and put on one line.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from fetcher.errors import (
    ConnectError,
    ConnectTimeout,
    DNSError,
    DNSTimeout,
    FetchError,
    FetchTimeout,
    InvalidURL,
    ProtocolError,
    RedirectError,
    Skipped,
    TLSError,
    TLSTimeout,
)
from fetcher.transport.address import blocked_address

__all__ = ["out_of_time", "translate"]

MAX_QUOTED_CHARACTERS = 500  # of the message of an error that is not ours

_RESET = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN}

_OF_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")  # in the names of TLS alerts

_CONNECT_STAGES: dict[str, type[DNSTimeout | ConnectTimeout | TLSTimeout]] = {
    "resolving": DNSTimeout,
    "connecting": ConnectTimeout,
    "handshaking": TLSTimeout,
}


def translate(error: BaseException, stage: str) -> FetchError:
    """Turn what aiohttp raised into a ``FetchError``; ``stage`` is where the exchange stood.

    Names what happened to the row: the server's number is never invented (aiohttp says 400 for a reply it
    cannot read), and a broken body is told from a broken connection.
    """
    blocked = blocked_address(error)
    if blocked is not None:
        return Skipped("address_blocked", str(blocked))
    if isinstance(error, asyncio.TimeoutError) and error.errno is None:  # with a number it is the system's
        return _timeout(error, stage)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connector(error, stage)
    if isinstance(error, ssl.SSLError):
        return _tls(error)
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return TLSError("tls_verify", f"the certificate of {_one_line(error.host)} is not the one that is pinned")
    if isinstance(error, aiohttp.RedirectClientError):
        return RedirectError("bad_redirect", _words(error))
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return InvalidURL(message=f"aiohttp refuses it: {_words(error)}")
    if isinstance(error, aiohttp.ClientResponseError):
        return _response(error)
    if isinstance(error, HttpProcessingError):
        return _malformed(error.message)
    if isinstance(error, aiohttp.ClientPayloadError):
        return _payload(error)
    if isinstance(error, OSError | aiohttp.ClientConnectionError):
        return _asks_for_certificate(error) or _broken(error, stage)
    return ProtocolError("malformed_response", _words(error))


def out_of_time(stage: str, clock: str = "timeout") -> FetchTimeout:
    """Say in which stage the time for the whole exchange ran out, by the ``clock`` that is named."""
    message = f"{clock} ran out while {stage}"
    kind = _CONNECT_STAGES.get(stage)
    if kind is not None:
        return kind(message=message)
    return FetchTimeout("too_slow" if stage == "reading" else "total_timeout", message)


def _timeout(error: BaseException, stage: str) -> FetchTimeout:
    if isinstance(error, aiohttp.SocketTimeoutError):
        return FetchTimeout("read_timeout", f"nothing came for the whole read-timeout while {stage}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return out_of_time(stage if stage in _CONNECT_STAGES else "connecting", "connect-timeout")
    return out_of_time(stage)


def _connector(error: aiohttp.ClientConnectorError, stage: str) -> FetchError:
    """Judge a connection that did not come about by what the system said of it."""
    cause: BaseException = error.os_error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return _proxy(cause)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return TLSError("tls_verify", _certificate(cause))
    if isinstance(cause, ssl.SSLError):
        return _tls(cause)
    if isinstance(error, aiohttp.ClientSSLError):
        return TLSError("tls_protocol", _words(cause))
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(cause, socket.gaierror):
        return _dns(cause)
    if stage == "handshaking" and isinstance(cause, ConnectionAbortedError) and cause.errno is None:
        return TLSTimeout(message=_words(cause))  # asyncio's own patience with a handshake
    return _unconnected(cause, stage)


def _unconnected(cause: BaseException, stage: str) -> FetchError:
    number = getattr(cause, "errno", None)
    if number == errno.ETIMEDOUT:
        return ConnectTimeout(message=_words(cause))
    if stage == "handshaking":
        return TLSError("tls_protocol", _words(cause))
    return ConnectError("connect_reset" if number in _RESET else "connect_refused", _words(cause))


def _proxy(cause: BaseException) -> FetchError:
    """Judge a proxy that cannot be reached: nothing is known of the host behind it, so its name is not at fault."""
    number = getattr(cause, "errno", None)
    message = f"the proxy: {_words(cause)}"
    if number == errno.ETIMEDOUT:
        return ConnectTimeout(message=message)
    return ConnectError("connect_reset" if number in _RESET else "connect_refused", message)


def _dns(cause: BaseException) -> FetchError:
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN:
        return DNSTimeout(message=_words(cause))
    return DNSError("dns_not_found", _words(cause))


def _tls(error: ssl.SSLError) -> FetchError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError("tls_verify", _certificate(error))
    return TLSError("tls_protocol", _words(error))


def _certificate(error: BaseException) -> str:
    # The attribute is there only where OpenSSL raised the error itself.
    return _one_line(getattr(error, "verify_message", None) or "") or _words(error)


def _response(error: aiohttp.ClientResponseError) -> FetchError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        refused = ConnectError(
            "connect_refused", f"the proxy answered {error.status} {_one_line(error.message)}".strip()
        )
        refused.final = (
            400 <= error.status < 500 and error.status != 429
        )  # it will not have us, however often it is asked
        return refused
    if isinstance(error, aiohttp.TooManyRedirects):
        return RedirectError("redirect_limit", "too many redirects")
    return _malformed(error.message)


def _malformed(text: str) -> FetchError:
    text = _one_line(text).removesuffix(" ^")  # llhttp draws an arrow at the place
    # LineTooLong does not survive aiohttp's own translation: of it only the text is left.
    large = text.startswith("Got more than") or (text.startswith("Too many") and text.endswith("received"))
    return ProtocolError("headers_too_large" if large else "malformed_response", text or "the answer is no HTTP")


def _payload(error: aiohttp.ClientPayloadError) -> FetchError:
    """Tell a body that ended early from one that says what no body may say."""
    cause = error.__cause__
    if isinstance(cause, HttpProcessingError):
        if "Not enough data" not in cause.message:
            return _malformed(cause.message)
        return ProtocolError("truncated", f"the body ended early ({_one_line(cause.message).rstrip('.')})")
    return ProtocolError("truncated", f"the body ended early ({_words(error)})")


def _asks_for_certificate(error: BaseException) -> FetchError | None:
    """Find the alert of a server that wants a client certificate, or another: in TLS 1.3 it comes after the handshake."""
    cause: BaseException | None = error
    while cause is not None:
        reason = (cause.reason or "") if isinstance(cause, ssl.SSLError) else ""
        if "CERTIFICATE_REQUIRED" in reason:
            return TLSError("tls_protocol", "the server asks for a client certificate (--cert)")
        if "_ALERT_" in reason and any(word in reason for word in _OF_CERTIFICATES):
            return TLSError("tls_protocol", f"the server refuses our certificate ({_words(cause)})")
        cause = cause.__cause__ or cause.__context__
    return None


def _broken(error: BaseException, stage: str) -> FetchError:
    """Judge a connection that was there and is no more."""
    if isinstance(error, socket.gaierror):
        return _dns(error)
    if stage == "reading":
        return ProtocolError("truncated", f"the connection broke within the body ({_words(error)})")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        if error.message is not None and not isinstance(error.message, str):
            return ProtocolError("truncated", "the connection closed within the head of the answer")
        return ProtocolError("empty_reply", "the connection closed before any answer")
    if stage in _CONNECT_STAGES and isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError):
        return _unconnected(error, stage)
    return ConnectError("connect_reset", _words(error))


def _words(error: BaseException) -> str:
    """Say what went wrong in the system's words, or in aiohttp's without the name it prints of an object of ours."""
    text = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return _one_line(text or str(error)) or type(error).__name__


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:MAX_QUOTED_CHARACTERS]
