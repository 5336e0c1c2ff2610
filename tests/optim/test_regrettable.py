"""Regrettable Delta-Bar-Delta against a transcription, and each of its options."""

import copy

import numpy as np
import pytest
import torch

from stepsize import Constant, FieldError
from stepsize.optim import AdGD, LineSearch, RegrettableDBD
from stepsize.torch import Scheduler, step_sizes

DOUBLE = torch.float64
H = np.array([1.0, 10.0, 3.0])


def changed(gain, s, delta, epsilon, increase):
    if s > 0:
        return gain + delta if increase == "add" else gain * (1 + delta)
    return gain * (1 - epsilon) if s < 0 else gain


def transcribed(gradients, x, lr, *, delta, epsilon, increase="add", apply=False, forget=False):
    """The rule in numpy, around gradient descent: the gain is changed before the step."""
    gain = before = 1.0
    last = past = None
    for t in range(len(gradients)):
        g = H * x + gradients[t]
        if past is not None:
            s = np.sign(g @ past)
            if last is None or s * last >= 0:
                before, gain = gain, changed(gain, s, delta, epsilon, increase)
                last = s
            else:
                gain = before
                if apply:
                    gain = changed(before, s, delta, epsilon, increase)
                last = None if forget else s
        x, past = x - lr * gain * g, g
        yield gain, x


