"""Bugs of peers that the structure makes impossible, each named after where it was seen."""

import math

import pytest

from stepsize import (
    REGISTRY,
    Constant,
    Cosine,
    FieldError,
    Horizon,
    Linear,
    MultiStep,
    OneMinusSqrt,
    OneMinusSquare,
    Piecewise,
    Polynomial,
    Ramp,
    Sequence,
    Warmup,
    resolve,
    sgdr,
    wsd,
)

RAMPS = [c for c in REGISTRY.values() if issubclass(c, Ramp)]


def test_optax_warmup_of_0_steps_is_0_for_ever():
    with pytest.raises(FieldError, match="Warmup.over must be a length > 0"):
        Warmup(0)


def test_optax_join_schedules_drops_the_third_schedule():
    joined = Linear(10) >> Constant(5, 0.5) >> Cosine(10, start=0.25)
    assert (joined(0), joined(12), joined(15)) == (1.0, 0.5, 0.25)


@pytest.mark.parametrize("growth", [1.0, 1.5, 2.0, 3.0, 10.0])
def test_torch_and_timm_restart_by_floor_log_gives_the_end_of_a_cycle(growth):
    """Factor 3: restart 5 gives 0.0 in closed form and 1.0 by stepping."""
    schedule, start = sgdr(10, growth=growth), 0.0
    for cycle in range(8):
        assert schedule(math.ceil(start)) > 0.95, cycle
        start += 10 * growth**cycle
        if start == int(start):
            assert schedule(start) == 1.0


@pytest.mark.parametrize("family", RAMPS, ids=lambda c: c.kind)
def test_fvcore_past_the_end_raises_rises_or_is_complex(family):
    schedule = family(10)
    assert type(schedule(25)) is float
    assert schedule(25) == schedule(10) == schedule.stop


def test_fvcore_edits_the_callers_list():
    parts = [Linear(10), Cosine(10)]
    moments = [30, 60]
    table = {0: 1.0, 30: 0.1}
    Sequence(parts), MultiStep(moments), Piecewise(table)
    assert parts == [Linear(10), Cosine(10)]
    assert moments == [30, 60]
    assert table == {0: 1.0, 30: 0.1}


@pytest.mark.parametrize("along", [Linear, Cosine, OneMinusSqrt, OneMinusSquare])
def test_pytorch_optimizer_wsd_with_a_floor_decays_below_it_and_jumps_up(along):
    tree = resolve(wsd(10, 100, along=along, stop=0.1), Horizon(200))
    values = [tree(t) for t in range(100, 260)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.1


def test_torchtitan_and_olmo_turn_negative_after_the_end():
    tree = resolve(wsd(), Horizon(100))
    assert all(tree(t) >= 0.0 for t in (99, 100, 101, 150, 10**7))


def test_levanter_1_means_everything_and_2_means_two_steps():
    assert Warmup(1)(1) == Warmup(2)(2) == 1.0
    assert resolve(Warmup("100%"), Horizon(50)) == Warmup(50)


def test_lerp_misses_its_end_for_4_in_10_pairs():
    """`start + (stop - start) * 1.0 != stop`; a ramp is exact at both ends."""
    for i in range(1, 400):
        start, stop = 1 / i, math.sqrt(i) / 97
        for schedule in (
            Linear(7, start, stop),
            Cosine(7, start, stop),
            Polynomial(7, 1.5, start, stop),
        ):
            assert (schedule(0), schedule(7)) == (start, stop)


def test_first_seed_the_composition_that_mixes_epochs_and_steps():
    """Its `total_epochs - 1000` is a negative length; in units nothing can be mixed."""
    with pytest.raises(FieldError, match="Cosine.over must be a length > 0, got -900"):
        Warmup(1000) >> Cosine(100 - 1000)
    tree = resolve(Warmup("1000st") >> Cosine(), Horizon("100ep", batches_per_epoch=50))
    assert tree == Warmup(1000) >> Cosine(4000)
