"""Cut the rate at a loss spike, and come back."""

import math
from dataclasses import field
from typing import Annotated, ClassVar, Final, Literal

from stepsize.feedback.base import Controller, State, Update, controller
from stepsize.feedback.rules import ChoiceRule, RatioFloor, Sees, Shrink, Whole
from stepsize.schedules.fields import Count, Positive, Value

_HUGE: Final = 1e100  # no loss; its square would be infinite


@controller
class SpikeGuard(Controller):
    """Multiplies the factor by `cut` at a loss spike, and brings it back to 1.

    With m and s the bias-corrected moving mean and standard deviation of the losses so far, a loss
    x is high if

    x > m + max(sigmas s, rise abs(m))

    so it lies far outside the noise, and far enough above the mean to matter (a loss without noise
    has s near 0). A spike is `consecutive` high losses in a row, or at once a loss that is not
    finite or beyond 1e100. The first `cold` finite losses are never high.

    A spike multiplies the factor by `cut`, down to `floor`, and the next `cooldown` observations
    change nothing. Then each observation that is not high brings the factor f one of `recover`
    equal parts of the way from where it was cut to back to 1: f^(1-j/recover) after j of them, or
    1-(1-f)(1-j/recover) with `along="linear"`. Another spike cuts what was reached.

    A high loss enters m and s as the limit that it passed: one outlier moves them little, and a
    level that stays higher becomes the usual one.

    By chance a loss of stationary noise with the mean m and the deviation s is high with a
    probability of at most 1/(1+sigmas^2) (Cantelli), 1e-9 if the noise is normal, and never if its
    reach is below `sigmas` deviations or below `rise`.

    Args:
        cut: what a spike multiplies with.
        sigmas: how many standard deviations above the mean is high.
        rise: and how far above the mean, as a share of it.
        consecutive: how many high losses in a row are a spike.
        cold: how many finite losses it only learns from.
        decay: of the moving mean and deviation: 0.99 remembers about 100 losses.
        cooldown: how many observations after a cut are passed over.
        recover: how many observations the way back to 1 takes.
        along: its shape, "geometric" or "linear".

    Raises `FieldError` at construction for a field out of its bounds.

    Source: this library's: the control chart with exponential weights, its outliers winsorized. The
    forms are the textbooks' (Roberts 1959 for the chart, West 1979 for the variance; not read).

    >>> from stepsize.feedback import Seen, SpikeGuard
    >>> guard, factors = SpikeGuard(cold=4, consecutive=1, cooldown=1, recover=2, cut=0.25), []
    >>> state = guard.init()
    >>> for t, loss in enumerate([2.0, 2.1, 1.9, 2.0, 9.0, 2.0, 2.0, 2.0, math.nan]):
    ...     factor, state, edit, note = guard.update(state, Seen(t, loss=loss))
    ...     factors.append(factor)
    >>> factors, note
    ([1.0, 1.0, 1.0, 1.0, 0.25, 0.25, 0.5, 1.0, 0.25], 'the loss was nan')
    """

    kind: ClassVar[str] = "spike_guard"
    cut: Shrink = 0.5
    sigmas: Positive = 6.0
    rise: Value = 0.1
    consecutive: Count = 2
    cold: Whole = 100
    decay: Shrink = 0.99
    cooldown: Whole = 10
    recover: Count = 100
    along: Annotated[Literal["geometric", "linear"], ChoiceRule(("geometric", "linear"))] = (
        "geometric"
    )
    sees: Sees = "loss"
    floor: RatioFloor = field(default=0.01, hash=False)

    def init(self) -> State:
        """Give the state before anything was seen."""
        counts = {"number": 0, "high": 0, "paused": 0, "left": 0}
        return {"factor": 1.0, "mean": 0.0, "variance": 0.0, "weight": 0.0, "low": 1.0, **counts}

    def _react(self, state: State, value: float) -> Update:
        broken = not abs(value) < _HUGE
        limit = math.inf if broken else self._limit(state)
        high = broken or value > limit
        if not broken:
            state = self._learned(state, min(value, limit))
        state["high"] = state["high"] + 1 if high else 0
        if state["paused"]:
            return Update(state["factor"], {**state, "paused": state["paused"] - 1, "high": 0})
        if broken or state["high"] >= self.consecutive:
            low = max(state["factor"] * self.cut, self.lowest)
            cut = {"low": low, "left": self.recover, "paused": self.cooldown, "high": 0}
            passed = "" if broken else f", above {limit:.6g}"
            return Update(low, {**state, **cut}, note=f"the {self.sees} was {value:.6g}{passed}")
        if high or not state["left"]:
            return Update(state["factor"], state)
        state["left"] -= 1
        return Update(self._recovered(state), state, note="" if state["left"] else "recovered")

    def _limit(self, state: State) -> float:
        if state["number"] < max(self.cold, 1):
            return math.inf
        mean, deviation = state["mean"], math.sqrt(state["variance"])
        return float(mean + max(self.sigmas * deviation, self.rise * abs(mean)))

    def _learned(self, state: State, value: float) -> State:
        weight = self.decay * state["weight"] + (1.0 - self.decay)
        share = (1.0 - self.decay) / weight
        step = value - state["mean"]
        variance = (1.0 - share) * (state["variance"] + share * step * step)
        moved = {"mean": state["mean"] + share * step, "variance": variance}
        return {**state, **moved, "weight": weight, "number": state["number"] + 1}

    def _recovered(self, state: State) -> float:
        left = state["left"] / self.recover
        if self.along == "linear":
            return float(1.0 - (1.0 - state["low"]) * left)
        return float(state["low"] ** left)
