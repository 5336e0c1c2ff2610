"""What holds for every registered controller."""

import copy
import dataclasses
import inspect
import json
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepsize
from stepsize import FieldError, Linear, SpecError, UnitError, feedback
from stepsize.feedback import (
    CONTROLLERS,
    Controller,
    Plateau,
    PlateauCooldown,
    Seen,
    SpikeGuard,
    Update,
    UpDown,
    controller,
    controller_data,
    controller_from,
)
from stepsize.units import Time

EXAMPLES = [
    Plateau(),
    Plateau(factor=0.5, patience=0, window=3, mode="max", floor=0.2, keys=("lr", "momentum")),
    Plateau(patience=1, ema=0.8, cooldown=2, threshold_mode="abs", nan="reset"),
    Plateau(patience=2, patience_convention="keras", nan="ignore", floor={0: 0.5, "head": 0.01}),
    UpDown(),
    UpDown(factor=0.5, patience=0, window=None, reset=2, ceiling=100.0, floor=0.0, cooldown=1),
    UpDown(patience=1, window=2, cooldown_up=1, nan="reset", floor={"body": 0.1}),
    SpikeGuard(),
    SpikeGuard(cold=2, consecutive=1, cooldown=1, recover=3, floor=0.0, along="linear"),
    SpikeGuard(cold=0, consecutive=1, cooldown=0, cut=0.1, recover=5, sees="metric"),
    PlateauCooldown(),
    PlateauCooldown(patience=1, over="10%", to=0.1, along=Linear, nan="ignore", ema=0.5),
]
TIMED = [
    dataclasses.replace(each, after="5%", until="90ep", floor_value={1: 1e-5}) for each in EXAMPLES
]
OWN = [cls for cls in CONTROLLERS.values() if cls.__module__.startswith("stepsize.")]
each_example = pytest.mark.parametrize("made", EXAMPLES, ids=repr)
each_class = pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.kind)
values = st.lists(
    st.one_of(
        st.none(),
        st.floats(allow_nan=True, allow_infinity=True),
        st.floats(-2, 2),
        st.sampled_from([1.0, math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 0.0]),
    ),
    min_size=1,
    max_size=40,
)


def lowest(made):
    return min(made.floor.values()) if isinstance(made.floor, dict) else made.floor


def seen(made, t, value):
    return Seen(t, **{made.sees: value})


def test_every_controller_has_an_example_and_is_public():
    assert {type(made) for made in EXAMPLES} == set(OWN)
    assert {cls.__name__ for cls in OWN} <= set(feedback.__all__)
    for name in feedback.__all__:
        assert name in ("CONTROLLERS", "State") or inspect.getdoc(getattr(feedback, name)), name


@each_class
def test_the_docstring_has_source_example_and_all_fields(cls):
    text = "".join(inspect.getdoc(base) or "" for base in cls.__mro__[:-2])
    assert "Source:" in text
    assert ">>>" in text
    for field in dataclasses.fields(cls):
        assert f"    {field.name}: " in text, field.name


@each_example
@given(values=values)
def test_an_update_is_pure(made, values):
    state = made.init()
    for t, value in enumerate(values):
        before = copy.deepcopy(state)
        first, again = (made.update(state, seen(made, t, value)) for _ in range(2))
        assert state == before
        assert first == again
        assert isinstance(first, Update)
        state = first.state


@each_example
@given(values=values)
def test_a_state_goes_through_json_at_every_observation(made, values):
    state = saved = made.init()
    for t, value in enumerate(values):
        straight = made.update(state, seen(made, t, value))
        resumed = made.update(json.loads(json.dumps(saved)), seen(made, t, value))
        assert repr(straight) == repr(resumed)  # floats by their digits, NaN too
        state, saved = straight.state, resumed.state
        assert repr(json.loads(json.dumps(state))) == repr(state)


@each_example
@settings(max_examples=100)
@given(values=values)
def test_the_factor_is_finite_and_above_the_floor(made, values):
    state, factor = made.init(), 1.0
    for t, value in enumerate(values):
        update = made.update(state, seen(made, t, value))
        assert 0.0 < update.factor < math.inf
        assert update.factor >= lowest(made)
        assert update.state["factor"] == update.factor
        assert bool(update.note) <= (update.factor != factor or update.edit is not None)
        state, factor = update.state, update.factor


@each_example
@given(values=values)
def test_it_sees_only_from_after_until_until(made, values):
    made = dataclasses.replace(made, after=10, until=20)
    state = made.init()
    for t, value in enumerate(values):
        early = made.update(state, seen(made, t / 4.001, value))
        assert early == Update(1.0, made.init())
        state = early.state
    alone = dataclasses.replace(made, after=0, until=None)
    inside = outside = state
    for t, value in enumerate(values[:10], 10):
        update = made.update(inside, seen(made, t, value))
        expected = alone.update(outside, seen(made, t, value))
        assert repr(update) == repr(expected)
        inside, outside = update.state, expected.state
    for t, value in enumerate(values, 20):
        assert repr(made.update(inside, seen(made, t, value)).state) == repr(inside)


