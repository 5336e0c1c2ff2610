"""Trainings of a task that are watched: what they gave, and where two of them part."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepsize.conform.streams import moved, streams
from stepsize.lint.subject import Finding, Level
from stepsize.schedules.names import shown
from stepsize.task import Run, Task

METHODS = ("step", "evaluate", "state_dict", "load_state_dict")


class Broken(Exception):  # noqa: N818 (it says nothing to a user: it carries a finding)
    """The task does something after which nothing more can be found out."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def fault(
    rule: str, what: str, cure: str, step: int | None = None, level: Level = "error"
) -> Finding:
    """Give a finding, of a step of the training or of all of it."""
    if step is None:
        return Finding(rule, level, "", "", what, cure)
    return Finding(rule, level, "", f"step {step}", what, cure, float(step), "steps")


@dataclass(slots=True)
class Trial:
    """Builds runs of one task and calls them; what they do to the global streams is noted.

    Attributes:
        metric: the key of the metric.
        disturbed: by the name of a call, the streams that it moved.
    """

    task: Task
    metric: str
    disturbed: dict[str, list[str]] = field(default_factory=dict)

    def build(self, seed: int) -> Run:
        """Start a training."""
        run: Run = self._called("build", lambda: self.task.build(seed), None)
        lacks = [name for name in METHODS if not callable(getattr(run, name, None))]
        if lacks or not hasattr(run, "optimizer"):
            name = lacks[0] if lacks else "optimizer"
            what = f"build() gives a {type(run).__name__}, which has no {name}"
            raise Broken(fault("run", what, f"write {name}: see stepsize.task.Run"))
        return run

    def step(self, run: Run, number: int) -> float:
        """Take a step; give its loss."""
        told = self._called("step", run.step, number)
        if not isinstance(told, Mapping) or "loss" not in told:
            what = f"step() gives {shown(told)}, which has no loss"
            raise Broken(fault("loss", what, 'return {"loss": loss}', number))
        loss = _number(told["loss"])
        if loss is None or not math.isfinite(loss):
            what = f"the loss is {shown(told['loss'])}"
            cure = "give a finite number or a 0-d tensor; if it diverges, lower the rate"
            raise Broken(fault("loss", what, cure, number))
        return loss

    def evaluate(self, run: Run, number: int) -> dict[str, float]:
        """Evaluate after so many steps; give the numbers by name."""
        told = self._called("evaluate", run.evaluate, number)
        value = _number(told.get(self.metric)) if isinstance(told, Mapping) else None
        if value is None or not math.isfinite(value):
            what = f"evaluate() gives {shown(told)}, which has no finite {self.metric!r}"
            cure = f"return it, or set metric to what is returned instead of {self.metric!r}"
            raise Broken(fault("metric", what, cure, number))
        numbers = {name: _number(each) for name, each in told.items()}
        return {name: number for name, number in numbers.items() if number is not None}

    def save(self, run: Run, number: int) -> dict[str, Any]:
        """Give the run's state after so many steps."""
        state: dict[str, Any] = self._called("state_dict", run.state_dict, number)
        return state

    def load(self, run: Run, state: dict[str, Any], number: int) -> None:
        """Have a run go on from a state."""
        self._called("load_state_dict", lambda: run.load_state_dict(state), number)

    def steps(self, run: Run, first: int, last: int) -> list[float]:
        """Take the steps from the one with a number to that before another; give their losses."""
        return [self.step(run, number) for number in range(first, last)]

    def _called(self, name: str, call: Callable[[], Any], step: int | None) -> Any:
        before = streams()
        try:
            told = call()
        except Exception as error:
            what = f"{name}() raises {type(error).__name__}: {error}"
            raise Broken(
                fault("raises", what, "make every step of the horizon go through", step)
            ) from error
        if names := moved(before, streams()):
            self.disturbed.setdefault(name, names)
        return told


def _number(given: Any) -> float | None:
    try:
        return float(given.detach() if hasattr(given, "detach") else given)
    except (TypeError, ValueError, RuntimeError):
        return None


def parting(
    first: list[float], second: list[float], start: int = 0
) -> tuple[int, float, float] | None:
    """Give the first step whose losses differ, and both; None where they are the same."""
    pairs = enumerate(zip(first, second, strict=True), start)
    return next(((step, a, b) for step, (a, b) in pairs if a != b), None)


def differing(first: dict[str, float], second: dict[str, float]) -> str:
    """Say which numbers of two evaluations differ; nothing where they are the same."""
    names = [n for n in first if repr(second.get(n)) != repr(first[n])]  # nan is nan here
    told = [f"{name} {first[name]!r} and {second.get(name)!r}" for name in names]
    return ", ".join(told)
