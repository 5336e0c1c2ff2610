"""RegrettableDBD as an optimizer around others: lr, hooks, states, copies; every option's gains."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from tests.optim.cases import Problem, train
from torch.optim.optimizer import register_optimizer_step_post_hook

from stepsize import FieldError, Linear
from stepsize.optim import AdaDelta, DeltaBarDelta, RegrettableDBD
from stepsize.optim.gain import Gain, Rule
from stepsize.torch import Scheduler, step_sizes

DOUBLE = torch.float64
CURVATURES = np.array([1.0, 10.0, 3.0])
WAYS = list(
    itertools.product(["rate", "rate and parameters"], [False, True], [False, True], [False, True])
)


def number():
    return torch.zeros(1, dtype=DOUBLE, requires_grad=True)


def around(x, lr=0.03, **settings):
    return RegrettableDBD(torch.optim.SGD([x], lr=lr), **settings)


def transcribed(noise, x, way, *, delta=0.2, epsilon=0.15):
    """The rule with all its options, in numpy, around gradient descent with rate 0.03."""
    undo, apply, forget, multiply = way
    gain = before = 1.0
    seen = previous = start = None

    def changed(gain, s):
        more = gain * (1 + delta) if multiply else gain + delta
        return more if s > 0 else (1 - epsilon) * gain

    for each in noise:
        g = CURVATURES * x + each
        s = None if previous is None else g @ previous
        if s is not None and (seen is None or s * seen >= 0):
            gain, before, seen = changed(gain, s), gain, s
        elif s is not None:
            if undo != "rate":  # the last step, as it would have been
                x = start + before / gain * (x - start)
            gain, seen = changed(before, s) if apply else before, None if forget else s
        start, x, previous = x, x - 0.03 * gain * g, g
        yield gain, x


def noise_of(steps=20):
    return 3.0 * np.random.default_rng(4).standard_normal((steps, 3))


@pytest.mark.parametrize(("undo", "apply", "forget", "multiply"), WAYS)
def test_every_combination_is_the_transcription(undo, apply, forget, multiply):
    x = torch.tensor([1.0, 1.0, -2.0], dtype=DOUBLE, requires_grad=True)
    settings = {"undo": undo, "apply_after_undo": apply, "forget_after_undo": forget}
    increase = "multiply" if multiply else "add"
    optimizer = around(x, delta=0.2, epsilon=0.15, increase=increase, **settings)
    told = transcribed(noise_of(), x.detach().numpy().copy(), (undo, apply, forget, multiply))
    for each, (gain, place) in zip(noise_of(), told, strict=True):
        x.grad = torch.tensor(CURVATURES) * x.detach() + torch.tensor(each)
        optimizer.step()
        assert optimizer.sizes_of(x) == pytest.approx(gain, rel=1e-12)
        np.testing.assert_allclose(x.detach().numpy(), place, rtol=1e-12, atol=1e-15)


def test_every_combination_is_another():
    start = np.array([1.0, 1.0, -2.0])
    ends = {tuple(list(transcribed(noise_of(), start, way))[-1][1]) for way in WAYS}
    assert len(ends) == len(WAYS)


def gains(signs, **settings):
    x = number()
    optimizer = around(x, **{"delta": 0.5, "epsilon": 0.5, **settings})
    for sign in signs:
        x.grad = torch.full_like(x, sign)
        optimizer.step()
        yield optimizer.sizes_of(x)


def test_the_gains_of_each_option():
    signs = [1, 1, 1, -1, 1, -1, -1, -1]  # inner products: + + - - - + +
    assert list(gains(signs)) == [1, 1.5, 2, 1.5, 0.75, 0.375, 0.75, 1.25]
    told = [1, 1.5, 2, 0.75, 0.375, 0.1875, 0.875, 1.375]
    assert list(gains(signs, apply_after_undo=True)) == told
    told = [1, 1.5, 2.25, 1.5, 0.75, 0.375, 0.75, 1.125]
    assert list(gains(signs, increase="multiply")) == told
    told = [1, 1.5, 1.75, 1.5, 0.75, 0.5, 0.75, 1.25]
    assert list(gains(signs, bounds=(0.5, 1.75))) == told


def test_a_second_regret_in_a_row_changes_nothing_unless_the_first_is_forgotten():
    signs = [1, 1, 1, -1, -1, 1]  # inner products: + + - + -
    assert list(gains(signs)) == [1, 1.5, 2, 1.5, 1.5, 1.5]
    assert list(gains(signs, forget_after_undo=True)) == [1, 1.5, 2, 1.5, 2, 1.5]


def test_an_inner_product_of_zero_or_nan_says_nothing():
    assert list(gains([1, 1, 0, 0, -1, 1])) == [1, 1.5, 1.5, 1.5, 1.5, 0.75]
    assert list(gains([1, 1, float("nan"), 1, 1])) == [1, 1.5, 1.5, 1.5, 2]


def test_updates_are_judged_after_the_step_and_go_back_at_once():
    x = number()
    undo = "rate and parameters"
    optimizer = around(x, lr=1.0, delta=1.0, evidence="updates", undo=undo)
    found = []
    for sign in [1, 1, 1, -1]:
        x.grad = torch.full_like(x, sign)
        optimizer.step()
        found.append((x.item(), optimizer.sizes_of(x), optimizer.param_groups[0]["gain"]))
    assert found[:3] == [(-1, 1, 1), (-2, 1, 2), (-4, 2, 3)]
    assert found[3] == (-2, 3, 2)  # of the step of 3 that turned, 2 are left


@pytest.mark.parametrize(
    ("increase", "delta", "epsilon", "median"),
    [
        ("add", 0.1, 0.1, 1.0),
        ("add", 0.1, 0.2, 0.5),
        ("add", 0.3, 0.1, 3.0),
        ("multiply", 0.1, 0.2, 0.01),
        ("multiply", 0.3, 0.1, 90.0),
    ],
)
def test_where_noise_alone_decides_the_gain_is_around_delta_over_epsilon(
    increase, delta, epsilon, median
):
    rule = Rule(delta, epsilon, (0.01, 100.0), increase, *[False] * 2)
    held, found = Gain(), []
    for sign in np.random.default_rng(0).choice([-1.0, 1.0], 20_000):
        held = rule.after(held, sign)
        found.append(held.gain)
    assert np.median(found) == pytest.approx(median, rel=0.05, abs=0.003)


MAKES = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "DeltaBarDelta": DeltaBarDelta,
    "AdaDelta": AdaDelta,
}


@pytest.mark.parametrize("name", sorted(MAKES))
@pytest.mark.parametrize("evidence", ["gradients", "updates"])
def test_a_gain_that_cannot_change_is_the_optimizer_alone_to_the_bit(name, evidence):
    weights = []
    for wrap in (lambda o: o, lambda o: RegrettableDBD(o, delta=0, epsilon=0, evidence=evidence)):
        problem = Problem()
        optimizer = wrap(MAKES[name](problem.model.parameters()))
        train(optimizer, problem, range(15), closure=False)
        weights.append(problem.weights())
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


class Failing(torch.optim.SGD):
    def step(self, closure=None):
        del closure
        self.seen = self.param_groups[0]["lr"]
        raise RuntimeError("no memory")


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
def test_lr_is_put_back_exactly_when_a_step_fails(lr):
    x = torch.zeros(1, requires_grad=True)
    inner = Failing([x], lr=lr)
    optimizer = RegrettableDBD(inner)
    inner.param_groups[0]["gain"] = 3.0
    x.grad = torch.ones_like(x)
    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step()
    assert inner.seen == pytest.approx(0.3)
    assert inner.param_groups[0]["lr"] is lr
    assert lr == torch.tensor(0.1)


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_scheduler_that_follows_either_writes_what_stays(tensor, inside):
    x = number()
    inner = torch.optim.SGD([x], lr=torch.tensor(0.5, dtype=DOUBLE) if tensor else 0.5)
    optimizer = RegrettableDBD(inner, delta=0.5)
    schedule = Linear(4, start=1.0, stop=0.2)
    held = Scheduler(inner if inside else optimizer, lr=schedule, follow=True)
    for step in range(4):
        before = x.item()
        x.grad = torch.ones_like(x)
        optimizer.step()
        told = 0.5 * schedule(step) * (1 + 0.5 * step)
        assert before - x.item() == pytest.approx(told, rel=1e-12)
        assert held.get_last_lr() == pytest.approx([0.5 * schedule(step + 1)])
    assert held.last_epoch == 4


def test_hooks_fire_once_and_those_of_the_optimizer_inside_too():
    x, told = number(), []
    optimizer = around(x)
    optimizer.register_step_post_hook(lambda *_: told.append("outside"))
    optimizer.register_step_pre_hook(lambda *_: told.append("before"))
    optimizer.optimizer.register_step_post_hook(lambda *_: told.append("inside"))
    x.grad = torch.ones_like(x)
    optimizer.step()
    assert told == ["before", "inside", "outside"]
    everywhere = register_optimizer_step_post_hook(lambda o, *_: told.append(type(o).__name__))
    try:
        optimizer.step()
    finally:
        everywhere.remove()
    assert told[3:] == ["before", "inside", "SGD", "outside", "RegrettableDBD"]


def test_hooks_of_states_fire():
    told = []
    optimizer = around(number())
    optimizer.register_state_dict_pre_hook(lambda o: told.append("give"))
    optimizer.register_state_dict_post_hook(lambda o, s: {**s, "more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, s: told.append(s.pop("more")))
    optimizer.register_load_state_dict_post_hook(lambda o: told.append("taken"))
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    assert told == ["give", 1, "taken"]
    assert state["more"] == 1


def test_a_closure_is_evaluated_once_before_the_decision():
    x, calls = number(), []
    optimizer = around(x, delta=0.5)

    def evaluate():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        value = 2 * x.sum()
        value.backward()
        return value

    for _ in range(3):
        before = 2 * x.item()
        assert optimizer.step(evaluate).item() == before
    assert calls == [True] * 3
    assert optimizer.sizes_of(x) == 2.0


def test_what_is_loaded_into_the_optimizer_inside_is_loaded_here():
    problem = Problem()
    optimizer = RegrettableDBD(torch.optim.Adam(problem.model.parameters()))
    train(optimizer, problem, range(4), closure=False)
    state = copy.deepcopy(optimizer.state_dict())
    train(optimizer, problem, range(4, 8), closure=False)
    optimizer.optimizer.load_state_dict(state)
    assert repr(optimizer.state_dict()) == repr(state)
    assert optimizer.state is optimizer.optimizer.state


def test_a_copy_keeps_its_settings():
    optimizer = around(number(), delta=0.3, per="group", bounds=(0.5, 2.0))
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):  # noqa: S301
        assert (other.rule, other.per) == (optimizer.rule, "group")
        assert other.param_groups is other.optimizer.param_groups
        other.register_step_post_hook(lambda *_: None)


def test_memory_in_the_state_does_not_keep_an_optimizer_from_beginning():
    problem = Problem()
    inner = torch.optim.Adam(problem.model.parameters())  # which begins where a state is empty
    optimizer = RegrettableDBD(inner, undo="rate and parameters")
    train(optimizer, problem, range(2), closure=False)
    own = {"rdbd_evidence", "rdbd_parameters"}
    assert set(inner.state[problem.model[0].weight]) == {"step", "exp_avg", "exp_avg_sq"} | own


def test_bfloat16_gradients_are_compared_in_float32():
    x = torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)
    optimizer = around(x)
    near = 1 - 2**-8  # its square is 1 - 2**-7 in bfloat16, and 2**-16 more in float32
    for g in ([near, 1.0], [near, -1 + 2**-7]):
        x.grad = torch.tensor(g, dtype=torch.bfloat16)
        optimizer.step()
    assert optimizer.sizes_of(x) == 1.1


def test_the_step_size_is_with_that_of_the_optimizer_inside():
    x = torch.ones(3, requires_grad=True)
    inner = DeltaBarDelta([x], lr=0.5, initial_step=0.1, delta=0.01)
    optimizer = RegrettableDBD(inner, delta=0.5)
    assert optimizer.sizes_of(x) is None
    for _ in range(2):
        x.grad = torch.ones_like(x)
        optimizer.step()
    torch.testing.assert_close(optimizer.sizes_of(x), torch.full((3,), 1.5 * 0.11))
    assert step_sizes(optimizer)["group 0"].median == pytest.approx(0.5 * 1.5 * 0.11)


def test_sparse_gradients_are_no_evidence_but_their_updates_are():
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = RegrettableDBD(torch.optim.SGD(table.parameters(), lr=0.1))
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(FieldError, match="gradients must be dense"):
        optimizer.step()
    optimizer = RegrettableDBD(torch.optim.SGD(table.parameters(), lr=0.1), evidence="updates")
    for _ in range(2):
        optimizer.step()
    assert optimizer.param_groups[0]["gain"] == 1.1


@pytest.mark.parametrize("bounds", [2, (0.5, 1, 2), (0.5,), None])
def test_bounds_are_a_pair(bounds):
    with pytest.raises(FieldError, match="bounds must be two numbers"):
        around(number(), bounds=bounds)


class Unscaled(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})


def test_what_has_no_rate_cannot_be_wrapped():
    with pytest.raises(FieldError, match="one whose groups have lr"):
        RegrettableDBD(Unscaled([number()]))
    with pytest.raises(FieldError, match="a torch optimizer"):
        RegrettableDBD([number()])


def test_a_wrong_group_does_not_join():
    optimizer = around(number())
    with pytest.raises(FieldError, match="lr must be"):
        optimizer.add_param_group({"params": [number()], "lr": float("nan")})
    assert len(optimizer.param_groups) == 1
