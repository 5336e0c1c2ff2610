"""What a schedule written in epochs, tokens or percent means over a horizon."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepsize.errors import FieldError, UnitError
from stepsize.horizon import Horizon, amount_of
from stepsize.schedules.schedule import Schedule, fields_of
from stepsize.schedules.walk import (
    fitted,
    leaves_rest,
    on_whole_steps,
    over_children,
    quantized,
    rebuilt,
    settled,
    units_of,
)
from stepsize.units import SECONDS, Time, plain

if TYPE_CHECKING:
    from stepsize.schedules.plan import Plan

__all__ = ["Horizon", "Time", "driving_unit", "resolve", "stepwise"]


def driving_unit(schedule: "Schedule | Plan", horizon: "Horizon | None" = None) -> str:
    """Give the unit whose passing moves a schedule: `st`, `samples`, `tok` or `s`.

    It is the unit the schedule is written in: a cosine over tokens is another curve than one over
    steps as soon as the batch size changes. One that is written in shares of the horizon alone is
    moved by what the horizon's length is written in: wall-clock time, or tokens and samples where
    the batch size is a number.

    >>> from stepsize import Cosine, Horizon, Warmup
    >>> driving_unit(Warmup("5%") >> Cosine()), driving_unit(Warmup("1e6 tok") >> Cosine())
    ('st', 'tok')
    >>> driving_unit(Warmup("5%") >> Cosine(), Horizon("12h"))
    's'
    """
    units = units_of(schedule) if isinstance(schedule, Schedule) else schedule.units
    for unit in ("tok", "samples"):
        if unit in units:
            return unit
    if units & SECONDS.keys():
        return "s"
    shares = bool(units) and units <= {"%", "rest"}
    if not shares or horizon is None or horizon.total is None:
        return "st"
    unit = amount_of(horizon.total)[1]
    ramp = isinstance(horizon.batch_size, Schedule)
    return "st" if unit == "ep" or (ramp and unit != "s") else unit


@dataclass(frozen=True, slots=True)
class HorizonClock:
    """Turns lengths into numbers of one driving unit, with what a horizon knows."""

    horizon: Horizon
    unit: str

    def number(self, time: float | Time, field: str, at: float) -> float:
        if isinstance(time, Time) and time.unit == "%":
            return self.total(field) * time.amount / 100.0
        amount, unit = amount_of(time)
        if unit == self.unit:
            return amount
        try:
            return self._converted(amount, unit, at, period=field.endswith(".every"))
        except UnitError as error:
            raise UnitError(f"{field} = {time!s}: {error}") from None

    def _converted(self, amount: float, unit: str, at: float, *, period: bool) -> float:
        if self.unit == "s" or unit == "s":
            raise UnitError(
                f"'{unit}' and wall-clock time cannot be mixed: their rate is known only live"
            )
        if unit == "ep" and self.unit != "st" and self.horizon.samples_per_epoch is not None:
            samples = amount * self.horizon.samples_per_epoch
            return samples * self.horizon._per_sample(self.unit)  # noqa: SLF001 (its own clock)
        if not isinstance(self.horizon.batch_size, Schedule):  # rates are constant
            return self.horizon.position(self.horizon.step_at(amount, unit), self.unit)
        if period:
            raise UnitError(f"'{unit}' is no fixed length in '{self.unit}' under a batch-size ramp")
        began = self.horizon.step_at(at, self.unit)
        ended = began + amount
        if unit != "st":
            ended = self.horizon.step_at(self.horizon.position(began, unit) + amount, unit)
        return self.horizon.position(ended, self.unit) - at

    def total(self, field: str) -> float:
        if self.horizon.open_end:
            raise UnitError(
                f"{field} is a part of the run, whose end is not announced yet: extend(total) "
                "announces it; until then give a length in steps"
            )
        if self.horizon.total is None:
            raise UnitError(
                f"{field} is a part of the horizon, which has no total: give Horizon(total=...)"
            )
        total = self.horizon.total
        written = total if isinstance(total, Time) else plain(total)
        return self.number(written, "Horizon.total", 0.0)

    @property
    def quantum(self) -> float:
        """One optimizer step, at the start; in seconds, which nobody knows, a 1000th of the run."""
        if self.unit == "s":
            return 1.0 if self.horizon.total is None else min(self.total("quantum") / 1000.0, 1.0)
        return 1.0 if self.unit == "st" else self.horizon.position(1, self.unit)

    def rounded(self, position: float) -> float:
        if self.unit == "s" or position == 0.0:
            return position
        total = None if self.horizon.total is None else self.total("rest")
        if total is not None and math.isclose(position, total, rel_tol=1e-12):
            return self.horizon.position(self.horizon.steps, self.unit)
        step = math.floor(self.horizon.step_at(position, self.unit) + 0.5)
        return self.horizon.position(step, self.unit)


def resolve(
    schedule: Schedule, horizon: Horizon, *, reach: Literal["end", "last"] = "end"
) -> Schedule:
    """Give the schedule in plain numbers of its `driving_unit`, with all that a horizon knows.

    Boundaries between parts fall on whole steps (rounded half up, cumulatively). `schedule(t)`
    reaches its end at t = total, one step after the last: with `reach="last"` the whole is
    stretched so that the last of the N steps, t = N-1, sees the end.

    Raises `UnitError` for a unit that the horizon cannot convert, a rest of nothing, or a part of
    an unknown total.

    >>> from stepsize import Cosine, Warmup
    >>> resolve(Warmup("5%") >> Cosine(stop=0.1), Horizon("90ep", batches_per_epoch=391))
    Warmup(1760) >> Cosine(33430, stop=0.1)
    """
    if reach not in ("end", "last"):
        raise FieldError.of("reach", "'end' or 'last'", reach)
    if not isinstance(schedule, Schedule):
        raise FieldError.of(
            "schedule", "a schedule (a Plan resolves itself: plan.resolved(horizon))", schedule
        )
    clock = HorizonClock(horizon, driving_unit(schedule, horizon))
    shared = horizon.total is not None and units_of(schedule)  # plain numbers need no total
    room = clock.total("rest") if shared else None
    if room is None and leaves_rest(schedule):
        if not horizon.open_end:
            clock.total('a "rest"')
        schedule = opened(schedule)
    tree = settled(schedule, clock, room)
    if units_of(schedule):  # plain numbers mean what they say
        tree = on_whole_steps(tree, clock)
        if tree.duration < math.inf:
            tree = fitted(tree, max(clock.rounded(tree.duration), clock.quantum)) or tree
    if clock.quantum != 1.0:
        tree = quantized(tree, clock.quantum)
    if reach == "last":
        if horizon.steps == 1:
            raise UnitError('reach="last" needs at least 2 steps: the only one sees the start')
        total = clock.total('reach="last"')
        last = horizon.position(horizon.steps - 1, clock.unit)
        tree = tree.stretched(last / total)
    return tree


def opened(node: Schedule) -> Schedule:
    """Give a schedule whose end is not known yet: the part that takes the "rest" goes on for ever.

    Only a part that stays at one value can wait; what stands behind it comes when the end is known.
    """
    if not leaves_rest(node):
        return node
    parts = getattr(node, "parts", None)
    if parts is not None:
        first = next(i for i, part in enumerate(parts) if leaves_rest(part))
        kept = (*parts[:first], opened(parts[first]))
        return kept[0] if first == 0 else dataclasses.replace(node, parts=kept)  # type: ignore[type-var]  # every family is a dataclass
    over = fields_of(node).get("over")
    optional = type(node)._rules.get("over", (None, False))[1]  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)
    if isinstance(over, Time) and over.unit == "rest":
        if optional and node.range[0] == node.range[1]:
            return dataclasses.replace(node, over=None)  # type: ignore[type-var]  # as above
        raise UnitError(
            f"{node!r} needs to know when training ends: before the end is announced only a part "
            'that stays at one value can take the "rest", such as Constant("rest")'
        )
    return rebuilt(node, lambda _, value: over_children(value, opened))


def stepwise(schedule: Schedule, horizon: Horizon | None) -> Callable[[float], float]:
    """Give the value as a function of optimizer steps, whatever the schedule is written in.

    >>> from stepsize import Linear
    >>> value = stepwise(Linear("1e6 samples"), Horizon(batch_size=100))
    >>> value(2500)
    0.75
    """
    if horizon is None:
        return schedule.compile()
    unit = driving_unit(schedule, horizon)
    value = resolve(schedule, horizon).compile()
    if unit == "st":
        return value
    return lambda step: value(horizon.position(step, unit))
