"""Where a run is when its plan changes, and what its schedules were until then."""

import math
from dataclasses import dataclass
from typing import Any

from stepsize.errors import FieldError
from stepsize.schedules.combine import Sequence
from stepsize.schedules.fields import LengthRule, MomentsRule, TableRule
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.walk import (
    over_children,
    rebuilt,
    units_of,
)
from stepsize.time import Horizon, HorizonClock, driving_unit, resolve
from stepsize.units import REST, Time


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a run is when its plan changes: optimizer steps, and the horizon it had until now.

    Args:
        step: optimizer steps completed.
        horizon: as it is before the edit; None: every schedule is in plain numbers of steps.
        shift: steps by which the horizon's map of samples and tokens is ahead.
        seconds: training time, for schedules over wall-clock time.
    """

    step: float
    horizon: Horizon | None = None
    shift: float = 0.0
    seconds: float = 0.0

    def clock(self, schedule: Schedule) -> HorizonClock:
        """Give what turns lengths into the unit that drives a schedule."""
        horizon = Horizon() if self.horizon is None else self.horizon
        return HorizonClock(horizon, driving_unit(schedule, horizon))

    def room(self, schedule: Schedule) -> float | None:
        """Give the whole length of the run in the unit that drives a schedule, if it is known."""
        clock = self.clock(schedule)
        return None if clock.horizon.total is None else clock.total("rest")

    def at(self, schedule: Schedule) -> float:
        """Give the position in the unit that drives a schedule."""
        clock = self.clock(schedule)
        if clock.unit == "s":
            return self.seconds
        step = self.step if clock.unit == "st" else self.step + self.shift
        return clock.horizon.position(step, clock.unit)

    def tree(self, schedule: Schedule) -> Schedule:
        """Give a schedule in plain numbers, as far as its end is known."""
        return schedule if self.horizon is None else resolve(schedule, self.horizon)

    def value(self, schedule: Schedule) -> float:
        """Give a schedule's value now."""
        return float(self.tree(schedule)(self.at(schedule)))

    def ended(self, schedule: Schedule) -> bool:
        """Tell whether a schedule that ends with the horizon has done so."""
        ends = units_of(schedule) & {"%", "rest"}
        return bool(ends) and self.tree(schedule).duration <= self.at(schedule)

    def length(self, over: float | Time, schedule: Schedule, field: str) -> float:
        """Give a length from now on in the unit that drives a schedule, in whole steps."""
        clock, at = self.clock(schedule), self.at(schedule)
        total = clock.total(field) if over == REST else self.room(schedule)
        left = math.inf if total is None else total - at
        asked = left if over == REST else clock.number(over, field, at)
        if left <= 0 or asked > left * (1 + 1e-9):
            unit = "steps" if clock.unit == "st" else clock.unit
            rule = f"at most what is left of the run ({left:g} {unit})"
            cure = 'write over="rest", or extend() the horizon first'
            raise FieldError.of(field, rule, str(over), cure)
        if over == REST or clock.unit == "s":
            return asked
        return max(clock.rounded(at + asked) - at, clock.horizon.position(1, clock.unit))


def past(schedule: Schedule, moment: Moment) -> tuple[Schedule, ...]:
    """Give what a schedule was until now, as parts that end now; none at the start."""
    tree, at, unit = moment.tree(schedule), moment.at(schedule), moment.clock(schedule).unit
    if at == 0:
        return ()
    parts = tree.parts if isinstance(tree, Sequence) else (tree,)
    starts = tree.starts if isinstance(tree, Sequence) else (0.0,)
    kept = [(part, start) for part, start in zip(parts, starts, strict=True) if start < at]
    last, start = kept.pop()
    done = [written(part, unit) for part, _ in kept]
    return (*done, written(_ending(last, at - start), unit))


def _ending(part: Schedule, length: float) -> Schedule:
    return part if part.duration == length else part.cut(length)


def written(tree: Schedule, unit: str) -> Schedule:
    """Write the plain numbers of a tree as lengths in the unit they are in."""
    if unit == "st":
        return tree
    rules: dict[str, Any] = type(tree)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)

    def change(name: str, value: Any) -> Any:
        rule = rules[name][0] if name in rules else None
        if isinstance(rule, LengthRule):
            return in_unit(value, unit)
        if isinstance(rule, MomentsRule):
            return tuple(in_unit(moment, unit) for moment in value)
        if isinstance(rule, TableRule):
            return tuple((in_unit(moment, unit), level) for moment, level in value)
        return over_children(value, lambda child: written(child, unit))

    return rebuilt(tree, change)


def in_unit(value: Any, unit: str) -> Any:
    """Give a plain number as a length in a unit."""
    return Time(value, unit) if isinstance(value, float) and unit != "st" else value


def joined(parts: tuple[Schedule, ...]) -> Schedule:
    """Give parts as one schedule."""
    return parts[0] if len(parts) == 1 else Sequence(parts)
