"""Go down when nothing gets better, and up when everything does."""

from dataclasses import field
from typing import Annotated, ClassVar

from stepsize.feedback.base import State, Update, controller
from stepsize.feedback.rules import RatioFloor, Sees, Shrink, Whole
from stepsize.feedback.watch import Watcher
from stepsize.schedules.fields import Bounds, Count


@controller
class UpDown(Watcher):
    """Multiplies the factor by `factor` after bad observations, divides by it after good ones.

    More than `patience` observations in a row that are each better than the best so far: up, to
    min(f / factor, ceiling). As many that are no better: down, to max(f factor, floor). After a
    change the next `cooldown` (down) or `cooldown_up` (up) observations are passed over: they enter
    the average and nothing else.

    Different from GreedyLR, whose settings are in brackets: the bounds are ratios of the schedule's
    value, so a rate below 1e-3 can go down too [min_lr=1e-3 and max_lr=1: at 5e-5 it only
    rises]; an average is on by default, because single batches are hardly ever better eleven times
    in a row [smooth=False]; the threshold is relative [abs]; there is no least change [eps=1e-8];
    nothing jumps back to the start unless asked [reset_start=500]. A wait before the first change
    is `after`. GreedyLR itself is UpDown(window=None, threshold_mode="abs") with `floor` and
    `ceiling` as ratios of the initial rate, `cooldown_up` its `warmup`, `reset` its `reset_start`.

    Args:
        factor: what multiplies on the way down and divides on the way up.
        ceiling: the factor is never above this.
        cooldown: how many observations after a reduction are passed over.
        cooldown_up: how many after an increase.
        reset: begin anew, with the factor 1 and nothing remembered, instead of staying at the floor
            after this many reductions since the last increase that ended there; None: never.

    Raises `FieldError` at construction for a field out of its bounds, and in `update` for a value
    that is not finite with `nan="raise"`.

    Source: transformers.GreedyLR (5.23), read; Subramanian, Krishnamoorthy and Murthy 2025,
    arXiv 2512.14527, of which the abstract was read.

    >>> from stepsize.feedback import Seen, UpDown
    >>> greedy, factors = UpDown(factor=0.5, patience=1, window=None), []
    >>> state = greedy.init()
    >>> for t, loss in enumerate([1.0, 0.9, 0.8, 0.7, 0.9, 0.9, 0.9, 0.9]):
    ...     factor, state, edit, note = greedy.update(state, Seen(t, loss=loss))
    ...     factors.append(factor)
    >>> factors
    [1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 0.5]
    """

    kind: ClassVar[str] = "up_down"
    factor: Shrink = 0.95
    ceiling: Annotated[float, Bounds(ge=1)] = 2.0
    cooldown: Whole = 0
    cooldown_up: Whole = 0
    reset: Count | None = None
    sees: Sees = "loss"
    threshold: Annotated[float, Bounds(ge=0)] = 1e-6
    window: Count | None = 50
    floor: RatioFloor = field(default=0.01, hash=False)

    def init(self) -> State:
        """Give the state before anything was seen."""
        return {**Watcher.init(self), "good": 0, "paused": 0, "vain": 0}

    def _react(self, state: State, value: float) -> Update:
        reading, state = self._reading(state, value)
        if reading is None:
            return Update(state["factor"], state)
        if state["paused"]:
            return Update(state["factor"], {**state, "paused": state["paused"] - 1})
        state = self._counted(state, reading)
        state["good"] = 0 if state["bad"] else state["good"] + 1
        if not self._passes(state["good"]):
            return self._up(state)
        if not self._passes(state["bad"]):
            return self._down(state)
        return Update(state["factor"], state)

    def _up(self, state: State) -> Update:
        note = f"{state['good']} observations of the {self.sees} each better than the best"
        new = {**state, "good": 0, "vain": 0, "paused": self._pause(self.cooldown_up)}
        return Update(min(state["factor"] / self.factor, self.ceiling), new, note=note)

    def _down(self, state: State) -> Update:
        factor = state["factor"] * self.factor
        vain = state["vain"] + (factor <= self.lowest)
        if self.reset is not None and vain >= self.reset:
            anew = {**self.init(), "paused": self._pause(self.cooldown)}
            return Update(1.0, anew, note=f"{vain} reductions at the floor: begin anew")
        new = {**state, "bad": 0, "vain": vain, "paused": self._pause(self.cooldown)}
        return Update(factor, new, note=self._why(state))
