"""What every registered family obeys, checked over generated trees."""

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.laws.examples import FAMILIES, halved, of_family, times_for, trees

import stepsize
from stepsize import Custom, Schedule
from stepsize.files.disk import from_dict, to_dict
from stepsize.schedules.formula import Names
from stepsize.schedules.walk import nodes

every_family = pytest.mark.parametrize("cls", FAMILIES, ids=lambda c: c.kind)
fractions = st.lists(st.floats(0, 1), min_size=2, max_size=6)
NAMESPACE = {name: getattr(stepsize, name) for name in stepsize.__all__} | {"halved": halved}


def close(a: float, b: float, size: float = 0.0) -> bool:
    """Equal to a few ulp of the values, or of `size`, where parts of that size cancel."""
    return a == b or abs(a - b) <= 4e-15 * max(abs(a), abs(b)) + 1e-15 * size + 1e-300


def size_of(schedule) -> float:
    """How large the parts of a schedule are that subtracts: only `Between` downwards does."""
    falls = any(node.kind == "between" and node.high < node.low for node in nodes(schedule))
    high = schedule.range[1]
    return high if falls and high < math.inf else 0.0


@every_family
@given(data=st.data())
def test_is_total_and_finite_on_all_reals(cls, data):
    schedule = data.draw(of_family(cls))
    for t in (
        *times_for(schedule, data.draw(fractions)),
        -math.inf,
        math.inf,
        -1e308,
        1e308,
        5e-324,
    ):
        value = schedule(t)
        assert type(value) is float
        assert math.isfinite(value), (schedule, t, value)


@every_family
@given(data=st.data())
def test_holds_its_first_value_before_0_and_its_last_after_its_end(cls, data):
    schedule = data.draw(of_family(cls))
    assert schedule(-1.0) == schedule(-1e9) == schedule(0.0)
    end = schedule.duration
    if end < math.inf:
        last = schedule(end * (1 + 1e-15))  # the end of nested parts is known to an ulp of time
        assert close(schedule(end + 1), last), schedule
        assert close(schedule(2 * end + 1e6), last), schedule


@every_family
@given(data=st.data())
def test_stays_within_its_stated_range(cls, data):
    schedule = data.draw(of_family(cls))
    low, high = schedule.range
    assert 0.0 <= low <= high
    for t in times_for(schedule, data.draw(fractions)):
        value = schedule(t)
        slack = 1e-13 * max(high if high < math.inf else 0.0, value)
        assert low - slack <= value <= high + slack, (schedule, t, value)


@every_family
@given(data=st.data())
def test_compile_call_and_numpy_array_agree(cls, data):
    schedule = data.draw(of_family(cls))
    times = times_for(schedule, data.draw(fractions))
    compiled, written = schedule.compile(), schedule.compile(lowest=0.0)
    called = [schedule(t) for t in times]
    assert [compiled(t) for t in times] == called
    assert [written(t) for t in times if t >= 0] == [
        v for v, t in zip(called, times, strict=True) if t >= 0
    ]
    array = schedule(np.array(times))
    assert array.dtype == np.float64
    size = size_of(schedule)
    assert all(close(a, b, size) for a, b in zip(array.tolist(), called, strict=True)), schedule


@every_family
@given(data=st.data())
def test_curve_is_the_scalar_function(cls, data):
    schedule = data.draw(of_family(cls))
    start = data.draw(st.sampled_from([0, 7, 990]))
    curve = schedule.curve(120, start=start)
    assert all(
        close(float(v), schedule(start + i), size_of(schedule)) for i, v in enumerate(curve)
    ), schedule


@every_family
@given(data=st.data())
def test_survives_pickle_deepcopy_repr_and_files(cls, data):
    schedule = data.draw(of_family(cls))
    schedule(1.0)  # whatever is remembered does not travel
    assert pickle.loads(pickle.dumps(schedule)) == schedule  # noqa: S301 (our own bytes)
    assert copy.deepcopy(schedule) == schedule
    assert hash(copy.deepcopy(schedule)) == hash(schedule)
    assert eval(repr(schedule), NAMESPACE) == schedule  # noqa: S307 (our own text)
    text = json.dumps(to_dict(schedule))
    assert from_dict(json.loads(text), trust=("tests",)) == schedule
    assert "NaN" not in text and "Infinity" not in text  # noqa: PT018


@every_family
@given(data=st.data())
def test_is_frozen_and_hashable(cls, data):
    schedule = data.draw(of_family(cls))
    field = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(schedule, field, getattr(schedule, field))
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(schedule, field)
    with pytest.raises(AttributeError):
        schedule.something_else = 1
    assert len({schedule, copy.copy(schedule)}) == 1


