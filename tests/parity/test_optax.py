"""Every schedule of optax against ours, at every step, in float64.

optax.contrib.reduce_on_plateau is not here: it follows a metric. The `inject_*` wrappers feed
schedules to an optimizer and are none themselves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepsize import (
    Constant,
    Cosine,
    Exponential,
    Geometric,
    Linear,
    MultiStep,
    Piecewise,
    Polynomial,
    Schedule,
    Step,
    Warmup,
    one_cycle,
)


@dataclass(frozen=True)
class Row:
    """optax's schedule, made where float64 is on, and the same in our words."""

    name: str
    peer: Callable[[], Any]
    ours: Schedule
    steps: int = 120
    floor: float = 1e-18


@dataclass(frozen=True, kw_only=True)
class Known(Row):
    """A row that differs at the steps `differ`, where optax gives `gives(t)`, ours `holds(t)`."""

    differ: range
    gives: Callable[[int], float]
    holds: Callable[[int], float]
    why: str


ULP = 2.0**-52  # optax's 1 + cos is right to an ulp of 1: what is small is right to this only
UP = Warmup(20, start=0.0)

# The name up to a colon is optax's.
ROWS = [
    Row("constant_schedule", lambda: optax.constant_schedule(0.3), 0.3 * Constant()),
    Row("linear_schedule", lambda: optax.linear_schedule(1.0, 0.1, 100), Linear(100, stop=0.1)),
    Row(
        "linear_schedule: later",
        lambda: optax.linear_schedule(1.0, 0.1, 70, transition_begin=30),
        Linear(70, stop=0.1).shifted(30),
    ),
    Row(
        "polynomial_schedule",
        lambda: optax.polynomial_schedule(1.0, 0.01, 2.5, 100),
        Polynomial(100, power=2.5, stop=0.01),
    ),
    Row(
        "polynomial_schedule: later",
        lambda: optax.polynomial_schedule(1.0, 0.0, 0.5, 70, transition_begin=30),
        Constant(30) >> Polynomial(70, power=0.5),
    ),
    Row(
        "polynomial_schedule: up",
        lambda: optax.polynomial_schedule(0.1, 1.0, 2, 100),
        Polynomial(100, start=0.1, stop=1.0),
    ),
    Row("cosine_decay_schedule", lambda: optax.cosine_decay_schedule(1.0, 100), Cosine(100)),
    Row(
        "cosine_decay_schedule: floor, exponent",
        lambda: optax.cosine_decay_schedule(0.3, 100, alpha=0.1, exponent=1.5),
        Cosine(100, power=1.5, stop=0.1).absolute(0.3),
    ),
    Row(
        "exponential_decay",
        lambda: optax.exponential_decay(0.5, 25, 0.3),
        Exponential(0.3, every=25).absolute(0.5),
    ),
    Row(
        "exponential_decay: stairs",
        lambda: optax.exponential_decay(1.0, 25, 0.3, staircase=True),
        Step(25, factor=0.3),
    ),
    Row(
        "exponential_decay: stairs, later, limit",
        lambda: optax.exponential_decay(
            1.0, 7, 0.5, transition_begin=10, staircase=True, end_value=0.01
        ),
        Step(7, factor=0.5).shifted(10).clipped(low=0.01),
    ),
    Row(
        "exponential_decay: later, limit",
        lambda: optax.exponential_decay(1.0, 7, 0.5, transition_begin=10, end_value=0.01),
        (Constant(10) >> Exponential(0.5, every=7)).clipped(low=0.01),
    ),
    Row(
        "exponential_decay: growth up to a limit",
        lambda: optax.exponential_decay(1.0, 10, 2.0, end_value=8.0),
        Geometric(30, stop=8.0),
    ),
    Row(
        "piecewise_constant_schedule",
        lambda: optax.piecewise_constant_schedule(1.0, {30: 0.1, 60: 0.5, 90: 0.2}),
        Piecewise({0: 1.0, 30: 0.1, 60: 0.05, 90: 0.01}),
    ),
    Row(
        "piecewise_constant_schedule: one factor",
        lambda: optax.piecewise_constant_schedule(1.0, {30: 0.1, 60: 0.1, 80: 0.1}),
        MultiStep((30, 60, 80)),
    ),
    Row(
        "piecewise_interpolate_schedule: linear",
        lambda: optax.piecewise_interpolate_schedule("linear", 1.0, {30: 0.1, 60: 5.0, 90: 0.2}),
        Piecewise({0: 1.0, 30: 0.1, 60: 0.5, 90: 0.1}, linear=True),
    ),
    Row(
        "piecewise_interpolate_schedule: cosine",
        lambda: optax.piecewise_interpolate_schedule("cosine", 1.0, {30: 0.1, 60: 5.0, 90: 0.2}),
        Cosine(30, stop=0.1) >> Cosine(30, start=0.1, stop=0.5) >> Cosine(30, start=0.5, stop=0.1),
    ),
    Row(
        "linear_onecycle_schedule",
        lambda: optax.linear_onecycle_schedule(100, 1.0),
        Linear(30, start=1 / 25, stop=1.0)
        >> Linear(55, stop=1 / 25)
        >> Linear(15, start=1 / 25, stop=1 / 25e4),
    ),
    Row(
        "cosine_onecycle_schedule",
        lambda: optax.cosine_onecycle_schedule(100, 1.0),
        Cosine(30, start=1 / 25, stop=1.0) >> Cosine(70, stop=1 / 25e4),
        floor=ULP,
    ),
    Row(
        "warmup_constant_schedule",
        lambda: optax.warmup_constant_schedule(0.0, 1.0, 20),
        UP >> Constant(),
    ),
    Row(
        "warmup_cosine_decay_schedule",
        lambda: optax.warmup_cosine_decay_schedule(0.0, 0.3, 20, 100),
        (UP >> Cosine(80)).absolute(0.3),
    ),
    Row(
        "warmup_cosine_decay_schedule: floor, exponent",
        lambda: optax.warmup_cosine_decay_schedule(0.1, 1.0, 20, 100, 0.01, 2.0),
        Warmup(20, start=0.1) >> Cosine(80, power=2, stop=0.01),
    ),
    Row(
        "warmup_exponential_decay_schedule",
        lambda: optax.warmup_exponential_decay_schedule(0.0, 1.0, 20, 25, 0.3),
        UP >> Exponential(0.3, every=25),
    ),
    Row(
        "warmup_exponential_decay_schedule: stairs, limit",
        lambda: optax.warmup_exponential_decay_schedule(
            0.0, 1.0, 20, 7, 0.5, staircase=True, end_value=0.01
        ),
        UP >> Step(7, factor=0.5).clipped(low=0.01),
    ),
    Row(
        "sgdr_schedule",
        lambda: optax.sgdr_schedule(
            [
                {
                    "init_value": 0.0,
                    "peak_value": 0.5**n,
                    "warmup_steps": 5 * 2**n,
                    "decay_steps": 20 * 2**n,
                }
                for n in range(3)
            ]
        ),
        (Warmup(5, start=0.0) >> Cosine(15)).repeated(growth=2, factor=0.5, times=3),
        150,
    ),
    Row(
        "join_schedules",
        lambda: optax.join_schedules(
            [
                optax.linear_schedule(0.1, 1.0, 10),
                optax.constant_schedule(1.0),
                optax.cosine_decay_schedule(1.0, 40, 0.2),
                optax.exponential_decay(0.2, 10, 0.5),
            ],
            [10, 50, 90],
        ),
        Warmup(10, start=0.1)
        >> Constant(40)
        >> Cosine(40, stop=0.2)
        >> 0.2 * Exponential(0.5, every=10),
    ),
]


