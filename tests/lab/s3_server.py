"""Owns moto's S3 server as a program: as it is, or as one of those that know no ``PUT`` on a condition.

Its words are a port and how such a request is answered: ``honours``, ``ignores`` (as if there were no condition) or
``refuses`` (501). It listens on 127.0.0.1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

__all__ = ["HOWS"]

HOWS = ("honours", "ignores", "refuses")
REFUSAL = (
    b"<?xml version='1.0'?><Error><Code>NotImplemented</Code><Message>A header is not known here.</Message></Error>"
)


class Conditions:
    """The application of the server, with this way with conditions."""

    def __init__(self, application: Callable[..., Iterable[bytes]], how: str) -> None:
        self._application = application
        self._how = how

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        if self._how != "honours" and environ["REQUEST_METHOD"] in ("PUT", "POST"):
            condition = environ.pop("HTTP_IF_NONE_MATCH", None)
            if condition is not None and self._how == "refuses":
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start(
                    "501 Not Implemented", [("Content-Type", "application/xml"), ("Content-Length", str(len(REFUSAL)))]
                )
                return [REFUSAL]
        return self._application(environ, start)


def main() -> None:
    """Serve until the process is ended."""
    port, how = int(sys.argv[1]), sys.argv[2]
    application = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", port, Conditions(application, how), threaded=True)


if __name__ == "__main__":
    main()
