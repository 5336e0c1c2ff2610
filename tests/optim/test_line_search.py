"""Line searches against a transcription, the textbook's example, and what they promise."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from tests.optim.cases import Problem, train
from torch import nn

from stepsize import FieldError
from stepsize.optim import LineSearch
from stepsize.optim.searches import Line, exact, goldstein

A = np.array([[1.0, 3.0], [1.0, -3.0], [-1.0, 0.0]])
LEAST = 2 * math.sqrt(2) * math.exp(-0.1)


def of(optimizer, *names):
    return tuple(optimizer.param_groups[0][name] for name in names)


def closure_of(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def example(**fields):
    """The textbook's function from (-1, 1)."""
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = LineSearch([x], **{"c": 0.1, "shrink": 0.7, **fields})
    return x, optimizer, closure_of(optimizer, lambda: torch.exp(torch.tensor(A) @ x - 0.1).sum())


def parabola(*curvatures, **fields):
    """h/2 x^2 from 1, in every coordinate."""
    x = torch.ones(len(curvatures), dtype=torch.float64, requires_grad=True)
    optimizer = LineSearch([x], **fields)
    h = torch.tensor(curvatures, dtype=torch.float64)
    return x, optimizer, closure_of(optimizer, lambda: (h * x * x).sum() / 2)


def transcribed(x, steps, *, c, shrink, warm):
    """Backtracking, as in the docstring, in numpy."""
    t = 1.0
    for _ in range(steps):
        e = np.exp(A @ x - 0.1)
        f, g = e.sum(), A.T @ e
        t, trials = (t / shrink if warm and _ else 1.0), 1
        while np.exp(A @ (x - t * g) - 0.1).sum() > f - c * t * (g @ g):
            t *= shrink
            trials += 1
        x = x - t * g
        yield t, trials, x


@pytest.mark.parametrize("start", ["reset", "warm"])
@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize(("c", "shrink"), [(0.1, 0.7), (0.4, 0.5)])
def test_it_is_the_transcription(start, foreach, c, shrink):
    x, optimizer, closure = example(start=start, foreach=foreach, c=c, shrink=shrink)
    told = transcribed(np.array([-1.0, 1.0]), 20, c=c, shrink=shrink, warm=start == "warm")
    for t, trials, place in told:
        optimizer.step(closure)
        assert of(optimizer, "trials") == (trials,)
        np.testing.assert_allclose(optimizer.sizes_of(x), t, rtol=1e-12)
        np.testing.assert_allclose(x.detach().numpy(), place, rtol=1e-12, atol=1e-15)


def to_the_minimum(method):
    """Go on until the loss is within 1e-12 of the least; give what was seen at each place."""
    x, optimizer, closure = example(method=method)
    seen = []
    while not seen or seen[-1][0] >= 1e-12:
        place = x.detach().clone()
        gap = optimizer.step(closure).item() - LEAST
        seen.append((gap, place, x.grad.clone(), *of(optimizer, "trials")))
    gaps, places, gradients, trials = zip(*seen, strict=True)
    length = sum((b - a).norm().item() for a, b in itertools.pairwise(places))
    contraction = (gaps[-1] / gaps[0]) ** (1 / (len(gaps) - 1))
    return len(gaps) - 1, trials[:-1], contraction, length, gradients


def test_backtracking_on_the_textbooks_example():
    iterations, trials, contraction, length, _ = to_the_minimum("armijo")
    assert iterations == 34
    assert sum(trials) - iterations == 181  # backtracks
    assert contraction == pytest.approx(0.406, abs=5e-4)
    assert length == pytest.approx(5.80, abs=5e-3)


def test_exact_search_on_the_textbooks_example():
    iterations, _, contraction, length, gradients = to_the_minimum("exact")
    assert iterations == 13
    assert contraction == pytest.approx(0.096, abs=5e-4)
    assert length == pytest.approx(1.84, abs=5e-3)
    for one, other in itertools.pairwise(gradients[:9]):
        assert abs(one.dot(other)) < 1e-4 * one.norm() * other.norm()


