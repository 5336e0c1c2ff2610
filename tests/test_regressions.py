"""Bugs of the field that the structure makes impossible, each named after where it was seen."""

import math

import pytest
import torch
from torch import nn

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
    Step,
    Warmup,
    one_cycle,
    resolve,
    sgdr,
    wsd,
)
from stepsize.torch import Scheduler

RAMPS = [c for c in REGISTRY.values() if issubclass(c, Ramp)]


def sgd(*lrs):
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


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


def test_torch_cosine_climbs_back_after_t_max():
    assert [Cosine(100)(t) for t in (100, 150, 200, 10**9)] == [0.0] * 4


def test_torch_one_cycle_raises_or_jumps_past_the_end():
    lr = one_cycle(100)["lr"]
    assert lr(99) == lr(100) == lr(10**6) == pytest.approx(4e-6)


def test_torch_and_timm_loading_a_state_overwrites_the_new_settings():
    old, new = Scheduler(sgd(0.1), lr=Cosine(10)), Scheduler(sgd(0.1), lr=Cosine(100))
    new.load_state_dict(old.state_dict(), on_mismatch="keep")
    new.last_epoch = 50
    assert new.get_last_lr() == [0.05]


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


def test_pain_3_one_cycle_inside_a_sequence_rewrites_its_siblings():
    tree = Warmup(10, start=0.5) >> one_cycle(100)["lr"]
    assert tree(0) == 0.5
    assert tree(10) == 0.04


def test_pain_2_nesting_changes_the_schedule():
    nested = Sequence((Sequence((Constant(1), Constant(1))), Constant(value=0.4)))
    assert [nested(t) for t in range(3)] == [1.0, 1.0, 0.4]


def test_pain_5_resuming_a_composite_by_last_epoch():
    scheduler = Scheduler(sgd(0.1), lr=Warmup(5) >> Step(10))
    scheduler.last_epoch = 15
    assert scheduler.get_last_lr() == [pytest.approx(0.01)]


def test_pain_11_restarts_with_peak_decay_warmup_and_a_floor():
    tree = sgdr(20, growth=1.0, factor=0.5, stop=0.1, warmup=4)
    assert tree(4) == 1.0
    assert tree(24) == pytest.approx(0.1 + 0.9 * 0.5)
    assert tree(0) == pytest.approx(0.1 + 0.9 / 5)
    assert tree(19.999999) == pytest.approx(0.1)


def test_pain_13_a_floor_per_group():
    optimizer = sgd(1.0, 0.01)
    scheduler = Scheduler(optimizer, lr=Cosine(10, stop=0.05))
    scheduler.last_epoch = 10
    assert scheduler.get_last_lr() == [0.05, 0.0005]


def test_pain_15_a_scheduler_made_anew_is_not_stuck_at_0():
    optimizer = sgd(0.1)
    first = Scheduler(optimizer, lr=Linear(10))
    first.last_epoch = 10
    first.detach()
    with pytest.warns(UserWarning, match="initial_lr = 0.1 was taken"):
        Scheduler(optimizer, lr=Linear(10))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_pain_24_whether_a_decay_includes_the_warmup_is_never_a_question():
    tree = Warmup(100) >> Linear(900)
    assert (tree.duration, tree(100), tree(550), tree(1000)) == (1000, 1.0, 0.5, 0.0)


def test_pain_25_the_first_step_is_not_at_rate_0():
    assert Warmup(1000)(0) > 0
    assert resolve(Warmup("5%") >> Cosine(), Horizon(1000))(0) > 0


def test_pain_26_rates_of_two_groups_are_not_flattened():
    optimizer = sgd(0.02, 3e-4)
    scheduler = Scheduler(optimizer, lr=Warmup(10) >> Cosine(90))
    scheduler.last_epoch = 10
    assert scheduler.get_last_lr() == [0.02, 3e-4]


def test_first_seed_the_composition_that_mixes_epochs_and_steps():
    """Its `total_epochs - 1000` is a negative length; in units nothing can be mixed."""
    with pytest.raises(FieldError, match="Cosine.over must be a length > 0, got -900"):
        Warmup(1000) >> Cosine(100 - 1000)
    tree = resolve(Warmup("1000st") >> Cosine(), Horizon("100ep", batches_per_epoch=50))
    assert tree == Warmup(1000) >> Cosine(4000)
