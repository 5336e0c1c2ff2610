"""Our own rule for reading a rate off the curve of a range test, with its spread and its reason."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepsize.drawing.series import spoken
from stepsize.errors import FieldError
from stepsize.finding.curve import RangeCurve
from stepsize.finding.divergence import until_diverged
from stepsize.finding.smoothing import NORMAL, Smoother, level_at_start

Array = NDArray[np.float64]

SHARE = 0.9  # of the fall of the loss; chosen on half of the problems of benchmarks/finders.py
_LEAST = 10  # steps, to tell a fall from noise
_CLEAR = 5.0  # standard deviations of the smooth curve: its least value is one of many
_SHARP = 0.02  # of the fall, in a tenth of the ramp
_DIGITS = 1e-6  # of float32
_RESAMPLED = 200
_SHOWN = (0.05, 0.5, 0.95)  # quantiles


@dataclass(frozen=True)
class Suggestion:
    """A rate with its spread and the reason, or None with the reason why there is none.

    Args:
        rate: of the first param group.
        low: nine in ten curves like these give a rate between `low` and `high`.
        high: its other end; None where the loss still fell at the end of the ramp.
        why: what the curve shows, in words.
    """

    rate: float | None
    low: float | None
    high: float | None
    why: str

    def __str__(self) -> str:
        """Give the rate, its spread, and why."""
        if self.rate is None:
            return f"no rate: {self.why}"
        spread = f"{_rate(self.low)} to {_rate(self.high)}" if self.high else "at least"
        return f"{_rate(self.rate)} ({spread}): {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Give numbers and words that JSON can hold."""
        return asdict(self)


def suggest(curve: RangeCurve, *, share: float = SHARE) -> Suggestion:
    r"""Give the rate by which a range test's loss has made nearly all of its fall.

    The losses, where they are above the level they began with cut down to it, are smoothed over
    the steps: the median of the repeats, running medians of three, then local lines. With $\ell_0$
    the level of the first tenth of the steps and $\ell_*$ the least value, the rate is the last
    one before that where the smooth loss is above $\ell_0 - 0.9\,(\ell_0 - \ell_*)$, interpolated
    in the rate's logarithm. This is done for 200 curves that might have been seen as well, of
    resampled repeats and resampled blocks of residuals: the rate is the median of what they give,
    the spread what nine in ten of them do.

    The least value itself lies on a flat bottom, where noise decides which rate it has, or at the
    edge of divergence; the steepest slope comes early on a long ramp. Where the bottom is flat the
    spread is wide: many rates are as good.

    Args:
        curve: what a range test saw.
        share: which part of the fall; in (0, 1).

    Raises:
        FieldError: for a share outside (0, 1).

    Source: our own; `benchmarks/finders.py` measures it beside the rules of fastai, torch-lr-finder
    and Lightning.

    >>> rates = [10 ** (i / 10 - 5) for i in range(61)]
    >>> losses = [2 - 1 / (1 + (0.01 / r) ** 2) + 4 * r**2 for r in rates]
    >>> found = suggest(RangeCurve(rates, [losses]))
    >>> f"{found.rate:.3f}", found.why.split("; ")  # doctest: +NORMALIZE_WHITESPACE
    ('0.028', ['the loss falls from 2 to 1.055 at 0.063, by 90% of that at the rate suggested',
     'it diverged by 1.6'])
    """
    if not 0.0 < share < 1.0:
        raise FieldError.of("share", "in (0, 1)", share)
    seen = _Seen(curve)
    reason = seen.no_answer()
    if reason:
        return Suggestion(None, None, None, reason)
    found = np.log([_reached(seen.rates, each, share) for each in seen.others()])
    low, rate, high = np.exp(np.quantile(found, _SHOWN)).tolist()
    top = None if seen.still_falls() else high
    return Suggestion(rate, low, top, seen.told(share))


def smooth_curve(curve: RangeCurve) -> tuple[list[float], list[float]]:
    """Give the rates and losses that `suggest` looks at; empty for a curve that is too short."""
    seen = _Seen(curve)
    if len(seen.rates) < _LEAST:
        return [], []
    return seen.rates.tolist(), seen.smooth.tolist()


def _reached(rates: Array, smooth: Array, share: float) -> float:
    """Give the rate, between two steps in its logarithm, by which a share of the fall is made."""
    bottom = int(smooth.argmin())
    level = level_at_start(smooth) - share * (level_at_start(smooth) - smooth[bottom])
    above = np.flatnonzero(smooth[: bottom + 1] > level)
    if not len(above) or above[-1] == bottom:
        return float(rates[bottom])
    i = int(above[-1])
    part = (smooth[i] - level) / (smooth[i] - smooth[i + 1])
    return float(rates[i] * (rates[i + 1] / rates[i]) ** part)