def test_the_least_loss_of_the_example():
    x = np.array([-math.log(2) / 2, 0.0])
    assert np.exp(A @ x - 0.1).sum() == pytest.approx(LEAST, rel=1e-15)
    assert pytest.approx(2.559266697) == LEAST


@pytest.mark.parametrize("initial_step", [1e-4, 1.0, 1e4])
def test_exact_minimises_a_parabola_from_any_scale(initial_step):
    x, optimizer, closure = parabola(5.0, method="exact", initial_step=initial_step)
    optimizer.step(closure)
    assert optimizer.sizes_of(x) == pytest.approx(0.2, rel=1e-7)


def test_goldstein_makes_a_step_larger_that_is_too_small():
    small = parabola(1.0, method="armijo", initial_step=1e-3)
    grown = parabola(1.0, method="goldstein", initial_step=1e-3, c=0.25)
    for x, optimizer, closure in (small, grown):
        optimizer.step(closure)
        t = optimizer.sizes_of(x)
    assert small[1].sizes_of(x) == 1e-3
    after = (1 - t) ** 2 / 2  # slope -1, from 1/2
    assert 0.5 - 0.75 * t <= after <= 0.5 - 0.25 * t


def test_goldstein_halves_the_interval_and_ends():
    """Conditions so tight that steps by a factor jump over what they allow."""
    tried = []

    def loss(t):
        tried.append(t)
        return (1 - t) ** 2 / 2

    line = Line(loss, 0.5, 1.0, 1e-16, c=0.499, shrink=0.3, max_step=math.inf, max_trials=100)
    t = goldstein(line, 0.1)
    assert t == pytest.approx(1.0, abs=2.1e-3)
    assert len(tried) == line.trials < 20
    few = Line(loss, 0.5, 1.0, 1e-16, c=0.499, shrink=0.3, max_step=math.inf, max_trials=3)
    assert goldstein(few, 0.1) == pytest.approx(0.1 / 0.3)  # it fell enough, if too little


def test_exact_stops_at_a_wall_and_without_one():
    def wall(t):
        return -t if t < 3 else math.nan

    fields = {"start": 0.0, "square": 1.0, "unit": 1e-16, "c": 0.1, "shrink": 0.5}
    walled = Line(wall, max_step=math.inf, max_trials=200, **fields)
    assert exact(walled, 1.0) == pytest.approx(3.0, rel=1e-6)
    capped = Line(lambda t: -t, max_step=7.0, max_trials=200, **fields)
    assert exact(capped, 1.0) == 7.0
    ended = Line(lambda t: -t, max_step=math.inf, max_trials=4, **fields)
    assert exact(ended, 1.0) == 8.0
    uphill = Line(lambda t: t, max_step=math.inf, max_trials=9, **fields)
    assert exact(uphill, 1.0) == 0.0


def test_a_warm_start_goes_on_from_the_last_step_and_costs_less():
    cold, warm = example(), example(start="warm")
    trials = []
    for _, optimizer, closure in (cold, warm):
        trials.append(0)
        for _ in range(20):
            optimizer.step(closure)
            trials[-1] += of(optimizer, "trials")[0]
    assert trials[1] < 0.5 * trials[0]
    x, optimizer, closure = parabola(0.01, start="warm", grow=3.0, initial_step=0.1)
    sizes = []
    for _ in range(4):
        optimizer.step(closure)
        sizes.append(optimizer.sizes_of(x))
    assert sizes == pytest.approx([0.1, 0.3, 0.9, 2.7])


def test_no_step_is_greater_than_max_step():
    x, optimizer, closure = parabola(0.01, start="warm", grow=3.0, initial_step=2.0, max_step=5.0)
    sizes = []
    for _ in range(3):
        optimizer.step(closure)
        sizes.append(optimizer.sizes_of(x))
    assert sizes == [2.0, 5.0, 5.0]


