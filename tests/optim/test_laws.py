"""What holds for every optimizer of the room."""

import copy
import io
import pickle

import pytest
import torch
from tests.optim.cases import CASES, Problem, train

from stepsize import Constant, FieldError, Linear, optim
from stepsize.torch import Scheduler, step_sizes

EVERY = pytest.mark.parametrize("name", sorted(CASES))


class Run:
    """A problem and an optimizer that trains it."""

    def __init__(self, name, dtype=torch.float32, seed=0, *, split=None, **fields):
        self.case = CASES[name]
        self.problem = Problem(dtype, seed, self.case.batches)
        params = self.problem.model.parameters() if split is None else self.problem.groups(**split)
        self.optimizer = self.case.make(params, **fields)

    def train(self, steps, sign=1.0):
        closure = self.case.closure
        return train(self.optimizer, self.problem, steps, closure=closure, sign=sign)

    def total(self):
        return sum(self.problem.loss(i).item() for i in range(8))

    def weights(self):
        return self.problem.weights()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_every_optimizer_has_a_case():
    classes = {n for n in optim.__all__ if isinstance(getattr(optim, n), type)}
    assert {name.partition(" ")[0] for name in CASES} == {
        n for n in classes if issubclass(getattr(optim, n), torch.optim.Optimizer)
    }


@EVERY
def test_it_learns(name):
    run = Run(name)
    before = run.total()
    run.train(range(60))
    assert run.total() < before


@EVERY
@pytest.mark.parametrize("stop", [0, 1, 2, 5, 11])
def test_a_resumed_run_is_the_same_to_the_bit(name, stop):
    for dtype in CASES[name].dtypes:
        run = Run(name, dtype)
        run.train(range(stop))
        file = io.BytesIO()
        torch.save([run.problem.model.state_dict(), run.optimizer.state_dict()], file)
        run.train(range(stop, 15))

        again = Run(name, dtype, seed=1)
        file.seek(0)
        model, state = torch.load(file, weights_only=True)
        again.problem.model.load_state_dict(model)
        again.optimizer.load_state_dict(state)
        again.train(range(stop, 15))
        assert same(run.weights(), again.weights()), dtype
        assert repr(run.optimizer.state_dict()) == repr(again.optimizer.state_dict()), dtype


@EVERY
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_goes_on_alike(name, way):
    run = Run(name)
    run.train(range(4))
    both = (run.problem, run.optimizer)
    problem, optimizer = (
        copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))  # noqa: S301
    )
    run.train(range(4, 9))
    train(optimizer, problem, range(4, 9), closure=run.case.closure)
    assert same(run.weights(), problem.weights())


