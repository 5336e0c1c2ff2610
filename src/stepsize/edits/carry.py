"""What an edit makes of the schedules it meets, at a moment of a run.

Schedules stay as they were told (in shares of the horizon, where they are so written) as far as
they lie ahead, and become what they were, cut off at the moment, as far as they lie behind. So an
edited schedule is a schedule like any other: it is drawn, described, saved and edited again.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepsize.edits.kinds import CoolDown, Edit, Extend, Replan
from stepsize.errors import FieldError
from stepsize.horizon import amount_of
from stepsize.schedules.combine import Sequence, Wrapper
from stepsize.schedules.fields import LengthRule, MomentsRule, TableRule
from stepsize.schedules.moments import moments_of
from stepsize.schedules.ramps import Linear
from stepsize.schedules.schedule import Schedule, fields_of
from stepsize.schedules.timing import Held, Resumed
from stepsize.schedules.walk import (
    children_of,
    leaves_rest,
    on_whole_steps,
    over_children,
    quantized,
    rebuilt,
    settled_parts,
    units_of,
    with_length,
)
from stepsize.schedules.warmup import Constant
from stepsize.time import Horizon, HorizonClock, driving_unit, opened, resolve
from stepsize.units import REST, Time

Told = Mapping[str, Schedule]
_SAME = 64  # moments at which a past is compared


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a run is when its plan changes: optimizer steps, and the horizon it had until now.

    Args:
        step: optimizer steps completed.
        horizon: as it is before the edit; None: every schedule is in plain numbers of steps.
        shift: steps by which the horizon's map of samples and tokens is ahead.
        seconds: training time, for schedules over wall-clock time.
    """

    step: float
    horizon: Horizon | None = None
    shift: float = 0.0
    seconds: float = 0.0

    def clock(self, schedule: Schedule) -> HorizonClock:
        """Give what turns lengths into the unit that drives a schedule."""
        horizon = Horizon() if self.horizon is None else self.horizon
        return HorizonClock(horizon, driving_unit(schedule, horizon))

    def room(self, schedule: Schedule) -> float | None:
        """Give the whole length of the run in the unit that drives a schedule, if it is known."""
        clock = self.clock(schedule)
        return None if clock.horizon.total is None else clock.total("rest")

    def at(self, schedule: Schedule) -> float:
        """Give the position in the unit that drives a schedule."""
        clock = self.clock(schedule)
        if clock.unit == "s":
            return self.seconds
        step = self.step if clock.unit == "st" else self.step + self.shift
        return clock.horizon.position(step, clock.unit)

    def tree(self, schedule: Schedule) -> Schedule:
        """Give a schedule in plain numbers, as far as its end is known."""
        return schedule if self.horizon is None else resolve(schedule, self.horizon)

    def value(self, schedule: Schedule) -> float:
        """Give a schedule's value now."""
        return float(self.tree(schedule)(self.at(schedule)))

    def ended(self, schedule: Schedule) -> bool:
        """Tell whether a schedule that ends with the horizon has done so."""
        ends = units_of(schedule) & {"%", "rest"}
        return bool(ends) and self.tree(schedule).duration <= self.at(schedule)

    def length(self, over: float | Time, schedule: Schedule, field: str) -> float:
        """Give a length from now on in the unit that drives a schedule, in whole steps."""
        clock, at = self.clock(schedule), self.at(schedule)
        total = clock.total(field) if over == REST else self.room(schedule)
        left = math.inf if total is None else total - at
        asked = left if over == REST else clock.number(over, field, at)
        if left <= 0 or asked > left * (1 + 1e-9):
            unit = "steps" if clock.unit == "st" else clock.unit
            rule = f"at most what is left of the run ({left:g} {unit})"
            cure = 'write over="rest", or extend() the horizon first'
            raise FieldError.of(field, rule, str(over), cure)
        if over == REST or clock.unit == "s":
            return asked
        return max(clock.rounded(at + asked) - at, clock.horizon.position(1, clock.unit))


