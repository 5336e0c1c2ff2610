"""AdGD against transcriptions of its rules, and what the theory says of it."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from stepsize import FieldError
from stepsize.optim import AdGD

CURVATURES = np.array([1.0, 10.0, 3.0, 0.2])
START = np.array([1.0, 1.0, -2.0, 0.5])


def slope(x):
    """Of a convex function that is no parabola."""
    return CURVATURES * np.tanh(x) + 0.1 * x


def loss_of(x):
    curvatures = torch.tensor(CURVATURES)
    return (curvatures * x.cosh().log() + 0.05 * x * x).sum()


def transcribed(gradient, x, steps, *, rule, first, lipschitz=None, lr=1.0):
    """The boxes, in numpy: the step sizes and the places."""
    size, theta = first, 1 / 3 if rule.startswith("adgd2") else math.inf
    alpha = math.sqrt(0.5) if rule == "adgd2-1" else 0.5
    g = gradient(x)
    before, x = (x, g), x - lr * size * g
    yield size, x
    for k in range(1, steps):
        g = gradient(x)
        moved, change = np.linalg.norm(x - before[0]), np.linalg.norm(g - before[1])
        growth, limit = np.sqrt(1 + theta), alpha * moved / change
        if rule == "known-lipschitz":
            limit = 1 / (size * lipschitz**2) + moved / (2 * change)
        if rule == "adgd2-2":
            growth = np.sqrt(2 / 3 + theta)
            below = 2 * (size * change / moved) ** 2 - 1
            limit = size / np.sqrt(below) if below > 0 else np.inf
        if rule == "tighter" and k > 11:
            below = 3 * g @ g - 4 * g @ before[1]
            limit = moved / np.sqrt(below) if below > 0 else np.inf
        new = min(growth * size, limit)
        if rule == "tighter" and k == 11:
            new = size
        theta, size = new / size, new
        before, x = (x, g), x - lr * size * g
        yield size, x


def accelerated(gradient, x, steps, first):
    """AdgdAccel of the authors, from a first step size that is given."""
    size, mu, theta, theta_mu = first, 1 / first, math.inf, math.inf
    g, y = gradient(x), x
    before, x = (x, g), x - size * g
    yield size, x
    for _ in range(1, steps):
        g = gradient(x)
        curvature = np.linalg.norm(g - before[1]) / np.linalg.norm(x - before[0])
        new = min(np.sqrt(1 + 0.5 * theta) * size, 0.5 / curvature)
        theta, size = new / size, new
        new = min(np.sqrt(1 + 0.5 * theta_mu) * mu, 0.5 * curvature)
        theta_mu, mu = new / mu, new
        momentum = (np.sqrt(1 / size) - np.sqrt(mu)) / (np.sqrt(1 / size) + np.sqrt(mu))
        last, y = y, x - size * g
        before, x = (x, g), y + momentum * (y - last)
        yield size, x


def walk(optimizer, params, loss, steps):
    """Take steps; give step sizes and places, as one vector."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.cat(params)).backward()
        optimizer.step()
        yield optimizer.sizes_of(params[0]), torch.cat([p.detach() for p in params]).numpy()


def split(start, at):
    whole = torch.tensor(start)
    return [whole[:at].clone().requires_grad_(), whole[at:].clone().requires_grad_()]


