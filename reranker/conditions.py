"""Conditions on the columns of items, of which rules are made: parsed once, tried on all candidates at once.

    category == "shoes" and (price < 50 or not in_stock) and brand not in ["acme", "emca"]

Comparisons of a column with a text or a number (< <= > >= == != in, not in), joined by and, or, not and parentheses; a
column of its own is true where it is not zero. What is missing agrees with nothing, not with != either. The grammar is
that of Python's expressions, of which only these pass.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prediction_store.reader import CategoryColumn, TextColumn
from reranker.arrays import Indexes, Mask
from reranker.errors import ConditionError

MOST_CHARACTERS = 2000
MOST_TERMS = 100
"""Of a condition: with this many parts, nesting is no danger to the stack."""

_LINE = re.compile(r"\r\n|\r|\n")
"""The end of a line, as Python's grammar has it."""

Column = object
"""As `Version.column` gives it: a TextColumn, a CategoryColumn or an array of numbers."""
Columns = Callable[[str], Column]
"""The column of a name; raises where there is none."""
Test = Callable[[Columns, Indexes], Mask]

_ORDER: dict[type[ast.cmpop], np.ufunc] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq,
}  # fmt: skip


class _UnlikeError(Exception):
    """Raised when a value is not of a column's kind."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that has been parsed."""

    text: str
    columns: tuple[str, ...]
    """The columns it names, in byte order."""
    _test: Test

    def holds(self, columns: Columns, items: Indexes) -> Mask:
        """bool[n]: for which of the items, uint32[n], it holds.

        Raises:
            ConditionError: a column is compared with what it cannot be compared with. Whether it is does not depend on
                the items, so a try with none of them tells.
        """
        try:
            return self._test(columns, items)
        except _UnlikeError as error:
            raise ConditionError(str(error), text=self.text) from None

    def is_judged(self, columns: Columns, items: Indexes) -> Mask:
        """bool[n]: for which of the items something is there in all the columns that it names."""
        found = np.ones(items.shape, np.bool_)
        for name in self.columns:
            found &= _is_there(columns(name), items)
        return found


def parse(text: str) -> Condition:
    """The condition that a text says.

    Raises:
        ConditionError: it says none; the message has the position.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConditionError(
            f"a condition of {len(text)} characters; wanted at most {MOST_CHARACTERS}", text=text, at=0
        )
    stripped = text.strip()
    try:
        tree = ast.parse(stripped, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if not isinstance(error, SyntaxError):
            place = 1
        elif error.lineno is not None and error.offset:
            place = _place(text, error.lineno, error.offset)
        else:  # it ends too early
            place = text.index(stripped) + len(stripped) + 1
        raise ConditionError(f"it cannot be read: {getattr(error, 'msg', error)}", text=text, at=place) from None
    nodes = list(ast.walk(tree))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    if len(names) > MOST_TERMS or len(nodes) > 8 * MOST_TERMS:
        raise ConditionError(f"it has more than {MOST_TERMS} parts", text=text, at=1)
    return Condition(text, tuple(sorted(set(names))), _Parser(text).test(tree.body))


def _place(text: str, line: int, column: int) -> int:
    """The character of a text, from 1, that the parser, which has read it stripped, counts by line and column."""
    stripped = text.strip()
    starts = [0, *(end.end() for end in _LINE.finditer(stripped))]
    return text.index(stripped) + starts[min(line, len(starts)) - 1] + column


class _Parser:
    """Turns a tree into a test."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = _LINE.split(text.strip())

    def test(self, node: ast.expr) -> Test:
        match node:
            case ast.BoolOp(op, parts):
                tests = [self.test(part) for part in parts]
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return lambda columns, items: join.reduce([test(columns, items) for test in tests])
            case ast.UnaryOp(ast.Not(), part):
                inner = self.test(part)
                return lambda columns, items: ~inner(columns, items)
            case ast.Compare(left, ops, rights):
                sides = [left, *rights]
                tests = [self._compared(*three) for three in zip(sides, ops, rights, strict=False)]
                return lambda columns, items: np.logical_and.reduce([test(columns, items) for test in tests])
            case ast.Name(name):
                return lambda columns, items: _is_set(columns(name), items)
            case ast.Constant(bool() as value):
                return lambda columns, items: np.full(items.shape, value, np.bool_)
        raise self._wrong(node, "wanted a column, a comparison, and, or, not")

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Test:
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(left, ast.Name) or not isinstance(right, (ast.List, ast.Tuple, ast.Set)):
                raise self._wrong(left, "wanted COLUMN in [VALUE, …]")
            wanted, name = [self._value(element) for element in right.elts], left.id
            is_in = isinstance(op, ast.In)
            return lambda columns, items: _among(columns(name), items, wanted, is_in=is_in)
        kind = type(op)
        if kind not in _ORDER:
            raise self._wrong(left, "`is` is not a comparison here; wanted ==")
        column, other = left, right
        if not isinstance(column, ast.Name):
            column, other, kind = right, left, _SWAPPED[kind]
        if not isinstance(column, ast.Name):
            raise self._wrong(left, "wanted a column on one side of a comparison")
        name, value = column.id, self._value(other)
        return lambda columns, items: _ordered(columns(name), items, kind, value)

    def _value(self, node: ast.expr) -> str | float:
        match node:
            case ast.Constant(bool() as flag):
                return float(flag)
            case ast.Constant(str() as text):
                return text
            case ast.Constant(int() | float() as number):
                return self._number(node, number)
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
                return -self._number(node, number)
        raise self._wrong(node, "wanted a text in quotes or a number")

    def _number(self, node: ast.expr, number: float) -> float:
        try:
            return float(number)
        except OverflowError:
            raise self._wrong(node, "the number is too large; wanted one below 1e308") from None

    def _wrong(self, node: ast.expr, wanted: str) -> ConditionError:
        # The parser counts bytes here, and characters where it cannot read a text.
        line = self._lines[node.lineno - 1].encode()
        column = len(line[: node.col_offset].decode()) + 1
        return ConditionError(wanted, text=self._text, at=_place(self._text, node.lineno, column))


