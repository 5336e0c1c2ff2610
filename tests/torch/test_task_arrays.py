"""Tasks of tables: what is guessed from the targets, the split, the scales, the errors."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import nn, optim

from stepsize import FieldError, Horizon
from stepsize.conform.check import conformance
from stepsize.task import Task

ROWS = 60
RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(3.0, 5.0, (ROWS, 4))
FLOATS = TABLE @ [1.0, -2.0, 0.0, 3.0] + 100.0
WHOLE = (TABLE[:, 0] > 3.0).astype(int)
TEXTS = np.where(WHOLE, "yes", "no")

made = Task.from_arrays


class Frame:
    """What a data frame or a series is to others: something that becomes an array."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)

    def to_numpy(self):
        return self.values


def data(task):
    """The tensors of a task."""
    found = task._setting.data
    return (found.train.x, found.train.y), (found.held_out.x, found.held_out.y)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (WHOLE, "2 classes (y holds whole numbers)"),
        (WHOLE.astype(np.uint8), "2 classes (y holds whole numbers)"),
        (WHOLE.astype(bool), "2 classes (y holds bools)"),
        (TEXTS, "2 classes (y holds texts)"),
        (TEXTS.astype(object), "2 classes (y holds texts)"),
        (list(TEXTS), "2 classes (y holds texts)"),
        (Frame(TEXTS.astype(object)), "2 classes (y holds texts)"),
        (Frame(WHOLE), "2 classes (y holds whole numbers)"),
        (Frame(WHOLE.reshape(-1, 1)), "2 classes (y holds whole numbers)"),
        (torch.tensor(WHOLE), "2 classes (y holds whole numbers)"),
        (FLOATS, "regression (y holds floats)"),
        (FLOATS.astype(np.float32), "regression (y holds floats)"),
        (torch.tensor(FLOATS, requires_grad=True), "regression (y holds floats)"),
        (Frame(FLOATS), "regression (y holds floats)"),
        (np.stack([FLOATS, TABLE[:, 1]], 1), "regression (y holds floats)"),
    ],
)
def test_the_kind_is_guessed_from_the_targets_and_said(y, words):
    task = made(TABLE, y, epochs=2)
    assert words in repr(task)
    run = task.build(0)
    assert torch.isfinite(run.step()["loss"])
    assert run.evaluate()["loss"] > 0


@pytest.mark.parametrize(
    "x",
    [
        TABLE,
        TABLE.astype(np.float32),
        TABLE.tolist(),
        Frame(TABLE),
        torch.tensor(TABLE),
        TABLE.astype(">f8"),
        TABLE[::-1][::-1],
    ],
)
def test_tables_of_any_kind_give_the_same_task(x):
    (inputs, _), _ = data(made(x, WHOLE))
    (expected, _), _ = data(made(TABLE, WHOLE))
    torch.testing.assert_close(inputs, expected, rtol=1e-5, atol=1e-5)
    assert inputs.dtype is torch.float32


def test_the_repr_says_all_that_was_chosen():
    assert repr(made(TABLE, TEXTS, epochs=7)) == (
        "<task: 60 samples of 4 features, 2 classes (y holds texts); 12 held out; features "
        "standardized; mlp 4-16-16-2; adamw, lr 0.001; "
        "Horizon('7ep', batches_per_epoch=1, batch_size=48); loss, lower is better>"
    )
    task = made(
        TABLE, FLOATS, model="linear", optimizer="sgd", lr=0.5, batch_size=10, standardize=False
    )
    assert repr(task) == (
        "<task: 60 samples of 4 features, regression (y holds floats); 12 held out; linear; "
        "sgd, lr 0.5, momentum 0.9; Horizon('20ep', batches_per_epoch=5, batch_size=10); "
        "loss, lower is better>"
    )
    assert "features and targets standardized" in repr(made(TABLE, FLOATS))

    def own():
        return nn.Linear(4, 2)

    task = made(TABLE, WHOLE, model=own, optimizer=optim.Adagrad)
    assert "model own; optimizer Adagrad" in repr(task)
    assert isinstance(task.build(0).optimizer, optim.Adagrad)


