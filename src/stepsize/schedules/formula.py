"""A formula is written once, against a few names; here it becomes a fast function of a float.

`trace(formula)` calls the formula with a stand-in for time, which records what is done to it, and
`compile_formula` writes the record out as straight-line Python with every look-up done: constants
folded, clips that cannot bite dropped, a part of a sequence evaluated only when it is that part's
turn. Refused alternatives: a second hand-written fast form per family (two formulas in two places),
and closures of closures (40 ns a node; a whole warmup and cosine costs about 150 ns written out).
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, Protocol

Branch = Callable[[], Any]


class Names(Protocol):
    """The names a formula may use, beside `+ - * /` and comparisons; `t` and results broadcast."""

    pi: float

    def sin(self, x: Any, /) -> Any: ...
    def cos(self, x: Any, /) -> Any: ...
    def exp(self, x: Any, /) -> Any: ...
    def expm1(self, x: Any, /) -> Any: ...
    def log(self, x: Any, /) -> Any: ...
    def log1p(self, x: Any, /) -> Any: ...
    def sqrt(self, x: Any, /) -> Any: ...
    def floor(self, x: Any, /) -> Any: ...

    def power(self, base: Any, exponent: Any, /) -> Any:
        """`base ** exponent` for base >= 0, with a finite derivative at 0."""

    def clip(self, x: Any, low: float, high: float, /) -> Any: ...
    def where(self, condition: Any, then: Any, otherwise: Any, /) -> Any: ...

    def choose(self, condition: Any, then: Branch, otherwise: Branch, /) -> Any:
        """`where` with branches that are evaluated only if needed; values or tuples of values."""

    def search(self, table: tuple[float, ...], x: Any, /) -> Any:
        """How many entries of the ascending table are <= x."""

    def take(self, table: tuple[float, ...], index: Any, /) -> Any: ...

    def call(self, function: Callable[[Any], Any], x: Any, /) -> Any:
        """A user's function of time."""


FUNCTIONS: Final = ("sin", "cos", "exp", "expm1", "log", "log1p", "sqrt")
_ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}


