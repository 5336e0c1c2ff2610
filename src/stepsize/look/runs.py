"""From whatever holds schedules to a run with its tracks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from stepsize.errors import FieldError, UnitError
from stepsize.look.entries import Bases, Entry, entries_of, is_bound
from stepsize.look.structure import parts_of
from stepsize.look.tracks import Run, Track
from stepsize.schedules.fields import Bounds
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.tables import Custom
from stepsize.schedules.walk import nodes, units_of
from stepsize.sketch import extent
from stepsize.time import Horizon, driving_unit, resolve
from stepsize.units import SECONDS, Time

_MOST_STEPS = 2.0**53  # where floats no longer tell one step from the next


def run_of(
    what: Any,
    horizon: Horizon | None = None,
    *,
    base: Bases = None,
    seconds_per_step: float | None = None,
    endless: bool = False,
) -> Run:
    """Give the run and the tracks of whatever holds schedules.

    Args:
        what: a schedule, a plan, a mapping from names to those, a sequence of those, or a bound
            scheduler.
        horizon: how long training is; a bound scheduler's own by default.
        base: what the factors multiply: a number for lr, or numbers by hyper-parameter.
        seconds_per_step: the rate between steps and wall-clock time, where both occur.
        endless: whether a schedule without an end may do without a horizon: it is shown over a
            few times its own scale.

    Raises `FieldError` for something else, `UnitError` where a horizon is missing.
    """
    if seconds_per_step is not None:
        seconds_per_step = float(Bounds(gt=0).admit("seconds_per_step", seconds_per_step))
    entries = entries_of(what, base)
    given = given_horizon(what, horizon)
    needs = [entry.schedule for entry in entries if units_of(entry.schedule)]
    if given is None and needs:
        shares = units_of(needs[0]) <= {"%", "rest"}
        cure = "Horizon(total)" if shares else "Horizon(total, batches_per_epoch=...)"
        raise UnitError(
            f"{needs[0]!r} is written in units, which need a horizon to become numbers: give {cure}"
        )
    known = _in_steps(given or Horizon(), seconds_per_step)
    clock = _clock({driving_unit(e.schedule, known) for e in entries}, seconds_per_step)
    run = Run(known, clock, 0.0, seconds_per_step, max(e.shift for e in entries), ())
    run = replace(run, tracks=tuple(_tracks(entries, run)))
    total = _total(run) if known.total is not None else _end(run, endless=endless)
    if total >= _MOST_STEPS:
        raise UnitError(f"a run of {total:g} is too long: steps beyond 2**53 cannot be told apart")
    return replace(run, total=float(math.ceil(total - 1e-9)) if run.whole else total)


def given_horizon(what: Any, horizon: Horizon | None) -> Horizon | None:
    """Give the horizon of a run: a bound scheduler's own, which may not be given otherwise."""
    if horizon is not None and not isinstance(horizon, Horizon):
        raise FieldError.of("horizon", "a Horizon", horizon, "give Horizon(total)")
    own: Horizon | None = what.horizon if is_bound(what) else None
    if own is not None and horizon not in (None, own):
        cure = "a bound scheduler has its own: leave it out"
        raise FieldError.of("horizon", "that of the scheduler", horizon, cure)
    return horizon or own


def _in_steps(horizon: Horizon, seconds_per_step: float | None) -> Horizon:
    """Give a horizon in wall-clock time in steps, where the rate between them is known."""
    total = horizon.total
    if seconds_per_step is None or not isinstance(total, Time) or total.unit not in SECONDS:
        return horizon
    return replace(horizon, total=math.ceil(total.amount * SECONDS[total.unit] / seconds_per_step))


def _clock(units: set[str], seconds_per_step: float | None) -> str:
    if seconds_per_step is not None or "s" not in units:
        return "st"
    if units == {"s"}:
        return "s"
    raise UnitError(
        "schedules in wall-clock time and in steps cannot be shown together: give seconds_per_step="
    )


def _tracks(entries: list[Entry], run: Run) -> Iterator[Track]:
    """The tracks; a schedule of many groups is resolved once."""
    known: dict[Schedule, Track] = {}
    for key, name, schedule, scale, extra, _, zeros in entries:
        if schedule not in known:
            known[schedule] = _resolved(schedule, run)
        number = 1.0 if scale is None else scale
        written = schedule.is_absolute or scale is not None
        yield replace(
            known[schedule],
            key=key,
            name=name,
            scale=number,
            is_value=written,
            extra=extra,
            zeros=zeros,
        )


def _resolved(schedule: Schedule, run: Run) -> Track:
    unit, horizon = driving_unit(schedule, run.horizon), run.horizon
    if unit == "s" and run.clock == "st" and horizon.total is not None:
        seconds = horizon.steps * (run.seconds_per_step or 1.0)
        horizon = replace(horizon, total=Time(seconds, "s"))
    resolved = resolve(schedule, horizon) if units_of(schedule) else schedule
    inner = _told(resolved)
    factor = inner if unit == run.clock else lambda time: inner(run.position(time, unit))
    parts = tuple((run.time_at(at, unit), called) for at, called in parts_of(resolved))
    ends = run.time_at(resolved.duration, unit)
    return Track("", "", schedule, resolved, unit, factor, 1.0, True, False, parts, ends, ())


def _told(resolved: Schedule) -> Callable[[float], float]:
    """Give the compiled schedule; a user's function that fails is told with the time."""
    inner = resolved.compile()
    if not any(isinstance(node, Custom) for node in nodes(resolved)):
        return inner

    def told(time: float) -> float:
        try:
            value = inner(time)
        except (ArithmeticError, TypeError, ValueError) as error:
            given = f"{error!r} at t = {time:g}"
            raise FieldError.of("Custom.function", "a number at every time", given) from error
        return value

    return told


def _total(run: Run) -> float:
    """The run's length as its horizon says it."""
    total = run.horizon.total
    if isinstance(total, Time) and total.unit in SECONDS:
        if run.clock == "st":
            raise UnitError("a horizon in wall-clock time has no steps: give seconds_per_step=")
        return total.amount * SECONDS[total.unit]
    if run.clock == "s":
        raise UnitError(
            "a horizon in steps cannot hold schedules in wall-clock time: give seconds_per_step="
        )
    return run.horizon.steps - run.shift


def _end(run: Run, *, endless: bool) -> float:
    """The run's length as the schedules' own ends say it."""
    ends = [track.ends for track in run.tracks if 0.0 < track.ends < math.inf]
    if ends:
        return max(ends)
    if not endless:
        endless_one = repr(run.tracks[0].schedule)
        raise UnitError(f"{endless_one} does not say how long the run is: give Horizon(total)")
    return run.time_at(extent([(t.name, t.resolved) for t in run.tracks]), run.tracks[0].unit)
