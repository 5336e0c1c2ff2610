"""What is tried out in `preserved` leaves no trace: not in a bit, and not in what comes after."""

import copy
import gc
import random
import re

import numpy as np
import pytest
import torch
from tests.optim.cases import CASES, Problem, train
from tests.torch.untouched import (
    Cursor,
    Net,
    Position,
    classify,
    data,
    everything,
    loader_of,
    streams,
)
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, TensorDataset

from stepsize import Cosine, FieldError, Horizon, Linear, Step, Warmup
from stepsize.feedback import Plateau, SpikeGuard
from stepsize.torch import Scheduler
from stepsize.torch.preserve import preserved

TORCHS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True, amsgrad=True),
    "Adam tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, history_size=3),
}
ENDS = {"normal": None, "exception": RuntimeError("torn"), "ctrl-c": KeyboardInterrupt()}


def play(model, optimizer, scheduler=None):
    """Change everything that can be changed."""
    for batch in loader_of(batch_size=8):
        classify(model, optimizer, batch)
        if scheduler is not None:
            scheduler.step()
    random.random()  # noqa: S311 (the global stream)
    np.random.random()  # noqa: NPY002 (the global stream)
    model.eval()
    model.a.weight.requires_grad_(False)
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(7.0)
        else:
            group["lr"] = 7.0
        group["surplus"] = 1
    optimizer.zero_grad(set_to_none=False)


@pytest.mark.parametrize("end", sorted(ENDS))
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", sorted(set(TORCHS) - {"LBFGS"}))
def test_everything_is_the_same_to_the_bit(name, steps, end):
    model = Net()
    optimizer = TORCHS[name](model.parameters())
    model.drop.eval()
    for _ in range(steps):
        classify(model, optimizer, data())
    before = everything(model, optimizer)
    seen = model.seen
    caught = ()
    try:
        with preserved(model, optimizer):
            play(model, optimizer)
            if ENDS[end] is not None:
                raise ENDS[end]
    except (RuntimeError, KeyboardInterrupt) as error:
        caught = (error,)
    assert caught == (() if ENDS[end] is None else (ENDS[end],))
    assert everything(model, optimizer) == before
    assert model.seen == seen
    assert bool(optimizer.state) == (steps > 0 or name == "Adagrad")


def test_the_comparison_sees_each_change():
    model = Net()
    optimizer = TORCHS["SGD"](model.parameters())
    before = everything(model, optimizer)
    random.random()  # noqa: S311 (the global stream)
    assert everything(model, optimizer) != before
    before = everything(model, optimizer)
    model.norm.eval()
    assert everything(model, optimizer) != before
    before = everything(model, optimizer)
    with torch.no_grad():
        model.norm.running_mean[0] = 1e-30
    assert everything(model, optimizer) != before


@pytest.mark.parametrize("name", sorted(CASES))
def test_training_goes_on_as_if_nothing_had_been_tried(name):
    case = CASES[name]
    runs = []
    for tried in (False, True):
        problem = Problem(batches=case.batches)
        optimizer = case.make(problem.model.parameters())
        train(optimizer, problem, range(3), closure=case.closure)
        if tried:
            with preserved(problem.model, optimizer):
                for group in optimizer.param_groups:
                    group["lr"] = 3.0 * group["lr"]
                train(optimizer, problem, range(5, 10), closure=case.closure)
        losses = train(optimizer, problem, range(3, 8), closure=case.closure)
        runs.append((losses, problem.weights(), optimizer.state_dict()))
    (losses, weights, state), (others, same, like) = runs
    assert losses == others
    assert all(map(torch.equal, weights, same))
    assert repr(state) == repr(like)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DeltaBarDelta", "VSGD observed"])
def test_what_a_compiled_optimizer_keeps_flat_is_put_back(name):
    runs = []
    for tried in (False, True):
        problem = Problem()
        optimizer = CASES[name].make(problem.model.parameters(), compiled=True)
        train(optimizer, problem, range(3), closure=False)
        if tried:
            with preserved(problem.model, optimizer):
                train(optimizer, problem, range(5, 8), closure=False)
        train(optimizer, problem, range(3, 6), closure=False)
        runs.append(problem.weights())
    assert all(map(torch.equal, *runs))


@pytest.mark.parametrize("name", sorted(TORCHS))
def test_an_optimizer_of_torch_goes_on_as_if_nothing_had_been_tried(name):
    runs = []
    for tried in (False, True):
        problem = Problem()
        optimizer = TORCHS[name](problem.model.parameters())
        train(optimizer, problem, range(3), closure=name == "LBFGS")
        if tried:
            with preserved(problem.model, optimizer):
                train(optimizer, problem, range(3, 6), closure=name == "LBFGS")
        train(optimizer, problem, range(3, 6), closure=name == "LBFGS")
        runs.append(problem.weights())
    assert all(map(torch.equal, *runs))


