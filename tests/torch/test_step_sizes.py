"""Step sizes against how optimizers really move: (before - after) / direction, in float64."""

import copy
import csv
import io
import json
import math
import pickle

import pytest
import torch
from torch import nn

from stepsize import Cosine, FieldError, SpecError, Warmup, optim
from stepsize.look.spreads import Spread, Spreads
from stepsize.torch import Scheduler, StepSizeHistory, StepSizes, known_rates, rate_of, step_sizes

ALL = [i / 40 for i in range(41)]
RATE = 0.013


def weights(*shapes, seed=0):
    data = torch.Generator().manual_seed(seed)
    shapes = shapes or ((4, 3), (5,))
    return [
        torch.randn(shape, generator=data, dtype=torch.float64).requires_grad_() for shape in shapes
    ]


def differ(params, step):
    """Give gradients that differ in size by orders of magnitude; some elements never have one."""
    data = torch.Generator().manual_seed(100 + step)
    for p in params:
        size = torch.logspace(-3, 1, p.numel(), dtype=p.dtype).view_as(p)
        p.grad = torch.randn(p.shape, generator=data, dtype=p.dtype) * size
        p.grad.view(-1)[::4] = 0.0


def trained(make, steps=9, params=None):
    """Take steps; give the optimizer and how each parameter moved in the last."""
    params = params or weights()
    optimizer = make(params)
    for step in range(steps):
        differ(params, step)
        before = [p.detach().clone() for p in params]
        optimizer.step()
    return optimizer, [(b - p.detach(), p) for b, p in zip(before, params, strict=True)]


def corrected(optimizer, p):
    state, (beta, _) = optimizer.state[p], optimizer.param_groups[0]["betas"]
    return state["exp_avg"] / (1 - beta ** state["step"].item())


def looked_ahead(optimizer, p):
    """NAdam's direction, from its own numbers."""
    group, state = optimizer.param_groups[0], optimizer.state[p]
    beta, decay, t = group["betas"][0], group["momentum_decay"], state["step"].item()
    mu, then = (beta * (1 - 0.5 * 0.96 ** (n * decay)) for n in (t, t + 1))
    product = state["mu_product"].item()
    now = p.grad * (1 - mu) / (1 - product)
    return now + state["exp_avg"] * then / (1 - product * then)


def gradient(optimizer, p):
    del optimizer
    return p.grad


def buffer(optimizer, p):
    return optimizer.state[p]["momentum_buffer"]


def ahead(optimizer, p):
    return p.grad + 0.9 * buffer(optimizer, p)


theirs = torch.optim
CASES = {
    "SGD": (theirs.SGD, {}, gradient),
    "SGD momentum": (theirs.SGD, {"momentum": 0.9, "dampening": 0.3}, buffer),
    "SGD nesterov": (theirs.SGD, {"momentum": 0.9, "nesterov": True}, ahead),
    "SGD foreach": (theirs.SGD, {"foreach": True}, gradient),
    "Adagrad": (theirs.Adagrad, {}, gradient),
    "Adagrad lr_decay": (theirs.Adagrad, {"lr_decay": 0.3}, gradient),
    "Adagrad sum": (theirs.Adagrad, {"initial_accumulator_value": 0.1}, gradient),
    "RMSprop": (theirs.RMSprop, {"alpha": 0.9}, gradient),
    "RMSprop centered": (theirs.RMSprop, {"alpha": 0.9, "centered": True}, gradient),
    "Adam": (theirs.Adam, {}, corrected),
    "Adam eps": (theirs.Adam, {"eps": 0.1, "betas": (0.5, 0.7)}, corrected),
    "Adam amsgrad": (theirs.Adam, {"amsgrad": True, "betas": (0.9, 0.5)}, corrected),
    "Adam fused": (theirs.Adam, {"fused": True}, corrected),
    "AdamW": (theirs.AdamW, {"weight_decay": 0.0}, corrected),
    "AdamW amsgrad": (theirs.AdamW, {"weight_decay": 0.0, "amsgrad": True}, corrected),
    "NAdam": (theirs.NAdam, {}, looked_ahead),
    "RAdam": (theirs.RAdam, {}, corrected),
    "RAdam eps": (theirs.RAdam, {"eps": 0.1, "betas": (0.9, 0.95)}, corrected),
    "Adamax": (theirs.Adamax, {}, corrected),
}


def assert_spread(spread, rates):
    rates = rates.reshape(-1)
    assert spread.count == len(rates)
    wanted = torch.quantile(rates, torch.tensor(list(spread.quantiles), dtype=rates.dtype))
    assert list(spread.quantiles.values()) == pytest.approx(wanted.tolist(), rel=1e-10)