class Expr:
    """One step of a recorded formula, with the interval its value lies in."""

    __slots__ = ("args", "high", "low", "op")

    def __init__(self, op: str, *args: Any, low: float = -math.inf, high: float = math.inf) -> None:
        self.op, self.args, self.low, self.high = op, args, low, high

    def __add__(self, other: Any) -> Any:
        return _binary("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return _binary("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return _binary("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _binary("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return _binary("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _binary("*", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _binary("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _binary("/", other, self)

    def __neg__(self) -> Any:
        return _binary("-", 0.0, self)

    def __lt__(self, other: Any) -> Any:
        return _compare("<", self, other)

    def __le__(self, other: Any) -> Any:
        return _compare("<=", self, other)

    def __gt__(self, other: Any) -> Any:
        return _compare(">", self, other)

    def __ge__(self, other: Any) -> Any:
        return _compare(">=", self, other)

    def __eq__(self, other: object) -> bool:
        raise TypeError("a formula cannot ask whether times are equal: compare with < or >=")

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("a formula cannot branch on time with if: use xp.where(condition, a, b)")


def _interval(x: Any) -> tuple[float, float]:
    return (x.low, x.high) if isinstance(x, Expr) else (x, x)


def _folded(op: str, a: Any, b: Any) -> Any:
    """Give the shorter equal of `a op b`, exact in floating point for finite values, or None."""
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        try:
            return _ARITHMETIC[op](a, b)
        except ArithmeticError:  # perhaps of a branch that is never taken
            return Expr(op, a, b)
    if op == "*" and (_is(a, 0.0) or _is(b, 0.0)):
        return 0.0
    if (op == "+" and _is(a, 0.0)) or (op == "*" and _is(a, 1.0)):
        return b
    if (op in "+-" and _is(b, 0.0)) or (op in "*/**" and _is(b, 1.0)):
        return a
    return None


def _is(x: Any, number: float) -> bool:
    return not isinstance(x, Expr) and x == number


def _binary(op: str, a: Any, b: Any) -> Any:
    short = _folded(op, a, b)
    if short is not None:
        return short
    pushed = _into_branches(op, a, b)
    if pushed is not None:
        return pushed
    (a0, a1), (b0, b1) = _interval(a), _interval(b)
    low, high = -math.inf, math.inf
    if op == "+":
        low, high = a0 + b0, a1 + b1
    elif op == "-":
        low, high = a0 - b1, a1 - b0
    elif op in "*/" and not isinstance(b, Expr) and b > 0:
        low, high = _ARITHMETIC[op](a0, b), _ARITHMETIC[op](a1, b)
    return Expr(op, a, b, low=low, high=high)


def _into_branches(op: str, a: Any, b: Any) -> Any:
    """Move an operation with a number, or with a like where, into both branches of a where."""
    a_where, b_where = (isinstance(x, Expr) and x.op == "where" for x in (a, b))
    if a_where and b_where and a.args[0] is b.args[0]:
        (c, a1, a2), (_, b1, b2) = a.args, b.args
    elif a_where and not isinstance(b, Expr):
        (c, a1, a2), (b1, b2) = a.args, (b, b)
    elif b_where and not isinstance(a, Expr):
        (c, b1, b2), (a1, a2) = b.args, (a, a)
    else:
        return None
    return Expr("where", c, _binary(op, a1, b1), _binary(op, a2, b2))


def _compare(op: str, a: Any, b: Any) -> Any:
    """Record a comparison, or decide it where the intervals do."""
    if op in (">", ">="):
        return _compare("<" if op == ">" else "<=", b, a)
    (a0, a1), (b0, b1) = _interval(a), _interval(b)
    if a1 < b0 or (op == "<=" and a1 <= b0):
        return True
    if a0 > b1 or (op == "<" and a0 >= b1):
        return False
    return Expr(op, a, b)


class Recorder:
    """The names of `Names`, recording."""

    pi = math.pi

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        """Give the recording form of a function of one argument."""
        if name not in FUNCTIONS:
            raise AttributeError(f"a formula may not use {name!r}; the names are in Names")
        known: Callable[[float], float] = getattr(math, name)

        def recorded(x: Any) -> Any:
            try:
                return Expr(name, x) if isinstance(x, Expr) else known(x)
            except (ArithmeticError, ValueError):  # perhaps of a branch that is never taken
                return Expr(name, x)

        return recorded

    def floor(self, x: Any) -> Any:
        return Expr("floor", x, low=x.low - 1, high=x.high) if isinstance(x, Expr) else x // 1.0

    def power(self, base: Any, exponent: Any) -> Any:
        return _binary("**", base, exponent)

    def clip(self, x: Any, low: float, high: float) -> Any:
        if not isinstance(x, Expr):
            return min(max(x, low), high)
        if x.op == "where":
            condition, then, otherwise = x.args
            return self.where(
                condition, self.clip(then, low, high), self.clip(otherwise, low, high)
            )
        if x.low >= low and x.high <= high:
            return x
        if x.high <= low or x.low >= high:
            return low if x.high <= low else high
        # a limit that x cannot reach here is not written
        under, over = (low if x.low < low else -math.inf), (high if x.high > high else math.inf)
        return Expr("clip", x, under, over, low=max(x.low, low), high=min(x.high, high))

    def where(self, condition: Any, then: Any, otherwise: Any) -> Any:
        if isinstance(condition, bool):
            return then if condition else otherwise
        if isinstance(then, tuple):
            return tuple(map(self.where, [condition] * len(then), then, otherwise))
        (a0, a1), (b0, b1) = _interval(then), _interval(otherwise)
        return Expr("where", condition, then, otherwise, low=min(a0, b0), high=max(a1, b1))

    def choose(self, condition: Any, then: Branch, otherwise: Branch) -> Any:
        if isinstance(condition, bool):
            return then() if condition else otherwise()
        taken = _within(condition, then, holds=True)
        return self.where(condition, taken, _within(condition, otherwise, holds=False))

    def search(self, table: tuple[float, ...], x: Any) -> Any:
        if not isinstance(x, Expr):
            return bisect_right(table, x)
        return Expr("search", table, x, low=0.0, high=float(len(table)))

    def take(self, table: tuple[float, ...], index: Any) -> Any:
        if not isinstance(index, Expr):
            return table[int(index)]
        return Expr("take", table, index, low=min(table), high=max(table))

    def call(self, function: Callable[[Any], Any], x: Any) -> Any:
        return Expr("call", function, x)


def _within(condition: Expr, branch: Branch, *, holds: bool) -> Any:
    """Record a branch with what its condition says about a value compared with a number."""
    a, b = condition.args
    x, below = (a, holds) if isinstance(a, Expr) else (b, not holds)
    limit = b if x is a else a
    if isinstance(limit, Expr):
        return branch()
    kept = x.low, x.high
    if below:
        x.high = min(x.high, limit)
    else:
        x.low = max(x.low, limit)
    try:
        return branch()
    finally:
        x.low, x.high = kept


def compile_formula(
    formula: Callable[[Any, Names], Any], lowest: float = -math.inf
) -> Callable[[float], float]:
    """Write the formula out as a function of a float that is never below `lowest`."""
    source, names = write_source(formula, lowest)
    exec(compile(source, "<schedule>", "exec"), names)  # noqa: S102 (our own text: operators, numbers and bound names)
    function: Callable[[float], float] = names["value"]
    return function


def stand_alone(source: str, names: dict[str, Any]) -> str:
    """Give a function's text with the imports and tables that it uses."""
    spoken = set(re.findall(r"\b[a-z_]\w*", source))
    head = []
    for module, known in (("bisect", ["bisect_right"]), ("math", [*FUNCTIONS, "floor", "inf"])):
        used = sorted(spoken & set(known))
        head += [f"from {module} import {', '.join(used)}"] if used else []
    for name in sorted(spoken & set(names), key=lambda n: (len(n), n)):
        if isinstance(names[name], tuple):
            head.append(f"{name} = {names[name]!r}")
        elif name not in FUNCTIONS and name not in ("bisect_right", "floor", "inf", "nan"):
            head.append(f"# {name} is the function {names[name]!r}")
    return "\n".join([*head, "", source] if head else [source])


def write_source(
    formula: Callable[[Any, Names], Any], lowest: float = -math.inf
) -> tuple[str, dict[str, Any]]:
    """Give the source text of the compiled formula, and the names it uses."""
    from stepsize.schedules.writer import Writer  # noqa: PLC0415 (writer reads Expr from here)

    t = Expr("t", low=lowest)
    writer = Writer()
    writer.write(formula(t, Recorder()))
    return writer.source, writer.names
