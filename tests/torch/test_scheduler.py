"""The torch binding: position, groups, base values, tensors, copies, compile."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from stepsize import (
    Constant,
    Cosine,
    Custom,
    FieldError,
    Horizon,
    Linear,
    MultiStep,
    Plan,
    Step,
    UnitError,
    Warmup,
    one_cycle,
)
from stepsize.torch import Scheduler

SHAPE = Warmup(5) >> Cosine(15)


def sgd(*lrs, momentum=0.9, **fields):
    lrs = lrs or (0.1,)
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=lrs[0], momentum=momentum, **fields)


def adamw(**fields):
    return torch.optim.AdamW([nn.Parameter(torch.ones(2))], **{"lr": 1e-3, **fields})


def take_step(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()


def rates(optimizer):
    return [float(g["lr"]) for g in optimizer.param_groups]


# Position ------------------------------------------------------------------------------------


def test_the_first_step_uses_the_value_at_0_and_the_last_of_n_the_value_at_n_minus_1():
    optimizer = sgd(1.0)
    scheduler, used = Scheduler(optimizer, lr=SHAPE), []
    for _ in range(20):
        used += rates(optimizer)
        take_step(optimizer)
        scheduler.step()
    assert used == [SHAPE(t) for t in range(20)]


def test_many_calls_for_one_step_move_it_once():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    for t in range(1, 8):
        take_step(optimizer)
        for _ in range(4):  # what Accelerate does on 4 processes
            scheduler.step()
        assert scheduler.last_epoch == t
        assert rates(optimizer) == [0.1 * SHAPE(t)]


def test_one_call_per_epoch_moves_it_an_epoch():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    for epoch in range(1, 4):
        for _ in range(5):
            take_step(optimizer)
        scheduler.step()
        assert rates(optimizer) == [0.1 * SHAPE(5 * epoch)]


def test_accumulated_batches_do_not_move_it():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    for batch in range(1, 13):
        if batch % 4 == 0:
            take_step(optimizer)
        if batch >= 4:
            scheduler.step()
    assert scheduler.last_epoch == 3


def test_the_wrong_order_of_the_two_calls_shifts_nothing_after_the_first_step():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    for _ in range(6):
        scheduler.step()
        take_step(optimizer)
    scheduler.step()
    assert scheduler.last_epoch == 6
    assert rates(optimizer) == [0.1 * SHAPE(6)]


def test_a_skipped_amp_step_does_not_move_it():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for t in range(4):
        p = optimizer.param_groups[0]["params"][0]
        optimizer.zero_grad()
        scaler.scale((p * (float("inf") if t == 2 else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert scheduler.last_epoch == 3


def test_a_dry_loop_counts_its_calls():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    seen = []
    for _ in range(20):
        seen += rates(optimizer)
        scheduler.step()
    assert seen == [0.1 * SHAPE(t) for t in range(20)]


def test_the_first_real_step_corrects_a_dry_run():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    for _ in range(7):
        scheduler.step()
    take_step(optimizer)
    scheduler.step()
    assert scheduler.last_epoch == 1


def test_counting_calls_is_the_explicit_other_way():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE, counts="calls")
    take_step(optimizer)
    for _ in range(3):
        scheduler.step()
    assert scheduler.last_epoch == 3
    with pytest.raises(FieldError, match="Scheduler.counts must be 'steps' or 'calls'"):
        Scheduler(sgd(), lr=SHAPE, counts="epochs")


def test_a_closure_optimizer_counts_steps_not_evaluations():
    p = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.LBFGS([p], lr=0.1, max_iter=5)
    scheduler = Scheduler(optimizer, lr=SHAPE)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
        scheduler.step()
    assert scheduler.last_epoch == 3


@pytest.mark.filterwarnings("ignore:.*was over at step")
def test_past_its_end_it_holds_the_last_value():
    """torch's cosine climbs back up, OneCycleLR jumps and then raises."""
    optimizer = sgd()
    scheduler = Scheduler(optimizer, one_cycle(10))
    for _ in range(100):
        take_step(optimizer)
        scheduler.step()
    assert rates(optimizer) == [pytest.approx(0.1 * 4e-6)]


def test_last_epoch_may_be_set():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    scheduler.last_epoch = 12
    assert rates(optimizer) == [0.1 * SHAPE(12)]
    take_step(optimizer)
    scheduler.step()
    assert scheduler.last_epoch == 13


