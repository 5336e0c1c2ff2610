"""Ignite: its wrapper never calls `step()`, it reads `get_lr()` and adds one to `last_epoch`."""

import math

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers.param_scheduler import LRScheduler
from tests.frameworks.watched import BASE, SHAPE, sgd, step, values, watched
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from stepsize import Cosine
from stepsize.torch import Scheduler

BATCHES = 5
EPOCHS = 3
STEPS = BATCHES * EPOCHS


def ours(optimizer, **fields):
    return Scheduler(optimizer, lr=SHAPE, **fields)


def run(make, *, optimizer=None, accumulate=1):
    """Train under ignite's wrapper of a torch scheduler; give what was used, and the wrapper."""
    optimizer = optimizer or sgd()
    used = watched(optimizer, after=True)
    wrapper = LRScheduler(make(optimizer))
    trainer = Engine(
        lambda engine, batch: step(optimizer) if engine.state.iteration % accumulate == 0 else None
    )
    trainer.add_event_handler(Events.ITERATION_STARTED, wrapper)
    trainer.run([0] * BATCHES, max_epochs=EPOCHS)
    return used, wrapper


@pytest.mark.parametrize("fields", [{}, {"follow": True}, {"counts": "calls"}])
def test_every_iteration_uses_its_value(fields):
    used, wrapper = run(lambda optimizer: ours(optimizer, **fields))
    assert used == values(SHAPE, STEPS)
    assert wrapper.lr_scheduler.last_epoch == STEPS


def test_torchs_own_come_out_wrong():
    """Their recurrences count on being stepped by themselves, once in the constructor."""
    used, _ = run(lambda optimizer: LinearLR(optimizer, 1 / 3, 1.0, STEPS - 1))
    assert used[0] == pytest.approx(BASE / 9)  # the start factor was applied twice
    assert used[-1] == pytest.approx(BASE / 3)  # and it ends where it should have begun
    used, _ = run(lambda optimizer: CosineAnnealingLR(optimizer, STEPS))
    right = [BASE * (1 + math.cos(math.pi * t / STEPS)) / 2 for t in range(STEPS)]
    assert used[0] > right[0] * 1.01
    used, _ = run(lambda optimizer: Scheduler(optimizer, lr=Cosine(STEPS)))
    assert used == pytest.approx(right)


def test_accumulated_iterations_are_one_step():
    used, wrapper = run(ours, accumulate=5)
    assert used == values(SHAPE, EPOCHS)
    assert wrapper.lr_scheduler.last_epoch == EPOCHS


def test_every_group_has_its_own_base():
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.3)]
    optimizer, seen = sgd(groups), []
    optimizer.register_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append([g["lr"] for g in optimizer.param_groups])
    )
    run(ours, optimizer=optimizer)
    assert seen == [[0.1 * SHAPE(t), 0.3 * SHAPE(t)] for t in range(STEPS)]


def test_its_simulation_shows_what_will_be_used_and_leaves_no_trace():
    optimizer = sgd()
    scheduler = ours(optimizer)
    shown = LRScheduler.simulate_values(STEPS, scheduler)
    assert [value for _, value in shown] == values(SHAPE, STEPS)
    assert scheduler.last_epoch == 0
    assert optimizer.param_groups[0]["lr"] == BASE * SHAPE(0)


def test_its_saved_state_goes_on():
    _, wrapper = run(ours)
    state = {
        "optimizer": wrapper.lr_scheduler.optimizer.state_dict(),
        "wrapper": wrapper.state_dict(),
    }
    optimizer = sgd()
    used = watched(optimizer)
    again = LRScheduler(ours(optimizer))
    optimizer.load_state_dict(state["optimizer"])
    again.load_state_dict(state["wrapper"])
    trainer = Engine(lambda engine, batch: step(optimizer))
    trainer.add_event_handler(Events.ITERATION_STARTED, again)
    trainer.run([0] * BATCHES, max_epochs=1)
    assert used == values(SHAPE, BATCHES, start=STEPS)


def test_a_handler_of_ones_own_and_none_at_all():
    for follow in (False, True):
        optimizer = sgd()
        used = watched(optimizer)
        scheduler = Scheduler(optimizer, lr=SHAPE, **({"follow": True} if follow else {}))
        trainer = Engine(lambda engine, batch, optimizer=optimizer: step(optimizer))
        if not follow:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _, s=scheduler: s.step())
        trainer.run([0] * BATCHES, max_epochs=EPOCHS)
        assert used == values(SHAPE, STEPS)
