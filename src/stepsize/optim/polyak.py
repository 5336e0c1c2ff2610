"""Stochastic gradient descent with Polyak's step size: how far the loss is from its least value."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.again import Closure
from stepsize.optim.base import POSITIVE, Flag, settings
from stepsize.optim.ray import Ceiling, Departure, OneForAll, Ray
from stepsize.optim.whole import mean_loss
from stepsize.schedules.fields import Bounds

_NUMBER = Bounds()


class _Least:
    """The least value of the loss, or "estimate"."""

    def admit(self, field: str, value: object) -> float | str:
        """Check it."""
        if isinstance(value, str) and value != "estimate":
            raise FieldError.of(field, "a finite number or 'estimate'", value)
        return "estimate" if isinstance(value, str) else _NUMBER.admit(field, value)


class PolyakSGD(OneForAll):
    r"""Gradient descent whose step size is the gap to the least loss over the squared gradient.

    With $f$ the loss of the minibatch, $g$ its gradient and $f^*$ the least value that it can have,

    $$\eta = \min\left(\eta_{\max},\; \frac{f(\theta) - f^*}{c\,\|g\|^2}\right) \qquad
    \theta \leftarrow \theta - \mathrm{lr}\,\eta\,g$$

    It needs no tuning where $f^*$ is known: 0 for a model that can fit every sample, without
    penalties. Where the loss cannot reach $f^*$, the gap stays while the gradient vanishes, so the
    step grows until `max_step` holds it: then $f^*$ is too low, or `max_step` is a step size that
    you chose after all. Loss below $f^*$: the step is 0. So is it where the gradient is 0, and
    where the loss or the gradient is not finite.

    $f^*$ "estimate" is for full batches: the noise between minibatches would pass for progress. It
    aims `gap` below the lowest loss so far. The gap is doubled when the loss has come down to that
    level, and halved when the loss has risen; at first it is such that the step is `initial_step`.
    With `c=1` a convex loss never comes down to the level, so that the gap only shrinks and
    `initial_step` must not be small.

    All groups have one step size. Groups of different `lr` take their share of the step, and of
    $\|g\|^2$ (the gap is closed along the step that is taken).

    In `param_groups`, after a step: `step_size`.

    Args:
        params: parameters or groups of them; a group may have its own `lr` and `weight_decay`.
        lr: multiplies the step size; a schedule goes here.
        f_star: $f^*$; with `weight_decay` that of the loss with its penalty, with `maximize` the
            greatest. "estimate": as above.
        c: 0.5 makes one step of a parabola the exact one and is the default of the authors' code;
            1 is the step of Polyak, which cannot lead away from the minimum of any convex loss:
            take it for losses with kinks, where 0.5 can jump from side to side for ever.
        max_step: $\eta_{\max}$; inf for none.
        smoothing: the batches in an epoch: the step size grows by no more than
            $2^{1/\mathrm{smoothing}}$ from step to step. 0: it may jump.
        initial_step: the first step size, of "estimate" alone.
        weight_decay: L2 penalty: part of the loss and of the gradient.
        decoupled_weight_decay: weight decay takes part in the step alone, not in what is measured.
        maximize: climb.
        foreach: take many tensors in one call; the same numbers to the bit.
        reduce: take the mean of the loss over the ranks of torch.distributed. False where the
            closure gives that mean already.

    Raises:
        FieldError: for a value outside its limits.

    Source: Loizou, Vaswani, Laradji and Lacoste-Julien 2020, Stochastic Polyak Step-size for SGD
    (SPS_max). The paper was not read; its code was (IssamLaradji/sps), which differs in two ways:
    with smoothing it forgets $f^*$, and a step size of 0 is remembered, after which all are 0. The
    first step is free of smoothing here; there it follows a step size of 1. "estimate" is a level
    method in the manner of Nedić and Bertsekas 2001 and of Hazan and Kakade 2019, neither of which
    was read: its rule is ours.

    >>> import torch
    >>> w = torch.tensor([3.0, -4.0], dtype=torch.float64, requires_grad=True)
    >>> optimizer = PolyakSGD([w])
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = 2 * (w ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> loss = optimizer.step(closure)
    >>> optimizer.param_groups[0]["step_size"], w.tolist()  # 1 / h, in one step
    (0.25, [0.0, 0.0])
    """

    needs_closure = True
    rules: ClassVar[Mapping[str, Any]] = {
        "f_star": _Least(),
        "c": POSITIVE,
        "max_step": Ceiling(),
        "smoothing": Bounds(ge=0, whole=True),
        "initial_step": POSITIVE,
        "foreach": Flag(),
        "reduce": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        f_star: float | str = 0.0,
        c: float = 0.5,
        max_step: float = 1.0,
        smoothing: int = 0,
        initial_step: float = 0.01,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        foreach: bool = True,
        reduce: bool = True,
    ) -> None:
        given = settings(locals())
        # NaN and inf: there was none yet
        given |= {"step_size": math.nan, "last_moved": math.inf}
        given |= {"gap": math.nan, "lowest": math.inf, "last_loss": math.inf}
        super().__init__(params, given)

    def _advance(self, closure: Closure | None) -> Any:
        first = self._first_gradients(closure)
        if first is None:
            raise FieldError("closure must give the loss, got None; end it with `return loss`")
        ray = Ray(Departure(self.param_groups))
        group = self.param_groups[0]
        sign = -1.0 if group["maximize"] else 1.0
        loss = sign * mean_loss(first, reduce=group["reduce"]) + ray.penalty
        found = 0.0
        if math.isfinite(loss) and math.isfinite(ray.square) and group["c"] * ray.square > 0:
            estimates = group["f_star"] == "estimate"
            least = self._level(loss, ray.square) if estimates else sign * group["f_star"]
            found = self._limited((loss - least) / (group["c"] * ray.square))
            ray.go(found)
        self._tell(step_size=found)
        return first

    def _limited(self, wanted: float) -> float:
        """Keep a step size between 0 and what the settings allow."""
        group = self.param_groups[0]
        most: float = group["max_step"]
        if group["smoothing"]:
            most = min(most, 2 ** (1 / group["smoothing"]) * group["last_moved"])
        found = min(wanted, most)
        if not 0 < found < math.inf:
            return 0.0
        self._tell(last_moved=found)
        return found

    def _level(self, loss: float, square: float) -> float:
        """Judge the last step; give the level that the next one aims at."""
        group = self.param_groups[0]
        gap: float = group["gap"]
        if math.isnan(gap):
            gap = group["initial_step"] * group["c"] * square
        elif loss <= group["lowest"] - gap:
            gap *= 2
        elif loss > group["last_loss"]:
            gap /= 2
        lowest: float = min(group["lowest"], loss)
        self._tell(gap=gap, lowest=lowest, last_loss=loss)
        return lowest - gap

    def sizes_of(self, parameter: Tensor) -> float | None:
        """Give the step size that the last step had; None before the first."""
        del parameter  # one for all
        found: float = self.param_groups[0]["step_size"]
        return None if math.isnan(found) else found
