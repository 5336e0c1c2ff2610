"""The two rates that Smith reads off a range test by eye."""

import math
from dataclasses import dataclass

import numpy as np

from stepsize.finding.curve import RangeCurve
from stepsize.finding.smoothing import NORMAL, Smoother, level_at_start

_LEAST = 10  # steps
_DIGITS = 1e-6  # of float32
_SLOW = 0.1  # of the steepest slope
_CLEAR = 5.0  # standard deviations of the smooth curve


@dataclass(frozen=True)
class Smith:
    """Where an accuracy starts to rise, and where its rise slows, gets ragged, or ends.

    Args:
        base: the rate to begin a cycle with.
        most: the rate at its peak.
    """

    base: float
    most: float


def smith(curve: RangeCurve) -> Smith | None:
    """Give the rates between which an accuracy rises steadily; None if it never does.

    `base` is the first rate at which the smooth accuracy is clearly above what it began with, by
    five standard deviations of the smooth curve; `most` is the first one after the steepest rise
    at which its slope over the rate is a tenth of that or less, or at which it falls.

    The paper tells a reader to look at the picture for where the accuracy begins to rise, and for
    where it slows, becomes ragged or falls; the numbers in this function are ours. Where no
    accuracies were recorded it takes losses, turned over. A linear ramp over some epochs is what
    it is meant for.

    Args:
        curve: with `scores`, ideally of a ramp that is linear over some epochs.

    Source: Smith 2017, arXiv 1506.01186, 3.3; its other rule, a third or a fourth of `most` for
    `base`, is left to the reader.

    >>> rates = [i / 100 for i in range(101)]
    >>> scores = [0.1 + 0.8 * min(max(r - 0.1, 0) / 0.4, 1) for r in rates]
    >>> found = smith(RangeCurve(rates, [[1.0] * 101], [scores]))
    >>> f"{found.base:.2f} {found.most:.2f}"
    '0.09 0.55'
    """
    rows = curve.scores or tuple(tuple(-loss for loss in row) for row in curve.losses)
    length = min(map(len, rows))
    if length < _LEAST:
        return None
    table = np.array([row[:length] for row in rows])
    smoother = Smoother(length)
    smooth = smoother(table)
    rates = np.array(curve.rates[:length])
    noise = NORMAL * float(np.median(np.abs(table - smooth)))
    error = noise * smoother.error / math.sqrt(len(rows))
    start = level_at_start(smooth)
    above = smooth > start + max(_CLEAR * error, 0.02 * (smooth.max() - start))
    if not above.any() or smooth.max() - start <= _DIGITS * abs(start):
        return None
    first = int(np.argmax(above))
    slope = np.gradient(smooth, rates)
    steepest = first + int(np.argmax(slope[first:]))
    slow = np.flatnonzero(slope[steepest:] <= _SLOW * slope[steepest])
    last = steepest + int(slow[0]) if len(slow) else length - 1
    return Smith(float(rates[first]), float(rates[last]))
