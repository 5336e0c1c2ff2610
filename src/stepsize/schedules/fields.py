"""The rules that fields of schedules obey: stated once in the annotation, enforced at construction.

`Annotated[float, Bounds(gt=0)]` is read here, and by Hypothesis and pydantic through the
annotated-types protocol, without importing any of them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints

from stepsize.errors import FieldError
from stepsize.units import UNITS, Time, parse


class Rule(Protocol):
    """Turns what was given for a field into what is stored, or raises `FieldError`."""

    def admit(self, field: str, value: object) -> object:
        """Check and convert."""


def _float(value: Real) -> float:
    """Convert, a whole number beyond all floats to inf."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, slots=True)
class Bounds:
    """A finite real number within limits; stored as a Python float (or int where `whole`)."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    whole: bool = False

    __is_annotated_types_grouped_metadata__: Literal[True] = True

    def __iter__(self) -> Iterator[object]:
        """Speak the annotated-types protocol to whoever has that package and asks."""
        import annotated_types as at  # noqa: PLC0415 (only a consumer that has it calls this)

        for name in ("gt", "ge", "lt", "le"):
            limit = getattr(self, name)
            if limit is not None:
                yield getattr(at, name.capitalize())(limit)

    def admit(self, field: str, value: object) -> float | int:
        """Check a number against the limits; bools and strings are never numbers."""
        if isinstance(value, bool) or not isinstance(value, Real):
            raise FieldError.of(field, self.rule, value, "give a plain number")
        number = _float(value)
        if not math.isfinite(number) or not self._holds(number):
            raise FieldError.of(field, self.rule, value)
        return int(number) if self.whole else number

    def _holds(self, x: float) -> bool:
        return (
            (self.gt is None or x > self.gt)
            and (self.ge is None or x >= self.ge)
            and (self.lt is None or x < self.lt)
            and (self.le is None or x <= self.le)
            and (not self.whole or x == int(x))
        )

    def json_schema(self) -> dict[str, Any]:
        """Give the rule as JSON Schema."""
        names = {
            "gt": "exclusiveMinimum",
            "ge": "minimum",
            "lt": "exclusiveMaximum",
            "le": "maximum",
        }
        given = {names[n]: getattr(self, n) for n in names if getattr(self, n) is not None}
        return {"type": "integer" if self.whole else "number", **given}

    @property
    def rule(self) -> str:
        """The rule in words."""
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        limits = [
            f"{s} {getattr(self, n):g}" for n, s in signs.items() if getattr(self, n) is not None
        ]
        kind = "a whole number" if self.whole else "a finite number"
        return " and ".join([kind, *limits]).replace(" and ", " ", 1)


@dataclass(frozen=True, slots=True)
class LengthRule:
    """A length of time: a number of steps, or a text with a unit that a horizon resolves."""

    signed: bool = False
    zero: bool = False

    def admit(self, field: str, value: object) -> float | Time:
        """Parse the text, refuse what is not finite or not above 0 (unless `signed` or `zero`)."""
        time = parse(value, field)
        amount = time.amount if isinstance(time, Time) else time
        if not math.isfinite(amount):
            cure = "what never ends has no length: Constant(), or leave the field out"
            raise FieldError.of(field, "a finite length of time", value, cure)
        if self.zero and amount < 0:
            raise FieldError.of(field, "a moment >= 0", value)
        if amount <= 0 and not (self.signed or self.zero):
            cure = 'write "rest" for what is left of the run' if amount else "leave the part out"
            raise FieldError.of(field, "a length > 0", value, cure)
        if (self.signed or self.zero) and isinstance(time, Time) and time.unit == "rest":
            raise FieldError.of(
                field, "a length of time", value, "'rest' is for parts of a sequence"
            )
        return time

    def json_schema(self) -> dict[str, Any]:
        """Give the rule as JSON Schema: a number, or a number and a unit as text."""
        if self.signed:
            return {"anyOf": [{"type": "number"}, _text_with_unit("[-+]?")]}
        if self.zero:
            return {"anyOf": [{"type": "number", "minimum": 0}, _text_with_unit("[+]?")]}
        number = {"type": "number", "exclusiveMinimum": 0}
        return {
            "anyOf": [
                number,
                _text_with_unit("[+]?"),
                {"type": "string", "pattern": "^[ \\t]*rest[ \\t]*$"},
            ]
        }


def _text_with_unit(sign: str) -> dict[str, Any]:
    number = r"([0-9]+(_[0-9]+)*[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?"
    units = "|".join(spelling for spellings in UNITS.values() for spelling in spellings)
    return {"type": "string", "pattern": f"^[ \\t]*{sign}{number}[ \\t]*({units})[ \\t]*$"}


class NodeRule:
    """A schedule."""

    def admit(self, field: str, value: object) -> object:
        """Accept a schedule and nothing that merely looks like one."""
        if not hasattr(type(value), "kind"):
            cure = "wrap a plain function as Custom(function), a number as Constant(value=number)"
            raise FieldError.of(field, "a schedule", value, cure)
        return value

    def json_schema(self) -> dict[str, Any]:
        """Refer to what the whole schema has under "node"."""
        return {"$ref": "#/$defs/node"}


class NodesRule:
    """A tuple of at least two schedules."""

    def admit(self, field: str, value: object) -> object:
        """Freeze the sequence and check each element."""
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise FieldError.of(field, "a tuple of schedules", value)
        if len(value) < 2:  # noqa: PLR2004 (a single part needs no node around it)
            raise FieldError.of(field, "at least 2 schedules", value)
        return tuple(NodeRule().admit(f"{field}[{i}]", part) for i, part in enumerate(value))

    def json_schema(self) -> dict[str, Any]:
        """Give the rule as JSON Schema."""
        return {"type": "array", "items": NodeRule().json_schema(), "minItems": 2}


def _ordered(field: str, times: Sequence[float | Time]) -> None:
    amounts = [t.amount if isinstance(t, Time) else t for t in times]
    units = {t.unit if isinstance(t, Time) else "st" for t in times}
    if len(units) == 1 and amounts != sorted(amounts):
        shown = [str(t) if isinstance(t, Time) else t for t in times]
        raise FieldError.of(field, "in ascending order", shown, "sort them")


def _is_pair(row: object) -> bool:
    return isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 2  # noqa: PLR2004


class MomentsRule:
    """A tuple of moments in ascending order; equal ones may repeat."""

    def admit(self, field: str, value: object) -> object:
        """Parse each moment and check the order."""
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise FieldError.of(field, "a tuple of moments", value, "such as (30, 60, 80)")
        moment = LengthRule(zero=True)
        times = tuple(moment.admit(f"{field}[{i}]", x) for i, x in enumerate(value))
        _ordered(field, times)
        return times

    def json_schema(self) -> dict[str, Any]:
        """Give the rule as JSON Schema, which cannot say that they ascend."""
        return {"type": "array", "items": LengthRule(zero=True).json_schema(), "minItems": 1}


class TableRule:
    """A table `{moment: value}` or pairs of them, moments strictly ascending, values >= 0."""

    def admit(self, field: str, value: object) -> object:
        """Freeze the table to a tuple of pairs."""
        rows = list(value.items()) if isinstance(value, Mapping) else value
        if isinstance(rows, str) or not isinstance(rows, Sequence) or not rows:
            raise FieldError.of(
                field, "a table of moments and values", value, "such as {0: 1, 30: 0.1}"
            )
        if not all(map(_is_pair, rows)):
            raise FieldError.of(field, "pairs of a moment and a value", value)
        moment, number = LengthRule(zero=True), Bounds(ge=0)
        times = [moment.admit(f"{field}[{i}] moment", row[0]) for i, row in enumerate(rows)]
        values = [number.admit(f"{field}[{i}] value", row[1]) for i, row in enumerate(rows)]
        _ordered(field, times)
        if len(set(times)) < len(times):
            raise FieldError.of(field, "a table without a repeated moment", value)
        return tuple(zip(times, values, strict=True))

    def json_schema(self) -> dict[str, Any]:
        """Give the rule as JSON Schema: pairs, or an object by moments."""
        value, moment = Bounds(ge=0).json_schema(), LengthRule(zero=True).json_schema()
        pair = {"type": "array", "prefixItems": [moment, value], "items": False, "minItems": 2}
        pairs = {"type": "array", "items": pair, "minItems": 1}
        number = r"^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$"
        names = {"anyOf": [{"pattern": number}, _text_with_unit("[+]?")]}
        by_moment = {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": value,
            "minProperties": 1,
        }
        return {"anyOf": [pairs, by_moment]}


class FunctionRule:
    """Any callable."""

    def admit(self, field: str, value: object) -> object:
        """Accept what can be called."""
        if not callable(value):
            raise FieldError.of(field, "a function of time", value)
        return value

    def json_schema(self) -> dict[str, Any]:
        """Give the rule as JSON Schema: the function's module and name, or a schedule."""
        name = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
        return {"anyOf": [name, {"allOf": [{"type": "object"}, NodeRule().json_schema()]}]}


