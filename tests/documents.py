"""Writes what README and the man page have from ``fetcher/topics``: ``python -m tests.documents``.

In README a table that stands below ``<!-- NAME -->`` is written anew; the page is ``fetcher/topics/fetcher.1``. A test
tells when one of them is behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from fetcher import topics
from fetcher.cli.manual import manual
from fetcher.model import Failure, Page

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MAN_PAGE = ROOT / "fetcher" / "topics" / "fetcher.1"

_MARKED = re.compile(r"<!-- (?P<name>[a-z ]+) -->\n(?:\|.*\n)+")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def codes() -> str:
    rows = [
        [f"`{topic.name}`", " ".join(topic.paragraphs[0].split()), topic.part("Next")]
        for topic in topics.topics("code").values()
    ]
    return table(["code", "what it means", "what to do"], rows)


def columns() -> str:
    return table(["name", "what"], [[f"`{name}`", topic.text] for name, topic in topics.topics("column").items()])


def exits() -> str:
    return table(["exit", "meaning"], [[name, topic.text] for name, topic in topics.topics("exit").items()])


def formats(label: str, head: list[str]) -> str:
    rows = [
        [", ".join(_suffixes(name)), part.replace("|", r"\|")]
        for name, topic in topics.topics("format").items()
        if (part := topic.part(label))
    ]
    return table(head, rows)


def _suffixes(name: str) -> list[str]:
    special = {
        "text": "stdout",
        "sitemap": "`--from sitemap`",
        "warc": "`.warc.gz`",
        "s3": "`s3://…` `gs://…` `az://…`",
    }
    return [special.get(name, f"`.{name}`")]


def coming_from() -> str:
    rows = [
        [topic.name, row.theirs, row.ours]
        for topic in topics.topics("coming from").values()
        for row in topics.table_rows(topic.text)
    ]
    return table(["coming from", "you write", "here"], rows)


def fields_of(kind: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]


def outcomes() -> str:
    """Page and Failure, field by field: which of them has it, and what it is."""
    known = topics.topics("field")
    page, failure = fields_of(Page), fields_of(Failure)
    rows = [
        [f"`{name}`", "●" if name in page else "", "●" if name in failure else "", known[name].text]
        for name in dict.fromkeys([*page, *failure])
    ]
    return table(["field", "`Page`", "`Failure`", "what"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "codes": codes,
    "columns": columns,
    "exits": exits,
    "lists": lambda: formats("List", ["list", "what is read"]),
    "outputs": lambda: formats("Output", ["output", "what it is"]),
    "coming from": coming_from,
    "outcomes": outcomes,
}


def readme(text: str) -> str:
    """Return README with its tables as they are to be."""
    return _MARKED.sub(lambda match: f"<!-- {match['name']} -->\n{TABLES[match['name']]()}", text)


def main() -> None:
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
    MAN_PAGE.write_text(manual(), encoding="utf-8")


if __name__ == "__main__":
    main()