def test_the_training_part_alone_says_the_scales():
    (x, y), (x_held, y_held) = data(made(TABLE, FLOATS))
    torch.testing.assert_close(x.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(4))
    assert y.mean().item() == pytest.approx(0, abs=1e-6)
    assert y.std(correction=0).item() == pytest.approx(1)
    assert abs(x_held.mean()) > 1e-3
    assert y_held.shape == (12, 1)
    same = data(made(TABLE, FLOATS, standardize=False))
    both = torch.cat([same[0][1], same[1][1]]).flatten().sort()[0]
    np.testing.assert_allclose(both, np.sort(FLOATS), rtol=1e-6)


def test_a_constant_column_stays_finite_and_images_have_one_scale():
    x = TABLE.copy()
    x[:, 1] = 7.0
    assert (data(made(x, WHOLE))[0][0][:, 1] == 0).all()
    images = RANDOM.normal(2.0, 1.0, (ROWS, 1, 5, 5))
    images[:, :, 0] = 0.0
    (inputs, _), _ = data(made(images, WHOLE, model=lambda: nn.Sequential(nn.Flatten())))
    assert inputs.shape == (48, 1, 5, 5)
    assert inputs.mean().item() == pytest.approx(0, abs=1e-6)
    assert (inputs[:, :, 0] < -1).all()
    made(images, WHOLE).build(0).step()  # the mlp flattens them


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5, 0.9])
def test_the_split_has_every_class_alike_and_leaves_no_sample_out(share):
    y = np.repeat([5, 3, 9], [10, 20, 30])
    x = np.arange(60.0).reshape(-1, 1)
    (a, b), (c, d) = data(made(x, y, validation=share, standardize=False, seed=3))
    assert sorted(torch.cat([a, c]).flatten().tolist()) == list(range(60))
    assert len(c) == round(60 * share)
    for label, count in enumerate((20, 10, 30)):  # 3, 5, 9 in order
        assert abs((d == label).sum() - count * share) <= 1
    assert torch.equal(b, torch.tensor([1, 0, 2])[(a[:, 0] >= 10).long() + (a[:, 0] >= 30).long()])


def test_the_split_is_of_its_own_seed():
    one, two = data(made(TABLE, FLOATS)), data(made(TABLE, FLOATS))
    assert torch.equal(one[1][0], two[1][0])
    assert not torch.equal(one[1][0], data(made(TABLE, FLOATS, seed=1))[1][0])


def test_a_validation_part_of_its_own():
    task = made(TABLE, TEXTS, validation=(TABLE[:9], TEXTS[:9]))
    assert "69 samples" in repr(task)
    assert "9 held out" in repr(task)
    (x, _), (held, labels) = data(task)
    assert torch.equal(held, x[:9])
    assert labels.tolist() == WHOLE[:9].tolist()


@pytest.mark.parametrize(("rows", "width"), [(30, 16), (2000, 32), (20_000, 128), (400_000, 256)])
def test_the_width_of_the_mlp_grows_with_the_samples(rows, width):
    x, y = np.arange(float(rows)).reshape(-1, 1), np.arange(rows) % 2
    assert f"mlp 1-{width}-{width}-2" in repr(made(x, y))


def test_whole_numbers_may_be_regressed_and_floats_classified():
    assert "regression (y holds whole numbers)" in repr(made(TABLE, WHOLE, kind="regression"))
    task = made(TABLE, WHOLE.astype(float), kind="classes", metric="accuracy")
    assert "2 classes (y holds floats)" in repr(task)
    assert 0 <= task.build(0).evaluate()["accuracy"] <= 1


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_a_table_conforms(kind):
    task = made(TABLE, WHOLE if kind == "classes" else FLOATS, batch_size=10, epochs=3)
    assert conformance(task) == ()


@pytest.mark.parametrize(
    ("load", "settings", "reached"),
    [
        (load_digits, {"metric": "accuracy"}, 0.93),
        (load_breast_cancer, {"metric": "accuracy"}, 0.93),
        (load_wine, {"metric": "accuracy", "model": "logistic", "optimizer": "sgd"}, 0.93),
        (load_diabetes, {"model": "linear", "optimizer": "sgd"}, 0.65),
    ],
)
def test_the_defaults_learn(load, settings, reached):
    task = made(*load(return_X_y=True), **settings)
    run = task.build(0)
    for _ in range(task.horizon.steps):
        run.step()
    value = run.evaluate()[task.metric.name]
    assert value > reached if task.metric.better == "higher" else value < reached


class Sparse:
    def toarray(self):
        return TABLE

    def __len__(self):
        return ROWS


