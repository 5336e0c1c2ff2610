"""The step size of every element, read from the state of torch's optimizers after a step.

Each formula was read in the code of torch 2.13 and is tested against how its optimizer moves.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from stepsize.errors import FieldError

Found: TypeAlias = Tensor | float | None
Formula: TypeAlias = Callable[[Tensor, Mapping[str, Any], Mapping[str, Any]], Found]


@dataclass(frozen=True, slots=True)
class Rule:
    """A formula, and what it is given: sampled states if it is `elementwise`, else whole ones."""

    formula: Formula
    elementwise: bool


_RULES: dict[type, Rule] = {}
_RECTIFIED = 5.0  # from this length of the average on, RAdam divides by its root


def rate_of(*optimizers: type, elementwise: bool = False) -> Callable[[Formula], Formula]:
    """Let `step_sizes` know an optimizer by a formula `(parameter, state, group)`.

    It gives one number, a tensor of the parameter's shape, or None where nothing is known yet; NaN
    for an element that has no step size. `group["lr"]` is the one to count with. A subclass goes by
    its parent's formula, unless it has one of its own.

    Args:
        *optimizers: classes whose steps it describes.
        elementwise: it does the same to every element. Then the state's tensors of the parameter's
            shape come as a flat sample of their elements: far quicker for large models.

    >>> import torch
    >>> from stepsize.torch import step_sizes
    >>> class SignedSGD(torch.optim.Optimizer):
    ...     pass  # its step is w -= lr * scale * sign(w.grad)
    >>> @rate_of(SignedSGD)
    ... def of_signed_sgd(parameter, state, group):
    ...     return group["lr"] * group["scale"]
    >>> optimizer = SignedSGD([torch.ones(3, requires_grad=True)], {"lr": 0.5, "scale": 0.25})
    >>> step_sizes(optimizer)["group 0"].median
    0.125
    """

    def known(formula: Formula) -> Formula:
        _RULES.update(dict.fromkeys(optimizers, Rule(formula, elementwise)))
        return formula

    return known


def rule_of(optimizer: Any) -> Rule | None:
    """Give the rule of an optimizer's class, or of the nearest parent that has one."""
    return next((_RULES[c] for c in type(optimizer).__mro__ if c in _RULES), None)


def held_by(optimizer: Any) -> Optimizer | None:
    """Give the optimizer inside one, such as Accelerate's wrapper or `RegrettableDBD`."""
    held = getattr(optimizer, "optimizer", None)
    return held if isinstance(held, Optimizer) else None


def inside(optimizer: Any) -> Any:
    """Give what a wrapper holds that has no step size of its own; the optimizer itself else."""
    held = None if hasattr(optimizer, "sizes_of") else held_by(optimizer)
    return optimizer if held is None else inside(held)


def check_known(optimizer: Any) -> None:
    """Raise `FieldError` for an optimizer whose step sizes cannot be told."""
    sized, held = hasattr(optimizer, "sizes_of"), held_by(optimizer)
    if held is not None:
        check_known(held)
    elif not sized and rule_of(optimizer) is None:
        names = ", ".join(sorted(c.__name__ for c in _RULES))
        raise FieldError.of(
            "step_sizes: the optimizer",
            f"one of {names}, or one with a method sizes_of(parameter)",
            type(optimizer).__name__,
            "give it that method (the step size of every element, without lr), or tell its formula "
            "with the decorator stepsize.torch.rate_of",
        )


