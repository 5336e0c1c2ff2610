"""Decays: schedules without an end. They start at 1 and never need a horizon."""

import math
from typing import Any, ClassVar

from stepsize.schedules.cycles import lap_start, laps, since_lap
from stepsize.schedules.fields import Fraction01, Length, Moments, OptionalLength, Positive, Value
from stepsize.schedules.formula import Names
from stepsize.schedules.schedule import Schedule, schedule
from stepsize.units import plain


class Decay(Schedule):
    """A schedule without an end, between 0 and 1."""

    __slots__ = ()

    @property
    def duration(self) -> float:
        """Endless."""
        return math.inf

    @property
    def range(self) -> tuple[float, float]:
        """Between 0 and 1."""
        return (0.0, 1.0)


@schedule
class Step(Decay):
    """Step decay: times `factor` every so often, `factor ** floor(t / every)`.

    The drop takes effect at t = every (the convention of torch, optax and Keras' ExponentialDecay;
    Keras' PiecewiseConstantDecay drops one step later). The staircase form of exponential decay is
    this same function.

    Source: torch StepLR; the step decay of ResNet and most CNNs.

    The ImageNet recipe of pytorch/examples, rate 0.1 and x0.1 every 30 of 90 epochs:

    >>> resnet = Step(30, factor=0.1).absolute(0.1)
    >>> [round(resnet(epoch), 12) for epoch in (0, 29, 30, 60)]
    [0.1, 0.1, 0.01, 0.001]
    """

    kind: ClassVar[str] = "step"
    every: Length
    factor: Fraction01 = 0.1

    def _value(self, t: Any, xp: Names) -> Any:
        done = laps(xp.clip(t, 0.0, math.inf), plain(self.every, "Step.every"), xp)
        return xp.power(self.factor, done)


@schedule
class MultiStep(Decay):
    """Times `factor` at each of the moments `at`; a moment given twice counts twice.

    `factor ** (how many moments are <= t)`: the drop takes effect at the moment itself.

    Source: torch MultiStepLR.

    >>> MultiStep((30, 60, 60), factor=0.5)(29), MultiStep((30, 60, 60), factor=0.5)(60)
    (1.0, 0.125)
    """

    kind: ClassVar[str] = "multi_step"
    at: Moments
    factor: Fraction01 = 0.1

    @property
    def range(self) -> tuple[float, float]:
        """From 1 to the factor to the number of moments."""
        return (self.factor ** len(self.at), 1.0)

    def _value(self, t: Any, xp: Names) -> Any:
        at = tuple(plain(moment, "MultiStep.at") for moment in self.at)
        values = tuple(self.factor**n for n in range(len(at) + 1))
        return xp.take(values, xp.search(at, t))


@schedule
class Exponential(Decay):
    """Exponential decay: `factor ** (t / every)`.

    The half-life is `every * ln 2 / -ln factor`: 13.5 for 0.95, 69 for 0.99. The steps sum to
    `1/(1 - factor)` times `every` and no more: with bounded gradients the parameters can move only
    so far, so a fast decay can freeze far from the optimum (that it "converges
    faster", as is often said, does not follow).

    Source: torch ExponentialLR.

    >>> Exponential(0.95)(10), Exponential(0.5, every=100)(250)
    (0.5987369392383787, 0.1767766952966369)
    >>> round(Exponential(0.95, every=391)(13.5 * 391), 2), round(Exponential(0.99)(69), 2)
    (0.5, 0.5)
    """

    kind: ClassVar[str] = "exponential"
    factor: Fraction01
    every: Length = 1.0

    def _value(self, t: Any, xp: Names) -> Any:
        every = plain(self.every, "Exponential.every")
        return xp.power(self.factor, xp.clip(t, 0.0, math.inf) / every)


@schedule
class PowerLaw(Decay):
    """Power law: `(timescale / (timescale + t)) ** power`; `1/(t+1)**power` at timescale 1.

    Power 0.5 is the inverse square root, power 1 the inverse time decay `1/(1 + t/timescale)`. The
    Robbins-Monro conditions hold iff 1/2 < power <= 1: the inverse square root fails the second one
    (the opposite is often said), and is a good rate for averaged iterates all the same.

    Source: Robbins and Monro 1951 for the conditions; transformers' `inverse_sqrt` for the
    timescale.

    >>> PowerLaw(0.5)(3), PowerLaw(1, timescale=100)(300)
    (0.5, 0.25)
    """

    kind: ClassVar[str] = "power_law"
    power: Positive = 0.5
    timescale: Length = 1.0

    def _value(self, t: Any, xp: Names) -> Any:
        timescale = plain(self.timescale, "PowerLaw.timescale")
        base = timescale / (timescale + xp.clip(t, 0.0, math.inf))
        if self.power == 1.0:
            return base
        return xp.sqrt(base) if self.power == 0.5 else xp.power(base, self.power)  # noqa: PLR2004


@schedule
class CycledPolynomial(Decay):
    """Polynomial decay that never ends: past its end the length becomes the next multiple.

    `stop + (1 - stop) * (1 - t / (n * over)) ** power` with `n = ceil(t / over)`, at least 1: it
    reaches `stop` at every multiple of `over` and jumps up after it, each time less high.

    Source: Keras PolynomialDecay and Paddle with `cycle=True`. (A decay that starts again from the
    top is `Polynomial(...).repeated()`, timm's cycles.)

    >>> curve = CycledPolynomial(100, power=1.0, stop=0.1)
    >>> curve(50), curve(100), curve(150), curve(200)
    (0.55, 0.1, 0.325, 0.1)
    """

    kind: ClassVar[str] = "cycled_polynomial"
    over: Length
    power: Positive = 1.0
    stop: Value = 0.0

    @property
    def range(self) -> tuple[float, float]:
        """Between 1 and stop."""
        return (min(self.stop, 1.0), max(self.stop, 1.0))

    def _value(self, t: Any, xp: Names) -> Any:
        over = plain(self.over, "CycledPolynomial.over")
        x = xp.clip(t, 0.0, math.inf)
        number = xp.clip(-laps(-x, over, xp), 1.0, math.inf)  # ceil as -floor(-x)
        left = -since_lap(x, number, over) / lap_start(number, over)
        part = xp.power(xp.clip(left, 0.0, 1.0), self.power)
        return part + self.stop * (1.0 - part)


@schedule
class ExponentialWarmup(Decay):
    """A warmup without an end, to multiply with: `1 - exp(-(t + lead) / timescale)`.

    With timescale `1/(1-beta2)` it is Ma and Yarats' untuned exponential warmup for Adam. `lead` is
    one optimizer step by default (or the `every` of the `held` around it), so that the first value
    is not 0.

    Source: Ma and Yarats 2019 (arXiv 1910.04209), as in Tony-Y/pytorch_warmup.

    >>> round(ExponentialWarmup(10)(0), 6), round(ExponentialWarmup(10)(99), 6)
    (0.095163, 0.999955)
    """

    kind: ClassVar[str] = "exponential_warmup"
    timescale: Length
    lead: OptionalLength = None

    def _quantized(self, quantum: float) -> Schedule | None:
        return ExponentialWarmup(self.timescale, quantum) if self.lead is None else self

    def _value(self, t: Any, xp: Names) -> Any:
        timescale = plain(self.timescale, "ExponentialWarmup.timescale")
        lead = 1.0 if self.lead is None else plain(self.lead, "ExponentialWarmup.lead")
        return -xp.expm1(-(xp.clip(t, 0.0, math.inf) + lead) / timescale)
