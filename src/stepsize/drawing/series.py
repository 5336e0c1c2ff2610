"""What a picture shows, as values: curves as points, axes with their extents, panels.

Text, SVG and matplotlib draw these; tests compare them, so that no test depends on a font.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from stepsize.errors import FieldError

Point = tuple[float, float]
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # multiples of it fill a stretch evenly and fit no period
_TINY = 1e-300  # where floats lose their digits
_DECADES = 1e-12  # how far below its top an axis by orders of magnitude goes
_COUNTED = 1e9  # steps are told to the last digit up to there
_INSIDE = 14  # looks into a column besides its first and last moment


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a panel: what it counts, from where to where, and whether by orders of magnitude.

    `name` is empty where time is nominal: a schedule that needs a horizon, drawn without one.
    """

    name: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Give where a value lies on the axis: 0 at its low end, 1 at its high end."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        value = max(value, self.low)
        return math.log(value / self.low) / math.log(self.high / self.low)

    def at(self, place: float) -> float:
        """Give the value at a place between 0 and 1."""
        if not self.log:
            return self.low + place * (self.high - self.low)
        return float(self.low * (self.high / self.low) ** place)

    def ticks(self, most: int = 6) -> list[float]:
        """Give round values on the axis."""
        return _decades(self, most) if self.log else _rounds(self, most)


def _rounds(axis: Axis, most: int) -> list[float]:
    rough = (axis.high - axis.low) / most
    if rough < _TINY:
        return [axis.low, axis.high]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [short(i * step, 12) for i in range(first, last + 1)]


def _decades(axis: Axis, most: int) -> list[float]:
    first, last = math.ceil(math.log10(axis.low) - 1e-9), math.floor(math.log10(axis.high) + 1e-9)
    stride = max(1, -(-(last - first + 1) // most))
    found = [10.0**i for i in range(first, last + 1, stride)]
    return found if len(found) > 1 else [axis.low, axis.high]


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: its name, its points on the axes, and where each of its parts begins."""

    name: str
    points: tuple[Point, ...]
    parts: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over the same axes, with a title."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]


def short(value: float, digits: int = 4) -> float:
    """Round to a number of significant digits."""
    return float(f"{value:.{digits}g}")


def spoken(value: float) -> str:
    """Write a number as a person reads it: four digits, whole ones whole, with separators.

    >>> spoken(35190.0), spoken(0.56723), spoken(2e9), spoken(1e-05), spoken(0.0001)
    ('35,190', '0.5672', '2e9', '1e-5', '0.0001')
    """
    if 1e3 <= abs(value) < 1e7 or (value == int(value) and abs(value) < _COUNTED):  # noqa: PLR2004 (digits)
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def listed(texts: Sequence[str], most: int = 6) -> str:
    """Write texts one after the other; of many, the first and how many more.

    >>> listed(["a", "b", "c", "d"], most=3)
    'a, b and 2 more'
    """
    if len(texts) <= most:
        return ", ".join(texts)
    return f"{', '.join(texts[: most - 1])} and {len(texts) - most + 1} more"


def value_axis(name: str, values: Iterable[float], stated: float, *, log: bool) -> Axis:
    """Give the axis for values: from 0, or closer where nothing comes near 0.

    The top is the `stated` one where the values come within half of it, so that a peak between two
    samples still has its place.
    """
    found = [value for value in values if math.isfinite(value)]
    highest = max(found, default=1.0)
    top = (stated if highest <= stated <= 2.0 * highest else highest) or 1.0
    if log and top > _TINY:
        low = min((value for value in found if value > 0.0), default=top / 10.0)
        return Axis(name, max(low, top * _DECADES) if low < top else top / 10.0, top, log=True)
    lowest = min(found, default=0.0)
    near = top / 2.0 < lowest < top * (1.0 - 1e-6)  # a momentum between 0.85 and 0.95
    return Axis(name, lowest - 0.25 * (top - lowest) if near else min(lowest, 0.0), top)


def survey(
    value: Callable[[float], float],
    low: float,
    high: float,
    *,
    whole: bool,
    marks: Iterable[float] = (),
    columns: int = 400,
    log: bool = False,
) -> list[Point]:
    """Look at a function from `low` up to but not including `high`, in order of time.

    Every whole moment where there are few; else, in each of the `columns`, the first, the last and
    some between that no period can hide from. `marks` are looked at too, and just before them.
    `whole` keeps to whole numbers: a run has no half steps.
    """
    edges = Axis("", max(low, 1e-9) if log else low, high, log=log)
    moments = {m for mark in marks for m in _beside(mark, whole=whole) if low <= m < high}
    for i in range(columns):
        moments.update(_inside(edges.at(i / columns), edges.at((i + 1) / columns), whole=whole))
    return finite([(t, value(t)) for t in sorted(m for m in moments if low <= m < high)])


def finite(points: list[Point]) -> list[Point]:
    """Give the points; `FieldError` where a value is no finite number."""
    for time, value in points:
        if not math.isfinite(value):
            raise FieldError.of(f"the value at t = {time:g}", "a finite number", value)
    return points


def _beside(mark: float, *, whole: bool) -> tuple[float, ...]:
    if whole:
        at = float(math.ceil(mark - 1e-9))
        return (at - 1.0, at)
    return (math.nextafter(mark, -math.inf), mark)


def _inside(begin: float, end: float, *, whole: bool) -> Iterator[float]:
    """Moments in a column: the first, the last, and some between."""
    if whole:
        first, last = math.ceil(begin), math.ceil(end) - 1
        if last - first <= _INSIDE + 1:
            yield from map(float, range(first, last + 1))
            return
        begin, end = float(first), float(last)
    yield begin
    for i in range(1, _INSIDE + 1):
        at = begin + (end - begin) * (i * GOLDEN % 1.0)
        yield float(math.floor(at)) if whole else at
    yield end if whole else math.nextafter(end, begin)


def thinned(points: list[Point], axis: Axis, columns: int = 800) -> tuple[Point, ...]:
    """Keep of each column of a picture the first, the lowest, the highest and the last point.

    Source: Jugel et al. 2014 (M4), whose line drawing no pixel tells from that of all points.
    """
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(int(axis.place(point[0]) * columns), []).append(point)
    kept: list[Point] = []
    for group in groups.values():
        four = (group[0], min(group, key=_value), max(group, key=_value), group[-1])
        kept.extend(sorted(set(four)))
    return tuple(kept)


def _value(point: Point) -> float:
    return point[1]