@pytest.mark.parametrize("steps", [1, 9, 40])
@pytest.mark.parametrize("name", CASES)
def test_the_last_step_moved_every_element_so(name, steps):
    kind, fields, direction = CASES[name]
    optimizer, moves = trained(lambda ps: kind(ps, lr=RATE, **fields), steps)
    found = step_sizes(optimizer, per="parameter", quantiles=ALL)
    for i, (moved, p) in enumerate(moves):
        way = direction(optimizer, p)
        spread, has = found[f"group 0.{i}"], way != 0
        assert spread.elements == p.numel()
        rates = moved[has] / way[has]
        if spread.count == p.numel():  # what has had no gradient is told, too
            rates = torch.cat([rates, _still(kind, p, ~has)])
        assert_spread(spread, rates)


def _still(kind, p, still):
    """SGD's is lr whatever the gradient; Adagrad's sum may begin above 0."""
    alone = RATE if kind is theirs.SGD else RATE / (math.sqrt(0.1) + 1e-10)
    return torch.full((int(still.sum()),), alone, dtype=p.dtype)


@pytest.mark.parametrize("name", CASES)
def test_weight_decay_and_climbing_change_no_formula(name):
    kind, fields, _ = CASES[name]
    plain, _ = trained(lambda ps: kind(ps, lr=RATE, **fields))
    climbing, _ = trained(lambda ps: kind(ps, lr=RATE, maximize=True, **fields))
    assert dict(step_sizes(plain)) == dict(step_sizes(climbing))


def test_decoupled_weight_decay_comes_on_top():
    optimizer, moves = trained(lambda ps: theirs.AdamW(ps, lr=RATE, weight_decay=0.2))
    moved, p = moves[1]
    has = p.grad != 0
    before = p.detach() + moved
    rates = (moved - RATE * 0.2 * before)[has] / corrected(optimizer, p)[has]
    assert_spread(step_sizes(optimizer, per="parameter", quantiles=ALL)["group 0.1"], rates)


def test_with_momentum_rmsprop_s_newest_gradient_enters_so():
    params = weights((6,))
    optimizer = theirs.RMSprop(params, lr=RATE, momentum=0.8)
    for step in range(6):
        differ(params, step)
        old = optimizer.state[params[0]].get("momentum_buffer", torch.zeros(6)).clone()
        optimizer.step()
    new, has = optimizer.state[params[0]]["momentum_buffer"] - 0.8 * old, params[0].grad != 0
    rates = RATE * new[has] / params[0].grad[has]
    assert_spread(step_sizes(optimizer, quantiles=ALL)["group 0"], rates)


def test_of_adadelta_it_is_what_the_next_step_begins_with():
    params = weights((6,))
    optimizer, _ = trained(lambda ps: theirs.Adadelta(ps, lr=0.5, rho=0.8, eps=1e-4), params=params)
    found = step_sizes(optimizer, quantiles=ALL)["group 0"]
    squares = optimizer.state[params[0]]["square_avg"].clone() + 1e-4
    differ(params, 77)
    before = params[0].detach().clone()
    optimizer.step()
    has = params[0].grad != 0
    told = (before - params[0].detach())[has] / params[0].grad[has]
    now = optimizer.state[params[0]]["square_avg"] + 1e-4
    assert_spread(found, told * (now / squares)[has].sqrt())


def test_asgd_s_is_that_of_the_next_step():
    make = lambda ps: theirs.ASGD(ps, lr=RATE, lambd=0.0, alpha=0.5, t0=2)
    optimizer, _ = trained(make, params=(params := weights((6,))))
    optimizer.param_groups[0]["lambd"] = 0.7
    differ(params, 50)
    optimizer.step()
    found = step_sizes(optimizer)["group 0"]
    optimizer.param_groups[0]["lambd"] = 0.0  # the decay comes on top
    differ(params, 51)
    before = params[0].detach().clone()
    optimizer.step()
    has = params[0].grad != 0
    moved = (before - params[0].detach())[has] / params[0].grad[has]
    assert len(set(found.quantiles.values())) == 1
    assert found.median == pytest.approx(moved[0].item(), rel=1e-10)
    assert found.median < RATE
    assert found.count == 6


def test_rprop_s_is_of_the_sign():
    optimizer, moves = trained(lambda ps: theirs.Rprop(ps, lr=RATE))
    found = step_sizes(optimizer, per="parameter", quantiles=ALL)
    for i, (moved, p) in enumerate(moves):
        sizes, went = optimizer.state[p]["step_size"], moved != 0
        assert 0 < went.sum() < p.numel()  # where the sign has changed nothing moves
        assert torch.allclose(sizes[went], moved[went].abs(), rtol=1e-10)
        assert_spread(found[f"group 0.{i}"], sizes)


