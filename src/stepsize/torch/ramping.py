"""Writing a rising rate into an optimizer, whatever else writes there, step by real step."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from stepsize.errors import FieldError
from stepsize.schedules.ramps import Geometric, Linear
from stepsize.torch import hooks
from stepsize.torch.binding import group_names
from stepsize.torch.cell import ALARM
from stepsize.torch.claims import writers
from stepsize.torch.groups import Group, number
from stepsize.torch.known_rates import held_by

RAMPS = {"geometric": Geometric, "linear": Linear}
RATE, STEPPED = range(2)


def rates_of(ramp: str, start: float, stop: float, steps: int) -> tuple[float, ...]:
    """Give the rate of every step: `start` at the first, `stop` at the last.

    >>> [round(rate, 12) for rate in rates_of("geometric", 1e-3, 10.0, 5)]
    [0.001, 0.01, 0.1, 1.0, 10.0]
    """
    value = RAMPS[ramp](steps - 1, start=start, stop=stop)
    return tuple(value(step) for step in range(steps))


class Hand:
    """Writes a rate right before every step of an optimizer, and sees whether one was made.

    A scheduler may have written before: it is written over. A step that a GradScaler leaves out is
    none: a fused optimizer is called for it, too, and told. torch.compile does not follow the hook.
    """

    def __init__(self, optimizer: Optimizer, ratios: Sequence[tuple[str, float]]) -> None:
        self._cell: list[Any] = [0.0, False]
        cell, by = self._cell, [ratio for _, ratio in ratios]

        def write(optimizer: Any, args: Any, kwargs: Any) -> None:
            del args, kwargs
            rate, found = cell[0], getattr(optimizer, "found_inf", None)
            cell[1] = found is None or cell[1] or not found.item()
            groups = optimizer.param_groups
            if len(groups) != len(by):
                rule = f"of the {len(by)} groups that it began with, throughout the test"
                raise FieldError.of("optimizer", rule, f"{len(groups)} groups")
            for group, ratio in zip(groups, by, strict=True):
                held = group["lr"]
                if isinstance(held, Tensor):
                    held.fill_(rate * ratio)
                else:
                    group["lr"] = rate * ratio

        hooks.before_steps(_with_hooks(optimizer), write)

    def take(self, rate: float) -> None:
        """Write this rate from now on, and wait for a step."""
        self._cell[RATE], self._cell[STEPPED] = rate, False

    @property
    def stepped(self) -> bool:
        """Whether there was a step with the present rate."""
        return bool(self._cell[STEPPED])


def _with_hooks(optimizer: Any) -> Any:
    """Give the optimizer itself, or the one in a wrapper that has no hooks."""
    found = optimizer
    while found is not None and not hasattr(found, "_optimizer_step_pre_hooks"):
        found = held_by(found)
    if found is None:
        rule = "one with hooks, as every torch.optim.Optimizer has"
        raise FieldError.of("optimizer", rule, type(optimizer).__name__)
    return found


def check_optimizer(optimizer: Any) -> None:
    """Raise `FieldError` for an optimizer that a ramp cannot drive."""
    name = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer):
        raise FieldError.of("optimizer", "a torch.optim.Optimizer", name)
    closing = getattr(optimizer, "needs_closure", False) or isinstance(optimizer, LBFGS)
    if closing or _asks(optimizer):
        rule = "one whose step needs no closure: a closure evaluates at several places in one step"
        cure = "find the rate of the same model with SGD or Adam, or set this one's by hand"
        raise FieldError.of("optimizer", rule, name, cure)
    if not all("lr" in group for group in optimizer.param_groups):
        raise FieldError.of("optimizer", "one whose groups have lr", name)


def _asks(optimizer: Optimizer) -> bool:
    """Say whether its step cannot be called without arguments."""
    given = list(inspect.signature(type(optimizer).step).parameters.values())[1:]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in plain and each.default is each.empty for each in given)


def ratios_of(optimizer: Optimizer) -> tuple[tuple[str, float], ...]:
    """Give every group's name and its rate over the first one's.

    Where a warmup holds all rates at 0 just now, it is `initial_lr` that is compared.

    Raises:
        FieldError: for a first group at 0 beside others, without that.
    """
    groups = optimizer.param_groups
    names = list(group_names([(0, g, group) for g, group in enumerate(groups)], 1))
    rates = _rates(groups)
    if len(rates) == 1:
        return ((names[0], 1.0),)
    if not (rates[0] and all(map(math.isfinite, rates))):
        cure = "give it the rate that it has beside the others, such as lr=1.0"
        raise FieldError.of(f"optimizer: the rate of {names[0]}", "above 0", rates[0], cure)
    return tuple((name, rate / rates[0]) for name, rate in zip(names, rates, strict=True))


def _rates(groups: Sequence[Group]) -> list[float]:
    present = [number(group["lr"]) for group in groups]
    if present[0] == 0 and all("initial_lr" in group for group in groups):
        return [number(group["initial_lr"]) for group in groups]
    return present


def quieten(optimizer: Optimizer) -> None:
    """Let stepsize's own schedulers neither count nor warn, until all is put back."""
    for scheduler in writers(optimizer):
        hooks.remove_all(list(scheduler._removers))  # noqa: SLF001 (a scheduler's own ends its life)
        scheduler._cell[ALARM] = math.inf  # noqa: SLF001 (the same)
