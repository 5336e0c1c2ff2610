"""When a rising rate has driven the loss off: a level, not a spike, and whatever 0 means."""

import math
from collections.abc import Iterable

FACTOR = 4.0
_WINDOW = 5  # losses whose median is a level: two spikes among them do not move it
_FIRST = 10  # losses, of rates far too small, that show the noise


class Divergence:
    r"""Says when the loss has gone up too far to come back.

    With the level $l_t$ the median of the last five losses, the best level b, the first level f and
    n how far apart the first ten losses lie, without the greatest of them,

    $$l_t > b + k \max(f - b, n)$$

    What is gained so far, or the noise where nothing is gained yet, k times. So a loss may be
    negative, and adding a number to it changes nothing. Multiples of the best loss, which others
    take, would stop at once where that is below 0 or near it.

    Args:
        factor: k; None never stops.
        digits: the relative distance of numbers in the losses' precision: n is not below that.

    >>> rule = Divergence()
    >>> any(rule.sees(loss) for loss in [-2.0, -2.1] * 6 + [9.0, -2.0, 9.0])
    False
    >>> rule.sees(9.0)
    True
    """

    def __init__(self, factor: float | None = FACTOR, digits: float = 0.0) -> None:
        self._factor, self._digits = factor, digits
        self._losses: list[float] = []
        self._first, self._best, self._noise = 0.0, math.inf, 0.0
        self._limit = math.inf if factor is None else -math.inf

    def sees(self, loss: float) -> bool:
        """Take a loss; say whether it has diverged."""
        self._losses.append(loss)
        # a level is above the limit only if losses are: between them, every fifth is enough
        return (loss > self._limit or len(self._losses) % _WINDOW == 0) and self._looks()

    def _looks(self) -> bool:
        count = len(self._losses)
        if self._factor is None or count < _WINDOW:
            return False
        level = sorted(self._losses[-_WINDOW:])[_WINDOW // 2]
        if count == _WINDOW:
            self._first = level
        if count < _FIRST:
            self._best = min(self._best, level)
            return False
        if count == _FIRST:
            self._noise = self._apart()
        if level < self._best or count == _FIRST:
            self._best = min(self._best, level)
            self._limit = self._best + self._factor * max(self._first - self._best, self._noise)
        return level > self._limit

    def _apart(self) -> float:
        least, *_, most, _spike = sorted(self._losses)
        return max(most - least, self._digits * abs(self._losses[0]))


def until_diverged(losses: Iterable[float]) -> list[float]:
    """Give the losses up to the first that is not finite, or shows that a run has diverged."""
    rule, kept = Divergence(), []
    for loss in losses:
        if not math.isfinite(loss):
            break
        kept.append(loss)
        if rule.sees(loss):
            break
    return kept
