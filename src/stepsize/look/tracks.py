"""What a look at schedules looks at: every scheduled value as a function of time, over one run.

A bare schedule, a plan, several to compare and a bound scheduler all become `Track`s, so that
pictures, tables, words, checks and golden files stand on one thing.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stepsize.errors import FieldError, UnitError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.walk import children_of, units_of
from stepsize.sketch import extent
from stepsize.time import Horizon, driving_unit, resolve
from stepsize.units import SECONDS, Time

Bases = float | Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Track:
    """One scheduled value over a run.

    Attributes:
        key: the hyper-parameter; empty for a bare schedule.
        name: which of several it is: a param group, or one of the schedules compared.
        schedule: as it is written.
        resolved: in plain numbers of its driving unit.
        factor: the schedule as a function of the run's time (`Run.clock`).
        scale: what multiplies it: a group's base value, or 1.
        is_value: whether the product is written to the optimizer, or a factor of what is.
        parts: when each of its parts begins in the run's time, and what it is called.
        ends: when it is over.
    """

    key: str
    name: str
    schedule: Schedule
    resolved: Schedule
    factor: Callable[[float], float]
    scale: float
    is_value: bool
    parts: tuple[tuple[float, str], ...]
    ends: float

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
        clock: "st" (optimizer steps), or "s" where all is written in wall-clock time.
        total: how long it is, in the clock's unit.
        known: whether a horizon or the schedules themselves say so; else it is their scale.
    """

    horizon: Horizon
    clock: str
    total: float
    known: bool
    seconds_per_step: float | None
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
        return self.horizon.position(time, unit)

    def position(self, time: float, unit: str) -> float:
        """Convert a time of the run to the unit that drives a schedule."""
        if unit == self.clock:
            return time
        return self._seconds(time) if unit == "s" else self.horizon.position(time, unit)

    def time_at(self, position: float, unit: str) -> float:
        """Convert a position in a driving unit to a time of the run."""
        if unit == self.clock or position == math.inf:
            return position
        if unit == "s":
            return position / (self.seconds_per_step or 1.0)
        return self.horizon.step_at(position, unit)

    def _seconds(self, time: float) -> float:
        if self.clock == "s":
            return time
        if self.seconds_per_step is None:
            raise UnitError("steps cannot be shown in wall-clock time: give seconds_per_step=")
        return time * self.seconds_per_step


Entry = tuple[str, str, Schedule, float | None]
"""Key, name, schedule, and what scales it; None for a factor whose base value is not known."""


def run_of(
    what: Any,
    horizon: Horizon | None = None,
    *,
    base: Bases = None,
    seconds_per_step: float | None = None,
) -> Run:
    """Give the run and the tracks of whatever holds schedules.

    Args:
        what: a schedule, a plan, a mapping from names to those, a sequence of those, or a bound
            scheduler (anything with `tracks()` and `horizon`).
        horizon: how long training is; a bound scheduler's own by default.
        base: what the factors multiply: a number for lr, or numbers by hyper-parameter.
        seconds_per_step: the rate between steps and wall-clock time, where both occur.

    Raises `FieldError` for something else, `UnitError` where a horizon is missing.
    """
    if horizon is not None and not isinstance(horizon, Horizon):
        raise FieldError.of("horizon", "a Horizon", horizon, "give Horizon(total)")
    if seconds_per_step is not None:
        seconds_per_step = float(Bounds(gt=0).admit("seconds_per_step", seconds_per_step))
    entries = list(_scaled(_entries(what), base))
    given = horizon or getattr(what, "horizon", None)
    _check_horizon([entry[2] for entry in entries], given)
    known = given or Horizon()
    clock = _clock([driving_unit(entry[2]) for entry in entries], seconds_per_step)
    run = Run(known, clock, 0.0, True, seconds_per_step, ())
    tracks = tuple(_tracks(entries, run))
    total = _total(run) if known.total is not None else _end(tracks)
    if total is None:
        unit = driving_unit(tracks[0].schedule)
        total = run.time_at(extent([(t.name, t.resolved) for t in tracks]), unit)
        run = replace(run, known=False)
    return replace(run, total=_rounded(total, clock), tracks=tracks)


def _entries(what: Any) -> Iterator[Entry]:
    if isinstance(what, Schedule):
        yield "", "", what, None
    elif isinstance(what, Plan):
        yield from ((key, "", schedule, None) for key, schedule in what.items())
    elif hasattr(what, "tracks") and hasattr(what, "horizon"):
        yield from what.tracks()
    elif isinstance(what, Mapping | list | tuple) and what:
        named = what.items() if isinstance(what, Mapping) else ((repr(x), x) for x in what)
        for name, each in named:
            if not isinstance(each, Schedule | Plan):
                raise FieldError.of(f"{name!r}", "a schedule or a plan", each)
            yield from ((key, str(name), schedule, None) for key, _, schedule, _ in _entries(each))
    else:
        cure = "give Cosine(100), Plan(lr=...), {'a': ..., 'b': ...} or a Scheduler"
        raise FieldError.of("what to look at", "a schedule, a plan, or several", what, cure)


