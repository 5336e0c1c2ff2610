"""The range test: what it sees, when it stops, what it refuses, and that it leaves no trace."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from tests.torch.untouched import Net, classify, data, everything, loader_of
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from stepsize import Cosine, FieldError, Warmup, optim
from stepsize.finding import Divergence
from stepsize.torch import Scheduler, range_test
from stepsize.torch.loading import batches

SHORT = {"steps": 10, "repeats": 1, "start": 1e-4, "stop": 0.1}


def sgd(model, **given):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, "momentum": 0.9, **given})


def pair():
    torch.manual_seed(0)
    model = Net()
    return model, sgd(model)


class Quadratic(nn.Module):
    """0.5 * sum(h * w**2), whose gradient descent is known."""

    h = (1.0, 4.0, 25.0)

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=dtype))

    def forward(self):
        return 0.5 * (torch.tensor(self.h, dtype=self.w.dtype) * self.w**2).sum()


def stepper(model, optimizer, shift=0.0):
    def step(*batch):
        optimizer.zero_grad()
        loss = model(*batch) + shift
        loss.backward()
        optimizer.step()
        return loss

    return step


def descent(rates):
    """Give the losses of a quadratic before each step, in NumPy."""
    w, h, losses = np.array([1.0, -2.0, 0.5]), np.array(Quadratic.h), []
    for rate in rates:
        losses.append(0.5 * (h * w**2).sum())
        w = w - rate * h * w
    return losses


# What it sees ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ramp", ["geometric", "linear"])
def test_the_curve_of_a_quadratic_is_that_of_a_loop_in_numpy(ramp):
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    found = range_test(
        model, optimizer, step=stepper(model, optimizer), start=1e-4, stop=0.07, steps=40, ramp=ramp
    )
    make = np.geomspace if ramp == "geometric" else np.linspace
    rates = make(1e-4, 0.07, 40)
    assert found.curve.rates == pytest.approx(list(rates), rel=1e-12)
    assert found.curve.rates[0] == 1e-4
    assert found.curve.rates[-1] == 0.07
    for row in found.curve.losses:
        assert row == pytest.approx(descent(rates), rel=1e-6)
    assert (found.ramp, found.steps, found.ended) == (ramp, 40, ("end",) * 3)
    assert found.ratios == (("group 0", 1.0),)
    assert found.seconds > 0


def test_the_loss_at_a_rate_is_what_the_steps_before_it_led_to():
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = stepper(model, optimizer)
    found = range_test(model, optimizer, step=step, **{**SHORT, "start": 0.01, "stop": 0.02})
    assert found.curve.losses[0][0] == model().item()
    assert found.curve.losses[0] == pytest.approx(descent(found.curve.rates), rel=1e-12)


def test_a_linear_ramp_may_start_at_0():
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    found = range_test(
        model,
        optimizer,
        step=stepper(model, optimizer),
        start=0,
        stop=0.05,
        steps=11,
        ramp="linear",
    )
    assert found.curve.rates[:2] == (0.0, pytest.approx(0.005))
    assert found.curve.losses[0][0] == found.curve.losses[0][1]


def test_repeats_have_other_orders_and_the_same_first_weights():
    model, optimizer = pair()
    torch.nn.init.zeros_(model.b.weight)
    torch.nn.init.zeros_(model.b.bias)
    loader = loader_of(generator=torch.Generator().manual_seed(8))
    orders, weights = [], []

    def step(batch):
        orders[-1].append(batch[0][0, 0].item())
        if len(orders[-1]) == 1:
            weights.append(model.a.weight.detach().clone())
        return classify(model, optimizer, batch)

    def told(repeat, number, rate, loss):
        del rate, loss
        if number == SHORT["steps"] - 1 and repeat < 2:
            orders.append([])

    orders.append([])
    settings = {**SHORT, "repeats": 3}
    found = range_test(model, optimizer, step=step, loader=loader, on_step=told, **settings)
    assert len({tuple(order) for order in orders}) == 3
    assert all(torch.equal(weights[0], other) for other in weights)
    firsts = [row[0] for row in found.curve.losses]
    assert firsts == pytest.approx([math.log(3)] * 3, rel=1e-6)
    assert len({row[5] for row in found.curve.losses}) == 3


def test_the_seed_says_which_orders_there_are():
    rows = []
    for seed in (0, 0, 1):
        model, optimizer = pair()
        torch.manual_seed(10 + len(rows))  # which does not matter
        found = range_test(model, optimizer, cross_entropy, loader_of(), seed=seed, **SHORT)
        rows.append(found.curve.losses)
    assert rows[0] == rows[1] != rows[2]


def test_epochs_count_on_and_repeats_are_apart():
    sampler = DistributedSampler(TensorDataset(torch.arange(12)), 2, 0, seed=3)
    loader = DataLoader(TensorDataset(torch.arange(12)), batch_size=2, sampler=sampler)
    sampler.set_epoch(4)
    seen = []
    for order in range(2):
        source = batches(loader, 0, order)
        for _ in range(7):
            next(source)
            seen.append(sampler.epoch)
        sampler.set_epoch(4)
    assert seen == [4] * 3 + [5] * 3 + [6] + [1004] * 3 + [1005] * 3 + [1006]


def test_the_ready_form_takes_the_mean_over_accumulated_batches():
    rows = []
    for accumulate, size in ((1, 32), (4, 8)):
        torch.manual_seed(0)
        model = nn.Linear(6, 3).double()
        loader = [(x.double(), y) for x, y in zip(*(d.split(size) for d in data()), strict=True)]
        optimizer = sgd(model)
        found = range_test(
            model, optimizer, cross_entropy, loader, accumulate=accumulate, accuracy=True, **SHORT
        )
        rows.append((found.curve.losses[0], found.curve.scores[0]))
    assert rows[0][0] == pytest.approx(rows[1][0], rel=1e-12)
    assert rows[0][1] == pytest.approx(rows[1][1], rel=1e-6)
    assert len(rows[0][0]) == 10


@pytest.mark.parametrize("told", [False, True])
def test_losses_of_several_calls_for_a_step_are_averaged(told):
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    calls = itertools.count()

    def step():
        number = next(calls)
        loss = model() / 4
        loss.backward()
        if number % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
        seen = 4 * loss.detach() + number % 4
        return {"loss": seen, "accuracy": number % 4} if told else seen

    found = range_test(model, optimizer, step=step, **SHORT)
    rates = found.curve.rates
    assert next(calls) == 40
    assert found.curve.losses[0] == pytest.approx([x + 1.5 for x in descent(rates)], rel=1e-12)
    assert found.curve.scores == (((1.5,) * 10,) if told else ())


def test_a_step_that_steps_twice_takes_the_same_rate_twice():
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step, seen = stepper(model, optimizer), []

    def twice():
        loss = step()
        seen.append(optimizer.param_groups[0]["lr"])
        step()
        seen.append(optimizer.param_groups[0]["lr"])
        return loss

    found = range_test(model, optimizer, step=twice, **SHORT)
    assert tuple(seen[::2]) == tuple(seen[1::2]) == found.curve.rates


def test_batches_may_be_dictionaries_and_steps_may_give_what_models_give():
    model, optimizer = pair()
    loader = [{"x": x, "y": y} for x, y in loader_of()]

    def step(batch):
        optimizer.zero_grad()
        loss = cross_entropy(model(batch["x"]), batch["y"])
        loss.backward()
        optimizer.step()
        return {"loss": loss, "logits": batch["x"], "accuracy": None}

    found = range_test(model, optimizer, step=step, loader=loader, **SHORT)
    assert len(found.curve.losses[0]) == 10
    assert found.curve.scores == ()


def test_autocast_to_bfloat16():
    model, optimizer = pair()
    kinds = set()
    model.b.register_forward_hook(lambda m, i, out: kinds.add(out.dtype))
    found = range_test(
        model, optimizer, cross_entropy, loader_of(), autocast=torch.bfloat16, **SHORT
    )
    assert kinds == {torch.bfloat16}
    assert len(found.curve.losses[0]) == 10


def test_a_model_in_bfloat16():
    torch.manual_seed(0)
    model = Net(torch.bfloat16)
    optimizer = sgd(model)
    loader = [(x.bfloat16(), y) for x, y in loader_of()]
    before = everything(model, optimizer)
    found = range_test(model, optimizer, cross_entropy, loader, **{**SHORT, "repeats": 2})
    assert [len(row) for row in found.curve.losses] == [10, 10]
    assert everything(model, optimizer) == before


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_leaves_out_is_none(fused):
    model = Quadratic(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    rates, calls = [], itertools.count()
    optimizer.register_step_post_hook(lambda o, a, k: rates.append(o.param_groups[0]["lr"]))

    def step():
        optimizer.zero_grad()
        loss = model()
        scaler.scale(loss).backward()
        if next(calls) % 3 == 1:
            model.w.grad[0] = math.inf
        scaler.step(optimizer)
        scaler.update()
        return loss

    found = range_test(model, optimizer, step=step, scaler=scaler, **SHORT)
    assert next(calls) == 15  # ten steps, and five that were left out
    if not fused:
        assert tuple(rates) == found.curve.rates
    assert found.curve.losses[0] == pytest.approx(descent(found.curve.rates), rel=1e-5)
    assert scaler.get_scale() == 2.0**10


def test_the_ready_form_with_a_scaler():
    model, optimizer = pair()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)
    before = everything(model, optimizer), scaler.state_dict()
    found = range_test(model, optimizer, cross_entropy, loader_of(), scaler=scaler, **SHORT)
    assert len(found.curve.losses[0]) == 10
    assert (everything(model, optimizer), scaler.state_dict()) == before


def test_gradients_that_are_never_finite_again_end_it():
    model = Quadratic(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    calls = itertools.count()

    def step():
        optimizer.zero_grad()
        loss = model()
        scaler.scale(loss).backward()
        if next(calls) >= 5:
            model.w.grad[0] = math.nan
        scaler.step(optimizer)
        scaler.update()
        return loss

    found = range_test(model, optimizer, step=step, scaler=scaler, **SHORT)
    assert found.ended == ("not finite",)
    assert len(found.curve.losses[0]) == 5


def test_ratios_between_groups_are_kept_and_tensors_are_filled():
    model = Quadratic()
    other = nn.Parameter(torch.ones(1, dtype=torch.float64))
    model.register_parameter("other", other)
    rate = torch.tensor(0.2)
    groups = [
        {"params": [model.w], "lr": 0.4, "name": "body"},
        {"params": [other], "lr": rate},
    ]
    optimizer = torch.optim.SGD(groups)
    seen = []

    def step():
        loss = stepper(lambda: model() + other.square().sum(), optimizer)()
        seen.append((optimizer.param_groups[0]["lr"], rate.item()))
        return loss

    found = range_test(model, optimizer, step=step, **SHORT)
    assert found.ratios == (("body", 1.0), ("group 1", pytest.approx(0.5)))
    assert [first for first, _ in seen] == pytest.approx(list(found.curve.rates))
    assert [2 * second for _, second in seen] == pytest.approx(list(found.curve.rates), rel=1e-6)
    assert optimizer.param_groups[1]["lr"] is rate
    assert (optimizer.param_groups[0]["lr"], rate) == (0.4, torch.tensor(0.2))


def test_where_a_warmup_holds_all_rates_at_0_the_initial_ones_are_compared():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.4)
    last = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: t / 10)
    found = range_test(model, optimizer, cross_entropy, loader_of(), also=[last], **SHORT)
    assert found.ratios == (("group 0", 1.0), ("group 1", 0.25))


# Schedulers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("first", [0, 3])
def test_a_scheduler_neither_disturbs_nor_notices(follow, first):
    runs = []
    for tested in (False, True):
        model, optimizer = pair()
        scheduler = Scheduler(optimizer, lr=Warmup(4) >> Cosine(12), follow=follow)
        rates, losses = [], []

        def step(model=model, optimizer=optimizer, scheduler=scheduler):
            loss = classify(model, optimizer, data())
            scheduler.step()
            return loss

        for _ in range(first):
            step()
        if tested:
            before, state = everything(model, optimizer), scheduler.state_dict()
            taken = []
            hook = optimizer.register_step_post_hook(
                lambda o, a, k, taken=taken: taken.append(o.param_groups[0]["lr"])
            )
            found = range_test(model, optimizer, step=step, **{**SHORT, "steps": 60})
            hook.remove()
            assert tuple(taken) == found.curve.rates
            assert (everything(model, optimizer), scheduler.state_dict()) == (before, state)
        for _ in range(8):
            losses.append(step().item())
            rates.append(optimizer.param_groups[0]["lr"])
        runs.append((losses, rates))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["LambdaLR", "OneCycleLR"])
def test_a_scheduler_of_torch_is_written_over_and_put_back(name):
    made = {
        "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
        "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=50),
    }[name]
    model, optimizer = pair()
    last = made(optimizer)

    def step():
        loss = classify(model, optimizer, data())
        last.step()
        return loss

    step()
    before, state = everything(model, optimizer), dict(last.state_dict())
    taken = []
    optimizer.register_step_post_hook(lambda o, a, k: taken.append(o.param_groups[0]["lr"]))
    found = range_test(model, optimizer, step=step, also=[last], **SHORT)
    assert tuple(taken) == found.curve.rates
    assert repr(last.state_dict()) == repr(state)
    optimizer._optimizer_step_post_hooks.popitem()
    assert everything(model, optimizer)[1:] == before[1:]
    step()


# No trace -------------------------------------------------------------------------------------


class TornError(Exception):
    """Raised in the middle."""


@pytest.mark.parametrize("at", [0, 7, 13])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, TornError])
def test_nothing_has_changed_whatever_ended_it(error, at):
    orders = []
    for tested in (False, True):
        model, optimizer = pair()
        for _ in range(2):
            classify(model, optimizer, data())
        model.norm.eval()
        loader = loader_of(generator=torch.Generator().manual_seed(5))
        before = everything(model, optimizer)
        calls = itertools.count()

        def step(batch, model=model, optimizer=optimizer, calls=calls):
            loss = classify(model, optimizer, batch)
            if next(calls) == at and error is not None:
                raise error
            return loss

        def test(model=model, optimizer=optimizer, step=step, loader=loader):
            settings = {**SHORT, "repeats": 2}
            return range_test(model, optimizer, step=step, loader=loader, **settings)

        if tested and error is not None:
            with pytest.raises(error):
                test()
        elif tested:
            assert len(test().curve.losses) == 2
        assert everything(model, optimizer) == before
        orders.append([batch[0].tolist() for batch in loader])
    assert orders[0] == orders[1]


def test_the_mode_of_modules_is_train_meanwhile_and_frozen_parts_stay():
    model, optimizer = pair()
    model.norm.eval()
    seen = set()
    model.register_forward_hook(lambda m, i, o: seen.add((m.training, m.norm.training)))
    range_test(model, optimizer, cross_entropy, loader_of(), **SHORT)
    assert seen == {(True, False)}
    model.eval()
    range_test(model, optimizer, cross_entropy, loader_of(), **SHORT)
    assert seen == {(True, False), (True, True)}
    assert not model.training


def test_it_works_where_gradients_are_switched_off():
    model, optimizer = pair()
    with torch.no_grad():
        found = range_test(model, optimizer, cross_entropy, loader_of(), **SHORT)
    assert found.curve.losses[0][0] != found.curve.losses[0][-1]


def test_an_optimizer_without_a_rate_of_its_own_has_its_factor_tested():
    model, _ = pair()
    optimizer = optim.DeltaBarDelta(model.parameters(), initial_step=0.01)
    before = everything(model, optimizer)
    found = range_test(model, optimizer, cross_entropy, loader_of(), **SHORT)
    assert found.ended == ("end",)
    assert everything(model, optimizer) == before


def test_a_wrapper_of_an_optimizer():
    model, inner = pair()
    optimizer = optim.RegrettableDBD(inner)
    before = everything(model, optimizer), everything(model, inner)
    found = range_test(model, optimizer, cross_entropy, loader_of(), **SHORT)
    assert found.ended == ("end",)
    assert (everything(model, optimizer), everything(model, inner)) == before


def test_a_scheduler_of_the_optimizer_inside_a_wrapper_is_put_back():
    model, inner = pair()
    scheduler = Scheduler(inner, lr=Cosine(30), follow=True)
    before = scheduler.state_dict()
    range_test(model, optim.RegrettableDBD(inner), cross_entropy, loader_of(), **SHORT)
    assert scheduler.state_dict() == before


class WithoutHooks(torch.optim.Optimizer):
    """Wraps another one and never runs the constructor, as Accelerate's does."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)

    def step(self, closure=None):
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


