"""Which lap is it: exact for whole and for rational lengths, whatever floats say of their products.

391/3 steps per epoch is not a float; counting laps as `floor(t * 3 / 391)` is exact all the same,
and so is a period written 0.1. A lap that grows has no closed form that is exact at the restarts
(timm's and torch's `floor(log(...))` gives the end of a cycle at its first step), so its starts are
tabulated once in decimal arithmetic and searched.
"""

from typing import Any, Final

from stepsize.schedules.formula import Names

_LARGEST_DENOMINATOR: Final = 1 << 26  # t * q stays exact in float64 up to t = 2**27 = 134 million
_MOST_LAPS: Final = 10_000


def ratio(x: float) -> tuple[float, float]:
    """Give the simplest p, q with p/q == x in floating point, or x, 1 where there is none.

    >>> ratio(391 / 3), ratio(0.1), ratio(97.75), ratio(1000.0)
    ((391.0, 3.0), (1.0, 10.0), (391.0, 4.0), (1000.0, 1.0))
    """
    from fractions import Fraction  # noqa: PLC0415 (keeps the import of the library light)

    for digits in (4, 10, 16, 22, 26):
        near = Fraction(x).limit_denominator(1 << digits)
        if near.numerator / near.denominator == x:
            return float(near.numerator), float(near.denominator)
    return x, 1.0


def laps(t: Any, every: float, xp: Names) -> Any:
    """How many whole laps of length `every` are over at t >= 0."""
    p, q = ratio(every)
    return xp.floor(_times(t, q) / p)


def since_lap(t: Any, lap: Any, every: float) -> Any:
    """How long ago, at t, a lap began: exact for whole t, whatever the length."""
    p, q = ratio(every)
    return _over(_times(t, q) - lap * p, q)


def lap_start(lap: Any, every: float) -> Any:
    """When a lap begins."""
    p, q = ratio(every)
    return _over(lap * p, q)


def _times(x: Any, q: float) -> Any:
    return x if q == 1.0 else x * q


def _over(x: Any, q: float) -> Any:
    return x if q == 1.0 else x / q


def growing_starts(every: float, growth: float, most: int) -> tuple[float, ...]:
    """Give the starts of laps of lengths `every * growth**n`, as their decimals say, up to 2**53.

    At most `most` laps, and at most 10,000, which only a growth below 1.004 needs before 2**53. The
    entry after the last lap's start is its end.
    """
    from decimal import Decimal, localcontext  # noqa: PLC0415 (as above)

    with localcontext() as context:
        context.prec = 50
        p, q = ratio(every)
        length, start = Decimal(p) / Decimal(q), Decimal(0)
        factor = Decimal(repr(growth))
        starts = [0.0]
        longest = length * Decimal(10) ** 300  # growth**n must stay a float
        while len(starts) <= min(most, _MOST_LAPS) and start < Decimal(2**53) and length < longest:
            start += length
            length *= factor
            starts.append(float(start))
    return tuple(starts)
