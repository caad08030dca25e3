"""The command that continues a run or begins it again, to be pasted into a shell.

Law 7: what was typed may hold characters that steer a terminal, and secrets. The first are escaped, the second are left
out, for stderr is often a log.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fetcher.cli.redaction import HIDDEN, PROXIES, SECRET_NAME
from fetcher.terminal import printable
from fetcher.urls import hide_userinfo

__all__ = ["resume_command"]

_HOST = r"(@\S+\s+)?"


def resume_command(argv: Sequence[str], settings: Mapping[str, Any], *, fresh: bool | None) -> str:
    """Return the command of ``argv`` (``sys.argv``) for a shell, with ``fresh`` as it must be now (``None``: as it is).

    ``settings`` tell which of its words are secrets: they stand as ``***``.
    """
    words = list(argv[1:])
    if fresh is not None:
        was = "--fresh" in words
        words = [word for word in words if word not in ("--fresh", "--no-fresh")]
        if fresh or not was:  # not on the command line: a variable or the file says so
            after = next((at + 1 for at, word in enumerate(words) if word in ("crawl", "extract")), len(words))
            words.insert(after, "--fresh" if fresh else "--no-fresh")
    secrets = dict(_secrets(settings))
    for secret, shown in secrets.items():
        words = [word.replace(secret, shown) for word in words]
    words = [hide_userinfo(word, HIDDEN) if "://" in word else word for word in words]
    return " ".join(map(_quote, [*_program(argv[0]), *words]))


def _program(name: str) -> list[str]:
    """Return how this program is called: by its name where a shell finds it under it."""
    if os.path.basename(name) == "__main__.py":
        return [sys.executable, "-m", "fetcher"]
    found = shutil.which(os.path.basename(name))
    same = found is not None and os.path.realpath(found) == os.path.realpath(name)
    return [os.path.basename(name) if same else name]


def _secrets(settings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key in ("user", "cookie"):
        for text in _texts(settings.get(key)):
            if "=" in text or key == "user":
                yield text, re.sub(f"^{_HOST}.*", r"\1***", text, flags=re.DOTALL)
    for text in _texts(settings.get("header")):
        match = re.match(f"{_HOST}([^:]*):", text)
        if match and (match[1] or SECRET_NAME.search(match[2])):  # what is for one host is nobody else's business
            yield text, f"{match[0]} {HIDDEN}"
    for key in PROXIES:
        for text in _texts(settings.get(key)):
            if "@" in text:
                yield text, re.sub(r"[^/]*@", "***@", text)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _quote(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    # The quotes of bash, zsh and ksh that spell a character out (POSIX.1-2024, 2.2.4).
    spelled = [
        "".join(f"\\x{byte:02x}" for byte in os.fsencode(char)) if printable(char) != char else char for char in word
    ]
    return "$'" + "".join("\\" + piece if piece in ("\\", "'") else piece for piece in spelled) + "'"
