"""Numbers, texts and arithmetic in an expression."""

import ast
import math
from typing import Any, TypeGuard

from stepsize.files.source_text import SourceText


def constant(text: SourceText, node: ast.Constant) -> Any:
    """Read a number, a text, True, False or None."""
    if isinstance(node.value, int | float):
        return _finite(text, node, node.value)
    if node.value is None or isinstance(node.value, str):
        return node.value
    raise text.refused(node)


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell a plain number, which a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def reckoned(text: SourceText, node: ast.BinOp, left: float, right: float) -> float:
    """Add, subtract, multiply or divide; a power could take for ever."""
    signs: dict[type, Any] = {
        ast.Add: lambda: left + right,
        ast.Sub: lambda: left - right,
        ast.Mult: lambda: left * right,
        ast.Div: lambda: left / right,
    }
    if type(node.op) not in signs:
        raise text.refused(node, "numbers are joined by + - * and /")
    try:
        result = signs[type(node.op)]()
    except ArithmeticError:
        result = math.nan
    return _finite(text, node, result)


def _finite(text: SourceText, node: ast.expr, value: float) -> float:
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        finite = False
    if not finite:
        raise text.wrong(node, f"{text.of(node)} is no finite number")
    return value
