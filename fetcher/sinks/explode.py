"""Items as lines of their own (``--explode NAME``): one outcome becomes several, with the same id.

Law 1: a row without items, or that failed, has one line. Law 3: what the items do not say themselves stands in each
line, so the lines of one row are bounded by its bytes; what is beyond is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fetcher.model import Outcome, Page
from fetcher.sinks.layout import ItemPage, Layout, to_json, to_record

__all__ = ["Exploder", "exploder_for"]

MAX_REPEATED_BYTES = 64 * 1024 * 1024
"""Of one row, what is written once an item: as JSON, in all of its lines together."""


def exploder_for(layout: Layout, *, flat: bool) -> Exploder | None:
    """Return what makes lines of an outcome, ``None`` where each has one; ``flat`` is for a table."""
    return None if layout.explode is None else Exploder(layout, flat=flat)


class Exploder:
    """Makes of an outcome one for each item of a field: in its ``data`` the item stands in the place of all.

    Where it is ``flat`` the fields of a record stand beside the others, by the names of their columns.
    """

    def __init__(self, layout: Layout, *, flat: bool) -> None:
        explode = layout.explode
        assert explode is not None
        self._name = explode.name
        self._columns = dict(explode.fields) if flat else {}
        self._beside = explode.beside

    def lines(self, outcome: Outcome) -> list[Outcome]:
        """Return the outcomes to write, at least one."""
        data = outcome.data if isinstance(outcome, Page) else None
        if not isinstance(outcome, Page) or not isinstance(data, Mapping) or self._name not in data:
            return [outcome]
        found = data[self._name]
        items = found if isinstance(found, list | tuple) else [] if found is None else [found]
        beside = {name: data.get(name) for name in self._beside}
        rest = {**data, self._name: None, **dict.fromkeys(self._beside)}
        base = ItemPage(*(getattr(outcome, name) for name in Page.__struct_fields__))
        bare = msgspec.structs.replace(base, data=rest)
        if not items:
            return [msgspec.structs.replace(base, data=self._with(rest, None))]
        repeated = len(to_json(to_record(bare))) + sum(len(name) + len(value) for name, value in outcome.headers)
        most = max(1, MAX_REPEATED_BYTES // repeated)
        lines: list[Outcome] = []
        for number, item in enumerate(items[:most], 1):
            own = self._with(rest, item)
            for name, values in beside.items():
                own[name] = values[number - 1] if isinstance(values, list) and number <= len(values) else None
            lines.append(msgspec.structs.replace(base, data=own, item=number))
        return lines

    def _with(self, rest: Mapping[str, Any], item: Any) -> dict[str, Any]:
        """Return the data of a line."""
        if self._columns and isinstance(item, Mapping) and item.keys() <= self._columns.keys():
            data = {name: value for name, value in rest.items() if name != self._name}
            return data | {self._columns[name]: value for name, value in item.items()}
        if self._columns and item is None:
            return {name: value for name, value in rest.items() if name != self._name}
        return {**rest, self._name: item}
