"""What a torch task is judged by, beside its loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stepsize.errors import FieldError
from stepsize.schedules.names import nearest
from stepsize.task import Metric


@dataclass(frozen=True, slots=True)
class Score:
    """A metric beside the loss: a function of all outputs and targets of the validation part."""

    name: str
    of: Callable[[Any, Any], Any]
    in_steps: bool = False


def judged_by(metric: Any, better: Any) -> tuple[Score | None, Metric]:
    """Read the arguments `metric` and `better` of `from_torch`."""
    if callable(metric):
        if better is None:
            raise FieldError.of("Task: better", "'lower' or 'higher' beside a function", None)
        name = getattr(metric, "__name__", type(metric).__name__)
        return Score(name, metric), Metric(name, better)
    if better is not None:
        raise FieldError.of("Task: better", "left out, unless metric is a function", better)
    if metric == "loss":
        return None, Metric()
    if metric == "accuracy":
        return Score("accuracy", _accuracy, in_steps=True), Metric("accuracy", "higher")
    cure = nearest(metric, ["loss", "accuracy"]).lstrip(", ")
    raise FieldError.of("Task: metric", "'loss', 'accuracy' or a function", metric, cure)


def _accuracy(outputs: Any, targets: Any) -> Tensor:
    """Give the share of targets whose score, along the second axis, is the highest."""
    if outputs.dim() != targets.dim() + 1:
        shapes = f"{tuple(outputs.shape)} and {tuple(targets.shape)}"
        rule = "for outputs with a score for each class and targets that are classes"
        raise FieldError.of("Task: metric 'accuracy'", rule, shapes, "give a function")
    right: Tensor = (outputs.argmax(1) == targets).float().mean()
    return right