SETTINGS = [
    {},
    {"apply_after_undo": True},
    {"forget_after_undo": True},
    {"increase": "multiply"},
    {"increase": "multiply", "apply_after_undo": True, "forget_after_undo": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_is_the_transcription(settings):
    noise = np.random.default_rng(3).normal(size=(40, 3))
    x = torch.tensor([1.0, 1.0, -2.0], dtype=DOUBLE, requires_grad=True)
    fields = {"delta": 0.3, "epsilon": 0.2}
    optimizer = RegrettableDBD(torch.optim.SGD([x], lr=0.05), **fields, **settings)
    names = {"apply_after_undo": "apply", "forget_after_undo": "forget"}
    told = {names.get(k, k): v for k, v in settings.items()} | fields
    gains = []
    for t, (gain, place) in enumerate(transcribed(noise, x.detach().numpy().copy(), 0.05, **told)):
        x.grad = torch.tensor(H) * x.detach() + torch.tensor(noise[t])
        optimizer.step()
        gains.append(gain)
        assert optimizer.sizes_of(x) == pytest.approx(gain, rel=1e-12)
        np.testing.assert_allclose(x.detach().numpy(), place, rtol=1e-11, atol=1e-13)
    assert len(set(gains)) > 4  # it rose and fell
    assert optimizer.param_groups[0]["lr"] == 0.05


def stepped(optimizer, x, *signs):
    """Take steps with gradients of these signs; give the gains."""
    gains = []
    for sign in signs:
        x.grad = torch.full_like(x, sign)
        optimizer.step()
        gains.append(optimizer.sizes_of(x))
    return gains


def around_sgd(**settings):
    x = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    return RegrettableDBD(torch.optim.SGD([x], lr=0.1), **{"delta": 0.5, **settings}), x


def test_a_regretted_rise_is_taken_back_and_regretting_again_changes_nothing():
    optimizer, x = around_sgd(epsilon=0.2)
    #                     first, rise, rise, contradicted, contradicted again
    assert stepped(optimizer, x, 1, 1, 1, -1, -1) == [1.0, 1.5, 2.0, 1.5, 1.5]


def test_a_regretted_fall_is_taken_back():
    optimizer, x = around_sgd(epsilon=0.5)
    assert stepped(optimizer, x, 1, -1, 1, 1) == [1.0, 0.5, 0.25, 0.5]


def test_what_is_undone_can_be_the_parameters_too():
    both = []
    for undo in ("rate", "rate and parameters"):
        optimizer, x = around_sgd(undo=undo)
        stepped(optimizer, x, 1, 1, -1)
        both.append(x.detach().clone())
    # the second step went 1.5 * 0.1 where 1 * 0.1 is what remains of it
    torch.testing.assert_close(both[1] - both[0], torch.full_like(x, 0.05))


def test_bounds_hold():
    optimizer, x = around_sgd(bounds=(0.5, 2.0), epsilon=0.4)
    assert max(stepped(optimizer, x, *[1] * 9)) == 2.0
    assert min(stepped(optimizer, x, *[1, -1] * 9)) == 0.5


@pytest.mark.parametrize("inner", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_without_changes_it_is_the_optimizer_inside(inner):
    found = []
    for wrap in (False, True):
        torch.manual_seed(0)
        x = torch.randn(5, requires_grad=True)
        optimizer = inner([x], lr=0.01)
        if wrap:
            optimizer = RegrettableDBD(optimizer, delta=0.0, epsilon=0.0)
        for _ in range(10):
            x.grad = torch.randn(5)
            optimizer.step()
        found.append(x.detach())
    assert torch.equal(*found)


def test_every_group_can_have_a_gain_of_its_own():
    a, b = (torch.zeros(1, requires_grad=True) for _ in range(2))
    for per, expected in (("group", [2.0, 0.5]), ("global", [2.0, 2.0])):
        inner = torch.optim.SGD([{"params": [a]}, {"params": [b]}], lr=0.1)
        optimizer = RegrettableDBD(inner, delta=1.0, epsilon=0.5, per=per)
        for sign in (1.0, -1.0):
            a.grad, b.grad = torch.full_like(a, 3.0), torch.full_like(b, sign)
            optimizer.step()
        assert [optimizer.sizes_of(p) for p in (a, b)] == expected


def test_updates_are_compared_after_the_step():
    x = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    inner = torch.optim.SGD([x], lr=0.1, momentum=0.9)
    optimizer = RegrettableDBD(inner, delta=0.5, evidence="updates")
    # momentum carries on through one gradient of the other sign: the updates agree
    assert (
        stepped(optimizer, x, 1, 1, 1, -0.5, 1)[-1] > stepped(*around_sgd(), 1, 1, 1, -0.5, 1)[-1]
    )


def test_a_rate_of_zero_teaches_nothing():
    optimizer, x = around_sgd()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert stepped(optimizer, x, 1, 1, 1, 1) == [1.0] * 4
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    assert stepped(optimizer, x, 1, 1)[-1] > 1.0


@pytest.mark.parametrize("on", ["wrapper", "inside"])
def test_a_scheduler_on_either_multiplies(on):
    optimizer, x = around_sgd(delta=1.0)
    held = Scheduler(
        optimizer if on == "wrapper" else optimizer.optimizer, lr=Constant(value=0.5), follow=True
    )
    stepped(optimizer, x, 1, 1)
    assert held.last_epoch == 2
    torch.testing.assert_close(x.detach(), torch.full_like(x, -0.05 * (1 + 2)))
    assert step_sizes(optimizer)["group 0"].median == pytest.approx(0.05 * 2)


def test_the_rate_is_put_back_when_a_step_fails():
    optimizer, x = around_sgd()
    stepped(optimizer, x, 1, 1)

    def fails(*_):
        raise RuntimeError("no")

    optimizer.optimizer.register_step_pre_hook(fails)
    with pytest.raises(RuntimeError, match="no"):
        stepped(optimizer, x, 1)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_group_joins_both():
    optimizer, x = around_sgd()
    stepped(optimizer, x, 1, 1)
    y = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    optimizer.add_param_group({"params": [y], "lr": 0.2})
    assert optimizer.optimizer.param_groups is optimizer.param_groups
    y.grad = torch.ones_like(y)
    stepped(optimizer, x, 1)
    torch.testing.assert_close(y.detach(), torch.full_like(y, -0.2 * optimizer.sizes_of(x)))


def test_the_state_of_the_optimizer_inside_loads():
    x = torch.zeros(2, requires_grad=True)
    plain = torch.optim.Adam([x], lr=0.1)
    x.grad = torch.ones(2)
    plain.step()
    optimizer = RegrettableDBD(torch.optim.Adam([x], lr=0.1))
    optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert optimizer.optimizer.state[x]["step"] == 1
    optimizer.step()
    assert optimizer.sizes_of(x) == 1.0


def noisy(seed, **settings):
    """The loss after 300 steps on a quadratic (condition 30) with noise 0.3."""
    rng = np.random.default_rng(seed)
    h = torch.tensor(np.geomspace(1, 30, 10))
    x = torch.ones(10, dtype=DOUBLE, requires_grad=True)
    optimizer = RegrettableDBD(
        torch.optim.SGD([x], lr=0.01), delta=0.1, epsilon=0.2, bounds=(0.01, 6.0), **settings
    )
    for _ in range(300):
        x.grad = h * x.detach() + 0.3 * torch.tensor(rng.normal(size=10))
        optimizer.step()
    return (0.5 * h * x.detach() ** 2).sum().item()


def test_it_does_not_blow_up_under_noise():
    assert np.median([noisy(seed) for seed in range(9)]) < 0.1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"delta": -1}, "delta must be a finite number >= 0"),
        ({"epsilon": 1}, "epsilon must be a finite number >= 0 and < 1"),
        ({"evidence": "losses"}, "evidence must be one of 'gradients', 'updates'"),
        ({"per": "layer"}, "per must be one of 'global', 'group'"),
        ({"undo": "all"}, "undo must be one of"),
        ({"bounds": (2, 3)}, "bounds must be two numbers"),
        ({"apply_after_undo": 1}, "apply_after_undo must be True or False"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(FieldError, match=words):
        around_sgd(**fields)


@pytest.mark.parametrize(
    "inner",
    [
        lambda p: torch.optim.LBFGS(p),
        lambda p: LineSearch(p),
        lambda p: AdGD(p, stochastic=True),
        lambda p: RegrettableDBD(torch.optim.SGD(p)),
    ],
)
def test_what_evaluates_again_is_refused(inner):
    with pytest.raises(FieldError, match="needs no closure"):
        RegrettableDBD(inner([torch.zeros(1, requires_grad=True)]))