def _is_set(column: Column, items: Indexes) -> Mask:
    if isinstance(column, (CategoryColumn, TextColumn)):
        return _is_there(column, items)
    return _known(column, items, lambda numbers: numbers != 0)


def _is_there(column: Column, items: Indexes) -> Mask:
    if isinstance(column, (CategoryColumn, TextColumn)):
        return column.is_there(items)
    return _known(column, items, lambda numbers: np.ones(numbers.shape, np.bool_))


def _ordered(column: Column, items: Indexes, kind: type[ast.cmpop], value: str | float) -> Mask:
    if isinstance(column, (CategoryColumn, TextColumn)):
        if kind not in (ast.Eq, ast.NotEq):
            raise _UnlikeError("a column of texts has no order; wanted == or !=")
        return _among(column, items, [value], is_in=kind is ast.Eq)
    _require_alike(column, value)
    return _known(column, items, lambda numbers: _ORDER[kind](numbers, value))


def _among(column: Column, items: Indexes, wanted: Sequence[str | float], *, is_in: bool) -> Mask:
    for value in wanted:
        _require_alike(column, value)
    if isinstance(column, (CategoryColumn, TextColumn)):
        found = column.is_among(items, {value for value in wanted if isinstance(value, str)})
        return found if is_in else column.is_there(items) & ~found
    # One by one: so each is rounded as the column is, and 19.99 is found among float32. NaN stands for an empty list.
    values = [np.nan, *wanted]
    return _known(column, items, lambda numbers: np.any([numbers == value for value in values], axis=0) == is_in)


def _require_alike(column: Column, value: str | float) -> None:
    is_of_texts = isinstance(column, (CategoryColumn, TextColumn))
    if isinstance(value, str) and not is_of_texts:
        raise _UnlikeError(f"a column of numbers is compared with the text {value!r}")
    if is_of_texts and not isinstance(value, str):
        raise _UnlikeError(f"a column of texts is compared with the number {value:g}; wanted a text in quotes")


def _known(column: Column, items: Indexes, test: Callable[[np.ndarray], np.ndarray]) -> Mask:
    """A test of numbers, which a missing one does not pass."""
    numbers = np.asarray(column)[items]
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite there
        found: Mask = test(numbers) & ~np.isnan(numbers)
    return found
