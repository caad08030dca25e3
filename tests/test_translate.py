"""Every exception aiohttp can raise has a class and a code of ours: a new one without a mapping fails here."""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import aiohttp.client_exceptions
import aiohttp.http_exceptions
import pytest
import yarl
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from fetcher.config import Config
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
    StatusError,
    TLSError,
    TLSTimeout,
)
from fetcher.model import Request
from fetcher.request_state import RequestState, Transfer, current
from fetcher.transport.address import BlockedAddress
from fetcher.transport.descriptors import out_of_descriptors
from fetcher.transport.session import Transport
from fetcher.transport.translate import MAX_QUOTED_CHARACTERS, translate
from fetcher.urls import parse
from tests.lab.server import Exchange, LabServer

STAGES = ("resolving", "connecting", "handshaking", "waiting", "reading", "waiting for memory")
URL = yarl.URL("http://a.example/")
KEY = ConnectionKey("a.example", 80, False, True, None, None, None, None)
INFO = aiohttp.RequestInfo(URL, "GET", CIMultiDictProxy(CIMultiDict()), URL)
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
TRY_AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
BAD_CERTIFICATE = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed (_ssl.c:1)")
BAD_TLS = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1)")

Expected = tuple[type[FetchError], str]


def response_error(kind: type[aiohttp.ClientResponseError], status: int = 400, message: str = "no") -> Exception:
    return kind(INFO, (), status=status, message=message)


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


TREE: dict[str, tuple[Callable[[], Exception], Expected]] = {
    "ClientError": (lambda: aiohttp.ClientError("?"), (ProtocolError, "malformed_response")),
    "ClientResponseError": (
        lambda: response_error(aiohttp.ClientResponseError, message="Bad status line"),
        (ProtocolError, "malformed_response"),
    ),
    "ContentTypeError": (
        lambda: response_error(aiohttp.ContentTypeError, 200),
        (ProtocolError, "malformed_response"),
    ),
    "WSServerHandshakeError": (
        lambda: response_error(aiohttp.WSServerHandshakeError, 200),
        (ProtocolError, "malformed_response"),
    ),
    "ClientHttpProxyError": (
        lambda: response_error(aiohttp.ClientHttpProxyError, 407, "Proxy Authentication Required"),
        (ConnectError, "connect_refused"),
    ),
    "TooManyRedirects": (lambda: response_error(aiohttp.TooManyRedirects, 302), (RedirectError, "redirect_limit")),
    "ClientConnectionError": (lambda: aiohttp.ClientConnectionError("closed"), (ConnectError, "connect_reset")),
    "ClientConnectionResetError": (
        lambda: aiohttp.ClientConnectionResetError("Cannot write to closing transport"),
        (ConnectError, "connect_reset"),
    ),
    "ClientOSError": (lambda: aiohttp.ClientOSError(*RESET.args), (ConnectError, "connect_reset")),
    "ClientConnectorError": (lambda: aiohttp.ClientConnectorError(KEY, REFUSED), (ConnectError, "connect_refused")),
    "ClientConnectorDNSError": (lambda: aiohttp.ClientConnectorDNSError(KEY, NO_NAME), (DNSError, "dns_not_found")),
    "ClientProxyConnectionError": (
        lambda: aiohttp.ClientProxyConnectionError(KEY, REFUSED),
        (ConnectError, "connect_refused"),
    ),
    "UnixClientConnectorError": (
        lambda: aiohttp.client_exceptions.UnixClientConnectorError("/run/x", KEY, REFUSED),
        (ConnectError, "connect_refused"),
    ),
    "ClientSSLError": (lambda: aiohttp.ClientSSLError(KEY, OSError("tls")), (TLSError, "tls_protocol")),
    "ClientConnectorSSLError": (lambda: aiohttp.ClientConnectorSSLError(KEY, BAD_TLS), (TLSError, "tls_protocol")),
    "ClientConnectorCertificateError": (
        lambda: aiohttp.ClientConnectorCertificateError(KEY, BAD_CERTIFICATE),
        (TLSError, "tls_verify"),
    ),
    "ServerConnectionError": (lambda: aiohttp.ServerConnectionError("gone"), (ConnectError, "connect_reset")),
    "ServerDisconnectedError": (lambda: aiohttp.ServerDisconnectedError(), (ProtocolError, "empty_reply")),
    "ServerTimeoutError": (lambda: aiohttp.ServerTimeoutError("slow"), (FetchTimeout, "total_timeout")),
    "ConnectionTimeoutError": (lambda: aiohttp.ConnectionTimeoutError("slow"), (ConnectTimeout, "connect_timeout")),
    "SocketTimeoutError": (lambda: aiohttp.SocketTimeoutError("slow"), (FetchTimeout, "read_timeout")),
    "ServerFingerprintMismatch": (
        lambda: aiohttp.ServerFingerprintMismatch(b"a", b"b", "a.example", 443),
        (TLSError, "tls_verify"),
    ),
    "ClientPayloadError": (lambda: aiohttp.ClientPayloadError("cut"), (ProtocolError, "truncated")),
    "UploadAbortedError": (
        lambda: named("UploadAbortedError")("The request body was not fully sent"),
        (ProtocolError, "malformed_response"),
    ),
    "InvalidURL": (lambda: aiohttp.InvalidURL("http://?"), (InvalidURL, "invalid_url")),
    "InvalidUrlClientError": (lambda: aiohttp.InvalidUrlClientError("http://?", "no"), (InvalidURL, "invalid_url")),
    "RedirectClientError": (lambda: aiohttp.RedirectClientError("?"), (RedirectError, "bad_redirect")),
    "NonHttpUrlClientError": (lambda: aiohttp.NonHttpUrlClientError("ftp://x"), (InvalidURL, "invalid_url")),
    "InvalidUrlRedirectClientError": (
        lambda: aiohttp.InvalidUrlRedirectClientError("http://?"),
        (RedirectError, "bad_redirect"),
    ),
    "NonHttpUrlRedirectClientError": (
        lambda: aiohttp.NonHttpUrlRedirectClientError("ftp://x"),
        (RedirectError, "bad_redirect"),
    ),
}
"""Each class of aiohttp's tree, made as aiohttp makes it, and what it is for a row that waits for its answer."""

