"""Schedules from the text that `repr` writes, read from its syntax tree: nothing is evaluated.

The text may call families by their class names, recipes, `Plan` and the composing methods, join
with `>>` and `*`, and reckon with plain numbers. Every other piece of Python is refused.
"""

import ast
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final

from stepsize.errors import SpecError, StepsizeError
from stepsize.files.literals import constant, is_number, reckoned
from stepsize.files.source_text import SourceText
from stepsize.schedules import recipes
from stepsize.schedules.combine import Sequence
from stepsize.schedules.fields import FunctionRule
from stepsize.schedules.names import (
    Trusted,
    by_class,
    class_names,
    nearest,
    shown,
    trusted,
    trusted_function,
)
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule

METHODS: Final = {
    Schedule: ("absolute", "between", "clipped", "cut", "held", "repeated", "shifted", "stretched"),
    Plan: ("renamed", "replaced"),
}
_LONGEST: Final = 100_000


def parse(text: str, *, trust: Iterable[str] = ()) -> Schedule | Plan:
    """Read the text of a schedule or a plan, as `repr` writes it.

    Args:
        text: such as `Warmup("5%") >> Cosine(stop=0.1)`; a user's function is `Custom("my:decay")`.
        trust: names of packages whose functions and families may be used; nothing else is imported.

    Raises:
        SpecError: for any other text, with the column.

    >>> parse("Warmup('5%') >> Cosine(5000 - 1000)"), parse("3e-4 * wsd()")
    (Warmup('5%') >> Cosine(4000), 0.0003 * (Warmup('5%') >> Constant('rest') >> Linear('20%')))
    """
    if not isinstance(text, str):
        raise SpecError(f"an expression is a text, got {shown(text)}")
    if len(text) > _LONGEST:
        limit = f"an expression has at most {_LONGEST} characters"
        raise SpecError(f"{limit}, got {len(text)}; a file may be longer")
    try:
        return _Reader(SourceText(text), trusted(trust)).whole()
    except (RecursionError, MemoryError):
        raise SpecError("the expression is nested too deeply for a schedule") from None


