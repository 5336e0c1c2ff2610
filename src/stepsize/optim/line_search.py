"""Gradient descent with a line search: the step size is tried out on the same minibatch."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.optim.again import Closure, Repeatable
from stepsize.optim.base import NOT_NEGATIVE, POSITIVE, Choice, Flag, settings
from stepsize.optim.ray import Ceiling, Departure, OneForAll, Ray
from stepsize.optim.searches import SEARCHES, Line, minimizer
from stepsize.optim.whole import mean_loss
from stepsize.schedules.fields import Bounds


class _Coupled:
    """Refuses decoupled weight decay."""

    def admit(self, field: str, value: object) -> bool:
        """Check that it is not asked for."""
        if value is not False:
            cure = (
                "weight_decay is searched with the loss; a part of the step that is not measured "
            )
            cure += "would void the search: shrink the parameters yourself after the step"
            raise FieldError.of(field, "False in a line search", value, cure)
        return False


class LineSearch(OneForAll):
    r"""Gradient descent that tries step sizes until the loss falls enough.

    With $g$ the gradient of the loss $f$ (weight decay included in both), $t$ is accepted where

    $$f(\theta - t g) \le f(\theta) - c\,t\,\|g\|^2 \quad\text{(Armijo)} \qquad
    f(\theta - t g) \ge f(\theta) - (1-c)\,t\,\|g\|^2 \quad\text{(Goldstein, besides)}$$

    and then $\theta \leftarrow \theta - \mathrm{lr}\,t\,g$. "armijo" begins at $t_0$ and multiplies
    by `shrink` until the first holds. "goldstein" also makes a step larger that is too small, then
    halves the interval. "exact" minimises $f(\theta - t g)$ over t, so that the next gradient is
    orthogonal to this one.

    It is for full batches, and for minibatches where the model can fit every sample: the search
    trusts the minibatch it sees, and where minibatches contradict each other its steps do not
    become smaller by themselves (put a schedule on `lr`). Each trial costs one more evaluation;
    "exact" costs tens and is for full batches. Where the loss no longer falls by more than its
    precision shows, no step size is found and the step is `fallback`.

    All groups have one step size. The greatest `lr` multiplies it after the search; groups with a
    smaller `lr` take their share of the step in the search too, so that what was measured is what
    is done. A factor below 1 keeps Armijo's condition where the loss is convex.

    Trials use the random numbers of the first evaluation, and buffers (BatchNorm) keep what the
    first evaluation left. Afterwards `grad` of every parameter is the gradient at the point of
    departure. An error in a trial leaves the parameters as they were.

    In `param_groups`, after a step: `step_size` is what was found (`fallback` if nothing was; 0.0
    where the loss or its gradient is not finite, or the gradient 0), and `trials` how often the
    loss was evaluated beyond the first time.

    Args:
        params: parameters or groups of them; a group may have its own `lr` and `weight_decay`.
        lr: multiplies the step size that was found; a schedule goes here.
        method: "armijo", "goldstein" or "exact" (needs scipy).
        initial_step: $t_0$ of the first search, and of every one with `start="reset"`.
        c: how much of the decrease that the slope promises is enough. 0.1 as in the textbook's
            example and the code of SLS: a larger one refuses good steps ($c > 1/2$ even the
            minimiser of a parabola, so it is not admitted).
        shrink: what a step size that is too large is multiplied with.
        start: "reset": every search begins with `initial_step`; "warm": with the last step size
            times `grow`, which costs fewer trials.
        grow: by default `1 / shrink`; SLS has `2 ** (1 / batches in an epoch)`.
        max_step: the greatest step size (10 in the code of SLS).
        max_trials: where a search ends.
        fallback: the step size that is taken where none was found; 0 stays. The next search begins
            with `initial_step`.
        weight_decay: L2 penalty; part of the loss that is searched.
        decoupled_weight_decay: False; anything else is refused.
        maximize: climb.
        foreach: take many tensors in one call; the same numbers to the bit.
        reduce: decide by the mean of the loss over the ranks of torch.distributed. False where the
            closure gives that mean already.

    Raises:
        FieldError: for a value outside its limits; for "exact" without scipy.

    Source: Boyd and Vandenberghe 2004, Convex Optimization, section 9.2 (backtracking with their
    alpha as `c`, beta as `shrink`, from t = 1): the book was not read, its example is run here in
    the setting of its published script. Minibatches: Vaswani and others 2019, Painless Stochastic
    Gradient; only its code (IssamLaradji/sls) was read: the same two conditions, shrink 0.9, 100
    trials and then a step of 1e-6, warm start. Where that code multiplies by 2 and 0.9 in turn to
    meet Goldstein's conditions, the interval is halved here, which ends.

    >>> import torch
    >>> w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> optimizer = LineSearch([w], c=0.1, shrink=0.5)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = 0.5 * (w[0] ** 2 + 10 * w[1] ** 2)
    ...     loss.backward()
    ...     return loss
    >>> loss = optimizer.step(closure)
    >>> optimizer.param_groups[0]["step_size"], optimizer.param_groups[0]["trials"]
    (0.125, 4)
    """

    needs_closure = True
    rules: ClassVar[Mapping[str, Any]] = {
        "method": Choice(*SEARCHES),
        "initial_step": POSITIVE,
        "c": Bounds(gt=0, le=0.5),
        "shrink": Bounds(gt=0, lt=1),
        "start": Choice("reset", "warm"),
        "grow": Bounds(ge=1),
        "max_step": Ceiling(),
        "max_trials": Bounds(ge=1, whole=True),
        "fallback": NOT_NEGATIVE,
        "decoupled_weight_decay": _Coupled(),
        "foreach": Flag(),
        "reduce": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        method: str = "armijo",
        initial_step: float = 1.0,
        c: float = 0.1,
        shrink: float = 0.7,
        start: str = "reset",
        grow: float | None = None,
        max_step: float = math.inf,
        max_trials: int = 100,
        fallback: float = 0.0,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        foreach: bool = True,
        reduce: bool = True,
    ) -> None:
        given = settings(locals())
        if grow is None:
            given["grow"] = 1 / self.rules["shrink"].admit("shrink", shrink)
        # NaN: there was no step yet, and none for a warm start to go on from
        given |= {"step_size": math.nan, "last_found": math.nan, "trials": 0}
        super().__init__(params, given)

    @classmethod
    def _admitted(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        found = super()._admitted(fields)
        if found.get("method") == "goldstein" and found.get("c") == 0.5:  # noqa: PLR2004 (equal)
            raise FieldError.of(
                "c", "< 0.5 for method='goldstein'", 0.5, "the conditions would meet"
            )
        if found.get("method") == "exact":
            minimizer()
        return found

    @torch.no_grad()
    def step(self, closure: Closure | None = None, loss: Closure | None = None) -> Any:
        """Take one step; give what the closure gave.

        Args:
            closure: evaluates the model on the minibatch of this step: zeroes the gradients, gives
                the loss, and calls `backward()` on it.
            loss: evaluates the same loss on the same minibatch and gives it, without zeroing and
                without `backward()`. Called for the trials instead of the closure, whose gradients
                would be thrown away: about a third of the cost, and no copy of the gradients.

        Raises:
            FieldError: for a missing closure, for one that gives no loss, and for sparse gradients.
        """
        return self._taken(closure, loss=loss)

    def _advance(self, closure: Closure | None, loss: Closure | None = None) -> Any:
        run = Repeatable(cast("Closure", closure), self.everything())
        first = run.first()
        if first is None:
            raise FieldError("closure must give the loss, got None; end it with `return loss`")
        departure = Departure(self.param_groups, copied=loss is None)
        ray = Ray(departure)
        line = self._line(ray, first, lambda: run.again(loss, gradients=loss is None))
        found = 0.0
        if ray.square > 0 and math.isfinite(ray.square + line.start):
            ray.hold()
            if loss is None:
                with departure.gradients_kept():
                    found = self._searched(line, ray)
            else:
                found = self._searched(line, ray)
            self._tell(last_found=found or math.nan)
            found = found or self.param_groups[0]["fallback"]
            ray.go(found)
        self._tell(step_size=found, trials=line.trials)
        return first

    def _line(self, ray: Ray, first: Any, again: Closure) -> Line:
        """Give the loss along the ray, as numbers."""
        group = self.param_groups[0]
        sign = -1.0 if group["maximize"] else 1.0

        def seen(loss: Any) -> float:
            return sign * mean_loss(loss, reduce=group["reduce"])

        def at(t: float) -> float:
            ray.place(t)
            return seen(again()) + ray.penalty_change(t)

        settings = {name: group[name] for name in ("c", "shrink", "max_step", "max_trials")}
        return Line(loss=at, start=seen(first), square=ray.square, unit=_unit(first), **settings)

    def _searched(self, line: Line, ray: Ray) -> float:
        group = self.param_groups[0]
        begin: float = group["initial_step"]
        if group["start"] == "warm" and not math.isnan(group["last_found"]):
            begin = group["last_found"] * group["grow"]
        try:
            return SEARCHES[group["method"]](line, min(begin, group["max_step"]))
        except BaseException:
            ray.place(0.0)
            raise

    def sizes_of(self, parameter: Tensor) -> float | None:
        """Give the step size that the last search found; None before the first."""
        del parameter  # one for all
        found: float = self.param_groups[0]["step_size"]
        return None if math.isnan(found) else found


def _unit(loss: Any) -> float:
    """Give the relative distance of numbers in a loss's precision."""
    if isinstance(loss, Tensor) and loss.is_floating_point():
        return torch.finfo(loss.dtype).eps
    return torch.finfo(torch.float64).eps