def test_get_lr_only_reads_as_ignite_needs():
    optimizer = sgd(0.1, 0.2)
    scheduler = Scheduler(optimizer, lr=SHAPE)
    for _ in range(3):
        assert scheduler.get_lr() == scheduler.get_last_lr() == rates(optimizer)
        scheduler.last_epoch += 1
    assert scheduler.last_epoch == 3


# What is written ------------------------------------------------------------------------------


def test_written_rates_are_python_floats_and_the_optimizer_saves_safely(tmp_path):
    import numpy as np

    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=Custom(lambda t: np.float64(1.0) / (1 + t)))
    take_step(optimizer)
    scheduler.step()
    assert type(optimizer.param_groups[0]["lr"]) is float
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    assert torch.load(tmp_path / "o.pt", weights_only=True)["param_groups"][0]["lr"] == 0.05


def test_any_hyper_parameter_of_any_group():
    head = {"params": [nn.Parameter(torch.ones(1))], "name": "head", "lr": 1e-2}
    body = {"params": [nn.Parameter(torch.ones(1))], "name": "body"}
    optimizer = torch.optim.AdamW([head, body], lr=1e-3, weight_decay=0.1)
    scheduler = Scheduler(
        optimizer,
        lr=Linear(10),
        beta1=Linear(10, start=0.95, stop=0.85).absolute(),
        groups={
            "head": {"lr": Cosine(10)},
            1: {"weight_decay": Linear(10, stop=0.5), "eps": Constant()},
        },
        extra={"ema": Linear(10, start=0.9, stop=1.0).absolute()},
    )
    scheduler.last_epoch = 5
    assert rates(optimizer) == [1e-2 * 0.5, 1e-3 * 0.5]
    assert [g["betas"] for g in optimizer.param_groups] == [(pytest.approx(0.9), 0.999)] * 2
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, pytest.approx(0.075)]
    assert scheduler.values()["ema"] == pytest.approx(0.95)
    assert scheduler.values()["lr"] == rates(optimizer)
    assert scheduler.at(10)["lr"] == [0.0, 0.0]
    assert rates(optimizer) == [1e-2 * 0.5, 1e-3 * 0.5]  # looking ahead writes nothing


@pytest.mark.filterwarnings("ignore:.*was over at step")
def test_a_factor_and_an_absolute_train_at_the_same_rates():
    """The same run from a factor on lr 3e-4 and from absolute(3e-4)."""
    by_factor, by_value = adamw(lr=3e-4), adamw(lr=123.0)
    one, two = Scheduler(by_factor, lr=SHAPE), Scheduler(by_value, lr=SHAPE.absolute(3e-4))
    for _ in range(25):
        assert rates(by_factor) == pytest.approx(rates(by_value), rel=1e-15)
        for optimizer, scheduler in ((by_factor, one), (by_value, two)):
            take_step(optimizer)
            scheduler.step()


def test_a_rate_as_a_factor_is_an_error():
    """3e-4 * schedule on an optimizer with lr 3e-4 would silently train at 9e-8."""
    with pytest.raises(
        FieldError, match=r"within \[0.01, 100\], got 0.0003; .*schedule.absolute\(peak\)"
    ):
        Scheduler(adamw(lr=3e-4), lr=3e-4 * SHAPE)
    with pytest.raises(FieldError, match=r"within \[0.01, 100\]"):
        Scheduler(adamw(lr=3e-4), lr=Custom(lambda t: 1e-5 * t, over=100))
    Scheduler(adamw(), lr=Constant(value=0.0))  # a frozen group is no rate


def test_floors_are_ratios_of_each_groups_own_base():
    """torch's eta_min is absolute: groups 1.0 and 0.01 both end at 0.05."""
    optimizer = sgd(1.0, 0.01)
    scheduler = Scheduler(optimizer, lr=Cosine(10, stop=0.1))
    scheduler.last_epoch = 10
    assert rates(optimizer) == [0.1, 0.001]


