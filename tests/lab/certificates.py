"""Makes the lab's certificates: a good one, and one for each way in which a certificate does not hold."""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

CERTIFICATES = ("valid", "wrong_host", "expired", "unknown_ca")


def server_contexts(addresses: list[str]) -> tuple[Path, dict[str, ssl.SSLContext]]:
    """Return the PEM file of the authority to trust and a server's context for each of ``CERTIFICATES``.

    All are for ``addresses`` and ``localhost``, but ``wrong_host`` is for another name; ``unknown_ca`` is
    signed by an authority that is not in the file. The file is the caller's to remove.
    """
    import trustme  # slow to import, and most labs speak no TLS

    authority = trustme.CA()
    names = [*addresses, "localhost"]
    now = datetime.now(UTC)
    leaves = {
        "valid": authority.issue_cert(*names),
        "wrong_host": authority.issue_cert("elsewhere.test"),
        "expired": authority.issue_cert(*names, not_before=now - timedelta(days=30), not_after=now - timedelta(days=1)),
        "unknown_ca": trustme.CA().issue_cert(*names),
    }
    contexts = {}
    for name in CERTIFICATES:
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].set_alpn_protocols(["http/1.1"])
        leaves[name].configure_cert(contexts[name])
    with tempfile.NamedTemporaryFile(prefix="lab-ca-", suffix=".pem", delete=False) as file:
        file.write(authority.cert_pem.bytes())
    return Path(file.name), contexts
