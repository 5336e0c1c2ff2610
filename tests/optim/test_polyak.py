"""Polyak's step size against a transcription, and what its settings do."""

import math

import numpy as np
import pytest
import torch

from stepsize import FieldError
from stepsize.optim import PolyakSGD

A = np.array([[1.0, 3.0], [1.0, -3.0], [-1.0, 0.0]])
LEAST = 2 * math.sqrt(2) * math.exp(-0.1)


def of(optimizer, *names):
    return tuple(optimizer.param_groups[0][name] for name in names)


def step(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return optimizer.step(closure).item()


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def exponentials(x):
    """The textbook's function."""
    return torch.exp(torch.tensor(A) @ x - 0.1).sum()


def estimated(loss, seen, gap, first):
    """One judgement of the level: the gap that is next."""
    if gap is None:
        return first
    if loss <= min(seen) - gap:
        return 2 * gap
    return gap / 2 if loss > seen[-1] else gap


def transcribed(x, steps, *, f_star, c, max_step, smoothing=0, initial_step=0.01):
    """The rule, as in the docstring, in numpy, on one row of the example after another."""
    last, gap, seen = math.inf, None, []
    for k in range(steps):
        rows = A if f_star == "estimate" else A[[k % 3, (k + 1) % 3]]
        e = np.exp(rows @ x - 0.1)
        f, g = e.sum(), rows.T @ e
        level = f_star
        if f_star == "estimate":
            gap = estimated(f, seen, gap, initial_step * c * (g @ g))
            seen.append(f)
            level = min(seen) - gap
        most = min(max_step, 2 ** (1 / smoothing) * last) if smoothing else max_step
        eta = max(0.0, min((f - level) / (c * (g @ g)), most))
        last = eta or last
        x = x - eta * g
        yield eta, x


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {"f_star": 0.0, "c": 0.5, "max_step": 0.3},
        {"f_star": 1.0, "c": 1.0, "max_step": math.inf},
        {"f_star": 0.0, "c": 0.5, "max_step": 1.0, "smoothing": 4},
        {"f_star": "estimate", "c": 0.5, "max_step": 0.15, "initial_step": 3e-4},
        {"f_star": "estimate", "c": 1.0, "max_step": 0.2, "initial_step": 0.01},
    ],
)
def test_it_is_the_transcription(fields, foreach):
    x = numbers(-1.0, 1.0)
    optimizer = PolyakSGD([x], foreach=foreach, **fields)
    for k, (eta, place) in enumerate(transcribed(np.array([-1.0, 1.0]), 20, **fields)):
        rows = A if fields["f_star"] == "estimate" else A[[k % 3, (k + 1) % 3]]
        step(optimizer, lambda rows=rows: torch.exp(torch.tensor(rows) @ x - 0.1).sum())
        np.testing.assert_allclose(optimizer.sizes_of(x), eta, rtol=1e-12)
        np.testing.assert_allclose(x.detach().numpy(), place, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("c", "size"), [(0.5, 1 / 8), (1.0, 1 / 16)])
def test_on_a_parabola_half_is_the_exact_step(c, size):
    x = numbers(3.0)
    optimizer = PolyakSGD([x], c=c)
    step(optimizer, lambda: (4 * x * x).sum())
    assert optimizer.sizes_of(x) == pytest.approx(size, rel=1e-15)


def test_at_a_kink_one_is_the_exact_step_and_half_jumps_from_side_to_side():
    places = {}
    for c in (0.5, 1.0):
        x = numbers(3.0)
        optimizer = PolyakSGD([x], c=c, max_step=math.inf)
        places[c] = []
        for _ in range(3):
            step(optimizer, lambda x=x: x.abs().sum())
            places[c].append(x.item())
    assert places[0.5] == [-3.0, 3.0, -3.0]
    assert places[1.0] == [0.0, 0.0, 0.0]


def test_with_the_least_loss_known_it_converges():
    x = numbers(-1.0, 1.0)
    optimizer = PolyakSGD([x], f_star=LEAST, max_step=math.inf)
    for _ in range(25):
        step(optimizer, lambda: exponentials(x))
    assert exponentials(x).item() - LEAST < 1e-12