def test_a_wrapper_without_hooks_is_driven_by_the_optimizer_inside():
    model, inner = pair()
    scheduler = Scheduler(inner, lr=Cosine(30), follow=True)
    classify(model, inner, data())
    before = everything(model, inner), scheduler.state_dict()
    found = range_test(model, WithoutHooks(inner), cross_entropy, loader_of(), **SHORT)
    assert len(set(found.curve.losses[0])) == 10
    assert (everything(model, inner), scheduler.state_dict()) == before


@pytest.mark.slow
def test_a_compiled_step_is_not_compiled_again_for_a_tensor_rate():
    torch.compiler.reset()
    model = Quadratic()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, foreach=True)
    compiled = torch.compile(lambda: optimizer.step(), backend="eager")
    frames = torch._dynamo.utils.counters["stats"]

    def step():
        optimizer.zero_grad()
        loss = model()
        loss.backward()
        compiled()
        return loss

    counts = []
    found = range_test(
        model,
        optimizer,
        step=step,
        on_step=lambda *_: counts.append(frames["unique_graphs"]),
        **SHORT,
    )
    assert found.curve.losses[0] == pytest.approx(descent(found.curve.rates), rel=1e-6)
    assert counts[0] == counts[-1]


# Tasks ----------------------------------------------------------------------------------------


