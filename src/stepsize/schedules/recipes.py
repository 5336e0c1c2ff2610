"""Schedules by the names that papers and libraries use: functions that return trees of families.

Lengths are steps or texts with units; where a formula counts single steps (`noam`, `one_cycle` and
`slanted_triangular` with a length) they are numbers of steps. `over=None` means the horizon's rest.
"""

import math
from typing import TYPE_CHECKING, Literal

from stepsize.errors import FieldError
from stepsize.schedules.decays import Exponential, ExponentialWarmup, MultiStep, PowerLaw
from stepsize.schedules.fields import Bounds
from stepsize.schedules.plan import Plan
from stepsize.schedules.ramps import (
    Cosine,
    Geometric,
    Linear,
    Ramp,
)
from stepsize.schedules.schedule import Schedule
from stepsize.schedules.timing import Repeated
from stepsize.schedules.warmup import Constant, Warmup, ramp_class
from stepsize.units import REST, Time, parse

if TYPE_CHECKING:
    from collections.abc import Callable

Text = float | str | Time
Shape = type[Ramp] | str


def inverse_sqrt(timescale: Text = 1.0) -> Schedule:
    """Inverse square root decay: `sqrt(timescale / (timescale + t))`; `1/sqrt(t+1)` by default.

    Source: PowerLaw with power 1/2; it fails the second Robbins-Monro condition (see `PowerLaw`).

    >>> inverse_sqrt()(3), inverse_sqrt(1000)(3000)
    (0.5, 0.5)
    """
    return PowerLaw(0.5, timescale)


def inverse_time(timescale: Text = 1.0) -> Schedule:
    """Inverse time decay: `1 / (1 + t/timescale)`; satisfies the Robbins-Monro conditions.

    Source: Robbins and Monro 1951; Keras InverseTimeDecay with `timescale = steps / rate`.

    >>> inverse_time(100)(300)
    0.25
    """
    return PowerLaw(1.0, timescale)


def half_life(every: Text) -> Schedule:
    """Exponential decay that halves every so often.

    Source: elementary; see `Exponential`.

    >>> half_life(100)(300)
    0.125
    """
    return Exponential(0.5, every=every)


def warmup_cosine(warmup: Text, over: Text = REST, *, stop: float = 0.0) -> Schedule:
    """Warmup, then cosine: transformer pretraining, ViT.

    Source: transformers `get_cosine_schedule_with_warmup`.

    >>> warmup_cosine("5%", stop=0.1)
    Warmup('5%') >> Cosine(stop=0.1)

    A linear warmup from 0.01 over 1000 of 5000 steps: the cosine lasts 4000 *steps* (subtracting
    1000 steps from a number of epochs, as is sometimes written, makes torch's rate rise again):

    >>> schedule = (Warmup(1000, start=0.01) >> Cosine(5000 - 1000)).absolute(1e-3)
    >>> [round(schedule(t), 10) for t in (0, 500, 1000, 3000, 5000)]
    [1e-05, 0.000505, 0.001, 0.0005, 0.0]
    """
    return Warmup(warmup) >> Cosine(over, stop=stop)


def warmup_linear(warmup: Text, over: Text = REST, *, stop: float = 0.0) -> Schedule:
    """Warmup, then linear decay: BERT and GPT fine-tuning.

    Source: transformers `get_linear_schedule_with_warmup`.

    >>> warmup_linear("10%")
    Warmup('10%') >> Linear()
    """
    return Warmup(warmup) >> Linear(over, stop=stop)


def warmup_step(
    warmup: Text, at: tuple[Text, ...] = ("30ep", "60ep", "80ep"), *, factor: float = 0.1
) -> Schedule:
    """Warmup, then step decay at moments counted from the start of training.

    Source: Goyal et al. 2017 (arXiv 1706.02677): drops at epochs 30, 60 and 80 after a warmup.

    >>> schedule = warmup_step(5, at=(30, 60))
    >>> schedule(5), schedule(29), schedule(30)
    (1.0, 1.0, 0.1)
    """
    return Warmup(warmup) * MultiStep(at, factor=factor)


def warmup_inverse_sqrt(warmup: Text) -> Schedule:
    """Warmup, then inverse square root with the warmup's length as timescale.

    Source: transformers `get_inverse_sqrt_schedule`, whose warmup starts at 0.

    >>> warmup_inverse_sqrt(1000)(4000)
    0.5
    """
    return Warmup(warmup) >> inverse_sqrt(warmup)