@pytest.mark.parametrize("fallback", [0.0, 1e-3])
def test_where_no_trial_falls_enough_the_step_is_the_fallback(fallback):
    fields = {"max_trials": 3, "fallback": fallback, "start": "warm", "initial_step": 8.0}
    x, optimizer, closure = parabola(10.0, shrink=0.5, **fields)
    optimizer.step(closure)  # 8, 4, 2; 0.2 would be needed
    assert of(optimizer, "trials", "step_size") == (3, fallback)
    assert x.item() == 1 - 10 * fallback
    optimizer.step(closure)
    assert of(optimizer, "trials") == (3,)  # from 8 again, not from a tiny one


@pytest.mark.parametrize("method", ["armijo", "goldstein", "exact"])
def test_at_the_minimum_it_does_not_look_for_what_rounding_hides(method):
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = LineSearch([x], method=method)
    closure = closure_of(optimizer, lambda: ((x - 0.3) ** 2 * torch.tensor([1.0, 7.0])).sum() + 5)
    for _ in range(60):
        optimizer.step(closure)
    assert (x - 0.3).abs().max() < 1e-3
    assert of(optimizer, "trials")[0] < 45
    assert of(optimizer, "step_size")[0] < 1


# The same minibatch -----------------------------------------------------------------------------


def test_the_loss_alone_saves_the_backward_passes_and_changes_nothing():
    calls = {"closure": 0, "loss": 0}
    one, other = example(), example()
    for _ in range(8):
        one[1].step(one[2])
        x, optimizer, closure = other

        def counted(closure=closure):
            calls["closure"] += 1
            return closure()

        def loss(x=x):
            assert not torch.is_grad_enabled()
            calls["loss"] += 1
            return torch.exp(torch.tensor(A) @ x - 0.1).sum()

        optimizer.step(counted, loss=loss)
        assert torch.equal(one[0], x)
        assert torch.equal(one[0].grad, x.grad)
    assert calls["closure"] == 8
    assert calls["loss"] > 16


@pytest.mark.parametrize("set_to_none", [True, False])
def test_afterwards_gradients_are_those_of_the_departure(set_to_none):
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.zeros(1, requires_grad=True)
    optimizer = LineSearch([x, unused])
    x.grad = torch.zeros(2)
    held = x.grad

    def closure():
        optimizer.zero_grad(set_to_none=set_to_none)
        value = (x**4).sum()
        value.backward()
        return value

    optimizer.step(closure)
    assert of(optimizer, "trials")[0] > 1
    assert torch.equal(x.grad, torch.tensor([4.0, 32.0]))
    assert (x.grad is held) is not set_to_none
    assert unused.grad is None


@pytest.mark.parametrize("only_loss", [True, False])
def test_an_error_in_a_trial_leaves_everything_as_it_was(only_loss):
    x, optimizer, closure = example()
    optimizer.step(closure)
    before, calls = x.detach().clone(), []

    def fails(evaluate=closure):
        calls.append(x.detach().clone())
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate()

    first, loss = (closure, lambda: fails(lambda: 1e9)) if only_loss else (fails, None)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(first, loss=loss)
    assert torch.equal(x, before)
    assert not torch.equal(calls[-1], before)
    optimizer.step(closure)
    assert of(optimizer, "step_size")[0] > 0


def test_points_are_restored_to_the_bit():
    x = torch.tensor([1.0, 1e-20], requires_grad=True)  # adding back would lose the second
    optimizer = LineSearch([x], max_trials=5)
    before = x.detach().clone()
    optimizer.step(closure_of(optimizer, lambda: x.sum() if x[0] == 1 else x[0] * 0 + 9))
    assert of(optimizer, "trials", "step_size") == (5, 0.0)
    assert torch.equal(x, before)


