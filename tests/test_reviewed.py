"""Faults that independent readers found before the first release, each with its number."""

import functools
import gc
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

import stepsize
from stepsize import (
    Constant,
    Cosine,
    Custom,
    FieldError,
    Held,
    Horizon,
    Linear,
    MismatchError,
    MultiStep,
    Piecewise,
    Schedule,
    SpecError,
    Step,
    UnitError,
    Warmup,
    cyclic,
    driving_unit,
    from_dict,
    noam,
    one_cycle,
    resolve,
    sgdr,
    stepwise,
    to_dict,
)
from stepsize.schedules.formula import compile_formula
from stepsize.torch import Scheduler

RAMP = Horizon("10ep", batch_size=Linear(500, start=16, stop=128), samples_per_epoch=5000)


def sgd(*lrs):
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs or (0.1,)]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def take_step(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()


# Time ------------------------------------------------------------------------------------------


def test_epochs_under_a_ramp_are_as_long_as_they_are_where_they_lie():
    tree = resolve(Linear("5ep") >> Cosine("5ep"), RAMP)
    assert tree.duration == RAMP.steps
    with pytest.raises(UnitError, match="no fixed length in 'st' under a batch-size ramp"):
        resolve(Cosine().held("1ep"), RAMP)


def test_a_part_that_never_ends_is_no_part_before_the_last_once_units_are_known():
    horizon = Horizon("40ep", batches_per_epoch=10)
    for endless in (Step(30).held("1ep"), Step("30ep") * Linear("5ep")):
        with pytest.raises(FieldError, match="a part that ends"):
            resolve(endless >> Cosine(10), horizon)
    with pytest.raises(UnitError, match="another part never ends"):
        resolve(Cosine() >> Constant(), Horizon(100))


@pytest.mark.parametrize("total", [101, 1005, 7])
def test_nested_sequences_add_up_and_lie_on_whole_steps(total):
    half = 0.5 * (Linear("25%") >> Linear("25%"))
    tree = resolve(half >> half, Horizon(total))
    assert tree.duration == total
    assert all(start == int(start) for start in tree.starts)


def test_periods_do_not_drift():
    tree = resolve(cyclic("0.3ep"), Horizon("10ep", batches_per_epoch=391))
    assert tree.of.period == pytest.approx(0.6 * 391, abs=1e-9)


def test_the_rest_is_no_longer_than_the_room_inside_any_wrapper():
    for inner in (
        Cosine().held(7),
        Cosine().stretched(2),
        Cosine().shifted(20),
        Cosine().repeated(times=3),
        Cosine().repeated(times=2, growth=3.0),
    ):
        tree = resolve(Warmup(10) >> inner >> Linear(19), Horizon(100))
        assert tree.duration == pytest.approx(100), inner
        assert tree(81) == pytest.approx(1.0), inner


def test_the_last_step_of_a_fractional_total_does_not_train_at_rate_0():
    for horizon in (
        Horizon("1000.3 samples", batch_size=10),
        Horizon("3ep", batches_per_epoch=391, accumulate=4, last="carry"),
    ):
        last = horizon.position(horizon.steps, driving_unit(Cosine(), horizon))
        assert resolve(Cosine(), horizon).duration == last


def test_a_warmup_is_quantised_once():
    assert Warmup(10).stretched(2).stretched(0.5)(0) == pytest.approx(1 / 11)
    assert Warmup(10).stretched(2).held(2)(0) == Warmup(20).held(2)(0)


def test_nested_stretches_are_built_quickly():
    tree, began = Warmup(10), time.process_time()
    for _ in range(30):
        tree = (1.0 * tree).stretched(1.01)
    assert tree(5) > 0
    assert time.process_time() - began < 5  # 2**30 constructions would take hours


def test_a_horizon_leaves_plain_numbers_alone():
    lr = one_cycle(1003)["lr"]
    assert resolve(lr, Horizon(2000)) == lr


def test_plain_boundaries_inside_products_stay_where_they_are():
    horizon = Horizon("10ep", batches_per_epoch=7)
    value = stepwise(Linear(4) * Constant("1.5ep"), horizon)
    assert [value(i) for i in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert stepwise(Linear().held("1.5ep"), horizon)(21) == pytest.approx(0.7)


def test_odd_horizons_say_what_is_wrong():
    with pytest.raises(UnitError, match="needs at least 2 steps"):
        resolve(Cosine(), Horizon(1), reach="last")
    with pytest.raises(UnitError, match="shorter than half a step"):
        resolve(Linear("10%") >> Linear("10%"), Horizon(1))
    with pytest.raises(FieldError, match="plan.resolved\\(horizon\\)"):
        resolve(one_cycle(), Horizon(10))
    assert one_cycle().resolved(Horizon(1000))["lr"](300) == 1.0
    assert resolve(Linear(10).shifted("-1ep"), Horizon(100, batches_per_epoch=10)).duration == 0.0
    horizon = Horizon(100, batches_per_epoch=10)
    assert resolve(Piecewise({"0ep": 1.0}, linear=True), horizon)(3) == 1.0


# Formulas ----------------------------------------------------------------------------------------


def test_a_table_as_long_as_a_chunk_is_no_buffer():
    table = Piecewise(tuple((float(i), 1.0 + i) for i in range(16385)))
    assert table(np.arange(100.0) * 50).tolist() == [table(50.0 * i) for i in range(100)]
    steps = MultiStep(tuple(range(16384)), factor=0.9999)
    assert steps(np.arange(100.0)).tolist() == [steps(i) for i in range(100)]


def test_a_formula_may_not_compare_times_for_equality():
    with pytest.raises(TypeError, match="compare with < or >="):
        compile_formula(lambda t, xp: xp.where(t == 3.0, 1.0, 2.0))


def test_constants_of_branches_not_taken_may_be_undefined():
    def formula(t, xp):
        return xp.where(t > 0.0, 1.0 / xp.clip(t, 0.0, 1e9), xp.log(xp.clip(t, 5.0, 5.0)))

    assert compile_formula(formula)(2.0) == 0.5
    assert compile_formula(formula)(-2.0) == math.log(5.0)


def test_numpy_constants_and_whole_numbers_in_formulas():
    value = compile_formula(lambda t, xp: t * np.sqrt(2.0) + xp.floor(t))
    assert value(3.5) == 3.5 * math.sqrt(2) + 3.0
    assert type(compile_formula(lambda t, xp: xp.floor(t))(3.5)) is float
    table = (1.0, 2.0, 4.0, 8.0)
    assert (
        compile_formula(lambda t, xp: xp.take(table, xp.clip(xp.floor(t), 0.0, 3.0)))(-1.0) == 1.0
    )


def test_long_products_compile():
    tree = Linear(10)
    for _ in range(250):
        tree = tree * Linear(10, start=1.0, stop=0.999)
    assert tree(0) == 1.0
    scaled = Linear(10)
    for _ in range(60):
        scaled = 0.999 * scaled
    assert scaled(0) == pytest.approx(0.999**60)


def test_clipping_a_constant_keeps_the_shape():
    assert Constant().clipped(0.2, 0.7)(torch.arange(3.0)).tolist() == pytest.approx([0.7] * 3)


@pytest.mark.parametrize(
    "schedule",
    [Warmup(10) >> Cosine(90), MultiStep((3, 6)), Piecewise({0: 1.0, 5: 0.5}, linear=True),
     sgdr(10, growth=2), Step(3), Held(Linear(10), 3)],
    ids=repr,
)  # fmt: skip
def test_the_source_can_be_pasted(schedule):
    space = {}
    exec(schedule.source(), space)  # noqa: S102 (our own text)
    assert [space["value"](t) for t in (0.0, 4.0, 33.0)] == [schedule(t) for t in (0, 4, 33)]


def test_pictures_show_what_there_is():
    assert "0.0006988" in noam(512, 4000).sketch(width=30, height=3)
    assert sgdr(10)._repr_svg_().count("<path") == 1
    assert (Warmup(5000) >> Cosine()).sketch().count("\n") == 11
    assert Custom(math.sin).sketch(20)
    with pytest.raises(FieldError, match="total must be a finite number > 0"):
        Linear(10).sketch(-5)
    with pytest.raises(FieldError, match="curve.steps must be a whole number >= 0"):
        Linear(10).curve(-1)
    assert "partial" in repr(Custom(functools.partial(pow, 2)))


# Binding -----------------------------------------------------------------------------------------


class Mine(torch.optim.AdamW):
    def step(self, closure=None):
        return super().step(closure)


class Broken(Mine):
    fail = False

    def step(self, closure=None):
        super().step(closure)
        if self.fail:
            raise RuntimeError
        return super().step(closure)


def test_a_step_that_calls_its_parents_counts_once():
    torch.optim.AdamW([nn.Parameter(torch.ones(1))])  # any plain one, made anywhere
    optimizer = Mine([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = Scheduler(optimizer, lr=Linear(10))
    for _ in range(3):
        take_step(optimizer)
        scheduler.step()
    assert scheduler.last_epoch == 3


def test_a_nested_step_that_raised_does_not_stop_the_count():
    optimizer = Broken([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler = Scheduler(optimizer, lr=Linear(10))
    take_step(optimizer)
    optimizer.fail = True
    with pytest.raises(RuntimeError):
        take_step(optimizer)
    optimizer.fail = False
    take_step(optimizer)
    scheduler.step()
    assert scheduler.last_epoch == 2


def test_calls_after_a_resume_move_nothing_before_the_next_real_step():
    def made():
        optimizer = sgd()
        return optimizer, Scheduler(optimizer, lr=Linear(100))

    optimizer, scheduler = made()
    for _ in range(50):
        take_step(optimizer)
        scheduler.step()
    for _ in range(3):  # preempted in the middle of an accumulation window
        state = scheduler.state_dict()
        optimizer, scheduler = made()
        scheduler.load_state_dict(state)
        for _ in range(5):
            scheduler.step()
    assert scheduler.last_epoch == 50
    take_step(optimizer)
    scheduler.step()
    assert scheduler.last_epoch == 51


def test_positions_are_whole_and_not_negative():
    scheduler = Scheduler(sgd(), lr=Linear(100))
    for wrong in (-10, 2.5, math.nan):
        with pytest.raises(FieldError, match="Scheduler.last_epoch must be a whole number >= 0"):
            scheduler.last_epoch = wrong
    for wrong in (-1, math.nan, "2ep"):
        with pytest.raises(FieldError, match="Scheduler.at: the step must be"):
            scheduler.at(wrong)


def test_one_tensor_cannot_hold_two_rates():
    shared = torch.tensor(0.1)
    groups = [{"params": [nn.Parameter(torch.ones(1))], "name": n} for n in "ab"]
    optimizer = torch.optim.SGD(groups, lr=shared)
    with pytest.raises(FieldError, match="one tensor in groups 0 and 1"):
        Scheduler(optimizer, lr=Linear(10), groups={"b": {"lr": Linear(5)}})
    Scheduler(optimizer, lr=Linear(10))


def test_a_group_added_since_is_in_the_state():
    optimizer = sgd(0.1)
    scheduler = Scheduler(optimizer, lr=Linear(10))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.5})
    other = Scheduler(sgd(0.1, 0.5), lr=Linear(10))
    other.load_state_dict(scheduler.state_dict())
    assert other.base_lrs == [0.1, 0.5]


def test_a_group_by_number_stays_the_group_it_was():
    one, two = sgd(0.1), sgd(0.2)
    scheduler = Scheduler([one, two], lr=Linear(10), groups={1: {"lr": Constant()}})
    one.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.3})
    scheduler.last_epoch = 5
    scheduler.rebind()
    assert scheduler.get_last_lr() == [0.05, 0.15, 0.2]


def test_a_detached_scheduler_stays_quiet_and_a_refused_one_leaves_no_trace():
    optimizer = sgd(0.1)
    first = Scheduler(optimizer, lr=Linear(10))
    with pytest.raises(FieldError, match="the only one"):
        Scheduler(optimizer, lr=Linear(10), base=5.0)
    assert optimizer.param_groups[0]["initial_lr"] == 0.1
    second = Scheduler(optimizer, lr=Constant(value=0.5), take_over=True)
    first.last_epoch = 9
    first.load_state_dict(first.state_dict())
    first.rebind()
    assert second.get_last_lr() == [0.05]
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.5})
    second.rebind()
    with pytest.raises(FieldError, match="the only one"):
        Scheduler(optimizer, groups={1: {"lr": Linear(3)}})