def test_with_too_low_a_least_loss_max_step_is_what_holds_it():
    x = numbers(-1.0, 1.0)
    optimizer = PolyakSGD([x], f_star=0.0, max_step=0.1)
    for _ in range(60):
        step(optimizer, lambda: exponentials(x))
    assert optimizer.sizes_of(x) == 0.1
    assert exponentials(x).item() - LEAST < 1e-6


def test_below_the_least_loss_nothing_moves():
    x = numbers(1.0)
    optimizer = PolyakSGD([x], f_star=5.0)
    step(optimizer, lambda: x.square().sum())
    assert (x.item(), optimizer.sizes_of(x)) == (1.0, 0.0)


def test_smoothing_limits_growth_and_forgets_steps_of_zero():
    x = numbers(1.0)
    optimizer = PolyakSGD([x], smoothing=2, c=1.0, max_step=math.inf)
    sizes = []
    for slope, offset in [(10, 0), (10, -99), (0.1, 0), (0.1, 0), (100, 0)]:
        loss = lambda a=slope, b=offset: (a * x + b).sum() - a * (x.item() - 1)
        step(optimizer, loss)
        sizes.append(optimizer.sizes_of(x))
    root = math.sqrt(2)
    assert sizes == pytest.approx([0.1, 0.0, 0.1 * root, 0.2, 0.01])


# The least loss estimated -----------------------------------------------------------------------