def test_trials_see_the_same_dropout_and_buffers_move_once():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 1))
    optimizer = LineSearch(model.parameters(), initial_step=4.0)
    data = torch.randn(32, 6)
    seen = []

    def closure():
        optimizer.zero_grad()
        value = (model(data) - 1).square().mean()
        value.backward()
        seen.append(value.item())
        return value

    for step in range(1, 6):
        seen.clear()
        optimizer.step(closure)
        t, trials = of(optimizer, "step_size", "trials")
        slope = sum(p.grad.square().sum().item() for p in model.parameters())
        assert len(seen) == 1 + trials
        assert seen[-1] <= seen[0] - 0.1 * t * slope * 0.9999
        assert model[1].num_batches_tracked == step


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_trial_that_is_not_finite_is_too_far(bad):
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = LineSearch([x], initial_step=8.0, shrink=0.5)
    loss = lambda: (x - 2).square().sum() if 0 < x < 4 else x.sum() * 0 + bad
    optimizer.step(closure_of(optimizer, loss))
    assert of(optimizer, "step_size", "trials") == (0.5, 5)  # 8, 4, 2, 1 (no decrease), 0.5
    assert x.item() == 2


@pytest.mark.parametrize("method", ["armijo", "goldstein", "exact"])
def test_where_the_start_is_not_finite_nothing_moves(method):
    x = torch.tensor([1.0], requires_grad=True)
    optimizer = LineSearch([x], method=method)
    for factor in (math.nan, math.inf):
        optimizer.step(closure_of(optimizer, lambda factor=factor: (x * factor).sum()))
        assert x.item() == 1
        assert of(optimizer, "step_size", "trials") == (0.0, 0)


# What is searched -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["armijo", "goldstein", "exact"])
def test_weight_decay_is_part_of_the_loss(method):
    def run(*, explicit):
        x = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
        y = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
        decays = (0.0, 0.0) if explicit else (0.7, 2.0)
        groups = [{"params": [p], "weight_decay": d} for p, d in zip((x, y), decays, strict=True)]
        optimizer = LineSearch(groups, method=method)

        def loss():
            value = torch.exp(x).sum() + (y - x[0]).pow(4).sum()
            penalty = 0.35 * x.square().sum() + y.square().sum()
            return value + penalty if explicit else value

        for _ in range(6):
            optimizer.step(closure_of(optimizer, loss))
        return [*x.tolist(), *y.tolist()], of(optimizer, "step_size", "trials")

    (one, (t, trials)), (other, (s, others)) = run(explicit=False), run(explicit=True)
    close = 1e-6 if method == "exact" else 1e-10
    np.testing.assert_allclose(one, other, rtol=close)
    assert t == pytest.approx(s, rel=100 * close)
    assert trials == others or method == "exact"


def test_maximize_climbs():
    x, optimizer, _ = parabola(3.0, maximize=True)
    optimizer.step(closure_of(optimizer, lambda: -(3 * (x - 2) ** 2).sum()))
    assert abs(x.item() - 2) < 1
    assert of(optimizer, "step_size")[0] > 0


def test_the_share_of_a_group_is_part_of_what_is_searched():
    """Steep in the second group, whose rate is small: the search sees what will be done."""
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    y = torch.ones(1, dtype=torch.float64, requires_grad=True)
    groups = [{"params": [x]}, {"params": [y], "lr": torch.tensor(0.01)}]
    optimizer = LineSearch(groups, lr=2.0, method="exact")
    optimizer.step(closure_of(optimizer, lambda: (x * x + 200 * y * y).sum() / 2))
    # along (-1, -200 / 200): the minimum of (1 - t)^2 + 200 (1 - t)^2 is at 1, and lr doubles it
    assert of(optimizer, "step_size")[0] == pytest.approx(1.0, rel=1e-6)
    assert (x.item(), y.item()) == pytest.approx((-1.0, -1.0), rel=1e-6)
    assert optimizer.sizes_of(y) == optimizer.sizes_of(x)