def noam(d_model: int, warmup: int) -> Schedule:
    """The Transformer's schedule: `d_model**-0.5 * min(s**-0.5, s * warmup**-1.5)`, s = t + 1.

    Absolute. Rises linearly to its peak `(d_model * warmup)**-0.5` at the step number `warmup`
    (t = warmup - 1), then falls as the inverse square root.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 3.

    >>> f"{noam(512, 4000)(3999):.5e}", f"{noam(512, 4000)(99999):.4e}"
    ('6.98771e-04', '1.3975e-04')
    """
    whole = Bounds(ge=1, whole=True)
    width, steps = whole.admit("noam.d_model", d_model), whole.admit("noam.warmup", warmup)
    fall = inverse_sqrt(steps)
    rise_and_fall = Linear(steps - 1, start=1 / steps, stop=1.0) >> fall if steps > 1 else fall
    return rise_and_fall.absolute((width * steps) ** -0.5)


def untuned_warmup(
    beta2: float = 0.999, *, shape: Literal["linear", "exponential"] = "linear"
) -> Schedule:
    """The warmup that Adam's beta2 asks for, to multiply with: nothing to tune.

    Linear over `2/(1-beta2)` steps, or exponential with timescale `1/(1-beta2)`. Its first values
    are `(t+1)/W` and `1 - exp(-(t+1)/W)`.

    Source: Ma and Yarats 2019 (arXiv 1910.04209), as in Tony-Y/pytorch_warmup.

    >>> schedule = untuned_warmup(0.99) * Cosine(1000)
    >>> round(untuned_warmup(0.99)(0), 12), untuned_warmup(0.99)(199)
    (0.005, 1.0)
    """
    beta2 = float(Bounds(ge=0, lt=1).admit("untuned_warmup.beta2", beta2))
    if shape == "exponential":
        return ExponentialWarmup(1.0 / (1.0 - beta2))
    if shape != "linear":
        raise FieldError.of("untuned_warmup.shape", "'linear' or 'exponential'", shape)
    steps = 2.0 / (1.0 - beta2)
    return Warmup(steps - 1.0, start=1.0 / steps)


def sgdr(
    every: Text,
    *,
    growth: float = 1.0,
    factor: float = 1.0,
    stop: float = 0.0,
    warmup: Text | None = None,
    times: int | None = None,
) -> Schedule:
    """Cosine annealing with warm restarts.

    Cycles of length `every * growth**n`, peaks `factor**n`, each from its peak down to `stop`,
    optionally with a warmup at the start of each cycle (stretched along with it).

    Source: Loshchilov and Hutter 2016 (arXiv 1608.03983), equation 5; its best single settings
    were T_0 = 10 epochs, T_mult = 2, restarting at 10, 30, 70 epochs.

    >>> [sgdr(10, growth=2)(t) for t in (0, 10, 20, 30, 70)]
    [1.0, 1.0, 0.5, 1.0, 1.0]

    Warmup, then cosine with warm restarts (where strong exploration is wanted):

    >>> Warmup("1ep") >> sgdr("10ep", growth=2)
    Warmup('1ep') >> Repeated(Cosine(), '10ep', growth=2)
    """
    cycle: Schedule = Cosine() if warmup is None else Warmup(warmup) >> Cosine()
    cycles = Repeated(cycle, every, times, growth, factor)
    return cycles.between(stop) if stop else cycles


