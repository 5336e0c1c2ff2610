"""What a resolved schedule is made of in time."""

from collections.abc import Iterator

from stepsize.schedules.schedule import Schedule
from stepsize.schedules.walk import children_of


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