@pytest.mark.parametrize("initial_step", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("offset", [0.0, -1000.0])
def test_the_estimate_finds_the_minimum(initial_step, offset):
    x = numbers(-1.0, 1.0)
    optimizer = PolyakSGD([x], f_star="estimate", initial_step=initial_step, max_step=math.inf)
    for count in range(160):
        step(optimizer, lambda: exponentials(x) + offset)
        if count == 0:
            assert optimizer.sizes_of(x) == pytest.approx(initial_step)
    lowest, gap = of(optimizer, "lowest", "gap")
    assert abs(lowest - LEAST - offset) < 1e-8
    assert 0 < gap < 1e-6


def test_the_gap_is_doubled_where_the_level_is_reached_and_halved_where_the_loss_rises():
    x = numbers(1.0)
    optimizer = PolyakSGD([x], f_star="estimate", initial_step=0.5)
    gaps = []
    for value in (10.0, 9.5, 9.0, 9.2, 9.1, 7.0):  # whatever the parameter does; slope 1
        step(optimizer, lambda value=value: x.sum() - x.item() + value)
        gaps.append(of(optimizer, "gap")[0])
    assert gaps == [0.25, 0.5, 1.0, 0.5, 0.5, 1.0]
    assert of(optimizer, "lowest", "last_loss") == (7.0, 7.0)


def test_warmup_from_zero_leaves_the_estimate_as_it_is():
    x = numbers(-1.0, 1.0)
    optimizer = PolyakSGD([x], lr=0.0, f_star="estimate")
    for _ in range(40):
        step(optimizer, lambda: exponentials(x))
    assert of(optimizer, "gap")[0] == pytest.approx(0.005 * of_gradient())
    optimizer.param_groups[0]["lr"] = 1.0
    for _ in range(100):
        step(optimizer, lambda: exponentials(x))
    assert exponentials(x).item() - LEAST < 1e-6


def of_gradient():
    """The squared gradient of the example at its start."""
    g = A.T @ np.exp(A @ [-1.0, 1.0] - 0.1)
    return g @ g


def test_a_first_gradient_of_zero_is_no_estimate():
    x = numbers(1.0)
    optimizer = PolyakSGD([x], f_star="estimate")
    step(optimizer, lambda: (0 * x).sum())
    assert math.isnan(of(optimizer, "gap")[0])
    step(optimizer, lambda: x.square().sum())
    assert of(optimizer, "gap", "step_size") == pytest.approx((0.02, 0.01))


# What is measured -------------------------------------------------------------------------------


def test_coupled_weight_decay_is_part_of_loss_and_gradient():
    def run(*, explicit):
        x, y = numbers(1.0, -2.0), numbers(3.0)
        decays = (0.0, 0.0) if explicit else (0.7, 2.0)
        groups = [{"params": [p], "weight_decay": d} for p, d in zip((x, y), decays, strict=True)]
        optimizer = PolyakSGD(groups, max_step=0.2)

        def loss():
            value = torch.exp(x).sum() + (y - x[0]).square().sum()
            penalty = 0.35 * x.square().sum() + y.square().sum()
            return value + penalty if explicit else value

        for _ in range(6):
            step(optimizer, loss)
        return [*x.tolist(), *y.tolist(), optimizer.sizes_of(x)]

    np.testing.assert_allclose(run(explicit=True), run(explicit=False), rtol=1e-12)


def test_decoupled_weight_decay_is_part_of_the_step_alone():
    x = numbers(3.0)
    fields = {"weight_decay": 0.5, "decoupled_weight_decay": True}
    optimizer = PolyakSGD([x], lr=0.5, c=1.0, **fields)
    step(optimizer, lambda: x.square().sum())
    assert optimizer.sizes_of(x) == pytest.approx(0.25)  # 9 / 36
    assert x.item() == pytest.approx(3 - 0.5 * 0.25 * (6 + 0.5 * 3))


def test_maximize_goes_up_to_the_greatest():
    x = numbers(3.0)
    optimizer = PolyakSGD([x], maximize=True, f_star=7.0)
    step(optimizer, lambda: 7 - 2 * (x - 1).square().sum())
    assert x.item() == pytest.approx(1.0)


def test_groups_take_their_share_of_the_step():
    x, y = numbers(2.0), numbers(1.0)
    optimizer = PolyakSGD([{"params": [x]}, {"params": [y], "lr": 1.0}], lr=4.0, max_step=9.0)
    step(optimizer, lambda: (3 * x + 8 * y).sum())
    eta = 14 / (0.5 * (9 + 0.25 * 64))
    assert optimizer.sizes_of(y) == pytest.approx(eta)
    assert (x.item(), y.item()) == pytest.approx((2 - 4 * eta * 3, 1 - eta * 8))


@pytest.mark.parametrize("factor", [math.nan, math.inf])
@pytest.mark.parametrize("f_star", [0.0, "estimate"])
def test_what_is_not_finite_moves_nothing_and_is_forgotten(factor, f_star):
    x = numbers(1.0)
    optimizer = PolyakSGD([x], f_star=f_star, initial_step=0.1, smoothing=1)
    step(optimizer, lambda: x.square().sum())
    before = x.item(), *of(optimizer, "gap", "lowest", "last_moved")
    step(optimizer, lambda: (x * factor).sum())
    assert repr((x.item(), *of(optimizer, "gap", "lowest", "last_moved"))) == repr(before)
    assert optimizer.sizes_of(x) == 0.0


def test_a_gradient_that_vanishes_beside_its_loss_moves_nothing():
    x = numbers(1.0)
    optimizer = PolyakSGD([x], max_step=math.inf)
    step(optimizer, lambda: 5 + 1e-160 * x.sum())
    assert (x.item(), optimizer.sizes_of(x)) == (1.0, 0.0)


# Wrong settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"f_star": "guess"}, "f_star must be a finite number or 'estimate'"),
        ({"f_star": math.inf}, "f_star must be a finite number"),
        ({"f_star": None}, "f_star must be a finite number"),
        ({"c": 0.0}, "c must be a finite number > 0"),
        ({"max_step": 0.0}, "max_step must be a finite number > 0"),
        ({"max_step": math.nan}, "max_step must be a finite number > 0"),
        ({"smoothing": 2.5}, "smoothing must be a whole number >= 0"),
        ({"initial_step": 0}, "initial_step must be a finite number > 0"),
        ({"foreach": 1}, "foreach must be True or False"),
        ({"reduce": None}, "reduce must be True or False"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(FieldError, match=words):
        PolyakSGD([numbers(0.0)], **fields)


def test_a_group_cannot_have_a_least_loss_of_its_own():
    with pytest.raises(FieldError, match="f_star must be the same for all groups, got 1.0"):
        PolyakSGD([{"params": [numbers(0.0)], "f_star": 1.0}])


def test_a_closure_without_a_loss_is_refused():
    optimizer = PolyakSGD([numbers(0.0)])
    with pytest.raises(FieldError, match="closure must give the loss"):
        optimizer.step(lambda: None)
