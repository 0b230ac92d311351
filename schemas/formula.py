"""Formulas of usage rules: a small language of numbers, names, arithmetic, comparisons and a fixed list of functions.

The text is parsed into Python's syntax tree, of which only the node types named here pass; nothing is ever handed to Python to run.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

# name → how many arguments, at least and at most
FUNCTIONS: Final[dict[str, tuple[int, int]]] = {
    "min": (1, 8),  # of curves interval by interval; of one curve its lowest value
    "max": (1, 8),
    "abs": (1, 1),
    "sum": (1, 1),  # of a curve
    "mean": (1, 1),
    "count": (1, 1),  # of a comparison: how many intervals; of a curve: how many are usable
    "sqrt": (1, 1),
    "round": (2, 2),  # to a number of decimals, half to even
    "where": (3, 3),  # condition, then, else
    "power": (1, 1),  # a curve of energy as mean power
    "table": (1, 1),  # a factor of `usage.tables` as it holds at the period's begin; per day for curves: daily(…)
    "daily": (1, 1),
    "hours": (0, 0),  # elapsed in the period
    "days": (0, 0),  # local days of the period
}
LONGEST: Final = 500
MOST_NODES: Final = 200
DEEPEST: Final = 24
_BINARY: Final = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARE: Final = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,12})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Node:
    """One step: ``op`` is number, name, neg, and, or, an operator, or a function; ``args`` are nodes, ``value`` what a leaf holds."""

    op: str
    args: tuple[Node, ...] = ()
    value: Fraction | str = ""


def parse(text: str) -> Node:
    """The tree of a formula. Raises ValueError in plain words for everything outside the language."""
    if len(text) > LONGEST:
        raise ValueError(f"a formula has at most {LONGEST} characters")
    if not text.isascii():
        raise ValueError("a formula is written in ASCII")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is no formula: {getattr(error, 'msg', error)}") from None
    if sum(1 for _ in ast.walk(tree)) > MOST_NODES:
        raise ValueError("the formula has too many parts")
    return _node(tree.body, text.strip(), 0)


def names_of(node: Node) -> frozenset[str]:
    """The names of quantities and curves in a formula; names of tables are not among them."""
    if node.op == "name":
        return frozenset({str(node.value)})
    if node.op in ("table", "daily"):
        return frozenset()
    return frozenset().union(*(names_of(arg) for arg in node.args))


def tables_of(node: Node) -> frozenset[str]:
    """The names of tables in a formula."""
    if node.op in ("table", "daily"):
        return frozenset({str(node.args[0].value)})
    return frozenset().union(*(tables_of(arg) for arg in node.args))


def _node(tree: ast.expr, text: str, depth: int) -> Node:
    if depth > DEEPEST:
        raise ValueError("the formula is nested too deeply")

    def inner(part: ast.expr) -> Node:
        return _node(part, text, depth + 1)

    match tree:
        case ast.Constant(value=value) if type(value) in (int, float):
            written = ast.get_source_segment(text, tree) or ""
            if not _NUMBER.fullmatch(written):
                raise ValueError(f"{written!r} is not a plain decimal number")
            return Node("number", value=Fraction(written))
        case ast.Name(id=name):
            return Node("name", value=name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Node("neg", (inner(operand),))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return Node(_BINARY[type(op)], (inner(left), inner(right)))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return Node(_COMPARE[type(op)], (inner(left), inner(right)))
        case ast.BoolOp(op=op, values=values):
            return Node("and" if isinstance(op, ast.And) else "or", tuple(inner(value) for value in values))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _call(name, tuple(inner(arg) for arg in args))
    raise ValueError(f"{ast.get_source_segment(text, tree) or text!r} is not part of the formula language")


def _call(name: str, args: tuple[Node, ...]) -> Node:
    if name not in FUNCTIONS:
        raise ValueError(f"there is no function {name!r}; known: {', '.join(sorted(FUNCTIONS))}")
    low, high = FUNCTIONS[name]
    if not low <= len(args) <= high:
        raise ValueError(f"{name} takes {low if low == high else f'{low} to {high}'} arguments, not {len(args)}")
    if name in ("table", "daily") and args[0].op != "name":
        raise ValueError(f"{name} takes the name of a table")
    if name == "round" and not (args[1].op == "number" and args[1].value in range(7)):
        raise ValueError("round takes a number of decimals from 0 to 6")
    return Node(name, args)
