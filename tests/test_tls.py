"""TLS as we speak it: whom a certificate of ours is shown to, what a server that wants one is told, and old servers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fetcher.config import ClientCertificate, Config, TLSPolicy
from fetcher.errors import ConfigError
from fetcher.transport.tls import TLSContexts
from tests.lab.crawl import code_of, one
from tests.lab.server import LabServer

DEADLINE = 30.0


class Files(NamedTuple):
    """PEM files: the authority, a certificate of ours with its key, each alone, and its key with a passphrase."""

    authority: str
    both: str
    certificate: str
    key: str
    encrypted: str


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    ours = authority.issue_cert("us@example.com")
    key = serialization.load_pem_private_key(ours.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    certificate = ours.cert_chain_pems[0].bytes()
    contents = {
        "authority.pem": authority.cert_pem.bytes(),
        "both.pem": ours.private_key_and_cert_chain_pem.bytes(),
        "certificate.pem": certificate,
        "our.key": ours.private_key_pem.bytes(),
        "encrypted.key": encrypted,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return Files(*(str(folder / name) for name in contents))


class Asked:
    """A server that takes certificates: its port, and for each request whether it was shown one."""

    def __init__(self) -> None:
        self.port = 0
        self.shown: list[bool] = []
        self.location = ""


@asynccontextmanager
async def asking(context: ssl.SSLContext) -> AsyncIterator[Asked]:
    asked = Asked()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            asked.shown.append(bool(writer.get_extra_info("peercert")))
            status = f"302 Found\r\nLocation: {asked.location}" if asked.location else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            await reader.read()
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    asked.port = server.sockets[0].getsockname()[1]
    try:
        yield asked
    finally:
        server.close()


@contextmanager
def in_order(context: ssl.SSLContext) -> Iterator[tuple[int, list[bool]]]:
    """Serve one connection after the other in a thread: asyncio's servers close without the alert that is due."""
    heard: list[bool] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(DEADLINE)
                secure = context.wrap_socket(plain.dup(), server_side=True, do_handshake_on_connect=False)
                with secure, suppress(OSError):
                    secure.do_handshake()
                    if secure.recv(65_536):
                        heard.append(bool(secure.getpeercert()))
                        secure.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                with suppress(OSError):
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(
                        65_536
                    ):  # a socket that is closed with something unread resets, and the alert is lost
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1], heard
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(DEADLINE)


def server_context(authority: trustme.CA, verify: ssl.VerifyMode = ssl.VerifyMode.CERT_OPTIONAL) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = verify
    return context


# A certificate of ours


async def test_a_certificate_is_shown_to_its_host_alone(authority: trustme.CA, files: Files) -> None:
    options = {"ca_bundle": files.authority, "robots": False}
    async with asking(server_context(authority)) as asked:
        url = f"https://127.0.0.1:{asked.port}/"
        for cert, shown in {
            f"@127.0.0.1 {files.both}": True,  # every port of it
            f"@127.0.0.1:{asked.port} {files.both}": True,
            f"@127.0.0.1:1 {files.both}": False,
            f"@localhost {files.both}": False,
        }.items():
            assert code_of(await one(url, cert=cert, **options)) == 200
            assert asked.shown.pop() is shown, cert
        in_two = await one(url, cert=f"@127.0.0.1 {files.certificate}", key=files.key, **options)
        assert (code_of(in_two), asked.shown.pop()) == (200, True)