def carried(
    edit: Edit, told: Told, moment: Moment, others: Iterable[Schedule] = ()
) -> tuple[dict[str, Schedule], Horizon | None]:
    """Give the schedules by name after an edit, and the horizon.

    Args:
        edit: the change of plan.
        told: schedules by name.
        moment: where the run is.
        others: what else the run follows, which may have something ahead where these have ended.
    """
    if isinstance(edit, CoolDown):
        change: Callable[[Schedule], Schedule] = lambda each: cooled(each, edit, moment)  # noqa: E731
        return {k: change(s) if k in edit.keys else s for k, s in told.items()}, moment.horizon
    if isinstance(edit, Replan):
        plan = edit.plan
        made = {k: replanned(s, plan[k], edit, moment) if k in plan else s for k, s in told.items()}
        return made, moment.horizon
    horizon = extended_horizon(edit, moment)
    if told and all(map(moment.ended, (*told.values(), *others))):
        raise FieldError(
            "extend: nothing lies ahead that could be moved, the schedules have ended; "
            "give the run new ones: replan(lr=...)"
        )
    return {k: extended(s, moment, horizon) for k, s in told.items()}, horizon


# The past --------------------------------------------------------------------------------------


def past(schedule: Schedule, moment: Moment) -> tuple[Schedule, ...]:
    """Give what a schedule was until now, as parts that end now; none at the start."""
    tree, at, unit = moment.tree(schedule), moment.at(schedule), moment.clock(schedule).unit
    if at == 0:
        return ()
    parts = tree.parts if isinstance(tree, Sequence) else (tree,)
    starts = tree.starts if isinstance(tree, Sequence) else (0.0,)
    kept = [(part, start) for part, start in zip(parts, starts, strict=True) if start < at]
    last, start = kept.pop()
    done = [written(part, unit) for part, _ in kept]
    return (*done, written(_ending(last, at - start), unit))


def _ending(part: Schedule, length: float) -> Schedule:
    return part if part.duration == length else part.cut(length)


def written(tree: Schedule, unit: str) -> Schedule:
    """Write the plain numbers of a tree as lengths in the unit they are in."""
    if unit == "st":
        return tree
    rules: dict[str, Any] = type(tree)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)

    def change(name: str, value: Any) -> Any:
        rule = rules[name][0] if name in rules else None
        if isinstance(rule, LengthRule):
            return _in_unit(value, unit)
        if isinstance(rule, MomentsRule):
            return tuple(_in_unit(moment, unit) for moment in value)
        if isinstance(rule, TableRule):
            return tuple((_in_unit(moment, unit), level) for moment, level in value)
        return over_children(value, lambda child: written(child, unit))

    return rebuilt(tree, change)


def _in_unit(value: Any, unit: str) -> Any:
    return Time(value, unit) if isinstance(value, float) and unit != "st" else value


def _joined(parts: tuple[Schedule, ...]) -> Schedule:
    return parts[0] if len(parts) == 1 else Sequence(parts)


# Cool down -------------------------------------------------------------------------------------


def cooled(schedule: Schedule, edit: CoolDown, moment: Moment) -> Schedule:
    """Give a schedule that goes from where it is to a share of that, and stays there."""
    value, unit = moment.value(schedule), moment.clock(schedule).unit
    if value == 0.0:
        raise FieldError.of("cool_down", "of a value above 0", value, "it is there already")
    over: Any = edit.over
    length = _in_unit(moment.length(over, schedule, "cool_down: over"), unit)
    if schedule.is_absolute:
        return _joined((*past(schedule, moment), edit.ramp(length, 1.0).absolute(value)))
    return _joined((*past(schedule, moment), edit.ramp(length, value)))


# Replan ----------------------------------------------------------------------------------------


def replanned(schedule: Schedule, then: Schedule, edit: Replan, moment: Moment) -> Schedule:
    """Give a schedule that becomes another, after a straight line from one to the other."""
    if schedule.is_absolute != then.is_absolute:
        rule = "absolute, as the one it replaces" if schedule.is_absolute else "a factor, as before"
        cure = "write schedule.absolute(peak)" if schedule.is_absolute else "leave .absolute() out"
        raise FieldError.of("replan: the new schedule", rule, then, cure)
    before = past(schedule, moment)
    both = _joined((*before, then))  # the unit that drives them together
    clock, at = moment.clock(both), moment.at(both)
    begin = at if edit.since == "now" else 0.0
    over = _join_length(edit, both, moment)
    shift = begin - (at + over)
    future = then.shifted(_in_unit(shift, clock.unit)) if shift else then
    first = _first_value(before, future, moment, (clock, at, over))
    if first is None:  # it is over already, and a sequence leaves out what has no length
        tree = moment.tree(then)
        first = float(tree(tree.duration))
        future = _line(first, first, None, schedule.is_absolute)
    if not over:
        return _joined((*before, future))
    length = _in_unit(over, clock.unit)
    join = _line(moment.value(schedule), first, length, schedule.is_absolute)
    return _joined((*before, join, future))