def _known(*names: str, needs: str = "") -> Callable[[Formula], Formula]:
    """Enter torch's own; nothing is known before the state has `needs`."""
    classes = [c for c in (getattr(torch.optim, n, None) for n in names) if c is not None]

    def enter(formula: Formula) -> Formula:
        def ready(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
            return formula(parameter, state, group) if not needs or needs in state else None

        return rate_of(*classes, elementwise=True)(ready)

    return enter


def scalar_of(value: Any) -> Any:
    """Give a number exactly; one on a GPU stays there, unread."""
    if not isinstance(value, Tensor):
        return float(value)
    if value.device.type == "cpu":
        return float(value.item())
    return (value if value.device.type == "mps" else value.double()).reshape(())


def _moved(memory: Tensor, rate: Tensor, least: float = 0.0) -> Tensor:
    """Give the rate where there ever was a gradient; without one, `lr / eps` would be no step."""
    return torch.where(memory > least, rate, math.nan)


def _corrected(state: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[Tensor, Any]:
    """Give the average of squared gradients, and what corrects its beginning at 0."""
    squares = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    return squares, 1 - scalar_of(group["betas"][1]) ** scalar_of(state["step"])


@_known("SGD")
def _sgd(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the gradient, or of the momentum buffer."""
    del parameter, state
    return scalar_of(group["lr"])


@_known("ASGD", needs="eta")
def _asgd(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the next step: torch has written over that of the last."""
    del parameter, group
    return scalar_of(state["eta"])


@_known("Rprop", needs="step_size")
def _rprop(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the gradient's sign; `lr` was but its beginning."""
    del parameter, group
    return state["step_size"]


@_known("Muon")
def _muon(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the orthogonal matrix that the average of gradients is turned into."""
    del state
    rows, columns = parameter.shape[:2]
    way = group["adjust_lr_fn"] or "original"
    ratios = {
        "original": math.sqrt(max(1.0, rows / columns)),
        "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
    }
    return scalar_of(group["lr"]) * ratios.get(way, 1.0)


@_known("Adagrad", needs="sum")
def _adagrad(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the gradient. The sum is there before the first step."""
    del parameter
    step = scalar_of(state["step"])
    lr = scalar_of(group["lr"]) / (1 + (step - 1) * group["lr_decay"])
    rate = _moved(state["sum"], lr / (state["sum"].sqrt() + group["eps"]))
    return torch.where(torch.as_tensor(step > 0, device=rate.device), rate, math.nan)


@_known("Adadelta", needs="acc_delta")
def _adadelta(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the gradient; with the movements that the next step begins with, the last included."""
    del parameter
    squares, eps = state["square_avg"], group["eps"]
    return _moved(
        squares,
        scalar_of(group["lr"]) * (state["acc_delta"] + eps).sqrt() / (squares + eps).sqrt(),
    )


@_known("RMSprop", needs="square_avg")
def _rmsprop(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the gradient: what it enters the momentum buffer with, where there is one."""
    del parameter
    squares = around = state["square_avg"]
    if group["centered"]:
        around = squares - state["grad_avg"].square()
    return _moved(squares, scalar_of(group["lr"]) / (around.sqrt() + group["eps"]))


@_known("Adam", "AdamW", "NAdam", needs="exp_avg_sq")
def _adam(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the corrected average of gradients; NAdam's looks one step ahead."""
    del parameter
    squares, correction = _corrected(state, group)
    root = (squares / correction).sqrt()
    return _moved(squares, scalar_of(group["lr"]) / (root + group["eps"]))


@_known("Adamax", needs="exp_inf")
def _adamax(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the corrected average of gradients; `eps` is in the norm already."""
    del parameter
    norm = state["exp_inf"]
    least = 1.01 * group["eps"]  # which bfloat16 rounds by up to 0.4 %
    return _moved(norm, scalar_of(group["lr"]) / norm, least)


@_known("RAdam", needs="exp_avg_sq")
def _radam(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Of the corrected average of gradients: `lr` itself in the first steps."""
    del parameter
    squares, correction = _corrected(state, group)
    most = 2 / (1 - scalar_of(group["betas"][1])) - 1
    length = most - 2 * scalar_of(state["step"]) * (1 - correction) / correction
    length = torch.as_tensor(length, dtype=torch.float64, device=squares.device)
    share = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    scaled = share.sqrt() * correction**0.5 / (squares.sqrt() + group["eps"])
    return _moved(squares, scalar_of(group["lr"]) * torch.where(length > _RECTIFIED, scaled, 1.0))
