"""What is written where: the groups that schedules go to, their base values, and their values."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from torch import Tensor
from torch.optim import Optimizer

from stepsize.errors import FieldError, UnitError
from stepsize.schedules.schedule import Schedule
from stepsize.torch.arguments import KnownBases, base_for
from stepsize.torch.groups import (
    Group,
    Slot,
    base_of,
    check_bases,
    check_factor,
    check_key,
    held,
    is_beta,
    put,
    wanted_for,
)
from stepsize.torch.told import Place, Told
from stepsize.torch.values import Valued

Row = tuple[int, int, str, float]

_ROUNDING = 1e-12  # of a conversion from steps and back


class Binding(Valued):
    """Schedules bound to the groups of optimizers; it knows no position, only values at steps."""

    def places(self) -> list[tuple[Optimizer, int, str]]:
        """Every optimizer, group and key that the schedules are for."""
        return [
            (self.optimizers[o], g, key)
            for o, g, group in self.groups()
            for key in wanted_for(group, (o, g), self.told.common, self.told.special)
        ]

    def outdated(self) -> bool:
        """Tell whether groups were added, taken away or replaced since the last look."""
        seen = [id(group) for _, group in self._seen]
        return [id(group) for _, _, group in self.groups()] != seen

    def use(self, told: Told, now: float = 0.0) -> None:
        """Take other schedules for the same groups, at a step."""
        self.told = told
        self._compiled.clear()
        self.controlled.resolve(told.horizon, now)

    # Groups -------------------------------------------------------------------------------------

    def bind(self, bases: KnownBases) -> None:
        """Find every slot: base values are read once, and kept for groups that are known."""
        told, kept = self._moved()
        known = {(s.optimizer, s.group, s.key): s for s in kept}
        slots = []
        for place, (o, g, group) in enumerate(self.groups()):
            index = next((s.index for s in kept if (s.optimizer, s.group) == (o, g)), place)
            for key, schedule in wanted_for(group, (o, g), told.common, told.special).items():
                where = f"Scheduler, group {group.get('name', place)!r}, {key}"
                check_key(group, key, where)
                old = known.get((o, g, key))
                if old is None:
                    blank = Slot(o, g, key, schedule, 0.0, None, index)
                    old = self._new(group, blank, bases, where)
                slots.append(replace(old, schedule=_floored(schedule, old.base, old.floor)))
                self._check(slots[-1], where)
        _check_shared(slots, self._floors_of)
        check_bases(slots)
        for what, given in (("base", bases), ("floor", self.floors)):
            if unknown := set(given) - {slot.key for slot in slots}:
                shown = sorted(unknown, key=str)
                raise FieldError.of(f"Scheduler.{what}: a key", "one that is scheduled", shown)
        if told is not self.told:
            self.use(told)
        self.slots = slots
        self._seen = [((o, g), group) for o, g, group in self.groups()]
        for slot in slots:  # all is checked: only now is anything written
            self._mark(self.optimizers[slot.optimizer].param_groups[slot.group], slot)

    def _floors_of(self, slot: Slot) -> tuple[float, float]:
        """Give how low controllers may take a slot, as a factor and as a value."""
        return self.controlled.floors(slot.key, self.group_of(slot), slot.index)

    def moves(self) -> dict[Place, Place] | None:
        """Give where the groups have moved to, where some were taken away; None otherwise."""
        now = {id(group): (o, g) for o, g, group in self.groups()}
        places = {was: now[id(group)] for was, group in self._seen if id(group) in now}
        gone = len(places) < len(self._seen) and bool(places)
        return places if gone else None  # all are others after load_state_dict: the same places

    def _moved(self) -> tuple[Told, list[Slot]]:
        places = self.moves()
        if places is None:
            return self.told, self.slots
        kept = [(s, places.get((s.optimizer, s.group))) for s in self.slots]
        slots = [replace(s, optimizer=at[0], group=at[1]) for s, at in kept if at is not None]
        return self.told.moved(places), slots

    def _new(self, group: Group, slot: Slot, bases: KnownBases, where: str) -> Slot:
        """Give a slot its base value, its tensor and its floor."""
        key, later = slot.key, bool(self._seen)
        explicit = base_for(bases, key, slot.index, later=later, name=group.get("name"))
        floor = base_for(self.floors, key, slot.index, "floor", later=later, name=group.get("name"))
        present = held(group, key)
        base, remark = base_of(group, key, explicit, where)
        if remark and not slot.schedule.is_absolute:
            self.remarks.append(remark)
        tensor = present if isinstance(present, Tensor) else None
        return replace(slot, base=base, tensor=tensor, floor=floor)

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
        value, last, horizon = self.value_of(schedule), 1_000_000, self.told.horizon
        if horizon is not None and horizon.total is not None and not self.told.timed:
            last = horizon.steps
        return max(value(float(last * i // 256)) for i in range(257))

    # For a state --------------------------------------------------------------------------------

    def position(self, step: float) -> float:
        """Convert a number of steps to the driving unit."""
        if self.told.horizon is None or self.told.unit == "st":
            return float(step)
        return float(self.told.horizon.position(step + self.shift, self.told.unit))

    def positions(self, step: float) -> dict[str, float]:
        """Give the same moment in every unit that the horizon knows."""
        found, horizon = {"st": float(step), "s": self.clock.seconds}, self.told.horizon
        for unit in ("ep", "samples", "tok"):
            try:
                known = horizon is not None and horizon.position(step + self.shift, unit)
            except UnitError:
                continue
            if horizon is not None:
                found[unit] = float(known)
        return found

    def shift_for(self, step: float, position: float, unit: str) -> float:
        """Give the shift that makes a position in the driving unit that of a number of steps."""
        if self.told.horizon is None or not self.told.unit == unit != "st":
            return 0.0
        shift = self.told.horizon.step_at(position, unit) - step
        return shift if abs(shift) > _ROUNDING * max(step, 1.0) else 0.0

    def move(self, shift: float) -> None:
        """Take another shift."""
        self.shift = shift
        self._compiled.clear()

    def rows(self) -> list[Row]:
        """Every slot's place and base value."""
        return [(s.optimizer, s.group, s.key, s.base) for s in self.slots]

    def rebase(self, rows: list[Row]) -> list[tuple[Slot, float]]:
        """Take base values from rows, where their slots are; give the slots where others stood."""
        bases = {(o, g, key): base for o, g, key, base in rows}
        before = self.slots
        self.slots = [
            replace(s, base=bases.get((s.optimizer, s.group, s.key), s.base)) for s in before
        ]
        both = zip(self.slots, before, strict=True)
        return [(now, was.base) for now, was in both if now.base != was.base]

    def refloor(self, floors: Mapping[str, list[float | None]]) -> None:
        """Take floors by key as lists by group."""
        index = {place[:2]: i for i, place in enumerate(self.groups())}
        rows = [(floors.get(s.key), index[s.optimizer, s.group]) for s in self.slots]
        self.slots = [
            replace(s, floor=None if row is None else row[i])
            for s, (row, i) in zip(self.slots, rows, strict=True)
        ]