@pytest.mark.parametrize("way", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
def test_muon_s_is_of_the_orthogonal_matrix(way, shape):
    from torch.optim._muon import _zeropower_via_newtonschulz as orthogonal

    params = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()]
    settings = {"nesterov": False, "weight_decay": 0.0, "adjust_lr_fn": way}
    optimizer = theirs.Muon(params, lr=RATE, **settings)
    differ(params, 0)
    before = params[0].detach().clone()
    optimizer.step()
    group = optimizer.param_groups[0]
    told = group["ns_coefficients"], group["ns_steps"], group["eps"]
    turned = orthogonal(buffer(optimizer, params[0]), *told).float()
    moved = before - params[0].detach()
    ratio = (moved * turned).sum() / turned.square().sum()
    assert step_sizes(optimizer)["group 0"].median == pytest.approx(ratio.item(), rel=1e-3)


# What lr is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [theirs.Adam, theirs.Adagrad, theirs.SGD, optim.DeltaBarDelta])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_tensor_lr_is_the_same(kind, shape):
    optimizer, _ = trained(lambda ps: kind(ps, lr=RATE))
    plain = step_sizes(optimizer)["group 0"]
    optimizer.param_groups[0]["lr"] = torch.full(shape, RATE, dtype=torch.float64)
    assert step_sizes(optimizer)["group 0"] == plain
    optimizer.param_groups[0]["initial_lr"] = torch.tensor(4 * RATE, dtype=torch.float64)
    assert step_sizes(optimizer)["group 0"].schedule == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_numbers_that_stay_on_a_gpu_give_the_same(name, monkeypatch):
    kind, fields, _ = CASES[name]
    optimizer, _ = trained(lambda ps: kind(ps, lr=RATE, **fields))
    plain = step_sizes(optimizer)["group 0"]
    unread = lambda x: x.double().reshape(()) if torch.is_tensor(x) else float(x)
    monkeypatch.setattr(known_rates, "scalar_of", unread)
    optimizer.param_groups[0]["lr"] = torch.full((1,), RATE, dtype=torch.float64)
    found = step_sizes(optimizer)["group 0"]
    assert found.count == plain.count
    assert list(found.quantiles.values()) == pytest.approx(list(plain.quantiles.values()), 1e-12)


def test_a_schedule_is_divided_out_where_that_is_asked_for():
    params = weights()
    optimizer = theirs.Adam(params, lr=RATE)
    scheduler = Scheduler(optimizer, lr=Warmup(4) >> Cosine(6))
    for step in range(7):
        differ(params, step)
        optimizer.step()
        scheduler.step()
    factor = optimizer.param_groups[0]["lr"] / RATE
    now, own = step_sizes(optimizer), step_sizes(optimizer, scheduled=False)
    assert now["group 0"].schedule == own["group 0"].schedule == pytest.approx(factor, rel=1e-12)
    assert 0 < factor < 1
    for q, value in own["group 0"].quantiles.items():
        assert factor * value == pytest.approx(now["group 0"].quantiles[q], rel=1e-12)


def test_torch_s_schedulers_keep_the_base_value_too():
    optimizer, _ = trained(lambda ps: theirs.Adam(ps, lr=RATE))
    assert step_sizes(optimizer)["group 0"].schedule is None
    theirs.lr_scheduler.LambdaLR(optimizer, lambda _: 0.25)
    assert step_sizes(optimizer)["group 0"].schedule == pytest.approx(0.25, rel=1e-12)


def test_a_warmup_from_0_is_divided_out_too():
    optimizer, _ = trained(lambda ps: theirs.Adam(ps, lr=RATE))
    free = step_sizes(optimizer)["group 0"].quantiles
    optimizer.param_groups[0] |= {"lr": 0.0, "initial_lr": RATE}
    found = step_sizes(optimizer)["group 0"]
    assert (found.schedule, set(found.quantiles.values())) == (0.0, {0.0})
    assert step_sizes(optimizer, scheduled=False)["group 0"].quantiles == free


def test_a_base_value_of_0_has_no_factor():
    optimizer, _ = trained(lambda ps: theirs.SGD(ps, lr=RATE))
    optimizer.param_groups[0]["initial_lr"] = 0.0
    assert step_sizes(optimizer)["group 0"].schedule is None


# Names, and what is looked at -----------------------------------------------------------------


def net():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), "head": nn.Linear(4, 2)}
    ).double()


