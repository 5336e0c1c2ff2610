"""Writes a recorded formula as the body of a Python function `value(t)`."""

import math
from bisect import bisect_right
from typing import Any

from stepsize.schedules.formula import FUNCTIONS, Expr

_IN_TEXT = {
    "**": "{} ** {}",
    "floor": "floor({})",
    "search": "bisect_right({}, {})",
    "take": "{}[{}]",
    "call": "float({}({}))",
    **{op: f"{{}} {op} {{}}" for op in ("+", "-", "*", "/", "<", "<=", ">", ">=")},
    **{name: f"{name}({{}})" for name in FUNCTIONS},
}
_LONGEST = 160  # a longer expression gets a name: for readers, and Python nests 200 at most
_CLOSED = {"floor", "search", "take", "call", *FUNCTIONS}  # need no brackets around them


class Writer:
    """Collects the lines of the function and the names bound beside it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            n: getattr(math, n) for n in (*FUNCTIONS, "floor", "inf", "nan")
        }
        self.names["bisect_right"] = bisect_right
        self._uses: dict[int, int] = {}
        self._count = 0

    @property
    def source(self) -> str:
        """The text of the function."""
        return "\n".join(self.lines) + "\n"

    def write(self, result: Any) -> None:
        """Write the whole function body for a result."""
        self.line(0, "def value(t):")
        self._count_uses(result)
        self._return(result, {}, 1)

    def assign(self, name: str, result: Any, depth: int, known: dict[int, str]) -> None:
        """Write the lines that give a result a name, within a function of somebody else's.

        `known` maps the ids of nodes to names they have already.
        """
        self._uses = {}  # keys are ids, and the record of an earlier result may be gone
        self._count_uses(result)
        self._assign(name, result, known, depth)

    def _assign(self, name: str, node: Any, known: dict[int, str], depth: int) -> None:
        if isinstance(node, Expr) and node.op == "where":
            condition, then, otherwise = node.args
            self.line(depth, f"if {self._text(condition, known, depth)}:")
            self._assign(name, then, dict(known), depth + 1)
            self.line(depth, "else:")
            self._assign(name, otherwise, dict(known), depth + 1)
        else:
            self.line(depth, f"{name} = {self._text(node, known, depth)}")

    def _count_uses(self, node: Any) -> None:
        if not isinstance(node, Expr):
            return
        seen = self._uses.get(id(node), 0)
        self._uses[id(node)] = seen + 1
        if not seen:
            for arg in node.args:
                self._count_uses(arg)

    def line(self, depth: int, text: str) -> None:
        """Add a line."""
        self.lines.append("    " * depth + text)

    def _fresh(self) -> str:
        self._count += 1
        return f"x{self._count}"

    def _return(self, node: Any, known: dict[int, str], depth: int) -> None:
        if isinstance(node, Expr) and node.op == "where":
            condition, then, otherwise = node.args
            self.line(depth, f"if {self._text(condition, known, depth)}:")
            self._return(then, dict(known), depth + 1)
            self._return(otherwise, known, depth)
        else:
            whole = isinstance(node, Expr) and node.op in ("floor", "search")
            text = self._text(node, known, depth)
            self.line(depth, f"return float({text})" if whole else f"return {text}")

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
        if self._uses[id(node)] == 1 and len(text) < _LONGEST:
            return text
        return self._named(node, text, known, depth)

    def _named(self, node: Expr, text: str, known: dict[int, str], depth: int) -> str:
        name = known[id(node)] = self._fresh()
        self.line(depth, f"{name} = {text}")
        return name

    def _plain(self, node: Expr, known: dict[int, str], depth: int) -> str:
        if node.op == "take" and node.args[1].op != "search":
            table, index = (self._text(a, known, depth) for a in node.args)
            return f"{table}[int({index})]"
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
        name = self._fresh()
        self._assign(name, node, known, depth)
        known[id(node)] = name
        return name

    def bound(self, value: Any) -> str:
        """Bind a value beside the text; give its name."""
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name

    def _constant(self, value: Any) -> str:
        if isinstance(value, float | int):
            number = value if isinstance(value, int) else float(value)  # numpy's repr names numpy
            return repr(number) if math.isfinite(number) else f"({number!r})"
        return self.bound(value)
