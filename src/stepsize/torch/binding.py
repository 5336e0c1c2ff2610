"""What is written where: schedules, the groups they go to, their base values, and their values."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from stepsize.drawing.series import listed
from stepsize.errors import FieldError, UnitError
from stepsize.files.description import from_dict, plain_data
from stepsize.schedules.formula import Names
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.walk import units_of
from stepsize.time import Horizon, Time, driving_unit, resolve, stepwise
from stepsize.torch.arguments import KnownBases, base_for
from stepsize.torch.groups import (
    Group,
    Slot,
    base_of,
    check_factor,
    check_group_names,
    check_key,
    held,
    is_beta,
    number,
    put,
    wanted_for,
)
from stepsize.torch.hot import Lane

if TYPE_CHECKING:
    from stepsize.look.entries import Entry

Told = dict[str, Schedule]
Row = tuple[int, int, str, float]


class Binding:
    """Schedules bound to the groups of optimizers; it knows no position, only values at steps."""

    def __init__(
        self,
        optimizers: list[Optimizer],
        common: Told,
        special: Mapping[Any, Told],
        extra: Told,
        horizon: Horizon | None,
    ) -> None:
        self.optimizers, self.horizon = optimizers, horizon
        self.common, self.special, self.extra = common, special, extra
        self.slots: list[Slot] = []
        self._seen = 0  # groups at the last look
        self.shift = 0.0  # steps by which the horizon's map is ahead, after a change of batch size
        self._compiled: dict[Schedule, Callable[[float], float]] = {}
        self.unit = self._driving_unit()
        check_group_names([group for _, _, group in self.groups()], special)
        # a number means the group it means now, whatever groups are added to other optimizers
        at = [(o, g) for o, g, _ in self.groups()]
        self._own = {at[k] if isinstance(k, int) else k: told for k, told in special.items()}
        clash = sorted({key for _, _, group in self.groups() for key in group} & set(extra))
        if clash:
            raise FieldError.of("Scheduler.extra: a name", "none of the groups' keys", clash)

    def groups(self) -> list[tuple[int, int, Group]]:
        """Every param group: its optimizer, its place there, and itself."""
        return [
            (o, g, group)
            for o, each in enumerate(self.optimizers)
            for g, group in enumerate(each.param_groups)
        ]

    def _schedules(self) -> list[Schedule]:
        told = [self.common, *self.special.values(), self.extra]
        return [schedule for each in told for schedule in each.values()]

    def _driving_unit(self) -> str:
        units = {driving_unit(schedule, self.horizon) for schedule in self._schedules()}
        if "s" in units:
            raise UnitError(
                "Scheduler: wall-clock schedules cannot be bound to an optimizer yet: "
                "write the schedule in steps, epochs, samples or tokens"
            )
        needs = [schedule for schedule in self._schedules() if units_of(schedule)]
        if needs and self.horizon is None:
            raise UnitError(
                f"Scheduler.horizon is needed: {needs[0]!r} is written in units; "
                "give horizon=Horizon(total=...) or Horizon.from_loader(loader, epochs=...)"
            )
        return next((u for u in ("tok", "samples") if u in units), "st")

    def places(self) -> list[tuple[Optimizer, int, str]]:
        """Every optimizer, group and key that the schedules are for."""
        return [
            (self.optimizers[o], g, key)
            for o, g, group in self.groups()
            for key in wanted_for(group, (o, g), self.common, self._own)
        ]

    def outdated(self) -> bool:
        """Tell whether groups were added or taken away since the last look."""
        return len(self.groups()) != self._seen

    def bind(self, bases: KnownBases) -> None:
        """Find every slot: base values are read once, and kept for groups that are known."""
        known = {(s.optimizer, s.group, s.key): s for s in self.slots}
        slots = []
        for index, (o, g, group) in enumerate(self.groups()):
            for key, schedule in wanted_for(group, (o, g), self.common, self._own).items():
                where = f"Scheduler, group {group.get('name', index)!r}, {key}"
                check_key(group, key, where)
                old = known.get((o, g, key))
                if old is None:
                    old = self._first(
                        group, (o, g, key), schedule, base_for(bases, key, index), where
                    )
                slots.append(replace(old, schedule=schedule))
                self._check(slots[-1], where)
        _check_shared(slots)
        unknown = set(bases) - {slot.key for slot in slots}
        if unknown:
            raise FieldError.of(
                "Scheduler.base: a key", "one that is scheduled", sorted(unknown, key=str)
            )
        self.slots, self._seen = slots, len(self.groups())
        for slot in slots:  # all is checked: only now is anything written
            self._mark(self.optimizers[slot.optimizer].param_groups[slot.group], slot)

    def _first(
        self,
        group: Group,
        place: tuple[int, int, str],
        schedule: Schedule,
        explicit: float | None,
        where: str,
    ) -> Slot:
        present = held(group, place[2])
        base, remark = base_of(group, place[2], explicit, where)
        if remark and not schedule.is_absolute:
            warnings.warn(remark, stacklevel=5)
        tensor = present if isinstance(present, Tensor) else None
        return Slot(*place, schedule, base, tensor)

    def _check(self, slot: Slot, where: str) -> None:
        peak = self._peak(slot.schedule)
        check_factor(slot.schedule, peak, slot.base, where)
        if is_beta(slot.key) and slot.scale * peak >= 1.0:
            raise FieldError.of(f"{where}: its peak", "below 1", slot.scale * peak)

    def _mark(self, group: Group, slot: Slot) -> None:
        """Leave the base value in the group, and the tensor that others hold."""
        if slot.tensor is not None and held(group, slot.key) is not slot.tensor:
            put(group, slot.key, slot.tensor)  # a loaded optimizer has made another
        group[f"initial_{slot.key}"] = slot.base

    def _peak(self, schedule: Schedule) -> float:
        high = schedule.range[1]
        if high < math.inf:
            return high
        value, last = self.value_of(schedule), 1_000_000
        if self.horizon is not None and self.horizon.total is not None:
            last = self.horizon.steps
        return max(value(float(last * i // 256)) for i in range(257))

    def value_of(self, schedule: Schedule) -> Callable[[float], float]:
        """Give the compiled schedule as a function of steps; compiled once."""
        if schedule not in self._compiled:
            value, shift = stepwise(schedule, self.horizon), self.shift
            moved = shift and driving_unit(schedule) != "st"
            self._compiled[schedule] = (lambda step: value(step + shift)) if moved else value
        return self._compiled[schedule]

    def _formula_of(self, schedule: Schedule) -> Callable[[Any, Names], Any]:
        """Give the schedule's formula of steps, for the hot path."""
        if driving_unit(schedule) == "st":
            tree = schedule if self.horizon is None else resolve(schedule, self.horizon)
            return tree._value  # noqa: SLF001 (compiled into the hot path, as `compile` does)
        value = self.value_of(schedule)
        return lambda t, xp: xp.call(value, t)

    def lanes(self) -> list[Lane]:
        """One lane per key and distinct schedule, so that a value is computed once."""
        lanes: dict[tuple[str, Schedule], list[tuple[Group, Slot]]] = {}
        for slot in self.slots:
            group = self.optimizers[slot.optimizer].param_groups[slot.group]
            lanes.setdefault((slot.key, slot.schedule), []).append((group, slot))
        return [Lane(key, self._formula_of(s), places) for (key, s), places in lanes.items()]

    def at(self, step: float) -> dict[str, Any]:
        """Give every value at a step: a list by group for each key, a number for each extra."""
        keys = {"lr": None, **dict.fromkeys(slot.key for slot in self.slots)}
        found: dict[str, Any] = {}
        for key in keys:
            slots = {(s.optimizer, s.group): s for s in self.slots if s.key == key}
            found[key] = [
                slots[o, g].scale * self.value_of(slots[o, g].schedule)(step)
                if (o, g) in slots
                else _present(group, key)
                for o, g, group in self.groups()
            ]
        return found | {name: self.value_of(s)(step) for name, s in self.extra.items()}

    def tracks(self) -> "Iterator[Entry]":
        """Every scheduled value; groups that do the same are one."""
        from stepsize.look.entries import Entry  # noqa: PLC0415 (only for who looks)

        groups = self.groups()
        names = [self._group_name(index, place) for index, place in enumerate(groups)]
        same: dict[tuple[str, Schedule, float], list[str]] = {}
        zeros: dict[tuple[str, Schedule, float], list[str]] = {}
        for name, (o, g, _) in zip(names, groups, strict=True):
            for slot in (slot for slot in self.slots if (slot.optimizer, slot.group) == (o, g)):
                what = (slot.key, slot.schedule, slot.scale)
                same.setdefault(what, []).append(name)
                if slot.base == 0.0:
                    zeros.setdefault(what, []).append(name)
        for what, held_by in sorted(same.items(), key=_rate_first):
            name = "" if len(held_by) == len(groups) else listed(held_by, 4)
            none = tuple(zeros.get(what, ()))
            yield Entry(what[0], name, *what[1:], shift=self.shift, zeros=none)
        for name, schedule in self.extra.items():
            yield Entry(name, "", schedule, 1.0, extra=True, shift=self.shift)

    def _group_name(self, index: int, place: tuple[int, int, Group]) -> str:
        optimizer, _, group = place
        several = f" of optimizer {optimizer}" if len(self.optimizers) > 1 else ""
        return f"{group.get('name', f'group {index}')}{several}"

    # For a state ------------------------------------------------------------------------------

    def position(self, step: float) -> float:
        """Convert a number of steps to the driving unit."""
        if self.horizon is None or self.unit == "st":
            return float(step)
        return float(self.horizon.position(step + self.shift, self.unit))

    def move(self, step: float, position: float, unit: str) -> None:
        """Let a position in the driving unit be that of a number of steps."""
        self.shift = 0.0
        if self.horizon is not None and self.unit == unit != "st":
            self.shift = self.horizon.step_at(position, unit) - step
        self._compiled.clear()

    def rows(self) -> list[Row]:
        """Every slot's place and base value."""
        return [(s.optimizer, s.group, s.key, s.base) for s in self.slots]

    def rebase(self, rows: list[Row]) -> None:
        """Take base values from rows, where their slots are."""
        bases = {(o, g, key): base for o, g, key, base in rows}
        self.slots = [
            replace(s, base=bases.get((s.optimizer, s.group, s.key), s.base)) for s in self.slots
        ]

    def described(self) -> dict[str, Any]:
        """Everything that must agree for a position to mean the same, as plain data."""
        told: dict[str, Any] = {
            "schedules": _data(self.common),
            "groups": {str(g): _data(own) for g, own in sorted(self.special.items(), key=str)},
            "extra": _data(self.extra),
        }
        units: set[str] = set().union(*map(units_of, self._schedules()))
        if self.horizon is not None and units & {"%", "rest"}:
            told["total"] = self.horizon.position(self.horizon.steps, self.unit)
        if self.horizon is not None and "ep" in units:
            told["epoch"] = self.horizon.position(self.horizon.step_at(1.0, "ep"), self.unit)
        return told

    def adopted(self, description: dict[str, Any]) -> "Binding":
        """Give a binding of a description's schedules and total to the same groups."""
        names = {str(g): g for g in range(len(self.groups()))}
        special = {names.get(g, g): _read(own) for g, own in description["groups"].items()}
        common, extra = _read(description["schedules"]), _read(description["extra"])
        horizon = self.horizon
        if "total" in description:
            units = set(map(driving_unit, (*common.values(), *extra.values())))
            unit = next((u for u in ("tok", "samples") if u in units), "st")
            amount = float(description["total"])
            total = amount if unit == "st" else Time(amount, unit)
            horizon = Horizon(total) if horizon is None else replace(horizon, total=total)
        made = Binding(self.optimizers, common, special, extra, horizon)
        made.slots = self.slots
        made.bind({})
        return made


def _check_shared(slots: list[Slot]) -> None:
    """Raise `FieldError` where one tensor would have to hold two values."""
    holders: dict[int, Slot] = {}
    for slot in slots:
        if slot.tensor is None:
            continue
        other = holders.setdefault(id(slot.tensor), slot)
        if (other.schedule, other.scale) != (slot.schedule, slot.scale):
            raise FieldError.of(
                f"Scheduler, {slot.key}",
                "a tensor of its own in every group that differs",
                f"one tensor in groups {other.group} and {slot.group}",
                "torch shares the default rate: give each group its own torch.tensor(...)",
            )


def _rate_first(row: tuple[tuple[str, Schedule, float], list[str]]) -> bool:
    return row[0][0] != "lr"


def _data(told: Mapping[str, Schedule]) -> dict[str, Any]:
    return {name: plain_data(schedule) for name, schedule in sorted(told.items())}


def _read(data: dict[str, Any]) -> Told:
    made = {name: from_dict({"format": 1, "schedule": each}) for name, each in data.items()}
    return {name: each for name, each in made.items() if isinstance(each, Schedule)}


def _present(group: Group, key: str) -> float | None:
    try:
        return number(held(group, key))
    except KeyError:
        return None
