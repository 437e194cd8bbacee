"""Numbers as they stand in print, each with the interval that its rounding leaves, and arithmetic between them.

A sum of rounded numbers is only as exact as they are: the result of an expression is an interval as well, and a
printed result is consistent with it where the two overlap.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

from pvlib.study import statistics

UNITS = {"%": 0.01, "KB": 1e3, "MB": 1e6, "M": 1e6, "GB": 1e9, "GB VRAM": 1e9}
_NUMBER = re.compile(
    r"(?P<about>~?)\s*(?P<limit>[<>≤≥]?)\s*(?P<first>[+-]?\d[\d,]*(?:\.\d+)?)(?:-(?P<last>\d+(?:\.\d+)?))?"
    r"\s*(?P<unit>%|KB|MB|M|GB VRAM|GB)?\*?"
)
_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def effect_of_p(p: float, n: float) -> float:
    """The |d_z| of a two-sided paired t-test on n pairs with this p-value."""
    from scipy.stats import t

    return float(t.isf(p / 2, n - 1) / math.sqrt(n))


FUNCTIONS: dict[str, Callable[..., float]] = {
    "max": max,
    "min": min,
    "effect_of_p": effect_of_p,
    "power": lambda d, n: statistics.power(d, int(n)),
}


@dataclass(frozen=True)
class Number:
    """A value between two ends, equal where it is exact."""

    low: float
    value: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.6g}"
        return f"{self.value:.6g} ({self.low:.6g} to {self.high:.6g} within rounding)"


def exact(value: float) -> Number:
    """A number that was counted or computed."""
    return Number(float(value), float(value), float(value))


def parse(text: str) -> Number:
    """A printed number: "0.4945", "13.5%", "~31.9 M", "4.0-4.5", "27".

    A whole number without a unit is a count, and exact. Any other stands for all that rounds to it; with "~" for
    one unit of the last printed digit more or less. A limit, as in "<0.05", is exact; its relation is the claim's
    to name. Raises ValueError on anything else.
    """
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no printed number")
    factor = UNITS.get(match["unit"] or "", 1.0)
    ends = [float(match["first"].replace(",", ""))]
    ends += [float(match["last"])] if match["last"] else []
    decimals = len(match["first"].partition(".")[2])
    unit = 10.0**-decimals
    rounded = (decimals or match["unit"]) and not match["limit"]
    slack = unit if match["about"] else unit / 2 if rounded else 0.0
    middle = sum(ends) / len(ends)
    return Number((ends[0] - slack) * factor, middle * factor, (ends[-1] + slack) * factor)


def evaluate(expression: str, numbers: Mapping[str, Number]) -> Number:
    """An expression of named numbers: + - * / and the functions max, min, effect_of_p(p, n) and power(d, n).

    The ends are the extremes over all combinations of the ends of the numbers, which is right where the expression
    rises or falls in each of them alone. Raises ValueError on anything else in the expression, an unknown name
    or a division by zero.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(FUNCTIONS)
        if unknown := names - set(numbers):
            raise ValueError(f"no number is called {', '.join(sorted(unknown))}")
        used = sorted(names)
        corners = product(*(sorted({numbers[name].low, numbers[name].high}) for name in used))
        results = [_compute(tree, dict(zip(used, corner))) for corner in corners]
        value = _compute(tree, {name: numbers[name].value for name in used})
    except (SyntaxError, ZeroDivisionError, TypeError) as error:
        raise ValueError(f"{expression!r} cannot be computed: {error}") from error
    return Number(min(results), value, max(results))


def _compute(node: ast.AST, names: Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_compute(node.left, names), _compute(node.right, names))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_compute(node.operand, names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        return float(FUNCTIONS[node.func.id](*(_compute(argument, names) for argument in node.args)))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed in an expression")


RELATIONS = ("equals", "less than", "at most", "more than", "at least")


def holds(left: Number, relation: str, right: Number) -> bool | None:
    """Whether left stands in a relation to right: True or False for all they can stand for, None where it depends.

    equals: the two intervals overlap, so that both can be roundings of the truth. Raises ValueError on
    another relation.
    """
    if relation not in RELATIONS:
        raise ValueError(f"no relation {relation!r}: choose one of {', '.join(RELATIONS)}")
    grain = 1e-9 * max(abs(left.value), abs(right.value))  # 13.5 % is not exactly 0.135 in binary
    if relation == "equals":
        return left.low <= right.high + grain and right.low <= left.high + grain
    if relation in ("more than", "at least"):
        left, right = right, left
    if relation in ("less than", "more than"):
        return True if left.high < right.low - grain else False if left.low >= right.high - grain else None
    return True if left.high <= right.low + grain else False if left.low > right.high + grain else None
