"""Other people's rules for reading a rate off the curve of a range test.

Each is a function of rates and losses as they were seen, of one run, and smooths and trims them as
its authors do; None where the curve is too short for it. Our own is `suggest`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = Sequence[float]

_LEAST = 3  # points, for a slope and what is beside it


def averaged(losses: Numbers, *, beta: float = 0.98) -> Array:
    r"""Give the exponential average of losses, without its bias.

    $\hat\ell_i = \frac{1-\beta}{1-\beta^{i+1}} \sum_{j \le i} \beta^{i-j} \ell_j$

    Source: fastai, `AvgSmoothLoss`.

    >>> averaged([1.0, 2.0], beta=0.5)
    array([1.        , 1.66666667])
    """
    total, weight, found = 0.0, 0.0, []
    for loss in losses:
        total, weight = beta * total + loss, beta * weight + 1
        found.append(total / weight)
    return np.array(found)


def trimmed(
    rates: Numbers, losses: Numbers, *, stop: float = 4.0, last: int = 5
) -> tuple[Array, Array] | None:
    """Give what fastai's rules see: averages until they exceed `stop` times the least.

    Without the first tenth and the last points, and without what is not finite; None if fewer than
    three points are left.

    Source: fastai, `Learner.lr_find`; the tenth is that of the points given here, fastai's that of
    the points asked for.
    """
    smooth = averaged(losses)
    best = np.fmin.accumulate(smooth)
    over = np.flatnonzero((smooth > stop * best) | ~np.isfinite(smooth))
    end = int(over[0]) + 1 if len(over) else len(smooth)
    part = slice(len(rates) // 10, max(end - last, 0))
    x, y = np.asarray(rates, float)[part], smooth[part]
    good = np.isfinite(y) & (x > 0)
    return (x[good], y[good]) if good.sum() >= _LEAST else None


def steepest(rates: Numbers, losses: Numbers) -> float | None:
    """Give the rate at which the loss falls most for a change of the rate's logarithm.

    Source: fastai, `steep`. Lightning 2.6 takes the slope over the rate itself instead, which is
    steepest where rates are smallest; torch-lr-finder over the number of the step, which is the
    same as here on a geometric ramp.

    >>> rates = [10 ** (i / 10 - 5) for i in range(50)]
    >>> losses = [3 - 2 / (1 + 1e-2 / r) for r in rates]
    >>> f"{steepest(rates, losses):.4f}"  # the average trails behind: the true one is 0.01
    '0.0398'
    """
    seen = trimmed(rates, losses)
    if seen is None:
        return None
    x, y = seen
    return float(x[:-1][np.argmin(np.diff(y) / np.diff(np.log(x)))])


def minimum(rates: Numbers, losses: Numbers) -> float | None:
    """Give a tenth of the rate at which the averaged loss is least.

    Source: fastai, `minimum`.
    """
    seen = trimmed(rates, losses)
    return None if seen is None else float(seen[0][np.argmin(seen[1])]) / 10


def valley(rates: Numbers, losses: Numbers) -> float | None:
    """Give the rate half way along the longest falling subsequence of the averaged loss.

    Source: fastai, `valley`, its default since 2021. It takes the positions of the ends and of the
    length of the subsequence for one another; so does this.
    """
    seen = trimmed(rates, losses)
    if seen is None:
        return None
    x, y = seen
    lengths = np.ones(len(y), int)
    end = start = 0
    for i in range(1, len(y)):
        lengths[i] = 1 + max(lengths[:i][y[:i] > y[i]], default=0)
        if lengths[i] > lengths[end]:
            end, start = i, i - int(lengths[i])
    third = (end - start) / 3
    return float(x[start + int(third) + int(third / 2)])


def slide(
    rates: Numbers, losses: Numbers, *, width: int = 15, threshold: float = 0.005
) -> float | None:
    """Give the left end of a window that slides down from the last rate until slopes agree.

    Source: fastai, `slide` (Novak 2020). The slope is that over the number of the step.
    """
    seen = trimmed(rates, losses)
    if seen is None or len(seen[0]) <= width:
        return None
    x, y = seen
    slope = np.gradient(y)
    right, found = len(x) - 1, len(x) - 1 - width
    while right - width >= 0 and abs(slope[right] - slope[right - width]) > threshold:
        found, right = right - width, right - 1
    return float(x[found])


RULES: dict[str, Callable[[Numbers, Numbers], float | None]] = {
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum / 10": minimum,
}
"""fastai's four, by name."""
