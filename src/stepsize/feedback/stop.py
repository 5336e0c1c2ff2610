"""Cool down once a plateau is reached."""

from typing import Any, ClassVar

from stepsize.edits.kinds import CoolDown
from stepsize.errors import FieldError
from stepsize.feedback.base import State, Update, controller
from stepsize.feedback.watch import Watcher
from stepsize.schedules.fields import Length, Value
from stepsize.schedules.ramps import Linear, Ramp
from stepsize.units import REST


@controller
class PlateauCooldown(Watcher):
    """Asks once for a cooldown when the metric has stopped getting better, then stays silent.

    A plateau is what `Plateau` means by it. The factor is 1 throughout: the edit, a
    `CoolDown(over, to, along, keys)`, changes the plan. So a run needs no length in
    advance: a constant rate until nothing gets better, then the cooldown that ends a `wsd`.

    Args:
        over: how long the cooldown is: steps, a text with a unit ("10%" of the horizon), or "rest".
        to: its last value, as a share of the value at that moment.
        along: the ramp that gives its shape, a class or its name.

    Raises `FieldError` at construction for a field out of its bounds or a ramp that cannot end at
    `to`, and in `update` for a value that is not finite with `nan="raise"`.

    Source: this library's; the cooldown is that of Haegele et al. 2024, arXiv 2405.18392.

    >>> from stepsize.feedback import PlateauCooldown, Seen
    >>> stop = PlateauCooldown(patience=1, over="10%")
    >>> state, edits = stop.init(), []
    >>> for t, metric in enumerate([1.0, 0.5, 0.6, 0.7, 0.8, 0.9]):
    ...     factor, state, edit, note = stop.update(state, Seen(t, metric))
    ...     edits += [(t, str(edit.over), note)] if edit else []
    >>> edits
    [(3, '10%', '2 observations of the metric no better than 0.5')]
    """

    kind: ClassVar[str] = "plateau_cooldown"
    over: Length = REST
    to: Value = 0.0
    along: type[Ramp] | str = Linear

    def _check(self) -> None:
        Watcher._check(self)  # noqa: SLF001 (super() does not know a slotted dataclass)
        try:
            edit = self._edit("")
        except FieldError as error:  # in this class's words
            told = str(error).replace("cool_down: ", f"{type(self).__name__}.", 1)
            raise FieldError(told) from None
        self._set("along", edit.along)

    def _edit(self, why: str) -> CoolDown:
        return CoolDown(self.over, self.to, self.along, self.keys, why)

    def init(self) -> State:
        """Give the state before anything was seen."""
        return {**Watcher.init(self), "done": False}

    def _react(self, state: State, value: float) -> Update:
        factor: Any = state["factor"]
        if state["done"]:
            return Update(factor, state)
        reading, state = self._reading(state, value)
        if reading is None:
            return Update(factor, state)
        state = self._counted(state, reading)
        if self._passes(state["bad"]):
            return Update(factor, state)
        note = self._why(state)
        return Update(factor, {**state, "done": True}, self._edit(note), note)
