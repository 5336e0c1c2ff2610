"""Schedules that run another in a time of their own: cut, held, stretched, shifted, resumed ..."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from stepsize.errors import FieldError
from stepsize.schedules.combine import Node, Wrapper, lasts
from stepsize.schedules.cycles import growing_starts, lap_start, laps, ratio, since_lap
from stepsize.schedules.fields import (
    Bounds,
    Count,
    Delay,
    Fraction01,
    Length,
    OptionalLength,
    Positive,
)
from stepsize.schedules.formula import Names
from stepsize.schedules.moments import moments_of, multiples
from stepsize.schedules.schedule import Schedule, schedule
from stepsize.schedules.walk import (
    Clock,
    PlainClock,
    quantized,
    settled,
    units_of,
)
from stepsize.units import Time, plain


@schedule
class Cut(Wrapper):
    """The first `over` of a schedule, which then holds its value: an end for an endless one.

    Source: elementary; the implied cut of torch SequentialLR's milestones.

    >>> (Exponential(0.5, every=10).cut(20) >> Linear(10, start=0.25))(25), Step(3).cut(5)(100)
    (0.125, 0.1)
    """

    kind: ClassVar[str] = "cut"
    of: Node
    over: Length = "rest"

    @property
    def duration(self) -> float:
        """The field `over`."""
        return plain(self.over, "Cut.over")

    def _value(self, t: Any, xp: Names) -> Any:
        return self.of._value(xp.clip(t, 0.0, self.duration), xp)  # noqa: SLF001 (a node and its part)


@schedule
class Held(Wrapper):
    """Changes only every so often: `of` at the last whole multiple of `every`.

    `Held(s, "1ep")` is what calling a scheduler once per epoch means. A warmup inside starts at
    `every/(over + every)`.

    Source: the stepping unit, made a value: a scheduler is a formula, a unit and a horizon.

    >>> Linear(100).held(10)(19), Warmup(4).held(1)(0)
    (0.9, 0.2)
    """

    kind: ClassVar[str] = "held"
    of: Node
    every: Length

    @property
    def duration(self) -> float:
        """That of `of`, rounded up to a whole multiple of `every`."""
        p, q = ratio(plain(self.every, "Held.every"))
        end = self.of.duration
        return end if end == math.inf else float(math.ceil(end * q / p)) * p / q

    def _quantized(self, quantum: float) -> Schedule | None:
        del quantum  # it makes its own jumps
        return self

    def _prepare(self) -> Schedule:
        return quantized(self.of, plain(self.every, "Held.every"))

    def _value(self, t: Any, xp: Names) -> Any:
        every = plain(self.every, "Held.every")
        lap = laps(xp.clip(t, 0.0, math.inf), every, xp)
        return self._prepared._value(lap_start(lap, every), xp)  # noqa: SLF001


@schedule
class Stretched(Wrapper):
    """The same curve, `by` times as long: `of(t / by)`.

    Source: composer's scale schedule ratio.

    >>> Linear(100).stretched(2)(100), Linear(100).stretched(0.1)(5)
    (0.5, 0.5)
    """

    kind: ClassVar[str] = "stretched"
    _own_time: ClassVar[bool] = True
    of: Node
    by: Positive

    @property
    def duration(self) -> float:
        """That of `of`, times `by`."""
        return self.of.duration * self.by

    def _room_inside(self, room: float | None) -> float | None:
        return None if room is None else room / self.by

    def _quantized(self, quantum: float) -> Schedule | None:
        of = quantized(self.of, quantum / self.by)
        return self if of is self.of else Stretched(of, self.by)

    def _moments(self, until: float) -> Iterable[float]:
        inner = (*moments_of(self.of, until / self.by), self.of.duration)
        return (self.by * moment for moment in inner)

    def _prepare(self) -> Schedule:
        return quantized(self.of, 1.0 / self.by)

    def _value(self, t: Any, xp: Names) -> Any:
        p, q = ratio(
            self.by
        )  # as a quotient of whole numbers, (N-1)/N stretches N-1 exactly onto N
        return self._prepared._value(t * q / p, xp)  # noqa: SLF001 (a node and its part)


@schedule
class Shifted(Wrapper):
    """The same curve, later by `by` (earlier if negative): `of(t - by)`.

    Before its start a schedule holds its first value, so a delay holds that.

    Source: elementary; `shifted(-1)` gives the (t+1) conventions.

    >>> Linear(100).shifted(50)(75), Linear(100).shifted(-1)(0)
    (0.75, 0.99)
    """

    kind: ClassVar[str] = "shifted"
    _own_time: ClassVar[bool] = True
    of: Node
    by: Delay

    @property
    def duration(self) -> float:
        """That of `of`, plus `by`, at least 0."""
        return max(self.of.duration + plain(self.by, "Shifted.by"), 0.0)

    def _begins_inside(self, begin: float) -> float | None:
        return begin + plain(self.by, "Shifted.by")

    def _moments(self, until: float) -> Iterable[float]:
        by = plain(self.by, "Shifted.by")
        return (moment + by for moment in (0.0, *moments_of(self.of, until - by)))

    def _settled(self, clock: Clock, room: float | None, at: float) -> Schedule | None:
        given: Any = self.by
        by = clock.number(given, "Shifted.by", at)
        inside = None if room is None else room - by
        return Shifted(settled(self.of, clock, inside, at + by), by)

    def _value(self, t: Any, xp: Names) -> Any:
        x = xp.clip(t, 0.0, math.inf)  # first, so that nothing moves before 0
        return self.of._value(x - plain(self.by, "Shifted.by"), xp)  # noqa: SLF001 (a node and its part)


@schedule
class Resumed(Wrapper):
    """What is left of a schedule after a moment, in a length of its own.

    `of(end - (end - after) * (over - t) / over)` with `end` the duration of `of`: at 0 it is at
    `after`, at `over` exactly at its end. It is what a run that is made longer does with the curve
    it is in: the value goes on from where it is.

    Source: value-continuous extension, as users of torch's schedulers ask for (Lightning 19865).

    >>> half = Resumed(Linear(100), after=50, over=150)
    >>> half(0), half(75), half(150)
    (0.5, 0.25, 0.0)
    """

    kind: ClassVar[str] = "resumed"
    _own_time: ClassVar[bool] = True
    of: Node
    after: Length
    over: Length = "rest"

    def _check(self) -> None:
        end, after = lasts(self.of), self.after
        if end == math.inf:
            raise FieldError.of("Resumed.of", "a schedule that ends", self.of)
        if end is not None and isinstance(after, float) and after >= end:
            raise FieldError.of("Resumed.after", f"before the end ({end:g})", after)

    @property
    def duration(self) -> float:
        """The field `over`."""
        return plain(self.over, "Resumed.over")

    def _room_inside(self, room: float | None) -> None:
        """Leave none: what is left of a curve knows how long it was."""

    def _moments(self, until: float) -> Iterable[float]:
        del until
        end, after = self.of.duration, plain(self.after, "Resumed.after")
        scale = self.duration / (end - after)
        return ((x - after) * scale for x in moments_of(self.of, end) if x > after)

    def _value(self, t: Any, xp: Names) -> Any:
        end, over = self.of.duration, self.duration
        left = end - plain(self.after, "Resumed.after")
        x = over - xp.clip(t, 0.0, over)
        return self.of._value(end - left * (x / over), xp)  # noqa: SLF001 (a node and its part)


@schedule
class Repeated(Wrapper):
    """Starts again and again: warm restarts.

    Cycle n lasts `every * growth**n` (the curve stretches along) and is `factor**n` times as high.
    `every` defaults to the duration of `of`; given, it is also the room that "rest" means inside.
    After `times` cycles (default: endless; with growth below 1.004, 10,000) the last value is held.
    The cycle of a moment is decided by exact comparison with the boundaries, also for periods such
    as 0.1 or 391/3.

    Source: Loshchilov and Hutter 2016 (arXiv 1608.03983); peak decay as Keras' `m_mul` (for a floor
    that does not decay, put `between` outside).

    >>> restarts = Cosine(10).repeated(growth=2)
    >>> [restarts(t) for t in (9.999999, 10, 20, 30, 70)][1:]
    [1.0, 0.5, 1.0, 1.0]
    """

    kind: ClassVar[str] = "repeated"
    _own_time: ClassVar[bool] = True
    of: Node
    every: OptionalLength = None
    times: Count | None = None
    growth: Annotated[float, Bounds(ge=1)] = 1.0
    factor: Fraction01 = 1.0

    def _check(self) -> None:
        if self.every is None and lasts(self.of) in (0.0, math.inf):
            cure = 'give every=, such as every="10ep"'
            raise FieldError.of("Repeated.of", "a schedule that takes time and ends", self.of, cure)
        if isinstance(self.every, float) and units_of(self.of) == {"rest"}:
            object.__setattr__(self, "of", settled(self.of, PlainClock(), self.every))

    def _room(self) -> float | str | Time | None:
        return self.every

    def _room_inside(self, room: float | None) -> float | None:
        if room is None or self.every is not None or self.times is None:
            return room
        return room / math.fsum(self.growth**n for n in range(self.times))

    @property
    def period(self) -> float:
        """The length of the first cycle."""
        every = self.every
        return self.of.duration if every is None else plain(every, "Repeated.every")

    def _prepare(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        if self.growth == 1.0:
            return None
        ends = growing_starts(self.period, self.growth, self.times or 1 << 31)
        return ends, tuple(self.growth**n for n in range(len(ends) - 1))

    def _moments(self, until: float) -> Iterable[float]:
        """Restarts, the end, and the moments inside the last cycles."""
        until, cycles = min(until, self.duration), [(0.0, 1.0)]
        if self.growth == 1.0:
            cycles += [(start, 1.0) for start in multiples(self.period, until)]
        else:
            ends, scales = self._prepared
            cycles += [pair for pair in zip(ends, scales, strict=False) if pair[0] < until]
        yield from (self.duration, *(start for start, _ in cycles))
        for start, scale in cycles[-3:]:
            yield from (start + scale * moment for moment in moments_of(self.of, self.period))

    @property
    def duration(self) -> float:
        """The sum of the cycles; endless without `times`."""
        if self.times is None:
            return math.inf
        p, q = ratio(self.period)
        return p * self.times / q if self.growth == 1.0 else float(self._prepared[0][-1])

    @property
    def range(self) -> tuple[float, float]:
        """That of `of`; down to 0 where cycles shrink."""
        low, high = self.of.range
        return (low if self.factor == 1.0 else 0.0, high)

    def _value(self, t: Any, xp: Names) -> Any:
        x = xp.clip(t, 0.0, self.duration)
        cycle = self._equal if self.growth == 1.0 else self._growing
        number, local = cycle(x, xp)
        value = self.of._value(local, xp)  # noqa: SLF001 (a node and its part)
        return value if self.factor == 1.0 else xp.power(self.factor, number) * value

    def _equal(self, x: Any, xp: Names) -> tuple[Any, Any]:
        last = math.inf if self.times is None else self.times - 1.0
        number = xp.clip(laps(x, self.period, xp), 0.0, last)
        return number, since_lap(x, number, self.period)

    def _growing(self, x: Any, xp: Names) -> tuple[Any, Any]:
        ends, scales = self._prepared
        starts = ends[:-1]
        number = xp.search(starts[1:], x)
        local = (x - xp.take(starts, number)) / xp.take(scales, number)
        return number, local
