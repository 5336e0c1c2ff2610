"""What a bound scheduler's values are: compiled schedules, hot lanes, values at steps."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.schedules.formula import Names
from stepsize.schedules.schedule import Schedule
from stepsize.time import driving_unit
from stepsize.torch.arguments import KnownBases
from stepsize.torch.clock import Clock
from stepsize.torch.controlled import Controlled
from stepsize.torch.groups import (
    Group,
    Slot,
    held,
    number,
)
from stepsize.torch.hot import Lane, Pulled
from stepsize.torch.told import Place, Told

Row = tuple[int, int, str, float]


class Valued:
    """Schedules at the places they go to, as values at steps; `Binding` finds the places."""

    def __init__(
        self,
        optimizers: list[Optimizer],
        told: Told,
        controlled: Controlled,
        floors: KnownBases,
        clock: Clock,
    ) -> None:
        self.optimizers, self.told, self.controlled = optimizers, told, controlled
        self.floors, self.clock = floors, clock
        self.slots: list[Slot] = []
        self.remarks: list[str] = []  # on base values, unless a state says what they are
        self.shift = 0.0  # steps by which the horizon's map is ahead, after a change of batch size
        self._seen: list[tuple[Place, Group]] = []  # groups at the last look
        self._compiled: dict[Schedule, Callable[[float], float]] = {}
        self._pulled: list[tuple[list[Slot], Pulled]] = []
        clash = sorted({key for _, _, group in self.groups() for key in group} & set(told.extra))
        if clash:
            raise FieldError.of("Scheduler.extra: a name", "none of the groups' keys", clash)

    def groups(self) -> list[tuple[int, int, Group]]:
        """Every param group: its optimizer, its place there, and itself."""
        return [
            (o, g, group)
            for o, each in enumerate(self.optimizers)
            for g, group in enumerate(each.param_groups)
        ]

    @property
    def ahead(self) -> float:
        """Steps by which schedules in steps are ahead: only where it is epochs that count."""
        return self.shift if self.told.unit == "ep" else 0.0

    def value_of(self, schedule: Schedule) -> Callable[[float], float]:
        """Give the compiled schedule as a function of steps; compiled once.

        What wall-clock time moves has the value of the present time, whatever the step.
        """
        if schedule not in self._compiled:
            self._compiled[schedule] = self._stepwise(schedule, self.told.tree(schedule).compile())
        return self._compiled[schedule]

    def _stepwise(
        self, schedule: Schedule, value: Callable[[float], float]
    ) -> Callable[[float], float]:
        horizon, shift, clock = self.told.horizon, self.shift, self.clock
        unit = driving_unit(schedule, horizon)
        if horizon is None or (unit == "st" and not self.ahead):
            return value
        if unit == "st":
            ahead = self.ahead
            return lambda step: value(step + ahead)
        if unit == "s":
            return lambda _step: value(clock.seconds)
        return lambda step: value(horizon.position(step + shift, unit))

    def _formula_of(self, schedule: Schedule) -> Callable[[Any, Names], Any]:
        """Give the schedule's formula of steps, for the hot path."""
        if driving_unit(schedule, self.told.horizon) == "st" and not self.ahead:
            return self.told.tree(schedule)._value  # noqa: SLF001 (compiled into the hot path, as `compile` does)
        value = self.value_of(schedule)
        return lambda t, xp: xp.call(value, t)

    def lanes(self) -> list[Lane]:
        """One lane per key and distinct schedule, so that a value is computed once."""
        lanes: dict[tuple[str, Schedule], list[Slot]] = {}
        for slot in self.slots:
            lanes.setdefault((slot.key, slot.schedule), []).append(slot)
        found, self._pulled = [], []
        for (key, schedule), slots in lanes.items():
            places = [(self.group_of(slot), slot) for slot in slots]
            pulled = None
            if self.controlled.reaching(key):
                pulled = Pulled(places, floored=self.controlled.floored(key))
                self._pulled.append((slots, pulled))
            found.append(Lane(key, self._formula_of(schedule), places, pulled))
        self.pull()
        return found

    def pull(self) -> None:
        """Let the hot path know what the controllers multiply with now."""
        for slots, pulled in self._pulled:
            pulled.set([self._pull_of(slot) for slot in slots])

    def _pull_of(self, slot: Slot) -> tuple[float, float]:
        group, controlled = self.group_of(slot), self.controlled
        pull = controlled.pull(slot.key, group, slot.index)
        return pull, controlled.low(slot.key, group, slot.index)

    def group_of(self, slot: Slot) -> Group:
        """Give the param group of a slot."""
        group: Group = self.optimizers[slot.optimizer].param_groups[slot.group]
        return group

    def slot_value(self, slot: Slot, step: float) -> float:
        """Give what is written for a slot at a step, with what controllers say now."""
        value = self.value_of(slot.schedule)(step)
        if not self.controlled.reaching(slot.key):
            return slot.scale * value
        pull, low = self._pull_of(slot)
        return max(slot.scale * pull * value, min(low, slot.scale * value))

    def at(self, step: float) -> dict[str, Any]:
        """Give every value at a step: a list by group for each key, a number for each extra."""
        keys = {"lr": None, **dict.fromkeys(slot.key for slot in self.slots)}
        found: dict[str, Any] = {}
        for key in keys:
            slots = {(s.optimizer, s.group): s for s in self.slots if s.key == key}
            found[key] = [
                self.slot_value(slots[o, g], step) if (o, g) in slots else _present(group, key)
                for o, g, group in self.groups()
            ]
        return found | {name: self.extra_at(name, step) for name in self.told.extra}

    def extra_at(self, name: str, step: float) -> float:
        """Give an extra value at a step."""
        value, controlled = self.value_of(self.told.extra[name])(step), self.controlled
        return max(value * controlled.factor(name), min(controlled.low(name, {}, -1), value))


def _present(group: Mapping[str, Any], key: str) -> float | None:
    try:
        return number(held(dict(group), key))
    except KeyError:
        return None