def stepped(model, optimizer):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    optimizer.zero_grad()
    model["head"](model["body"](x).tanh()).square().mean().backward()
    optimizer.step()


def grouped(model):
    return theirs.Adam(
        [
            {"params": model["body"].parameters(), "name": "body", "lr": 0.1},
            {"params": model["head"].parameters(), "name": "head"},
        ],
        lr=0.2,
    )


def test_groups_layers_and_parameters_by_name():
    model = net()
    optimizer = grouped(model)
    stepped(model, optimizer)
    names = {
        "group": ["body", "head"],
        "layer": ["body.0", "body.1", "head"],
        "parameter": [name for name, _ in model.named_parameters()],
    }
    elements = {"group": [36, 10], "layer": [16, 20, 10], "parameter": [12, 4, 16, 4, 8, 2]}
    for per, wanted in names.items():
        found = step_sizes(optimizer, model, per=per)
        assert list(found) == wanted
        assert [spread.elements for spread in found.values()] == elements[per]
        assert [spread.count for spread in found.values()] == elements[per]
    assert list(step_sizes(optimizer, per="parameter"))[3:5] == ["body.3", "head.0"]


def test_a_module_that_holds_parameters_itself_has_its_class_s_name():
    model = nn.Linear(2, 1)
    assert list(step_sizes(theirs.SGD(model.parameters(), lr=1.0), model, per="layer")) == [
        "Linear"
    ]


def test_groups_that_are_called_the_same_are_told_apart():
    groups = [{"params": [w], "name": "w"} for w in weights((2,), (3,))]
    assert list(step_sizes(theirs.SGD(groups, lr=0.1))) == ["w", "w 1"]


def test_several_optimizers():
    one, other = (
        theirs.SGD([w], lr=lr) for w, lr in zip(weights((2,), (3,)), (0.1, 0.2), strict=True)
    )
    found = step_sizes([one, other])
    assert {name: spread.median for name, spread in found.items()} == {
        "group 0 of optimizer 0": 0.1,
        "group 1 of optimizer 1": 0.2,  # as a scheduler calls it
    }


def test_a_layer_of_two_groups_has_the_schedule_that_they_share():
    model = nn.Linear(2, 1)
    optimizer = theirs.SGD([{"params": [p], "initial_lr": 1.0} for p in model.parameters()], lr=0.5)
    assert step_sizes(optimizer, model, per="layer")["Linear"].schedule == 0.5
    optimizer.param_groups[0]["lr"] = 0.25
    found = step_sizes(optimizer, model, per="layer")["Linear"]
    assert found.schedule is None
    assert found.quantiles == {0.0: 0.25, 0.25: 0.25, 0.5: 0.25, 0.75: 0.375, 1.0: 0.5}


def test_frozen_parameters_have_none():
    model = net()
    optimizer = grouped(model)
    stepped(model, optimizer)
    model["body"][0].requires_grad_(False)
    found = step_sizes(optimizer, model, per="layer")
    assert (found["body.0"].count, found["body.0"].elements) == (0, 16)
    assert step_sizes(optimizer)["body"].count == 20


@pytest.mark.parametrize(
    "kind",
    [theirs.Adam, theirs.Adagrad, theirs.RMSprop, theirs.Rprop, theirs.ASGD, theirs.Adadelta],
)
def test_before_the_first_step_nothing_is_known(kind):
    optimizer = kind(weights(), lr=RATE)
    found = step_sizes(optimizer)
    assert (found["group 0"].count, found["group 0"].quantiles) == (0, {})
    assert math.isnan(found["group 0"].median)
    assert found.logs() == {}
    assert str(found).split("\n")[1].split() == ["group", "0", "17", "17"]


def test_what_never_had_a_gradient_has_none():
    params = weights((8,))
    optimizer, _ = trained(lambda ps: theirs.Adam(ps, lr=RATE), params=params)
    assert step_sizes(optimizer)["group 0"].count == 6
    assert max(step_sizes(optimizer)["group 0"].quantiles.values()) < 1e3  # and not lr / eps
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert step_sizes(optimizer)["group 0"].count == 8


def test_nothing_is_written():
    for kind in (*{kind for kind, *_ in CASES.values()}, optim.DeltaBarDelta):
        optimizer = kind(weights(), lr=RATE)
        step_sizes(optimizer)
        assert not optimizer.state or kind is theirs.Adagrad
        params = optimizer.param_groups[0]["params"]
        differ(params, 0)
        optimizer.step()
        before = copy.deepcopy(optimizer.state_dict())
        step_sizes(optimizer, samples=3)
        after = optimizer.state_dict()
        assert repr(after) == repr(before)