async def test_a_redirect_takes_no_certificate_along(authority: trustme.CA, files: Files) -> None:
    async with asking(server_context(authority)) as first, asking(server_context(authority)) as second:
        for to, shown in {"localhost": False, "127.0.0.1": False}.items():
            first.location = f"https://{to}:{second.port}/"
            outcome = await one(
                f"https://127.0.0.1:{first.port}/",
                cert=f"@127.0.0.1:{first.port} {files.both}",
                ca_bundle=files.authority,
                robots=False,
            )
            assert code_of(outcome) == 200
            assert (first.shown.pop(), second.shown.pop()) == (True, shown)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_a_certificate_is_not_asked_again(
    authority: trustme.CA, files: Files, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 its alert comes after the handshake, when the request has been written."""
    context = server_context(authority, ssl.VerifyMode.CERT_REQUIRED)
    context.minimum_version = context.maximum_version = version
    options = {"ca_bundle": files.authority, "robots": False, "retries": 2, "backoff": 0}
    with in_order(context) as (port, heard):
        url = f"https://127.0.0.1:{port}/"
        outcome = await one(url, **options)
        assert (code_of(outcome), outcome.attempts) == ("tls_protocol", 1)
        assert heard == []
        assert code_of(await one(url, cert=f"@127.0.0.1 {files.both}", **options)) == 200
        assert heard == [True]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_does_not_take_our_certificate_is_not_asked_again(
    authority: trustme.CA, files: Files, version: ssl.TLSVersion
) -> None:
    context = server_context(authority, ssl.VerifyMode.CERT_REQUIRED)
    context.minimum_version = context.maximum_version = version
    with (
        in_order(context) as (port, heard),
        trustme.CA().issue_cert("x.example").private_key_and_cert_chain_pem.tempfile() as other,
    ):
        outcome = await one(
            f"https://127.0.0.1:{port}/",
            cert=f"@127.0.0.1 {other}",
            ca_bundle=files.authority,
            robots=False,
            retries=2,
            backoff=0,
        )
    assert (code_of(outcome), outcome.attempts, heard) == ("tls_protocol", 1, [])


# What a setting names


@pytest.mark.parametrize(
    ("file", "key", "message"),
    [
        ("nowhere.pem", None, "cert: cannot read nowhere.pem: No such file or directory"),
        ("{certificate}", "nowhere.key", "cert: cannot read {certificate} and nowhere.key: No such file or directory"),
        ("{certificate}", None, "cert: cannot read {certificate}: no certificate with its key in PEM"),
        ("{key}", None, "cert: cannot read {key}: no certificate with its key in PEM"),
        ("{certificate}", "{authority}", "cert: cannot read {certificate} and {authority}: no certificate with its key in PEM"),
        ("{certificate}", "{encrypted}", "cert: the key in {encrypted} is encrypted; give one that is not"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(files: Files, file: str, key: str | None, message: str) -> None:
    paths = files._asdict()
    certificate = ClientCertificate(file.format(**paths), "a.example")
    with pytest.raises(ConfigError) as caught:
        TLSContexts(TLSPolicy(certificates=(certificate,), key=key.format(**paths) if key else None))
    assert str(caught.value) == message.format(**paths)


def test_a_key_without_a_certificate_and_a_host_that_is_none_are_refused(files: Files) -> None:
    with pytest.raises(ConfigError, match=r"^key: there is no certificate that it is for"):
        TLSContexts(Config.of(key=files.key).tls)
    with pytest.raises(ConfigError, match=r"^cert: 'a<b' is no host$"):
        TLSContexts(Config.of(cert=f"@a<b {files.both}").tls)


# Verification, and old servers


def named_in_common_name_alone() -> tuple[bytes, bytes]:
    """Return a certificate that signs itself and names 127.0.0.1's name in its subject alone, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), secret


@pytest.mark.parametrize("tls", ["default", "compatible"])
async def test_a_name_in_the_subject_alone_is_none(tmp_path: Path, tls: str) -> None:
    """RFC 9525, 6.3."""
    certificate, key = named_in_common_name_alone()
    (tmp_path / "c.pem").write_bytes(certificate)
    (tmp_path / "both.pem").write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    async with asking(context) as asked:
        url = f"https://localhost:{asked.port}/"
        outcome = await one(url, ca_bundle=str(tmp_path / "c.pem"), tls=tls, robots=False)
        assert code_of(outcome) == "tls_verify"
        assert code_of(await one(url, insecure=True, robots=False)) == 200


async def test_the_compatible_profile_verifies_all_the_same() -> None:
    with LabServer.in_thread(hosts=1, tls=True) as lab:
        for name, code in {"valid": 200, "wrong_host": "tls_verify", "expired": "tls_verify"}.items():
            outcome = await one(lab.https("/ok", certificate=name), ca_bundle=str(lab.ca), tls="compatible")
            assert code_of(outcome) == code


def test_the_compatible_profile_is_wider_and_no_older_than_tls_1_2() -> None:
    usual = TLSContexts(TLSPolicy()).context_for("https://a.example/")
    wide = TLSContexts(TLSPolicy(profile="compatible")).context_for("https://a.example/")
    assert wide.minimum_version == usual.minimum_version == ssl.TLSVersion.TLSv1_2
    assert wide.verify_mode == usual.verify_mode == ssl.CERT_REQUIRED
    assert wide.check_hostname and usual.check_hostname
    assert {cipher["name"] for cipher in wide.get_ciphers()} >= {cipher["name"] for cipher in usual.get_ciphers()}