@EVERY
def test_foreach_is_the_plain_form(name):
    if "foreach" not in CASES[name].common:
        return
    dtype = torch.float32 if CASES[name].exact else torch.float64
    one, other = Run(name, dtype, foreach=True), Run(name, dtype, foreach=False)
    one.train(range(12))
    other.train(range(12))
    if CASES[name].exact:
        assert same(one.weights(), other.weights())
    else:
        for a, b in zip(one.weights(), other.weights(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@EVERY
def test_maximize_climbs_what_minimize_descends(name):
    if "maximize" not in CASES[name].common:
        return
    for decay in (0.0, 0.1):
        down, up = Run(name, weight_decay=decay), Run(name, weight_decay=decay, maximize=True)
        down.train(range(12))
        up.train(range(12), sign=-1.0)
        assert same(down.weights(), up.weights())


@EVERY
def test_weight_decay_pulls_to_zero(name):
    if "weight_decay" not in CASES[name].common:
        return
    for decoupled in (False, True):
        free = Run(name)
        fields = {"decoupled_weight_decay": True} if decoupled else {}
        if decoupled and "decoupled_weight_decay" not in CASES[name].common:
            continue
        pulled = Run(name, weight_decay=0.5, **fields)
        free.train(range(40))
        pulled.train(range(40))
        sizes = [sum(w.square().sum().item() for w in r.weights()) for r in (free, pulled)]
        assert sizes[1] < sizes[0]


@EVERY
def test_what_has_no_gradient_stays(name):
    run = Run(name)
    frozen = run.problem.model[0].bias
    frozen.requires_grad_(False)
    before = frozen.clone()
    run.train(range(5))
    assert torch.equal(frozen, before)
    frozen.requires_grad_(True)  # it joins later
    run.train(range(5, 10))
    assert not torch.equal(frozen, before)
    assert all(w.isfinite().all() for w in run.weights())


@EVERY
def test_zero_gradients_move_nothing(name):
    run = Run(name)
    before = run.weights()
    for _ in range(3):

        def nothing():
            run.optimizer.zero_grad()
            value = sum((0.0 * p).sum() for p in run.problem.model.parameters())
            value.backward()
            return value

        if run.case.closure:
            run.optimizer.step(nothing)
        else:
            nothing()
            run.optimizer.step()
    assert same(before, run.weights())
    run.train(range(3))
    assert not same(before, run.weights())
    assert all(w.isfinite().all() for w in run.weights())


@EVERY
def test_no_gradient_at_all_is_no_step(name):
    run = Run(name)
    before = run.weights()
    if not run.case.closure:
        run.optimizer.step()
    assert same(before, run.weights())


@EVERY
def test_a_schedule_multiplies_the_step(name):
    run, halved = Run(name), Run(name)
    base = halved.optimizer.param_groups[0]["lr"]
    held = Scheduler(halved.optimizer, lr=Constant(value=0.5), follow=True)
    assert held.get_last_lr() == [0.5 * base]
    start = run.weights()
    run.train(range(1))
    halved.train(range(1))
    for a, b, c in zip(start, run.weights(), halved.weights(), strict=True):
        torch.testing.assert_close(c - a, 0.5 * (b - a), rtol=1e-4, atol=1e-6)


@EVERY
def test_a_warmup_from_zero_starts_still_and_then_moves(name):
    run = Run(name)
    held = Scheduler(run.optimizer, lr=Linear(4, start=0.0, stop=1.0), follow=True)
    before = run.weights()
    run.train(range(1))
    assert same(before, run.weights())
    assert held.last_epoch == 1
    run.train(range(1, 4))
    assert not same(before, run.weights())
    assert all(w.isfinite().all() for w in run.weights())


@EVERY
def test_a_tensor_rate_is_the_same_rate(name):
    plain, tensor = Run(name, lr=0.5), Run(name, lr=torch.tensor(0.5))
    plain.train(range(6))
    tensor.train(range(6))
    for a, b in zip(plain.weights(), tensor.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@EVERY
def test_groups_have_fields_of_their_own(name):
    run = Run(name, split={"lr": 0.0})
    before = run.weights()
    run.train(range(3))
    after = run.weights()
    assert not torch.equal(before[0], after[0])
    assert same(before[2:], after[2:])


@EVERY
def test_a_group_joins_later(name):
    run = Run(name)
    joins = torch.nn.Parameter(torch.ones(3))
    run.train(range(3))
    run.optimizer.add_param_group({"params": [joins], "name": "late"})
    plain = run.problem.loss
    run.problem.loss = lambda step: plain(step) + joins.square().sum()
    run.train(range(3, 8))
    assert joins.norm() < 3**0.5


@EVERY
def test_sparse_gradients_are_refused(name):
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = CASES[name].make(table.parameters())

    def evaluate():
        optimizer.zero_grad()
        value = table(torch.tensor([1])).sum()
        value.backward()
        return value

    with pytest.raises((FieldError, RuntimeError), match="sparse"):
        optimizer.step(evaluate)


@EVERY
@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", -1.0), ("lr", float("nan")), ("weight_decay", -0.1), ("lr", torch.ones(2))],
)
def test_wrong_fields_are_refused_where_they_are_given(name, field, value):
    if field not in ("lr", *CASES[name].common):
        return
    with pytest.raises((FieldError, ValueError)):
        Run(name, **{field: value})
    with pytest.raises((FieldError, ValueError)):
        Run(name, split={field: value})


@EVERY
def test_a_missing_closure_is_said_at_the_first_step(name):
    run = Run(name)
    assert getattr(run.optimizer, "needs_closure", False) == run.case.closure
    if run.case.closure:
        with pytest.raises(FieldError, match="needs a closure"):
            run.optimizer.step()


@EVERY
def test_the_step_size_can_be_read(name):
    run = Run(name)
    p = run.problem.model[0].weight
    run.train(range(3))
    size = run.optimizer.sizes_of(p)
    assert size is not None
    assert torch.as_tensor(size).isfinite().all()
    assert torch.as_tensor(size).shape in (p.shape, ())


@EVERY
def test_step_sizes_shows_it_times_the_rate(name):
    run = Run(name, lr=0.5)
    run.train(range(12))
    [told] = step_sizes(run.optimizer, samples=None).values()
    assert told.count > 0
    assert 0.0 <= told.median < float("inf")
    p = run.problem.model[2].weight
    size = run.optimizer.sizes_of(p)
    if not name.startswith("RegrettableDBD"):  # around another, whose own is multiplied
        found = step_sizes(run.optimizer, run.problem.model, per="parameter", samples=None)
        half = 0.5 * torch.as_tensor(size, dtype=torch.float64).median().item()
        assert found["2.weight"].quantiles[0.0] <= half <= found["2.weight"].quantiles[1.0]


@EVERY
def test_a_scaler_is_refused_where_a_closure_is_needed_and_changes_nothing_else(name):
    run, plain = Run(name), Run(name)
    plain.train(range(4))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        run.optimizer.zero_grad()
        scaler.scale(run.problem.loss(step)).backward()
        if run.case.closure:
            with pytest.raises(FieldError, match="GradScaler passes none"):
                scaler.step(run.optimizer)
            return
        scaler.step(run.optimizer)
        scaler.update()
    for a, b in zip(run.weights(), plain.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@EVERY
def test_autocast_in_the_closure(name):
    run = Run(name)
    exact = run.problem.loss

    def rounded(step):
        with torch.autocast("cpu", torch.bfloat16):
            return exact(step)

    run.problem.loss = rounded
    before = run.total()
    run.train(range(40))
    assert run.total() < before