def test_an_element_that_is_no_number_is_not_counted_and_the_rest_is():
    optimizer, _ = trained(lambda ps: theirs.Adam(ps, lr=RATE), params=(params := weights((8,))))
    optimizer.state[params[0]]["exp_avg_sq"][1] = math.nan
    assert step_sizes(optimizer)["group 0"].count == 5


# Quantiles and samples ------------------------------------------------------------------------


def spread_out(*shapes, rates=None):
    """An optimizer whose step sizes are those that were given."""

    class Told(theirs.SGD):
        def sizes_of(self, parameter):
            return self.told[parameter]

    params = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    optimizer = Told(params, lr=0.5)
    data = torch.Generator().manual_seed(0)
    optimizer.told = dict(
        zip(params, rates or [torch.rand(s, generator=data) for s in shapes], strict=True)
    )
    return optimizer


@pytest.mark.parametrize("shapes", [[(1,)], [(2,)], [(300, 7), (5,), (64, 3, 3, 3)]])
def test_quantiles_are_torch_s_over_all_elements(shapes):
    optimizer = spread_out(*shapes)
    found = step_sizes(optimizer, quantiles=ALL, samples=None)["group 0"]
    everything = torch.cat([t.reshape(-1) for t in optimizer.told.values()]).double()
    wanted = 0.5 * torch.quantile(everything, torch.tensor(ALL, dtype=torch.float64))
    assert list(found.quantiles.values()) == pytest.approx(wanted.tolist(), rel=1e-12)
    assert found.count == found.elements == everything.numel()


def test_a_number_counts_for_all_its_elements():
    rates = [0.5, torch.tensor(1.0), torch.tensor([2.0])]
    found = step_sizes(spread_out((3,), (5,), (2,), rates=rates), quantiles=ALL)["group 0"]
    every = torch.tensor([0.25] * 3 + [0.5] * 5 + [1.0] * 2, dtype=torch.float64)
    assert_spread(found, every)


def test_rates_of_rows_count_for_their_elements():
    found = step_sizes(spread_out((2, 3), rates=[torch.tensor([[1.0], [3.0]])]), quantiles=ALL)
    assert_spread(found["group 0"], torch.tensor([0.5] * 3 + [1.5] * 3, dtype=torch.float64))


def test_none_is_none():
    found = step_sizes(spread_out((2,), (3,), rates=[None, 1.0]))["group 0"]
    assert (found.count, found.elements) == (3, 5)


def test_infinite_step_sizes_are_shown():
    rates = [torch.tensor([1.0, 2.0, math.inf, math.inf])]
    found = step_sizes(spread_out((4,), rates=rates))["group 0"]
    assert list(found.quantiles.values()) == [0.5, 0.875, math.inf, math.inf, math.inf]
    assert "inf" in str(Spreads({"a": found}))


def test_a_sample_stands_for_all():
    optimizer = spread_out((700, 900), (50,))
    exact, some = (step_sizes(optimizer, samples=n)["group 0"] for n in (None, 4096))
    assert some.count == exact.count == 630_050
    for share in (0.25, 0.5, 0.75):
        assert some.quantiles[share] == pytest.approx(exact.quantiles[share], abs=0.02)
    assert step_sizes(optimizer)["group 0"] == some  # the same each time
    assert some.quantiles != exact.quantiles


def test_large_tensors_weigh_more_than_small_ones():
    rates = [torch.full((1000, 1000), 1.0), torch.full((900,), 4.0)]
    found = step_sizes(spread_out((1000, 1000), (900,), rates=rates), samples=1000)["group 0"]
    assert (found.median, found.quantiles[1.0]) == (0.5, 2.0)
    assert found.quantiles[0.75] == 0.5


