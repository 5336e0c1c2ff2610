"""The two ready-made forms of a task of a torch model."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch.nn import Module
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.task import Metric, Task
from stepsize.time import Horizon
from stepsize.torch.tasks.models import Choices
from stepsize.torch.tasks.run import LossFn, Setting, TorchRun
from stepsize.torch.tasks.score import judged_by
from stepsize.torch.tasks.source import Data, Sizes, read_data
from stepsize.torch.tasks.table import Table
from stepsize.units import Time

_WHOLE = Bounds(ge=1, whole=True)
_SEED = Bounds(ge=0, whole=True)


class TorchTask(Task):
    """A task of a torch model; made by `Task.from_torch` and `Task.from_arrays`."""

    def __init__(self, setting: Setting, horizon: Horizon, metric: Metric, about: str) -> None:
        self._setting, self.horizon, self.metric, self._about = setting, horizon, metric, about
        self._last: Callable[[], Module | None] = lambda: None

    def __repr__(self) -> str:
        judged = f"{self.metric.name}, {self.metric.better} is better"
        return f"<task: {self._about}; {self.horizon!r}; {judged}>"

    def build(self, seed: int) -> TorchRun:
        """Start a training from a whole number >= 0."""
        last = self._last()
        run = TorchRun(self._setting, int(_SEED.admit("Task.build: seed", seed)))
        if run.model is last:
            rule = "a function that makes a new module at every call"
            raise FieldError.of("Task: model_fn", rule, "the same one", "build it inside")
        self._last = weakref.ref(run.model)
        return run


def from_torch(
    model_fn: Callable[[], Module],
    loss_fn: LossFn,
    train: Any,
    valid: Any,
    optimizer_fn: Callable[[Any], Optimizer],
    *,
    epochs: float | None = None,
    horizon: Horizon | None = None,
    batch_size: int | None = None,
    accumulate: int = 1,
    drop_last: bool = False,
    batches_per_epoch: int | None = None,
    metric: str | Callable[[Any, Any], Any] = "loss",
    better: Literal["lower", "higher"] | None = None,
    groups: Callable[[Module], Any] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    device: str | torch.device = "cpu",
    autocast: torch.dtype | None = None,
    evaluate_batch: int = 1024,
    about: str = "",
) -> TorchTask:
    """Make a task of a torch model, its loss, data and optimizer.

    Args:
        model_fn: makes the module; its first weights are those after `torch.manual_seed(seed)`.
        loss_fn: gives the mean loss, 0-d, of the model's outputs and the targets.
        train: a pair of arrays or tensors `(X, y)`, kept on the device whole; a dataset of pairs; a
            `DataLoader`; or a function `train(seed, epoch)` that gives an epoch's batches.
        valid: the same, but a function is `valid()`.
        optimizer_fn: makes the optimizer, of the model's parameters.
        epochs: how long a training is; or give `horizon`.
        horizon: how long a training is; what it says of batches must be true.
        batch_size: samples of a batch; left out where `train` gives batches.
        accumulate: batches whose mean gradient makes a step; an epoch's last step may have fewer.
        drop_last: leave the smaller batch at the end of an epoch out.
        batches_per_epoch: how many batches the function `train` gives.
        metric: "loss", the mean validation loss; "accuracy"; or a function of all outputs and
            targets of the validation part, which is then known by its name.
        better: "lower" or "higher", for a function.
        groups: makes the param groups of the model, `layer_decay` for instance; without it the
            optimizer is given `model.parameters()`.
        collate: makes a batch of a list of a dataset's samples, as of a `DataLoader`.
        device: where model and batches are.
        autocast: `torch.bfloat16`: forward passes in mixed precision.
        evaluate_batch: samples of a batch in validation.
        about: what it is, for its repr.

    Arrays that are no tensors get torch's default floating-point type, whole targets int64.
    Every optimizer is given a closure, so line searches work. A dataset's own random numbers, of
    torch, NumPy and `random`, are drawn from (seed, step) too, in this process; workers of a
    `DataLoader` are seeded by torch.

    Raises:
        FieldError: for what cannot be trained.

    >>> from torch import nn, optim
    >>> x = torch.arange(8.0).reshape(8, 1)
    >>> task = from_torch(
    ...     lambda: nn.Linear(1, 1), nn.functional.mse_loss, (x, 2 * x), (x, 2 * x),
    ...     lambda params: optim.SGD(params, lr=0.01), epochs=5, batch_size=4,
    ... )
    >>> task
    <task: 8 training samples; Horizon('5ep', batches_per_epoch=2, batch_size=4); loss, lower is \
