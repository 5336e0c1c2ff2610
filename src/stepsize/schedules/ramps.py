"""Ramps: schedules of finite length from `start` to `stop`, each one curve on the unit square.

A curve gives the part `gone` and the part `left`, each without cancellation, from `u` (time gone)
and `v` (time left, `u + v = 1`); the value is `start * left + stop * gone`. So both ends are exact,
and one step before the end of 1e9 the value is as accurate as anywhere (there `1 + cos` is off by
100 %).
"""

import abc
import math
from typing import Annotated, Any, ClassVar

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds, Count, Length, Positive, Value
from stepsize.schedules.formula import Names
from stepsize.schedules.schedule import Schedule, schedule
from stepsize.units import plain

Pair = tuple[Any, Any]


class Ramp(Schedule):
    """A schedule with a length `over`, a first value `start` and a last value `stop`.

    `over` may be left out in a sequence or at the top: the ramp then takes the rest of the horizon.
    """

    __slots__ = ()
    over: Length
    start: Value
    stop: Value

    @abc.abstractmethod
    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        """Give the part gone and the part left at u (time gone) and v = 1 - u (time left)."""

    @property
    def duration(self) -> float:
        """The field `over`."""
        return plain(self.over, f"{type(self).__name__}.over")

    @property
    def range(self) -> tuple[float, float]:
        """Between start and stop."""
        return (min(self.start, self.stop), max(self.start, self.stop))

    def _value(self, t: Any, xp: Names) -> Any:
        over = self.duration
        x = xp.clip(t, 0.0, over)
        return mix(self.start, self.stop, self._parts(x / over, (over - x) / over, xp))


def mix(start: float, stop: float, parts: Pair) -> Any:
    """Give `start * left + stop * gone`, without what is multiplied by 0."""
    gone, left = parts
    before = left if start == 1.0 else start * left
    return before if stop == 0.0 else before + stop * gone


def _half_wave(u: Any, v: Any, xp: Names) -> Pair:
    """Give (1 - cos(pi u))/2 and (1 + cos(pi u))/2; near an end as the squared sine from there."""

    def from_start() -> Pair:
        gone = xp.sin(0.5 * xp.pi * u)
        gone = gone * gone
        return gone, 1.0 - gone

    def from_end() -> Pair:
        left = xp.sin(0.5 * xp.pi * v)
        left = left * left
        return 1.0 - left, left

    def between() -> Pair:
        half = 0.5 * xp.cos(xp.pi * u)
        return 0.5 - half, 0.5 + half

    return xp.choose(  # type: ignore[no-any-return]  # a pair, as its branches
        u < 0.25,  # noqa: PLR2004 (cos has no cancellation in the middle half)
        from_start,
        lambda: xp.choose(v < 0.25, from_end, between),  # noqa: PLR2004
    )


def _raised(gone: Any, left: Any, power: float, xp: Names) -> Pair:
    """Give 1 - left**power and left**power, the first without cancellation."""
    if power == 1.0:
        return gone, left

    def near_the_start() -> Any:
        return -xp.expm1(power * xp.log1p(-xp.clip(gone, 0.0, 0.5)))

    def far_from_it() -> Any:
        if power > 0.25:  # noqa: PLR2004 (then left**power is below 0.85 here)
            return 1.0 - xp.power(left, power)
        logarithm = xp.log(xp.clip(left, 1e-300, 1.0))
        return xp.choose(left > 0.0, lambda: -xp.expm1(power * logarithm), lambda: 1.0)

    return xp.choose(gone < left, near_the_start, far_from_it), xp.power(left, power)


@schedule
class Linear(Ramp):
    """A straight line from `start` to `stop`.

    `start * (1 - t/over) + stop * t/over`. The default of BERT-like fine-tuning after a warmup;
    "D2Z" when it ends at 0.

    Source: polynomial decay with power 1; Bergsma et al. 2025 for decay to zero.

    >>> Linear(100)(75), Linear(100, stop=0.1)(100), Linear(4, start=0.01, stop=1.0)(2)
    (0.25, 0.1, 0.505)
    """

    kind: ClassVar[str] = "linear"
    over: Length = "rest"
    start: Value = 1.0
    stop: Value = 0.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        del xp
        return u, v


@schedule
class Polynomial(Ramp):
    """Polynomial decay: the part left is `(1 - t/over) ** power`.

    `stop + (start - stop) * (1 - t/over)**power`. With `stop` above 0 and power 1.2 or 1.5 it is
    the power cooldown with a floor. As a warmup's `along` (run backwards) power 2 is the quadratic
    warmup. torch's PolynomialLR is the case `stop=0`.

    Source: Caffe `poly`; torch PolynomialLR.

    >>> Polynomial(100, power=2)(50), Polynomial(100, power=1.5, stop=0.005)(100)
    (0.25, 0.005)
    """

    kind: ClassVar[str] = "polynomial"
    over: Length = "rest"
    power: Positive = 2.0
    start: Value = 1.0
    stop: Value = 0.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        return _raised(u, v, self.power, xp)