def test_a_scheduler_that_could_not_be_built_stands_in_nobodys_way():
    """A notebook keeps the failed one alive in its traceback."""
    optimizer = sgd(0.1, 0.2)
    old = Scheduler(optimizer, lr=Constant())
    wrong = {1: {"weight_decay": Linear(9)}}  # a factor of a base of 0, found at the last group
    with pytest.raises(FieldError, match="other than 0 in one group") as kept:
        Scheduler(optimizer, lr=Linear(9), groups=wrong, base=5.0, take_over=True)
    assert [g["initial_lr"] for g in optimizer.param_groups] == [0.1, 0.2]
    old.last_epoch = 3
    assert old.get_last_lr() == [0.1, 0.2]  # and it was not taken over
    old.detach()
    Scheduler(optimizer, lr=Linear(9))
    assert kept.value is not None


def test_dropped_schedulers_leave_no_hooks():
    optimizer = sgd()
    for _ in range(10):
        Scheduler(optimizer, lr=Linear(10))
    gc.collect()
    assert len(optimizer._optimizer_step_post_hooks) == 0
    assert len(optimizer._optimizer_load_state_dict_post_hooks) == 0


def test_a_subclass_may_override_step():
    class Loud(Scheduler):
        calls = 0

        def step(self):
            type(self).calls += 1
            super().step()

    scheduler = Loud(sgd(), lr=Linear(10))
    scheduler.step()
    assert (Loud.calls, scheduler.last_epoch) == (1, 1)


