"""What an edit makes of the schedules it meets, at a moment of a run.

Schedules stay as they were told (in shares of the horizon, where they are so written) as far as
they lie ahead, and become what they were, cut off at the moment, as far as they lie behind. So an
edited schedule is a schedule like any other: it is drawn, described, saved and edited again.
"""

from collections.abc import Mapping
from typing import Any

from stepsize.edits.kinds import CoolDown, Edit, Replan
from stepsize.edits.moment import Moment, in_unit, joined, past, written
from stepsize.edits.stretch import extended, extended_horizon
from stepsize.errors import FieldError
from stepsize.schedules.ramps import Linear
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.warmup import Constant
from stepsize.time import Horizon, HorizonClock
from stepsize.units import REST, Time

Told = Mapping[str, Schedule]


def carried(edit: Edit, told: Told, moment: Moment) -> tuple[dict[str, Schedule], Horizon | None]:
    """Give the schedules by name after an edit, and the horizon."""
    if isinstance(edit, CoolDown):
        return _cooled(edit, told, moment), moment.horizon
    if isinstance(edit, Replan):
        plan = edit.plan
        made = {k: replanned(s, plan[k], edit, moment) if k in plan else s for k, s in told.items()}
        return made, moment.horizon
    horizon = extended_horizon(edit, moment)
    return {k: _extended(s, moment, horizon) for k, s in told.items()}, horizon


# Cool down -------------------------------------------------------------------------------------


def _extended(schedule: Schedule, moment: Moment, horizon: Horizon) -> Schedule:
    """Give a schedule over another horizon; one that has ended stays as it was."""
    if moment.ended(schedule):
        return written(moment.tree(schedule), moment.clock(schedule).unit)
    return extended(schedule, moment, horizon)


def _cooled(edit: CoolDown, told: Told, moment: Moment) -> dict[str, Schedule]:
    return {k: cooled(s, edit, moment) if k in edit.keys else s for k, s in told.items()}


def cooled(schedule: Schedule, edit: CoolDown, moment: Moment) -> Schedule:
    """Give a schedule that goes from where it is to a share of that, and stays there."""
    value, unit = moment.value(schedule), moment.clock(schedule).unit
    tree = moment.tree(schedule)
    if value == 0.0 and (tree.range[1] == 0.0 or tree.duration <= moment.at(schedule)):
        return schedule  # it stays there
    if value == 0.0:
        cure = "it is on its way up: cool down later, or replan"
        raise FieldError.of("cool_down", "of a value above 0", value, cure)
    over: Any = edit.over
    length = in_unit(moment.length(over, schedule, "cool_down: over"), unit)
    if schedule.is_absolute:
        return joined((*past(schedule, moment), edit.ramp(length, 1.0).absolute(value)))
    return joined((*past(schedule, moment), edit.ramp(length, value)))


# Replan ----------------------------------------------------------------------------------------


def replanned(schedule: Schedule, then: Schedule, edit: Replan, moment: Moment) -> Schedule:
    """Give a schedule that becomes another, after a straight line from one to the other."""
    if schedule.is_absolute != then.is_absolute:
        rule = "absolute, as the one it replaces" if schedule.is_absolute else "a factor, as before"
        cure = "write schedule.absolute(peak)" if schedule.is_absolute else "leave .absolute() out"
        raise FieldError.of("replan: the new schedule", rule, then, cure)
    before = past(schedule, moment)
    both = joined((*before, then))  # the unit that drives them together
    clock, at = moment.clock(both), moment.at(both)
    begin = at if edit.since == "now" else 0.0
    over = _join_length(edit, both, moment)
    shift = begin - (at + over)
    future = then.shifted(in_unit(shift, clock.unit)) if shift else then
    first = _first_value(before, future, moment, (clock, at, over))
    if first is None:  # it is over already, and a sequence leaves out what has no length
        tree = moment.tree(then)
        first = float(tree(tree.duration))
        future = _line(first, first, None, schedule.is_absolute)
    if not over:
        return joined((*before, future))
    length = in_unit(over, clock.unit)
    join = _line(moment.value(schedule), first, length, schedule.is_absolute)
    return joined((*before, join, future))


def _first_value(
    before: tuple[Schedule, ...],
    future: Schedule,
    moment: Moment,
    where: tuple[HorizonClock, float, float],
) -> float | None:
    """Give the value that a part begins with, some time from now; None if it has no length."""
    clock, at, over = where
    wait = (_line(1.0, 1.0, in_unit(over, clock.unit), future.is_absolute),) if over else ()
    tree, begins = moment.tree(joined((*before, *wait, future))), clock.rounded(at + over)
    return None if tree.duration <= begins else float(tree(begins))


def _line(start: float, stop: float, over: Any, absolute: bool) -> Schedule:
    """Give a straight line; a level one never ends without a length."""
    peak = max(start, stop) if absolute else 1.0
    first, last = (start / peak, stop / peak) if peak else (0.0, 0.0)
    level = first == last
    line: Schedule = Constant(over, first) if level else Linear(over, start=first, stop=last)
    return line.absolute(peak or 1.0) if absolute else line


def _join_length(edit: Replan, both: Schedule, moment: Moment) -> float:
    over: Any = edit.over
    if over is None:
        total = moment.room(both)
        near = total is not None and total * 0.99 < moment.at(both)
        over = 100.0 if total is None else REST if near else Time(1.0, "%")
    return 0.0 if over == 0.0 else moment.length(over, both, "replan: over")