def one_cycle(
    over: float | None = None,
    *,
    form: Literal["torch", "paper", "fastai"] = "torch",
    rise: float | None = None,
    div: float = 25.0,
    final_div: float | None = None,
    momentum: tuple[float, float] | None = (0.85, 0.95),
) -> Plan:
    """One cycle: the rate up and down again, the momentum inversely; a `Plan`.

    Factors of the maximal rate; momentum is absolute. Total on all t: past its end it holds the
    last value (torch jumps up by two orders of magnitude, then raises).

    | form | phases | rise | final rate |
    | --- | --- | --- | --- |
    | torch | cosine up, cosine down | 0.3 | 1/(div * final_div), final_div 1e4 |
    | paper | linear up, linear down as long, linear annihilation | 0.45 | as torch |
    | fastai | cosine up, cosine down | 0.25 | 1/final_div, final_div 1e5 |

    torch counts phases so that step number `rise * over` has the peak: its boundaries are one step
    earlier than `rise` says (two for the paper's form), and the last of the `over` steps has the
    final value. With `over=None` the phases are percentages of the horizon and end with it.

    Source: Smith 2018 (arXiv 1803.09820), read in the authors' code and summaries; torch
    OneCycleLR; fastai fit_one_cycle. "Linear up, cosine down", as it is sometimes told, is none of
    them.

    >>> cycle = one_cycle(100)
    >>> [round(cycle["lr"](t), 8) for t in (0, 29, 30, 99, 1000)]
    [0.04, 1.0, 0.99949654, 4e-06, 4e-06]
    >>> [round(cycle["momentum"](t), 4) for t in (0, 29, 99)]
    [0.95, 0.85, 0.95]
    """
    if form not in ("torch", "paper", "fastai"):
        raise FieldError.of("one_cycle.form", "'torch', 'paper' or 'fastai'", form)
    rise = {"torch": 0.3, "paper": 0.45, "fastai": 0.25}[form] if rise is None else rise
    most = 0.5 if form == "paper" else 1.0
    rise = float(Bounds(gt=0, lt=most).admit("one_cycle.rise", rise))
    div = float(Bounds(gt=1).admit("one_cycle.div", div))
    final_div = (1e5 if form == "fastai" else 1e4) if final_div is None else final_div
    final_div = float(Bounds(gt=1).admit("one_cycle.final_div", final_div))
    low, final = 1.0 / div, 1.0 / (final_div if form == "fastai" else div * final_div)
    if form == "paper":
        up, down, end = _lengths(over, (rise, rise, None))
        lr = (
            Linear(up, start=low, stop=1.0)
            >> Linear(down, stop=low)
            >> Linear(end, start=low, stop=final)
        )
    else:
        up, end = _lengths(over, (rise, None))
        lr = Cosine(up, start=low, stop=1.0) >> Cosine(end, stop=final)
    if momentum is None:
        return Plan(lr=lr)
    slow, fast = _pair(momentum)
    if form == "paper":
        inverse = Linear(up, start=fast, stop=slow) >> Linear(down, start=slow, stop=fast)
        inverse = inverse >> Constant(end, fast)
    else:
        inverse = Cosine(up, start=fast, stop=slow) >> Cosine(end, start=slow, stop=fast)
    return Plan(lr=lr, momentum=inverse.absolute())


def _pair(momentum: object) -> tuple[float, float]:
    if not isinstance(momentum, tuple | list) or len(momentum) != 2:  # noqa: PLR2004 (low and high)
        raise FieldError.of("one_cycle.momentum", "a pair such as (0.85, 0.95), or None", momentum)
    low, high = (float(Bounds(ge=0).admit("one_cycle.momentum", x)) for x in momentum)
    return low, high


def _lengths(over: float | None, shares: tuple[float | None, ...]) -> list[Text]:
    """Give the lengths of one-cycle's phases: percentages, or torch's steps."""
    if over is None:
        return [REST if share is None else Time(100.0 * share, "%") for share in shares]
    total = float(Bounds(gt=2).admit("one_cycle.over", over))
    lengths: list[Text] = []
    for share in shares:
        used = math.fsum(x for x in lengths if isinstance(x, float))
        lengths.append(max(total * share - 1.0, 0.0) if share is not None else total - 1.0 - used)
    if any(isinstance(x, float) and x <= 0 for x in lengths):
        cure = "make the run longer"
        raise FieldError.of("one_cycle.over", "long enough for a step in every phase", over, cure)
    return lengths


def cyclic(
    half: Text,
    *,
    low: float = 0.1,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 0.99994,
    both_bounds: bool = False,
) -> Schedule:
    """Cyclical rates: up from `low` to 1 in `half`, down again in `half`, for ever.

    `triangular2` halves the amplitude after each cycle; `exp_range` shrinks it by `gamma` per step:
    the amplitude alone as torch does, or both bounds as the paper says (`both_bounds`).

    Source: Smith 2015 (arXiv 1506.01186); half-cycles of 2 to 10 epochs, at least 3 cycles.

    >>> wave = cyclic(4, low=0.2)
    >>> wave(0), wave(4), wave(6), cyclic(4, low=0.2, mode="triangular2")(12)
    (0.2, 1.0, 0.6000000000000001, 0.6000000000000001)
    """
    low = float(Bounds(ge=0, lt=1).admit("cyclic.low", low))
    if mode not in ("triangular", "triangular2", "exp_range"):
        raise FieldError.of("cyclic.mode", "'triangular', 'triangular2' or 'exp_range'", mode)
    if mode == "exp_range" and both_bounds:
        tooth = Linear(half, start=low, stop=1.0) >> Linear(half, start=1.0, stop=low)
        return tooth.repeated() * Exponential(gamma)
    triangle = Linear(half, start=0.0, stop=1.0) >> Linear(half)
    wave = triangle.repeated(factor=0.5 if mode == "triangular2" else 1.0)
    return (wave * Exponential(gamma) if mode == "exp_range" else wave).between(low)


