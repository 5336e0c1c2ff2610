"""What holds schedules, as a list of entries: a schedule, a plan, several, a bound scheduler."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.schedules.plan import Plan
from stepsize.schedules.schedule import Schedule

Bases = float | Mapping[str, float] | None


class Entry(NamedTuple):
    """One scheduled value; a bound scheduler's `tracks()` gives these.

    Attributes:
        key: the hyper-parameter; empty for a bare schedule.
        name: which of several it is: param groups, or one of the schedules compared.
        schedule: as it is written.
        scale: what multiplies it; None for a factor whose base value is not known.
        extra: whether it is no hyper-parameter of an optimizer.
        shift: how many steps the horizon's conversion is ahead of the optimizer's count.
        zeros: the groups whose own value was 0.
    """

    key: str
    name: str
    schedule: Schedule
    scale: float | None = None
    extra: bool = False
    shift: float = 0.0
    zeros: tuple[str, ...] = ()


def is_bound(what: Any) -> bool:
    """Tell a bound scheduler, which knows its base values and its horizon."""
    return hasattr(what, "tracks") and hasattr(what, "horizon")


def entries_of(what: Any, base: Bases) -> list[Entry]:
    """Give every scheduled value; `FieldError` for what holds none, or for a wrong base."""
    if is_bound(what):
        if base is not None:
            cure = "a bound scheduler has base values: leave it out"
            raise FieldError.of("base", "left out", base, cure)
        return list(what.tracks())
    return list(_scaled(list(_found(what)), base))


def _found(what: Any) -> Iterator[Entry]:
    if isinstance(what, Schedule):
        yield Entry("", "", what)
    elif isinstance(what, Plan):
        yield from (Entry(key, "", schedule) for key, schedule in what.items())
    elif isinstance(what, Mapping | list | tuple) and what:
        named = list(what.items() if isinstance(what, Mapping) else ((repr(x), x) for x in what))
        rate = "lr" if any(isinstance(each, Plan) for _, each in named) else ""
        for name, each in named:
            if not isinstance(each, Schedule | Plan):
                raise FieldError.of(f"{name!r}", "a schedule or a plan", each)
            for entry in _found(each):
                yield entry._replace(name=str(name), key=entry.key or rate)
    else:
        cure = "give Cosine(100), Plan(lr=...), {'a': ..., 'b': ...} or a Scheduler"
        raise FieldError.of("what to look at", "a schedule, a plan, or several", what, cure)


def _scaled(entries: list[Entry], base: Bases) -> Iterator[Entry]:
    given = base if isinstance(base, Mapping) else {} if base is None else {"lr": base}
    bases = {key: float(Bounds(gt=0).admit(f"base[{key!r}]", x)) for key, x in given.items()}
    keys = {entry.key or "lr" for entry in entries}
    if unknown := sorted(set(bases) - keys):
        raise FieldError.of("base: a key", f"one of {', '.join(sorted(keys))}", unknown[0])
    for entry in entries:
        own = None if entry.schedule.is_absolute else bases.get(entry.key or "lr")
        yield entry._replace(scale=own)
