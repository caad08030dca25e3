"""An HTML table as rows: each a mapping from the words of its header to the text of its cells.

Cells that span rows or columns stand in each of them (HTML Standard, 4.9.12). Law 7: a span is the page's word, so the
table is bounded by ``MAX_COLUMNS`` and ``MAX_CELLS``; what is beyond is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from selectolax.lexbor import LexborNode

from fetcher.page.inner_text import inner_text

__all__ = ["table_rows"]

MAX_COLUMNS = 1_000
MAX_CELLS = 200_000
MAX_SPAN = 1_000  # the standard's for columns; it allows more rows


def table_rows(table: LexborNode) -> list[dict[str, str]]:
    """Return the rows of a ``table`` below its header.

    The header is the first row, where it is in ``thead`` or all its cells are ``th``; without one the columns are
    ``column_1`` and so on. A name that is empty or stands twice gets one of its own, as in a CSV.
    """
    rows = list(_rows_of(table))
    grid = _expanded(rows)
    if not grid:
        return []
    names = _names(grid.pop(0) if _is_header(rows[0]) else [], max(map(len, grid), default=0))
    return [dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=False)) for cells in grid if any(cells)]


def _rows_of(table: LexborNode) -> Iterator[LexborNode]:
    """Yield the rows of this table alone: those of tables in its cells are not its own."""
    for section in _children(table, ("thead", "tbody", "tfoot", "tr")):
        if section.tag == "tr":
            yield section
        else:
            yield from _children(section, ("tr",))


def _children(node: LexborNode, tags: tuple[str, ...]) -> Iterator[LexborNode]:
    child = node.first_child
    while child is not None:
        if child.tag in tags:
            yield child
        child = child.next


def _is_header(row: LexborNode) -> bool:
    parent = row.parent
    if parent is not None and parent.tag == "thead":
        return True
    cells = list(_children(row, ("td", "th")))
    return bool(cells) and all(cell.tag == "th" for cell in cells)


def _expanded(rows: list[LexborNode]) -> list[list[str]]:
    """Return the text of each row's cells, with those that span repeated."""
    grid: list[list[str]] = []
    below: dict[int, tuple[int, str]] = {}  # column -> rows that a cell above still fills, and its text
    left = MAX_CELLS
    for row in rows:
        line: list[str] = []
        cells = _children(row, ("td", "th"))
        cell = next(cells, None)
        while (cell is not None or len(line) in below) and len(line) < MAX_COLUMNS:
            column = len(line)
            if column in below:
                rest, text = below.pop(column)
                line.append(text)
                if rest > 1:
                    below[column] = (rest - 1, text)
                continue
            assert cell is not None
            text = inner_text(cell)
            deep = _span(cell, "rowspan")
            for at in range(column, min(MAX_COLUMNS, column + _span(cell, "colspan"))):
                line.append(text)
                if deep > 1:
                    below[at] = (deep - 1, text)
            cell = next(cells, None)
        left -= len(line)
        if left < 0:
            break
        grid.append(line)
    return grid


def _span(cell: LexborNode, name: str) -> int:
    digits = (cell.attributes.get(name) or "").strip()
    return min(MAX_SPAN, max(1, int(digits))) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 1


def _names(header: list[str], width: int) -> list[str]:
    """Return a name for each column, none of them twice."""
    names: list[str] = []
    used: set[str] = set()
    for at in range(max(width, len(header))):
        base = (header[at] if at < len(header) else "") or f"column_{at + 1}"
        name, number = base, 1
        while name in used:
            number += 1
            name = f"{base}_{number}"
        used.add(name)
        names.append(name)
    return names