def slanted_triangular(over: float, *, rise: float = 0.1, ratio: float = 32.0) -> Schedule:
    """Up in the first `rise` of the run, then a long way down; from 1/ratio and to 1/ratio.

    Source: Howard and Ruder 2018 (ULMFiT, arXiv 1801.06146), section 3.2.

    >>> curve = slanted_triangular(1000)
    >>> curve(0), curve(100), curve(1000)
    (0.03125, 1.0, 0.03125)
    """
    total = float(Bounds(gt=1).admit("slanted_triangular.over", over))
    rise = float(Bounds(gt=0, lt=1).admit("slanted_triangular.rise", rise))
    low = 1.0 / float(Bounds(ge=1).admit("slanted_triangular.ratio", ratio))
    up = max(math.floor(total * rise), 1)
    return Linear(up, start=low, stop=1.0) >> Linear(total - up, stop=low)


def wsd(
    warmup: Text = "5%", cooldown: Text = "20%", *, along: Shape = Linear, stop: float = 0.0
) -> Schedule:
    """Warmup, stable, decay (also: trapezoid): `along` is the shape of the cooldown.

    Source: Hu et al. 2024 (MiniCPM); Haegele et al. 2024 (arXiv 2405.18392) for `OneMinusSqrt`,
    which beats linear at 20 %.

    >>> wsd(along=OneMinusSqrt)
    Warmup('5%') >> Constant('rest') >> OneMinusSqrt('20%')
    """
    ramp: Callable[..., Ramp] = ramp_class("wsd.along", along)
    end = ramp(cooldown) if stop == 0.0 and ramp is not Geometric else ramp(cooldown, stop=stop)
    return Warmup(warmup) >> Constant(REST) >> end


def trapezoid(warmup: Text = "5%", cooldown: Text = "20%") -> Schedule:
    """Linear up, constant, linear down to 0.

    Source: Zhai et al. 2021 (arXiv 2106.04560) among others; `wsd` with a linear cooldown.

    >>> trapezoid()
    Warmup('5%') >> Constant('rest') >> Linear('20%')
    """
    return wsd(warmup, cooldown)


def wsd_s(
    warmup: Text,
    stable: Text,
    cooldown: Text,
    *,
    stop: float = 0.1,
    along: Shape = Linear,
    times: int | None = None,
) -> Schedule:
    """WSD-S: stable and decay again and again, each period going on from the decayed weights.

    Source: Wen et al. 2024 (arXiv 2410.05192); the paper's decay is recalled as `Harmonic`.

    >>> [wsd_s(10, 80, 10)(t) for t in (10, 90, 95, 100, 190)]
    [1.0, 1.0, 0.55, 1.0, 1.0]
    """
    ramp: Callable[..., Ramp] = ramp_class("wsd_s.along", along)
    period = Constant(stable) >> ramp(cooldown, stop=stop)
    return Warmup(warmup) >> period.repeated(times=times)


def infinite(
    warmup: Text,
    cooldown: Text,
    constant: float = 0.5,
    *,
    along: Shape = Cosine,
    anneal: Text | None = None,
    stable: Text | None = None,
    stop: float = 0.01,
) -> Schedule:
    """The infinite schedule: warmup, down to a constant for ever, and a final anneal when wanted.

    Without `anneal` it never ends; with it, `stable` (default: the rest) comes before an
    exponential anneal to `stop`.

    Source: Ibrahim et al. 2024 (arXiv 2403.08763), section on infinite schedules.

    >>> infinite(10, 90, 0.5)(1e6), infinite(10, 90, 0.5, stable=100, anneal=100, stop=0.005)(300)
    (0.5, 0.005)
    """
    ramp: Callable[..., Ramp] = ramp_class("infinite.along", along)
    start = Warmup(warmup) >> ramp(cooldown, stop=constant)
    if anneal is None:
        return start >> Constant(value=constant)
    hold = Constant(REST if stable is None else stable, constant)
    return start >> hold >> Geometric(anneal, start=constant, stop=stop)


def eight_one_one(over: float | None = None, *, warmup: Text | None = None) -> Schedule:
    """8-1-1: full rate for 80 %, 1/sqrt(10) of it for 10 %, a tenth for the last 10 %.

    Source: DeepSeek-AI 2024 (arXiv 2401.02954), multi-step schedule.

    >>> curve = eight_one_one(1000)
    >>> curve(799), round(curve(800), 6), round(curve(900), 6)
    (1.0, 0.316228, 0.1)
    """
    at: tuple[Text, ...] = ("80%", "90%")
    if over is not None:
        total = parse(over, "eight_one_one.over")
        if isinstance(total, Time):
            at = (Time(0.8 * total.amount, total.unit), Time(0.9 * total.amount, total.unit))
        else:
            at = (0.8 * total, 0.9 * total)
    steps = MultiStep(at, factor=10**-0.5)
    return steps if warmup is None else Warmup(warmup) * steps