NEWER = {"UploadAbortedError"}
"""Classes that the oldest aiohttp we run on does not have yet."""

PARSER = {
    "HttpProcessingError": "malformed_response", "BadHttpMessage": "malformed_response",
    "HttpBadRequest": "malformed_response", "PayloadEncodingError": "malformed_response",
    "ContentEncodingError": "malformed_response", "TransferEncodingError": "malformed_response",
    "ContentLengthError": "malformed_response", "DecompressSizeError": "malformed_response",
    "LineTooLong": "headers_too_large", "InvalidHeader": "malformed_response", "BadStatusLine": "malformed_response",
    "BadHttpMethod": "malformed_response", "InvalidURLError": "malformed_response",
}  # fmt: skip
"""The parser's own errors: aiohttp wraps them, save its pure-Python parser within a body."""


def named(name: str) -> Any:
    return getattr(aiohttp, name)


def below(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("aiohttp"):
            yield from below(child)


def check(error: BaseException, stage: str, expected: Expected) -> FetchError:
    result = translate(error, stage)
    kind, code = expected
    assert (type(result), result.code) == (kind, code), result
    assert result.code in kind.codes
    assert result.message
    assert "\n" not in result.message
    assert " object at 0x" not in result.message
    return result


def test_every_class_of_the_tree_has_a_mapping() -> None:
    names = {kind.__name__ for kind in below(aiohttp.ClientError)}
    assert names - set(TREE) == set(), "new in aiohttp: decide what they are"
    assert set(TREE) - names <= NEWER, "gone from aiohttp"


@pytest.mark.parametrize("name", TREE)
def test_each_class_becomes_what_it_means(name: str) -> None:
    if name in NEWER and not hasattr(aiohttp, name):
        pytest.skip(f"this aiohttp has no {name}")
    make, expected = TREE[name]
    assert type(make()).__name__ == name
    check(make(), "waiting", expected)


@pytest.mark.parametrize("stage", [*STAGES, "admitted"])
@pytest.mark.parametrize("name", TREE)
def test_whatever_the_stage_the_code_is_one_of_the_class(name: str, stage: str) -> None:
    if name in NEWER and not hasattr(aiohttp, name):
        pytest.skip(f"this aiohttp has no {name}")
    result = translate(TREE[name][0](), stage)
    assert result.code in type(result).codes
    assert not isinstance(result, Skipped | StatusError)


def test_every_error_of_the_parser_has_a_mapping() -> None:
    kinds = {kind.__name__: kind for kind in below(HttpProcessingError)}
    assert set(kinds) == set(PARSER)
    for name, code in PARSER.items():
        error = {
            "LineTooLong": lambda kind: kind(b"aaaa...", 65_536),
            "InvalidHeader": lambda kind: kind(b"no colon"),
            "BadStatusLine": lambda kind: kind("HTTQ"),
            "BadHttpMethod": lambda kind: kind("GE T"),
        }.get(name, lambda kind: kind(message="no"))(kinds[name])
        for stage in ("waiting", "reading"):
            check(error, stage, (ProtocolError, code))


@pytest.mark.parametrize(
    ("error", "stage", "expected"),
    [
        # Time: whose clock it was, and what was waited for.
        (TimeoutError(), "resolving", (DNSTimeout, "dns_timeout")),
        (TimeoutError(), "connecting", (ConnectTimeout, "connect_timeout")),
        (TimeoutError(), "handshaking", (TLSTimeout, "tls_timeout")),
        (TimeoutError(), "waiting", (FetchTimeout, "total_timeout")),
        (TimeoutError(), "reading", (FetchTimeout, "too_slow")),
        (aiohttp.ConnectionTimeoutError("slow"), "resolving", (DNSTimeout, "dns_timeout")),
        (aiohttp.ConnectionTimeoutError("slow"), "handshaking", (TLSTimeout, "tls_timeout")),
        (aiohttp.SocketTimeoutError("slow"), "reading", (FetchTimeout, "read_timeout")),
        (aiohttp.ServerTimeoutError("slow"), "reading", (FetchTimeout, "too_slow")),
        (
            aiohttp.ClientConnectorError(KEY, TimeoutError(errno.ETIMEDOUT, "Connection timed out")),
            "connecting",
            (ConnectTimeout, "connect_timeout"),
        ),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "reading", (ProtocolError, "truncated")),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "waiting", (ConnectError, "connect_reset")),
        (
            aiohttp.ClientConnectorError(KEY, ConnectionAbortedError("SSL handshake is taking longer than 60 seconds")),
            "handshaking",
            (TLSTimeout, "tls_timeout"),
        ),
        # Names.
        (aiohttp.ClientConnectorDNSError(KEY, TRY_AGAIN), "connecting", (DNSTimeout, "dns_timeout")),
        (aiohttp.ClientConnectorError(KEY, NO_NAME), "connecting", (DNSError, "dns_not_found")),
        (NO_NAME, "resolving", (DNSError, "dns_not_found")),
        (TRY_AGAIN, "resolving", (DNSTimeout, "dns_timeout")),
        (aiohttp.ClientConnectorDNSError(KEY, OSError(None, None)), "connecting", (DNSError, "dns_not_found")),
        # Connections that did not come about.
        (REFUSED, "connecting", (ConnectError, "connect_refused")),
        (aiohttp.ClientConnectorError(KEY, RESET), "connecting", (ConnectError, "connect_reset")),
        (
            aiohttp.ClientConnectorError(KEY, OSError(errno.EHOSTUNREACH, "No route to host")),
            "connecting",
            (ConnectError, "connect_refused"),
        ),
        (
            aiohttp.ClientConnectorError(KEY, OSError("Multiple exceptions: [Errno 111] one, [Errno 113] two")),
            "connecting",
            (ConnectError, "connect_refused"),
        ),
        (aiohttp.ClientConnectorError(KEY, RESET), "handshaking", (TLSError, "tls_protocol")),
        # TLS, and a certificate however it is wrapped.
        (aiohttp.ClientConnectorSSLError(KEY, BAD_CERTIFICATE), "handshaking", (TLSError, "tls_verify")),
        (aiohttp.ClientConnectorCertificateError(KEY, ValueError("no match")), "handshaking", (TLSError, "tls_verify")),
        (BAD_CERTIFICATE, "handshaking", (TLSError, "tls_verify")),
        (BAD_TLS, "handshaking", (TLSError, "tls_protocol")),
        (ssl.SSLZeroReturnError(6, "closed"), "waiting", (TLSError, "tls_protocol")),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "handshaking", (TLSError, "tls_protocol")),
        (ssl.SSLSyscallError(5, "syscall"), "handshaking", (TLSError, "tls_protocol")),
        # A proxy that is not there says nothing of the host behind it.
        (aiohttp.ClientProxyConnectionError(KEY, NO_NAME), "connecting", (ConnectError, "connect_refused")),
        (
            aiohttp.ClientProxyConnectionError(KEY, aiohttp.ClientConnectorDNSError(KEY, NO_NAME)),
            "connecting",
            (ConnectError, "connect_refused"),
        ),
        (aiohttp.ClientProxyConnectionError(KEY, RESET), "connecting", (ConnectError, "connect_reset")),
        (
            aiohttp.ClientProxyConnectionError(KEY, OSError(errno.ETIMEDOUT, "timed out")),
            "connecting",
            (ConnectTimeout, "connect_timeout"),
        ),
        # Connections that broke.
        (RESET, "waiting", (ConnectError, "connect_reset")),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "waiting", (ConnectError, "connect_reset")),
        (ConnectionAbortedError(errno.ECONNABORTED, "aborted"), "waiting", (ConnectError, "connect_reset")),
        (OSError(), "waiting", (ConnectError, "connect_reset")),
        (RESET, "reading", (ProtocolError, "truncated")),
        (aiohttp.ClientOSError(*RESET.args), "reading", (ProtocolError, "truncated")),
        (aiohttp.ClientConnectionError("Connection closed"), "reading", (ProtocolError, "truncated")),
        (aiohttp.ServerDisconnectedError(), "reading", (ProtocolError, "truncated")),
        # Replies that are none.
        (
            aiohttp.ServerDisconnectedError(SimpleNamespace(code=200)),  # type: ignore[arg-type]  # stands for a head
            "waiting",
            (ProtocolError, "truncated"),
        ),
        (
            response_error(aiohttp.ClientResponseError, message="Got more than 65536 bytes when reading: b'hhh...'."),
            "waiting",
            (ProtocolError, "headers_too_large"),
        ),
        (
            response_error(aiohttp.ClientResponseError, message="Too many headers received"),
            "waiting",
            (ProtocolError, "headers_too_large"),
        ),
        (
            response_error(aiohttp.ClientResponseError, message="Invalid header token:\n\n  b'x y'\n    ^"),
            "waiting",
            (ProtocolError, "malformed_response"),
        ),
        (response_error(aiohttp.ClientResponseError, message=""), "waiting", (ProtocolError, "malformed_response")),
        (
            caused(
                aiohttp.ClientPayloadError("not completed"),
                aiohttp.http_exceptions.TransferEncodingError("Not enough data to satisfy transfer length header."),
            ),
            "reading",
            (ProtocolError, "truncated"),
        ),
        (
            caused(aiohttp.ClientPayloadError("bad"), aiohttp.http_exceptions.TransferEncodingError("zz")),
            "reading",
            (ProtocolError, "malformed_response"),
        ),
        (http.client.IncompleteRead(b""), "reading", (ProtocolError, "malformed_response")),
    ],
)
def test_what_happened_is_told_by_the_cause_and_the_stage(error: BaseException, stage: str, expected: Expected) -> None:
    check(error, stage, expected)