def test_an_optimizer_without_hooks_is_counted_by_calls_and_that_is_said():
    class Bare:
        def __init__(self):
            self.param_groups = [{"params": [], "lr": 0.1}]

    with pytest.warns(UserWarning, match="Bare has no step hooks .* are counted"):
        scheduler = Scheduler(Bare(), lr=Linear(10))
    scheduler.step()
    assert scheduler.get_last_lr() == [pytest.approx(0.09)]


def test_adopting_takes_the_saved_total_and_failing_changes_nothing():
    plan = Warmup("5%") >> Cosine()
    saved = Scheduler(sgd(), lr=plan, horizon=Horizon(100))
    saved.last_epoch = 40
    other = Scheduler(sgd(), lr=plan, horizon=Horizon(200))
    with pytest.raises(MismatchError, match="total: saved 100, now 200"):
        other.load_state_dict(saved.state_dict())
    other.load_state_dict(saved.state_dict(), on_mismatch="adopt")
    assert other.get_last_lr() == saved.get_last_lr()
    same = Scheduler(sgd(), lr=plan, horizon=Horizon("10ep", batches_per_epoch=10))
    same.load_state_dict(saved.state_dict())  # 100 steps, spelled otherwise
    longer = Scheduler(sgd(), lr=plan, horizon=Horizon("10ep", batches_per_epoch=20))
    with pytest.raises(MismatchError, match="total: saved 100, now 200"):
        longer.load_state_dict(saved.state_dict())