@schedule
class Cosine(Ramp):
    """Cosine annealing: the part left is `((1 + cos(pi * t/over)) / 2) ** power`.

    Past `over` it holds `stop` (torch's CosineAnnealingLR climbs back up). `power` is optax's
    exponent. `half_waves` counts half periods: with an odd number the ramp ends at `stop`, with an
    even one where it began (transformers' `num_cycles` is half of it).

    Source: Loshchilov and Hutter 2016 (arXiv 1608.03983), equation 5, for one run.

    >>> Cosine(100)(50), Cosine(100, stop=0.01)(150), Cosine(100, half_waves=3)(100)
    (0.5, 0.01, 0.0)
    """

    kind: ClassVar[str] = "cosine"
    over: Length = "rest"
    start: Value = 1.0
    stop: Value = 0.0
    power: Positive = 1.0
    half_waves: Count = 1

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        if self.half_waves == 1:
            return _raised(*_half_wave(u, v, xp), self.power, xp)
        # The wave that u is in; counted from the nearer end, which is exact at both ends.
        waves = float(self.half_waves)
        x = xp.choose(u < v, lambda: waves * u, lambda: waves * v)
        number = xp.clip(xp.floor(x), 0.0, waves - 1.0)
        inner = _half_wave(x - number, number + 1.0 - x, xp)
        odd = number - 2.0 * xp.floor(0.5 * number)
        if self.half_waves % 2:  # seen from the end, the wave starts at `stop`
            odd = xp.where(u < v, odd, 1.0 - odd)
        gone = xp.where(odd < 0.5, inner[0], inner[1])  # noqa: PLR2004 (odd is 0 or 1)
        left = xp.where(odd < 0.5, inner[1], inner[0])  # noqa: PLR2004
        return _raised(gone, left, self.power, xp)


@schedule
class OneMinusSqrt(Ramp):
    """The 1-sqrt cooldown: the part left is `1 - sqrt(t/over)`.

    Source: Haegele et al. 2024 (arXiv 2405.18392), the cooldown that beats linear at 20 %.

    >>> OneMinusSqrt(100)(25), OneMinusSqrt(100)(100)
    (0.5, 0.0)
    """

    kind: ClassVar[str] = "one_minus_sqrt"
    over: Length = "rest"
    start: Value = 1.0
    stop: Value = 0.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        root = xp.sqrt(u)
        return root, v / (1.0 + root)


@schedule
class OneMinusSquare(Ramp):
    """The square cooldown: the part left is `1 - (t/over)**2`; late and steep.

    Source: Haegele et al. 2024 (arXiv 2405.18392), among the cooldown shapes compared.

    >>> OneMinusSquare(100)(50), OneMinusSquare(100, stop=0.1)(100)
    (0.75, 0.1)
    """

    kind: ClassVar[str] = "one_minus_square"
    over: Length = "rest"
    start: Value = 1.0
    stop: Value = 0.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        del xp
        return u * u, v * (1.0 + u)


@schedule
class MirrorCosine(Ramp):
    """The cosine mirrored at the straight line: the part left is `2(1-x) - (1 + cos(pi x))/2`.

    Source: Haegele et al. 2024 (arXiv 2405.18392), among the cooldown shapes compared.

    >>> MirrorCosine(100)(50), MirrorCosine(100)(100)
    (0.5, 0.0)
    """

    kind: ClassVar[str] = "mirror_cosine"
    over: Length = "rest"
    start: Value = 1.0
    stop: Value = 0.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        gone, left = _half_wave(u, v, xp)
        return xp.choose(  # type: ignore[no-any-return]  # a pair, as its branches
            u < v,
            lambda: (2.0 * u - gone, 1.0 - (2.0 * u - gone)),
            lambda: (1.0 - (2.0 * v - left), 2.0 * v - left),
        )


@schedule
class Geometric(Ramp):
    """The exponential ramp: equal ratios in equal times, from `start` to `stop`, both above 0.

    `start * (stop/start) ** (t/over)`; the ramp of the learning-rate range test, and the
    exponential cooldown of WSD.

    Source: the range test as in fastai (Gugger 2018), `q = (stop/start)**(1/N)`.

    >>> round(Geometric(2, start=1e-4, stop=1.0)(1), 12), Geometric(100)(100)
    (0.01, 0.01)
    """

    kind: ClassVar[str] = "geometric"
    over: Length = "rest"
    start: Positive = 1.0
    stop: Positive = 0.01

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        # Parts of a product, not of a sum: from the nearer end, so that both ends are exact.
        rate = math.log(self.stop) - math.log(self.start)
        return xp.choose(  # type: ignore[no-any-return]  # a pair, as its branches
            u < v,
            lambda: (0.0, xp.exp(rate * u)),
            lambda: (xp.exp(-rate * v), 0.0),
        )


