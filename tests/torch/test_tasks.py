"""Tasks of torch models: they resume to the bit, and leave everything else alone."""

import io
import random
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

from stepsize import FieldError, Horizon, MismatchError
from stepsize.conform.check import conformance
from stepsize.optim import LineSearch
from stepsize.task import Metric, Run, Task
from stepsize.torch.layers import layer_decay
from stepsize.torch.tasks.chance import STEP, Chance, order
from stepsize.torch.tasks.run import TorchRun

SAMPLES, SIZE = 37, 8
_GENERATOR = torch.Generator().manual_seed(3)
X = torch.randn(SAMPLES, 6, generator=_GENERATOR)
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).long()
VALID = (X[:11] + 0.1, Y[:11])


def network():
    return nn.Sequential(
        nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Dropout(0.3), nn.Linear(10, 2)
    )


def sgd(params):
    return optim.SGD(params, lr=0.05, momentum=0.9)


def adam(params):
    return optim.AdamW(params, lr=1e-2)


def made(train=(X, Y), valid=VALID, optimizer_fn=sgd, model_fn=network, **settings):
    settings = {"epochs": 3, "batch_size": SIZE, **settings}
    return Task.from_torch(
        model_fn, nn.functional.cross_entropy, train, valid, optimizer_fn, **settings
    )


class Augmented(Dataset):
    """Samples with noise of three libraries' own."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        noise = torch.randn(()).item() + np.random.normal() + random.gauss(0, 1)  # noqa: NPY002
        return X[i] + 0.01 * noise, Y[i]


def epochs_of(seed, epoch):
    """Give an epoch's batches one by one, with noise from the global generator."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    for part in torch.randperm(SAMPLES, generator=generator).split(SIZE):
        yield X[part] + 0.01 * torch.randn(len(part), 6), Y[part]


def validation():
    yield from zip(VALID[0].split(4), VALID[1].split(4), strict=True)


LOADER = DataLoader(TensorDataset(X, Y), batch_size=SIZE, shuffle=True)
SAMPLED = DataLoader(
    TensorDataset(X, Y),
    batch_size=SIZE,
    sampler=DistributedSampler(TensorDataset(X, Y), num_replicas=1, rank=0),
)
FORMS = {
    "arrays": {},
    "adam": {"optimizer_fn": adam},
    "numpy": {"train": (X.numpy(), Y.numpy()), "valid": (VALID[0].numpy(), VALID[1].tolist())},
    "dataset": {"train": Augmented(), "valid": TensorDataset(*VALID)},
    "loader": {"train": LOADER, "valid": DataLoader(TensorDataset(*VALID), 4), "batch_size": None},
    "function": {
        "train": epochs_of, "valid": validation, "batch_size": None, "batches_per_epoch": 5,
    },
    "sampler with epochs": {"train": SAMPLED, "batch_size": None},
    "accumulate": {"accumulate": 2, "batch_size": 5},
    "accumulate function": {
        "train": epochs_of, "batch_size": None, "batches_per_epoch": 5, "accumulate": 2,
    },
    "drop last": {"drop_last": True},
    "autocast": {"autocast": torch.bfloat16},
    "accuracy": {"metric": "accuracy"},
    "line search": {"optimizer_fn": LineSearch},
    "lbfgs": {"optimizer_fn": lambda params: optim.LBFGS(params, lr=0.1, max_iter=3)},
    "groups": {
        "optimizer_fn": adam,
        "groups": lambda model: layer_decay(model, 0.7, lr=1e-3, depth=lambda name: int(name[0])),
    },
}  # fmt: skip


def losses(run, count):
    return [run.step()["loss"].item() for _ in range(count)]


def same(first, second):
    """Whether two states are the same to the bit."""
    return plain(first) == plain(second)


