"""The rules of controllers' fields that schedules have no use for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds, LengthRule
from stepsize.units import Time


@dataclass(frozen=True, slots=True)
class ChoiceRule:
    """One of a few words."""

    words: tuple[str, ...]

    def admit(self, field: str, value: object) -> object:
        """Accept the words as they are."""
        if not isinstance(value, str) or value not in self.words:
            raise FieldError.of(field, f"one of {', '.join(map(repr, self.words))}", value)
        return value


@dataclass(frozen=True, slots=True)
class FloorRule:
    """One number for all param groups, or a number for each by its name or index."""

    number: Bounds

    def admit(self, field: str, value: object) -> object:
        """Check each number; pairs, as files hold them, become a mapping."""
        if not isinstance(value, Mapping | Sequence) or isinstance(value, str):
            return self.number.admit(field, value)
        rows = list(value.items()) if isinstance(value, Mapping) else list(value)
        if not rows or not all(isinstance(r, Sequence) and len(r) == 2 for r in rows):  # noqa: PLR2004 (a pair)
            raise FieldError.of(field, "a number, or numbers by group", value, "such as {0: 0.1}")
        return {_group(field, name): self.number.admit(f"{field}[{name!r}]", x) for name, x in rows}


def _group(field: str, name: object) -> str | int:
    if isinstance(name, str) and name:
        return name
    if isinstance(name, int) and not isinstance(name, bool) and name >= 0:
        return name
    raise FieldError.of(field, "by group names or indices from 0", name)


class KeysRule:
    """Names of hyper-parameters."""

    def admit(self, field: str, value: object) -> object:
        """Freeze the names to a tuple; a text is one name."""
        keys = (value,) if isinstance(value, str) else value
        if (
            not isinstance(keys, tuple | list)
            or not all(isinstance(key, str) and key for key in keys)
            or not 0 < len(set(keys)) == len(keys)
        ):
            raise FieldError.of(field, "different names of hyper-parameters", value, "('lr',)")
        return tuple(keys)


Groups = float | Mapping[str | int, float]
Sees = Annotated[Literal["metric", "loss"], ChoiceRule(("metric", "loss"))]
"""What a controller looks at."""
Moment = Annotated[float | str | Time, LengthRule(zero=True)]
"""A moment >= 0: a number of steps, or a text with a unit."""
Keys = Annotated[tuple[str, ...], KeysRule()]
"""Names of hyper-parameters."""
RatioFloor = Annotated[Groups, FloorRule(Bounds(ge=0, le=1))]
"""A factor in [0, 1], for all groups or by group."""
ValueFloor = Annotated[Groups, FloorRule(Bounds(ge=0))]
"""A value >= 0, for all groups or by group."""
Shrink = Annotated[float, Bounds(gt=0, lt=1)]
"""A factor in (0, 1), which makes smaller."""
Whole = Annotated[int, Bounds(ge=0, whole=True)]
"""A whole number from 0."""