@pytest.mark.parametrize("shape", [(1024, 1024), (512, 3, 3, 3), (4096,), (97, 5000)])
def test_all_rows_and_columns_have_their_turn(shape):
    for axis in range(len(shape)):
        ladder = torch.arange(shape[axis], dtype=torch.float32)
        ladder = ladder.view([-1 if i == axis else 1 for i in range(len(shape))]).expand(shape)
        optimizer = spread_out(shape, rates=[ladder])
        found = step_sizes(optimizer, quantiles=ALL, samples=2048)["group 0"]
        wanted = torch.quantile(ladder.double().flatten()[:: 1 + ladder.numel() // 10**6], 0.5)
        assert found.median == pytest.approx(0.5 * wanted.item(), abs=0.02 * shape[axis])


def test_low_precision_is_widened():
    params = [w.detach().bfloat16().requires_grad_() for w in weights()]
    optimizer, _ = trained(lambda ps: theirs.Adam(ps, lr=RATE), params=params)
    state = optimizer.state[params[1]]
    squares = state["exp_avg_sq"].float()[state["exp_avg_sq"] > 0]
    rates = RATE / ((squares / (1 - 0.999**9)).sqrt() + 1e-8)
    found = step_sizes(optimizer, per="parameter")["group 0.1"]
    assert list(found.quantiles.values()) == pytest.approx(
        torch.quantile(rates, torch.tensor(list(found.quantiles))).tolist(), rel=1e-6
    )


def test_a_complex_number_is_two_elements():
    params = [torch.zeros(3, dtype=torch.complex128, requires_grad=True)]
    optimizer = theirs.Adam(params, lr=RATE)
    params[0].grad = torch.tensor([1 + 2j, 0.5j, 3 - 1j], dtype=torch.complex128)
    optimizer.step()
    found = step_sizes(optimizer)["group 0"]
    assert (found.elements, found.count) == (6, 5)
    assert found.quantiles[1.0] == pytest.approx(RATE / 0.5, rel=1e-6)


def test_parameters_of_no_dimension_and_of_no_elements():
    params = [torch.ones((), requires_grad=True), torch.ones((0, 3), requires_grad=True)]
    optimizer = theirs.Adam(params, lr=RATE)
    for p in params:
        p.grad = torch.full_like(p, 2.0)
    optimizer.step()
    found = step_sizes(optimizer)["group 0"]
    assert (found.count, found.elements) == (1, 1)
    assert found.median == pytest.approx(RATE / 2, rel=1e-6)


def test_any_order_in_memory():
    params = [torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)]
    optimizer = theirs.RMSprop([params[0].requires_grad_()], lr=RATE, centered=True)
    for seed in (1, 2):
        params[0].grad = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.step()
    state = optimizer.state[params[0]]
    root = (state["square_avg"] - state["grad_avg"].square()).sqrt() + 1e-8
    assert step_sizes(optimizer)["group 0"].median == pytest.approx(
        (RATE / root).quantile(0.5).item(), rel=1e-5
    )


# Other optimizers ----------------------------------------------------------------------------


def test_ours():
    params = weights()
    optimizer, moves = trained(lambda ps: optim.DeltaBarDelta(ps, lr=0.3, delta=0.01))
    for i, (moved, p) in enumerate(moves):
        has = p.grad != 0
        found = step_sizes(optimizer, per="parameter", quantiles=ALL)[f"group 0.{i}"]
        assert found.count == p.numel()
        assert found.quantiles[1.0] == pytest.approx(0.3 * optimizer.sizes_of(p).max().item())
        assert 0.3 * optimizer.sizes_of(p)[has].sum() == pytest.approx(
            (moved[has] / p.grad[has]).sum().item()
        )
    del params


class Around(theirs.Optimizer):
    """A wrapper that shares groups, and doubles the step size."""

    def __init__(self, inner):
        self.optimizer, self.param_groups = inner, inner.param_groups
        self.state = inner.state

    def step(self):
        self.optimizer.step()


class Doubling(Around):
    def sizes_of(self, parameter):
        return 2.0 * getattr(self.optimizer, "sizes_of", lambda _: 1.0)(parameter)


@pytest.mark.parametrize("kind", [theirs.Adam, theirs.SGD, optim.DeltaBarDelta])
def test_a_wrapper_multiplies_or_leaves_it(kind):
    inner, _ = trained(lambda ps: kind(ps, lr=RATE))
    plain = step_sizes(inner)["group 0"]
    assert step_sizes(Around(inner))["group 0"] == plain
    assert step_sizes(Around(Around(inner)))["group 0"] == plain
    twice = step_sizes(Doubling(inner))["group 0"]
    for q, value in twice.quantiles.items():
        assert value == pytest.approx(2 * plain.quantiles[q], rel=1e-12)


def test_a_wrapper_that_knows_nothing_yet():
    inner, _ = trained(lambda ps: theirs.Adam(ps, lr=RATE))
    around = Doubling(inner)
    around.sizes_of = lambda _: None
    assert step_sizes(around)["group 0"].count == 0
    assert step_sizes(Doubling(theirs.Adam(weights(), lr=RATE)))["group 0"].count == 0


class Odd(theirs.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1, "scale": 3.0})

    def step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p] = {"rows": torch.arange(1.0, len(p) + 1)}


def test_an_optimizer_that_is_not_known():
    for optimizer in (Odd(weights()), Doubling(Odd(weights())), theirs.LBFGS(weights()), None):
        with pytest.raises(FieldError, match="sizes_of") as told:
            step_sizes(optimizer)
        assert "RMSprop" in str(told.value)
        assert "rate_of" in str(told.value)
    with pytest.raises(FieldError, match="got 'Odd'"):
        StepSizes(Doubling(Odd(weights())))


