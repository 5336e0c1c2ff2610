"""Reduce on a plateau."""

from typing import ClassVar

from stepsize.feedback.base import State, Update, controller
from stepsize.feedback.rules import Shrink, Whole
from stepsize.feedback.watch import Watcher


@controller
class Plateau(Watcher):
    """Multiplies the factor by `factor` when the metric has stopped getting better.

    factor_n = max(factor^n, floor) after n plateaus. A plateau is more than `patience`
    observations in a row that are no better than the best one; then the count begins anew, and the
    next `cooldown` observations are not counted (a better one is still noted as the best).
    The first observation is the first best.

    torch's `min_lr` is `floor_value`. Its `eps`, under which a reduction is left out, has no
    equivalent: there every group below 1e-8 is stuck.

    Args:
        factor: what each plateau multiplies with.
        cooldown: how many observations after a reduction are not counted.

    Raises `FieldError` at construction for a field out of its bounds, and in `update` for a value
    that is not finite with `nan="raise"`; `UnitError` in `update` for an unresolved `after`.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau (2.13), to the bit for positive metrics;
    keras.callbacks.ReduceLROnPlateau with `patience_convention="keras", threshold_mode="abs"`.

    >>> from stepsize.feedback import Plateau, Seen
    >>> plateau, factors = Plateau(factor=0.5, patience=2), []
    >>> state = plateau.init()
    >>> for t, metric in enumerate([1.0, 0.9, 0.9, 0.95, 0.9, 0.8, 0.7]):
    ...     factor, state, edit, note = plateau.update(state, Seen(t, metric))
    ...     factors.append(factor)
    >>> factors
    [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    """

    kind: ClassVar[str] = "plateau"
    factor: Shrink = 0.1
    cooldown: Whole = 0

    def init(self) -> State:
        """Give the state before anything was seen."""
        return {**Watcher.init(self), "paused": 0}

    def _react(self, state: State, value: float) -> Update:
        reading, state = self._reading(state, value)
        if reading is None:
            return Update(state["factor"], state)
        state = self._counted(state, reading)
        if state["paused"]:
            state = {**state, "paused": state["paused"] - 1, "bad": 0}
        if self._passes(state["bad"]):
            return Update(state["factor"], state)
        new = {**state, "bad": 0, "paused": self._pause(self.cooldown)}
        return Update(state["factor"] * self.factor, new, note=self._why(state))