class _Seen:
    """A curve as the rule sees it: rates above 0, rows that end where they diverged."""

    def __init__(self, curve: RangeCurve) -> None:
        zeros = sum(rate <= 0.0 for rate in curve.rates)  # a linear ramp may begin at 0
        kept = sorted(until_diverged(row)[zeros:] for row in curve.losses)
        rates = curve.rates[zeros:]
        length = sorted(map(len, kept))[len(kept) // 2]
        self.diverged = sum(len(row) < len(rates) for row in kept)
        self.rates = np.array(rates[:length])
        self._repeats = len(kept)
        self._rows = np.array(
            [_filled(row, length) for row in kept if row]
        )  # one of none: no curve
        if length >= _LEAST:
            self._smoother = Smoother(length)
            self._capped = np.minimum(self._rows, [[level_at_start(r)] for r in self._rows])
            self.smooth = self._smoother(self._capped)

    def no_answer(self) -> str:
        """Say why the curve holds no answer; nothing where it does."""
        if len(self.rates) < _LEAST:
            if self.diverged:
                at = f"at {_rate(self.rates[-1])}" if len(self.rates) else "at once"
                return f"the loss diverged {at}, before {_LEAST} steps; start lower"
            told = f"it has {len(self.rates)} steps, and {_LEAST} are needed to tell a fall"
            return f"the curve is too short: {told}"
        fall = self._fall()
        clear = max(_CLEAR * self._uncertain(), _DIGITS * abs(level_at_start(self.smooth)))
        if fall > clear:
            return ""
        told = f"the loss falls by {spoken(fall)}, and noise alone may look like {spoken(clear)}"
        rises = self._rises_from()
        end = f"it rises from {_rate(rises)} on" if rises else "no rate that was tried moves it"
        return f"{told}; {end}"

    def others(self) -> Iterator[Array]:
        """Give smooth curves that might have been seen as well."""
        return self._smoother.again(self._capped, self._noise(), _RESAMPLED)

    def still_falls(self) -> bool:
        """Tell whether the loss was still falling where the ramp ended."""
        tenth = max(len(self.smooth) // 10, 2)
        fell = float(self.smooth[-2 * tenth : -tenth].mean() - self.smooth[-tenth:].mean())
        return not self.diverged and fell > max(_SHARP * self._fall(), 2 * self._uncertain())

    def told(self, share: float) -> str:
        """Say what the curve shows."""
        bottom = int(self.smooth.argmin())
        start, least = spoken(level_at_start(self.smooth)), spoken(float(self.smooth[bottom]))
        told = f"the loss falls from {start} to {least} at {_rate(self.rates[bottom])}"
        told += f", by {share:.0%} of that at the rate suggested"
        if self.still_falls():
            return f"{told}; it still fell where the ramp ended: go on to larger rates"
        if self.diverged:
            count, of = self.diverged, self._repeats
            which = "" if of == 1 else f" in {count} of {of} repeats"
            return f"{told}; it diverged by {_rate(self.rates[-1])}{which}"
        rise = float(self.smooth[-1] - self.smooth[bottom])
        stays = rise < max(_SHARP * self._fall(), _CLEAR * self._uncertain())
        return f"{told}; beyond, it " + ("stays there to the end of the ramp" if stays else "rises")

    def _fall(self) -> float:
        return level_at_start(self.smooth) - float(self.smooth.min())

    def _noise(self) -> float:
        """Give the standard deviation of one loss, from how far it is off its neighbours' line."""
        bent = np.abs(np.diff(self._rows, n=2))
        return NORMAL * float(np.median(bent)) / math.sqrt(6)

    def _uncertain(self) -> float:
        """Give the standard deviation of the smooth curve."""
        return self._noise() * self._smoother.error / math.sqrt(len(self._rows))

    def _rises_from(self) -> float | None:
        """Give the first rate from which on the loss lies above where it began."""
        whole = self._smoother(self._rows)
        above = whole > level_at_start(whole) + _CLEAR * self._uncertain()
        if not above[-1]:
            return None
        return float(self.rates[len(above) - int(np.argmin(above[::-1]))])


def _filled(row: list[float], length: int) -> list[float]:
    """Let a repeat that diverged early stay at its worst: it took part, and it failed."""
    return row[:length] + [max(row)] * (length - len(row))


def _rate(rate: float | None) -> str:
    return "nothing" if rate is None else f"{rate:.2g}"
