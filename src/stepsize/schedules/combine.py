"""Schedules made of schedules."""

import math
from typing import Annotated, Any, ClassVar

from stepsize.errors import FieldError, UnitError
from stepsize.schedules.fields import (
    Bounds,
    NodeRule,
    NodesRule,
    Positive,
    Value,
)
from stepsize.schedules.formula import Names
from stepsize.schedules.schedule import Schedule, code, schedule
from stepsize.schedules.walk import (
    Clock,
    leaves_rest,
    settled_parts,
)
from stepsize.units import number_text

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
            if lasts(part) == math.inf:
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

    def _settled(self, clock: Clock, room: float | None, at: float) -> Schedule | None:
        return Sequence(settled_parts(self.parts, clock, room, at))

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


def lasts(part: Schedule) -> float | None:
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