BROKEN = TABLE.copy()
BROKEN[17, 2] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "settings", "words"),
    [
        (TABLE, WHOLE[:50], {}, "X and y must be of the same length, got '60 and 50'"),
        (BROKEN, WHOLE, {}, "in row 17'; leave such samples out, or fill them"),
        (TABLE, np.where(WHOLE, np.inf, 1.0), {}, "y must be finite"),
        (TABLE, np.ones(ROWS, int), {}, "y must be of two classes or more, got 'one, 1'"),
        (TABLE, ["a"] * ROWS, {}, "y must be of two classes or more, got \"one, 'a'\""),
        (TABLE, np.ones(ROWS), {}, "y must be of different targets, got '1.0 everywhere'"),
        (TABLE[:0], WHOLE[:0], {}, "X must be of samples in rows, with features, got (0, 4)"),
        (TABLE[:, 0], WHOLE, {}, "of one feature: X.reshape(-1, 1)"),
        (TABLE[:, :0], WHOLE, {}, "X must be of samples in rows, with features, got (60, 0)"),
        (TEXTS.reshape(-1, 1), WHOLE, {}, "X must be numbers, got 'an array of <U3'"),
        (Frame(TEXTS.reshape(-1, 1).astype(object)), WHOLE, {}, "X must be numbers"),
        ([[1.0], [2.0, 3.0]], [0, 1], {}, "X must be an array of numbers"),
        (Sparse(), WHOLE, {}, "X must be an array, got 'Sparse'; give X.toarray()"),
        (TABLE, [None] * ROWS, {}, "y must be numbers or texts"),
        (TABLE, np.arange(ROWS), {}, "y must be classes that repeat, got '60 whole numbers for 60"),
        (TABLE, np.stack([WHOLE, WHOLE], 1), {}, "y must be one class for each sample"),
        (TABLE, 5, {}, "y must be a target for each of 60 samples, got ()"),
        (TABLE, TEXTS, {"kind": "regression"}, "kind must be 'classes' for texts"),
        (TABLE, WHOLE, {"kind": "clases"}, "did you mean 'classes'"),
        (TABLE, WHOLE, {"validation": 0.0}, "validation must be a finite number > 0 and < 1"),
        (TABLE, WHOLE, {"validation": 1.0}, "validation must be a finite number > 0 and < 1"),
        (TABLE, WHOLE, {"validation": 1e-3}, "validation must be a share that leaves samples"),
        (TABLE, WHOLE, {"validation": (TABLE,)}, "validation must be a share, or a pair (X, y)"),
        (TABLE, WHOLE, {"validation": (TABLE[:, :2], WHOLE)}, "of the features and targets of X"),
        (TABLE, WHOLE, {"validation": (TABLE, WHOLE + 1)}, "classes that y has, got 2"),
        (
            TABLE,
            WHOLE,
            {"validation": (TABLE[:3], WHOLE)},
            "validation X and y must be of the same",
        ),
        (TABLE, WHOLE, {"model": "mpl"}, "model must be 'mlp', 'logistic' or a function"),
        (TABLE, WHOLE, {"model": "linear"}, "model must be 'mlp', 'logistic' or a function"),
        (TABLE, FLOATS, {"model": "logistic"}, "model must be 'mlp', 'linear' or a function"),
        (TABLE, WHOLE, {"optimizer": "adam"}, "or a function of the parameters, got 'adam'; did"),
        (TABLE, WHOLE, {"optimizer": optim.SGD, "lr": 0.1}, "lr must be left out beside"),
        (TABLE, WHOLE, {"lr": -0.1}, "lr must be a finite number >= 0"),
        (TABLE, WHOLE, {"batch_size": 0}, "batch_size must be a whole number >= 1"),
        (TABLE, WHOLE, {"seed": -1}, "seed must be a whole number >= 0"),
        (TABLE, WHOLE, {"epochs": 3, "horizon": Horizon(3)}, "epochs must be given, or a horizon"),
    ],
)
def test_what_is_wrong_is_said(x, y, settings, words):
    with pytest.raises(FieldError) as error:
        made(x, y, **settings)
    assert words in str(error.value)


def test_a_model_whose_outputs_do_not_fit_the_targets_is_refused():
    run = made(TABLE, FLOATS, model=lambda: nn.Linear(4, 3)).build(0)
    with pytest.raises(
        FieldError, match=r"an output for each target, got '\(48, 3\) and \(48, 1\)"
    ):
        run.step()
    made(TABLE, FLOATS, model=lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))).build(0).step()