def compare(found, told):
    for (size, place), (right, where) in zip(found, told, strict=True):
        assert size == pytest.approx(right, rel=1e-12)
        np.testing.assert_allclose(place, where, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", ["adgd", "known-lipschitz", "tighter", "adgd2-1", "adgd2-2"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("foreach", "lr"), [(True, 1.0), (False, 0.7)])
def test_it_is_the_transcription(rule, exact, foreach, lr):
    params = split(START, 1)
    known = {"lipschitz": 10.1} if rule == "known-lipschitz" else {}
    options = {"exact_displacement": exact, "foreach": foreach, "initial_step": 0.01}
    optimizer = AdGD(params, lr, rule=rule, **known, **options)
    told = transcribed(slope, START, 20, rule=rule, first=0.01, lr=lr, **known)
    compare(walk(optimizer, params, loss_of, 20), told)
    assert optimizer.param_groups[0]["exact_displacement"] is exact


def test_the_accelerated_form_is_the_transcription():
    params = split(START, 2)
    optimizer = AdGD(params, accelerated=True, initial_step=1e-3)
    compare(walk(optimizer, params, loss_of, 20), accelerated(slope, START, 20, 1e-3))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_weight_decay_is_part_of_the_objective(sign):
    params = split(START, 1)
    settings = {"initial_step": 0.01, "weight_decay": 0.3, "maximize": sign < 0}
    optimizer = AdGD(params, **settings)
    told = transcribed(lambda x: slope(x) + 0.3 * x, START, 20, rule="adgd", first=0.01)
    compare(walk(optimizer, params, lambda x: sign * loss_of(x), 20), told)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rule", ["adgd", "tighter"])
def test_decoupled_weight_decay_is_part_of_the_way_alone(exact, rule):
    params = split(START, 1)
    settings = {"decoupled_weight_decay": True, "exact_displacement": exact, "rule": rule}
    optimizer = AdGD(params, initial_step=0.01, weight_decay=0.3, **settings)
    x, before, g, size, theta = START, START, slope(START), 0.01, math.inf
    found = walk(optimizer, params, loss_of, 12 if rule == "adgd" else 8)
    for k, (chosen, place) in enumerate(found):
        g_new = slope(x)
        if k:
            new = min(
                math.sqrt(1 + theta) * size,
                0.5 * np.linalg.norm(x - before) / np.linalg.norm(g_new - g),
            )
            theta, size = new / size, new
        before, g = x, g_new
        x = x - size * (g + 0.3 * x)
        assert chosen == pytest.approx(size, rel=1e-12)
        np.testing.assert_allclose(place, x, rtol=1e-12)


VECTORS = {
    "adgd": (0.001, 0.0502468658, 0.050251363, 0.0509097501, 0.0532377687, 0.061194923,
             0.0867430332, 0.1348704217, 0.2155745437),
    "adgd2-1": (0.001, 0.0011547005, 0.0016949732, 0.0026627213, 0.0042694574),
    "adgd2-2": (0.001, 0.001, 0.0012909944, 0.0018063135, 0.0025962143),
}  # fmt: skip


@pytest.mark.parametrize("rule", VECTORS)
def test_known_step_sizes_of_a_parabola(rule):
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w], rule=rule, initial_step=1e-3)
    parabola = lambda x: 0.5 * (x[0] ** 2 + 10 * x[1] ** 2)
    found = list(walk(optimizer, [w], parabola, len(VECTORS[rule])))
    assert [size for size, _ in found] == pytest.approx(VECTORS[rule], abs=6e-11)
    if rule == "adgd":
        assert found[-1][1] == pytest.approx([0.47112332, 0.00116622], abs=5e-9)


def searched(curvature, start):
    """The loops of the authors' linesearch_initial, stopped at the last that was tried."""
    size, larger = start, True
    for _ in range(100):
        if size * curvature > 2:
            larger, size = False, size / 2
        elif larger and 10 * size <= 10:
            size *= 10
        else:
            return size
    return size


@pytest.mark.parametrize("curvature", [1e-3, 0.3, 7.0, 2e3, 1e9])
@pytest.mark.parametrize("start", [1e-4, 0.3])
def test_the_search_finds_the_scale_of_the_curvature(curvature, start):
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w], rule="adgd2-2", search_initial=True, initial_step=start)
    calls = []

    def closure():
        calls.append(w.detach().clone())
        optimizer.zero_grad()
        loss = 0.5 * curvature * w.square().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    size = searched(curvature, start)
    assert optimizer.sizes_of(w) == pytest.approx(size)
    assert loss.item() == 1.5 * curvature
    torch.testing.assert_close(w.detach(), torch.full((3,), 1 - size * curvature).double())
    assert torch.equal(w.grad, curvature * torch.ones(3).double())  # that of the start
    tried = len(calls)
    optimizer.step(closure)
    assert len(calls) == tried + 1  # it searches once


def test_the_search_ends_where_the_gradient_is_zero_or_overflows():
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w], rule="adgd2-1", search_initial=True)

    def closure(steep=1.0, of=None):
        loss = steep * (w if of is None else of).square().square().sum()
        optimizer.zero_grad()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.sizes_of(w) == 1e-4
    w = torch.full((2,), 1e30, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w], rule="adgd2-1", search_initial=True, initial_step=1.0)
    optimizer.step(closure)
    assert 0 < optimizer.sizes_of(w) < 1e-20


# Edges -------------------------------------------------------------------------------------------


def given(optimizer, w, *gradients):
    for gradient in gradients:
        w.grad = torch.tensor(gradient, dtype=w.dtype)
        optimizer.step()
    return optimizer.param_groups[0]["step_size"]


def test_a_gradient_that_stays_lets_the_step_size_grow():
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w], initial_step=0.01)
    assert given(optimizer, w, [1.0, 0.0], [1.0, 0.0]) == 0.1  # nothing to go by: tenfold
    assert math.isinf(optimizer.param_groups[0]["ratio"])
    seen = given(optimizer, w, [2.0, 0.0])  # now there is a curvature
    assert seen == pytest.approx(0.5 * 0.1)
    assert given(optimizer, w, [2.0, 0.0]) == pytest.approx(seen * math.sqrt(1 + seen / 0.1))