class FlagRule:
    """True or False."""

    def admit(self, field: str, value: object) -> object:
        """Accept a bool only."""
        if not isinstance(value, bool):
            raise FieldError.of(field, "True or False", value)
        return value

    def json_schema(self) -> dict[str, Any]:
        """Give the rule as JSON Schema."""
        return {"type": "boolean"}


Value = Annotated[float, Bounds(ge=0)]
"""A value or factor that is not negative."""
Positive = Annotated[float, Bounds(gt=0)]
"""A number above 0."""
Fraction01 = Annotated[float, Bounds(gt=0, le=1)]
"""A factor in (0, 1]."""
Count = Annotated[int, Bounds(ge=1, whole=True)]
"""A whole number from 1."""
Length = Annotated[float | str | Time, LengthRule()]
"""A length > 0: a number of steps, or a text with a unit."""
OptionalLength = Length | None
"""A length, or None for what the docstring says."""
Delay = Annotated[float | str | Time, LengthRule(signed=True)]
"""A length of either sign."""
Moments = Annotated[tuple[float | str | Time, ...], MomentsRule()]
"""Moments in ascending order."""
Table = Annotated[
    Mapping[float | str, float] | tuple[tuple[float | str | Time, float], ...], TableRule()
]
"""Moments and values; stored as a tuple of pairs."""
Function = Annotated[Callable[[Any], Any], FunctionRule()]
"""A function of time."""
Flag = Annotated[bool, FlagRule()]
"""True or False."""


def rules_of(cls: type) -> dict[str, tuple[Rule, bool]]:
    """Read the rule of every annotated field of a class, and whether None is admitted beside it."""
    rules: dict[str, tuple[Rule, bool]] = {}
    hints: dict[str, Any] = cls.__annotations__
    if any(isinstance(hint, str) for hint in hints.values()):  # from __future__ import annotations
        hints = get_type_hints(cls, include_extras=True)
    for name, hint in hints.items():
        optional = type(None) in get_args(hint) and get_origin(hint) is not Annotated
        for part in get_args(hint) if optional else (hint,):
            found = [m for m in getattr(part, "__metadata__", ()) if hasattr(m, "admit")]
            if found:
                rules[name] = (found[0], optional)
    return rules