def plain(state):
    if isinstance(state, torch.Tensor):
        return (str(state.dtype), state.tolist())
    if isinstance(state, dict):
        return {str(key): plain(value) for key, value in state.items()}
    return [plain(each) for each in state] if isinstance(state, list | tuple) else state


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_run_resumes_to_the_bit_at_every_step(form):
    task = made(**FORMS[form])
    whole, count = task.build(4), 2 * task.horizon.steps // 3 + 1
    states = []
    for _ in range(count):
        states.append(through_a_file(whole.state_dict()))
        whole.step()
    expected, end = whole.evaluate(), whole.state_dict()
    for step, state in enumerate(states):
        run = task.build(9)  # the state says the seed
        run.load_state_dict(state)
        assert run.position == step
        losses(run, count - step)
        assert same(run.state_dict(), end), step
        assert run.evaluate() == expected


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_conforms(form):
    task = made(**FORMS[form])
    assert isinstance(task.build(0), Run)
    assert conformance(task) == ()


def test_buffers_that_a_model_keeps_out_of_its_state_are_saved():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x):
            self.calls += self.training
            return self.inner(x) * (1 + 0.01 * self.calls)

    assert conformance(made(model_fn=Counting)) == ()


def test_the_order_of_the_data_is_a_function_of_seed_and_epoch():
    seen = []

    class Recording(nn.Linear):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    def seen_by(seed, optimizer_fn):
        seen.clear()
        losses(made(model_fn=lambda: Recording(6, 2), optimizer_fn=optimizer_fn).build(seed), 10)
        return torch.cat(seen)

    assert torch.equal(seen_by(0, sgd), seen_by(0, adam))
    assert not torch.equal(seen_by(0, sgd), seen_by(1, sgd))
    first, second = seen_by(0, sgd).split(SAMPLES)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(0)[0], X.sort(0)[0])
    assert torch.equal(second.sort(0)[0], X.sort(0)[0])


def test_the_first_weights_are_those_of_manual_seed():
    run = made().build(5)
    torch.manual_seed(5)
    for ours, theirs in zip(run.model.parameters(), network().parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_is_that_of_a_loop_by_hand():
    task = made(model_fn=lambda: nn.Linear(6, 2), metric="accuracy")
    run = task.build(2)
    torch.manual_seed(2)
    model = nn.Linear(6, 2)
    optimizer = sgd(model.parameters())
    for number, part in enumerate(order(SAMPLES, 2, 0).split(SIZE)):
        optimizer.zero_grad()
        outputs = model(X[part])
        loss = nn.functional.cross_entropy(outputs, Y[part])
        loss.backward()
        optimizer.step()
        told = run.step()
        assert torch.equal(told["loss"], loss.detach()), number
        assert told["accuracy"] == (outputs.argmax(1) == Y[part]).float().mean()
    with torch.no_grad():
        outputs = model(VALID[0])
    assert run.evaluate() == pytest.approx(
        {
            "loss": nn.functional.cross_entropy(outputs, VALID[1]).item(),
            "accuracy": (outputs.argmax(1) == VALID[1]).float().mean().item(),
        }
    )


@pytest.mark.parametrize("form", ["accumulate", "accumulate function"])
def test_accumulated_batches_make_the_step_of_the_large_batch(form):
    def plain_model():
        return nn.Linear(6, 2).double()

    x = X.double()
    if form == "accumulate":
        task = made((x, Y), (x, Y), model_fn=plain_model, batch_size=4, accumulate=3)
    else:
        parts = torch.arange(SAMPLES).split(4)
        task = made(
            lambda seed, epoch: [(x[part], Y[part]) for part in parts],
            (x, Y), model_fn=plain_model, batch_size=None, batches_per_epoch=10, accumulate=3,
        )  # fmt: skip
    assert task.horizon.steps == 3 * 4
    run = task.build(0)
    for _ in range(4):  # the last step of an epoch has one sample
        before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
        told = run.step()
        batch = [torch.cat(each) for each in zip(*[b[:2] for b in run._batches], strict=True)]
        model = plain_model()
        model.load_state_dict(before)
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        assert told["loss"].item() == pytest.approx(loss.item(), rel=1e-14)
        for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)