def test_a_formula_of_one_s_own():
    class Mine(Odd):
        pass

    class Child(Mine):
        pass

    @rate_of(Mine)
    def rate(parameter, state, group):
        if not state:
            return None
        return group["lr"] * group["scale"] * state["rows"][:, None].expand_as(parameter)

    optimizer = Child(weights((2, 3)))
    assert step_sizes(optimizer)["group 0"].count == 0
    optimizer.step()
    found = step_sizes(optimizer)["group 0"].quantiles
    assert [found[0.0], found[1.0]] == pytest.approx([0.3, 0.6], rel=1e-6)
    assert rate(weights((2, 3))[0], {}, {}) is None
    rate_of(Child)(lambda parameter, state, group: 7.0)
    assert step_sizes(optimizer)["group 0"].median == 7.0


def test_an_elementwise_formula_is_given_a_sample():
    class Squared(theirs.SGD):
        pass

    seen = []

    @rate_of(Squared, elementwise=True)
    def _(parameter, state, group):
        del parameter
        seen.append(state["momentum_buffer"].shape)
        return group["lr"] * state["momentum_buffer"] ** 2

    optimizer, _ = trained(
        lambda ps: Squared(ps, lr=RATE, momentum=0.9), params=weights((300, 200), (5,))
    )
    found = step_sizes(optimizer, per="parameter", samples=100)
    assert all(len(shape) == 1 and shape[0] <= 100 for shape in seen)
    assert found["group 0.0"].count == 60_000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"per": "tensor"}, "per must be one of 'group', 'layer', 'parameter'"),
        ({"per": "layer"}, "model must be given for per='layer'"),
        ({"quantiles": [0.5, 1.5]}, "quantiles must be a finite number >= 0 and <= 1"),
        ({"quantiles": 0.5}, "quantiles must be several numbers between 0 and 1"),
        ({"samples": 1}, "samples must be a whole number >= 2"),
        ({"samples": True}, "samples must be a whole number"),
    ],
)
def test_wrong_settings(settings, words):
    optimizer = theirs.SGD(weights(), lr=0.1)
    with pytest.raises(FieldError, match=words):
        step_sizes(optimizer, **settings)
    with pytest.raises(FieldError, match=words):
        StepSizes(optimizer, **settings)
    with pytest.raises(FieldError, match="every must be a whole number >= 1"):
        StepSizes(optimizer, every=0)


# What is told -------------------------------------------------------------------------------


def test_logs_are_flat():
    model = net()
    optimizer = grouped(model)
    stepped(model, optimizer)
    optimizer.param_groups[1]["initial_lr"] = 0.4
    found = step_sizes(optimizer, quantiles=[0.05, 0.5])
    logs = found.logs()
    assert list(logs) == [
        "step_size/body/p5",
        "step_size/body/median",
        "step_size/head/p5",
        "step_size/head/median",
        "step_size/head/schedule",
    ]
    assert all(type(value) is float for value in logs.values())
    assert logs["step_size/head/schedule"] == 0.5
    assert logs["step_size/body/median"] == found["body"].median
    alone = step_sizes(theirs.SGD(weights(), lr=0.1), quantiles=[0.5])
    assert alone.logs("rate") == {"rate/median": 0.1}
    with pytest.raises(KeyError, match="there are 'body', 'head'"):
        found["tail"]


def test_a_table():
    known = Spread({0.0: 1e-5, 0.5: 0.25, 1.0: 1.5}, 11998, 12000, 0.5)
    assert str(Spreads({"body": known, "head": Spread({}, 0, 90)})) == (
        "      elements   min  median  max  without  schedule\n"
        "body    12,000  1e-5    0.25  1.5        2       0.5\n"
        "head        90     -       -    -       90         -"
    )
    assert (
        str(Spreads({"a": Spread({0.5: 1.0}, 3, 3)})) == "   elements  median\na         3       1"
    )
    assert "Spread(" in repr(Spreads({"body": known}))


# Over a run ---------------------------------------------------------------------------------


def run(steps=25, make=theirs.Adam, follow=False, **settings):
    params = weights()
    optimizer = make(params, lr=RATE)
    scheduler = Scheduler(optimizer, lr=Warmup(5) >> Cosine(20), follow=follow)
    history = StepSizes(optimizer, **settings)
    used = []
    for step in range(steps):
        differ(params, step)
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return optimizer, history, used