def test_it_can_go_back_in_the_middle():
    model = Net()
    optimizer = TORCHS["Adam"](model.parameters())
    before = everything(model, optimizer)
    with preserved(model, optimizer) as kept:
        for _ in range(2):
            play(model, optimizer)
            kept.restore()
            assert everything(model, optimizer) == before
    assert everything(model, optimizer) == before


def test_memory_that_was_exchanged_is_put_back():
    model = nn.Linear(2, 2)
    optimizer = TORCHS["SGD"](model.parameters())
    kept, weight = model.weight.detach().clone(), model.weight
    with preserved(model, optimizer):
        model.half()
        model.bias = None
        weight.data = torch.zeros(5)
    assert model.weight is weight
    assert torch.equal(weight, kept)
    assert model.bias.dtype is torch.float32


def test_an_expanded_buffer_and_a_frozen_parameter_are_no_obstacle():
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.ones(1, 3).expand(4, 3))
    model.bias.requires_grad_(False)
    optimizer = TORCHS["SGD"]([model.weight])
    with preserved(model, optimizer):
        model.mask[0, 0] = 5.0
        model.bias.requires_grad_(True)
    assert model.mask.tolist() == [[1.0] * 3] * 4
    assert not model.bias.requires_grad


def test_gradients_are_the_same_tensors_with_the_same_values():
    model = Net()
    optimizer = TORCHS["SGD"](model.parameters())
    model(data()[0]).sum().backward()
    model.b.bias.grad = None
    before = everything(model, optimizer)
    with preserved(model, optimizer):
        optimizer.zero_grad(set_to_none=False)
        model.a.weight.grad.add_(1.0)
        model.a.bias.grad = None
        model.b.bias.grad = torch.ones(3)
    assert everything(model, optimizer) == before


def test_a_graph_from_before_can_still_be_gone_back_along():
    model = nn.Linear(6, 3)
    optimizer = TORCHS["SGD"](model.parameters())
    loss = model(data()[0]).square().sum()
    with preserved(model, optimizer):
        play_gradient(model, optimizer)
    loss.backward()
    found = model.weight.grad.clone()
    model.zero_grad()
    model(data()[0]).square().sum().backward()
    assert torch.equal(found, model.weight.grad)


def play_gradient(model, optimizer):
    model(data()[0]).sum().backward()
    optimizer.step()


# Schedulers -----------------------------------------------------------------------------------

SCHEDULES = {
    "cosine": lambda o, **g: Scheduler(o, lr=Cosine(20), **g),
    "stairs": lambda o, **g: Scheduler(o, lr=Step(4), momentum=Linear(30, stop=0.5), **g),
    "plateau": lambda o, **g: Scheduler(o, lr=Warmup(5) >> Cosine(40), feedback=Plateau(), **g),
    "guard": lambda o, **g: Scheduler(o, lr=Cosine(60), feedback=SpikeGuard(cold=3), **g),
    "late": lambda o, **g: Scheduler(
        o, lr=Warmup("10%") >> Cosine(), horizon=lambda: Horizon(50), **g
    ),
}


def scheduled_run(name, follow, *, tried, first, drive=True):
    torch.manual_seed(0)
    model = Net()
    optimizer = TORCHS["SGD"](model.parameters())
    scheduler = SCHEDULES[name](optimizer, follow=follow)
    seen = []

    def steps(count):
        for _ in range(count):
            loss = classify(model, optimizer, data())
            seen.append((loss.item(), optimizer.param_groups[0]["lr"]))
            if drive and not follow:
                scheduler.step()
            if name == "guard":
                scheduler.observe(loss)

    steps(first)
    if tried:
        bound = None if scheduler._bound is None else scheduler.state_dict()
        before = everything(model, optimizer)
        with preserved(model, optimizer):
            steps(6)
            scheduler.step()
            scheduler.step()
            if name == "plateau":
                for loss in (1.0, 2.0, 3.0, 4.0):
                    scheduler.step(loss)
                    steps(1)
            if first:
                scheduler.cool_down(over=3)
        assert everything(model, optimizer) == before
        assert bound == (None if scheduler._bound is None else scheduler.state_dict())
        del seen[first:]
    steps(7)
    return seen, scheduler.state_dict()


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.filterwarnings("ignore::stepsize.torch.guards.StepsizeWarning")
def test_a_scheduler_goes_on_as_if_nothing_had_been_tried(name, follow, first):
    runs = [scheduled_run(name, follow, tried=tried, first=first) for tried in (False, True)]
    assert runs[0] == runs[1]


