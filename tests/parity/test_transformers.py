"""Every schedule of transformers.optimization against ours, at every step, on twin optimizers.

Its warmup is t/W, so ours starts at 0 where it is compared. `reduce_lr_on_plateau` and `greedy` are
not here: they follow a metric, so there is no schedule to compare with.
"""

import math
from functools import partial

import pytest
from tests.parity.twins import Known, Row, check, check_known
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from stepsize import (
    Constant,
    Cosine,
    Linear,
    OneMinusSqrt,
    Polynomial,
    PowerLaw,
    Warmup,
    warmup_linear,
)

# both go on behind their end
pytestmark = pytest.mark.filterwarnings("ignore:.*was over at step")

W, T = 10, 70  # warmup and all steps
UP = Warmup(W, start=0.0)


def hf(name, **settings):
    """The function that transformers itself takes for a name."""
    settings = {k: v for k, v in settings.items() if v is not None}
    return lambda optimizer: TYPE_TO_SCHEDULER_FUNCTION[name](optimizer, **settings)


def timed(name, warmup=W, total=T, **settings):
    return hf(name, num_warmup_steps=warmup, num_training_steps=total, **settings)


wsd = partial(
    hf, "warmup_stable_decay", num_warmup_steps=W, num_stable_steps=30, num_decay_steps=20
)

# The name up to a colon is transformers'.
ROWS = [
    Row("constant", hf("constant"), Constant(), 20),
    Row("constant_with_warmup", hf("constant_with_warmup", num_warmup_steps=W), UP, 30),
    Row("linear", timed("linear"), UP >> Linear(T - W), T + 20),
    Row("linear: no warmup", timed("linear", 0), Linear(T), T + 20),
    Row("cosine", timed("cosine"), UP >> Cosine(T - W), T),
    Row("cosine: no warmup", timed("cosine", 0), Cosine(T), T),
    Row(
        "cosine: three half waves",
        timed("cosine", num_cycles=1.5),
        UP >> Cosine(T - W, half_waves=3),
        T,
        floor=1e-17,  # at a low, its 1 + cos is off by an ulp of 1
    ),
    Row(
        "cosine: two whole waves",
        timed("cosine", num_cycles=2),
        UP >> Cosine(T - W, half_waves=4),
        T,
        floor=1e-17,  # the same
    ),
    Row("cosine_with_restarts: one", timed("cosine_with_restarts"), UP >> Cosine(T - W), T + 20),
    Row(
        "cosine_with_restarts: four",
        timed("cosine_with_restarts", num_cycles=4),
        UP >> Cosine(15).repeated(times=4),
        T + 20,
    ),
    Row(
        "cosine_with_restarts: seven of 60/7 steps",
        timed("cosine_with_restarts", num_cycles=7),
        UP >> Cosine(60 / 7).repeated(times=7),
        T + 20,
        floor=1e-17,  # the part of a cycle is what is left of a number up to 7
    ),
    Row(
        "polynomial",
        timed("polynomial", lr_end=1e-7),
        UP >> Linear(T - W, stop=1e-7 / 0.1),
        T + 20,
        lrs=(0.1,),
    ),
    Row(
        "polynomial: power",
        timed("polynomial", lr_end=0.01, power=2.5),
        UP >> Polynomial(T - W, power=2.5, stop=0.1),
        T + 20,
    ),
    Row(
        "inverse_sqrt",
        hf("inverse_sqrt", num_warmup_steps=W),
        UP >> PowerLaw(0.5, W),
        200,
    ),
    Row(
        "inverse_sqrt: timescale",
        hf("inverse_sqrt", num_warmup_steps=W, timescale=50),
        UP >> PowerLaw(0.5, 50),
        200,
    ),
    Row(
        "inverse_sqrt: no warmup",
        hf("inverse_sqrt", num_warmup_steps=0),
        PowerLaw(0.5, 10_000),
        200,
    ),
    Row(
        "cosine_with_min_lr: part",
        timed("cosine_with_min_lr", min_lr_rate=0.1),
        UP >> Cosine(T - W, stop=0.1),
        T,
    ),
    Row(
        "cosine_with_min_lr: rate",
        timed("cosine_with_min_lr", min_lr=0.02),
        UP >> Cosine(T - W, stop=0.2),
        T,
        lrs=(0.1,),
    ),
    Row(
        "cosine_warmup_with_min_lr",
        timed("cosine_warmup_with_min_lr", min_lr_rate=0.1),
        Warmup(W - 1, start=1 / W) >> Cosine(T - W, stop=0.1),
        T - 1,
    ),
    Row(
        "cosine_warmup_with_min_lr: from a part",
        timed("cosine_warmup_with_min_lr", min_lr=0.02, warmup_lr_rate=0.3),
        Warmup(W - 1, start=0.3) >> Cosine(T - W, stop=0.2),
        T - 1,
        lrs=(0.1,),
    ),
    Row("warmup_stable_decay", wsd(), UP >> Constant(30) >> Cosine(20), T),
    Row(
        "warmup_stable_decay: lines to a floor",
        wsd(min_lr_ratio=0.1, decay_type="linear"),
        Warmup(W, start=0.1) >> Constant(30) >> Linear(20, stop=0.1),
        T,
    ),
    Row(
        "warmup_stable_decay: 1-sqrt",
        wsd(warmup_type="1-sqrt", decay_type="1-sqrt"),
        Warmup(W, start=0.0, along=OneMinusSqrt) >> Constant(30) >> OneMinusSqrt(20),
        T,
    ),
    Row(
        "warmup_stable_decay: cosine up",
        wsd(warmup_type="cosine", min_lr_ratio=0.05),
        Warmup(W, start=0.05, along=Cosine) >> Constant(30) >> Cosine(20, stop=0.05),
        T,
    ),
    Row(
        "warmup_stable_decay: stable is the rest",
        wsd(num_stable_steps=None, num_training_steps=T),
        UP >> Constant(40) >> Cosine(20),
        T + 10,
    ),
]