def group_names(groups: list[tuple[int, int, Group]], optimizers: int) -> Iterator[str]:
    """Give every group's name, or its number where it has none."""
    for index, (o, _, group) in enumerate(groups):
        several = f" of optimizer {o}" if optimizers > 1 else ""
        yield f"{group.get('name', f'group {index}')}{several}"


def _floored(schedule: Schedule, base: float, floor: float | None) -> Schedule:
    if not floor:
        return schedule
    scale = 1.0 if schedule.is_absolute else base
    return schedule.clipped(low=floor / scale) if scale else schedule


def _check_shared(slots: list[Slot], floors: Callable[[Slot], tuple[float, float]]) -> None:
    """Raise `FieldError` where one tensor would have to hold two values."""
    holders: dict[int, Slot] = {}
    for slot in slots:
        if slot.tensor is None:
            continue
        other = holders.setdefault(id(slot.tensor), slot)
        if (other.schedule, other.scale, *floors(other)) != (
            slot.schedule,
            slot.scale,
            *floors(slot),
        ):
            raise FieldError.of(
                f"Scheduler, {slot.key}",
                "a tensor of its own in every group that differs",
                f"one tensor in groups {other.group} and {slot.group}",
                "torch shares the default rate: give each group its own torch.tensor(...)",
            )