def test_the_users_random_numbers_are_left_alone():
    def drawn():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002, S311

    def seeded():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)

    seeded()
    expected = drawn()
    for form in FORMS.values():
        seeded()
        run = made(**form).build(1)
        run.step()
        run.evaluate()
        run.probe(5)
        assert drawn() == expected


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_device_draws_from_seed_and_step_too(monkeypatch, kind):
    own = torch.Generator()
    module = getattr(torch, kind)
    if kind == "cuda":
        monkeypatch.setattr(module, "init", lambda: None)
        monkeypatch.setattr(module, "current_device", lambda: 0)
        monkeypatch.setattr(module, "default_generators", (own,))
    else:
        for name, method in (
            ("get_rng_state", own.get_state),
            ("manual_seed", own.manual_seed),
            ("set_rng_state", own.set_state),
        ):
            monkeypatch.setattr(module, name, method)
    chance = Chance(torch.device(kind))
    before = own.get_state()
    drawn = []
    for seed, step in ((1, 2), (1, 3), (1, 2)):
        with chance.drawn(seed, STEP, step):
            drawn.append(torch.rand((), generator=own).item())
        assert torch.equal(own.get_state(), before)
    assert drawn[0] == drawn[2] != drawn[1]


def test_an_error_in_a_step_leaves_the_users_random_numbers_alone():
    def failing(*place):
        torch.rand(5)
        raise ValueError(place)

    run = made(failing, batch_size=None, batches_per_epoch=5).build(0)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="0, 0"):
        run.step()
    assert torch.equal(torch.rand(2), expected)


def test_an_iterable_that_ends_early_is_an_error():
    run = made(lambda seed, epoch: [(X, Y)], batch_size=None, batches_per_epoch=2).build(0)
    run.step()
    with pytest.raises(FieldError, match="got 2; its epoch 0 gave 1; set batches_per_epoch="):
        run.step()


def test_evaluation_and_probe_leave_every_module_in_its_mode():
    run = made().build(0)
    run.model[1].eval()
    modes = [module.training for module in run.model.modules()]
    before = run.state_dict()
    first = run.probe()
    run.evaluate()
    assert [module.training for module in run.model.modules()] == modes
    assert same(before, run.state_dict())
    assert torch.equal(first, run.probe())


@pytest.mark.parametrize("form", sorted(FORMS))
def test_the_probe_is_one_fixed_batch_of_training_samples(form):
    settings = FORMS[form]
    one, other = made(**settings).build(0), made(**settings).build(1)
    other.load_state_dict({**one.state_dict(), "seed": 1})
    assert torch.equal(one.probe(20), other.probe(20))
    losses(other, 3)
    assert not torch.equal(one.probe(20), other.probe(20))
    gradients = torch.autograd.grad(one.probe(20), list(one.model.parameters()), create_graph=True)
    assert all(g.requires_grad for g in gradients)


def test_the_probe_has_the_size_asked_for_and_no_dropout():
    seen = []

    class Seen(nn.Linear):
        def forward(self, x):
            seen.append((len(x), self.training))
            return super().forward(x)

    for settings in (FORMS["arrays"], FORMS["dataset"], FORMS["function"], FORMS["loader"]):
        run = made(model_fn=lambda: Seen(6, 2), **settings).build(0)
        for size in (1, 13, 512):
            run.probe(size)
    assert seen == 4 * [(1, False), (13, False), (SAMPLES, False)]
    with pytest.raises(FieldError, match="probe: size must be a whole number >= 1, got 0"):
        run.probe(0)


def test_a_metric_of_ones_own_sees_the_whole_validation_part():
    def worst(outputs, targets):
        assert outputs.shape == (11, 2)
        return nn.functional.cross_entropy(outputs, targets, reduction="none").max()

    task = made(metric=worst, better="lower", evaluate_batch=4)
    assert task.metric == Metric("worst", "lower")
    found = task.build(0).evaluate()
    assert sorted(found) == ["loss", "worst"]
    assert found["worst"] > found["loss"]


