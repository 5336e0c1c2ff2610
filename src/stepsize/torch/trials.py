"""One trial of a range test: steps with rising rates, and what was seen before each of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.finding.divergence import Divergence
from stepsize.schedules.fields import Bounds
from stepsize.torch import ranks
from stepsize.torch.ramping import Hand

Seen = dict[str, float]
Told = Callable[[int, int, float, float], Any]
_NAMES = ("loss", "accuracy")
_PATIENCE = 32  # calls without a step of the optimizer: a GradScaler begins with a dozen of them


@dataclass(frozen=True)
class Settings:
    """What all trials of a test have in common.

    Args:
        rates: of every step.
        diverged: the factor of `Divergence`.
        accumulate: how many calls make a step, if the calls are the optimizer's.
        autocast: the dtype in which losses are computed, if that is not the parameters'.
        on_step: called with the number of the trial, of the step, the rate and the loss.
    """

    rates: tuple[float, ...]
    diverged: float | None
    accumulate: int = 1
    autocast: torch.dtype | None = None
    on_step: Told | None = None

    def __post_init__(self) -> None:
        Bounds(ge=1, whole=True).admit("accumulate", self.accumulate)
        if self.diverged is not None:
            Bounds(gt=0).admit("diverged", self.diverged)


@dataclass
class Row:
    """What one trial saw, and how it ended: "end", "diverged" or "not finite"."""

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ended: str = "end"


@torch.enable_grad()
def trial(
    optimizer: Optimizer,
    call: Callable[[], Any],
    settings: Settings,
    ratios: Sequence[tuple[str, float]],
    repeat: int,
) -> Row:
    """Let the rate rise from step to step; `call` does the training and gives the loss."""
    hand, row = Hand(optimizer, ratios), Row()
    rule = Divergence(settings.diverged, _digits(optimizer, settings.autocast))
    read = _numbers if ranks.ranks() == 1 else _means
    for step, rate in enumerate(settings.rates):
        hand.take(rate)
        seen = read(call())
        loss = seen["loss"]
        if not (hand.stepped and math.isfinite(loss)):
            more = _more(lambda: read(call()), hand, settings, first=step == 0, begun=seen)
            if more is None:
                row.ended = "not finite"
                break
            seen, loss = more, more["loss"]
        row.losses.append(loss)
        if len(seen) > 1:
            row.scores.append(seen["accuracy"])
        if settings.on_step is not None:
            settings.on_step(repeat, step, rate, loss)
        if rule.sees(loss):
            row.ended = "diverged"
            break
    return row


def _more(
    call: Callable[[], Seen], hand: Hand, settings: Settings, *, first: bool, begun: Seen
) -> Seen | None:
    """Call until the optimizer has stepped; give the means, or None where one is not finite."""
    found = [begun]
    while math.isfinite(found[-1]["loss"]):
        if hand.stepped:
            return _mean(found)
        if len(found) >= max(_PATIENCE, 2 * settings.accumulate):
            break
        found.append(call())
    else:
        if first:
            cure = "look at the data, at the first weights, and at the dtype"
            raise FieldError.of("loss", "finite before the first step", found[-1]["loss"], cure)
        return None
    if first:
        cure = "step the optimizer given here, or give accumulate=, the calls that make a step"
        given = f"{len(found)} calls without a step"
        raise FieldError.of("step", "what steps the optimizer", given, cure)
    return None  # no gradient is finite any more: a GradScaler leaves out all steps


def _means(given: Any) -> Seen:
    """Read what a call gave; the means over the ranks."""
    return ranks.means(partial(_numbers, given), _NAMES, "range_test")


def _mean(found: list[Seen]) -> Seen:
    return {name: sum(seen[name] for seen in found) / len(found) for name in found[0]}


def _numbers(given: Any) -> Seen:
    if type(given) is Tensor and given.numel() == 1:  # a DTensor is read as a whole
        return {"loss": given.item()}
    if isinstance(given, Tensor) or not isinstance(given, Mapping):
        return {"loss": _number("loss", given)}
    told = {name: given[name] for name in _NAMES if given.get(name) is not None}
    if "loss" not in told:
        cure = "give {'loss': loss}, or the loss alone"
        raise FieldError.of("step", "what gives a loss", sorted(map(str, given)), cure)
    return {name: _number(name, value) for name, value in told.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return ranks.scalar(value)
    if isinstance(value, Tensor) or value is None:
        given = "None" if value is None else f"a tensor of shape {tuple(value.shape)}"
        raise FieldError(f"step must be what gives one number as {name}, got {given}; return it")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise FieldError.of("step", f"what gives one number as {name}", value) from None


def _digits(optimizer: Optimizer, autocast: torch.dtype | None) -> float:
    dtypes = {p.dtype for group in optimizer.param_groups for p in group["params"]}
    dtypes |= set() if autocast is None else {autocast}
    return max((torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point), default=0.0)
