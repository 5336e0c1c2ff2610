"""vSGD against transcriptions of its algorithms."""

import numpy as np
import pytest
import torch
from torch import nn

from stepsize import FieldError
from stepsize.optim import VSGD

START = [np.array([1.0, -2.0, 0.5]), np.array([[3.0, 0.0], [0.2, -1.0]])]
FIELDS = {"slow_start": 4, "slow_constant": 5.0, "least_tau": 1.5}


class Noise:
    """A quadratic with another linear term in every step, in numpy and in torch alike."""

    def __init__(self, seed=0):
        draw = np.random.default_rng(seed)
        self.curvatures = [draw.uniform(0.5, 4.0, x.shape) for x in START]
        self.slopes = [[draw.normal(size=x.shape) for x in START] for _ in range(40)]
        self.seen = [
            [h * draw.uniform(-1.2, 1.5, h.shape) for h in self.curvatures] for _ in range(40)
        ]
        self.params = [torch.tensor(x, requires_grad=True) for x in START]

    def gradients(self, xs, step):
        every = zip(self.curvatures, xs, self.slopes[step], strict=True)
        return [h * x + s for h, x, s in every]

    def loss(self, step):
        every = zip(self.curvatures, self.params, self.slopes[step], strict=True)
        return sum((0.5 * torch.tensor(h) * p * p + torch.tensor(s) * p).sum() for h, p, s in every)

    def closure(self, optimizer, step):
        def evaluate():
            optimizer.zero_grad()
            loss = self.loss(step)
            loss.backward()
            return loss

        return evaluate

    def observe(self, optimizer, step):
        optimizer.observe([torch.tensor(d) for d in self.seen[step]])


def averages(slow, constant, step):
    """Give the weight of a gradient, and what the averages of squares are multiplied by first."""
    return (1 / (step + 1), 1.0) if step < slow else (None, constant if step == slow else 1.0)


def element(problem, steps, *, slow_start, slow_constant, least_tau, decay=0.0):
    """Algorithm 1 of the paper, with a floor for tau."""
    xs = [x.copy() for x in START]
    g, v, h = ([np.zeros_like(x) for x in xs] for _ in range(3))
    tau = [np.full_like(x, max(slow_start, least_tau)) for x in xs]
    for step in range(steps):
        weight, factor = averages(slow_start, slow_constant, step)
        gradients = problem.gradients(xs, step)
        for i, x in enumerate(xs):
            grad, seen = gradients[i] + decay * x, abs(problem.seen[step][i]) + decay
            w = 1 / tau[i] if weight is None else weight
            v[i] = (1 - w) * factor * v[i] + w * grad**2
            g[i] = (1 - w) * g[i] + w * grad
            h[i] = (1 - w) * h[i] + w * seen
            if weight is None:
                tau[i] = np.maximum((1 - g[i] ** 2 / v[i]) * tau[i] + 1, least_tau)
                xs[i] = x - g[i] ** 2 / (h[i] * v[i]) * grad
        yield xs


def block(problem, steps, *, slow_start, slow_constant, least_tau, together):
    """The forms with one rate for a block, or for everything."""
    xs = [x.copy() for x in START]
    g, h = ([np.zeros_like(x) for x in xs] for _ in range(2))
    lengths, taus = [0.0, 0.0], [max(slow_start, least_tau)] * 2
    for step in range(steps):
        weight, factor = averages(slow_start, slow_constant, step)
        gradients = problem.gradients(xs, step)
        for i in range(2):
            w = 1 / taus[i] if weight is None else weight
            lengths[i] = (1 - w) * factor * lengths[i] + w * (gradients[i] ** 2).sum()
            g[i] = (1 - w) * g[i] + w * gradients[i]
            h[i] = (1 - w) * h[i] + w * abs(problem.seen[step][i])
        if weight is None:
            means, peaks = [(a**2).sum() for a in g], [a.max() for a in h]
            ratios = [a / b for a, b in zip(means, lengths, strict=True)]
            if together:
                ratios, peaks = [sum(means) / sum(lengths)] * 2, [max(peaks)] * 2
            taus = [max((1 - r) * t + 1, least_tau) for r, t in zip(ratios, taus, strict=True)]
            xs = [xs[i] - ratios[i] / peaks[i] * gradients[i] for i in range(2)]
        yield xs