DAMAGES = [
    None,
    {},
    {"details": "{"},
    {"details": "{}"},
    {"step": "x"},
    {"step": -5},
    {"fingerprint": "0"},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=repr)
def test_damaged_states_are_refused(damage):
    scheduler = Scheduler(sgd(), lr=Linear(10))
    state = {**scheduler.state_dict(), **damage} if damage else damage
    with pytest.raises(MismatchError):
        scheduler.load_state_dict(state)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": Linear(9), "horizon": 100}, "Scheduler.horizon must be a Horizon"),
        ({"foreach": Linear(9)}, "the key must be one of"),
        ({"params": Linear(9)}, "the key must be one of"),
        ({"nesterov": Linear(9).absolute()}, "the key must be one of"),
        ({"initial_lr": Linear(9)}, "the key must be one of"),
        ({"lr": Linear(9), "base": {"momentun": 0.3}}, "Scheduler.base: a key"),
        ({"lr": Linear(9), "extra": {"lr": Linear(9)}}, "Scheduler.extra: a name"),
        ({"lr": Linear(9), "groups": [1]}, "Scheduler.groups must be a mapping"),
    ],
)
def test_arguments_that_would_do_nothing_or_harm(given, message):
    with pytest.raises(FieldError, match=message):
        Scheduler(sgd(), **given)


def test_a_beta_of_1_or_more_is_refused():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))])
    with pytest.raises(FieldError, match="its peak must be below 1"):
        Scheduler(optimizer, beta1=Constant(value=2.0))
    optimizer = sgd()
    with pytest.raises(FieldError, match="an optimizer or several"):
        Scheduler([optimizer, optimizer], lr=Linear(3))


# Input -------------------------------------------------------------------------------------------


def test_input_that_got_through():
    with pytest.raises(FieldError, match="finite length"):
        Linear(10**400)
    with pytest.raises(FieldError, match="a length of time"):
        Linear("1__0ep")
    with pytest.raises(FieldError, match="Plan.renamed"):
        one_cycle().renamed(momentum="lr")
    with pytest.raises(FieldError, match="Plan.renamed"):
        one_cycle().renamed(foo="bar")
    with pytest.raises(SpecError, match="only a schedule or a plan"):
        to_dict(Linear)
    with pytest.raises(SpecError, match="unknown version True"):
        from_dict({"format": True, "schedule": {"kind": "linear"}})
    with pytest.raises(SpecError, match="No module named"):
        from_dict(
            {"format": 1, "schedule": {"kind": "custom", "function": "nowhere:f"}}, trust="nowhere"
        )
    with pytest.raises(FieldError, match="Time must be"):
        stepsize.Time(5.0, "foo")
    with pytest.raises(FieldError, match="left out beside total"):
        Horizon.from_loader([1, 2], epochs=3, total=5)
    with pytest.raises(FieldError, match="one_cycle.momentum"):
        one_cycle(10, momentum=0.9)
    plan = from_dict({"format": 1, "plan": {"self": {"kind": "linear", "over": 3}}})
    assert list(plan) == ["self"]
    assert Linear(10)(10**400) == 0.0
    assert issubclass(Linear, Schedule)