def test_several_optimizers_keep_their_own_base_and_the_first_one_drives():
    one, two = sgd(0.1), adamw(lr=1e-3)
    scheduler = Scheduler([one, two], lr=SHAPE)
    for _ in range(3):
        take_step(one)
        take_step(two)
        take_step(two)
        scheduler.step()
    assert scheduler.last_epoch == 3
    assert scheduler.optimizer is one and scheduler.optimizers == [one, two]  # noqa: PT018
    assert (rates(one), rates(two)) == ([0.1 * SHAPE(3)], [1e-3 * SHAPE(3)])


def test_a_value_is_computed_once_for_all_groups_and_not_written_while_unchanged():
    calls, written = [], []

    class Watched(dict):
        def __setitem__(self, key, value):
            written.append(key)
            super().__setitem__(key, value)

    def count(t):
        calls.append(t)
        return 1.0 if t < 3 else 0.5

    optimizer = sgd(*[0.1] * 50)
    optimizer.param_groups[:] = [Watched(g) for g in optimizer.param_groups]
    scheduler = Scheduler(optimizer, lr=Custom(count))
    calls.clear(), written.clear()
    for _ in range(5):
        scheduler.step()
    assert len(calls) == 5
    assert written == ["lr"] * 50


def test_a_stair_is_not_even_computed_again():
    scheduler = Scheduler(sgd(), lr=Custom(lambda t: 1.0 / (1 + t)).held(100))
    for _ in range(250):
        scheduler.step()
    assert scheduler.get_last_lr() == [0.1 * (1.0 / 201)]


# Tensors -------------------------------------------------------------------------------------


def test_tensor_rates_are_filled_never_replaced():
    rate = torch.tensor(0.1, dtype=torch.float64)
    optimizer = sgd(rate)
    scheduler = Scheduler(optimizer, lr=SHAPE)
    for t in range(1, 10):
        take_step(optimizer)
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == 0.1 * SHAPE(t)


def test_a_bfloat16_rate_does_not_drift():
    """torch's chainable ExponentialLR never moves such a rate at all."""
    from stepsize import Exponential

    rate = torch.tensor(0.1, dtype=torch.bfloat16)
    scheduler = Scheduler(sgd(rate), lr=Exponential(0.999))
    for _ in range(2000):
        scheduler.step()
    assert rate.item() == torch.tensor(rate_base() * 0.999**2000).bfloat16().item()


def rate_base():
    return torch.tensor(0.1, dtype=torch.bfloat16).item()


def test_tensor_betas_are_filled():
    p = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW(
        [p], lr=torch.tensor(1e-3), betas=(torch.tensor(0.9), torch.tensor(0.999)), foreach=False
    )
    held = optimizer.param_groups[0]["betas"]
    scheduler = Scheduler(optimizer, beta1=Linear(10, start=0.95, stop=0.85).absolute())
    take_step(optimizer)
    scheduler.step()
    assert optimizer.param_groups[0]["betas"][0] is held[0]
    assert held[0].item() == pytest.approx(0.94)


# Base values ---------------------------------------------------------------------------------


def test_initial_values_are_left_in_the_group_for_every_key():
    optimizer = sgd(0.1)
    Scheduler(optimizer, lr=SHAPE, momentum=Linear(10, stop=0.5))
    group = optimizer.param_groups[0]
    assert (group["initial_lr"], group["initial_momentum"]) == (0.1, 0.9)


def test_an_integer_rate_becomes_a_float():
    optimizer = sgd(1)
    Scheduler(optimizer, lr=Constant())
    assert type(optimizer.param_groups[0]["lr"]) is float


def test_a_stale_initial_value_is_taken_and_said():
    optimizer = sgd(0.1)
    first = Scheduler(optimizer, lr=SHAPE)
    first.last_epoch = 18
    first.detach()
    scheduler = Scheduler(optimizer, lr=SHAPE)  # says nothing yet: a state might follow
    assert rates(optimizer) == [0.1 * SHAPE(0)]
    take_step(optimizer)
    with pytest.warns(UserWarning, match=r"initial_lr = 0.1 was taken .* not the present lr = "):
        scheduler.step()
    take_step(optimizer)
    scheduler.step()  # said once


def test_an_explicit_base_wins():
    optimizer = sgd(0.1, 0.2)
    Scheduler(optimizer, lr=Constant(), base=0.5)
    assert rates(optimizer) == [0.5, 0.5]
    optimizer = sgd(0.1, 0.2)
    Scheduler(optimizer, lr=Constant(), base={"lr": [0.3, 0.4]})
    assert rates(optimizer) == [0.3, 0.4]


