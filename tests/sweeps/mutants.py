"""Owns the small changes that a test should notice: where they can be made in a module, and how one is told again.

Law 1: a mutant changes one spot of the source text, and leaves the rest as it stands. Law 2: it is known by its file,
function, line and change, not by a line's number: a change elsewhere makes no other mutant of it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = ["Mutant", "mutants_of"]

Change: TypeAlias = tuple[int, int, str, str]
"""From which byte to which, the text that comes in, and words for it."""

OFF_BY_ONE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
TURNED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "==",
          "is": "is not", "is not": "is", "in": "not in", "not in": "in"}  # fmt: skip
SYMBOLS: dict[type[ast.AST], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
    ast.And: "and", ast.Or: "or", ast.Add: "+", ast.Sub: "-",
}  # fmt: skip
SWAPPED = {"and": "or", "or": "and", "+": "-", "-": "+", "min": "max", "max": "min", "True": "False", "False": "True"}
LARGE = 10
"""A number from which on one more would be no change that matters: it is doubled."""

PLAIN = (ast.Constant, ast.Compare, ast.BoolOp, ast.UnaryOp)
"""What is returned, and changed in another way."""

MODULE = "module"
"""The function of what is in none."""

DECLARED = frozenset({"frozen", "gc"})
"""What a class says of itself: a type checker sees to the one, the other is for the collector's time alone."""

SILENT = re.compile(rb"\s*(await )?(log|warnings)\.")
"""Statements that only say something."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file. ``line`` is the source line it begins in, ``turn`` counts those with the same words in it."""

    file: str
    function: str
    line: str
    words: str
    turn: int
    begin: int
    end: int
    text: str

    @property
    def key(self) -> str:
        """What it is known by."""
        turn = f" ({self.turn})" if self.turn > 1 else ""
        return f"{self.file} {self.function}: {self.words}{turn}\n    {self.line}"

    @property
    def is_of_no_function(self) -> bool:
        """Whether it stands outside of all functions."""
        return self.function.rpartition(".")[2][0].isupper() or self.function == MODULE

    def applied(self, source: bytes) -> bytes:
        """Return the source with the change made."""
        return source[: self.begin] + self.text.encode() + source[self.end :]


def mutants_of(file: str, source: bytes) -> list[Mutant]:
    """Return every mutant of a module, in the order of the text."""
    seen: Counter[str] = Counter()
    found = []
    for function, change in sorted(_Walk(source).changes(), key=lambda one: one[1][:2]):
        begin, end, text, words = change
        line = source[source.rfind(b"\n", 0, begin) + 1 :].split(b"\n", 1)[0].decode().strip()
        mutant = Mutant(file, function, line, words, 1, begin, end, text)
        seen[mutant.key] += 1
        found.append(replace(mutant, turn=seen[mutant.key]))
    return found


class _Walk:
    """The nodes of a module that may be changed, each with the function it is in."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0]
        for line in source.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def changes(self) -> Iterator[tuple[str, Change]]:
        yield from self._below(ast.parse(self._source), "")

    def _below(self, parent: ast.AST, function: str) -> Iterator[tuple[str, Change]]:
        for node in ast.iter_child_nodes(parent):
            if self._is_left_alone(node, parent):
                continue
            inner = function
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{function}.{node.name}".lstrip(".")
            for change in self._of(node):
                yield inner or MODULE, change
            yield from self._below(node, inner)

    def _is_left_alone(self, node: ast.AST, parent: ast.AST) -> bool:
        """Whether it says something only, to people or to a type checker."""
        if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
            return True
        if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
            return True
        if isinstance(parent, ast.keyword) and parent.arg in DECLARED:
            return True
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return True
        if isinstance(parent, ast.AnnAssign | ast.arg) and node is parent.annotation:
            return True
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef) and (
            node is parent.returns or node in parent.decorator_list
        ):
            return True
        return isinstance(node, ast.Expr) and SILENT.match(self._source, self._begin(node)) is not None

    def _of(self, node: ast.AST) -> Iterator[Change]:  # a case a sort of change
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for operator, before, after in zip(node.ops, operands, operands[1:], strict=False):
                    begin, end, symbol = self._operator(operator, before, after)
                    for table in (OFF_BY_ONE, TURNED):
                        if symbol in table:
                            yield begin, end, table[symbol], f"{symbol} becomes {table[symbol]}"
            case ast.BoolOp():
                for before, after in zip(node.values, node.values[1:], strict=False):
                    yield self._swap(*self._operator(node.op, before, after))
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                yield self._swap(*self._operator(node.op, node.left, node.right))
            case ast.AugAssign(op=ast.Add() | ast.Sub()):
                yield self._swap(*self._operator(node.op, node.target, node.value))
            case ast.UnaryOp(op=ast.Not()):
                begin = self._begin(node)
                end = begin + len("not")
                yield begin, end + self._source[end:].startswith(b" "), "", "not is dropped"
            case ast.Call(func=ast.Name(id="min" | "max")):
                begin = self._begin(node)
                yield self._swap(begin, begin + 3, self._source[begin : begin + 3].decode())
            case ast.Constant(value=bool()):
                yield self._swap(*self._span(node), str(node.value))
            case ast.Constant(value=int() | float() as value):
                other = value + 1 if value < LARGE else 2 * value
                yield *self._span(node), str(other), f"{value} becomes {other}"
            case ast.Expr(value=ast.Call() | ast.Await()):
                yield *self._span(node), "pass", "the call is dropped"
            case ast.Return(value=None) | ast.Continue() | ast.Break():
                yield *self._span(node), "pass", f"{type(node).__name__.lower()} is dropped"
            case ast.Return(value=value) if not isinstance(
                value, ast.Constant | ast.Compare | ast.BoolOp | ast.UnaryOp
            ):
                yield *self._span(value), "None", "None is returned"
            case ast.If():
                yield *self._span(node.test), "False", "the condition becomes False"

    def _swap(self, begin: int, end: int, old: str) -> Change:
        return begin, end, SWAPPED[old], f"{old} becomes {SWAPPED[old]}"

    def _operator(self, operator: ast.AST, before: ast.AST, after: ast.AST) -> tuple[int, int, str]:
        """Find an operator between its operands, which may stand in brackets."""
        symbol = SYMBOLS[type(operator)]
        begin = self._span(before)[1]
        pattern = rb"\s+".join(re.escape(word.encode()) for word in symbol.split())
        between = re.sub(rb"#[^\n]*", lambda comment: b" " * len(comment[0]), self._source[begin : self._begin(after)])
        place = re.search(pattern, between)
        assert place is not None, f"there is no {symbol} in {between!r}"
        return begin + place.start(), begin + place.end(), symbol

    def _begin(self, node: ast.AST) -> int:
        return self._span(node)[0]

    def _span(self, node: ast.AST | None) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset
