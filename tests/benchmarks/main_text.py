"""Owns how much of a page's main text is found, by each way that ``--text`` knows.

Run it with ``python -m tests.benchmarks.main_text FOLDER``: FOLDER is ``tests/`` of trafilatura's repository, with
``evaldata.json``. What is counted is what its authors count: pieces of text that must be in the answer, and pieces that
must not. ``--manual`` is a folder of Sphinx pages, Debian's python3-doc by default: which share of the distinct words
of the document's own part is kept, and which share of what is kept is of that part.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

from fetcher import Config
from fetcher.model import Request, Response
from fetcher.page.inner_text import inner_text
from fetcher.page.parse import parse, read_body
from tests.benchmarks.content import FOLDER

METHODS = ("body", "fast", "best")
MANUAL_PAGES = 60
HEADERS = (("content-type", "text/html"),)
WORD = re.compile(r"\w{3,}")


def text_of(body: bytes, method: Any) -> str:
    """Return the text of a page as ``--text METHOD`` has it."""
    content = Config.of(text=method).content
    return read_body(_response(body), select=None, extract=None, content=content).content["text"] or ""


def _response(body: bytes) -> Response:
    return Response(Request(1, "http://h.example/"), "http://h.example/", 200, HEADERS, body)


def judge_pieces(folder: Path, method: str) -> str:
    """Return precision, recall and F1 over trafilatura's set, and the CPU a page."""
    listed = json.loads((folder / "evaldata.json").read_bytes())
    right = wrong = missed = 0
    pages = 0
    began = process_time()
    for item in listed.values():
        paths = (folder / name / item["file"] for name in ("cache", "eval"))
        body = next((path.read_bytes() for path in paths if path.is_file()), None)
        if body is None:
            continue
        pages += 1
        text = " ".join(text_of(body, method).split())
        found = sum(" ".join(piece.split()) in text for piece in item["with"])
        right, missed = right + found, missed + len(item["with"]) - found
        wrong += sum(" ".join(piece.split()) in text for piece in item["without"])
    spent = (process_time() - began) / pages * 1e3
    precision, recall = right / (right + wrong), right / (right + missed)
    f1 = 2 * right / (2 * right + wrong + missed)
    return f"precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}  {spent:6.2f} ms a page, of {pages}"


def judge_manual(folder: str, method: str) -> str:
    """Return recall and precision of distinct words over the pages of a manual."""
    recalls, precisions = zip(*_manual(folder, method), strict=True)
    return (
        f"recall {sum(recalls) / len(recalls):.3f} (least {min(recalls):.3f})  "
        f"precision {sum(precisions) / len(precisions):.3f}, of {len(recalls)} pages"
    )


def _manual(folder: str, method: str) -> Iterator[tuple[float, float]]:
    paths = sorted(Path(folder).rglob("*.html"))
    for path in random.Random(1).sample(paths, min(MANUAL_PAGES, len(paths))):  # no secret
        body = path.read_bytes()
        part = parse(_response(body)).tree.css_first("div.body")
        meant = set(WORD.findall(inner_text(part).lower())) if part is not None else set()
        found = set(WORD.findall(text_of(body, method).lower()))
        if meant:
            yield len(meant & found) / len(meant), len(meant & found) / max(1, len(found))


def main() -> int:
    """Judge each way, and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.main_text", description="How good --text is.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--manual", default=FOLDER)
    wanted = parser.parse_args()
    for method in METHODS:
        print(f"{method:<5} {judge_pieces(wanted.folder, method)}", flush=True)
        print(f"{'':<5} manual: {judge_manual(wanted.manual, method)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
