"""Random schedules for the laws: one strategy per family, derived from its fields' rules."""

import dataclasses
import math

from hypothesis import reject
from hypothesis import strategies as st

import stepsize
from stepsize import REGISTRY, Custom, Ramp, Schedule
from stepsize.schedules.fields import (
    Bounds,
    FlagRule,
    FunctionRule,
    LengthRule,
    MomentsRule,
    NodeRule,
    NodesRule,
    TableRule,
)


def halved(t):
    """A user's function, of a float or of any array."""
    return 1.0 / (1.0 + 0.01 * t)


lengths = st.one_of(
    st.integers(1, 2000).map(float),
    st.sampled_from([0.1, 2.5, 391 / 3, 97.75, 1e6, 1e9]),
    st.floats(0.01, 1e4),
)
values = st.one_of(st.sampled_from([0.0, 1.0, 0.1, 0.5]), st.floats(0, 10), st.floats(1e-9, 1e-3))
RAMPS = sorted((c for c in REGISTRY.values() if issubclass(c, Ramp)), key=lambda c: c.kind)
UNIT_RAMPS = st.sampled_from(RAMPS)


def numbers(rule: Bounds) -> st.SearchStrategy:
    low = rule.gt if rule.gt is not None else rule.ge
    high = rule.lt if rule.lt is not None else rule.le
    if rule.whole:
        return st.integers(int(low or 1), 6)
    bottom = max(low if low is not None else -5.0, 1e-3 if rule.gt == 0 else -5.0)
    top = high if high is not None else 10.0
    found = st.floats(min(bottom, top), top, exclude_min=rule.gt is not None and rule.gt != 0)
    return st.one_of(
        found, st.sampled_from([x for x in (0.0, 0.5, 1.0) if rule._holds(x)] or [top])
    )


def field(draw, cls, name, depth):
    """Draw a value for one field, by its rule."""
    rule, optional = cls._rules.get(name, (None, False))
    if optional and draw(st.booleans()):
        return None
    if rule is None:
        assert name == "along", f"nothing to draw for {cls.__name__}.{name}"
        return draw(UNIT_RAMPS)
    tree = trees(depth - 1)
    kinds = {
        LengthRule: lambda: (-1 if rule.signed and draw(st.booleans()) else 1) * draw(lengths),
        Bounds: lambda: draw(numbers(rule)),
        NodeRule: lambda: draw(tree),
        NodesRule: lambda: tuple(draw(tree) for _ in range(draw(st.integers(2, 3)))),
        MomentsRule: lambda: tuple(sorted(draw(st.lists(lengths, min_size=1, max_size=5)))),
        TableRule: lambda: tuple(sorted(draw(tables).items())),
        FlagRule: lambda: draw(st.booleans()),
        FunctionRule: lambda: halved,
    }
    return kinds[type(rule)]()


tables = st.dictionaries(st.one_of(st.just(0.0), lengths), values, min_size=1, max_size=6)


def _is_combination(cls) -> bool:
    return any(isinstance(rule, NodeRule | NodesRule) for rule, _ in cls._rules.values())


FAMILIES = sorted(REGISTRY.values(), key=lambda c: c.kind)
LEAVES = [c for c in FAMILIES if not _is_combination(c) and c is not Custom]
COMBINATIONS = [c for c in FAMILIES if _is_combination(c)]


@st.composite
def of_family(draw, cls, depth=2) -> Schedule:
    """Instances of one family over nested parts; fields that are wrong together are drawn again."""
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    for _ in range(20):
        fields = {name: field(draw, cls, name, depth) for name in names}
        try:
            return cls(**fields)
        except stepsize.FieldError:
            continue
    return reject()


@st.composite
def trees(draw, depth=2) -> Schedule:
    """Schedules of every family, nested."""
    deep = depth > 0 and draw(st.booleans())
    return draw(of_family(draw(st.sampled_from(COMBINATIONS if deep else LEAVES)), depth))


def times_for(schedule: Schedule, draw_fractions) -> list[float]:
    """Interesting times: ends, boundaries, just beside them, and some between."""
    end = schedule.duration if schedule.duration < math.inf else 5000.0
    marks = [0.0, end, *(x * end for x in draw_fractions)]
    near = [
        y for x in marks for y in (x, math.nextafter(x, -math.inf), math.nextafter(x, math.inf))
    ]
    return [*near, -1.0, end + 1.0, 2 * end + 7.0, 1.0, 2.0, 3.0]