def _scaled(entries: Iterator[Entry], base: Bases) -> Iterator[Entry]:
    given = base if isinstance(base, Mapping) else {} if base is None else {"lr": base}
    bases = {key: float(Bounds(gt=0).admit(f"base[{key!r}]", x)) for key, x in given.items()}
    found = list(entries)
    keys = {key or "lr" for key, *_ in found}
    if unknown := sorted(set(bases) - keys):
        raise FieldError.of("base: a key", f"one of {', '.join(sorted(keys))}", unknown[0])
    for key, name, schedule, scale in found:
        own = None if schedule.is_absolute else bases.get(key or "lr")
        yield key, name, schedule, scale if own is None else own * (scale or 1.0)


def _check_horizon(schedules: list[Schedule], horizon: Horizon | None) -> None:
    needs = [schedule for schedule in schedules if units_of(schedule)]
    if horizon is None and needs:
        raise UnitError(
            f"{needs[0]!r} is written in units, which need a horizon to become numbers: "
            "give Horizon(total, batches_per_epoch=...)"
        )


def _tracks(entries: list[Entry], run: Run) -> Iterator[Track]:
    """The tracks; a schedule of many groups is resolved once."""
    known: dict[Schedule, Track] = {}
    for key, name, schedule, scale in entries:
        if schedule not in known:
            known[schedule] = _resolved(schedule, run)
        number = 1.0 if scale is None else scale
        written = schedule.is_absolute or scale is not None
        yield replace(known[schedule], key=key, name=name, scale=number, is_value=written)


def _resolved(schedule: Schedule, run: Run) -> Track:
    resolved = resolve(schedule, run.horizon) if units_of(schedule) else schedule
    unit, inner = driving_unit(schedule), resolved.compile()
    factor = inner if unit == run.clock else lambda time: inner(run.position(time, unit))
    parts = tuple((run.time_at(at, unit), called) for at, called in parts_of(resolved))
    ends = run.time_at(resolved.duration, unit)
    return Track("", "", schedule, resolved, factor, 1.0, True, parts, ends)


def _clock(units: list[str], seconds_per_step: float | None) -> str:
    if seconds_per_step is not None or "s" not in units:
        return "st"
    if set(units) == {"s"}:
        return "s"
    raise UnitError(
        "schedules in wall-clock time and in steps cannot be shown together: give seconds_per_step="
    )


def _total(run: Run) -> float:
    """The run's length as its horizon says it."""
    total = run.horizon.total
    if isinstance(total, Time) and total.unit in SECONDS:
        seconds = total.amount * SECONDS[total.unit]
        if run.clock == "st" and run.seconds_per_step is None:
            raise UnitError("a horizon in wall-clock time has no steps: give seconds_per_step=")
        return run.time_at(seconds, "s")
    if run.clock == "s":
        raise UnitError(
            "a horizon in steps cannot hold schedules in wall-clock time: give seconds_per_step="
        )
    return float(run.horizon.steps)


def _end(tracks: tuple[Track, ...]) -> float | None:
    """The run's length as the schedules' own ends say it; None if one is endless."""
    end = max(track.ends for track in tracks)
    return end if 0.0 < end < math.inf else None


def _rounded(total: float, clock: str) -> float:
    return float(math.ceil(total - 1e-9)) if clock == "st" else total


def placed(tree: Schedule, begin: float = 0.0) -> Iterator[tuple[float, Schedule]]:
    """Every node of a resolved schedule that runs in the run's own time, and when it begins."""
    yield begin, tree
    if tree._own_time:  # noqa: SLF001 (a walk is a friend)
        return
    parts = getattr(tree, "parts", None)
    for child in children_of(tree):
        yield from placed(child, begin)
        begin += child.duration if parts is not None else 0.0


def parts_of(tree: Schedule) -> tuple[tuple[float, str], ...]:
    """Give when each part of a resolved schedule begins, and what a person calls it.

    >>> parts_of((Warmup(10) >> Cosine(90)).absolute(3e-4))
    ((0.0, 'Warmup'), (10.0, 'Cosine'))
    """
    parts = getattr(tree, "parts", None)
    if parts is None:
        inner = list(children_of(tree))
        if len(inner) == 1 and not tree._own_time and inner[0].duration == tree.duration:  # noqa: SLF001 (a walk is a friend)
            return parts_of(inner[0])
        return ((0.0, called(tree)),)
    starts = [math.fsum(part.duration for part in parts[:i]) for i in range(len(parts))]
    return tuple(
        (start + at, name)
        for start, part in zip(starts, parts, strict=True)
        for at, name in parts_of(part)
    )


def called(tree: Schedule) -> str:
    """Name a schedule by the families it is made of: `Cosine`, `Repeated Cosine`."""
    inner = list(dict.fromkeys(called(child) for child in children_of(tree)))
    if not inner:
        return type(tree).__name__
    if type(tree)._own_time:  # noqa: SLF001 (a walk is a friend)
        return f"{type(tree).__name__} {' and '.join(inner)}"
    return " and ".join(inner)