# One writer per key -----------------------------------------------------------------------------


def test_a_second_scheduler_on_the_same_key_is_an_error_or_takes_over():
    optimizer = sgd(0.1)
    first = Scheduler(optimizer, lr=Constant())
    with pytest.raises(FieldError, match="the only one to write a key of a group"):
        Scheduler(optimizer, lr=Constant(value=0.5))
    second = Scheduler(optimizer, lr=Constant(value=0.5), take_over=True)
    first.step()
    assert rates(optimizer) == [0.05]
    Scheduler(optimizer, momentum=Linear(10, stop=0.5))  # another key is free
    assert second.last_epoch == 0


def test_a_scheduler_that_is_gone_writes_no_more():
    optimizer = sgd(0.1)
    scheduler = Scheduler(optimizer, lr=SHAPE)
    gone = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert gone() is None
    Scheduler(optimizer, lr=Constant())
    assert rates(optimizer) == [0.1]


# Groups that change ----------------------------------------------------------------------------


def test_groups_added_later_are_scheduled_with_their_own_base():
    optimizer = sgd(0.1)
    scheduler = Scheduler(optimizer, lr=Linear(10))
    take_step(optimizer)
    scheduler.step()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.5})
    take_step(optimizer)
    scheduler.step()
    assert rates(optimizer) == [0.1 * 0.8, 0.5 * 0.8]


# What it is ------------------------------------------------------------------------------------


def test_it_is_a_torch_scheduler_without_its_constructor():
    optimizer = sgd()
    before = optimizer.step
    scheduler = Scheduler(optimizer, lr=SHAPE)
    assert isinstance(scheduler, LRScheduler)
    assert optimizer.step == before  # torch's own constructor patches it
    assert not callable(scheduler)  # DeepSpeed would call it as a factory
    assert not hasattr(scheduler, "total_steps")  # Accelerate would take it for OneCycleLR
    assert scheduler._step_count == 1
    assert scheduler.base_lrs == [0.1]


def test_copies_and_pickles_are_built_anew():
    optimizer = sgd(0.1, 0.2)
    scheduler = Scheduler(optimizer, lr=SHAPE, groups={1: {"momentum": Linear(10, stop=0.5)}})
    for _ in range(7):
        take_step(optimizer)
        scheduler.step()
    for other, copied in (
        copy.deepcopy((optimizer, scheduler)),
        pickle.loads(pickle.dumps((optimizer, scheduler))),  # noqa: S301 (our own bytes)
    ):
        assert copied.optimizer is other
        assert copied.last_epoch == 7
        take_step(other)
        copied.step()
        assert rates(other) == [0.1 * SHAPE(8), 0.2 * SHAPE(8)]
    assert scheduler.last_epoch == 7


# Errors at binding ------------------------------------------------------------------------------


def test_a_horizon_is_asked_for_where_it_is_needed():
    with pytest.raises(
        UnitError, match="Scheduler.horizon is needed: Cosine\\(\\) is written in units"
    ):
        Scheduler(sgd(), lr=Cosine())
    scheduler = Scheduler(sgd(), lr=Cosine(), horizon=Horizon("2ep", batches_per_epoch=5))
    assert scheduler.at(5)["lr"] == [0.05]


def test_token_schedules_follow_the_steps():
    horizon = Horizon("1e6 tok", batch_size=10, tokens_per_sample=100)
    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, lr=Linear("1e6 tok"), horizon=horizon)
    for t in range(1, 4):
        take_step(optimizer)
        scheduler.step()
        assert rates(optimizer) == [pytest.approx(1 - t / 1000)]


def test_plans_bind_as_a_whole():
    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, one_cycle(100))
    scheduler.last_epoch = 29
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1.0)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.85)
    adam = adamw()
    Scheduler(adam, one_cycle(100).renamed(momentum="beta1"))
    assert adam.param_groups[0]["betas"][0] == pytest.approx(0.95)


def test_a_plan_and_keywords_may_not_overlap():
    with pytest.raises(FieldError, match="without keys that are given again, got \\['lr'\\]"):
        Scheduler(sgd(), Plan(lr=SHAPE), lr=SHAPE)
    Scheduler(sgd(), Plan(lr=SHAPE), weight_decay=Step(3).absolute(0.1), momentum=MultiStep((3,)))