def test_batches_may_be_structures():
    Inputs = namedtuple("Inputs", "a b")  # noqa: PYI024 (as a user has it)

    def two(*_):
        for _ in range(2):
            yield Inputs(X, {"x": [X]}), Y

    class Two(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs.a + inputs.b["x"][0])

    settings = {"batch_size": None, "batches_per_epoch": 2}
    task = made(two, two, model_fn=lambda: Two(6, 2), **settings)
    assert conformance(task) == ()
    with pytest.raises(FieldError, match="a batch to probe must be two tensors, got 'Inputs"):
        task.build(0).probe()


def test_horizons():
    assert made().horizon == Horizon("3ep", batches_per_epoch=5, batch_size=8)
    assert made(drop_last=True).horizon.batches_per_epoch == 4
    assert made(epochs=None, horizon=Horizon(70)).horizon.position(70, "ep") == 14
    assert made(**FORMS["loader"]).horizon == made().horizon
    assert made(**FORMS["function"]).horizon == Horizon("3ep", batches_per_epoch=5)
    accumulated = made(epochs=None, horizon=Horizon("2ep"), batch_size=4, accumulate=2)
    assert (accumulated.horizon.steps, accumulated.horizon.accumulate) == (10, 2)


def test_repr_says_what_it_is():
    assert repr(made(metric="accuracy")) == (
        "<task: 37 training samples; Horizon('3ep', batches_per_epoch=5, batch_size=8); "
        "accuracy, higher is better>"
    )
    assert "5 batches in an epoch" in repr(made(**FORMS["function"]))


ONE = DataLoader(TensorDataset(X, Y), SIZE, shuffle=True, generator=torch.Generator())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": None}, "epochs must be given, or a horizon instead, got None"),
        ({"horizon": Horizon(9)}, "epochs must be given, or a horizon instead, got 'both'"),
        ({"epochs": -1}, "epochs must be a finite number > 0"),
        ({"epochs": None, "horizon": Horizon()}, "horizon must be of a known total"),
        (
            {"epochs": None, "horizon": Horizon(9, batches_per_epoch=7)},
            "horizon.batches_per_epoch must be 5, as the data have it, got 7",
        ),
        (
            {"epochs": None, "horizon": Horizon(9, batches_per_epoch=5, last="drop")},
            "horizon.last must be step",
        ),
        ({"batch_size": None}, "batch_size must be a whole number >= 1 and <= 37"),
        ({"batch_size": 38}, "batch_size must be a whole number >= 1 and <= 37"),
        ({"accumulate": 0}, "accumulate must be a whole number >= 1"),
        ({"evaluate_batch": 0}, "evaluate_batch must be a whole number >= 1"),
        ({"batches_per_epoch": 5}, "batches_per_epoch must be left out, got 5"),
        ({"metric": "acuracy"}, "'loss', 'accuracy' or a function, got 'acuracy'; did you mean"),
        ({"metric": max}, "better must be 'lower' or 'higher' beside a function"),
        ({"better": "lower"}, "better must be left out"),
        ({"metric": max, "better": "up"}, "Metric.better must be"),
        ({"autocast": torch.float16}, "autocast must be torch.bfloat16 or None"),
        ({"device": "abacus"}, "device must be one that torch has here"),
        ({"train": (X, Y[:5])}, "train must be of as many samples as its targets, got '37 and 5'"),
        ({"train": (X,)}, "train must be a pair (X, y), got '1 things'"),
        ({"train": (X[:0], Y[:0])}, "train must be of at least one sample"),
        ({"train": (["a"], [1])}, "train X must be an array of numbers"),
        ({"train": (1.0, [1])}, "train X must be an array of samples"),
        ({"train": []}, "train must be a dataset of at least one sample"),
        ({"train": 5}, "train must be a pair (X, y), a dataset, a DataLoader, or a function"),
        ({"valid": None}, "valid must be a pair (X, y), a dataset"),
        ({"train": epochs_of}, "batches_per_epoch must be the number of batches"),
        ({"train": epochs_of, "batches_per_epoch": 0}, "batches_per_epoch must be a whole number"),
        ({"train": LOADER}, "batch_size and drop_last must be left out beside a DataLoader"),
        ({"train": ONE, "batch_size": None}, "a DataLoader without a generator"),
    ],
)
def test_what_cannot_be_trained_is_said(settings, words):
    with pytest.raises(FieldError) as error:
        made(**settings)
    assert words in str(error.value)


