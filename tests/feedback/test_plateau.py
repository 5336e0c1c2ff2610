"""Plateau against torch, Keras and optax, step by step; smoothing, NaN, negative metrics."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.feedback.play import factors, play

from stepsize import FieldError
from stepsize.feedback import Plateau

NAN, INF = math.nan, math.inf
WORSE_BELOW_ZERO = [-1.0 + 5e-5 * i for i in range(30)]

levels = st.sampled_from([0.5, 0.9, 0.99995, 1.0, 1.00005, 1.1, 2.0])
positive = st.one_of(levels, st.floats(1e-3, 1e3))
metrics = st.lists(positive, min_size=1, max_size=60)
rules = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "threshold": st.sampled_from([0.0, 1e-4, 0.05]),
        "patience": st.integers(0, 4),
        "cooldown": st.integers(0, 4),
        "factor": st.sampled_from([0.1, 0.5, 0.9]),
    }
)


def torch_factors(values, *, floor=0.0, **given_rules):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, eps=0.0, min_lr=floor, **given_rules
    )
    found = []
    for value in values:
        peer.step(value)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@settings(max_examples=400)
@given(rules=rules, values=metrics, floor=st.sampled_from([0.0, 0.03]))
def test_the_same_as_torch_at_every_observation(rules, values, floor):
    assert factors(Plateau(floor=floor, **rules), values) == torch_factors(
        values, floor=floor, **rules
    )


@given(rules=rules, values=st.lists(st.one_of(positive, st.just(NAN)), min_size=1, max_size=40))
def test_nan_is_a_bad_observation_as_in_torch(rules, values):
    assert factors(Plateau(**rules), values) == torch_factors(values, **rules)


@given(rules=rules, values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_absolute_thresholds_are_torchs_for_any_sign(rules, values):
    rules["threshold_mode"] = "abs"
    assert factors(Plateau(**rules), values) == torch_factors(values, **rules)


def keras_factors(values, *, mode, threshold, patience, cooldown, factor, floor):
    """Transcribe keras.src.callbacks.ReduceLROnPlateau, which is not installed here."""
    sign = 1.0 if mode == "min" else -1.0
    rate, best, wait, cooldown_counter, found = 1.0, sign * INF, 0, 0, []
    for current in values:
        if cooldown_counter > 0:
            cooldown_counter -= 1
            wait = 0
        if (current < best - threshold) if mode == "min" else (current > best + threshold):
            best, wait = current, 0
        elif cooldown_counter <= 0:
            wait += 1
            if wait >= patience and rate > floor:
                rate = max(rate * factor, floor)
                cooldown_counter, wait = cooldown, 0
        found.append(rate)
    return found


@settings(max_examples=400)
@given(rules=rules, values=metrics, floor=st.sampled_from([0.0, 0.03]))
def test_the_same_as_keras_at_every_observation(rules, values, floor):
    rules["threshold_mode"] = "abs"
    ours = factors(Plateau(patience_convention="keras", floor=floor, **rules), values)
    del rules["threshold_mode"]
    assert ours == keras_factors(values, floor=floor, **rules)


@functools.cache
def optax_peer(patience, cooldown, rtol, factor):
    with jax.enable_x64(True):
        peer = optax.contrib.reduce_on_plateau(
            factor=factor, patience=patience, rtol=rtol, cooldown=cooldown
        )
        step = jax.jit(lambda state, value: peer.update(jnp.ones(()), state, value=value))
        return peer.init(jnp.ones((), jnp.float64)), step


@settings(max_examples=60)
@given(patience=st.integers(1, 3), cooldown=st.integers(0, 3), rtol=st.just(0.05), values=metrics)
def test_optax_with_one_more_patience_is_the_same(patience, cooldown, rtol, values):
    ours = factors(
        Plateau(factor=0.5, patience=patience - 1, cooldown=cooldown, threshold=rtol), values
    )
    state, step = optax_peer(patience, cooldown, rtol, 0.5)
    found = []
    with jax.enable_x64(True):
        for value in values:
            scaled, state = step(state, value)
            found.append(float(scaled))
    assert ours == found


def test_the_same_settings_reduce_at_three_different_observations():
    flat = [1.0] * 16

    def first(found):
        return next(i for i, factor in enumerate(found) if factor < 1)

    assert first(factors(Plateau(patience=10), flat)) == 11  # the 11th bad one, torch's
    assert first(factors(Plateau(patience=10, patience_convention="keras"), flat)) == 10


def test_optax_without_patience_reduces_at_an_improvement():
    state, step = optax_peer(0, 0, 1e-4, 0.5)
    with jax.enable_x64(True):
        assert float(step(state, 1.0)[0]) == 0.5


def test_pain_27_torch_takes_worse_negative_metrics_for_improvements():
    torch_rates = torch_factors(WORSE_BELOW_ZERO, mode="min", patience=5)
    assert torch_rates == [1.0] * 30  # worse 29 times in a row, never reduced
    ours = factors(Plateau(patience=5), WORSE_BELOW_ZERO)
    assert ours[:6] == [1.0] * 6
    assert ours[6:12] == [0.1] * 6
    upwards = [-value for value in WORSE_BELOW_ZERO]  # the mirror: both are right there
    assert factors(Plateau(patience=5, mode="max"), upwards) == ours
    assert torch_factors(upwards, mode="max", patience=5) == ours


@given(rules=rules, values=metrics)
def test_a_metric_and_its_negative_are_treated_alike(rules, values):
    mirrored = {**rules, "mode": {"min": "max", "max": "min"}[rules["mode"]]}
    assert factors(Plateau(**rules), values) == factors(Plateau(**mirrored), [-v for v in values])


def test_torch_takes_minus_infinity_for_the_best_for_ever():
    values = [1.0, -INF, 0.9, 0.8, 0.7, 0.6]
    assert torch_factors(values, patience=1, factor=0.5)[-1] == 0.25
    assert factors(Plateau(patience=1, factor=0.5), values)[-1] == 1.0


@pytest.mark.parametrize(
    ("nan", "expected"),
    [
        ("bad", [1.0, 1.0, 0.5, 0.5, 0.25]),
        ("ignore", [1.0, 1.0, 1.0, 1.0, 0.5]),
        ("reset", [1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_what_nan_means_is_a_choice(nan, expected):
    values = [1.0, 1.0, NAN, INF, 2.0]
    assert factors(Plateau(factor=0.5, patience=1, nan=nan), values) == expected


def test_a_reset_keeps_the_factor_and_forgets_the_rest():
    plateau = Plateau(factor=0.5, patience=0, nan="reset", window=3)
    state = play(plateau, [1.0, 2.0, NAN])[-1].state
    assert state == {**plateau.init(), "factor": 0.5}


def test_nan_can_be_an_error():
    with pytest.raises(FieldError, match="the metric seen must be finite, got nan; nan='raise'"):
        play(Plateau(nan="raise"), [1.0, NAN])


def test_nan_never_enters_an_average():
    for smoothing in ({"ema": 0.5}, {"window": 3}):
        states = play(Plateau(**smoothing), [1.0, 3.0, NAN, INF])
        kept = ("mean", "weight") if "ema" in smoothing else ("last",)
        for key in kept:
            assert states[-1].state[key] == states[1].state[key]


def test_the_moving_average_is_corrected_for_its_start():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    for decay in (0.5, 0.9):
        weights = decay ** np.arange(len(values))[::-1]
        expected = float(np.average(values, weights=weights))
        states = play(Plateau(ema=decay), values)
        assert states[0].state["mean"] == 3.0
        assert states[-1].state["mean"] == pytest.approx(expected, rel=1e-14)


def test_the_window_is_a_plain_mean_of_the_last():
    plateau = Plateau(window=2, patience=0, factor=0.5, threshold=0.0)
    # means: 4, 3, 2, 2.5, 2.25
    assert factors(plateau, [4.0, 2.0, 2.0, 3.0, 1.5]) == [1.0, 1.0, 1.0, 0.5, 0.25]


def test_an_average_sees_through_noise():
    noise = np.random.default_rng(0).normal(0, 0.3, 400)
    falling = [float(x) for x in 3 * np.exp(-np.arange(400) / 150) + 1 + noise]
    raw, smooth = Plateau(patience=10), Plateau(patience=10, ema=0.95)
    assert factors(raw, falling[:200])[-1] < 1.0  # reduced while the metric still falls
    assert factors(smooth, falling[:200])[-1] == 1.0


def test_the_floor_holds_and_is_silent():
    updates = play(Plateau(factor=0.1, patience=0, floor=0.05), [1.0] * 4)
    assert [u.factor for u in updates] == [1.0, 0.1, 0.05, 0.05]
    assert [bool(u.note) for u in updates] == [False, True, True, False]
    assert updates[1].note == "1 observations of the metric no better than 1"


def test_a_floor_by_group_lets_the_factor_fall_to_the_lowest():
    plateau = Plateau(factor=0.1, patience=0, floor={0: 0.5, "head": 0.02})
    assert factors(plateau, [1.0] * 4) == [1.0, 0.1, 0.02, 0.02]


def test_a_factor_never_becomes_zero():
    found = factors(Plateau(factor=0.1, patience=0), [1.0] * 400)
    assert found[-1] > 0.0


def test_one_smoothing_at_most():
    with pytest.raises(FieldError, match="Plateau.window must be None where ema is given, got 3"):
        Plateau(ema=0.9, window=3)
    assert dataclasses.replace(Plateau(ema=0.9), ema=None, window=3) == Plateau(window=3)
