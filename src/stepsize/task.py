"""A task: a thing that can be trained from a seed, and compared with itself.

What looks for a rate, or lets schedules compete, asks for a `Task` and nothing else. Two forms are
ready-made, `Task.from_torch` and `Task.from_arrays`; a loop of one's own becomes a task by the
methods of a `Run`.
"""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from stepsize.errors import FieldError, StepsizeError
from stepsize.time import Horizon


@dataclass(frozen=True, slots=True)
class Metric:
    """What a run is judged by: a key of what `Run.evaluate()` gives, and its direction.

    Args:
        name: the key.
        better: "lower" or "higher".

    >>> Metric("accuracy", "higher")
    Metric(name='accuracy', better='higher')
    """

    name: str = "loss"
    better: Literal["lower", "higher"] = "lower"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise FieldError.of("Metric.name", "a key of what evaluate() gives", self.name)
        if self.better not in ("lower", "higher"):
            raise FieldError.of("Metric.better", "'lower' or 'higher'", self.better)


@runtime_checkable
class Run(Protocol):
    """One training, from one seed.

    Everything random in it is a function of its seed and its position, or is saved: a run that
    loads a state goes on as the run that gave it would have, to the bit, at any step.
    """

    @property
    def optimizer(self) -> Any:
        """The optimizer, whose `param_groups` hold the rates: a `torch.optim.Optimizer`."""

    def step(self) -> Mapping[str, Any]:
        """Take one optimizer step; give its "loss", before the step, as a number or 0-d tensor."""

    def evaluate(self) -> Mapping[str, float]:
        """Give the metrics by name; nothing of the training changes."""

    def state_dict(self) -> dict[str, Any]:
        """Give all that the run needs to go on; it can be pickled, and stays as it is."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class Task(abc.ABC):
    """A thing that can be trained from a seed.

    Attributes:
        horizon: how long a whole training is.
        metric: what it is judged by; the "loss" of `evaluate()`, unless said otherwise.

    The order of the data is a function of the seed and the epoch: two schedules compared on one
    seed see the same batches. `stepsize check TASK.py` finds out whether all of that holds.
    """

    horizon: Horizon
    metric: Metric = Metric()

    @abc.abstractmethod
    def build(self, seed: int) -> Run:
        """Start a training: another seed gives other first weights and another order of data."""

    @staticmethod
    def from_torch(
        model_fn: Callable[[], Any],
        loss_fn: Callable[[Any, Any], Any],
        train: Any,
        valid: Any,
        optimizer_fn: Callable[[Any], Any],
        **settings: Any,
    ) -> "Task":
        """Make a task of a torch model: see `stepsize.torch.tasks.from_torch`."""
        make = _forms().from_torch
        made: Task = make(model_fn, loss_fn, train, valid, optimizer_fn, **settings)
        return made

    @staticmethod
    def from_arrays(X: Any, y: Any, **settings: Any) -> "Task":  # noqa: N803 (the name it has elsewhere)
        """Make a task of a table and its targets: see `stepsize.torch.tasks.from_arrays`."""
        made: Task = _forms().from_arrays(X, y, **settings)
        return made


def _forms() -> Any:
    try:
        from stepsize.torch import tasks  # noqa: PLC0415 (methods that only forward)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise StepsizeError(
            "Task.from_torch and Task.from_arrays need torch: pip install 'stepsize[torch]'"
        ) from None
    return tasks
