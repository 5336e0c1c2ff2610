"""What pictures, words and logs show of a bound scheduler."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stepsize.drawing.series import listed
from stepsize.look.entries import Entry
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.tables import Piecewise
from stepsize.time import driving_unit
from stepsize.torch.binding import Binding, group_names
from stepsize.torch.groups import is_number, number
from stepsize.units import Time

if TYPE_CHECKING:
    from stepsize.torch.groups import Slot

_EFFECTIVE = "d"  # what scales the rate of parameter-free optimizers (D-Adaptation, Prodigy)


def tracks(bound: Binding) -> Iterator[Entry]:
    """Every scheduled value as it was used and is planned; groups that do the same are one."""
    groups = bound.groups()
    names = dict(zip(((o, g) for o, g, _ in groups), _names(bound), strict=True))
    same: dict[tuple[str, Schedule, float], list[Slot]] = {}
    for slot in sorted(bound.slots, key=lambda s: list(names).index((s.optimizer, s.group))):
        same.setdefault((slot.key, slot.schedule, slot.scale), []).append(slot)
    for (key, schedule, scale), slots in sorted(same.items(), key=lambda row: row[0][0] != "lr"):
        held_by = [names[s.optimizer, s.group] for s in slots]
        name = "" if len(held_by) == len(groups) else listed(held_by, 4)
        none = tuple(names[s.optimizer, s.group] for s in slots if s.base == 0.0)
        yield Entry(key, name, _used(bound, key, schedule), scale, shift=bound.shift, zeros=none)
    for name, schedule in bound.told.extra.items():
        used = _used(bound, name, schedule)
        yield Entry(name, "", used, 1.0, extra=True, shift=bound.shift)


def _used(bound: Binding, key: str, schedule: Schedule) -> Schedule:
    """Give a schedule times what controllers have multiplied it with (for all groups)."""
    unit = driving_unit(schedule, bound.told.horizon)
    if unit == "st" and bound.ahead:
        schedule = bound.told.tree(schedule).shifted(-bound.ahead)
    timed = unit == "s"
    rows = [row for row in bound.controlled.history if row[1] == key]
    table = {0.0: 1.0} | {row[0]: row[2] for row in rows}
    if timed:
        table = {Time(0.0, "s"): 1.0} | {Time(row[4], "s"): row[2] for row in rows}
    return schedule * Piecewise(table) if len(table) > 1 else schedule


def _names(bound: Binding) -> list[str]:
    """Give a name to every group; one that has a name like another's has its number too."""
    names = list(group_names(bound.groups(), len(bound.optimizers)))
    return [f"{n} {i}" if n in names[:i] else n for i, n in enumerate(names)]


def logged(bound: Binding, step: int) -> dict[str, float]:
    """Give every scheduled value by name, controllers' factors, and effective rates."""
    groups, found = bound.groups(), {}
    names = dict(zip(((o, g) for o, g, _ in groups), _names(bound), strict=True))
    for slot in bound.slots:
        name = f"/{names[slot.optimizer, slot.group]}" if len(groups) > 1 else ""
        found[f"{slot.key}{name}"] = bound.slot_value(slot, step)
        scale = _number(bound.group_of(slot).get(_EFFECTIVE))
        if slot.key == "lr" and scale is not None:
            found[f"effective_lr{name}"] = scale * found[f"lr{name}"]
    found |= {name: bound.extra_at(name, step) for name in bound.told.extra}
    for each, state in zip(bound.controlled.given, bound.controlled.states, strict=True):
        found[f"factor/{each.kind}"] = state["factor"] * found.get(f"factor/{each.kind}", 1.0)
    return found


def _number(value: Any) -> float | None:
    return number(value) if is_number(value) else None
