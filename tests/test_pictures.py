"""README's pictures: each that it shows is there, is a picture, and is small."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 200_000


def test_each_picture_is_there_and_small() -> None:
    shown = set(re.findall(r"!\[[^\]]{20,}\]\((\S+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / ".github" / "pictures").iterdir()}
    assert shown == kept
    assert len(shown) == 3
    for name in shown:
        data = (ROOT / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(data) < MAX_BYTES