def test_a_scheduler_that_is_behind_the_optimizer_stays_behind():
    runs = []
    for tried in (False, True):
        torch.manual_seed(0)
        model = Net()
        optimizer = TORCHS["SGD"](model.parameters())
        scheduler = Scheduler(optimizer, lr=Cosine(20))
        classify(model, optimizer, data())  # and no step() of the scheduler yet
        if tried:
            with preserved(model, optimizer):
                classify(model, optimizer, data())
                scheduler.step()
        at = optimizer.param_groups[0]["lr"]
        scheduler.step()
        runs.append((at, optimizer.param_groups[0]["lr"]))
    assert runs[0] == runs[1]
    assert runs[0][0] > runs[0][1]


def test_a_scheduler_that_is_made_meanwhile_does_not_stay():
    model = Net()
    optimizer = TORCHS["SGD"](model.parameters())
    before = everything(model, optimizer)
    with preserved(model, optimizer):
        scheduler = Scheduler(optimizer, lr=Cosine(20), follow=True)
        play(model, optimizer, scheduler)
        del scheduler
        gc.collect()
    assert everything(model, optimizer) == before
    Scheduler(optimizer, lr=Cosine(20))


def torchs_schedulers(optimizer):
    last = torch.optim.lr_scheduler
    return {
        "lambda": lambda: last.LambdaLR(optimizer, lambda t: 0.9**t),
        "one cycle": lambda: last.OneCycleLR(optimizer, max_lr=0.5, total_steps=90),
        "sequential": lambda: last.SequentialLR(
            optimizer,
            [last.LinearLR(optimizer), last.CosineAnnealingLR(optimizer, 50)],
            milestones=[4],
        ),
        "plateau": lambda: last.ReduceLROnPlateau(optimizer, patience=1),
    }


@pytest.mark.parametrize("name", ["lambda", "one cycle", "plateau", "sequential"])
def test_a_scheduler_of_torch_in_also_goes_on_as_if_nothing_had_been_tried(name):
    runs = []
    for tried in (False, True):
        torch.manual_seed(0)
        model = Net()
        optimizer = TORCHS["SGD"](model.parameters())
        scheduler, seen = torchs_schedulers(optimizer)[name](), []
        given = () if name != "plateau" else (1.0,)

        def steps(count, model=model, optimizer=optimizer, scheduler=scheduler, given=given):
            for _ in range(count):
                classify(model, optimizer, data())
                scheduler.step(*given)

        steps(3)
        if tried:
            before, own = everything(model, optimizer), copy.deepcopy(scheduler.state_dict())
            with preserved(model, optimizer, also=[scheduler]):
                steps(10)
            assert everything(model, optimizer) == before
            assert repr(scheduler.state_dict()) == repr(own)
        for _ in range(6):
            steps(1)
            seen.append((optimizer.param_groups[0]["lr"], model.a.weight.detach().clone()))
        runs.append(seen)
    assert all(
        one == other and torch.equal(a, b) for (one, a), (other, b) in zip(*runs, strict=True)
    )


# More in `also` -----------------------------------------------------------------------------


class Average:
    """Some object of the user's own."""

    def __init__(self):
        self.value = {"mean": [1.0]}

    def state_dict(self):
        return self.value

    def load_state_dict(self, state):
        self.value = state


def test_other_modules_optimizers_scalers_and_objects_with_states():
    model, other = Net(), Net()
    optimizer, second = (TORCHS["Adam"](m.parameters()) for m in (model, other))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    average = Average()
    before = everything(model, optimizer), everything(other, second)
    own = copy.deepcopy(vars(scaler))
    with preserved(model, optimizer, also=[other, second, scaler, average]):
        scaler.scale(other(data()[0]).sum()).backward()
        scaler.unscale_(second)
        scaler.step(second)
        average.value["mean"].append(2.0)
    assert (everything(model, optimizer), everything(other, second)) == before
    assert vars(scaler) == own
    assert average.value == {"mean": [1.0]}
    scaler.scale(other(data()[0]).sum()).backward()
    scaler.unscale_(second)  # which it would refuse twice in a step


def test_one_piece_that_fails_hinders_no_other():
    class Stubborn(Average):
        def load_state_dict(self, state):
            raise OSError(f"no {state}")

    model = Net()
    optimizer = TORCHS["Adam"](model.parameters())
    first, last = Average(), Average()
    before = everything(model, optimizer)

    def torn():
        with preserved(model, optimizer, also=[first, Stubborn(), last]):
            play(model, optimizer)
            first.value = last.value = {}
            raise ValueError("first")

    with pytest.raises(OSError, match="no") as told:
        torn()
    assert isinstance(told.value.__context__, ValueError)
    assert everything(model, optimizer) == before
    assert first.value == last.value == {"mean": [1.0]}


