"""What controllers that compare with the best so far share: smoothing, thresholds, what NaN is."""

import math
from typing import Annotated, Any, Literal

from stepsize.errors import FieldError
from stepsize.feedback.base import Controller, State, fielded
from stepsize.feedback.rules import ChoiceRule, Shrink, Whole
from stepsize.schedules.fields import Count, Value


@fielded
class Watcher(Controller):
    """Compares each observation with the best one, and counts those that are no better.

    Better than the best b means, with e the `threshold`:

    | mode | threshold_mode="rel" | "abs" |
    | --- | --- | --- |
    | min | x < b - e abs(b) | x < b - e |
    | max | x > b + e abs(b) | x > b + e |

    For b > 0 that is torch's rule to the bit; for b < 0, where torch's b (1 - e) lies on the wrong
    side of b and worse values pass as improvements, it still asks for an improvement.

    Args:
        patience: how many observations in a row may be no better.
        mode: whether less ("min") or more ("max") is better.
        threshold: how much better counts.
        threshold_mode: whether that is relative to the best or absolute.
        ema: compare a moving average with this decay instead of the observation; bias-corrected,
            so the first one is the first observation.
        window: compare the mean of this many observations instead (of fewer at the beginning).
        nan: what a value that is not finite is. "bad", an observation that is no better, as in
            torch: an evaluation that overflows asks for a lower rate; it never enters an average.
            "ignore": as if nothing was seen. "reset": the best, the counts and the averages begin
            anew, the factor stays. "raise": a `FieldError`. Infinities of either sign are the same:
            torch takes -inf for the best value for ever.
        patience_convention: "torch" reacts to the observation after `patience` bad ones, and passes
            over `cooldown` observations. "keras" reacts to the `patience`-th, and passes over one
            observation less. optax reacts as Keras and cools down as torch: its `patience=p` is
            `patience=p-1` here; its `patience=0`, which reacts to improvements, has no equivalent.
    """

    patience: Whole = 10
    mode: Annotated[Literal["min", "max"], ChoiceRule(("min", "max"))] = "min"
    threshold: Value = 1e-4
    threshold_mode: Annotated[Literal["rel", "abs"], ChoiceRule(("rel", "abs"))] = "rel"
    ema: Shrink | None = None
    window: Count | None = None
    nan: Annotated[
        Literal["bad", "ignore", "reset", "raise"], ChoiceRule(("bad", "ignore", "reset", "raise"))
    ] = "bad"
    patience_convention: Annotated[Literal["torch", "keras"], ChoiceRule(("torch", "keras"))] = (
        "torch"
    )

    def _check(self) -> None:
        if self.ema is not None and self.window is not None:
            field = f"{type(self).__name__}.window"
            raise FieldError.of(
                field, "None where ema is given", self.window, "window=None keeps the ema"
            )

    def init(self) -> State:
        """Give the state before anything was seen."""
        memory: dict[str, Any] = {}
        if self.ema is not None:
            memory = {"mean": 0.0, "weight": 0.0}
        elif self.window is not None:
            memory = {"last": []}
        return {"factor": 1.0, "best": None, "bad": 0, **memory}

    def _reading(self, state: State, value: float) -> tuple[float | None, State]:
        """Give what is compared (NaN: no better than anything; None: nothing) and the new state."""
        if math.isfinite(value):
            return self._smoothed(state, value)
        if self.nan == "raise":
            cure = "nan='raise' asked for this error; 'bad', 'ignore' and 'reset' go on"
            raise FieldError.of(f"the {self.sees} seen", "finite", value, cure)
        if self.nan == "reset":
            return None, {**self.init(), "factor": state["factor"]}
        return (None if self.nan == "ignore" else math.nan), state

    def _smoothed(self, state: State, value: float) -> tuple[float, State]:
        if self.ema is not None:
            weight = self.ema * state["weight"] + (1.0 - self.ema)
            share = (1.0 - self.ema) / weight
            mean = (1.0 - share) * state["mean"] + share * value  # no sum that could overflow
            return mean, {**state, "mean": mean, "weight": weight}
        if self.window is not None:
            last = [*state["last"], value][-self.window :]
            return sum(x / len(last) for x in last), {**state, "last": last}
        return value, state

    def _is_better(self, reading: float, best: float | None) -> bool:
        if best is None:
            return not math.isnan(reading)
        margin = math.copysign(self.threshold, best) if self.threshold_mode == "rel" else 0.0
        gap = self.threshold if self.threshold_mode == "abs" else 0.0
        if self.mode == "min":
            return reading < best * (1.0 - margin) - gap
        return reading > best * (1.0 + margin) + gap

    def _counted(self, state: State, reading: float) -> State:
        if self._is_better(reading, state["best"]):
            return {**state, "best": reading, "bad": 0}
        return {**state, "bad": state["bad"] + 1}

    def _passes(self, count: int) -> bool:
        """Whether that many in a row are still within the patience."""
        keras = self.patience_convention == "keras"
        return count <= (max(self.patience - 1, 0) if keras else self.patience)

    def _pause(self, cooldown: int) -> int:
        """How many observations a cooldown passes over."""
        return max(cooldown - 1, 0) if self.patience_convention == "keras" else cooldown

    def _why(self, state: State) -> str:
        best = "none" if state["best"] is None else f"{state['best']:.6g}"
        return f"{state['bad']} observations of the {self.sees} no better than {best}"
