"""Walks over trees of schedules that need to know no family but by its fields."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from stepsize.errors import FieldError, NoRoomError, UnitError
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

    def number(self, time: float | Time, field: str, at: float) -> float:
        """Convert steps (a plain number) or a time but "rest", of a part that begins `at`."""

    def rounded(self, position: float) -> float:
        """Give the position of the nearest whole step."""


class PlainClock:
    """Plain numbers stay as they are; there is nothing to convert."""

    def number(self, time: float | Time, field: str, at: float) -> float:
        del at
        return plain(time, field)

    def rounded(self, position: float) -> float:
        return position


def settled(node: Schedule, clock: Clock, room: float | None, at: float = 0.0) -> Schedule:
    """Give a tree in plain numbers of the clock's unit.

    `room` is what "rest" means here (None: nothing is left to mean), `at` where the node begins.
    """
    own = node._settled(clock, room, at)  # noqa: SLF001 (a walk is a friend)
    if own is not None:
        return own
    rules: dict[str, Any] = type(node)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)

    def number(time: Any, name: str) -> float:
        field = f"{type(node).__name__}.{name}"
        if isinstance(time, Time) and time.unit == "rest":
            return _rest(room, field)
        return clock.number(time, field, at)

    every = None if node._room() is None else number(node._room(), "every")  # noqa: SLF001
    inside = node._room_inside(room if every is None else every)  # noqa: SLF001

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
        raise NoRoomError(
            f'{field} is "rest", but the other parts leave nothing over: '
            "make them shorter or the horizon longer"
        )
    return room


def settled_parts(
    parts: tuple[Schedule, ...], clock: Clock, room: float | None, at: float
) -> tuple[Schedule, ...]:
    """Give the parts of a sequence in plain numbers; one may fill what the others leave."""
    found: list[Schedule] = []
    begin = at
    for i, part in enumerate(parts):
        if leaves_rest(part):
            after = settled_parts(parts[i + 1 :], clock, None, begin) if parts[i + 1 :] else ()
            used = math.fsum(each.duration for each in (*found, *after))
            if used == math.inf:
                raise UnitError(
                    'the "rest" of a sequence needs an end, but another part never ends: '
                    "give that part a length, or cut it: schedule.cut(length)"
                )
            found.append(_filling(part, clock, None if room is None else room - used, begin))
        else:
            found.append(settled(part, clock, None, begin))
        begin += found[-1].duration
        if begin == math.inf and i + 1 < len(parts):
            cure = 'give it a length, such as Constant("rest") or schedule.cut("30ep")'
            raise FieldError.of(f"Sequence.parts[{i}]", "a part that ends", part, cure)
    return tuple(found)


def _filling(part: Schedule, clock: Clock, rest: float | None, begin: float) -> Schedule:
    """Give a part that takes the rest, and no more of it: a hold may end later than its room."""
    made = settled(part, clock, rest, begin)
    return made if rest is None or made.duration <= rest * (1 + 1e-12) else made.cut(rest)


def on_whole_steps(node: Schedule, clock: Clock, begin: float = 0.0) -> Schedule:
    """Give a tree whose boundaries between parts fall on whole steps.

    Every boundary is rounded where it lies in the run, so that parts add up whatever is nested in
    them; what runs in a time of its own (a cycle, a stretch) keeps its boundaries.
    """
    inside = node._begins_inside(begin)  # noqa: SLF001 (a walk is a friend)
    if inside is None:
        return node
    parts = getattr(node, "parts", None)
    if parts is None:
        return rebuilt(
            node, lambda _, value: over_children(value, lambda c: on_whole_steps(c, clock, inside))
        )
    kept, position, edge = [], begin, clock.rounded(begin)
    for part in parts:
        end = position + part.duration
        if end == math.inf:
            kept.append(on_whole_steps(part, clock, position))
            break
        length = clock.rounded(end) - edge
        if length > 0:  # a part of less than half a step drops out
            kept.append(with_length(on_whole_steps(part, clock, position), length))
        position, edge = end, edge + length
    if not kept:
        raise UnitError(f"{node!r} is shorter than half a step")
    return kept[0] if len(kept) == 1 else dataclasses.replace(node, parts=tuple(kept))  # type: ignore[type-var]  # every family is a dataclass


def with_length(node: Schedule, length: float) -> Schedule:
    """Give the node with another duration: by the length that makes it up, or cut off."""
    return fitted(node, length) or node.cut(length)


def fitted(node: Schedule, length: float) -> Schedule | None:
    """Give the node with another duration where a length of its own makes it up; None elsewhere.

    Refused alternative: stretching whatever it is, which moves the restarts and drops inside.
    """
    fields = fields_of(node)
    if node.duration == length:
        return node
    if fields.get("over") == node.duration:
        return dataclasses.replace(node, over=length)  # type: ignore[type-var]  # every family is a dataclass
    child = fields.get("of")
    if node._own_time or not isinstance(child, Schedule) or child.duration != node.duration:  # noqa: SLF001
        return None
    inner = fitted(child, length)
    return None if inner is None else dataclasses.replace(node, of=inner)  # type: ignore[type-var]  # as above