def test_a_slope_without_end_does_not_overflow():
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w])
    assert 1e300 < given(optimizer, w, *[[1e-100]] * 400) < math.inf


@pytest.mark.parametrize("exact", [False, True])
def test_a_rate_of_zero_holds_everything(exact):
    params = split(START, 1)
    optimizer = AdGD(params, initial_step=0.01, exact_displacement=exact)
    found = []
    for k in range(24):
        optimizer.param_groups[0]["lr"] = 0.0 if k < 2 or k in (7, 8, 9) else 1.0
        found += walk(optimizer, params, loss_of, 1)
    moving = [found[k] for k in range(24) if not (k < 2 or k in (7, 8, 9))]
    right = [*transcribed(slope, START, 19, rule="adgd", first=0.01)]
    compare(moving[:5], right[:5])
    assert found[7][0] == pytest.approx(right[5][0])  # measured, though no step was taken
    assert [size for size, _ in found[8:10]] == [found[7][0]] * 2
    assert all(math.isfinite(size) and size > 0.01 for size, _ in moving[1:])
    assert loss_of(torch.tensor(moving[-1][1])) < loss_of(torch.tensor(moving[4][1]))


def test_a_first_step_below_the_resolution_grows_until_it_moves():
    w = torch.full((3,), 1000.0, requires_grad=True)  # float32: the next number is 6e-5 away
    optimizer = AdGD([w], initial_step=1e-9, exact_displacement=True)
    for _ in range(30):
        optimizer.zero_grad()
        (0.5e-3 * w.square()).sum().backward()
        optimizer.step()
    assert w.abs().max() < 1.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 3])
def test_gradients_that_are_not_finite_are_refused_and_change_nothing(wrong, at):
    params = split(START, 1)
    optimizer = AdGD(params, initial_step=0.01)
    told = [*transcribed(slope, START, 10, rule="adgd", first=0.01)]
    compare(walk(optimizer, params, loss_of, at), told[:at])
    for p in params:
        p.grad = torch.full_like(p, wrong)
    with pytest.raises(FieldError, match="norm of the gradients must be finite, got (nan|inf)"):
        optimizer.step()
    compare(walk(optimizer, params, loss_of, 10 - at), told[at:])


def test_the_limit_shortens_the_step_and_not_what_is_measured():
    params = split(START, 1)
    optimizer = AdGD(params, initial_step=0.01, max_norm=1.5)
    x, before, g, size, theta = START, None, None, 0.01, math.inf
    shortened = 0
    for chosen, place in walk(optimizer, params, loss_of, 20):
        now = slope(x)
        if before is not None:
            seen = 0.5 * np.linalg.norm(x - before) / np.linalg.norm(now - g)
            new = min(math.sqrt(1 + theta) * size, seen)
            theta, size = new / size, new
        before, g = x, now
        share = min(1.0, 1.5 / np.linalg.norm(g))
        shortened += share < 1
        x = x - size * share * g
        assert chosen == pytest.approx(size, rel=1e-12)
        np.testing.assert_allclose(place, x, rtol=1e-12)
    assert 3 < shortened < 20


def test_groups_by_themselves_are_optimizers_by_themselves():
    whole, first, second = (split(START, 1) for _ in range(3))
    together = AdGD([{"params": [p]} for p in whole], norms="group", initial_step=0.01)
    alone = [AdGD([p], initial_step=0.01) for p in (first[0], second[1])]
    parts = (CURVATURES[:1], first[0], alone[0]), (CURVATURES[1:], second[1], alone[1])
    for _ in walk(together, whole, loss_of, 15):
        for curvatures, p, optimizer in parts:
            optimizer.zero_grad()
            (torch.tensor(curvatures) * p.cosh().log() + 0.05 * p * p).sum().backward()
            optimizer.step()
    sizes = [together.sizes_of(p) for p in whole]
    assert sizes == [optimizer.sizes_of(p) for _, p, optimizer in parts]
    assert sizes[0] != pytest.approx(sizes[1], rel=1e-3)


def test_rates_of_groups_are_part_of_the_way():
    params = split(START, 1)
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": torch.tensor(0.25)}]
    optimizer = AdGD(groups, initial_step=0.01)
    exact = split(START, 1)
    groups = [{"params": [exact[0]]}, {"params": [exact[1]], "lr": 0.25}]
    other = AdGD(groups, initial_step=0.01, exact_displacement=True)
    both = walk(optimizer, params, loss_of, 15), walk(other, exact, loss_of, 15)
    compare(*both)


