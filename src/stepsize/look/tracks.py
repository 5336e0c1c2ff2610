"""What a look at schedules looks at: every scheduled value as a function of time, over one run.

A bare schedule, a plan, several to compare and a bound scheduler all become `Track`s, so that
pictures, tables, words, checks and golden files stand on one thing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from stepsize.errors import UnitError
from stepsize.schedules.moments import moments_of
from stepsize.schedules.schedule import Schedule
from stepsize.time import Horizon
from stepsize.units import SECONDS

_FEW = 1 << 16  # values that are not worth the import of numpy


@dataclass(frozen=True, slots=True)
class Track:
    """One scheduled value over a run.

    Attributes:
        key: the hyper-parameter; empty for a bare schedule.
        name: which of several it is: param groups, or one of the schedules compared.
        schedule: as it is written.
        resolved: in plain numbers of its driving unit.
        unit: that unit.
        factor: the schedule as a function of the run's time (`Run.clock`).
        scale: what multiplies it: a group's base value, or 1.
        is_value: whether the product is written to the optimizer, or a factor of what is.
        extra: whether it is no hyper-parameter of an optimizer.
        parts: when each of its parts begins in the run's time, and what it is called.
        ends: when it is over.
        zeros: the param groups whose own value was 0.
    """

    key: str
    name: str
    schedule: Schedule
    resolved: Schedule
    unit: str
    factor: Callable[[float], float]
    scale: float
    is_value: bool
    extra: bool
    parts: tuple[tuple[float, str], ...]
    ends: float
    zeros: tuple[str, ...]

    @property
    def title(self) -> str:
        """The key and the name, as far as there are any."""
        return ", ".join(filter(None, (self.key, self.name)))

    @property
    def value(self) -> Callable[[float], float]:
        """The scheduled value as a function of the run's time."""
        factor, scale = self.factor, self.scale
        return factor if scale == 1.0 else lambda time: scale * factor(time)


@dataclass(frozen=True, slots=True)
class Run:
    """The stretch of training that is looked at.

    Attributes:
        horizon: how long training is, as given.
        clock: "st" (optimizer steps), or "s" where all is written in wall-clock time.
        total: how long it is, in the clock's unit.
        seconds_per_step: the rate between the two, where it was given.
        shift: how many steps the horizon's conversion is ahead of the clock.
        tracks: every scheduled value.
    """

    horizon: Horizon
    clock: str
    total: float
    seconds_per_step: float | None
    shift: float
    tracks: tuple[Track, ...]

    @property
    def whole(self) -> bool:
        """Whether time comes in whole steps."""
        return self.clock == "st"

    @property
    def last(self) -> float:
        """The time of the last value that training uses: of step N - 1."""
        return self.total - 1.0 if self.whole else self.total

    def to(self, unit: str, time: float) -> float:
        """Convert a time of the run to a unit: a length unit, or "%" of the run."""
        if unit == "%":
            return 100.0 * time / self.total
        if unit in SECONDS:
            return self._seconds(time) / SECONDS[unit]
        if self.clock == "s":
            raise UnitError(
                f"a run in wall-clock time cannot be shown in '{unit}': "
                "give seconds_per_step=, or show it in hours"
            )
        return time if unit == "st" else self.horizon.position(time + self.shift, unit)

    def position(self, time: float, unit: str) -> float:
        """Convert a time of the run to the unit that drives a schedule."""
        return self._seconds(time) if unit == "s" else self.to(unit, time)

    def time_at(self, position: float, unit: str) -> float:
        """Convert a position in a driving unit to a time of the run."""
        if unit == self.clock or position == math.inf:
            return position
        if unit == "s":
            return position / (self.seconds_per_step or 1.0)
        return self.horizon.step_at(position, unit) - self.shift

    def moments(self, track: Track) -> list[float]:
        """Give the times at which a track may jump or bend."""
        until = self.position(self.total, track.unit) * (1.0 + 1e-12)
        found = (self.time_at(m, track.unit) for m in moments_of(track.resolved, until))
        return sorted(time for time in found if 0.0 < time < self.total)

    def factors(self, track: Track, begin: int, end: int) -> list[float]:
        """Give the factors of every step from `begin` up to `end`."""
        if end - begin > _FEW and track.unit == "st":
            found: list[float] = track.resolved.curve(end - begin, start=begin).tolist()
            return found
        return [track.factor(float(step)) for step in range(begin, end)]

    def _seconds(self, time: float) -> float:
        if self.clock == "s":
            return time
        if self.seconds_per_step is None:
            raise UnitError("steps cannot be shown in wall-clock time: give seconds_per_step=")
        return time * self.seconds_per_step