class Run:
    def __init__(self, seed):
        torch.manual_seed(seed)
        self.model = Net()
        self.optimizer = sgd(self.model)
        self.source = itertools.cycle(loader_of())

    def step(self):
        return {"loss": classify(self.model, self.optimizer, next(self.source)).detach()}


class Task:
    def __init__(self):
        self.seeds = []

    def build(self, seed):
        self.seeds.append(seed)
        return Run(seed)


def test_every_repeat_of_a_task_is_a_run_of_another_seed():
    task, before = Task(), torch.get_rng_state()
    found = range_test(task, **{**SHORT, "repeats": 3, "seed": 5})
    assert task.seeds == [5, 6, 7]
    assert len({row[0] for row in found.curve.losses}) == 3
    assert torch.equal(torch.get_rng_state(), before)
    again = range_test(Task(), **{**SHORT, "repeats": 3, "seed": 5})
    assert again.curve == found.curve


# Divergence -----------------------------------------------------------------------------------


def ended_at(losses, factor=4.0):
    rule = Divergence(factor)
    return next((i for i, loss in enumerate(losses) if rule.sees(loss)), None)


def noisy(rise, shift=0.0, seed=0):
    """Falls from 2 to 1 in 60 steps with noise, then rises."""
    drawn = np.random.default_rng(seed).normal(0, 0.1, 100)
    falls = [2 - max(0, i - 20) / 40 for i in range(60)]
    return [x + n + shift for x, n in zip([*falls, *rise], drawn, strict=True)]


