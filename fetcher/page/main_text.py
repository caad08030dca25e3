"""The text of a page by the libraries that find its main content; they are extras, and imported when first needed.

``fast`` is resiliparse's, ``best`` is trafilatura's. Each parses the page again, and takes longer than all else that is
done with it: so they run in processes of their own. Law 7: a page that they cannot read is no bug, and fails no row.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from fetcher.charset import replace_surrogates
from fetcher.config.policies import Content
from fetcher.errors import ConfigError, ParseError, missing_extra

__all__ = ["check_library", "is_installed", "main_text"]

_LIBRARIES = {"fast": ("text", ("resiliparse",)), "best": ("article", ("trafilatura", "lxml_html_clean"))}
"""The extra that each needs, and the modules in it."""


def check_library(content: Content) -> None:
    """Raise ``ConfigError`` where a library that ``content`` needs is not installed."""
    extra, modules = _LIBRARIES.get(content.text or "", ("", ()))
    for module in modules:
        if not is_installed(module):
            raise ConfigError(f"text {content.text}: {missing_extra(module, extra)}")


def is_installed(module: str) -> bool:
    """Tell whether a module can be imported, without importing it."""
    return find_spec(module) is not None


def main_text(html: str, content: Content) -> str | None:
    """Return the main content of a page as ``content`` asks for it; ``""`` where there is none.

    Returns ``None`` where the library gives up. Raises ``ParseError`` where it cannot be imported.
    """
    try:
        found = _by_resiliparse(html) if content.text == "fast" else _by_trafilatura(html, content)
    except ImportError as error:
        raise ParseError("extract_failed", f"text {content.text}: {error}") from error
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever a library stumbles over
        return None
    return replace_surrogates(found or "").strip()


def _by_resiliparse(html: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(html, main_content=True, alt_texts=False)
    return text


def _by_trafilatura(html: str, content: Content) -> str | None:
    from trafilatura import extract

    options: dict[str, Any] = {"output_format": "markdown" if content.text_format == "markdown" else "txt"}
    text: str | None = extract(html, include_comments=False, **options)
    return text