@schedule
class Harmonic(Ramp):
    """The inverse of the value is linear: `1 / ((1-x)/start + x/stop)`, both ends above 0.

    Source: the decay of WSD-S, Wen et al. 2024 (arXiv 2410.05192); the formula is recalled, its
    text was not read.

    >>> Harmonic(100, stop=0.1)(50), Harmonic(100, stop=0.1)(100)
    (0.18181818181818182, 0.1)
    """

    kind: ClassVar[str] = "harmonic"
    over: Length = "rest"
    start: Positive = 1.0
    stop: Positive = 0.1

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        del xp
        whole = u * self.start + v * self.stop
        return u * self.start / whole, v * self.stop / whole


@schedule
class Rex(Ramp):
    """REX: the part left is `(1 - x) / (1 - x/2)`, slow first and fast at the end.

    Source: Chen, Wolfe and Kyrillidis 2021, "REX: Revisiting Budgeted Training" (the form of
    pytorch_optimizer; the paper's text was not read).

    >>> Rex(100)(50), Rex(100)(100)
    (0.6666666666666666, 0.0)
    """

    kind: ClassVar[str] = "rex"
    over: Length = "rest"
    start: Value = 1.0
    stop: Value = 0.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        del xp
        return u / (1.0 + v), 2.0 * v / (1.0 + v)


@schedule
class Tanh(Ramp):
    """Hyperbolic-tangent decay: the part left follows `1 - tanh(z)`, z from `low` to `high`.

    The curve is scaled to run exactly from `start` to `stop`. The paper leaves it unscaled, so that
    it ends at `(1 - tanh(high))/2` of the peak (0.00247 for 3): give `stop=0.00247` for that.

    Source: Hsueh et al. 2018, "Stochastic Gradient Descent with Hyperbolic-Tangent Decay"
    (defaults L=-6, U=3 as quoted by timm, which itself uses -7 and 3).

    >>> round(Tanh(100)(50), 6), Tanh(100)(100)
    (0.952462, 0.0)
    """

    kind: ClassVar[str] = "tanh"
    over: Length = "rest"
    low: Annotated[float, Bounds(ge=-100, le=100)] = -6.0
    high: Annotated[float, Bounds(ge=-100, le=100)] = 3.0
    start: Value = 1.0
    stop: Value = 0.0

    def _check(self) -> None:
        if self.low >= self.high:
            raise FieldError.of("Tanh.low", f"below high ({self.high:g})", self.low)

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        # tanh a - tanh b = sinh(a-b) / (cosh a cosh b): differences without cancellation
        width, z = self.high - self.low, v * self.low + u * self.high
        below = math.sinh(width) * (xp.exp(z) + xp.exp(-z))
        return (
            2.0 * math.cosh(self.high) * _sinh(width * u, xp) / below,
            2.0 * math.cosh(self.low) * _sinh(width * v, xp) / below,
        )


def _sinh(x: Any, xp: Names) -> Any:
    return 0.5 * (xp.expm1(x) - xp.expm1(-x))


@schedule
class KDecay(Ramp):
    """k-decay of the cosine: the cosine at `(t/over)**k`; k above 1 stays high for longer.

    Source: Zhang and Li 2020 (arXiv 2004.05909), as in timm's `k_decay`.

    >>> KDecay(100, k=1)(50), round(KDecay(100, k=2)(50), 6)
    (0.5, 0.853553)
    """

    kind: ClassVar[str] = "k_decay"
    over: Length = "rest"
    k: Positive = 2.0
    start: Value = 1.0
    stop: Value = 0.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        ahead, behind = _raised(v, u, self.k, xp)  # 1 - u**k and u**k
        return _half_wave(behind, ahead, xp)


@schedule
class Logarithmic(Ramp):
    """The part left is `log(1 + bend * (1-x)) / log(1 + bend)`; a larger `bend` falls later.

    Run backwards, as the `along` of a warmup, it is a logarithmic warmup. DeepSpeed's WarmupLR over
    W steps has bend W-1, which `along`, a class, does not set: write it as `Custom`.

    Source: DeepSpeed `runtime/lr_schedules.py`, `log(t+1)/log(W)`.

    >>> Logarithmic(99, bend=99)(0), Logarithmic(99, bend=99)(90)
    (1.0, 0.5)
    """

    kind: ClassVar[str] = "logarithmic"
    over: Length = "rest"
    start: Value = 1.0
    stop: Value = 0.0
    bend: Positive = 100.0

    def _parts(self, u: Any, v: Any, xp: Names) -> Pair:
        whole = math.log1p(self.bend)
        # log((1+bend)/(1+bend*v)) as log1p of the difference
        gone = xp.log1p(self.bend * u / (1.0 + self.bend * v)) / whole
        return xp.choose(  # type: ignore[no-any-return]  # a pair, as its branches
            u < v,
            lambda: (gone, 1.0 - gone),
            lambda: (gone, xp.log1p(self.bend * v) / whole),
        )