def test_one_spike_never_stops_it():
    losses = noisy([1.0] * 40)
    losses[70] = losses[75] = losses[80] = 1e6
    assert ended_at(losses) is None


@pytest.mark.parametrize("shift", [-1e3, -3.0, 0.0, 1e3])
def test_it_stops_at_the_same_step_wherever_0_is(shift):
    rise = [1.0 + 0.5 * i for i in range(40)]
    assert ended_at(noisy(rise, shift)) == ended_at(noisy(rise))
    level = rise[ended_at(noisy(rise)) - 60]
    assert 4.0 < level < 8.0  # four times what was gained, over the best


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_never_stops_it(seed):
    assert ended_at(np.random.default_rng(seed).normal(0, 1, 100)) is None


def test_a_loss_that_only_rises_is_measured_by_the_noise():
    drawn = np.random.default_rng(1).normal(0, 0.1, 100)
    assert 40 < ended_at([n + max(0.0, i - 40) * 0.1 for i, n in enumerate(drawn)]) < 60


def test_without_a_factor_it_goes_to_the_end():
    assert ended_at(noisy([1e9] * 40), factor=None) is None


def test_rounding_is_no_divergence():
    rule = Divergence(4.0, digits=2.0**-8)
    assert not any(rule.sees(2.0 + (i % 50 > 20) / 128) for i in range(100))


