"""What a resolved schedule is made of in time: its parts, and the moments at which it may jump."""

import math
from collections.abc import Iterator

from stepsize.schedules.decays import MultiStep, Step
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.tables import Piecewise
from stepsize.schedules.timing import Held, Repeated, Shifted, Stretched
from stepsize.schedules.walk import children_of
from stepsize.units import plain

_ENDS = 64  # of many repetitions, those at either end


def placed(tree: Schedule, begin: float = 0.0) -> Iterator[tuple[float, Schedule]]:
    """Every node that runs in the run's own time, and when it begins."""
    yield begin, tree
    if tree._own_time:  # noqa: SLF001 (a walk is a friend)
        return
    parts = getattr(tree, "parts", None)
    for child in children_of(tree):
        yield from placed(child, begin)
        begin += child.duration if parts is not None else 0.0


def parts_of(tree: Schedule) -> tuple[tuple[float, str], ...]:
    """Give when each part begins, and what a person calls it.

    >>> parts_of((Warmup(10) >> Cosine(90)).absolute(3e-4))
    ((0.0, 'Warmup'), (10.0, 'Cosine'))
    """
    return tuple(_parts(tree, 0.0))


def _parts(tree: Schedule, begin: float) -> Iterator[tuple[float, str]]:
    parts = getattr(tree, "parts", None)
    inner = list(children_of(tree))
    if parts is not None:
        for part in parts:
            yield from _parts(part, begin)
            begin += part.duration
    elif len(inner) == 1 and not tree._own_time and inner[0].duration == tree.duration:  # noqa: SLF001 (a walk is a friend)
        yield from _parts(inner[0], begin)
    else:
        yield begin, called(tree)


def called(tree: Schedule) -> str:
    """Name a schedule by the families it is made of: `Cosine`, `Repeated Cosine`."""
    inner = list(dict.fromkeys(called(child) for child in children_of(tree)))
    if not inner:
        return type(tree).__name__
    if type(tree)._own_time:  # noqa: SLF001 (a walk is a friend)
        return f"{type(tree).__name__} {' and '.join(inner)}"
    return " and ".join(inner)


def moments_of(tree: Schedule, until: float) -> set[float]:
    """Give the moments before `until` at which a resolved schedule may jump or bend.

    The ends of parts, the steps of a staircase, the points of a table, restarts and holds; of very
    many repetitions the first and the last.

    >>> sorted(moments_of(Warmup(10) >> MultiStep((30, 60)), 100))
    [10.0, 40.0, 70.0]
    """
    return {moment for moment in _moments(tree, until) if 0.0 < moment < until}


def _moments(tree: Schedule, until: float) -> Iterator[float]:
    yield tree.duration
    if isinstance(tree, MultiStep):
        yield from (plain(moment) for moment in tree.at)
    elif isinstance(tree, Piecewise):
        yield from (plain(row[0]) for row in tree.points)  # type: ignore[index]  # stored as pairs
    elif isinstance(tree, Step | Held):
        yield from _multiples(plain(tree.every), until)
    if isinstance(tree, Repeated):
        yield from _laps(tree, until)
    elif isinstance(tree, Stretched):
        yield from (tree.by * m for m in _moments(tree.of, until / tree.by))
    elif isinstance(tree, Shifted):
        by = plain(tree.by)
        yield from (m + by for m in _moments(tree.of, until - by))
    else:
        yield from _inside(tree, until)


def _inside(tree: Schedule, until: float) -> Iterator[float]:
    begin, parts = 0.0, getattr(tree, "parts", None)
    for child in children_of(tree):
        yield from (begin + m for m in _moments(child, until - begin))
        begin += child.duration if parts is not None else 0.0
        if begin >= until:
            return


def _multiples(every: float, until: float) -> Iterator[float]:
    count = math.ceil(min(until / every, 1e15))
    numbers = range(1, count) if count <= 2 * _ENDS else _both_ends(count)
    yield from (n * every for n in numbers)


def _both_ends(count: int) -> Iterator[int]:
    yield from range(1, _ENDS)
    yield from range(count - _ENDS, count)


def _laps(tree: Repeated, until: float) -> Iterator[float]:
    """Restarts, and the moments inside the first and the last cycles."""
    until = min(until, tree.duration)
    if tree.growth == 1.0:
        starts = [0.0, *_multiples(tree.period, until)]
        scales = [1.0] * len(starts)
    else:
        ends, growth = tree._prepared  # noqa: SLF001 (a walk is a friend)
        known = [pair for pair in zip(ends, growth, strict=False) if pair[0] < until]
        starts, scales = map(list, zip(*known, strict=True))
    yield from starts
    for start, scale in [*zip(starts, scales, strict=True)][-3:]:
        yield from (start + scale * m for m in _moments(tree.of, tree.period))
