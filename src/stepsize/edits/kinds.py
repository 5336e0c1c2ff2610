"""The changes of plan as values: frozen, comparable, kept in the journal as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from stepsize.errors import FieldError, MismatchError, SpecError
from stepsize.files.description import from_dict, to_dict
from stepsize.schedules.fields import Bounds, LengthRule
from stepsize.schedules.plan import Plan
from stepsize.schedules.ramps import Ramp
from stepsize.schedules.warmup import ramp_class
from stepsize.units import Time

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CoolDown:
    """From the present value to `to` times it, over a length, along a ramp; held from there on.

    Args:
        over: how long: steps, a text with a unit ("5%" of the horizon), or "rest".
        to: the last value, as a share of the present one.
        along: the ramp that gives the shape, a class or its name.
        keys: the hyper-parameters that cool down.
        why: a remark for the journal.

    >>> CoolDown("5%", along="cosine").along.__name__
    'Cosine'
    """

    kind: ClassVar[str] = "cool_down"
    over: float | str | Time = "rest"
    to: float = 0.0
    along: type[Ramp] | str = "linear"
    keys: tuple[str, ...] = ("lr",)
    why: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", LengthRule().admit("cool_down: over", self.over))
        object.__setattr__(self, "to", float(Bounds(ge=0).admit("cool_down: to", self.to)))
        object.__setattr__(self, "along", ramp_class("cool_down: along", self.along))
        object.__setattr__(self, "keys", _keys("cool_down: keys", self.keys))
        _text("cool_down: why", self.why)
        try:
            self.ramp(1.0, 1.0)
        except FieldError:
            cure = "give a small one above 0, such as to=0.01"
            rule = f"a share that {self.along.__name__} can end at"  # type: ignore[union-attr]  # a class by now
            raise FieldError.of("cool_down: to", rule, self.to, cure) from None

    def ramp(self, over: float | Time, start: float) -> Ramp:
        """Give the ramp from a value on."""
        along: Any = self.along  # stored as a class, which takes these as every ramp does
        made: Ramp = along(over, start=start, stop=start * self.to)
        return made

    def data(self) -> Data:
        """Give it as plain data."""
        along: Any = self.along
        return {
            "over": _plain(self.over),
            "to": self.to,
            "along": along.kind,
            "keys": list(self.keys),
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Extend:
    """The run is to be as long as this; only what lies ahead moves.

    Args:
        total: the new length of the whole run: steps, or a text such as "120ep".
        why: a remark for the journal.
    """

    kind: ClassVar[str] = "extend"
    total: float | str | Time
    why: str = ""

    def __post_init__(self) -> None:
        total = LengthRule().admit("extend: the total", self.total)
        if isinstance(total, Time) and total.unit in ("%", "rest"):
            cure = "give steps, epochs, samples, tokens or hours"
            raise FieldError.of("extend: the total", "a length that stands alone", total, cure)
        object.__setattr__(self, "total", total)
        _text("extend: why", self.why)

    def data(self) -> Data:
        """Give it as plain data."""
        return {"total": _plain(self.total), "why": self.why}


@dataclass(frozen=True, slots=True)
class Replan:
    """Other schedules from now on.

    Args:
        plan: the new schedules by hyper-parameter name.
        over: the length of the linear ramp that joins the present value with the new schedule;
            None: one percent of the horizon (100 steps where it is unknown); 0: jump.
        since: whether the new schedules' time counts from "now" or from the "start" of the run.
        why: a remark for the journal.
    """

    kind: ClassVar[str] = "replan"
    plan: Plan
    over: float | str | Time | None = None
    since: Literal["now", "start"] = "now"
    why: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.plan, Plan):
            raise FieldError.of("replan: the plan", "a Plan", self.plan, "write lr=schedule")
        if self.over is not None:
            over = LengthRule(zero=True).admit("replan: over", self.over)
            object.__setattr__(self, "over", over)
        self._check_loads()
        if self.since not in ("now", "start"):
            raise FieldError.of("replan: since", "'now' or 'start'", self.since)
        _text("replan: why", self.why)

    def _check_loads(self) -> None:
        """Raise `FieldError` for a schedule that a resumed run could not read from the journal."""
        try:
            from_dict(to_dict(self.plan))
        except SpecError as error:
            cure = "the journal holds plain data: use families of this library"
            rule = f"made of families that load by themselves ({error})"
            raise FieldError.of("replan: the plan", rule, self.plan, cure) from None

    def data(self) -> Data:
        """Give it as plain data."""
        over = None if self.over is None else _plain(self.over)
        told = {**to_dict(self.plan), "over": over, "since": self.since, "why": self.why}
        del told["format"]
        return told


Edit = CoolDown | Extend | Replan
WHERE: Final = frozenset({"step", "position", "unit", "seconds"})
"""What a journal says beside an edit: where the run was."""
KINDS: Final = {cls.kind: cls for cls in (CoolDown, Extend, Replan)}


def edit_from(data: Any) -> Edit:
    """Build the edit that plain data describe; `MismatchError` for data of no known edit."""
    given = dict(data) if isinstance(data, Mapping) else {}
    kind = given.pop("kind", None)
    cls: Any = KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        known = ", ".join(sorted(KINDS))
        raise MismatchError(f"an edit is one of {known}, got {kind!r}: update stepsize")
    if "plan" in given:
        given["plan"] = from_dict({"format": 1, "plan": given["plan"]})
    if isinstance(given.get("keys"), list):
        given["keys"] = tuple(given["keys"])
    try:
        made: Edit = cls(**given)
    except TypeError as error:
        raise MismatchError(f"no {kind}: {error}") from None
    return made


def edit_data(edit: Edit) -> Data:
    """Give an edit as plain data that `edit_from` reads back."""
    return {"kind": edit.kind, **edit.data()}


def _plain(length: float | str | Time) -> float | str:
    return str(length) if isinstance(length, Time) else length


def _keys(field: str, given: object) -> tuple[str, ...]:
    keys = (given,) if isinstance(given, str) else given
    if not isinstance(keys, tuple | list) or not keys or not all(isinstance(k, str) for k in keys):
        raise FieldError.of(field, "names of hyper-parameters", given, "such as ('lr',)")
    return tuple(keys)


def _text(field: str, given: object) -> None:
    if not isinstance(given, str):
        raise FieldError.of(field, "a text", given)


__all__ = ["KINDS", "WHERE", "CoolDown", "Edit", "Extend", "Replan", "edit_data", "edit_from"]