def _first_value(
    before: tuple[Schedule, ...],
    future: Schedule,
    moment: Moment,
    where: tuple[HorizonClock, float, float],
) -> float | None:
    """Give the value that a part begins with, some time from now; None if it has no length."""
    clock, at, over = where
    wait = (_line(1.0, 1.0, _in_unit(over, clock.unit), future.is_absolute),) if over else ()
    tree, begins = moment.tree(_joined((*before, *wait, future))), clock.rounded(at + over)
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


# Extend ----------------------------------------------------------------------------------------


def extended_horizon(edit: Extend, moment: Moment) -> Horizon:
    """Give the horizon with another total, which must lie ahead."""
    now = Horizon() if moment.horizon is None else moment.horizon
    made = dataclasses.replace(now, total=edit.total, open_end=False)
    amount, unit = amount_of(edit.total)
    timed = unit == "s"
    ahead = amount > moment.seconds if timed else made.steps > moment.step + moment.shift
    if not ahead:
        where = f"{moment.seconds:g} seconds" if timed else f"step {moment.step:g}"
        rule = f"beyond where the run is ({where})"
        raise FieldError.of("extend: the total", rule, str(edit.total), "to end now, stop training")
    if isinstance(now.batch_size, Schedule):
        was, would = (h.position(moment.step, "samples") for h in (now, made))
        if not math.isclose(was, would):
            rule = "one that has been the same until now over both totals"
            cure = "write its moments in steps, samples or tokens, not in shares of the run"
            raise FieldError.of("extend: the batch size", rule, now.batch_size, cure)
    return made


def extended(schedule: Schedule, moment: Moment, horizon: Horizon) -> Schedule:
    """Give a schedule over another horizon, of which only what lies ahead has moved.

    Parts that are over stay. The part that training is in goes on as told where its values until
    now would have been the same (a constant, a staircase); elsewhere what is left of it is
    stretched to its new end, so that the value goes on from where it is. Parts ahead are as told.
    What never ends stays as it is, but for the moments of a table: those that lie ahead are as
    told, and one that the new horizon has behind is now.
    """
    if not units_of(schedule) & _SHARES:
        return schedule
    old = moment.clock(schedule)
    new = HorizonClock(horizon, old.unit)
    return _Extension(moment.at(schedule), old, moment.room(schedule), new).of(schedule)


_SHARES = {"%", "rest"}  # the units that move with the end of the run


