"""Pages made to stop or kill a parser: a sample of ``python -m tests.sweeps.bombs``, without its times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeps.bombs import crawl, judge, serving, urls

ORDINARY, EACH = 60, 1


@pytest.mark.parametrize("isolated", [False, True], ids=["as it comes", "isolated"])
def test_a_bomb_costs_its_own_row(isolated: bool, tmp_path: Path) -> None:
    kinds = ("nested", "attributes", "abort") if isolated else ("nested", "attributes")
    with serving() as port:
        plain = crawl(tmp_path, urls(port, ORDINARY, (), 0), isolated=isolated)
        bombed = crawl(tmp_path, urls(port, ORDINARY, kinds, EACH), isolated=isolated)
    assert judge(plain, bombed, limits=60.0) == []