def test_a_training_that_diverges_is_stopped_and_one_that_is_not_finite_at_once():
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = stepper(model, optimizer)
    found = range_test(model, optimizer, step=step, start=1e-3, stop=10, repeats=2)
    assert found.ended == ("diverged",) * 2
    (row, _), first = found.curve.losses, found.curve.losses[0][0]
    assert sorted(row[-5:])[2] > min(row) + 4 * (first - min(row)) * 0.99
    assert all(value < 1e6 for value in row[:-3])
    found = range_test(
        model, optimizer, step=step, start=1e-3, stop=1e200, repeats=1, diverged=None
    )
    assert found.ended == ("not finite",)
    assert all(map(math.isfinite, found.curve.losses[0]))
    assert 0 < len(found.curve.losses[0]) < 100
    assert found.curve.rates[-1] == 1e200


# Errors ---------------------------------------------------------------------------------------


class Asking(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


def refused(message, *given, **settings):
    model, optimizer = pair()
    known = {"model": model, "optimizer": optimizer}
    given = [known[each] if isinstance(each, str) else each for each in given]
    given = [each(model) if each in MADE else each for each in given]
    before = everything(model, optimizer)
    with pytest.raises(FieldError, match=f"^{re.escape(message)}$"):
        range_test(*given, **{**SHORT, **settings})
    assert everything(model, optimizer) == before


def frozen(model):
    made = nn.Linear(2, 2)
    made.requires_grad_(False)
    del model
    return made


def foreign(model):
    del model
    return torch.optim.SGD(nn.Linear(2, 2).parameters())


def lbfgs(model):
    return torch.optim.LBFGS(model.parameters())


def searching(model):
    return optim.LineSearch(model.parameters())


def asking(model):
    return Asking(model.parameters())


def at_zero(model):
    groups = [{"params": [model.a.weight], "lr": 0.0}, {"params": [model.a.bias], "lr": 0.1}]
    return torch.optim.SGD(groups)


MADE = (frozen, foreign, lbfgs, searching, asking, at_zero)
CLOSURE = (
    "optimizer must be one whose step needs no closure: a closure evaluates at several places in "
    "one step, got {!r}; find the rate of the same model with SGD or Adam, "
    "or set this one's by hand"
)
READY = ("model", "optimizer", cross_entropy)
NAN = (
    "loss must be finite before the first step, got nan; "
    "look at the data, at the first weights, and at the dtype"
)
CASES = [
    (
        "loader must be one with batches, as often as it is gone through, got 'none in pass 1'",
        *READY, [],
    ),
    (NAN, "model", "optimizer", lambda o, t: o.sum() * math.nan, loader_of()),
    ("model must be a torch.nn.Module or a task, got 'int'", 3, "optimizer", cross_entropy, []),
    ("optimizer must be a torch.optim.Optimizer, got 'NoneType'", "model", None, cross_entropy, []),
    (
        ("model must be one with parameters to train, got 'Linear'; "
        "set requires_grad of what is to be trained"),
        frozen, "optimizer", cross_entropy, [],
    ),
    (
        ("optimizer must be one with parameters of the model, got 'none of those that train'; "
        "build it from model.parameters()"),
        "model", foreign, cross_entropy, [],
    ),
    (CLOSURE.format("LBFGS"), "model", lbfgs, cross_entropy, []),
    (CLOSURE.format("LineSearch"), "model", searching, cross_entropy, []),
    (CLOSURE.format("Asking"), "model", asking, cross_entropy, []),
    (
        ("optimizer: the rate of group 0 must be above 0, got 0.0; "
        "give it the rate that it has beside the others, such as lr=1.0"),
        "model", at_zero, cross_entropy, [],
    ),
    (
        ("loader: a batch must be a pair of inputs and targets, got 'dict of 1'; "
        "give step= instead of loss_fn: a function of a batch that does the training step"),
        *READY, [{"x": 1}],
    ),
    (
        ("loader: a batch must be a pair of inputs and targets, got 'Tensor'; "
        "give step= instead of loss_fn: a function of a batch that does the training step"),
        *READY, [torch.ones(2)],
    ),
    (
        ("loader must be one whose batches can be had again, got 'list_iterator'; "
        "give the loader itself, not an iterator over it"),
        *READY, iter([1]),
    ),
    ("loader must be something that gives batches, got 3", *READY, 3),
    ("loader must be given with loss_fn, got None", *READY),
    ("loss_fn must be given, or step= in its place, got 'neither'", "model", "optimizer"),
    (
        "loss_fn must be what gives one number, got (16, 3); take the mean over the batch",
        "model", "optimizer", lambda o, t: o, loader_of(),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0][:50])
def test_what_cannot_be_tested_is_refused_and_nothing_has_changed(case):
    refused(*case)


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("start must be a finite number > 0, got 0", {"start": 0}),
        ("start must be a finite number > 0, got -1.0", {"start": -1.0}),
        ("stop must be above start, 0.1, got 0.1", {"start": 0.1, "stop": 0.1}),
        ("steps must be a whole number >= 10, got 9", {"steps": 9}),
        ("repeats must be a whole number >= 1, got 0", {"repeats": 0}),
        ("seed must be a whole number >= 0, got -1", {"seed": -1}),
        ("accumulate must be a whole number >= 1, got 0", {"accumulate": 0}),
        ("diverged must be a finite number > 0, got 0.0", {"diverged": 0.0}),
        ("ramp must be 'geometric' or 'linear', got 'cosine'", {"ramp": "cosine"}),
    ],
)
def test_numbers_that_make_no_ramp_are_refused(message, settings):
    refused(message, *READY, loader_of(), **settings)