# What the theory says ----------------------------------------------------------------------------


def logistic():
    """Standardised data, the curvature of the loss with its penalty of L / (10 n)."""
    x, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0))
    y = torch.tensor(y, dtype=torch.float64)
    greatest = 0.25 * torch.linalg.matrix_norm(x, 2) ** 2 / len(x)
    penalty = greatest / (10 * len(x))

    def loss(w):
        z = x @ w
        return (torch.nn.functional.softplus(z) - y * z).mean() + penalty / 2 * (w @ w)

    def hessian(w):
        p = (x @ w).sigmoid()
        return x.T @ ((p * (1 - p)).unsqueeze(1) * x) / len(x) + penalty * torch.eye(30)

    return loss, hessian, (greatest + penalty).item()


def least(loss, hessian):
    """Newton's method."""
    w = torch.zeros(30, dtype=torch.float64)
    for _ in range(30):
        w = w - torch.linalg.solve(hessian(w), torch.func.grad(loss)(w))
    return w


@pytest.fixture(scope="module")
def course():
    """2,000 steps: places, losses, step sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other longer than these small products take
    loss, hessian, steepest = logistic()
    best = least(loss, hessian)
    w = torch.zeros(30, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w], initial_step=1e-3)
    places, losses, sizes = [w.detach().clone()], [], []
    for _ in range(2000):
        optimizer.zero_grad()
        value = loss(w)
        value.backward()
        optimizer.step()
        places.append(w.detach().clone())
        losses.append(value.item())
        sizes.append(optimizer.sizes_of(w))
    torch.set_num_threads(threads)
    return torch.stack(places) - best, np.array(losses) - loss(best).item(), sizes, steepest


def test_no_step_is_shorter_than_half_the_inverse_of_the_curvature(course):
    _, _, sizes, steepest = course
    assert min(sizes[1:]) >= 1 / (2 * steepest) * (1 - 1e-9)
    assert np.median(sizes) > 10 / steepest


def test_the_energy_never_rises(course):
    away, gaps, sizes, _ = course
    distance = away.square().sum(1).numpy()
    way = (away[1:] - away[:-1]).square().sum(1).numpy()
    for k in range(2, 2000):
        theta = sizes[k] / sizes[k - 1]
        after = distance[k + 1] + way[k] / 2 + 2 * sizes[k] * (1 + theta) * gaps[k]
        before = distance[k] + way[k - 1] / 2 + 2 * sizes[k] * theta * gaps[k - 1]
        assert after <= before * (1 + 1e-9) + 1e-12, k


def test_it_converges_without_descending_at_every_step(course):
    _, gaps, _, _ = course
    assert min(gaps) < 1e-8
    assert (np.diff(gaps) > 1e-12).sum() > 20


# Wrong settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rule": "adgd3"}, "rule must be one of 'adgd', 'known-lipschitz'"),
        ({"norms": "layer"}, "norms must be one of 'global', 'group'"),
        ({"initial_step": 0}, "initial_step must be a finite number > 0"),
        ({"alpha": 0}, "alpha must be a finite number > 0"),
        ({"max_norm": 0}, "max_norm must be"),
        ({"stochastic": 1}, "stochastic must be True or False"),
        ({"stochastic": True, "rule": "adgd2-1"}, "rule must be 'adgd' with stochastic=True"),
        ({"accelerated": True, "rule": "tighter"}, "rule must be 'adgd' with accelerated=True"),
        ({"accelerated": True, "stochastic": True}, "accelerated must be False with stochastic"),
        ({"search_initial": True, "stochastic": True}, "search_initial must be False with stoch"),
        ({"search_initial": True, "accelerated": True}, "search_initial must be False with accel"),
        ({"search_initial": True, "norms": "group"}, "norms must be 'global' with search_initial"),
        ({"eps": 0.1}, "eps must be left out without stochastic=True"),
        ({"amplifier": 0.1}, "amplifier must be left out without stochastic=True"),
        ({"rule": "adgd2-2", "alpha": 0.5}, "alpha must be left out of rule='adgd2-2'"),
        ({"rule": "known-lipschitz"}, "lipschitz must be given with rule='known-lipschitz'"),
        ({"rule": "known-lipschitz", "lipschitz": 0}, "lipschitz must be a finite number > 0"),
        ({"lipschitz": 1.0}, "lipschitz must be left out unless"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(FieldError, match=words):
        AdGD([torch.zeros(1, requires_grad=True)], **fields)


def test_a_group_cannot_follow_a_rule_of_its_own():
    w = torch.zeros(1, requires_grad=True)
    with pytest.raises(FieldError, match="rule must be the same for all groups"):
        AdGD([{"params": [w], "rule": "tighter"}])