def wave(start, stop, x):
    return stop + (start - stop) * 0.5 * (1 + math.cos(math.pi * x))


KNOWN = [
    Known(
        "one cycle: where the peak is",
        lambda: optax.cosine_onecycle_schedule(100, 1.0),
        one_cycle(100)["lr"],
        floor=ULP,
        differ=range(1, 100),
        gives=lambda t: wave(0.04, 1.0, t / 30) if t < 30 else wave(1.0, 4e-6, (t - 30) / 70),
        holds=lambda t: wave(0.04, 1.0, t / 29) if t < 29 else wave(1.0, 4e-6, (t - 29) / 70),
        why="optax's phases end at 30 and 100; torch's, which ours has, at 29 and 99",
    ),
    Known(
        "linear one cycle: the final rate",
        lambda: optax.linear_onecycle_schedule(100, 1.0, div_factor=25.0, final_div_factor=100.0),
        Linear(30, start=1 / 25, stop=1.0)
        >> Linear(55, stop=1 / 25)
        >> Linear(15, start=1 / 25, stop=1 / 100),
        differ=range(86, 121),
        gives=lambda t: 0.04 + (0.0004 - 0.04) * min(t - 85, 15) / 15,
        holds=lambda t: 0.04 + (0.01 - 0.04) * min(t - 85, 15) / 15,
        why="its text says peak/final_div_factor, its code divides the first rate by it",
    ),
    Known(
        "warmup from 0",
        lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, 20, 100),
        Warmup(20) >> Cosine(80),
        differ=range(20),
        gives=lambda t: t / 20,
        holds=lambda t: (t + 1) / 21,
        why="t/W trains nothing in the first step; ours starts at 0 only when told to",
    ),
]


def of_peer(row, times):
    return np.asarray(jax.vmap(row.peer())(jnp.asarray(times)) * jnp.ones(len(times)))


def every(row):
    """Give optax's values, ours of floats and ours of a jax array, all at 0, 1, ..., steps."""
    times = list(range(row.steps + 1))
    with jax.enable_x64(True):
        array = row.ours(jnp.asarray(times, dtype=jnp.float64)) * jnp.ones(len(times))
        return of_peer(row, times), np.array([row.ours(t) for t in times]), np.asarray(array)


def same(a, b, floor):
    return np.abs(a - b) <= np.maximum(1e-12 * np.abs(b), floor)


named = lambda table: pytest.mark.parametrize("row", table, ids=lambda row: row.name)


@named(ROWS)
def test_same_as_optax_at_every_step(row):
    expected, floats, array = every(row)
    for found in (floats, array):
        assert np.flatnonzero(~same(found, expected, row.floor)).tolist() == []


@named(KNOWN)
def test_differs_from_optax_as_known(row):
    expected, floats, array = every(row)
    for found in (floats, array):
        assert np.flatnonzero(~same(found, expected, row.floor)).tolist() == list(row.differ)
        for t in row.differ:
            assert same(expected[t], row.gives(t), row.floor), ("optax", t)
            assert same(found[t], row.holds(t), row.floor), ("ours", t)


def test_every_schedule_of_optax_is_here():
    ends = ("_schedule", "_schedules", "_decay")
    made = {n for n in dir(optax.schedules) if n.endswith(ends) and n[0] != "_"}
    assert {row.name.partition(":")[0] for row in ROWS} == made


def test_cosine_is_accurate_in_float32_where_optax_has_lost_every_digit():
    over, left = 1_000_000, 10
    exact = math.sin(math.pi / 2 * left / over) ** 2
    last = jnp.float32(over - left)
    assert abs(float(optax.cosine_decay_schedule(1.0, over)(last)) - exact) > 0.5 * exact
    assert float(Cosine(over)(last)) == pytest.approx(exact, rel=1e-6)