def test_a_rate_of_zero_finds_a_step_and_does_not_move():
    x, optimizer, closure = example(lr=0.0)
    before = x.detach().clone()
    optimizer.step(closure)
    assert torch.equal(x, before)
    found = of(optimizer, "step_size", "trials")
    assert found[0] > 0
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step(closure)
    assert of(optimizer, "step_size", "trials") == found
    assert not torch.equal(x, before)


def test_hooks_are_called_once_and_step_gives_the_loss():
    _, optimizer, closure = example()
    calls = []
    optimizer.register_step_pre_hook(lambda *args: calls.append("before"))
    optimizer.register_step_post_hook(lambda *args: calls.append("after"))
    loss = optimizer.step(closure)
    assert calls == ["before", "after"]
    assert loss.item() == pytest.approx(np.exp(A @ [-1.0, 1.0] - 0.1).sum())


# Wrong settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "wolfe"}, "method must be one of 'armijo', 'goldstein', 'exact'"),
        ({"c": 0}, "c must be a finite number > 0 and <= 0.5"),
        ({"c": 0.6}, "c must be a finite number > 0 and <= 0.5"),
        ({"c": 0.5, "method": "goldstein"}, "c must be < 0.5 for method='goldstein'"),
        ({"shrink": 1.0}, "shrink must be a finite number > 0 and < 1"),
        ({"shrink": 0.0}, "shrink must be a finite number > 0 and < 1"),
        ({"start": "cold"}, "start must be one of 'reset', 'warm'"),
        ({"grow": 0.9}, "grow must be a finite number >= 1"),
        ({"initial_step": 0.0}, "initial_step must be a finite number > 0"),
        ({"max_step": 0.0}, "max_step must be a finite number > 0"),
        ({"max_trials": 0}, "max_trials must be a whole number >= 1"),
        ({"fallback": -1.0}, "fallback must be a finite number >= 0"),
        ({"reduce": 1}, "reduce must be True or False"),
        ({"decoupled_weight_decay": True}, "decoupled_weight_decay must be False in a line search"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(FieldError, match=words):
        LineSearch([torch.zeros(1, requires_grad=True)], **fields)


@pytest.mark.parametrize("field", [{"c": 0.2}, {"maximize": True}, {"method": "exact"}])
def test_a_group_cannot_have_a_search_of_its_own(field):
    _, optimizer, _ = example()
    group = {"params": [torch.zeros(1, requires_grad=True)], **field}
    with pytest.raises(FieldError, match=f"{next(iter(field))} must be the same for all groups"):
        optimizer.add_param_group(group)
    optimizer.add_param_group({"params": group["params"], "lr": 0.5, "c": 0.1})


def test_a_closure_without_a_loss_is_refused():
    _, optimizer, closure = example()
    with pytest.raises(FieldError, match="closure must give the loss"):
        optimizer.step(lambda: closure() and None)


def test_a_loss_may_be_a_plain_number():
    one, other = example(), example()
    for _ in range(3):
        one[1].step(one[2])
        assert isinstance(other[1].step(lambda: other[2]().item()), float)
        assert torch.equal(one[0], other[0])


def test_exact_without_scipy_is_refused_when_it_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(FieldError, match=r"needs scipy.*pip install 'stepsize\[theory\]'"):
        example(method="exact")
    example(method="goldstein")


def test_minibatches_that_contradict_each_other_make_an_uncapped_search_worse():
    """Random labels, eight at a time: every minibatch is fitted at the cost of the others."""
    problem = Problem()
    before = sum(problem.loss(step).item() for step in range(8))
    optimizer = LineSearch(problem.model.parameters(), start="warm")
    train(optimizer, problem, range(60), closure=True)
    assert sum(problem.loss(step).item() for step in range(8)) > before