class _Reader:
    """Reads one text."""

    def __init__(self, text: SourceText, packages: Trusted) -> None:
        self._text, self._packages = text, packages
        self._recipes = recipes_by_name()

    def whole(self) -> Schedule | Plan:
        tree = self._text.tree()
        value = self._value(tree)
        if not isinstance(value, Schedule | Plan):
            given = f"{self._text.of(tree)}{_call_it(value)}"
            raise self._text.wrong(tree, f"expected a schedule or a Plan, got {given}")
        return value

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return constant(self._text, node)
            case ast.Name():
                return self._class(node)
            case ast.Call():
                return self._call(node)
            case ast.Subscript():
                return self._item(node)
            case ast.UnaryOp() | ast.BinOp():
                return self._operation(node)
            case ast.Tuple() | ast.List() | ast.Dict():
                return self._collection(node)
        raise self._text.refused(node)

    def _collection(self, node: ast.Tuple | ast.List | ast.Dict) -> Any:
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(map(self._value, node.elts))
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if not isinstance(key, ast.Constant):
                raise self._text.refused(key or value, "the keys of a table are numbers and texts")
            name = constant(self._text, key)
            if name in found:
                raise self._text.wrong(key, f"the table has {self._text.of(key)} twice")
            found[name] = self._value(value)
        return found

    def _operation(self, node: ast.UnaryOp | ast.BinOp) -> Any:
        if isinstance(node, ast.UnaryOp):
            operand = self._value(node.operand)
            if isinstance(node.op, ast.USub) and is_number(operand):
                return -operand
            raise self._text.refused(node)
        if isinstance(node.op, ast.RShift):
            return self._sequence(node)
        left, right = self._value(node.left), self._value(node.right)
        if is_number(left) and is_number(right):
            return reckoned(self._text, node, left, right)
        if not isinstance(node.op, ast.Mult) or not _multiply(left, right):
            raise self._text.refused(
                node, "schedules are joined by >> and *, and scaled by numbers"
            )
        return self._made(node, lambda: left * right)

    def _sequence(self, node: ast.BinOp) -> Any:
        """Join a chain of `>>` at once: one by one, each join would check again all before it."""
        nodes: list[ast.expr] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, ast.RShift):
            nodes.append(left.right)
            left = left.left
        parts = tuple(map(self._part, reversed([*nodes, left])))
        return self._made(node, Sequence, parts)

    def _part(self, node: ast.expr) -> Schedule:
        value = self._value(node)
        if not isinstance(value, Schedule):
            given = f"{self._text.of(node)}{_call_it(value)}"
            raise self._text.wrong(node, f">> joins schedules, got {given}")
        return value

    # Names and calls ----------------------------------------------------------------------------

    def _class(self, node: ast.Name) -> type[Schedule]:
        cls = by_class(node.id, self._packages)
        if cls is None and node.id in self._callable():
            raise self._text.wrong(node, f"{node.id} is to be called: write {node.id}(...)")
        return cls or self._unknown(node)

    def _callable(self) -> dict[str, Callable[..., Any]]:
        return {**self._recipes, "Plan": Plan}

    def _unknown(self, node: ast.Name) -> Any:
        near = nearest(node.id, (*class_names(), *self._callable()))
        raise self._text.wrong(node, f"unknown name {shown(node.id)}{near}")

    def _call(self, node: ast.Call) -> Any:
        target = self._target(node.func)
        bound = self._bound(node, target)
        for name, given in bound.arguments.items():
            bound.arguments[name] = self._argument(target, name, given)
        return self._made(node, target, *bound.args, **bound.kwargs)

    def _target(self, node: ast.expr) -> Callable[..., Any]:
        if isinstance(node, ast.Attribute):
            return self._method(node)
        if not isinstance(node, ast.Name):
            raise self._text.refused(node)
        return (
            by_class(node.id, self._packages)
            or self._callable().get(node.id)
            or self._unknown(node)
        )

    def _method(self, node: ast.Attribute) -> Callable[..., Any]:
        value = self._value(node.value)
        known = next((names for cls, names in METHODS.items() if isinstance(value, cls)), ())
        if node.attr not in known:
            near = nearest(node.attr, known) or _call_it(value)
            owner = self._text.of(node.value)
            raise self._text.wrong(node, f"{owner} has no method {shown(node.attr)}{near}")
        method: Callable[..., Any] = getattr(value, node.attr)
        return method

    def _bound(self, node: ast.Call, target: Callable[..., Any]) -> Any:
        """Tell which argument goes where, before any is read."""
        signature = inspect.signature(target)
        any_name = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        fields: dict[str, ast.expr] = {}
        for each in node.keywords:
            if each.arg is None or each.arg in fields:
                raise self._text.refused(each, "every argument is named once")
            if each.arg not in signature.parameters and not any_name:
                near = nearest(each.arg, signature.parameters)
                message = f"{target.__name__} has no argument {shown(each.arg)}{near}"
                raise self._text.wrong(each, message)
            fields[each.arg] = each.value
        try:
            return signature.bind(*node.args, **fields)
        except TypeError as error:
            raise self._text.wrong(node, f"{target.__name__}: {error}") from None

    def _argument(self, target: Callable[..., Any], name: str, given: Any) -> Any:
        if isinstance(given, dict):  # the schedules of a Plan
            return {key: self._value(each) for key, each in given.items()}
        rule, _ = getattr(target, "_rules", {}).get(name, (None, None))
        return self._function(given) if isinstance(rule, FunctionRule) else self._value(given)

    def _function(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self._made(node, trusted_function, node.value, self._packages)
        if isinstance(node, ast.Name | ast.Attribute | ast.Lambda):
            cure = "write Custom('module:function') and name the module's package in trust=(...)"
            raise self._text.wrong(
                node, f"{self._text.of(node)} is a function, which is code: {cure}"
            )
        return self._value(node)

    def _item(self, node: ast.Subscript) -> Schedule:
        whole, key = self._value(node.value), node.slice
        if not isinstance(whole, Plan) or not isinstance(key, ast.Constant):
            raise self._text.refused(node)
        if not isinstance(key.value, str) or key.value not in whole:
            near = nearest(key.value, whole)
            raise self._text.wrong(
                key, f"the Plan has {', '.join(whole)}, not {self._text.of(key)}{near}"
            )
        return whole[key.value]

    def _made(
        self, node: ast.expr, make: Callable[..., Any], *args: object, **fields: object
    ) -> Any:
        try:
            return make(*args, **fields)
        except StepsizeError as error:
            raise self._text.wrong(node, str(error)) from error
        except (ArithmeticError, TypeError, ValueError) as error:  # a recipe uses what it is given
            raise self._text.wrong(node, f"{self._text.of(node)}: {error}") from error


def recipes_by_name() -> dict[str, Callable[..., Any]]:
    """Every recipe by its name."""
    return {name: each for name, each in vars(recipes).items() if _is_recipe(each)}


def _is_recipe(value: Any) -> bool:
    own = getattr(value, "__module__", None) == recipes.__name__
    return own and hasattr(value, "__code__") and not value.__name__.startswith("_")


def _multiply(left: object, right: object) -> bool:
    schedules = isinstance(left, Schedule), isinstance(right, Schedule)
    return any(schedules) and (all(schedules) or is_number(left) or is_number(right))


def _call_it(value: object) -> str:
    return f": write {value.__name__}()" if isinstance(value, type) else ""