@dataclass(frozen=True, slots=True)
class _Extension:
    """What another horizon makes of a tree, node by node, at a position in the unit of the whole.

    Args:
        at: the position.
        old: the clock until now.
        room: the whole length until now, if it is known.
        new: the clock from now on.
        rounds: whether a length that stands alone is rounded to whole steps: at the top it is.
        steps: whether the steps of the run are what a default first value is made of.
    """

    at: float
    old: HorizonClock
    room: float | None
    new: HorizonClock
    rounds: bool = True
    steps: bool = True

    def of(self, node: Schedule) -> Schedule:
        """Give the node over the new horizon."""
        if not units_of(node) & _SHARES:
            return node
        parts = getattr(node, "parts", None)
        composed = any(True for _ in children_of(node)) and "over" not in fields_of(node)
        if parts is not None or node._own_time or not composed:  # noqa: SLF001 (an edit is a friend)
            return _joined(self._parts(parts or (node,)))
        alone = isinstance(node, Wrapper) and not isinstance(node, Held)
        steps = self.steps and not isinstance(node, Held)
        inside = dataclasses.replace(self, rounds=self.rounds and alone, steps=steps)

        def change(name: str, value: Any) -> Any:
            if isinstance(value, Time) and value.unit in _SHARES:
                field = f"{type(node).__name__}.{name}"
                asked = self.old.total(field) if value == REST else None
                number = self.old.number(value, field, 0.0) if asked is None else asked
                return _in_unit(number, self.old.unit)
            return over_children(value, inside.of)

        return rebuilt(node, change)

    def _parts(self, parts: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
        """Give the parts for the new horizon, the one that training is in with what is left."""
        unit = self.old.unit
        spans = self._spans(parts, self.old, self.room)
        # at a boundary it is the part before: a part that waits for its end may go on waiting
        number = max((i for i, (start, _) in enumerate(spans) if start < self.at), default=0)
        start, current = spans[number]
        done = tuple(written(part, unit) for _, part in spans[:number] if part is not None)
        ahead, told, gone = parts[number + 1 :], parts[number], self.at - start
        if current is None or not gone:
            return (*done, told, *ahead)
        if not units_of(told) & _SHARES or current.duration == math.inf:
            return (*done, self._endless(told, current, start), *ahead)
        then = self._spans(parts[number:], self.new, self.new.total("rest"), start)[0][1]
        if then is not None and then.duration >= gone and _same(current, then, gone):
            return (*done, told, *ahead)
        end = None if self.room is None else self.old.rounded(self.room)
        fills = number == len(parts) - 1 and end == start + current.duration
        left = math.inf if fills else (0.0 if then is None else then.duration) - gone
        rest = leaves_rest(told)
        over = REST if fills or rest else _in_unit(left, unit)
        if (left < 0 and rest) or (left <= 0 and gone < current.duration):
            raise FieldError(
                f"extend: over the new total {current!r} would have ended before now; "
                "cool_down() ends a run sooner"
            )
        return (*done, *_resumed(current, gone, over, unit), *ahead)

    def _endless(self, told: Schedule, current: Schedule, start: float) -> Schedule:
        """Give a part that has waited for the end of the run, or will never end."""
        if leaves_rest(told) and self.room is None:
            return told
        rules: dict[str, Any] = type(told)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)

        def change(name: str, value: Any) -> Any:
            rule, field = rules.get(name, (None,))[0], f"{type(told).__name__}.{name}"
            if isinstance(rule, MomentsRule):
                return tuple(self._moved(moment, field, start) for moment in value)
            if isinstance(rule, TableRule):
                return tuple({self._moved(m, field, start): level for m, level in value}.items())
            return value

        moved = rebuilt(told, change)
        return written(current, self.old.unit) if moved is told else moved

    def _moved(self, moment: float | Time, field: str, start: float) -> float | Time:
        """Give a moment of a table: where it was if it is over, else as told, but not behind."""
        was, will = (clock.number(moment, field, start) for clock in (self.old, self.new))
        gone = self.at - start
        if was > gone < will:
            return moment
        fixed: float | Time = _in_unit(min(was, gone), self.old.unit)
        return fixed

    def _spans(
        self,
        parts: tuple[Schedule, ...],
        clock: HorizonClock,
        room: float | None,
        begin: float = 0.0,
    ) -> list["Span"]:
        """Give where each part begins and what it is in plain numbers; None for one left out."""
        if room is None:
            whole = opened(_joined(parts))
            parts = whole.parts if isinstance(whole, Sequence) else (whole,)
        found: list[Span] = []
        position = edge = begin
        left = None if room is None else room - begin
        for part in settled_parts(parts, clock, left, begin):
            end = position + part.duration
            made = on_whole_steps(part, clock, position)
            if self.steps and clock.quantum != 1.0:
                made = quantized(made, clock.quantum)
            if end == math.inf or not (self.rounds or found or parts[1:]):
                found.append((edge, made))
                break
            length = clock.rounded(end) - edge
            found.append((edge, with_length(made, length) if length > 0 else None))
            position, edge = end, edge + max(length, 0.0)
        return found


Span = tuple[float, Schedule | None]


def _same(one: Schedule, other: Schedule, until: float) -> bool:
    """Tell whether two schedules have had the same values from their start until a moment."""
    bends = moments_of(one, until) | moments_of(other, until)
    moments = (*bends, *(until * i / _SAME for i in range(_SAME + 1)))
    return all(math.isclose(one(t), other(t), rel_tol=1e-12) for t in moments)


def _resumed(current: Schedule, gone: float, over: Any, unit: str) -> tuple[Schedule, ...]:
    """Give a part as far as it is gone, and what is left of it in a new length."""
    whole = written(current, unit)
    if gone >= current.duration:  # over, as a warmup is; see `carried` for a run that is
        return (whole,)
    after = _in_unit(gone, unit)
    return (written(current.cut(gone), unit), Resumed(whole, after=after, over=over))
