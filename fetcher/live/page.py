"""The page itself: one answer with its style and its script in it, and the policy that lets nothing else run.

Law 7: what comes from the web is put into the page as text, by ``textContent`` alone; were it not, the policy knows our
script and our style by their digests, and nothing else. The page asks nobody but the server it came from.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from fetcher.drawing.document import palette_rules

__all__ = ["POLICY", "render"]

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M1 13l4-5 3 3 6-8' fill='none' stroke='%231b61b8' stroke-width='2.5'/%3E%3C/svg%3E"
)


def _read(name: str) -> str:
    return files("fetcher.live").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = palette_rules() + _read("page.css"), _read("page.js")
_PAGE = _read("page.html").replace("{{style}}", _STYLE).replace("{{script}}", _SCRIPT).replace("{{icon}}", _ICON)

POLICY = (
    f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The Content-Security-Policy of the page."""


def render(token: str) -> str:
    """Return the page. ``token``, of letters, digits, ``-`` and ``_``, is what its buttons say."""
    return _PAGE.replace("{{token}}", token)