NO_SCHEDULE = {"reduce_lr_on_plateau", "greedy"}  # they need a metric


def wave(x):
    return 0.5 * (1 + math.cos(math.pi * x))


KNOWN = [
    Known(
        "the first step of a warmup",
        timed("linear"),
        warmup_linear(W, T - W),
        T,
        lrs=(1.0,),
        differ=range(W),
        gives=lambda t: t / W,
        holds=lambda t: (t + 1) / (W + 1),
        why="t/W trains nothing in the first step; ours starts at 0 only when told to",
    ),
    Known(
        "cosine past the end",
        timed("cosine"),
        UP >> Cosine(T - W),
        2 * T - W,
        lrs=(1.0,),
        differ=range(T + 1, 2 * T - W + 1),
        gives=lambda t: wave((t - W) / (T - W)),
        holds=lambda _: 0.0,
        why="the part of the run is not held at 1: after twice the decay it is back at the peak",
    ),
    Known(
        "cosine_with_min_lr past the end",
        timed("cosine_with_min_lr", min_lr_rate=0.1),
        UP >> Cosine(T - W, stop=0.1),
        2 * T - W,
        lrs=(1.0,),
        differ=range(T + 1, 2 * T - W + 1),
        gives=lambda t: 0.1 + 0.9 * wave((t - W) / (T - W)),
        holds=lambda _: 0.1,
        why="the same",
    ),
    Known(
        "cosine_warmup_with_min_lr at its end",
        timed("cosine_warmup_with_min_lr", min_lr_rate=0.1),
        Warmup(W - 1, start=1 / W) >> Cosine(T - W, stop=0.1),
        T + 20,
        lrs=(1.0,),
        differ=range(T, T + 21),
        gives=lambda t: 0.1 + 0.9 * wave((t + 1 - W) / (T - W)),
        holds=lambda _: 0.1,
        why="it counts from 1, so it is at its floor one step early and climbs from step T on",
    ),
    Known(
        "49 hard restarts",
        timed("cosine_with_restarts", 0, 490, num_cycles=49),
        Cosine(10).repeated(times=49),
        500,
        lrs=(1.0,),
        floor=1e-14,  # elsewhere the part of a cycle is what is left of a number up to 49
        differ=frozenset({10, 20, 40, 80, 160, 270, 320}),
        gives=lambda _: 0.0,
        holds=lambda _: 1.0,
        why="49 * (10/490) is below 1 in floats: the old cycle's end instead of the restart",
    ),
    Known(
        "polynomial with two rates",
        timed("polynomial", lr_end=1e-3),
        (UP >> Linear(T - W, stop=1e-3 / 0.1), UP >> Linear(T - W, stop=1e-3 / 0.003)),
        T + 20,
        differ=range(W + 1, T + 21),
        gives=lambda t: 0.003 * (1e-2 + (1 - 1e-2) * max(0, T - t) / (T - W)),
        holds=lambda t: 1e-3 + (0.003 - 1e-3) * max(0, T - t) / (T - W),
        why="lr_end is divided by the optimizer's default rate: here the second group ends at 3e-5",
    ),
    Known(
        "cosine_with_min_lr with two rates",
        timed("cosine_with_min_lr", min_lr=1e-3),
        (UP >> Cosine(T - W, stop=1e-3 / 0.1), UP >> Cosine(T - W, stop=1e-3 / 0.003)),
        T,
        differ=range(W + 1, T + 1),
        gives=lambda t: 0.003 * (1e-2 + (1 - 1e-2) * wave((t - W) / (T - W))),
        holds=lambda t: 1e-3 + (0.003 - 1e-3) * wave((t - W) / (T - W)),
        why="the same of min_lr",
    ),
    Known(
        "warmup_stable_decay over a whole wave",
        wsd(num_cycles=1),
        UP >> Constant(30) >> Cosine(20, half_waves=2),
        T,
        lrs=(1.0,),
        floor=1e-15,
        differ=range(60, T + 1),
        gives=lambda _: 0.0,
        holds=lambda _: 1.0,
        why="after the decay it takes min_lr_ratio, wherever the wave ended; ours holds its end",
    ),
]

named = lambda table: pytest.mark.parametrize("row", table, ids=lambda row: row.name)


@named(ROWS)
def test_same_as_transformers_at_every_step(row):
    check(row)


@named(KNOWN)
def test_differs_from_transformers_as_known(row):
    check_known(row)


def test_every_schedule_of_transformers_is_here():
    names = {row.name.partition(":")[0] for row in ROWS}
    assert names == {each.value for each in TYPE_TO_SCHEDULER_FUNCTION} - NO_SCHEDULE