@pytest.mark.parametrize(
    ("message", "step"),
    [
        (
            (
                "step must be what steps the optimizer, got '32 calls without a step'; "
                "step the optimizer given here, or give accumulate=, the calls that make a step"
            ),
            lambda: 1.0,
        ),
        (
            "step must be what gives a loss, got ['cost']; give {'loss': loss}, or the loss alone",
            lambda: {"cost": 1.0},
        ),
        ("step must be what gives one number as loss, got None; return it", lambda: None),
        (
            "step must be what gives one number as loss, got a tensor of shape (2,); return it",
            lambda: torch.ones(2),
        ),
        ("step must be what gives one number as loss, got 'low'", lambda: "low"),
    ],
)
def test_a_step_that_is_none_is_refused(message, step):
    refused(message, "model", "optimizer", step=step)


def test_both_forms_at_once_and_a_task_with_more_are_refused():
    message = "loss_fn must be given, or step= in its place, got 'both'"
    refused(message, *READY, loader_of(), step=lambda batch: 1.0)
    refused(
        "loader must be left out where a task is given, got []; tell the task", Task(), loader=[]
    )


def test_accuracy_of_outputs_that_are_no_classes_is_refused():
    refused(
        "accuracy must be False for outputs that are no scores of classes, got True; "
        "give accuracy= a function of outputs and targets",
        *READY[:2],
        lambda o, t: o.sum(),
        [(data()[0], "words")],
        accuracy=True,
    )


