"""Formulas over curves and quantities, evaluated exactly: curves as whole millionths, single numbers as fractions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.formula import Node
from streams.determinants.usage.curve import Curve, Quality, alike, worst
from streams.determinants.usage.exact import root, scale, total

Array = npt.NDArray[Any]
_ONE: Final = 1_000_000
_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a formula may see: curves (on one grid) and quantities by name, factors by table (now and per interval), the period."""

    curves: Mapping[str, Curve]
    numbers: Mapping[str, tuple[int, Quality]]  # millionths
    factor: Callable[[str], int]
    factors: Callable[[str, Curve], Array]
    seconds: int
    days: int


Value = Any  # Fraction or Array: a number, millionths per interval, or truths per interval


class Evaluation:
    """One evaluation; remembers which parts it used, for the quality of the result."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.used: list[Curve] = []
        self.quality: list[Quality] = []

    def value(self, node: Node) -> Any:
        """The value of a node. Raises ValueError on a curve where a number is needed, ZeroDivisionError on a division by zero."""
        if node.op == "number":
            return node.value
        if node.op == "name":
            return self._name(str(node.value))
        special = getattr(self, f"_{node.op}", None)
        if special is not None:
            return special(node.args)
        args = [self.value(arg) for arg in node.args]
        if node.op in _COMPARE:
            return _COMPARE[node.op](*_same(args))
        return _ARITHMETIC[node.op](*args)

    def _name(self, name: str) -> Value:
        curve = self.around.curves.get(name)
        if curve is not None:
            self.used.append(curve)
            return curve.values
        amount, quality = self.around.numbers[name]
        self.quality.append(quality)
        return Fraction(amount, _ONE)

    def _hours(self, _: Sequence[Node]) -> Fraction:
        return Fraction(self.around.seconds, 3600)

    def _days(self, _: Sequence[Node]) -> Fraction:
        return Fraction(self.around.days)

    def _table(self, args: Sequence[Node]) -> Fraction:
        return Fraction(self.around.factor(str(args[0].value)), _ONE)

    def _daily(self, args: Sequence[Node]) -> Array:
        if not self.around.curves:
            raise ValueError("daily needs a curve in the formula")
        return self.around.factors(str(args[0].value), next(iter(self.around.curves.values())))

    def _power(self, args: Sequence[Node]) -> Array:
        curve = next(iter(self.around.curves.values()), None)
        values = self.value(args[0])
        if curve is None or not isinstance(values, np.ndarray):
            raise ValueError("power needs a curve")
        return scale(values, Fraction(3600, curve.seconds))

    def _count(self, args: Sequence[Node]) -> Fraction:
        before = len(self.used)
        values = self.value(args[0])
        if not isinstance(values, np.ndarray):
            raise ValueError("count needs a curve or a comparison of one")
        if values.dtype == np.bool_:
            return Fraction(int(values.sum()))
        return Fraction(int((worst(self.used[before:]) >= 200_000).sum())) if len(self.used) > before else Fraction(len(values))

    def _round(self, args: Sequence[Node]) -> Value:
        digits = int(Fraction(args[1].value))
        value = self.value(args[0])
        if isinstance(value, np.ndarray):
            step = 10 ** (6 - digits)
            return scale(value, Fraction(1, step)) * step
        return round(value, digits)


def evaluate(node: Node, around: Surroundings) -> tuple[Value, list[Curve], Quality]:
    """A formula over curves and quantities of the subscription.

    Language: numbers, names of rules before it, ``+ − * /``, comparisons, ``and or``, and the functions ``min max abs sum mean count
    sqrt round where power table daily hours days``. A formula with a curve on both or one side works interval by interval; ``sum``,
    ``mean``, ``count`` and ``max`` or ``min`` of one curve make a number of it. Formula: as written.

    Edge cases: curves are brought to one grid; intervals with a missing part are missing and 0. Each product and quotient of curves is
    rounded to 10⁻⁶, half to even; numbers stay exact fractions and are rounded once. Division by zero makes the quantity invalid.
    A result that is a curve is known to later rules by the rule's name, and its sum is the quantity.

    Source: Oracle Utilities MDM, rules *Apply Math*, *Vector and Service Quantity Math*.
    """
    names = list(around.curves)
    if names:
        grid = alike([around.curves[name] for name in names])
        around = replace(around, curves=dict(zip(names, grid, strict=True)))
    run = Evaluation(around)
    value = run.value(node)
    quality = Quality()
    for part in [*run.quality, *(curve.quality for curve in run.used)]:
        quality = part if not quality.condition else quality.with_(part)
    return value, run.used, quality


# --- arithmetic ------------------------------------------------------------------------------------------------------------------


def _same(args: Sequence[Any]) -> list[Any]:
    """Numbers and curves made comparable: where one is a curve, numbers become millionths."""
    if not any(isinstance(arg, np.ndarray) for arg in args):
        return list(args)
    return [arg if isinstance(arg, np.ndarray) else round(arg * _ONE) for arg in args]


def _checked(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype == object:
        if any(abs(value) >= 2**62 for value in values.tolist()):
            raise OverflowError("a value of the formula is too large")
        return values.astype(np.int64)
    return values


def _plus(a: Value, b: Value) -> Value:
    x, y = _same([a, b])
    return _checked(x.astype(object) + y if isinstance(x, np.ndarray) else x + y.astype(object) if isinstance(y, np.ndarray) else x + y)


def _times(a: Value, b: Value) -> Value:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array([round(Fraction(x * y, _ONE)) for x, y in zip(a.tolist(), b.tolist(), strict=True)], np.int64)
    if isinstance(a, np.ndarray):
        return scale(a, Fraction(str(b)))
    return scale(b, a) if isinstance(b, np.ndarray) else a * b


def _over(a: Value, b: Value) -> Value:
    if isinstance(b, np.ndarray):
        top = a.tolist() if isinstance(a, np.ndarray) else [round(a * _ONE)] * len(b)
        return np.array([round(Fraction(x * _ONE, y)) for x, y in zip(top, b.tolist(), strict=True)], np.int64)
    return scale(a, 1 / b) if isinstance(a, np.ndarray) else a / b


def _extreme(pick: Callable[..., Any], over: Callable[..., Any]) -> Callable[..., Value]:
    def found(*args: Any) -> Value:
        if len(args) == 1:
            return Fraction(int(pick(args[0].tolist())), _ONE) if isinstance(args[0], np.ndarray) and len(args[0]) else Fraction(0)
        same = _same(args)
        if not any(isinstance(arg, np.ndarray) for arg in same):
            return pick(same)
        best = same[0]
        for other in same[1:]:
            best = over(best, other)
        return np.asarray(best, np.int64)

    return found


def _sum(values: Value) -> Fraction:
    return Fraction(total(values), _ONE) if isinstance(values, np.ndarray) else values


def _mean(values: Value) -> Fraction:
    return Fraction(total(values), _ONE * max(1, len(values))) if isinstance(values, np.ndarray) else values


def _sqrt(value: Value) -> Value:
    if isinstance(value, np.ndarray):
        if len(value) and int(value.min()) < 0:
            raise ValueError("root of a negative number")
        return np.array([root(v * _ONE) for v in value.tolist()], np.int64)
    if value < 0:
        raise ValueError("root of a negative number")
    return Fraction(root(value.numerator * _ONE * _ONE, value.denominator), _ONE)


def _where(condition: Any, yes: Value, no: Value) -> Any:
    x, y = _same([yes, no])
    if isinstance(condition, np.ndarray):
        if not isinstance(x, np.ndarray) and not isinstance(y, np.ndarray):
            x, y = (round(v * _ONE) for v in (x, y))
        return np.where(condition, x, y).astype(np.int64)
    return x if condition else y


def _all(*args: Any) -> Any:
    out = args[0]
    for other in args[1:]:
        out = out & other
    return out


def _any(*args: Any) -> Any:
    out = args[0]
    for other in args[1:]:
        out = out | other
    return out


_ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {
    "+": _plus, "-": lambda a, b: _plus(a, -b), "*": _times, "/": _over, "neg": lambda a: -a, "abs": abs,
    "min": _extreme(min, np.minimum), "max": _extreme(max, np.maximum), "sum": _sum, "mean": _mean, "sqrt": _sqrt, "where": _where,
    "and": _all, "or": _any,
}  # fmt: skip