@pytest.mark.parametrize("follow", [False, True])
def test_it_looks_at_the_first_and_at_every_tenth_step_with_the_lr_that_was_used(follow):
    _, history, used = run(make=theirs.SGD, follow=follow)
    assert [step for step, _ in history.rows] == [1, 10, 20]
    assert history.steps == 25
    assert [found["group 0"].median for _, found in history.rows] == [used[0], used[9], used[19]]
    factors = [found["group 0"].schedule for _, found in history.rows]
    assert factors == pytest.approx([used[i] / RATE for i in (0, 9, 19)], rel=1e-12)


def test_a_tensor_lr_is_noted_before_it_is_filled():
    params = weights()
    optimizer = theirs.SGD(params, lr=torch.tensor(0.5, dtype=torch.float64))
    scheduler = Scheduler(optimizer, lr=Cosine(10), follow=True)
    history = StepSizes(optimizer, every=1)
    for step in range(3):
        differ(params, step)
        optimizer.step()
        scheduler.step()
    assert [found["group 0"].median for _, found in history.rows] == [
        pytest.approx(0.5 * Cosine(10)(t)) for t in range(3)
    ]


def test_records_by_hand_and_none_after_it_is_detached():
    optimizer, history, _ = run(every=None)
    assert history.rows == []
    found = history.record()
    assert found == step_sizes(optimizer)
    history.record(step=99)
    assert [step for step, _ in history.rows] == [25, 99]
    history.detach()
    optimizer.step()
    assert history.steps == 25


def test_the_state_that_checkpointing_makes_is_no_step():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = nn.Linear(2, 2)
    optimizer = theirs.Adam(model.parameters(), lr=RATE)
    history = StepSizes(optimizer, every=1)
    get_optimizer_state_dict(model, optimizer)
    assert (history.steps, history.rows) == (0, [])
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert history.steps == 1


def test_nothing_keeps_it_alive_and_nothing_is_left():
    import gc
    import weakref

    optimizer, history, _ = run(steps=2)
    gone = weakref.ref(history)
    del history
    gc.collect()
    assert gone() is None
    optimizer.step()


def test_it_is_saved_restored_and_goes_on():
    optimizer, history, _ = run()
    text = json.dumps(history.to_dict())
    again = StepSizeHistory.from_dict(json.loads(text))
    assert (again.rows, again.steps) == (history.rows, 25)
    more = StepSizes(optimizer, history=again)
    for _ in range(7):
        optimizer.step()
    assert [step for step, _ in more.rows] == [1, 10, 20, 30]
    assert again.steps == 25
    assert len(again.rows) == 3


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
def test_a_copy_is_the_history_alone(way):
    _, history, _ = run()
    other = way(history)
    assert type(other) is StepSizeHistory
    assert (other.rows, other.steps) == (history.rows, history.steps)


def test_what_is_no_history():
    for data in ({}, {"format": "stepsize step sizes 99"}, [1]):
        with pytest.raises(SpecError, match="a history of step sizes has 'format'"):
            StepSizeHistory.from_dict(data)


def test_csv_has_a_line_for_each_step_and_name():
    model = net()
    optimizer = grouped(model)
    history = StepSizes(optimizer, every=2, quantiles=[0.5, 1.0])
    optimizer.param_groups[0]["initial_lr"] = 0.2
    for _ in range(2):
        stepped(model, optimizer)
    rows = list(csv.DictReader(io.StringIO(history.csv())))
    assert [(row["step"], row["name"], row["schedule"]) for row in rows] == [
        ("1", "body", "0.5"),
        ("1", "head", ""),
        ("2", "body", "0.5"),
        ("2", "head", ""),
    ]
    last = history.of("head")[-1][1]
    assert float(rows[3]["median"]) == last.median
    assert float(rows[3]["max"]) == last.quantiles[1.0]


def test_groups_that_join_later_begin_later():
    first, second = weights((3,), (4,))
    optimizer = theirs.SGD([first], lr=0.1)
    history = StepSizes(optimizer, every=1)
    optimizer.step()
    optimizer.add_param_group({"params": [second], "lr": 0.3, "name": "late"})
    optimizer.step()
    assert history.names() == ["group 0", "late"]
    assert [step for step, _ in history.of("late")] == [2]


def test_a_drawing_of_characters():
    _, history, _ = run(every=1)
    text = history.text(width=40, height=6)
    assert "25 steps" in text
    assert len(text.split("\n")) >= 8
    assert str(history) == history.text()
    assert history._repr_svg_().startswith("<svg")
    assert str(StepSizeHistory()) == "<step sizes at 0 of 0 steps>"
    with pytest.raises(FieldError, match="of medians above 0"):
        StepSizeHistory().panels()
