"""The difference of two schedules: in what they are, in their values, and as a picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stepsize.drawing.series import Axis, Panel, Point, Series, spoken, survey, thinned
from stepsize.errors import FieldError
from stepsize.files.changes import changes
from stepsize.files.description import plain_data
from stepsize.look.entries import Bases
from stepsize.look.preview import AXES, Preview, panels_of, time_axis, unit_of
from stepsize.look.runs import run_of
from stepsize.look.scan import first_where, mean_of, points_in
from stepsize.look.tracks import Run, Track
from stepsize.schedules.schedule import Schedule
from stepsize.time import Horizon

_COMPARED = 5_000_000  # steps that are compared one by one
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Gap:
    """How one scheduled value differs between two schedules; times count `unit`.

    Attributes:
        title: the hyper-parameter; empty for a bare schedule.
        unit: what times count.
        changes: where the two differ as written, field by field.
        first_at: the first time at which the values differ; None if they never do.
        largest: the largest difference, second minus first.
        largest_at: when that is.
        values: the two values there.
        means: the mean values of the two over the run.
    """

    title: str
    unit: str
    changes: tuple[str, ...]
    first_at: float | None
    largest: float
    largest_at: float
    values: tuple[float, float]
    means: tuple[float, float]

    def __str__(self) -> str:
        """Say it in a few lines."""
        head = f"{self.title}: " if self.title else ""
        if self.first_at is None:
            written = " though they are written differently" if self.changes else ""
            return f"{head}the same values{written}"
        unit, (a, b) = self.unit.removesuffix("s"), self.values
        area = f"; on average {spoken(self.means[0])} and {spoken(self.means[1])}"
        first, most = spoken(self.first_at), spoken(self.largest_at)
        told = f"{head}differ from {unit} {first} on, most at {unit} {most}: "
        told += f"{spoken(a)} and {spoken(b)}{area}"
        return "\n".join([told, *(f"  {change}" for change in self.changes)])


@dataclass(frozen=True, slots=True)
class Difference:
    """Two schedules or plans compared over a run: `print` says it, `picture` shows it."""

    gaps: tuple[Gap, ...]
    picture: Preview

    @property
    def same(self) -> bool:
        """Whether no values differ, of every step up to five million, of many beyond."""
        return all(gap.first_at is None for gap in self.gaps)

    def __str__(self) -> str:
        """Say all of it."""
        return "\n".join(map(str, self.gaps))


def difference(
    first: Any,
    second: Any,
    horizon: Horizon | None = None,
    *,
    names: tuple[str, str] = ("first", "second"),
    unit: str | None = None,
    base: Bases = None,
    seconds_per_step: float | None = None,
) -> Difference:
    """Compare two schedules or two plans over one run.

    The picture has the two curves and, below them, second minus first.

    Args:
        first: a schedule or a plan.
        second: one to compare with it, with the same hyper-parameters.
        horizon: how long training is.
        names: what the two are called in the picture.
        unit: see `preview`.
        base: see `preview`.
        seconds_per_step: see `preview`.

    >>> from stepsize import Cosine, Linear, difference
    >>> print(difference(Cosine(100), Linear(100)))
    differ from step 1 on, most at step 22: 0.8853 and 0.78; on average 0.505 and 0.505
      Cosine(100) became Linear(100)
    """
    both = {names[0]: first, names[1]: second}
    if len(both) != 2:  # noqa: PLR2004 (two are compared)
        raise FieldError.of("difference: names", "two different names", names)
    run = run_of(both, horizon, base=base, seconds_per_step=seconds_per_step)
    ones, others = ([t for t in run.tracks if t.name == name] for name in both)
    if [t.key for t in ones] != [t.key for t in others]:
        keys = " and ".join(
            ", ".join(t.key or "a bare schedule" for t in tracks) for tracks in (ones, others)
        )
        rule, cure = "of the same hyper-parameters", 'pick one: one_cycle()["lr"]'
        raise FieldError.of("difference: the two", rule, keys, cure)
    axis = time_axis(run, unit)
    panels, gaps = [], []
    for panel, one, other in zip(panels_of(run, axis), ones, others, strict=True):
        gaps.append(_gap(run, one, other, unit_of(axis)))
        panels += [panel, _difference_panel(run, one, other, axis, f"{names[1]} - {names[0]}")]
    return Difference(tuple(gaps), Preview(tuple(panels)))


def _gap(run: Run, one: Track, other: Track, unit: str) -> Gap:
    first, at, largest = _differing(run, one, other)
    return Gap(
        title=one.key,
        unit=AXES[unit],
        changes=_changes(one.schedule, other.schedule),
        first_at=None if first is None else run.to(unit, first),
        largest=largest,
        largest_at=run.to(unit, at),
        values=(one.value(at), other.value(at)),
        means=(one.scale * mean_of(run, one), other.scale * mean_of(run, other)),
    )


def _differing(run: Run, one: Track, other: Track) -> tuple[float | None, float, float]:
    """Give when two values first differ, when they do most, and by how much."""
    looks = ((track, points_in(run, track, most=0)) for track in (one, other))
    tiny = 1e-12 * max(track.scale * abs(v) for track, seen in looks for _, v in seen)
    first, before, at, largest = None, -1.0, 0.0, 0.0
    for time, gap in _apart(run, one, other):
        if first is None and abs(gap) > tiny:
            first = first_where(
                lambda t: abs(other.value(t) - one.value(t)) > tiny, before, time, whole=run.whole
            )
        if abs(gap) > abs(largest) * (1.0 + 1e-9):
            at, largest = time, gap
        before = time
    return first, at, largest


def _apart(run: Run, one: Track, other: Track) -> Iterator[Point]:
    """Second minus first, at every step up to five million, else wherever either is looked at."""
    if run.whole and run.total <= _COMPARED:
        for begin in range(0, int(run.total), _BLOCK):
            end = min(begin + _BLOCK, int(run.total))
            pairs = zip(run.factors(one, begin, end), run.factors(other, begin, end), strict=True)
            for step, (first, second) in enumerate(pairs, begin):
                yield float(step), other.scale * second - one.scale * first
        return
    times = {t for track in (one, other) for t, _ in points_in(run, track, most=0)}
    yield from ((t, other.value(t) - one.value(t)) for t in sorted(times))


def _changes(one: Schedule, other: Schedule) -> tuple[str, ...]:
    if type(one) is not type(other):
        return (f"{one!r} became {other!r}",)
    found = changes(plain_data(one, whole=True), plain_data(other, whole=True))
    return tuple(f"{path}: {was} became {now}" for path, was, now in found)


def _difference_panel(run: Run, one: Track, other: Track, axis: Axis, name: str) -> Panel:
    unit = unit_of(axis)
    marks = [*run.moments(one), *run.moments(other)]
    seen = survey(
        lambda t: other.value(t) - one.value(t), 0.0, run.total, whole=run.whole, marks=marks
    )
    gaps = [(run.to(unit, time), gap) for time, gap in seen]
    low, high = min(0.0, *(gap for _, gap in gaps)), max(0.0, *(gap for _, gap in gaps))
    y = Axis("difference", low, high if high > low else low + 1.0)
    return Panel(f"{one.key} {name}".strip(), axis, y, (Series("", thinned(gaps, axis)),))
