"""When a resolved schedule may jump or bend."""

import math
from collections.abc import Iterator
from typing import Any

from stepsize.schedules.fields import LengthRule, MomentsRule, TableRule
from stepsize.schedules.schedule import Schedule, fields_of
from stepsize.schedules.walk import children_of

_ENDS = 64  # of many repetitions, those at either end


def moments_of(tree: Schedule, until: float) -> set[float]:
    """Give the moments before `until` at which a resolved schedule may jump or bend.

    The ends of parts, the moments and points of tables, the multiples of periods; of very many
    repetitions the first and the last. A family is known by the rules of its fields, or says it
    itself (`Schedule._moments`).

    >>> sorted(moments_of(Warmup(10) >> MultiStep((30, 60)), 100))
    [10.0, 40.0, 70.0]
    """
    return {moment for moment in _moments(tree, until) if 0.0 < moment < until}


def _moments(tree: Schedule, until: float) -> Iterator[float]:
    own = tree._moments(until)  # noqa: SLF001 (a walk is a friend)
    if own is not None:
        yield from own
        return
    yield tree.duration
    periods = ("every", "over") if tree.duration == math.inf else ("every",)
    rules: dict[str, tuple[Any, bool]] = type(tree)._rules  # type: ignore[attr-defined]  # noqa: SLF001 (set by @schedule)
    for name, value in fields_of(tree).items():
        rule = rules[name][0] if name in rules else None
        if isinstance(rule, MomentsRule):
            yield from value
        elif isinstance(rule, TableRule):
            yield from (moment for moment, _ in value)
        elif isinstance(value, float) and isinstance(rule, LengthRule) and name in periods:
            yield from multiples(value, until)
    yield from _inside(tree, until)


def _inside(tree: Schedule, until: float) -> Iterator[float]:
    begin, parts = 0.0, getattr(tree, "parts", None)
    for child in children_of(tree):
        own = until - begin if parts is None else min(until - begin, child.duration)
        yield from (begin + m for m in (0.0, *moments_of(child, own)))
        begin += child.duration if parts is not None else 0.0
        if begin >= until:
            return


def multiples(every: float, until: float) -> Iterator[float]:
    """Give the multiples of a period: all, or those at either end where there are very many."""
    count = math.ceil(min(until / every, 1e15))
    few = count <= 2 * _ENDS
    numbers = range(1, count) if few else (*range(1, _ENDS), *range(count - _ENDS, count))
    yield from (n * every for n in numbers)
