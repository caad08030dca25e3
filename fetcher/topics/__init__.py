"""What the docs say, by name: a paragraph for each code, flag, format, column and exit code, and for some subjects.

One source for README's tables, ``fetcher help`` and the man page: the Markdown files in this folder. In each of them
``## NAME`` begins what is said of a name; ``# GROUP`` stands over the flags that belong together. A flag, code, format
or column without one is found by a test, which says in which file it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

__all__ = [
    "FILES",
    "LONG_NAMES",
    "Advice",
    "TableRow",
    "Topic",
    "advice_for",
    "find",
    "foreign",
    "foreign_names",
    "general_name",
    "synonyms",
    "table_rows",
    "topics",
]

FILES = {
    "topic": "subjects.md",
    "code": "codes.md",
    "flag": "flags.md",
    "format": "formats.md",
    "column": "columns.md",
    "exit": "exits.md",
    "field": "fields.md",
    "coming from": "coming_from.md",
}
"""The kinds of names, and the file in which each is explained."""

SYNONYMS = "synonyms.md"

LONG_NAMES = {
    "-c": "--concurrency", "-o": "--output", "-f": "--format", "-A": "--user-agent", "-H": "--header", "-b": "--cookie",
    "-u": "--user", "-x": "--proxy", "-k": "--insecure", "-q": "--quiet", "-v": "--verbose", "-h": "--help", "-n": "--rows",
    "-vv": "--verbose", "--no-robots": "--robots", "--no-progress": "--progress", "--no-fresh": "--fresh",
    "--no-sequential": "--sequential",
}  # fmt: skip
"""Other names of flags, by which they are explained too."""
_STATUS = re.compile(r"(?:http_)?([1-9][0-9]{2})")
_WORD = re.compile(r"(?<![\w-])(--?[A-Za-z0-9][\w.-]*)")


class Topic(NamedTuple):
    """What is said of a name: its paragraphs in Markdown. ``group`` is that of a flag."""

    kind: str
    name: str
    text: str
    group: str = ""

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs, blank lines within a listing kept."""
        return re.split(r"\n\n(?![^`]*\n```)", self.text)

    def part(self, label: str) -> str:
        """Return the paragraph that begins with ``label:``, without that; ``""`` where there is none."""
        found = (each for each in self.paragraphs if each.startswith(f"{label}: "))
        return next(found, "").removeprefix(f"{label}: ")


class Advice(NamedTuple):
    """What a code means, and what to ``do`` about it: plain text, with commands and flags in backquotes."""

    meaning: str
    do: str


class TableRow(NamedTuple):
    """A row of a table of two columns: what one writes elsewhere, and what that is here."""

    theirs: str
    ours: str


@cache
def topics(kind: str) -> dict[str, Topic]:
    """Return all topics of a kind by their names, in the order of the file."""
    found: dict[str, Topic] = {}
    group = ""
    for part in re.split(r"^(?=##? )", _read(FILES[kind]), flags=re.MULTILINE):
        head, _, text = part.partition("\n")
        if head.startswith("## "):
            name = head.removeprefix("## ").strip()
            found[name] = Topic(kind, name, text.strip(), group)
        elif head.startswith("# "):
            group = head.removeprefix("# ").strip()
    return found


def find(name: str) -> list[Topic]:
    """Return all that is called ``name``: a flag with its dashes is that alone, a status (404) is ``http_404``."""
    if name.startswith("-"):
        flag = topics("flag").get(LONG_NAMES.get(name, name))
        return [flag] if flag else []
    word = name.lower()
    found = [
        topic
        for kind in FILES
        for key in (word, f"--{word.replace('_', '-')}")
        for topic in topics(kind).values()
        if topic.name.lower() == key
    ]
    status = _STATUS.fullmatch(word)
    if status and not found:
        found = [topics("code").get(f"http_{status[1]}") or _general(f"http_{status[1]}")]
    return found


def general_name(code: str) -> str:
    """Return the name under which a code is explained: its own, or ``http_NNN``."""
    return code if code in topics("code") else "http_NNN" if code.startswith("http_") else code


def advice_for(code: str) -> Advice:
    """Return what a code means and what to do about it, for a page that lists failures."""
    topic = topics("code").get(general_name(code))
    if topic is None:
        return Advice("A code of your own middleware, or of a newer version.", "Look at the messages below.")
    status = code.removeprefix("http_")
    do = topic.part("Next").replace("NNN", status if _STATUS.fullmatch(status) else "NNN")
    meaning = " ".join(each for each in topic.paragraphs if not each.startswith("Next: "))
    return Advice(meaning, do[:1].upper() + do[1:])  # a command stays as it is, behind its backquote


def foreign(flag: str) -> list[tuple[str, str]]:
    """Return whose a flag is (``""``: nobody's in particular), and what it is here, for each that has it."""
    wanted = flag.replace("_", "-")
    rows = [*_rows_by_owner(), *(("", row) for row in synonyms())]
    return [
        (owner, row.ours)
        for owner, row in rows
        if any(word.replace("_", "-") == wanted for word in _WORD.findall(row.theirs))
    ]


def foreign_names() -> list[str]:
    """Return the flags that ``foreign`` knows."""
    rows = [*(row for _, row in _rows_by_owner()), *synonyms()]
    return [word for row in rows for word in _WORD.findall(row.theirs)]


def table_rows(text: str) -> list[TableRow]:
    """Return the rows of the tables of two columns in a text, their heads left out."""
    cells = [line.strip("|").split(" | ", 1) for line in text.splitlines() if line.startswith("| ")]
    return [TableRow(left.strip(), right.strip()) for left, right in cells if left.strip() != "you write"]


@cache
def synonyms() -> list[TableRow]:
    """Return what else our flags may be called."""
    return table_rows(_read(SYNONYMS))


def _rows_by_owner() -> Iterator[tuple[str, TableRow]]:
    for topic in topics("coming from").values():
        for row in table_rows(topic.text):
            yield topic.name, row


def _general(code: str) -> Topic:
    return topics("code")["http_NNN"]._replace(name=code)


@cache
def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
