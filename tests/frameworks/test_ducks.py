"""Frameworks that are not installed, by what they do to a scheduler: loops of our own."""

import copy

import pytest
import torch
from tests.frameworks.watched import BASE, SHAPE, sgd, step, values, watched
from torch import nn
from torch.distributed.checkpoint.stateful import Stateful
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from stepsize import Custom, FieldError, Warmup
from stepsize.torch import Scheduler

CALLS = r"calls of step\(\) are counted"


def two_groups(*lrs):
    return sgd([{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs or (0.1, 0.2)])


# torchtitan: a container of one scheduler per optimizer -------------------------------------------


class Container(Stateful):
    """One for all optimizers; it saves nothing but the number of steps, and sets it."""

    def __init__(self, optimizers):
        self.schedulers = [Scheduler(optimizer, lr=SHAPE) for optimizer in optimizers]

    def step(self):
        for scheduler in self.schedulers:
            scheduler.step()

    def state_dict(self):
        return {"last_epoch": self.schedulers[0].last_epoch}

    def load_state_dict(self, state_dict):
        for scheduler in self.schedulers:
            scheduler.last_epoch = state_dict["last_epoch"]
            scheduler._step_count = state_dict["last_epoch"] + 1
            scheduler._last_lr = scheduler.get_lr()

    def get_metrics(self):
        rates = [s.get_last_lr() for s in self.schedulers]
        return {f"lr/{i}/{g}": lr for i, own in enumerate(rates) for g, lr in enumerate(own)}


class OlderContainer(Container):
    """It loads the first one's state into all."""

    def state_dict(self):
        return self.schedulers[0].state_dict()

    def load_state_dict(self, state_dict):
        for scheduler in self.schedulers:
            scheduler.load_state_dict(copy.deepcopy(state_dict))


@pytest.mark.parametrize("kind", [Container, OlderContainer])
def test_a_container_of_schedulers(kind):
    def made():
        parts = [sgd(), sgd()]
        return parts, [watched(part) for part in parts], kind(parts)

    def train(parts, container, steps):
        for _ in range(steps):
            for part in parts:
                step(part)
            container.step()

    parts, used, container = made()
    train(parts, container, 7)
    assert used == [values(SHAPE, 7)] * 2
    assert container.get_metrics() == {"lr/0/0": BASE * SHAPE(7), "lr/1/0": BASE * SHAPE(7)}
    again, later, resumed = made()
    for part, old in zip(again, parts, strict=True):
        part.load_state_dict(old.state_dict())
    resumed.load_state_dict(container.state_dict())
    train(again, resumed, 5)
    assert later == [values(SHAPE, 5, start=7)] * 2


def test_a_container_saves_the_steps_alone_and_every_optimizer_keeps_its_base():
    parts = [sgd(lr=0.1), sgd(lr=0.3)]
    container = Container(parts)
    container.load_state_dict({"last_epoch": 9})
    used = [watched(part) for part in parts]
    for part in parts:
        step(part)
    assert used == [values(SHAPE, 1, start=9), values(SHAPE, 1, start=9, base=0.3)]
    container.step()
    assert container.state_dict() == {"last_epoch": 10}


# DeepSpeed: the engine's conventions --------------------------------------------------------------

FIVE = {"LRRangeTest", "OneCycle", "WarmupLR", "WarmupDecayLR", "WarmupCosineLR"}


def test_an_engine_takes_the_object_for_a_scheduler_and_not_for_a_factory():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    assert not callable(scheduler)
    assert isinstance(scheduler, LRScheduler)
    assert isinstance(scheduler.optimizer, Optimizer)
    assert not {cls.__name__ for cls in type(scheduler).__mro__} & FIVE
    assert not hasattr(torch.optim.lr_scheduler, type(scheduler).__name__)
    assert not hasattr(scheduler, "total_steps")  # Accelerate counts up to it


class Engine:
    """Steps the optimizer, then the scheduler; on any TypeError it tries again with a number."""

    def __init__(self, optimizer, scheduler, step=step):
        self.optimizer, self.scheduler, self._step = optimizer, scheduler, step
        self.retried = 0

    def step(self, **lr_kwargs):
        self._step(self.optimizer)
        try:
            self.scheduler.step(**lr_kwargs)
        except TypeError:
            self.retried += 1
            self.scheduler.step(32)


def test_an_engine_calls_it_after_every_step_and_retries_nothing():
    optimizer = sgd()
    used = watched(optimizer)
    engine = Engine(optimizer, Scheduler(optimizer, lr=SHAPE))
    for _ in range(12):
        engine.step()
    assert used == values(SHAPE, 12)
    assert engine.retried == 0


def test_the_number_of_the_retry_is_no_step_and_no_metric():
    """A batch size of 32 would be epoch 32 to torch's own schedulers."""
    optimizer = sgd()
    scheduler = Scheduler(optimizer, lr=SHAPE)
    engine = Engine(optimizer, scheduler)
    engine.step()
    for _ in range(2):
        with pytest.raises((TypeError, FieldError)):
            engine.step(increment=32)
    assert scheduler.last_epoch in (1, 3)  # as the last call of step() left it, or counted
    scheduler.step()
    assert scheduler.last_epoch == 3
    assert optimizer.param_groups[0]["lr"] == BASE * SHAPE(3)


def test_an_error_in_a_formula_is_not_hidden_by_the_retry():
    broken = []

    def formula(t):
        return 1.0 + "x" if broken else 1.0 / (1 + t)

    engine = Engine(optimizer := sgd(), Scheduler(optimizer, lr=Custom(formula)))
    engine.step()
    broken.append(True)
    with pytest.raises((TypeError, FieldError)) as caught:
        engine.step()
    chain, error = [], caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__ or error.__context__
    assert any("unsupported operand" in text for text in chain)


# DeepSpeed: what ZeRO does to the optimizer's groups ----------------------------------------------


def zero_1_and_2(optimizer):
    """One call per group, which is alone in the list meanwhile."""
    groups = optimizer.param_groups
    for group in groups:
        optimizer.param_groups = [group]
        step(optimizer)
    optimizer.param_groups = groups


class Zero3:
    """One call per sub-group; the groups are empty but for it."""

    def __init__(self, optimizer, sub_groups=(0, 0, 1)):
        self.parts = [(g, nn.Parameter(torch.ones(2))) for g in sub_groups]
        for group in optimizer.param_groups:
            group["params"] = []

    def __call__(self, optimizer):
        for index, part in self.parts:
            optimizer.param_groups[index]["params"] = [part]
            step(optimizer)
            optimizer.param_groups[index]["params"] = []


def lent(optimizer, used):
    """Note the rate of every group that has parameters in a call."""

    def note(optimizer, *_):
        used.extend(g["lr"] for g in optimizer.param_groups if g["params"])

    optimizer.register_step_pre_hook(note)


@pytest.mark.filterwarnings(f"ignore:.*{CALLS}")
@pytest.mark.parametrize("fields", [{}, {"counts": "calls"}, {"follow": True}])
@pytest.mark.parametrize("lrs", [(0.1, 0.2), (0.1,)])
def test_zero_1_and_2_use_the_schedules_value_in_every_group(fields, lrs):
    optimizer, used = two_groups(*lrs), []
    lent(optimizer, used)
    scheduler = Scheduler(optimizer, lr=SHAPE, **fields)
    engine = Engine(optimizer, scheduler, step=zero_1_and_2)
    for _ in range(12):
        engine.step()
    assert used == [lr * SHAPE(t) for t in range(12) for lr in lrs]
    assert scheduler.last_epoch == 12


@pytest.mark.filterwarnings(f"ignore:.*{CALLS}")
@pytest.mark.parametrize("fields", [{}, {"counts": "calls"}, {"follow": True}])
@pytest.mark.parametrize("sub_groups", [(0, 0, 1), (0, 1), (0, 0, 0, 1, 1)])
def test_zero_3_uses_the_schedules_value_in_every_sub_group(fields, sub_groups):
    optimizer, used = two_groups(), []
    lent(optimizer, used)
    scheduler = Scheduler(optimizer, lr=SHAPE, **fields)
    engine = Engine(optimizer, scheduler, step=Zero3(optimizer, sub_groups))
    for _ in range(12):
        engine.step()
    assert used == [(0.1, 0.2)[g] * SHAPE(t) for t in range(12) for g in sub_groups]
    assert scheduler.last_epoch == 12


@pytest.mark.parametrize("zero", [lambda optimizer: zero_1_and_2, Zero3])
def test_it_says_that_it_counts_calls(zero):
    optimizer = two_groups()
    engine = Engine(optimizer, Scheduler(optimizer, lr=SHAPE), step=zero(optimizer))
    with pytest.warns(UserWarning, match=CALLS):
        engine.step()
    quiet = two_groups()
    engine = Engine(quiet, Scheduler(quiet, lr=SHAPE, counts="calls"), step=zero(quiet))
    engine.step()


@pytest.mark.filterwarnings(f"ignore:.*{CALLS}")
@pytest.mark.parametrize(("zero", "order"), [(lambda _: zero_1_and_2, (0, 1)), (Zero3, (0, 0, 1))])
def test_a_state_saved_under_zero_goes_on_there(zero, order):
    used = []

    def train(state, steps):
        optimizer = two_groups()
        lent(optimizer, used)
        scheduler = Scheduler(optimizer, lr=SHAPE)
        if state is not None:
            scheduler.load_state_dict(state)
        engine = Engine(optimizer, scheduler, step=zero(optimizer))
        for _ in range(steps):
            engine.step()
        return scheduler

    scheduler = train(train(None, 6).state_dict(), 6)
    assert used == [(0.1, 0.2)[g] * SHAPE(t) for t in range(12) for g in order]
    assert scheduler.last_epoch == 12


# Composer: torch schedulers are stepped once per epoch --------------------------------------------


@pytest.mark.parametrize("follow", [False, True])
def test_stepped_once_per_epoch_it_is_held_and_following_it_is_exact(follow):
    optimizer = sgd()
    used = watched(optimizer)
    scheduler = Scheduler(optimizer, lr=SHAPE, **({"follow": True} if follow else {}))
    for _ in range(3):
        for _ in range(8):
            step(optimizer)
        scheduler.step()
    held = [t if follow else t // 8 * 8 for t in range(24)]
    assert used == [BASE * SHAPE(t) for t in held]
    assert scheduler.last_epoch == 24


# Any framework that asks isinstance ---------------------------------------------------------------


def test_only_a_controller_of_a_metric_makes_it_a_plateau_scheduler():
    from stepsize.feedback import Plateau, SpikeGuard

    for feedback, routed in (
        (None, False),
        (Plateau(), True),
        (SpikeGuard(), False),
        ([SpikeGuard(), Plateau()], True),
    ):
        scheduler = Scheduler(sgd(), lr=Warmup(5), feedback=feedback)
        assert isinstance(scheduler, Scheduler)
        assert isinstance(scheduler, LRScheduler)
        assert isinstance(scheduler, ReduceLROnPlateau) is routed
        assert type(scheduler.optimizer) is torch.optim.SGD
        assert not callable(scheduler)