# Loaders ------------------------------------------------------------------------------------


class Shuffled:
    """A sampler that shuffles its list in place with a stream of its own."""

    def __init__(self, count):
        self.indices, self.drawn = list(range(count)), 0
        self.random = random.Random(5)  # noqa: S311 (an order)
        self.numbers = np.random.default_rng(5)

    def __len__(self):
        return len(self.indices)

    def __iter__(self):
        self.random.shuffle(self.indices)
        self.drawn += int(self.numbers.integers(1, 9))
        yield from self.indices


def _numbers():
    return TensorDataset(torch.arange(24))


def loaders():
    seeded = lambda: torch.Generator().manual_seed(1)
    return {
        "global": lambda: DataLoader(_numbers(), batch_size=4, shuffle=True),
        "generator": lambda: DataLoader(_numbers(), batch_size=4, shuffle=True, generator=seeded()),
        "sampler": lambda: DataLoader(
            _numbers(), batch_size=4, sampler=RandomSampler(_numbers(), generator=seeded())
        ),
        "distributed": lambda: DataLoader(
            _numbers(), batch_size=4, sampler=DistributedSampler(_numbers(), 2, 1)
        ),
        "own": lambda: DataLoader(_numbers(), batch_size=4, sampler=Shuffled(24)),
        "position": Position,
        "cursor": Cursor,
        "list": lambda: [(torch.ones(1), torch.zeros(1))] * 3,
    }


def order(loader):
    return [torch.cat([part.flatten().float() for part in batch]).tolist() for batch in loader]


@pytest.mark.parametrize("name", sorted(loaders()))
def test_a_loaders_next_order_is_the_same(name):
    model = Net()
    optimizer = TORCHS["SGD"](model.parameters())
    found = []
    for tried in (False, True):
        torch.manual_seed(4)
        loader = loaders()[name]()
        iterator = iter(loader)
        next(iterator)
        if tried:
            with preserved(model, optimizer, loader=loader):
                order(loader)
                order(loader)
                for part in (loader, getattr(loader, "sampler", None)):
                    if hasattr(part, "set_epoch"):
                        part.set_epoch(9)
                if hasattr(loader, "load_state_dict"):
                    loader.load_state_dict({"at": 1})
        found.append((order(iterator), order(loader), order(loader)))
    assert found[0] == found[1]


def test_a_loader_that_has_its_methods_in_name_alone():
    class Adapter(DataLoader):
        def state_dict(self):
            raise AttributeError("dl_state_dict")

        load_state_dict = state_dict

    model = Net()
    loader = Adapter(_numbers(), batch_size=4)
    with preserved(model, TORCHS["SGD"](model.parameters()), loader=loader):
        assert len(order(loader)) == 6


@pytest.mark.slow
def test_workers_that_stay_are_set_aside():
    model = Net()
    optimizer = TORCHS["SGD"](model.parameters())
    loader = DataLoader(_numbers(), batch_size=4, num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    first = next(iterator)
    with preserved(model, optimizer, loader=loader):
        assert len(order(loader)) == 6
    assert loader._iterator is iterator
    rest = order(iterator)
    assert [*first[0].tolist(), *(n for batch in rest for n in batch)] == list(range(24))


def test_a_dataset_that_knows_its_epoch_gets_it_back():
    class Dataset(TensorDataset):
        epoch = 5

        def set_epoch(self, epoch):
            self.epoch = epoch

    model = Net()
    loader = DataLoader(Dataset(torch.arange(4)))
    with preserved(model, TORCHS["SGD"](model.parameters()), loader=loader):
        loader.dataset.set_epoch(77)
    assert loader.dataset.epoch == 5


# Errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": 3}, "model must be a torch.nn.Module, got 'int'"),
        ({"optimizer": 3}, "optimizer must be a torch.optim.Optimizer, got 'int'"),
        (
            {"model": nn.LazyLinear(2)},
            (
                "model must be one whose lazy parameters are there, got 'LazyLinear'; "
                "call it once with a batch before"
            ),
        ),
        (
            {"also": [3]},
            (
                "also must be modules, optimizers, schedulers, or things with state_dict and "
                "load_state_dict, got 'int'"
            ),
        ),
        ({"loader": 3}, "loader must be something that gives batches, got 3"),
        (
            {"loader": iter([1])},
            (
                "loader must be one whose batches can be had again, got 'list_iterator'; "
                "give the loader itself, not an iterator over it"
            ),
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(given, message):
    model = Net()
    optimizer = TORCHS["SGD"](model.parameters())
    before = streams()
    with (
        pytest.raises(FieldError, match=f"^{re.escape(message)}$"),
        preserved(**{"model": model, "optimizer": optimizer, **given}),
    ):
        pass
    assert streams() == before