def flat():
    return nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))


def test_what_only_a_step_shows_is_said():
    task = Task.from_torch(
        network, lambda outputs, y: outputs, (X, Y), VALID, sgd, epochs=1, batch_size=8
    )
    with pytest.raises(FieldError, match=r"0-d tensor, a mean, got 'shape \(8, 2\)'"):
        task.build(0).step()
    task = made([X[0], X[1]], batch_size=2, collate=lambda samples: samples[0])
    with pytest.raises(FieldError, match="a pair of inputs and targets, got 'Tensor'"):
        task.build(0).step()
    with pytest.raises(FieldError, match="Task.build: seed must be a whole number >= 0, got -1"):
        made().build(-1)
    loss_fn = nn.functional.mse_loss
    settings = {"epochs": 1, "batch_size": 8, "metric": "accuracy"}
    task = Task.from_torch(flat, loss_fn, (X, X[:, 0]), (X, X[:, 0]), sgd, **settings)
    with pytest.raises(FieldError, match="a score for each class"):
        task.build(0).evaluate()


def test_what_the_functions_make_is_looked_at():
    net = network()
    task = made(model_fn=lambda: net)
    run = task.build(0)
    with pytest.raises(FieldError, match="a new module at every call, got 'the same one'"):
        task.build(0)
    with pytest.raises(FieldError, match="makes a module, got 'int'"):
        made(model_fn=lambda: 5).build(0)
    with pytest.raises(FieldError, match="of the parameters it is given, got 'SGD'"):
        made(optimizer_fn=lambda params: run.optimizer).build(0)
    with pytest.raises(FieldError, match="of the parameters it is given, got 'NoneType'"):
        made(optimizer_fn=lambda params: None).build(0)


def test_a_step_that_fails_can_be_taken_again():
    failing = [True]

    def train(seed, epoch):
        for i, batch in enumerate(epochs_of(seed, epoch)):
            if i == 3 and failing[0]:
                raise OSError(i)
            yield batch

    settings = {"batch_size": None, "batches_per_epoch": 5, "accumulate": 2}
    run = made(train, **settings).build(0)
    losses(run, 1)
    with pytest.raises(OSError, match="3"):
        run.step()
    failing[0] = False
    assert losses(run, 4) == losses(made(epochs_of, **settings).build(0), 5)[1:]


def test_a_state_of_something_else_is_refused():
    run = made().build(0)
    with pytest.raises(MismatchError, match="it has no 'step'"):
        run.load_state_dict({})
    other = made(model_fn=lambda: nn.Linear(6, 2)).build(0)
    with pytest.raises(MismatchError, match="belongs to another model"):
        run.load_state_dict(other.state_dict())


def test_two_runs_in_turns_do_what_they_do_alone():
    task = made(**FORMS["loader"])
    alone = [losses(task.build(seed), 8) for seed in (0, 1)]
    one, other = task.build(0), task.build(1)
    together = [(one.step()["loss"].item(), other.step()["loss"].item()) for _ in range(8)]
    assert [list(each) for each in zip(*together, strict=True)] == alone


def test_the_run_is_of_its_own_class():
    assert type(made().build(0)) is TorchRun
