"""PlateauCooldown: one edit, at the moment at which Plateau would reduce, and silence after it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.feedback.play import play

from stepsize import FieldError, Geometric
from stepsize.edits.kinds import CoolDown
from stepsize.feedback import Plateau, PlateauCooldown

metrics = st.lists(
    st.one_of(st.sampled_from([0.5, 1.0, 2.0, math.nan]), st.floats(-10, 10)), max_size=50
)


def edits(controller, values):
    return [(t, u.edit) for t, u in enumerate(play(controller, values)) if u.edit is not None]


@given(
    values=metrics,
    patience=st.integers(0, 4),
    convention=st.sampled_from(["torch", "keras"]),
    smoothing=st.sampled_from([{}, {"ema": 0.7}, {"window": 3}]),
    nan=st.sampled_from(["bad", "ignore", "reset"]),
)
def test_the_edit_comes_where_plateau_reduces_first(values, patience, convention, smoothing, nan):
    rules = {"patience": patience, "patience_convention": convention, "nan": nan, **smoothing}
    reduced = [t for t, u in enumerate(play(Plateau(**rules), values)) if u.note]
    found = edits(PlateauCooldown(**rules), values)
    assert [t for t, _ in found] == reduced[:1]


def test_the_edit_is_what_was_asked_for():
    stop = PlateauCooldown(
        patience=1, over="10%", to=0.01, along=Geometric, keys=("lr", "momentum")
    )
    updates = play(stop, [1.0, 1.0, 1.0, 0.1, 5.0, math.nan] + [1.0] * 20)
    assert edits(stop, [1.0] * 30) == [(2, updates[2].edit)]
    why = "2 observations of the metric no better than 1"
    assert updates[2].edit == CoolDown("10%", 0.01, Geometric, ("lr", "momentum"), why)
    assert updates[2].note == why
    assert {u.factor for u in updates} == {1.0}
    assert {u.note for u in updates[3:]} == {""}


def test_after_it_even_nan_is_no_error():
    stop = PlateauCooldown(patience=0, nan="raise")
    play(stop, [1.0, 1.0, math.nan])
    with pytest.raises(FieldError, match="the metric seen must be finite"):
        play(stop, [1.0, math.nan])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"to": -1}, "PlateauCooldown.to must be a finite number >= 0, got -1"),
        ({"over": 0}, "PlateauCooldown.over must be a length > 0, got 0"),
        ({"along": "x"}, "PlateauCooldown.along must be a ramp class or its name"),
        ({"along": "geometric"}, "PlateauCooldown.to must be a share that Geometric can end at"),
        ({"ema": 0.9, "window": 2}, "PlateauCooldown.window must be None"),
    ],
)
def test_what_no_cooldown_can_be_is_refused_at_construction(given, said):
    with pytest.raises(FieldError, match=said):
        PlateauCooldown(**given)