@each_example
def test_what_it_does_not_look_at_changes_nothing(made):
    other = {"metric": "loss", "loss": "metric"}[made.sees]
    update = made.update(made.init(), Seen(0, grad_norm=1.0, **{other: math.nan}))
    assert update == Update(1.0, made.init())


@pytest.mark.parametrize("made", EXAMPLES + TIMED, ids=repr)
def test_it_is_code_data_and_a_value(made):
    space = {**vars(stepsize), **vars(feedback)}
    assert eval(repr(made), space) == made  # noqa: S307 (our own text)
    data = controller_data(made)
    assert controller_from(data) == made
    assert controller_from(json.loads(json.dumps(data))) == made
    pickled = pickle.loads(pickle.dumps(made))  # noqa: S301 (our own bytes)
    for copied in (copy.copy(made), copy.deepcopy(made), pickled):
        assert copied == made
        assert hash(copied) == hash(made)
        assert repr(copied) == repr(made)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.sees = "loss"


@each_class
def test_the_defaults_are_not_written(cls):
    assert repr(cls()) == f"{cls.__name__}()"
    assert controller_data(cls()) == {"kind": cls.kind}


@each_class
@pytest.mark.parametrize("name", ["after", "until"])
def test_an_unresolved_moment_is_an_error_that_names_the_cure(cls, name):
    made = cls(**{name: "5%"})
    assert getattr(made, name) == Time(5.0, "%")
    with pytest.raises(UnitError, match=f"{cls.__name__}.{name} is '5%'.*{name}=500"):
        made.update(made.init(), Seen(1, metric=1.0, loss=1.0))


@each_class
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sees": "accuracy"}, "sees must be one of 'metric', 'loss', got 'accuracy'"),
        ({"after": -1}, "after must be a moment >= 0, got -1"),
        ({"after": 10, "until": 10}, r"until must be later than after \(10\), got 10"),
        ({"keys": ()}, "keys must be different names of hyper-parameters"),
        ({"keys": ("lr", "lr")}, "keys must be different names"),
        ({"keys": 3}, "keys must be different names"),
        ({"floor": 2}, "floor must be a finite number >= 0 and <= 1, got 2"),
        ({"floor": True}, "floor must be a finite number"),
        ({"floor": {}}, "floor must be a number, or numbers by group"),
        ({"floor": [1, 2]}, "floor must be a number, or numbers by group"),
        ({"floor": {-1: 0.5}}, "floor must be by group names or indices from 0, got -1"),
        ({"floor": {True: 0.5}}, "floor must be by group names or indices from 0, got True"),
        ({"floor": {0: 2}}, r"floor\[0\] must be a finite number"),
        ({"floor_value": math.nan}, "floor_value must be a finite number >= 0, got nan"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused(cls, given, said):
    with pytest.raises(FieldError, match=f"{cls.__name__}.{said}"):
        cls(**given)


def test_one_key_may_be_given_as_a_text():
    assert Plateau(keys="momentum").keys == ("momentum",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "expected an object with the 'kind' of a controller, got []"),
        ({"kind": 3}, "expected an object with the 'kind'"),
        ({"kind": "platau"}, "unknown kind of controller 'platau', did you mean 'plateau'"),
        ({"kind": "zzz"}, "; known are "),
        ({"kind": "plateau", "patiance": 3}, "no field 'patiance', did you mean 'patience'"),
        ({"kind": "plateau", 3: 3}, "'plateau' has no field 3"),
        ({"kind": "plateau", "factor": 2}, "plateau: Plateau.factor must be a finite number > 0"),
        ({"kind": "plateau_cooldown", "along": "os.system"}, "along must be a ramp class"),
    ],
)
def test_what_describes_no_controller_is_refused(data, said):
    with pytest.raises(SpecError) as error:
        controller_from(data)
    assert said in str(error.value)


@pytest.fixture
def registry():
    known = dict(CONTROLLERS)
    yield CONTROLLERS
    CONTROLLERS.clear()
    CONTROLLERS.update(known)


def test_a_third_partys_controller_is_one_class(registry):
    @controller
    class Halve(Controller):
        """Halves at each observation."""

        kind = "test_halve"

        def _react(self, state, value):
            del value
            return Update(state["factor"] / 2, state, note="halved")

    made = Halve(floor=0.2)
    state, found = made.init(), []
    for t in range(4):
        update = made.update(state, Seen(t, metric=1.0))
        state = update.state
        found.append((update.factor, update.note))
    assert found == [(0.5, "halved"), (0.25, "halved"), (0.2, "halved"), (0.2, "")]
    assert controller_from({"kind": "test_halve", "floor": 0.2}) == made
    assert registry["test_halve"] is Halve


def test_a_kind_is_a_plain_word_that_nobody_else_has(registry):
    with pytest.raises(SpecError, match="the kind 'plateau' of .*Other is taken by Plateau"):

        @controller
        class Other(Plateau):
            kind = "plateau"

    with pytest.raises(SpecError, match="Nameless needs a `kind`"):

        @controller
        class Nameless(Controller):
            pass

    assert registry["plateau"] is Plateau
