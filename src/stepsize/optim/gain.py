"""A gain that inner products raise and lower; what the next one contradicts is taken back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stepsize.errors import FieldError
from stepsize.optim.base import POSITIVE


class Gain(NamedTuple):
    """What every group carries, under these names."""

    gain: float = 1.0
    gain_before: float = 1.0  # before the last change
    agreement: float = 0.0  # sign of the last inner product; 0: none, or forgotten
    gain_used: float = 1.0  # in the last step


@dataclass(frozen=True, slots=True)
class Rule:
    """How an inner product changes the gain."""

    delta: float
    epsilon: float
    bounds: tuple[float, float]
    increase: str
    apply_after_undo: bool
    forget_after_undo: bool

    def after(self, held: Gain, sign: float) -> Gain:
        """Take up the sign of an inner product."""
        if held.agreement * sign >= 0:
            return Gain(self._changed(held.gain, sign), held.gain, sign, held.gain_used)
        back = held.gain_before
        now = self._changed(back, sign) if self.apply_after_undo else back
        return Gain(now, back, 0.0 if self.forget_after_undo else sign, held.gain_used)

    def _changed(self, gain: float, sign: float) -> float:
        if sign > 0:
            gain = gain + self.delta if self.increase == "add" else gain * (1 + self.delta)
        elif sign < 0:
            gain *= 1 - self.epsilon
        return min(max(gain, self.bounds[0]), self.bounds[1])


def limits(bounds: tuple[float, float]) -> tuple[float, float]:
    """Check the least and the greatest gain."""
    rule = "two numbers with 0 < low <= 1 <= high"
    if not isinstance(bounds, Sequence) or len(bounds) != 2:  # noqa: PLR2004 (a pair)
        raise FieldError.of("bounds", rule, bounds)
    low, high = (POSITIVE.admit("bounds", each) for each in bounds)
    if not low <= 1 <= high:
        raise FieldError.of("bounds", rule, bounds)
    return low, high