def test_what_the_step_itself_does_is_refused_beside_it():
    cure = "let step do it, and give {'loss': ..., 'accuracy': ...}"
    message = f"accuracy must be left out where step is given, got True; {cure}"
    refused(message, *READY[:2], step=lambda: 1.0, accuracy=True)
    message = f"autocast must be left out where step is given, got torch.bfloat16; {cure}"
    refused(message, *READY[:2], step=lambda: 1.0, autocast=torch.bfloat16)


def test_an_optimizer_beside_a_task_is_refused():
    class Made:
        def build(self, seed):
            return seed

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(FieldError, match="optimizer must be left out where a task is given"):
        range_test(Made(), optimizer)
    with pytest.raises(FieldError, match="build.seed. must be what gives a run"):
        range_test(Made())


def test_one_thing_in_also_is_told_to_be_a_list():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    later = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    with pytest.raises(FieldError, match=r"write also=\[...\]"):
        range_test(net, optimizer, step=lambda: 1.0, also=later)


def test_groups_that_join_in_the_middle_are_told():
    net, more = Net(), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step():
        optimizer.step()
        optimizer.add_param_group({"params": [more]})
        return 1.0

    with pytest.raises(FieldError, match="of the 1 groups that it began with"):
        range_test(net, optimizer, step=step, steps=10, repeats=1)
    assert len(optimizer.param_groups) == 1