def test_a_refused_address_is_found_behind_whatever_wraps_it() -> None:
    refusal = BlockedAddress("10.0.0.1")
    for error in (
        refusal,
        aiohttp.ClientConnectorError(KEY, refusal),
        aiohttp.ClientProxyConnectionError(KEY, refusal),
        caused(aiohttp.ClientConnectionError("?"), refusal),
    ):
        assert "10.0.0.1" in check(error, "connecting", (Skipped, "address_blocked")).message


def test_which_clock_ran_out_is_said() -> None:
    assert "connect-timeout" in translate(aiohttp.ConnectionTimeoutError("slow"), "connecting").message
    assert translate(TimeoutError(), "connecting").message == "timeout ran out while connecting"


def test_what_the_web_says_is_cut_and_on_one_line() -> None:
    error = translate(response_error(aiohttp.ClientResponseError, message="bad\r\n\v" + "x" * 9_999), "waiting")
    assert error.message.startswith("bad x")
    assert len(error.message) == MAX_QUOTED_CHARACTERS


def test_the_systems_words_are_used_without_its_number() -> None:
    assert translate(aiohttp.ClientConnectorError(KEY, REFUSED), "connecting").message == "Connection refused"
    assert translate(aiohttp.ClientConnectorSSLError(KEY, BAD_TLS), "handshaking").message.startswith("[SSL: WRONG_")
    assert translate(OSError(), "waiting").message == "OSError"