def spread(mean, square):
    """Give the standard deviation, and no less than rounding leaves of it."""
    return np.sqrt(np.maximum(square - mean**2, 16 * np.finfo(float).eps * square))


def finite(problem, steps, *, slow_start, slow_constant, least_tau, level=2.0):
    """The rule of the follow-up: differences along the mean gradient, and a test for outliers."""
    xs = [x.copy() for x in START]
    g, v, h, vh = ([np.zeros_like(x) for x in xs] for _ in range(4))
    tau = [np.full_like(x, max(slow_start, least_tau)) for x in xs]
    for step in range(steps):
        weight, factor = averages(slow_start, slow_constant, step)
        v = [factor * a for a in v]
        gradients = problem.gradients(xs, step)
        moved = [x + np.where(a == 0, d, a) for x, a, d in zip(xs, g, gradients, strict=True)]
        seconds = problem.gradients(moved, step)
        outliers = 0
        for i, x in enumerate(xs):
            grad, seen = gradients[i], abs((seconds[i] - gradients[i]) / (moved[i] - x))
            if weight is None:
                out = abs(grad - g[i]) > level * spread(g[i], v[i])
                out |= abs(seen - h[i]) > level * spread(h[i], vh[i])
                tau[i] = tau[i] + out
                outliers += out.sum()
            w = 1 / tau[i] if weight is None else weight
            g[i], v[i] = (1 - w) * g[i] + w * grad, (1 - w) * v[i] + w * grad**2
            h[i], vh[i] = (1 - w) * h[i] + w * seen, (1 - w) * vh[i] + w * seen**2
            if weight is None:
                tau[i] = np.maximum((1 - g[i] ** 2 / v[i]) * tau[i] + 1, least_tau)
                xs[i] = x - g[i] ** 2 / v[i] * h[i] / vh[i] * grad
        yield xs, outliers


