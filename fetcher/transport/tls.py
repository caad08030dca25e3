"""TLS as we speak it: certificates verified, one context for each identity of ours, so that their pools are apart.

Law 7: a client certificate is an identity. It is shown to the host that it is for, and to no other that a redirect
leads to. A certificate that names its host in the common name alone is none (RFC 9525, 6.3).

No sessions are kept for further connections to a host: ``ssl`` copies each by way of its DER, with the certificate in
it, which takes 195 µs, and to resume one saves 100 µs, where certificates are verified some 210 of 690. The curves are
OpenSSL's own, X25519 before the others: ``set_ecdh_curve`` would leave but one, and hosts without it.
"""

from __future__ import annotations

import ssl
from typing import Any

from fetcher.config import ClientCertificate, TLSPolicy
from fetcher.errors import ConfigError, InvalidURL
from fetcher.model import Stage
from fetcher.request_state import enter
from fetcher.urls import host_key, parse

__all__ = ["TLSContexts"]

COMPATIBLE_CIPHERS = "DEFAULT:@SECLEVEL=1"  # shorter keys and older hashes, as browsers take them
LEGACY_SERVER_CONNECT = 0x4  # OpenSSL's, for servers without RFC 5746; Python names it since 3.12


class StagedTLS(ssl.SSLContext):
    """A TLS context that tells the state when the handshake begins."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake."""
        enter(Stage.HANDSHAKING)
        return super().wrap_bio(*args, **kwargs)


class TLSContexts:
    """The contexts of one transport. What a setting names is read at once: raises ``ConfigError`` where it cannot be."""

    def __init__(self, policy: TLSPolicy) -> None:
        if policy.key is not None and not policy.certificates:
            raise ConfigError("key: there is no certificate that it is for (cert)")
        self._policy = policy
        self._usual: ssl.SSLContext | None = _context(policy) if policy.ca_bundle else None
        self._identities = [(_host_of(one), one.port, _context(policy, one)) for one in policy.certificates]

    def context_for(self, url: str) -> ssl.SSLContext:
        """Return the context for a URL: with the certificate that is for its host, where there is one."""
        if self._identities and url.startswith("https:"):
            target = parse(url)
            for host, port, context in self._identities:
                if host == target.host and port in (None, target.port):
                    return context
        if self._usual is None:
            self._usual = _context(self._policy)
        return self._usual


def _context(policy: TLSPolicy, certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    context = StagedTLS(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if policy.profile == "compatible":
        context.set_ciphers(COMPATIBLE_CIPHERS)
        context.options |= LEGACY_SERVER_CONNECT
    if not policy.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif policy.ca_bundle:
        try:
            context.load_verify_locations(policy.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or "not a PEM file of certificates"
            raise ConfigError(f"ca-bundle: cannot read {policy.ca_bundle}: {reason}") from None
    else:
        context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        _load(context, certificate.file, policy.key)
    return context


def _host_of(certificate: ClientCertificate) -> str:
    try:
        return host_key(certificate.host)
    except InvalidURL:
        raise ConfigError(f"cert: {certificate.host!r} is no host") from None


def _load(context: ssl.SSLContext, file: str, key: str | None) -> None:
    """Read a certificate and its key. A key with a passphrase is refused: nobody is there to be asked for it."""
    asked: list[bool] = []

    def passphrase() -> str:
        asked.append(True)
        return ""

    try:
        context.load_cert_chain(file, key, password=passphrase)
    except (OSError, ssl.SSLError, ValueError) as error:
        if asked:
            raise ConfigError(f"cert: the key in {key or file} is encrypted; give one that is not") from None
        reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        files = f"{file} and {key}" if key else file
        raise ConfigError(f"cert: cannot read {files}: {reason or 'no certificate with its key in PEM'}") from None
