"""What a schedule is over a longer or shorter run: only what lies ahead moves."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from stepsize.edits.kinds import Extend
from stepsize.edits.moment import Moment, in_unit, joined, written
from stepsize.errors import FieldError
from stepsize.horizon import amount_of
from stepsize.schedules.combine import Sequence, Wrapper
from stepsize.schedules.fields import MomentsRule, TableRule
from stepsize.schedules.moments import moments_of
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
from stepsize.time import Horizon, HorizonClock, opened
from stepsize.units import REST, Time

_SAME = 64  # moments at which a past is compared


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
            return joined(self._parts(parts or (node,)))
        alone = isinstance(node, Wrapper) and not isinstance(node, Held)
        steps = self.steps and not isinstance(node, Held)
        inside = dataclasses.replace(self, rounds=self.rounds and alone, steps=steps)

        def change(name: str, value: Any) -> Any:
            if isinstance(value, Time) and value.unit in _SHARES:
                field = f"{type(node).__name__}.{name}"
                asked = self.old.total(field) if value == REST else None
                number = self.old.number(value, field, 0.0) if asked is None else asked
                return in_unit(number, self.old.unit)
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
        over = REST if fills or rest else in_unit(left, unit)
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
        fixed: float | Time = in_unit(min(was, gone), self.old.unit)
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
            whole = opened(joined(parts))
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
    after = in_unit(gone, unit)
    return (written(current.cut(gone), unit), Resumed(whole, after=after, over=over))