better>
    >>> sorted(task.build(0).step())
    ['loss']
    """
    accumulate = int(_WHOLE.admit("Task: accumulate", accumulate))
    if batches_per_epoch is not None:
        batches_per_epoch = int(_WHOLE.admit("Task: batches_per_epoch", batches_per_epoch))
    per_evaluation = int(_WHOLE.admit("Task: evaluate_batch", evaluate_batch))
    sizes = Sizes(batch_size, accumulate, drop_last, batches_per_epoch, per_evaluation)
    place = _device(device)
    data = read_data(train, valid, collate, sizes, place)
    score, judged = judged_by(metric, better)
    setting = Setting(
        model_fn, loss_fn, optimizer_fn, groups, data, place, _cast(autocast), data.chance, score
    )
    length = _horizon(epochs, horizon, data, getattr(train, "batch_size", batch_size))
    return TorchTask(setting, length, judged, about or _about(data))


def from_arrays(  # noqa: D417 (what from_torch has too is described there)
    X: Any,  # noqa: N803 (the name it has elsewhere)
    y: Any,
    *,
    kind: Literal["classes", "regression"] | None = None,
    model: str | Callable[[], Module] = "mlp",
    optimizer: str | Callable[[Any], Optimizer] = "adamw",
    lr: float | None = None,
    validation: float | tuple[Any, Any] = 0.2,
    standardize: bool = True,
    epochs: float | None = None,
    horizon: Horizon | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **settings: Any,
) -> TorchTask:
    """Make a task of a table and its targets; its repr says what was made of them.

    Args:
        X: samples in rows: an array, a data frame, a tensor; any further axes for a model of one's
            own.
        y: whole numbers, bools or texts, which are classes; or floats, which are regressed.
        kind: "classes" or "regression", where that is not what is meant.
        model: "mlp", two hidden layers whose width grows with the square root of the samples;
            "logistic" for classes; "linear" for regression; or a function that makes a module.
        optimizer: "adamw"; "sgd", with momentum 0.9; or a function of the parameters.
        lr: its rate; 1e-3 for "adamw" and 0.1 for "sgd" where left out.
        validation: the share that is held out, of each class alike; or a pair `(X, y)` of its own.
        standardize: subtract the training part's mean and divide by its standard deviation, of
            every column (of X as a whole, where it has more axes), and of floats in y.
        epochs: 20, unless a `horizon` is given.
        batch_size: samples of a batch; all where there are fewer.
        seed: of the split; it is the same for all runs.
        settings: of `from_torch`: `metric`, `accumulate`, `device`, `groups` ...

    Raises:
        FieldError: for arrays of different lengths, what is not finite, a single class, a share
            that leaves one of the parts empty, and unknown names.

    >>> X, y = [[0.0], [1.0], [2.0], [3.0], [4.0]], ["no", "no", "no", "yes", "yes"]
    >>> Task.from_arrays(X, y, model="logistic", validation=0.4, epochs=10)
    <task: 5 samples of 1 feature, 2 classes (y holds texts); 2 held out; features standardized; \
logistic; adamw, lr 0.001; Horizon('10ep', batches_per_epoch=1, batch_size=3); loss, lower is \
better>
    """
    table = Table.of(X, y, kind, validation, standardize=standardize, seed=seed)
    chosen = Choices.of(table, model, optimizer, lr)
    size = int(_WHOLE.admit("Task: batch_size", batch_size))
    return from_torch(
        chosen.model_fn,
        table.loss_fn,
        table.train,
        table.valid,
        chosen.optimizer_fn,
        epochs=20 if epochs is None and horizon is None else epochs,
        horizon=horizon,
        batch_size=min(size, len(table.train[0])),
        about=f"{table.about}; {chosen.about}",
        **settings,
    )


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        told = str(error).partition("\n")[0]
        raise FieldError.of("Task: device", "one that torch has here", device, told) from None


def _cast(dtype: torch.dtype | None) -> torch.dtype | None:
    if dtype in (None, torch.bfloat16):
        return dtype
    cure = "float16 needs its losses scaled: write a Task of your own"
    raise FieldError.of("Task: autocast", "torch.bfloat16 or None", dtype, cure)


def _horizon(
    epochs: float | None, horizon: Horizon | None, data: Data, batch_size: int | None
) -> Horizon:
    if (epochs is None) == (horizon is None):
        given = None if epochs is None else "both"
        raise FieldError.of("Task: epochs", "given, or a horizon instead", given)
    known: dict[str, Any] = {
        "batches_per_epoch": data.batches,
        "batch_size": batch_size,
        "accumulate": data.sizes.accumulate,
    }
    if horizon is None:
        number = Bounds(gt=0).admit("Task: epochs", epochs)
        return Horizon(Time(float(number), "ep"), **known)
    if horizon.total is None:
        raise FieldError.of("Task: horizon", "of a known total", horizon, "give Horizon(2000)")
    return _filled(horizon, {**known, "last": "step"})


def _filled(horizon: Horizon, known: dict[str, Any]) -> Horizon:
    """Give the horizon what the data say; what it says itself must agree."""
    unset = Horizon(1)
    for name, value in known.items():
        given = getattr(horizon, name)
        if given not in (value, getattr(unset, name)) and value is not None:
            raise FieldError.of(f"Task: horizon.{name}", f"{value}, as the data have it", given)
    return replace(horizon, **{name: value for name, value in known.items() if value is not None})


def _about(data: Data) -> str:
    if callable(data.train):
        return f"{data.batches:,} batches in an epoch"
    return f"{len(data.train):,} training samples"
