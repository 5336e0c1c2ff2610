"""What a curve is without its noise, and what else it might have been."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_WIDTHS = 30  # a kernel's standard deviation is this part of the ramp
_NARROWEST = 1.5  # steps
_FAR = 3.0
_FEWEST = 5  # steps that say where a curve begins
_MEDIAN = math.sqrt(math.pi / 2)  # a median's standard deviation, in those of a mean
NORMAL = 1.4826  # the standard deviation of a normal law in median absolute deviations
_BLOCK = 5  # steps whose residuals are drawn together: neighbours are alike


class Smoother:
    """Smooths losses over their steps: medians of repeats, running medians of three, local lines.

    Medians, because one bad minibatch is no property of a rate; lines, because a kernel's mean is
    wrong where the loss is steep.
    """

    def __init__(self, steps: int) -> None:
        self._lines = _local_lines(steps)
        self.error = _MEDIAN * float(np.linalg.norm(self._lines[steps // 2]))
        """The standard deviation of what one row is smoothed to, in those of its losses."""

    def __call__(self, rows: Array) -> Array:
        """Smooth rows of shape (repeats, steps), all finite, to one row."""
        return np.asarray(self._lines @ _running_median(np.median(rows, axis=0)))

    def again(self, rows: Array, noise: float, count: int, seed: int = 0) -> Iterator[Array]:
        """Give smooth curves of repeats drawn again, each with residuals drawn in blocks.

        Residuals are those of each row around its own smooth curve, at most some steps away, and
        cut at three standard deviations: what a curve does where it diverges is no noise.
        """
        draw = np.random.default_rng(seed)
        smooth = np.stack([self(row[None]) for row in rows])
        residuals = np.clip(rows - smooth, -_FAR * noise, _FAR * noise)
        length = rows.shape[1]
        for _ in range(count):
            chosen, sources = draw.integers(len(rows), size=(2, len(rows)))
            moves = draw.integers(-2 * _BLOCK, 2 * _BLOCK + 1, size=-(-length // _BLOCK))
            steps = _reflected(np.arange(length) + np.repeat(moves, _BLOCK)[:length], length)
            yield self(smooth[chosen] + residuals[sources][:, steps])


def level_at_start(values: Array) -> float:
    """Give what a curve begins with, before its rates do anything: the median of a tenth of it."""
    return float(np.median(values[: max(len(values) // 10, _FEWEST)]))


def _running_median(values: Array) -> Array:
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.asarray(np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0))


def _local_lines(count: int) -> Array:
    """Give the matrix that fits a line around every step, with weights of a normal law."""
    width = max(count / _WIDTHS, _NARROWEST)
    away = np.arange(count)[None, :] - np.arange(count)[:, None]
    weights = np.exp(-0.5 * (away / width) ** 2)
    sums, firsts, seconds = ((weights * away**power).sum(1, keepdims=True) for power in (0, 1, 2))
    lines = weights * (seconds - firsts * away)
    return np.asarray(lines / (sums * seconds - firsts**2))


def _reflected(steps: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    """Turn steps beyond the end back into the curve, as a mirror does."""
    period = max(2 * length - 2, 1)
    folded = np.abs(steps) % period
    return np.asarray(np.minimum(folded, period - folded))