def same(params, xs):
    for p, x in zip(params, xs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_element_form_is_algorithm_1(foreach, decay):
    problem = Noise()
    given = {**FIELDS, "foreach": foreach, "weight_decay": decay}
    optimizer = VSGD(problem.params, curvature="observed", **given)
    for step, xs in enumerate(element(problem, 24, **FIELDS, decay=decay)):
        problem.observe(optimizer, step)
        problem.closure(optimizer, step)()
        optimizer.step()
        same(problem.params, xs)
        assert (step < 4) == all(
            torch.equal(p, torch.tensor(x)) for p, x in zip(problem.params, START, strict=True)
        )


@pytest.mark.parametrize("variant", ["b", "g"])
def test_the_forms_with_one_rate_are_the_transcription(variant):
    problem = Noise()
    optimizer = VSGD(problem.params, curvature="observed", variant=variant, **FIELDS)
    for step, xs in enumerate(block(problem, 24, **FIELDS, together=variant == "g")):
        problem.observe(optimizer, step)
        problem.closure(optimizer, step)()
        optimizer.step()
        same(problem.params, xs)
    one, other = map(optimizer.sizes_of, problem.params)
    assert one.shape == ()
    assert (one == other) == (variant == "g")


def test_the_whole_may_lie_in_two_groups():
    problems = Noise(), Noise()
    fields = {"curvature": "observed", "variant": "g", **FIELDS}
    apart = [{"params": [p]} for p in problems[1].params]
    for problem, params in zip(problems, (problems[0].params, apart), strict=True):
        optimizer = VSGD(params, **fields)
        for step in range(9):
            problem.observe(optimizer, step)
            problem.closure(optimizer, step)()
            optimizer.step()
    for p, q in zip(problems[0].params, problems[1].params, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-13, atol=0)


@pytest.mark.parametrize("foreach", [True, False])
def test_finite_differences_are_the_transcription(foreach):
    problem, outliers = Noise(), 0
    problem.slopes[9][0] *= 30
    optimizer = VSGD(problem.params, **FIELDS, foreach=foreach)
    for step, (xs, found) in enumerate(finite(problem, 24, **FIELDS)):
        optimizer.step(problem.closure(optimizer, step))
        same(problem.params, xs)
        outliers += found
    assert outliers > 3


@pytest.mark.parametrize(
    ("scale", "sizes", "place"),
    [
        (False, [0.181818181818182, 0.0363636363636364], 0.818181818181818),
        (True, [0.0330578512396694, 0.00661157024793388], 0.966942148760331),
    ],
)
def test_one_step_by_hand(scale, sizes, place):
    """As published; and as in the ports of its preprint, which scale the curvature, too."""
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    h = torch.tensor([1.0, 5.0], dtype=torch.float64)
    fields = {"slow_start": 2, "slow_constant": 10, "least_tau": 1, "scale_curvature": scale}
    optimizer = VSGD([x], curvature="observed", **fields)
    for _ in range(3):
        optimizer.observe([h])
        optimizer.zero_grad()
        (0.5 * h * x * x).sum().backward()
        optimizer.step()
    assert optimizer.sizes_of(x).tolist() == pytest.approx(sizes, rel=1e-13)
    assert optimizer.state[x]["tau"].tolist() == pytest.approx([29 / 11] * 2, rel=1e-13)
    assert x.tolist() == pytest.approx([place] * 2, rel=1e-13)


# Settings ---------------------------------------------------------------------------------------


def quadratic(x, step, noise=1.0):
    torch.manual_seed(step)
    return (0.5 * x * x + noise * torch.randn(x.shape, dtype=x.dtype) * x).sum()


def stepped(optimizer, x, steps, loss=quadratic):
    for step in steps:

        def closure(step=step):
            optimizer.zero_grad()
            value = loss(x, step)
            value.backward()
            return value

        optimizer.step(closure)
    return optimizer


def vector(size=4, value=5.0):
    return torch.full((size,), value, dtype=torch.float64, requires_grad=True)


def test_what_follows_from_the_number_of_parameters():
    optimizer = VSGD([vector(250), vector(150)])
    group = optimizer.param_groups[0]
    found = {n: group[n] for n in ("slow_start", "slow_constant", "initial_tau", "outliers")}
    assert found == {"slow_start": 20, "slow_constant": 40, "initial_tau": 20, "outliers": 2}
    optimizer.add_param_group({"params": [vector()]})
    assert optimizer.param_groups[1]["slow_constant"] == 40
    optimizer.add_param_group({"params": [vector(96)], "slow_constant": None})
    assert optimizer.param_groups[2]["slow_constant"] == 50
    assert VSGD([vector()], curvature="observed").param_groups[0]["outliers"] == 0


def test_the_slow_constant_makes_the_first_steps_small():
    sizes = []
    for constant in (2, 50):
        x = vector()
        fields = {"slow_start": 10, "slow_constant": constant}
        sizes.append(stepped(VSGD([x], **fields), x, range(11)).sizes_of(x))
    assert (sizes[1] < 0.1 * sizes[0]).all()


def test_the_first_length_of_the_memory():
    x = vector()
    optimizer = stepped(VSGD([x], slow_start=3, initial_tau=500, outliers=0), x, range(4))
    assert (optimizer.state[x]["tau"] > 200).all()


def test_sizes_are_none_then_0_then_found():
    x = vector()
    optimizer = VSGD([x], slow_start=3)
    assert optimizer.sizes_of(x) is None
    stepped(optimizer, x, range(3))
    assert optimizer.sizes_of(x) == 0
    before = x.detach().clone()
    stepped(optimizer, x, range(3, 4))
    torch.testing.assert_close(before - x, optimizer.sizes_of(x) * x.grad)


def test_no_slow_start():
    x = vector()
    optimizer = stepped(VSGD([x], slow_start=0, initial_tau=20), x, range(1))
    assert optimizer.sizes_of(x).tolist() == pytest.approx(
        [1 / 21] * 4
    )  # of a curvature of 1; an outlier


# Where the paper's rule fails -------------------------------------------------------------------


def rare(least_tau):
    """An element whose gradient is always the same, and then a sample that says otherwise."""
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    fields = {"slow_start": 20, "slow_constant": 1, "least_tau": least_tau}
    optimizer = VSGD([x], lr=0.0, curvature="observed", **fields)
    for _ in range(200):
        optimizer.observe([torch.full_like(x, 1e-4)])
        x.grad = torch.full_like(x, 1e-4)
        optimizer.step()
    tau = optimizer.state[x]["tau"].item()
    optimizer.observe([torch.full_like(x, 1e-3)])
    x.grad = torch.ones_like(x)
    optimizer.step()
    return tau, optimizer.sizes_of(x).item()


def test_a_memory_of_10_survives_gradients_without_noise():
    """As of a weight that only decays: one sample alone decides, or has a tenth of the say."""
    for least in (1.0, 10.0):
        tau, size = rare(least)
        assert tau == pytest.approx(least)
        w = 1 / least
        g, v = (1 - w) * 1e-4 + w, (1 - w) * 1e-8 + w
        assert size == pytest.approx(g * g / v / ((1 - w) * 1e-4 + w * 1e-3), rel=1e-9)
    assert rare(10.0)[1] < 0.6 * rare(1.0)[1]


def test_elements_without_gradient_and_curvature_stay():
    x = torch.ones(3, requires_grad=True)
    optimizer = VSGD([x], slow_start=2)
    stepped(optimizer, x, range(30), lambda x, step: quadratic(x[:2], step))
    assert x[2] == 1
    assert all(optimizer.state[x][name].isfinite().all() for name in ("g", "v", "h", "vh", "tau"))
    stepped(optimizer, x, range(30, 60), quadratic)
    assert 0 < abs(x[2] - 1) < 10


def test_rates_grow_again_after_a_change():
    x = vector(200, 0.0)
    optimizer = stepped(VSGD([x], slow_start=20, slow_constant=2), x, range(300))
    settled = optimizer.sizes_of(x).mean()

    def moved(x, step):
        return quadratic(x - 20, step)

    stepped(optimizer, x, range(300, 340), moved)
    assert optimizer.sizes_of(x).mean() > 3 * settled
    stepped(optimizer, x, range(340, 420), moved)
    assert (x - 20).abs().median() < 1
    stepped(optimizer, x, range(420, 1000), moved)
    assert optimizer.sizes_of(x).mean() < 3 * settled


# Curvatures that are given ----------------------------------------------------------------------


def test_a_step_without_a_new_observation_goes_by_the_average():
    x = vector()
    optimizer = VSGD([x], curvature="observed", slow_start=1)
    optimizer.observe([torch.full_like(x, -3.0)])
    for _ in range(4):
        x.grad = torch.ones_like(x)
        optimizer.step()
        assert (optimizer.state[x]["h"] == 3).all()
    optimizer.observe([None])
    assert (optimizer.state[x]["h"] == 3).all()


def test_weight_decay_adds_its_curvature_unless_it_is_decoupled():
    for decoupled, h in ((False, 3.25), (True, 3.0)):
        x = vector()
        fields = {"weight_decay": 0.25, "decoupled_weight_decay": decoupled}
        optimizer = VSGD([x], curvature="observed", **fields)
        optimizer.observe([torch.full_like(x, 3.0)])
        assert (optimizer.state[x]["h"] == h).all()


def test_the_first_step_needs_an_observation():
    x = vector()
    optimizer = VSGD([x], curvature="observed")
    x.grad = torch.ones_like(x)
    with pytest.raises(FieldError, match="has observed nothing yet"):
        optimizer.step()


@pytest.mark.parametrize(
    ("fields", "given", "words"),
    [
        ({}, [], "diagonals must be one tensor, or None, for each of 1 parameters"),
        ({}, [torch.zeros(3)], r"diagonals\[0\] must be of shape \(4,\)"),
        ({"curvature": "fd"}, [torch.zeros(4)], "curvature must be 'observed' for observe"),
    ],
)
def test_wrong_observations(fields, given, words):
    optimizer = VSGD([vector()], **{"curvature": "observed", **fields})
    with pytest.raises(FieldError, match=words):
        optimizer.observe(given)


# The second evaluation --------------------------------------------------------------------------


class Net(nn.Module):
    """A network with chance and with a memory of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.last = nn.Linear(8, 1)
        self.inputs = torch.randn(16, 6)

    def forward(self):
        hidden = self.layers(self.inputs)
        self.dropped = hidden == 0
        return self.last(hidden).square().mean()


def test_the_second_evaluation_leaves_no_trace():
    net, alone = Net(), Net()
    optimizer = VSGD(net.parameters(), slow_start=100)
    before = [p.detach().clone() for p in net.parameters()]
    masks = []

    def closure(model=net):
        model.zero_grad()
        loss = model()
        loss.backward()
        masks.append(model.dropped)
        return loss

    for _ in range(3):
        torch.manual_seed(1)
        loss = optimizer.step(closure)
        after = torch.get_rng_state()
        torch.manual_seed(1)
        assert closure(alone) == loss
        assert torch.equal(torch.get_rng_state(), after)
        first, second, other = masks[-3:]
        assert torch.equal(first, other)
        assert (first != second).float().mean() < 0.3  # the same mask; ReLU may have turned
        for p, kept, q in zip(net.parameters(), before, alone.parameters(), strict=True):
            assert torch.equal(p, kept)
            assert torch.equal(p.grad, q.grad)
        for one, two in zip(net.buffers(), alone.buffers(), strict=True):
            assert torch.equal(one, two)
    assert len(masks) == 9


def test_an_error_in_the_second_evaluation_moves_nothing():
    x = vector()
    optimizer = stepped(VSGD([x], slow_start=1), x, range(5))
    before, calls = x.detach().clone(), 0

    def closure():
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        optimizer.zero_grad()
        quadratic(x, 5).backward()

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert torch.equal(x, before)
    assert x.grad is not None


def test_a_step_that_is_lost_beside_a_large_parameter_shows_no_curvature():
    x = torch.tensor([1e8, 1.0], requires_grad=True)  # float32: 1e8 + 1 is 1e8

    def loss(x, step):
        del step
        return ((x - torch.tensor([1e8, 0.0])) ** 2 + 0.5 * x).sum()

    optimizer = stepped(VSGD([x], slow_start=5), x, range(4), loss)
    h = optimizer.state[x]["h"]
    assert h[0] == 0
    assert h[1] == pytest.approx(2.0, rel=1e-5)


def test_a_kink_shows_as_an_outlier():
    """Where a loss is piecewise linear, curvature is rare and large: the memory grows."""

    def loss(x, step):
        torch.manual_seed(step)
        return (x - torch.randn(x.shape)).abs().sum()

    taus = []
    for level in (0.0, 2.0):
        x = torch.full((500,), 3.0, requires_grad=True)
        optimizer = stepped(VSGD([x], slow_start=20, outliers=level), x, range(300), loss)
        taus.append(optimizer.state[x]["tau"].median())
        assert x.isfinite().all()
    assert taus[1] > taus[0]


@pytest.mark.slow
@pytest.mark.parametrize("curvature", ["fd", "observed"])
def test_the_compiled_form_is_the_plain_one(curvature):
    found = []
    for compiled in (False, True):
        problem = Noise()
        optimizer = VSGD(problem.params, curvature=curvature, compiled=compiled, **FIELDS)
        for step in range(12):
            if curvature == "observed":
                problem.observe(optimizer, step)
            optimizer.step(problem.closure(optimizer, step))
        found.append(problem.params)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"variant": "x"}, "variant must be one of 'l', 'b', 'g'"),
        ({"curvature": "exact"}, "curvature must be one of 'fd', 'observed'"),
        ({"slow_start": 1.5}, "slow_start must be a whole number >= 0"),
        ({"slow_constant": 0.5}, "slow_constant must be a finite number >= 1"),
        ({"initial_tau": 0}, "initial_tau must be a finite number >= 1"),
        ({"least_tau": 0}, "least_tau must be a finite number >= 1"),
        ({"least_curvature": 0}, "least_curvature must be a finite number > 0"),
        ({"outliers": -1}, "outliers must be a finite number >= 0"),
        ({"scale_curvature": 1}, "scale_curvature must be True or False"),
        ({"variant": "b"}, "curvature must be 'observed' with variant 'b' or 'g'"),
        ({"variant": "g", "curvature": "observed", "compiled": True}, "compiled must be False"),
        ({"outliers": 2, "curvature": "observed"}, "outliers must be 0"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(FieldError, match=words):
        VSGD([vector()], **fields)


def test_a_group_with_another_form_is_refused():
    optimizer = VSGD([vector()])
    with pytest.raises(FieldError, match="curvature must be 'fd' as in all groups"):
        optimizer.add_param_group({"params": [vector()], "curvature": "observed"})
    assert len(optimizer.param_groups) == 1
    stepped(optimizer, optimizer.everything()[0], range(3))
