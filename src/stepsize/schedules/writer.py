"""Writes a recorded formula as the body of a Python function `value(t)`."""

import math
from bisect import bisect_right
from typing import Any

from stepsize.schedules.formula import FUNCTIONS, Expr

_IN_TEXT = {
    "**": "{} ** {}",
    "floor": "{} // 1.0",
    "search": "bisect_right({}, {})",
    "take": "{}[{}]",
    "call": "float({}({}))",
    **{op: f"{{}} {op} {{}}" for op in ("+", "-", "*", "/", "<", "<=", ">", ">=")},
    **{name: f"{name}({{}})" for name in FUNCTIONS},
}
_CLOSED = {"search", "take", "call", *FUNCTIONS}  # need no brackets around them


class Writer:
    """Collects the lines of the function and the names bound beside it."""

    def __init__(self) -> None:
        self.lines = ["def value(t):"]
        self.names: dict[str, Any] = {n: getattr(math, n) for n in (*FUNCTIONS, "inf", "nan")}
        self.names["bisect_right"] = bisect_right
        self._uses: dict[int, int] = {}
        self._count = 0

    @property
    def source(self) -> str:
        """The text of the function."""
        return "\n".join(self.lines) + "\n"

    def write(self, result: Any) -> None:
        """Write the whole function body for a result."""
        self._count_uses(result)
        self._return(result, {}, 1)

    def _count_uses(self, node: Any) -> None:
        if not isinstance(node, Expr):
            return
        seen = self._uses.get(id(node), 0)
        self._uses[id(node)] = seen + 1
        if not seen:
            for arg in node.args:
                self._count_uses(arg)

    def _line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def _fresh(self) -> str:
        self._count += 1
        return f"x{self._count}"

    def _return(self, node: Any, known: dict[int, str], depth: int) -> None:
        if isinstance(node, Expr) and node.op == "where":
            condition, then, otherwise = node.args
            self._line(depth, f"if {self._text(condition, known, depth)}:")
            self._return(then, dict(known), depth + 1)
            self._return(otherwise, known, depth)
        else:
            self._line(depth, f"return {self._text(node, known, depth)}")

    def _text(self, node: Any, known: dict[int, str], depth: int) -> str:
        """Give an expression for the node, after writing the lines it needs."""
        if not isinstance(node, Expr):
            return self._constant(node)
        if node.op == "t":
            return "t"
        if id(node) in known:
            return known[id(node)]
        if node.op == "where":
            return self._branches(node, known, depth)
        text = (
            self._clip(node, known, depth) if node.op == "clip" else self._plain(node, known, depth)
        )
        if self._uses[id(node)] == 1:
            return text
        return self._named(node, text, known, depth)

    def _named(self, node: Expr, text: str, known: dict[int, str], depth: int) -> str:
        name = known[id(node)] = self._fresh()
        self._line(depth, f"{name} = {text}")
        return name

    def _plain(self, node: Expr, known: dict[int, str], depth: int) -> str:
        text = _IN_TEXT[node.op].format(*[self._text(a, known, depth) for a in node.args])
        return text if node.op in _CLOSED else f"({text})"

    def _clip(self, node: Expr, known: dict[int, str], depth: int) -> str:
        x, low, high = node.args
        name = self._text(x, known, depth)
        if name != "t" and not name.startswith("x"):
            name = self._named(x, name, known, depth)
        text = name
        if high < math.inf:
            text = f"{high!r} if {name} > {high!r} else {text}"
        if low > -math.inf:
            text = f"{low!r} if {name} < {low!r} else {text}"
        return f"({text})"

    def _branches(self, node: Expr, known: dict[int, str], depth: int) -> str:
        condition, then, otherwise = node.args
        name = self._fresh()
        self._line(depth, f"if {self._text(condition, known, depth)}:")
        for keyword, branch in (("", then), ("else:", otherwise)):
            if keyword:
                self._line(depth, keyword)
            inner = dict(known)
            self._line(depth + 1, f"{name} = {self._text(branch, inner, depth + 1)}")
        known[id(node)] = name
        return name

    def _constant(self, value: Any) -> str:
        if isinstance(value, float | int):
            return repr(value) if math.isfinite(value) else f"({value!r})"
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name
