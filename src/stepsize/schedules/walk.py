"""Walks over trees of schedules that need to know no family but by its fields."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from stepsize.errors import UnitError
from stepsize.schedules.fields import LengthRule, MomentsRule, TableRule
from stepsize.schedules.schedule import Schedule, fields_of
from stepsize.units import Time, plain

S = TypeVar("S", bound=Schedule)


def rebuilt(node: S, change: Callable[[str, Any], Any]) -> S:
    """Give the node with every field's value changed; the node itself where nothing changes."""
    fields = fields_of(node)
    changed = {name: change(name, value) for name, value in fields.items()}
    if all(changed[name] is value for name, value in fields.items()):
        return node
    return dataclasses.replace(node, **changed)  # type: ignore[type-var]  # every family is a dataclass


def over_children(value: Any, change: Callable[[Schedule], Schedule]) -> Any:
    """Change the schedules in a field's value: one, or a tuple of them."""
    if isinstance(value, Schedule):
        return change(value)
    if isinstance(value, tuple) and value and isinstance(value[0], Schedule):
        changed = tuple(map(change, value))
        return value if all(a is b for a, b in zip(changed, value, strict=True)) else changed
    return value


def children_of(node: Schedule) -> Iterator[Schedule]:
    """The schedules that a node is made of."""
    for value in fields_of(node).values():
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, Schedule):
                yield child


def nodes(tree: Schedule) -> Iterator[Schedule]:
    """Every node of a tree, the root first."""
    yield tree
    for child in children_of(tree):
        yield from nodes(child)


def times_of(value: Any) -> Iterator[Time]:
    """Every unresolved time in a field's value."""
    if isinstance(value, Time):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from times_of(item)


def units_of(tree: Schedule) -> set[str]:
    """The units that a tree is written in, `rest` among them; empty for one in plain numbers."""
    return {t.unit for node in nodes(tree) for v in fields_of(node).values() for t in times_of(v)}


def leaves_rest(tree: Schedule) -> bool:
    """Tell whether a tree takes "the rest" of the room around it."""
    fields = fields_of(tree)
    if any(t.unit == "rest" for value in fields.values() for t in times_of(value)):
        return True
    return tree._room() is None and any(map(leaves_rest, children_of(tree)))  # noqa: SLF001 (a walk is a friend)


def quantized(tree: Schedule, quantum: float) -> Schedule:
    """Fix the default first value of every warmup for time that moves in jumps of `quantum`."""
    own = tree._quantized(quantum)  # noqa: SLF001 (a walk is a friend)
    if own is not None:
        return own
    return rebuilt(tree, lambda _, value: over_children(value, lambda c: quantized(c, quantum)))


class Clock(Protocol):
    """What it takes to turn lengths of time into numbers of one driving unit."""

    def number(self, time: float | Time, field: str) -> float:
        """Convert steps (a plain number) or a time that is not "rest"."""

    def rounded(self, position: float) -> float:
        """Give the position of the nearest whole step."""


class PlainClock:
    """Plain numbers stay as they are; there is nothing to convert."""

    def number(self, time: float | Time, field: str) -> float:
        return plain(time, field)

    def rounded(self, position: float) -> float:
        return position


def settled(node: Schedule, clock: Clock, room: float | None, at: float = 0.0) -> Schedule:
    """Give a tree in plain numbers of the clock's unit.

    `room` is what "rest" means here (None: nothing is left to mean), `at` where the node begins.
    """
    own = node._settled(settled, clock, room, at)  # noqa: SLF001 (a walk is a friend)
    if own is not None:
        return own
    rules: dict[str, Any] = type(node)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)

    def number(time: Any, name: str) -> float:
        if isinstance(time, Time) and time.unit == "rest":
            return _rest(room, f"{type(node).__name__}.{name}")
        return clock.number(time, f"{type(node).__name__}.{name}")

    inside = room if node._room() is None else number(node._room(), "every")  # noqa: SLF001

    def change(name: str, value: Any) -> Any:
        rule = rules[name][0] if name in rules else None
        if value is not None and isinstance(rule, LengthRule):
            return number(value, name)
        if isinstance(rule, MomentsRule):
            return tuple(number(moment, name) for moment in value)
        if isinstance(rule, TableRule):
            return tuple((number(moment, name), level) for moment, level in value)
        return over_children(value, lambda child: settled(child, clock, inside, at))

    return rebuilt(node, change)


def _rest(room: float | None, field: str) -> float:
    if room is None:
        raise UnitError(
            f'{field} is "rest", but the horizon has no total to leave a rest of: '
            "give Horizon(total=...) or the length"
        )
    if room <= 0:
        raise UnitError(
            f'{field} is "rest", but the other parts leave nothing over: '
            "make them shorter or the horizon longer"
        )
    return room


def settled_parts(
    parts: tuple[Schedule, ...], clock: Clock, room: float | None, at: float
) -> list[Schedule]:
    """Give the parts of a sequence in plain numbers, their boundaries rounded to whole steps.

    Rounding is cumulative, so that the parts add up to the room; a part of less than half a step
    drops out.
    """
    found = {i: settled(p, clock, None, at) for i, p in enumerate(parts) if not leaves_rest(p)}
    if len(found) < len(parts):
        used = math.fsum(part.duration for part in found.values())
        rest = None if room is None else room - used
        found |= {i: settled(p, clock, rest, at) for i, p in enumerate(parts) if i not in found}
    kept, position, boundary = [], at, at
    for i in range(len(parts)):
        position += found[i].duration
        if position == math.inf:
            kept.append(found[i])
            break
        length = clock.rounded(position) - boundary
        boundary += length
        if length > 0:
            kept.append(fitted(found[i], length))
    return kept


def fitted(node: Schedule, length: float) -> Schedule:
    """Give the node with another duration: a ramp's own length, or the whole stretched."""
    fields = fields_of(node)
    if node.duration == length:
        return node
    if fields.get("over") is not None:
        return dataclasses.replace(node, over=length)  # type: ignore[type-var]  # every family is a dataclass
    child = fields.get("of")
    if isinstance(child, Schedule) and child.duration == node.duration:
        return dataclasses.replace(node, of=fitted(child, length))  # type: ignore[type-var]  # as above
    return node.stretched(length / node.duration)
