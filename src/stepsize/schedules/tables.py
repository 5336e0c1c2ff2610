"""Schedules from what a user has: a table of values, or a function."""

import math
from typing import Any, ClassVar

from stepsize.schedules.fields import (
    Flag,
    Function,
    OptionalLength,
    Table,
)
from stepsize.schedules.formula import Names
from stepsize.schedules.schedule import Schedule, schedule
from stepsize.units import Time, plain


@schedule
class Piecewise(Schedule):
    """A table of moments and values: constant between them, or straight lines if `linear`.

    Before the first moment it holds the first value, after the last moment the last. A value takes
    effect at its moment. Moments are steps or texts with units.

    Source: Keras PiecewiseConstantDecay (which switches one step later), optax piecewise schedules.

    >>> table = Piecewise({0: 1.0, 30: 0.1})
    >>> table(29), table(30), Piecewise({0: 0.0, 10: 1.0, 20: 0.5}, linear=True)(15)
    (1.0, 0.1, 0.75)
    """

    kind: ClassVar[str] = "piecewise"
    points: Table
    linear: Flag = False

    @property
    def duration(self) -> float:
        """The last moment if linear (at least 0); endless otherwise."""
        return max(self._table()[0][-1], 0.0) if self.linear else math.inf

    @property
    def range(self) -> tuple[float, float]:
        """From the lowest value of the table to the highest."""
        rows: tuple[tuple[Any, float], ...] = tuple(self.points)  # type: ignore[arg-type]  # stored as pairs
        values = [value for _, value in rows]
        return (min(values), max(values))

    def _table(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        rows: tuple[tuple[float | Time, float], ...] = tuple(self.points)  # type: ignore[arg-type]  # stored as pairs
        return tuple(plain(m, "Piecewise.points") for m, _ in rows), tuple(v for _, v in rows)

    def _value(self, t: Any, xp: Names) -> Any:
        moments, values = self._table()
        if len(values) == 1:
            return values[0]
        number = xp.search(moments[1:], t)
        if not self.linear:
            return xp.take(values, number)
        ends, lasts = (*moments[1:], moments[-1] + 1.0), (*values[1:], values[-1])
        first, end = xp.take(moments, number), xp.take(ends, number)
        x = xp.clip(t, moments[0], moments[-1])
        whole = end - first
        before = xp.take(values, number) * ((end - x) / whole)
        return before + xp.take(lasts, number) * ((x - first) / whole)


@schedule
class Custom(Schedule):
    """A function of time as a schedule; of `over` time, or endless.

    The function gets a float (or an array of torch or jax) that is never below 0 or above `over`
    and returns the factor. It loads from a file only where the caller trusts its package, and it is
    held to nothing: what it returns is used.

    Source: torch LambdaLR.

    >>> Custom(abs, over=10)(3)
    3.0
    """

    kind: ClassVar[str] = "custom"
    function: Function
    over: OptionalLength = None

    @property
    def duration(self) -> float:
        """The field `over`; endless if None."""
        return math.inf if self.over is None else plain(self.over, "Custom.over")

    def _value(self, t: Any, xp: Names) -> Any:
        return xp.call(self.function, xp.clip(t, 0.0, self.duration))
