"""Lengths of training time, as they are written: `1000`, `"12ep"`, `"2e9tok"`, `"5%"`, `"rest"`.

A plain number counts optimizer steps. A unit is written, never guessed from the size of a number:
`1` is one step, `"100%"` is everything.
"""

import math
import re
from dataclasses import dataclass
from numbers import Real
from typing import Final

from stepsize.errors import FieldError, UnitError

SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
UNITS: Final = {
    "st": ("st", "step", "steps"),
    "ep": ("ep", "epoch", "epochs"),
    "samples": ("samples", "sample", "sp"),
    "tok": ("tok", "token", "tokens"),
    "%": ("%", "percent"),
    "s": ("s", "second", "seconds"),
    "min": ("min", "minute", "minutes"),
    "h": ("h", "hour", "hours"),
    "d": ("d", "day", "days"),
}
_UNIT_OF: Final = {spelling: unit for unit, spellings in UNITS.items() for spelling in spellings}
_NUMBER: Final = r"[-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TEXT: Final = re.compile(rf"\s*({_NUMBER})\s*([A-Za-z%]*)\s*")
_HOW: Final = "write 1000, '12ep', '3e6 samples', '2e9tok', '5%', '6h' or 'rest'"


@dataclass(frozen=True, slots=True)
class Time:
    """A length of training time that needs a `Horizon` to become a number of steps.

    `unit` is one of `ep`, `samples`, `tok`, `%` (of the horizon), `s`, `min`, `h`, `d` (wall clock)
    or `rest` (what the other parts of a sequence leave over). Steps are plain numbers instead.

    >>> from stepsize.units import parse
    >>> parse("12 epochs"), str(parse("2e9tok")), parse("1000st")
    (Time(amount=12.0, unit='ep'), '2e9tok', 1000.0)
    """

    amount: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in (*UNITS, "rest") or not isinstance(self.amount, float):
            rule = f"a float and one of the units {', '.join(UNITS)}"
            raise FieldError.of("Time", rule, (self.amount, self.unit), "or parse a text: '12ep'")

    def __str__(self) -> str:
        """Give the shortest text that `parse` reads back as the same time."""
        return "rest" if self.unit == "rest" else f"{number_text(self.amount)}{self.unit}"


REST: Final = Time(1.0, "rest")


def number_text(value: float) -> str:
    """Write a float as a person would, so that it reads back as the same float.

    >>> number_text(1000.0), number_text(2e9), number_text(0.1), number_text(97.75)
    ('1000', '2e9', '0.1', '97.75')
    """
    if not math.isfinite(value) or value != int(value) or abs(value) >= 2.0**53:
        return repr(value)
    digits = str(int(value))
    stripped = digits.rstrip("0")
    zeros = len(digits) - len(stripped)
    return f"{stripped}e{zeros}" if zeros >= 5 else digits  # noqa: PLR2004 (100000 is hard to count)


def unit_named(spelling: str) -> str | None:
    """Give the unit of a spelling; None for one that is not known.

    >>> unit_named("epochs"), unit_named("hours"), unit_named("eons")
    ('ep', 'h', None)
    """
    return _UNIT_OF.get(spelling)


def parse(value: object, field: str = "time") -> float | Time:
    """Read a length of time: a number of steps comes back as a float, anything else as a `Time`.

    Raises `FieldError` where `value` is neither a real number, a `Time` nor a text of the form
    number and unit.
    """
    if isinstance(value, Time):
        return value
    if isinstance(value, str):
        return _parse_text(value, field)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise FieldError.of(field, "a number of steps or a text with a unit", value, _HOW)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _parse_text(text: str, field: str) -> float | Time:
    if text.strip() == "rest":
        return REST
    match = _TEXT.fullmatch(text)
    if match is None:
        raise FieldError.of(field, "a length of time", text, _HOW)
    number, spelling = match.groups()
    if not spelling:
        cure = f"give the number {number} for steps, or add the unit: {_HOW}"
        raise FieldError.of(field, "a number or a text with a unit", text, cure)
    unit = _UNIT_OF.get(spelling)
    if unit is None:
        raise FieldError.of(field, f"in one of the units {', '.join(UNITS)}", text, _HOW)
    amount = float(number)
    return amount if unit == "st" else Time(amount, unit)


def plain(value: float | str | Time, field: str = "a length") -> float:
    """Give a resolved length as a number; raise `UnitError` for one that needs a horizon."""
    if isinstance(value, float):
        return value
    raise UnitError(
        f"{field} is '{value}', which needs a horizon to become a number: "
        "resolve(schedule, Horizon(...)) gives the schedule in plain numbers"
    )