def test_running_out_of_descriptors_is_our_own_limit() -> None:
    assert out_of_descriptors(OSError(errno.EMFILE, "Too many open files"))
    assert out_of_descriptors(aiohttp.ClientConnectorError(KEY, OSError(errno.ENFILE, "Too many open files")))
    assert not out_of_descriptors(REFUSED)
    assert not out_of_descriptors(ValueError())


# Whole answers, from a real socket: what aiohttp makes of them is not what its classes promise

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
BYTES: list[tuple[str, list[bytes], Expected]] = [
    ("bad chunk with the head", [HEAD + b"zz\r\nxx"], (ProtocolError, "malformed_response")),
    ("bad chunk after the head", [HEAD, b"zz\r\nxx"], (ProtocolError, "malformed_response")),
    ("huge trailer", [HEAD, b"0\r\nX-T: " + b"a" * 100_000 + b"\r\n\r\n"], (ProtocolError, "headers_too_large")),
    ("cut chunk", [HEAD, b"5\r\nhe"], (ProtocolError, "truncated")),
    ("cut between chunks", [HEAD], (ProtocolError, "truncated")),
    ("no answer", [], (ProtocolError, "empty_reply")),
    ("cut head", [b"HTTP/1.1 200 OK\r\nX-Some: th"], (ProtocolError, "truncated")),
    ("not HTTP", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], (ProtocolError, "malformed_response")),
    ("huge header", [b"HTTP/1.1 200 OK\r\nX: " + b"h" * 100_000], (ProtocolError, "headers_too_large")),
    ("many headers", [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5_000 + b"\r\n"], (ProtocolError, "headers_too_large")),
]


@pytest.mark.parametrize(("parts", "expected"), [row[1:] for row in BYTES], ids=[row[0] for row in BYTES])
async def test_a_broken_answer_has_its_code_at_once(parts: list[bytes], expected: Expected) -> None:
    """Long before a timeout: what is malformed does not keep its slot until the clock runs out."""
    first_is_read = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        for number, part in enumerate(parts):
            if number:
                await first_is_read.wait()
            await exchange.send(part)
        if expected[1] in ("truncated", "empty_reply"):
            exchange.close()
        else:
            await exchange.gone()

    async with LabServer(hosts=1) as lab:
        lab.add("/broken", answer)
        request = Request(1, lab.url("/broken"))
        transfer = Transfer()
        current.set(RequestState(request, parse(request.url), transfer=transfer))
        transport = Transport(Config.of(timeout=60, read_timeout=60))
        exchange = asyncio.create_task(transport(request))
        try:
            if len(parts) > 1:
                await lab.until(lambda: transfer.received == len(b"hello"))
            first_is_read.set()
            with pytest.raises(FetchError) as caught:
                await asyncio.wait_for(exchange, 10)
        finally:
            exchange.cancel()
            await transport.close()
    assert (type(caught.value), caught.value.code) == expected, caught.value