@every_family
@given(data=st.data())
def test_draws_itself(cls, data):
    schedule = data.draw(of_family(cls))
    assert schedule.sketch(width=20, height=3).count("\n") == 4
    assert schedule._repr_svg_().startswith("<svg") and "nan" not in schedule._repr_svg_()  # noqa: PT018


@every_family
def test_states_formula_source_and_an_exact_number(cls):
    text = cls.__doc__ or ""
    assert "Source:" in text, cls
    assert ">>>" in text, cls


@given(a=trees(), b=trees(), c=trees(), data=st.data())
def test_joining_is_associative(a, b, c, data):
    assume(max(a.duration, b.duration) < math.inf)
    assume(a.is_absolute == b.is_absolute == c.is_absolute)
    left, right = (a >> b) >> c, a >> (b >> c)
    assert left == right
    for t in times_for(left, data.draw(fractions)):
        assert left(t) == right(t)


@given(a=trees(), b=trees(), data=st.data())
def test_a_join_is_its_parts_in_their_own_time(a, b, data):
    assume(a.duration < math.inf and a.is_absolute == b.is_absolute)
    joined, split = a >> b, a.duration
    for x in data.draw(fractions):
        assert close(
            joined(x * split) if x * split < split else a(0),
            a(x * split) if x * split < split else a(0),
        )
    assert joined(split) == b(0.0)
    assert joined(split + 1024.0) == b((split + 1024.0) - split)


@given(a=trees(), by=st.floats(0.0, 10.0), t=st.floats(0, 1e4))
def test_scaling_multiplies(a, by, t):
    assert close((by * a)(t), by * a(t))


@given(a=trees(), b=trees(), t=st.floats(0, 1e4))
def test_product_multiplies(a, b, t):
    assume(not (a.is_absolute and b.is_absolute))
    assert close((a * b)(t), a(t) * b(t))


@given(schedule=trees())
def test_the_source_text_stands_alone(schedule):
    names = {
        n: getattr(math, n)
        for n in ("sin", "cos", "exp", "expm1", "log", "log1p", "sqrt", "floor", "inf")
    }
    if "c1" in schedule.source() or "bisect" in schedule.source():
        return  # a table is bound beside the text
    exec(schedule.source(), names)  # noqa: S102 (our own text)
    assert names["value"](3.0) == schedule(3.0)


@stepsize.schedule
class Wave(Schedule):
    """A family of the test's own: a dip in the middle.

    Source: this test.

    >>> Wave(over=4)(2)
    0.5
    """

    kind = "test_wave"
    over: stepsize.schedules.fields.Length
    depth: stepsize.schedules.fields.Fraction01 = 0.5

    @property
    def duration(self):
        return self.over

    def _value(self, t, xp: Names):
        x = xp.clip(t, 0.0, self.over) / self.over
        return 1.0 - self.depth * xp.sin(xp.pi * x)


def test_a_new_family_is_one_class():
    """Everything comes with the class: values, arrays, files, repr, drawing, and the laws."""
    wave = Wave(4)
    assert wave(2) == 0.5 and wave(-9) == wave(0) == 1.0  # noqa: PT018
    assert wave(np.array([0.0, 2.0])).tolist() == [1.0, 0.5]
    assert from_dict(to_dict(wave)) == wave
    assert eval(repr(Wave(4, depth=0.25)), {"Wave": Wave}) == Wave(4, depth=0.25)  # noqa: S307
    assert (stepsize.Linear(4) >> wave.held(1))(6.5) == 0.5
    assert "<svg" in wave._repr_svg_()
    with pytest.raises(stepsize.FieldError, match="Wave.depth must be a finite number > 0"):
        Wave(4, depth=-1)
    NAMESPACE["Wave"] = Wave
    laws = [f for n, f in globals().items() if n.startswith("test_") and "cls" in _arguments(f)]
    for law in laws:
        law(cls=Wave)
    assert len(laws) == 9


def _arguments(function) -> tuple[str, ...]:
    inner = getattr(function, "hypothesis", None)
    return (inner.inner_test if inner else function).__code__.co_varnames[:1]


def test_trees_reach_every_family():
    seen = set()

    @given(schedule=trees())
    @settings(max_examples=400)
    def collect(schedule):
        seen.update(type(node) for node in nodes(schedule))

    collect()
    assert seen >= set(FAMILIES) - {Custom}
