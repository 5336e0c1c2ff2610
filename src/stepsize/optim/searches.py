"""Searches for a step size along one line, as rules about numbers: no tensor is seen here.

A loss that is not finite is too high. A search gives 0.0 where it found no step size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepsize.errors import FieldError
from stepsize.torch.ranks import scalar


@dataclass
class Line:
    """The loss at t along a line, beside the loss `start` and the slope -`square` at its start.

    `unit` is the relative distance of numbers in the loss's precision.
    """

    loss: Callable[[float], float]
    start: float
    square: float
    unit: float
    c: float
    shrink: float
    max_step: float
    max_trials: int
    trials: int = 0

    def at(self, t: float) -> float:
        """Give the loss at t; inf for one that is not finite. Counted."""
        self.trials += 1
        found = self.loss(t)
        return found if math.isfinite(found) else math.inf

    @property
    def left(self) -> bool:
        """Say whether there may be another trial."""
        return self.trials < self.max_trials

    def visible(self, t: float) -> bool:
        """Say whether a decrease between 0 and t can be seen.

        Not where even the whole slope, more than a convex function can fall, is below what the
        loss's precision shows. Near a minimum, a search for a decrease that rounding hides would go
        on to its last trial.
        """
        return t * self.square >= self.unit / 2 * abs(self.start)

    def falls_enough(self, t: float, loss: float) -> bool:
        """Say whether the loss at t meets Armijo's condition."""
        return loss <= self.start - self.c * t * self.square

    def falls_too_much(self, t: float, loss: float) -> bool:
        """Say whether the loss falls almost as the slope promised: Goldstein's, that t is small."""
        return loss < self.start - (1 - self.c) * t * self.square


Search = Callable[[Line, float], float]


def armijo(line: Line, t: float) -> float:
    """Give the first of t, shrink t, shrink^2 t ... where the loss falls enough."""
    while line.left and line.visible(t):
        if line.falls_enough(t, line.at(t)):
            return t
        t *= line.shrink
    return 0.0


def goldstein(line: Line, t: float) -> float:
    """Give a t where the loss falls enough and the step is not too small; halve what is between.

    With no trials left: the greatest that fell enough.
    """
    low, high = 0.0, math.inf
    while line.left and (low or high == math.inf or line.visible(t)):
        loss = line.at(t)
        if not line.falls_enough(t, loss):
            high = t
        elif t < line.max_step and line.falls_too_much(t, loss):
            low = t
        else:
            return t
        t = _between(line, low, high)
    return low


def _between(line: Line, low: float, high: float) -> float:
    if high == math.inf:
        return min(low / line.shrink, line.max_step)
    return (low + high) / 2 if low else high * line.shrink


def exact(line: Line, t: float) -> float:
    """Give the minimiser along the line: bracketed, then by scipy's bounded minimisation (Brent).

    It is found to the square root of the loss's precision, which is all that losses can tell.
    """
    low, middle, high, loss = _bracket(line, t)
    if not middle or high == middle or line.trials >= line.max_trials:
        return middle
    best = [(loss, middle)]
    wall = line.start + high * line.square  # a finite number above all that count

    def bounded(t: Any) -> float:
        here = scalar(t)
        found = line.at(here)
        best.append((found, here))
        return min(found, wall)

    options = {"xatol": line.unit**0.5 * middle, "maxiter": line.max_trials - line.trials}
    minimizer()(bounded, bounds=(low, high), method="bounded", options=options)
    return min(best)[1]


def _bracket(line: Line, t: float) -> tuple[float, float, float, float]:
    """Give low < middle < high and the middle's loss, the lowest; middle 0 where none is lower.

    High is the middle where the loss fell up to `max_step` or to the last trial.
    """
    low, middle, high, lowest = 0.0, 0.0, math.inf, line.start
    while line.left and (middle or high == math.inf or line.visible(t)):
        loss = line.at(t)
        if loss < lowest:
            low, middle, lowest = middle, t, loss
        else:
            high = t
        if middle and (high < math.inf or middle >= line.max_step):
            break
        t = _between(line, middle, high)
    return low, middle, min(high, line.max_step) if high < math.inf else middle, lowest


def minimizer() -> Any:
    """Give scipy's minimisation of a function of one number."""
    try:
        # an extra, loaded when it is asked for; it has no types
        from scipy.optimize import minimize_scalar  # type: ignore[import-untyped] # noqa: PLC0415
    except ImportError as error:
        cure = "pip install 'stepsize[theory]'"
        raise FieldError(f"method='exact' needs scipy, which is not installed; {cure}") from error
    return minimize_scalar


SEARCHES: dict[str, Search] = {"armijo": armijo, "goldstein": goldstein, "exact": exact}
