"""Schedules made of schedules."""

import math
from typing import Annotated, Any, ClassVar

from stepsize.errors import FieldError, UnitError
from stepsize.schedules.cycles import growing_starts, lap_start, laps, ratio, since_lap
from stepsize.schedules.fields import (
    Bounds,
    Count,
    Delay,
    Flag,
    Fraction01,
    Function,
    Length,
    NodeRule,
    NodesRule,
    OptionalLength,
    Positive,
    Table,
    Value,
)
from stepsize.schedules.formula import Names
from stepsize.schedules.schedule import Schedule, code, schedule
from stepsize.schedules.walk import (
    Clock,
    PlainClock,
    leaves_rest,
    quantized,
    settled,
    settled_parts,
    units_of,
)
from stepsize.units import REST, Time, number_text, plain

Node = Annotated[Schedule, NodeRule()]
Nodes = Annotated[tuple[Schedule, ...], NodesRule()]


def _flat(cls: type[Schedule], field: str, nodes: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
    return tuple(p for n in nodes for p in (getattr(n, field) if isinstance(n, cls) else (n,)))


@schedule
class Sequence(Schedule):
    """One part after the other, each in its own time: `a >> b >> c`.

    At the boundary the next part begins. Every part but the last must end; at most one may take the
    "rest" of the horizon. The parts are all factors or all absolute.

    Source: torch SequentialLR and optax join_schedules, whose boundaries are the parts' own lengths
    here.

    >>> (Linear(10, start=0.1, stop=1.0) >> Cosine(90))(55)
    0.5
    """

    kind: ClassVar[str] = "sequence"
    parts: Nodes

    def _check(self) -> None:
        object.__setattr__(self, "parts", _flat(Sequence, "parts", self.parts))
        for i, part in enumerate(self.parts[:-1]):
            if _lasts(part) == math.inf:
                cure = 'give it a length, such as Constant("rest") or schedule.cut("30ep")'
                raise FieldError.of(f"Sequence.parts[{i}]", "a part that ends", part, cure)
        if sum(map(leaves_rest, self.parts)) > 1:
            cure = "give all parts but one a length"
            raise FieldError.of(
                "Sequence.parts", 'parts of which one at most is "rest"', self, cure
            )
        if len({part.is_absolute for part in self.parts}) > 1:
            cure = "put .absolute(peak) around the whole sequence or around every part"
            raise FieldError.of("Sequence.parts", "all factors or all absolute", self, cure)

    def _settled(self, settle: Any, clock: Clock, room: float | None, at: float) -> Schedule | None:
        del settle
        parts = settled_parts(self.parts, clock, room, at)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    @property
    def starts(self) -> tuple[float, ...]:
        """When each part begins."""
        starts = [0.0]
        for part in self.parts[:-1]:
            starts.append(starts[-1] + part.duration)
        return tuple(starts)

    @property
    def duration(self) -> float:
        """The sum of the parts' durations."""
        return self.starts[-1] + self.parts[-1].duration

    @property
    def range(self) -> tuple[float, float]:
        """From the lowest of the parts to the highest."""
        lows, highs = zip(*(part.range for part in self.parts), strict=True)
        return (min(lows), max(highs))

    @property
    def is_absolute(self) -> bool:
        """As its parts."""
        return self.parts[0].is_absolute

    def _value(self, t: Any, xp: Names) -> Any:
        starts, parts = self.starts, self.parts

        def pick(first: int, last: int) -> Any:
            if first == last:
                start = starts[first]
                return parts[first]._value(t - start if start else t, xp)  # noqa: SLF001 (a node and its parts)
            middle = (first + last + 1) // 2
            return xp.choose(
                t < starts[middle], lambda: pick(first, middle - 1), lambda: pick(middle, last)
            )

        return pick(0, len(parts) - 1)

    def _code(self) -> str:
        return " >> ".join(map(code, self.parts))


def _lasts(part: Schedule) -> float | None:
    """Give a duration, None for one that needs a horizon."""
    try:
        return part.duration
    except UnitError:
        return None


@schedule
class Product(Schedule):
    """Several schedules multiplied: `a * b`; at most one of them absolute.

    It ends when the last factor has ended; never, if one is endless.

    Source: torch ChainedScheduler, without its dependence on the optimizer's present value.

    >>> (Linear(100) * Step(50, factor=0.5))(50)
    0.25
    """

    kind: ClassVar[str] = "product"
    factors: Nodes

    def _check(self) -> None:
        object.__setattr__(self, "factors", _flat(Product, "factors", self.factors))
        if sum(factor.is_absolute for factor in self.factors) > 1:
            cure = "make one of them a factor"
            raise FieldError.of(
                "Product.factors", "schedules of which one at most is absolute", self, cure
            )

    @property
    def duration(self) -> float:
        """The longest of the factors'."""
        return max(factor.duration for factor in self.factors)

    @property
    def range(self) -> tuple[float, float]:
        """The product of the lowest and of the highest values (cautious)."""
        lows, highs = zip(*(factor.range for factor in self.factors), strict=True)
        return (math.prod(lows), 0.0 if 0.0 in highs else math.prod(highs))

    @property
    def is_absolute(self) -> bool:
        """Whether one factor is."""
        return any(factor.is_absolute for factor in self.factors)

    def _value(self, t: Any, xp: Names) -> Any:
        result = self.factors[0]._value(t, xp)  # noqa: SLF001 (a node and its parts)
        for factor in self.factors[1:]:
            result = result * factor._value(t, xp)  # noqa: SLF001
        return result

    def _code(self) -> str:
        first, *others = self.factors
        texts = [f"({code(first)})" if isinstance(first, Sequence) else code(first)]
        closed = (Sequence, Product, Scaled)
        texts += [f"({code(f)})" if isinstance(f, closed) else code(f) for f in others]
        return " * ".join(texts)


class Wrapper(Schedule):
    """A schedule made of one other, `of`; what it does not say is as there."""

    __slots__ = ()
    of: Node

    @property
    def duration(self) -> float:
        """That of `of`."""
        return self.of.duration

    @property
    def range(self) -> tuple[float, float]:
        """That of `of`."""
        return self.of.range

    @property
    def is_absolute(self) -> bool:
        """As `of`."""
        return self.of.is_absolute


@schedule
class Scaled(Wrapper):
    """A schedule times a number: `0.5 * a`.

    Source: elementary.

    >>> (0.5 * Linear(100))(50)
    0.25
    """

    kind: ClassVar[str] = "scaled"
    of: Node
    by: Value

    @property
    def range(self) -> tuple[float, float]:
        """That of `of`, times `by`."""
        low, high = self.of.range
        return (low * self.by, high * self.by if self.by else 0.0)

    def _value(self, t: Any, xp: Names) -> Any:
        return self.by * self.of._value(t, xp)  # noqa: SLF001 (a node and its part)

    def _code(self) -> str:
        inner = code(self.of)
        closed = isinstance(self.of, Sequence | Product | Scaled)
        return f"{number_text(self.by)} * {f'({inner})' if closed else inner}"


@schedule
class Absolute(Wrapper):
    """Values, not factors: `peak` times the schedule, written to the optimizer as it is.

    Source: the difference between torch's multipliers and optax's absolute schedules, made a type.

    >>> Cosine(100).absolute(3e-4)(50)
    0.00015
    """

    kind: ClassVar[str] = "absolute"
    of: Node
    peak: Positive = 1.0

    def _check(self) -> None:
        if self.of.is_absolute:
            cure = "scale it with a number instead"
            raise FieldError.of("Absolute.of", "a factor, not absolute already", self.of, cure)

    @property
    def range(self) -> tuple[float, float]:
        """That of `of`, times `peak`."""
        low, high = self.of.range
        return (low * self.peak, high * self.peak)

    @property
    def is_absolute(self) -> bool:
        """Yes."""
        return True

    def _value(self, t: Any, xp: Names) -> Any:
        return self.peak * self.of._value(t, xp)  # noqa: SLF001 (a node and its part)


@schedule
class Between(Wrapper):
    """Maps 0..1 of a schedule linearly onto low..high: `low + (high - low) * of(t)`.

    `s.between(0.1)` keeps a tenth of the base value, in every param group.

    Source: Keras CosineDecayRestarts' `alpha`, torch CyclicLR's `base_lr` and `max_lr`.

    >>> Cosine(100).between(0.1)(100), Step(1, factor=0.5).between(0.5, 1.0)(1)
    (0.1, 0.75)
    """

    kind: ClassVar[str] = "between"
    of: Node
    low: Value
    high: Value = 1.0

    def _check(self) -> None:
        if self.range[0] < 0.0:
            cure = "clip it to 1 first"
            raise FieldError.of("Between.of", "at most 1 where high < low", self.of, cure)

    @property
    def range(self) -> tuple[float, float]:
        """That of `of`, mapped."""
        slope = self.high - self.low
        ends = [self.low + (slope * x if slope else 0.0) for x in self.of.range]
        return (min(ends), max(ends))

    def _value(self, t: Any, xp: Names) -> Any:
        inner = self.of._value(t, xp)  # noqa: SLF001 (a node and its part)
        return self.low + (self.high - self.low) * inner


@schedule
class Clipped(Wrapper):
    """Cuts values off below `low` and above `high` (None: no limit).

    Source: elementary.

    >>> PowerLaw(1).clipped(low=0.25)(9), Linear(4, start=0.0, stop=1.0).clipped(high=0.5)(3)
    (0.25, 0.5)
    """

    kind: ClassVar[str] = "clipped"
    of: Node
    low: Value = 0.0
    high: Annotated[float, Bounds(gt=0)] | None = None

    def _check(self) -> None:
        if self.high is not None and self.high < self.low:
            raise FieldError.of("Clipped.high", f"at least low ({self.low:g})", self.high)

    @property
    def range(self) -> tuple[float, float]:
        """That of `of`, within the limits."""
        high = math.inf if self.high is None else self.high
        low, top = (min(max(x, self.low), high) for x in self.of.range)
        return (low, top)

    def _value(self, t: Any, xp: Names) -> Any:
        high = math.inf if self.high is None else self.high
        return xp.clip(self.of._value(t, xp), self.low, high)  # noqa: SLF001 (a node and its part)


@schedule
class Cut(Wrapper):
    """The first `over` of a schedule, which then holds its value: an end for an endless one.

    Source: elementary; the implied cut of torch SequentialLR's milestones.

    >>> (Exponential(0.5, every=10).cut(20) >> Linear(10, start=0.25))(25), Step(3).cut(5)(100)
    (0.125, 0.1)
    """

    kind: ClassVar[str] = "cut"
    of: Node
    over: Length = REST

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

    Source: the second seed, section 4: formula, stepping unit and horizon.

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
    of: Node
    by: Positive

    @property
    def duration(self) -> float:
        """That of `of`, times `by`."""
        return self.of.duration * self.by

    def _quantized(self, quantum: float) -> Schedule | None:
        return Stretched(quantized(self.of, quantum / self.by), self.by)

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
    of: Node
    by: Delay

    @property
    def duration(self) -> float:
        """That of `of`, plus `by`, at least 0."""
        return max(self.of.duration + plain(self.by, "Shifted.by"), 0.0)

    def _value(self, t: Any, xp: Names) -> Any:
        x = xp.clip(t, 0.0, math.inf)  # first, so that nothing moves before 0
        return self.of._value(x - plain(self.by, "Shifted.by"), xp)  # noqa: SLF001 (a node and its part)


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
    of: Node
    every: OptionalLength = None
    times: Count | None = None
    growth: Annotated[float, Bounds(ge=1)] = 1.0
    factor: Fraction01 = 1.0

    def _check(self) -> None:
        if self.every is None and _lasts(self.of) in (0.0, math.inf):
            cure = 'give every=, such as every="10ep"'
            raise FieldError.of("Repeated.of", "a schedule that takes time and ends", self.of, cure)
        if isinstance(self.every, float) and units_of(self.of) == {"rest"}:
            object.__setattr__(self, "of", settled(self.of, PlainClock(), self.every))

    def _room(self) -> float | str | Time | None:
        return self.every

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
